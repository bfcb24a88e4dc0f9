//! A daemon whose runners are played by the test, over a real store. It can be killed before any of its appends; its
//! runners live on, as behind real shims.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use outlive_core::diagnosis::Evidence;
use outlive_core::diagnosis::evidence::StopEvidence;
use outlive_core::id::{Attempt, BootId, Cursor, NodeId, ProcessKey, RunId, Src};
use outlive_core::limits::CHUNK_BYTES_MAX;
use outlive_core::log::{BlobRef, Chunk, ChunkKind};
use outlive_core::runtime::runner::{Greeting, Phase, Progress, TaskOrder};
use outlive_core::runtime::{ExitReport, ExitStatus, LaunchSpec, Program, RestartPolicy};
use outlive_core::session::RunOutcome;
use outlive_core::session::outcome::CancelWhy;
use outlive_core::session::spec::HangPolicy;
use outlive_core::time::{Now, Tick, WallTime};
use outlive_node::Node;
use outlive_node::api::{Api, AttachRun, Delivered, Events, Groups};
use outlive_node::budget::Budgets;
use outlive_node::bus::LocalBus;
use outlive_node::context::Seams;
use outlive_node::files::LocalFiles;
use outlive_node::seams::{Clock, FoundShim, FromLink, Identity, LaunchOrder, Link, Runtimes};
use outlive_protocol::http::{GroupConfig, MemberConfig, RunView, SessionView, StreamEvent, SubmitTask};
use outlive_protocol::shim::{Notice, Numbered, ShimIdentity, StateNotice, ToShim, VERSION, Welcome};
use outlive_store::faulty::{Fault, Operation};
use outlive_store::{Embedded, Faulty};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What daemons leave to each other.
pub struct World {
    place: TempDir,
    pub runners: Arc<Runners>,
}

impl World {
    pub fn new() -> Self {
        Self { place: tempfile::tempdir().unwrap(), runners: Arc::default() }
    }

    pub async fn daemon(&self) -> Daemon {
        self.doomed(Doom::default()).await
    }

    /// A daemon that is killed.
    pub async fn doomed(&self, doom: Doom) -> Daemon {
        let engine = Embedded::open(&self.place.path().join("store")).unwrap();
        let engine = Faulty::new(engine, move |operation| match operation {
            Operation::Append { .. } | Operation::TableWrite if doom.comes() => Fault::Delay(Duration::MAX),
            _ => Fault::None,
        });
        let clock = Arc::new(StillClock::default());
        let who =
            Identity { node: NodeId::from_uuid(Uuid::from_u128(1)), boot: BootId::from_uuid(Uuid::now_v7()) };
        let seams = Seams {
            clock: clock.clone(),
            engine: Arc::new(engine),
            bus: Arc::new(LocalBus::default()),
            runtimes: Arc::new(ForDaemon(Arc::clone(&self.runners))),
            files: Arc::new(LocalFiles::new(self.place.path().join("claims"))),
            cluster: None,
        };
        let state = self.place.path().to_owned();
        let node = Node::over(who, seams, Budgets::default(), state, TaskTracker::new()).await.unwrap();
        Daemon { node, clock }
    }

    pub fn path(&self) -> &Path {
        self.place.path()
    }
}

/// Runs one life of a daemon; it ends as by SIGKILL.
pub fn life<T>(body: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(body)
}

/// When a daemon is killed: before the append that is counted down to, which never happens.
#[derive(Clone, Default)]
pub struct Doom(Arc<(AtomicUsize, Notify)>);

impl Doom {
    /// After so many appends from now.
    pub fn after(&self, steps: usize) {
        self.0.0.store(steps + 2, Ordering::SeqCst);
    }

    fn comes(&self) -> bool {
        let left = self.0.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| match left {
            0 | 1 => None,
            left => Some(left - 1),
        });
        let over = matches!(left, Ok(2) | Err(1));
        if over {
            self.0.1.notify_one();
        }
        over
    }

    pub async fn over(&self) {
        self.0.1.notified().await;
    }
}

pub struct Daemon {
    pub node: Arc<Node>,
    pub clock: Arc<StillClock>,
}

pub fn member(name: &str) -> MemberConfig {
    let argv = vec!["a-runner".to_owned()];
    let program = Program::Runner {
        name: name.to_owned(),
        argv,
        speaks: Default::default(),
        watch: Default::default(),
    };
    let launch = LaunchSpec {
        program,
        cwd: "/".to_owned(),
        env: BTreeMap::new(),
        memory_bytes_max: None,
        ready_timeout_ms: 60_000,
    };
    MemberConfig { name: name.to_owned(), launch }
}

pub fn config(members: &[&str]) -> GroupConfig {
    GroupConfig {
        members: members.iter().copied().map(member).collect(),
        strategy: Default::default(),
        restart: RestartPolicy::permanent(),
        on_hang: HangPolicy::Report,
        on_node_loss: None,
        wait_ms: None,
        cancel_grace_ms: None,
    }
}

pub fn task(name: &str, input: Value) -> SubmitTask {
    SubmitTask {
        id: None,
        task: name.to_owned(),
        input,
        key: None,
        idempotent: false,
        wait_ms: None,
        timeout_ms: None,
    }
}

impl Daemon {
    /// A group `g` of these members, all ready.
    pub async fn up(&self, members: &[&str]) -> SessionView {
        self.node.up("g", config(members)).await.unwrap();
        self.until(|view| group(view).members.iter().all(|member| member.phase == Phase::Ready)).await
    }

    /// Waits until group `g` is so.
    pub async fn until(&self, is_so: impl Fn(&SessionView) -> bool) -> SessionView {
        let now = self.node.group("g").await.unwrap();
        self.until_session(now, is_so).await
    }

    pub async fn until_session(&self, now: SessionView, is_so: impl Fn(&SessionView) -> bool) -> SessionView {
        let how = outlive_node::api::AttachSession {
            from: outlive_node::api::From::Head,
            interactive: false,
            follow: true,
            outputs: false,
        };
        let mut events = self.node.attach(now.id, how).await.unwrap();
        let mut last = now;
        let waiting = async {
            while !is_so(&last) {
                match events.next().await {
                    Some(Delivered { event: StreamEvent::Session { session }, .. }) => last = *session,
                    Some(_) => {}
                    None => panic!("it ended; at last: {last:#?}"),
                }
            }
            last.clone()
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(view) => view,
            Err(_) => panic!("it never came; now: {:#?}", self.node.session(last.id).await),
        }
    }

    pub async fn submit(&self, task: SubmitTask) -> RunView {
        self.node.submit_task("g", task).await.unwrap()
    }

    pub async fn attach(&self, run: &RunView, cursor: Cursor) -> Events {
        let how = AttachRun { cursor, follow: true, cancel: false };
        self.node.attach_run(run.session, run.id, how).await.unwrap()
    }

    /// All that a reader of the task is told from its beginning to its end.
    pub async fn read(&self, run: &RunView) -> Told {
        Told::of(self.attach(run, Cursor::default()).await).await
    }
}

pub fn group(view: &SessionView) -> &outlive_protocol::http::GroupView {
    view.group.as_ref().expect("it is a group")
}

/// What a reader of a task was told.
#[derive(Default, Debug)]
pub struct Told {
    /// What stands, after resets: kind and content of each chunk.
    pub chunks: Vec<(ChunkKind, String)>,
    pub resets: Vec<u64>,
    pub reports: usize,
    pub outcome: Option<RunOutcome>,
}

impl Told {
    pub async fn of(mut events: Events) -> Self {
        let mut told = Self::default();
        let reading = async { while told.next(&mut events).await {} };
        tokio::time::timeout(PATIENCE, reading).await.expect("the task ends");
        told
    }

    /// Takes one event; false after the last.
    pub async fn next(&mut self, events: &mut Events) -> bool {
        let Some(Delivered { event, .. }) = events.next().await else { return false };
        match event {
            StreamEvent::Output { first, chunks, .. } => {
                assert_eq!(first.0, self.chunks.len() as u64 + 1, "no hole and nothing twice");
                self.chunks.extend(chunks.into_iter().map(|chunk| {
                    let content = chunk.content.map(|content| content.to_string());
                    (chunk.kind, chunk.text.or(content).expect("text or JSON"))
                }));
            }
            StreamEvent::Reset { keep, .. } => {
                self.chunks.truncate(usize::try_from(keep.0).unwrap());
                self.resets.push(keep.0);
            }
            StreamEvent::Report { .. } => self.reports += 1,
            StreamEvent::End { outcome } => {
                assert!(self.outcome.is_none(), "it ends once");
                self.outcome = outcome;
            }
            StreamEvent::Problem { problem } => panic!("{problem:?}"),
            _ => {}
        }
        true
    }

    /// The texts, in order.
    pub fn texts(&self) -> Vec<&str> {
        let texts = self.chunks.iter().filter(|(kind, _)| *kind == ChunkKind::Text);
        texts.map(|(_, text)| text.as_str()).collect()
    }
}

/// Time that goes on when the test says so.
pub struct StillClock(watch::Sender<Tick>);

impl Default for StillClock {
    fn default() -> Self {
        Self(watch::Sender::new(Tick(1_000_000_000)))
    }
}

impl StillClock {
    pub fn advance(&self, milliseconds: u64) {
        self.0.send_modify(|tick| *tick = *tick + Duration::from_millis(milliseconds));
    }
}

#[async_trait]
impl Clock for StillClock {
    fn now(&self) -> Now {
        let tick = *self.0.borrow();
        Now { tick, wall: WallTime(tick.0 / 1_000), slept: Duration::ZERO }
    }

    async fn until(&self, tick: Tick) {
        let mut now = self.0.subscribe();
        now.wait_for(|now| *now >= tick).await.expect("the clock goes on");
    }
}

/// The runners of a machine, each behind a shim that keeps what nobody has acknowledged.
///
/// | task | what a runner does with it |
/// |---|---|
/// | `echo` | says each of `input` as text, returns their number |
/// | `hold` | nothing, until the test says something for it; when it is cancelled it says so |
/// | `deaf` | nothing, whatever it is told |
/// | `flaky` | says `1`, saves, says `2` and dies; the next attempt goes on and says what is left of `1`, `2`, `3` |
/// | `fatal` | says `x` and dies |
#[derive(Default)]
pub struct Runners {
    shims: Mutex<BTreeMap<ProcessKey, Shim>>,
    changed: Notify,
    /// Runners that are launched from now on say nothing by themselves.
    silent: AtomicUsize,
    refused: AtomicUsize,
    /// Shims that read no orders any more.
    stuck: Mutex<BTreeSet<ProcessKey>>,
    /// The readers of orders.
    readers: TaskTracker,
}

struct Shim {
    identity: ShimIdentity,
    order: LaunchOrder,
    records: Vec<Numbered>,
    acked: Src,
    given: BTreeMap<RunId, (Attempt, TaskOrder)>,
    known: BTreeSet<(RunId, Attempt)>,
    link: Option<mpsc::Sender<FromLink>>,
    is_alive: bool,
}

/// What one daemon has of the machine.
struct ForDaemon(Arc<Runners>);

impl Runners {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ProcessKey, Shim>> {
        self.shims.lock().unwrap()
    }

    /// Those that are launched from now on say nothing by themselves.
    pub fn silent(&self) {
        self.silent.store(1, Ordering::SeqCst);
    }

    /// How many shims were told that nobody knows them.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    /// The processes that live, by the names of their members.
    pub fn alive(&self) -> BTreeMap<String, ProcessKey> {
        let name = |shim: &Shim| match &shim.order.spec.program {
            Program::Runner { name, .. } => name.clone(),
            _ => unreachable!("all are runners"),
        };
        let shims = self.lock();
        shims.iter().filter(|(_, shim)| shim.is_alive).map(|(key, shim)| (name(shim), *key)).collect()
    }

    pub fn order(&self, process: ProcessKey) -> LaunchOrder {
        self.lock()[&process].order.clone()
    }

    /// The shim of this process reads no orders from the next one on.
    pub fn stick(&self, process: ProcessKey) {
        self.stuck.lock().unwrap().insert(process);
    }

    /// The shim is gone and everything with it, while no daemon is there.
    pub fn vanish(&self, process: ProcessKey) {
        let mut shims = self.lock();
        let shim = shims.get_mut(&process).expect("it was launched");
        (shim.is_alive, shim.link) = (false, None);
    }

    /// How many processes were ever launched.
    pub fn launched(&self) -> usize {
        self.lock().len()
    }

    /// Waits until some runner has this task, and says which, with the order.
    pub async fn given(&self, run: RunId, attempt: u64) -> (ProcessKey, TaskOrder) {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let found = self.lock().iter().find_map(|(key, shim)| {
                    let (has, order) = shim.given.get(&run)?;
                    (*has == Attempt(attempt)).then(|| (*key, order.clone()))
                });
                if let Some(found) = found {
                    return found;
                }
                changed.await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("a runner gets the task")
    }

    /// Says something for a process.
    pub fn says(&self, process: ProcessKey, notice: Notice) {
        let mut shims = self.lock();
        let shim = shims.get_mut(&process).expect("it was launched");
        let src = Src(shim.records.len() as u64 + 1);
        let record = Numbered { src, at: WallTime(0), notice };
        shim.records.push(record.clone());
        if let Some(link) = &shim.link {
            let _gone = link.try_send(FromLink::Record(record));
        }
    }

    pub fn state(&self, process: ProcessKey, state: StateNotice) {
        self.says(process, Notice::State(state));
    }

    pub fn text(&self, process: ProcessKey, run: RunId, text: &str) {
        let chunks = vec![Chunk::inline(ChunkKind::Text, WallTime(0), text.as_bytes())];
        self.says(process, Notice::Output { run: Some(run), chunks });
    }

    pub fn finish(&self, process: ProcessKey, run: RunId, outcome: RunOutcome) {
        let (attempt, _) = self.lock()[&process].given[&run];
        self.state(process, StateNotice::RunFinished { run, attempt, outcome, execution_count: None });
    }

    /// The task has saved a state of so many bytes.
    pub fn checkpoint(&self, process: ProcessKey, run: RunId, size: u64) {
        let (attempt, _) = self.lock()[&process].given[&run];
        let blob = BlobRef { sha256: "5".repeat(64), size, mime: "application/octet-stream".to_owned() };
        self.state(process, StateNotice::Checkpointed { run, attempt, blob });
    }

    /// It becomes ready, with these handlers.
    pub fn ready(&self, process: ProcessKey, concurrency: u32) {
        let tasks = ["echo", "hold", "deaf", "flaky", "fatal", "sample"].map(str::to_owned).into();
        let greeting = Greeting {
            tasks,
            capabilities: BTreeSet::new(),
            concurrency,
            exact: BTreeSet::from(["sample".to_owned()]),
            sdk: Some("played".to_owned()),
        };
        self.state(process, StateNotice::Greeted { greeting });
        let progress = Progress::default();
        self.state(process, StateNotice::Entered { phase: Phase::Loading, progress: progress.clone() });
        self.state(process, StateNotice::Entered { phase: Phase::Ready, progress });
        self.state(process, StateNotice::Ready { kernel_info: Value::Null });
    }

    /// It dies.
    pub fn dies(&self, process: ProcessKey, status: ExitStatus, stop: Option<StopEvidence>) {
        let mut shims = self.lock();
        let shim = shims.get_mut(&process).expect("it was launched");
        if !std::mem::replace(&mut shim.is_alive, false) {
            return;
        }
        drop(shims);
        let evidence = Evidence { stop, ..Evidence::default() };
        let report = ExitReport {
            process,
            pid: Some(1),
            started_at: WallTime(0),
            exited_at: WallTime(1),
            status,
            evidence: evidence.clone(),
        };
        self.state(process, StateNotice::Exited { report: Box::new(report) });
        self.state(process, StateNotice::Drained { evidence: Box::new(evidence) });
    }

    fn told(&self, process: ProcessKey, order: ToShim) {
        match order {
            ToShim::Ack { through } => {
                let mut shims = self.lock();
                let shim = shims.get_mut(&process).unwrap();
                shim.acked = shim.acked.max(through);
            }
            ToShim::Task { run, attempt, order } => self.task(process, run, attempt, order),
            ToShim::CancelTask { run, attempt } => {
                let given = self.lock()[&process].given.get(&run).cloned();
                if let Some((has, order)) = given
                    && has == attempt
                    && order.task == "hold"
                {
                    self.finish(process, run, RunOutcome::Cancelled { why: CancelWhy::User });
                }
            }
            ToShim::Stop { why, from } => {
                self.dies(process, ExitStatus::Code { code: 0 }, Some(StopEvidence { why, step: from }));
            }
            ToShim::Goodbye => {
                let link = self.lock().get_mut(&process).unwrap().link.take();
                if let Some(link) = link {
                    let _gone = link.try_send(FromLink::Gone { report: None });
                }
            }
            _ => {}
        }
        self.changed.notify_waiters();
    }

    fn task(&self, process: ProcessKey, run: RunId, attempt: Attempt, order: TaskOrder) {
        {
            let mut shims = self.lock();
            let shim = shims.get_mut(&process).unwrap();
            if !shim.is_alive || !shim.known.insert((run, attempt)) {
                return;
            }
            shim.given.insert(run, (attempt, order.clone()));
        }
        match order.task.as_str() {
            "echo" => self.echo(process, run, &order),
            "flaky" if attempt.0 == 1 => {
                self.text(process, run, "1");
                self.checkpoint(process, run, 1);
                self.text(process, run, "2");
                self.dies(process, ExitStatus::Signal { number: 9, core_dumped: false }, None);
            }
            "flaky" => {
                let saved = order.checkpoint.expect("what was saved is given back");
                for n in saved.seq.0 + 1..=3 {
                    self.text(process, run, &n.to_string());
                }
                self.finish(process, run, RunOutcome::Succeeded);
            }
            "fatal" => {
                self.text(process, run, "x");
                self.dies(process, ExitStatus::Code { code: 3 }, None);
            }
            _ => {}
        }
    }

    fn echo(&self, process: ProcessKey, run: RunId, order: &TaskOrder) {
        let texts = order.input.as_array().cloned().unwrap_or_default();
        for text in &texts {
            self.text(process, run, text.as_str().unwrap());
        }
        let result = json!(texts.len()).to_string().into_bytes();
        assert!(result.len() <= CHUNK_BYTES_MAX);
        let chunks = vec![Chunk::inline(ChunkKind::Result, WallTime(0), result)];
        self.says(process, Notice::Output { run: Some(run), chunks });
        self.finish(process, run, RunOutcome::Succeeded);
    }

    fn connect(self: &Arc<Self>, process: ProcessKey, acked: Src) -> Link {
        let (to, mut orders) = mpsc::channel(64);
        let (says, from) = mpsc::channel(100_000);
        let mut shims = self.lock();
        let shim = shims.get_mut(&process).unwrap();
        let welcome = Welcome {
            version: VERSION,
            identity: shim.identity.clone(),
            open_runs: Vec::new(),
            last_src: Src(shim.records.len() as u64),
            asks: None,
            frozen: false,
        };
        says.try_send(FromLink::Welcome(Box::new(welcome))).unwrap();
        for record in shim.records.iter().filter(|record| record.src > acked) {
            says.try_send(FromLink::Record(record.clone())).unwrap();
        }
        shim.link = Some(says);
        drop(shims);
        let this = Arc::clone(self);
        self.readers.spawn(async move {
            while !this.stuck.lock().unwrap().contains(&process)
                && let Some(order) = orders.recv().await
            {
                this.told(process, order);
            }
            // One that is stuck keeps its socket.
            std::future::pending::<()>().await;
        });
        Link { process, to, from }
    }
}

impl Runtimes for ForDaemon {
    fn launch(&self, order: LaunchOrder) -> Link {
        let process = order.process;
        let identity = ShimIdentity {
            session: order.session,
            process,
            node: NodeId::from_uuid(Uuid::from_u128(1)),
            machine_boot: "one".to_owned(),
            shim_pid: 1,
            shim_start: 1,
            pid: Some(1),
            pid_start: Some(1),
            cgroups: Vec::new(),
        };
        let shim = Shim {
            identity,
            order,
            records: Vec::new(),
            acked: Src(0),
            given: BTreeMap::new(),
            known: BTreeSet::new(),
            link: None,
            is_alive: true,
        };
        assert!(self.0.lock().insert(process, shim).is_none(), "{process} is launched once");
        let link = self.0.connect(process, Src(0));
        self.0.state(process, StateNotice::Spawned { pid: 1, pid_start: 1 });
        if self.0.silent.load(Ordering::SeqCst) == 0 {
            self.0.ready(process, 2);
        }
        self.0.changed.notify_waiters();
        link
    }

    fn adopt(&self, found: &FoundShim, acked: Src) -> Link {
        self.0.connect(found.identity.process, acked)
    }

    /// Shims that have not been told goodbye.
    fn found(&self) -> Vec<FoundShim> {
        let shims = self.0.lock();
        let all = shims.values().filter(|shim| shim.link.is_some());
        all.map(|shim| FoundShim { identity: shim.identity.clone(), of_earlier_boot: false }).collect()
    }

    fn refuse(&self, found: &FoundShim, _reason: &str) {
        self.0.refused.fetch_add(1, Ordering::SeqCst);
        let mut shims = self.0.lock();
        let shim = shims.get_mut(&found.identity.process).unwrap();
        (shim.is_alive, shim.link) = (false, None);
    }
}
