//! Several nodes over one store, each with a machine of its own. Time goes on when all of them wait.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outlive_core::failover::Member;
use outlive_core::failover::liveness::Why;
use outlive_core::id::{BootId, NodeId, Position, ProcessKey, RunId, SessionId};
use outlive_core::log::fold::Claim;
use outlive_core::log::{Entry, Lane};
use outlive_core::runtime::{LaunchSpec, Program, RestartPolicy};
use outlive_core::session::spec::{HangPolicy, Workload};
use outlive_core::time::{Now, Tick, WallTime};
use outlive_protocol::http::{
    CreateSession, GroupConfig, MemberConfig, NewSession, Problem, SessionView, SubmitRuns, SubmitTask,
};
use outlive_store::engine::{Engine, LaneFilter, ReadLimit};
use outlive_store::{Memory, MemoryTransport};
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::gate::{Faults, Gate, GatedEngine, GatedTransport};
use super::machine::{ForDaemon, Machine};
use crate::api::{Api, Groups};
use crate::budget::Budgets;
use crate::bus::LocalBus;
use crate::cluster::directory::Listed;
use crate::cluster::{Lost, OnIsolation, Settings, Standing};
use crate::context::{Context, Seams};
use crate::files::LocalFiles;
use crate::node::Node;
use crate::seams::{Clock, Identity};
use crate::session::open::control;

/// How long a test waits for what must come, as the nodes count time.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long a kernel's node is waited for.
pub const GRACE: Duration = Duration::from_secs(5);

/// Time as the test's runtime has it.
struct RuntimesClock(Instant);

#[async_trait]
impl Clock for RuntimesClock {
    fn now(&self) -> Now {
        let tick = Tick::default() + self.0.elapsed();
        Now { tick, wall: WallTime(1_000_000_000 + tick.0 / 1_000), slept: Duration::ZERO }
    }

    async fn until(&self, tick: Tick) {
        tokio::time::sleep_until(self.0 + tick.since(Tick::default())).await;
    }
}

/// What the nodes share.
pub struct World {
    pub place: TempDir,
    pub store: Memory,
    transport: MemoryTransport,
    began: Instant,
    /// Where shared directories are on a node, by their names.
    pub volumes: fn(&Path, usize) -> BTreeMap<String, PathBuf>,
}

/// A node and what it stands on.
pub struct One {
    pub node: Arc<Node>,
    pub gate: Gate,
    pub faults: Faults,
    pub machine: Arc<Machine>,
    number: usize,
}

impl World {
    pub fn new() -> Self {
        Self {
            place: tempfile::tempdir().unwrap(),
            store: Memory::default(),
            transport: MemoryTransport::default(),
            began: Instant::now(),
            volumes: |_, _| BTreeMap::new(),
        }
    }

    /// So many nodes, all ready.
    pub async fn nodes(&self, many: usize) -> Vec<One> {
        let joining = (1..=many).map(|number| self.node(number, 1, Arc::default()));
        let nodes: Vec<One> = futures_util::future::join_all(joining).await;
        for one in &nodes {
            one.until_ready().await;
        }
        for one in &nodes {
            one.until_members(many).await;
        }
        nodes
    }

    /// A node in one of its lives, on this machine. It is not ready yet.
    pub async fn node(&self, number: usize, life: u128, machine: Arc<Machine>) -> One {
        let (gate, faults) = (Gate::default(), Faults::default());
        let home = self.place.path().join(format!("n{number}"));
        let engine = GatedEngine::new(self.store.clone(), gate.clone(), faults.clone(), home.join("blobs"));
        let settings = Settings {
            name: format!("n{number}"),
            url: Some(format!("http://10.0.0.{number}:8787")),
            transport: Arc::new(GatedTransport::new(self.transport.clone(), gate.clone())),
            heart: None,
            kernel_grace: GRACE,
            on_isolation: OnIsolation::Freeze,
            volumes: (self.volumes)(self.place.path(), number),
            is_wide: false,
        };
        let who = Identity { node: id(number), boot: boot(number, life) };
        let seams = Seams {
            clock: Arc::new(RuntimesClock(self.began)),
            engine: Arc::new(engine),
            bus: Arc::new(LocalBus::default()),
            runtimes: Arc::new(ForDaemon(Arc::clone(&machine))),
            files: Arc::new(LocalFiles::new(home.join("claims"))),
            cluster: Some(settings),
        };
        let node = Node::over(who, seams, Budgets::default(), home, TaskTracker::new()).await.unwrap();
        One { node, gate, faults, machine, number }
    }

    /// Who has the session, as its log says.
    pub async fn owner(&self, session: SessionId) -> Option<Claim> {
        control(&self.store, session).await.unwrap().fold.claim()
    }

    /// Waits until a node has the session that is so.
    pub async fn until_owner(&self, session: SessionId, is_so: impl Fn(&Claim) -> bool) -> Claim {
        let mut head = self.store.head(session).await.unwrap();
        let found = async {
            loop {
                head.mark_unchanged();
                if let Some(claim) = self.owner(session).await.filter(&is_so) {
                    return claim;
                }
                head.changed().await.expect("the session goes on");
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("it gets its owner")
    }

    /// Waits until a table has so many rows.
    pub async fn until_rows(&self, table: &str, many: usize) -> usize {
        let mut changes = self.store.watch(table, "").await.unwrap();
        let there = async {
            while self.store.scan(table, "").await.unwrap().len() < many {
                changes.next().await.expect("the store is there");
            }
        };
        tokio::time::timeout(PATIENCE, there).await.expect("they come");
        self.store.scan(table, "").await.unwrap().len()
    }

    /// All that was ever written to a session.
    pub async fn log(&self, session: SessionId) -> Vec<Entry> {
        let (mut all, mut after) = (Vec::new(), Position(0));
        loop {
            let page = self.store.read(session, after, &LaneFilter::All, ReadLimit::default()).await.unwrap();
            if page.through <= after {
                return all;
            }
            after = page.through;
            all.extend(page.entries);
        }
    }

    /// How many control records there are, whether or not they count.
    pub async fn controls(&self, session: SessionId) -> usize {
        self.log(session).await.iter().filter(|entry| entry.lane == Lane::Control).count()
    }
}

pub fn id(number: usize) -> NodeId {
    NodeId::from_uuid(Uuid::from_u128(100 + number as u128))
}

fn boot(number: usize, life: u128) -> BootId {
    BootId::from_uuid(Uuid::from_u128(1_000 * life + number as u128))
}

pub fn member(number: usize, life: u128) -> Member {
    Member { node: id(number), boot: boot(number, life) }
}

impl One {
    pub fn context(&self) -> &Arc<Context> {
        &self.node.context
    }

    pub fn cluster(&self) -> &Arc<crate::cluster::Cluster> {
        self.context().cluster.as_ref().expect("it is one of several")
    }

    pub async fn until_ready(&self) {
        let mut standing = self.cluster().standing.subscribe();
        let ready = standing.wait_for(|standing| *standing == Standing::Ready);
        tokio::time::timeout(PATIENCE, ready).await.expect("it becomes ready").unwrap();
    }

    /// Waits until it sees so many that live.
    pub async fn until_members(&self, many: usize) {
        let mut members = self.cluster().members.subscribe();
        let there = members.wait_for(|members| members.alive().count() == many);
        drop(tokio::time::timeout(PATIENCE, there).await.expect("they are seen").unwrap());
    }

    /// Waits until its directory says so of the session.
    pub async fn until_listed(&self, session: SessionId, is_so: impl Fn(&Listed) -> bool) {
        let mut changes = self.cluster().directory.changes();
        let there = async {
            while !self.cluster().directory.get(session).is_some_and(|listed| is_so(&listed)) {
                changes.changed().await.expect("the directory is there");
            }
        };
        tokio::time::timeout(PATIENCE, there).await.expect("it is listed so");
    }

    /// Tells this node that another is lost, as its membership would.
    pub fn tell_lost(&self, number: usize, life: u128) {
        let now = self.context().clock.now();
        let lost = Lost {
            member: member(number, life),
            name: format!("n{number}"),
            why: Why::Silent,
            heard: Some(now.wall),
            at: now.tick,
        };
        self.cluster().lost.send(lost).expect("its takeovers listen");
    }

    /// Waits until nothing of the session is here.
    pub async fn until_gone(&self, session: SessionId) {
        let gone = async {
            while let Ok(Some(handle)) = self.context().handle(session) {
                let mut view = handle.view.clone();
                drop(handle);
                while view.changed().await.is_ok() {}
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("it goes");
    }

    /// Nobody hears of it any more and its store does not answer: its machine is gone.
    pub fn kill(&self) {
        self.gate.shut();
        self.machine.vanish();
    }

    /// Its daemon is gone, and its processes live on.
    pub fn kill_daemon(&self) {
        self.gate.shut();
        self.machine.cut();
    }

    /// Its next life, on the same machine.
    pub async fn reborn(&self, world: &World, life: u128) -> One {
        world.node(self.number, life, Arc::clone(&self.machine)).await
    }

    /// A session that runs one command, which has begun.
    pub async fn command(&self, session: u128, restart: RestartPolicy) -> (SessionId, RunId) {
        let id = SessionId::from_uuid(Uuid::from_u128(session));
        let request: CreateSession = serde_json::from_value(serde_json::json!({
            "id": id,
            "workload": Workload::Command { timeout_ms: None },
            "launch": launch(Program::Command { argv: vec!["work".to_owned()] }),
            "restart": restart,
        }))
        .unwrap();
        self.node.create(request).await.unwrap();
        let runs = self.node.runs(id).await.unwrap();
        self.machine.given(runs[0].id).await;
        (id, runs[0].id)
    }

    /// A group `name` with one runner, which is ready.
    pub async fn up(&self, name: &str) -> Result<SessionView, Problem> {
        let program = Program::Runner {
            name: "a".to_owned(),
            argv: vec!["a-runner".to_owned()],
            speaks: Default::default(),
            watch: Default::default(),
        };
        let config: GroupConfig = serde_json::from_value(serde_json::json!({
            "members": [MemberConfig { name: "a".to_owned(), launch: launch(program) }],
            "restart": RestartPolicy::permanent(),
            "on_hang": HangPolicy::Report,
        }))
        .unwrap();
        self.node.up(name, config).await.map(|(view, _)| view)
    }

    /// A task of that group that goes on until the test ends it.
    pub async fn hold(&self, name: &str, idempotent: bool) -> Result<RunId, Problem> {
        let task: SubmitTask = serde_json::from_value(serde_json::json!({
            "task": "hold", "input": null, "idempotent": idempotent,
        }))
        .unwrap();
        self.node.submit_task(name, task).await.map(|run| run.id)
    }

    /// An untitled notebook.
    pub async fn notebook(&self) -> SessionId {
        self.node.new_session(NewSession::default()).await.unwrap().session_id
    }

    /// A notebook whose kernel has begun a run.
    pub async fn busy_notebook(&self) -> (SessionId, RunId, ProcessKey) {
        let session = self.notebook().await;
        let runs = self.node.submit(session, SubmitRuns::Code { code: "1".to_owned() }).await.unwrap();
        let (process, _) = self.machine.given(runs[0].id).await;
        (session, runs[0].id, process)
    }

    /// Waits until the session is open here and so.
    pub async fn until(&self, session: SessionId, is_so: impl Fn(&SessionView) -> bool) -> SessionView {
        let found = async {
            loop {
                match self.context().handle(session) {
                    Ok(Some(handle)) => {
                        let mut view = handle.view.clone();
                        if let Ok(view) = view.wait_for(|view| is_so(view)).await {
                            return view.as_ref().clone();
                        }
                    }
                    Ok(None) => {}
                    Err(problem) => panic!("{problem:?}"),
                }
                let mut head = self.context().engine.head(session).await.unwrap();
                drop(tokio::time::timeout(Duration::from_millis(10), head.changed()).await);
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("it becomes so")
    }
}

impl World {
    /// Lets so much of the nodes' time go by: what is not to happen has not happened by then.
    pub async fn pass(&self, time: Duration) {
        let clock = RuntimesClock(self.began);
        clock.until(clock.now().tick + time).await;
    }
}

pub fn launch(program: Program) -> LaunchSpec {
    LaunchSpec {
        program,
        cwd: "/".to_owned(),
        env: BTreeMap::new(),
        memory_bytes_max: None,
        ready_timeout_ms: 60_000,
    }
}
