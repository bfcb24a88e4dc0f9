//! Several nodes over one store, whose sessions the test writes itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{FutureExt as _, StreamExt as _};
use outlive_core::failover::Member;
use outlive_core::id::{Attempt, BootId, Cursor, NodeId, Position, RunId, RuntimeId, Seq, SessionId};
use outlive_core::log::{Chunk, ChunkKind, Entry};
use outlive_core::runtime::{LaunchSpec, Program, RestartPolicy};
use outlive_core::session::event::{Happened, NewRun, OnRaise, SessionEvent};
use outlive_core::session::spec::{AfterWork, HangPolicy, Place, StartWhen, Trust, Workload};
use outlive_core::session::{Fact, RunOutcome, SessionSpec};
use outlive_core::time::{Now, Tick, WallTime};
use outlive_protocol::http::{Problem, SessionView, StreamEvent};
use outlive_store::{Engine, Memory, MemoryTransport};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::api::{AttachRun, Delivered, Events};
use crate::budget::Budgets;
use crate::bus::LocalBus;
use crate::cluster::{OnIsolation, Settings};
use crate::context::{Context, Seams};
use crate::files::LocalFiles;
use crate::runtimes::LocalRuntimes;
use crate::seams::{Clock, Identity};
use crate::session::journal::{Journal, WriteError};
use crate::watch;
use crate::watch::known::known_run;

pub const PATIENCE: Duration = Duration::from_secs(30);

/// Time as the test's runtime has it, which may stand still.
struct RuntimesClock(Instant);

#[async_trait]
impl Clock for RuntimesClock {
    fn now(&self) -> Now {
        Now { tick: Tick::default() + self.0.elapsed(), wall: WallTime(1), slept: Duration::ZERO }
    }

    async fn until(&self, tick: Tick) {
        tokio::time::sleep_until(self.0 + tick.since(Tick::default())).await;
    }
}

pub fn session() -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(3))
}

pub fn run() -> RunId {
    RunId::from_uuid(Uuid::from_u128(4))
}

/// Another run of the same session.
pub fn other_run() -> RunId {
    RunId::from_uuid(Uuid::from_u128(5))
}

fn identity(n: usize) -> Identity {
    Identity {
        node: NodeId::from_uuid(Uuid::from_u128(100 + n as u128)),
        boot: BootId::from_uuid(Uuid::from_u128(200 + n as u128)),
    }
}

pub fn member(n: usize) -> Member {
    let Identity { node, boot } = identity(n);
    Member { node, boot }
}

/// A node of a cluster over this engine.
pub fn node(n: usize, engine: Arc<dyn Engine>) -> Arc<Context> {
    let nowhere = PathBuf::from("/nonexistent");
    let who = identity(n);
    let clock = Arc::new(RuntimesClock(Instant::now()));
    let runtimes =
        LocalRuntimes::new(nowhere.clone(), nowhere.clone(), who, clock.clone(), TaskTracker::new());
    let settings = Settings {
        name: format!("n{n}"),
        url: None,
        transport: Arc::new(MemoryTransport::default()),
        heart: None,
        kernel_grace: Duration::ZERO,
        on_isolation: OnIsolation::Freeze,
        volumes: BTreeMap::new(),
        is_wide: false,
    };
    let seams = Seams {
        clock,
        engine,
        bus: Arc::new(LocalBus::default()),
        runtimes: Arc::new(runtimes),
        files: Arc::new(LocalFiles::new(nowhere)),
        cluster: Some(settings),
    };
    Arc::new(Context::new(who, seams, Budgets::default()))
}

/// So many nodes over one store.
pub fn nodes(n: usize) -> (Memory, Vec<Arc<Context>>) {
    let store = Memory::default();
    let nodes = (0..n).map(|n| node(n, Arc::new(store.clone()))).collect();
    (store, nodes)
}

/// A node takes the session, from whoever has it.
pub async fn claim(context: &Context, from: Option<usize>) -> Result<Journal, WriteError> {
    Journal::claim(session(), context, from.map(member)).await?.read(|_: &Entry, _| {}).await
}

/// The session with its runs, of node `n`.
pub async fn begin(context: &Context) -> Journal {
    let mut journal = loop {
        match claim(context, None).await {
            Ok(journal) => break journal,
            Err(error) => assert!(matches!(error, WriteError::Store(_) | WriteError::Read(_)), "{error}"),
        }
    };
    let queued = [run(), other_run()].map(|id| NewRun {
        id,
        cell: None,
        cell_id: None,
        source: "1".to_owned(),
        on_raise: OnRaise::Stop,
    });
    for what in [Happened::Created(Box::new(spec())), Happened::RunsQueued(queued.to_vec())] {
        let fact = Fact::Journal(SessionEvent { at: WallTime(1), what });
        journal.fact(&fact, None).await.unwrap();
    }
    journal
}

fn spec() -> SessionSpec {
    SessionSpec {
        id: session(),
        runtime: RuntimeId::from_uuid(Uuid::from_u128(6)),
        workload: Workload::Kernel,
        launch: LaunchSpec {
            program: Program::Command { argv: vec!["k".to_owned()] },
            cwd: "/".to_owned(),
            env: BTreeMap::new(),
            memory_bytes_max: None,
            ready_timeout_ms: 1,
        },
        restart: RestartPolicy::temporary(),
        on_hang: HangPolicy::Report,
        after_work: AfterWork::Keep,
        on_node_loss: Default::default(),
        start: StartWhen::FirstRun,
        place: Place::Fixed,
        trust: Trust::Trusted,
        parameters: BTreeMap::new(),
        created_at: WallTime(1),
    }
}

pub async fn open(journal: &mut Journal, base: Option<u64>) -> Result<Attempt, WriteError> {
    let attempt = journal.fold().run(run()).map_or(Attempt(0), |run| run.attempt()).next();
    let opened = Fact::RunOpened { run: run(), attempt, base: base.map(Seq), at: WallTime(1) };
    journal.fact(&opened, None).await.map(|_| attempt)
}

pub fn chunks(texts: &[String]) -> Vec<Chunk> {
    texts.iter().map(|text| Chunk::inline(ChunkKind::Stdout, WallTime(0), text.as_bytes())).collect()
}

pub async fn print(journal: &mut Journal, texts: &[&str]) {
    let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
    journal.output(run(), chunks(&texts), None).await.unwrap();
}

pub async fn end(journal: &mut Journal) {
    let outcome = RunOutcome::Succeeded;
    let ended = Fact::RunEnded { run: run(), outcome, report: None, execution_count: None, at: WallTime(1) };
    journal.fact(&ended, None).await.unwrap();
}

/// What a client makes of a stream.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// Chunk by chunk.
    pub texts: Vec<String>,
    /// Where it would come back.
    pub cursor: Cursor,
    /// What it was told beside output, by name.
    pub told: Vec<String>,
}

/// A client that watches the run.
pub struct Client {
    pub seen: Seen,
    events: Events,
    resets: Resets,
}

/// What becomes of resets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resets {
    Heeded,
    /// As by a daemon that does not tell them, or a client that does not know them.
    Ignored,
}

impl Client {
    pub async fn attach(context: &Arc<Context>, seen: Seen) -> Result<Self, Problem> {
        watch::may_watch(context)?;
        let known = known_run(context, session(), run()).await?;
        let how = AttachRun { cursor: seen.cursor, follow: true, cancel: false };
        let events = watch::run::attach(context, known, how);
        Ok(Self { seen, events, resets: Resets::Heeded })
    }

    pub fn with(self, resets: Resets) -> Self {
        Self { resets, ..self }
    }

    /// Takes what is there. True when that was all of the stream.
    pub fn take(&mut self) -> bool {
        loop {
            // Not even the runtime's fairness stops it.
            match tokio::task::unconstrained(self.events.next()).now_or_never() {
                None => return false,
                Some(None) => return true,
                Some(Some(told)) => self.tell(told),
            }
        }
    }

    /// Waits for the next event; false at the end of the stream.
    pub async fn next(&mut self) -> bool {
        let next = tokio::time::timeout(PATIENCE, self.events.next()).await;
        match next.unwrap_or_else(|_| panic!("nothing came behind {:?}", self.seen)) {
            Some(told) => {
                self.tell(told);
                true
            }
            None => false,
        }
    }

    pub async fn until_text(&mut self, text: &str) {
        while self.seen.texts.last().is_none_or(|last| last != text) {
            assert!(self.next().await, "the stream ended before {text}: {:?}", self.seen);
        }
    }

    pub async fn until_over(mut self) -> Seen {
        while self.next().await {}
        self.seen
    }

    fn tell(&mut self, Delivered { cursor, event }: Delivered) {
        match event {
            StreamEvent::Output { first, chunks, .. } => {
                for (n, chunk) in chunks.into_iter().enumerate() {
                    let text = chunk.text.expect("the tests print text");
                    if self.resets == Resets::Heeded {
                        let seq = self.seen.texts.len() as u64 + 1;
                        assert_eq!(first.0 + n as u64, seq, "{:?}", self.seen);
                    }
                    self.seen.texts.push(text);
                }
            }
            StreamEvent::Reset { keep, .. } if self.resets == Resets::Heeded => {
                self.seen.texts.truncate(usize::try_from(keep.0).unwrap());
                self.seen.told.push("reset".to_owned());
            }
            StreamEvent::Reset { .. } | StreamEvent::Run { .. } => {}
            StreamEvent::Problem { problem } => self.seen.told.push(problem.code),
            other => self.seen.told.push(other.name().to_owned()),
        }
        if let Some(cursor) = cursor {
            self.seen.cursor = cursor.parse().unwrap();
        }
    }
}

/// The last position of the session's log.
pub async fn head(store: &Memory) -> Position {
    *store.head(session()).await.unwrap().borrow()
}

/// The session's view, as its log says.
pub async fn known(context: &Context) -> SessionView {
    let folded = crate::session::open::load(context, session()).await.unwrap();
    folded.hosted.expect("it was created").view(folded.fold.position())
}
