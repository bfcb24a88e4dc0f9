//! Nodes that reach each other over wires, which can be cut, and one store, which can be silent for one of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use outlive_core::failover::Member;
use outlive_core::id::{BootId, NodeId, SessionId, Src};
use outlive_core::time::{Now, Tick, WallTime};
use outlive_node::api::Api as _;
use outlive_node::budget::Budgets;
use outlive_node::bus::LocalBus;
use outlive_node::cluster::{Cluster, Lost, OnIsolation, Settings, Standing};
use outlive_node::context::Seams;
use outlive_node::files::LocalFiles;
use outlive_node::seams::{Clock, FoundShim, FromLink, Identity, LaunchOrder, Link, Runtimes};
use outlive_node::{Node, StartError};
use outlive_protocol::http::{CreateSession, SessionView};
use outlive_protocol::shim::ToShim;
use outlive_store::{Connection, Fault, Faulty, Heard, Memory, MemoryTransport, Operation, Topic, Transport};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// How long a test waits for what must come; in virtual time, so it costs nothing.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What all nodes share.
pub struct World {
    place: TempDir,
    origin: tokio::time::Instant,
    pub store: Memory,
    hub: MemoryTransport,
}

impl World {
    pub fn new() -> Self {
        Self {
            place: tempfile::tempdir().unwrap(),
            origin: tokio::time::Instant::now(),
            store: Memory::default(),
            hub: MemoryTransport::default(),
        }
    }

    /// Something is said to all nodes.
    pub fn says(&self, topic: Topic, message: &str) {
        self.hub.send(topic, Bytes::copy_from_slice(message.as_bytes()));
    }

    /// A node that is to be started: the n-th, named `node-N`.
    pub fn node(&self, n: u128) -> Plan<'_> {
        Plan {
            world: self,
            n,
            name: format!("node-{n}"),
            ahead: Duration::ZERO,
            on_isolation: OnIsolation::Freeze,
        }
    }

    /// Nodes 1 to `n`, all ready and known to each other.
    pub async fn nodes(&self, n: u128) -> Vec<Daemon> {
        let mut daemons = Vec::new();
        for n in 1..=n {
            daemons.push(self.node(n).start().await.unwrap());
        }
        for daemon in &daemons {
            daemon.sees(daemons.len()).await;
            daemon.stands(Standing::Ready).await;
        }
        daemons
    }
}

/// A node that is to be started.
#[derive(Clone)]
pub struct Plan<'a> {
    world: &'a World,
    n: u128,
    pub name: String,
    /// How far its clock is ahead.
    pub ahead: Duration,
    pub on_isolation: OnIsolation,
}

impl Plan<'_> {
    pub fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    pub async fn start(self) -> Result<Daemon, StartError> {
        self.with(Machine::default()).await
    }

    /// On this machine: with its wire and its store as they are now.
    pub async fn with(self, machine: Machine) -> Result<Daemon, StartError> {
        static BOOTS: AtomicU64 = AtomicU64::new(1);
        let boot = u128::from(BOOTS.fetch_add(1, Ordering::Relaxed));
        let who = Identity {
            node: NodeId::from_uuid(Uuid::from_u128(self.n)),
            boot: BootId::from_uuid(Uuid::from_u128(boot)),
        };
        let wire = Wire::to(self.world.hub.clone(), machine.wire.clone());
        let is_silent = Arc::clone(&machine.store_is_silent);
        let state = self.world.place.path().join(self.n.to_string());
        let store = self.world.store.spooling(state.join("blobs"));
        let engine = Faulty::new(store, move |operation| match operation {
            Operation::TableRead | Operation::Read { .. } if is_silent.load(Ordering::SeqCst) => {
                Fault::Delay(Duration::from_secs(3_600))
            }
            _ => Fault::None,
        });
        let (set, slept) = (Arc::clone(&machine.clock_set_s), Arc::clone(&machine.slept_s));
        let clock = Clocks { origin: self.world.origin, ahead: self.ahead, set, slept };
        let settings = Settings {
            name: self.name,
            url: Some(format!("http://node-{}:8787", self.n)),
            transport: Arc::new(wire),
            heart: None,
            kernel_grace: Duration::from_secs(5),
            on_isolation: self.on_isolation,
            volumes: BTreeMap::new(),
            is_wide: false,
        };
        let seams = Seams {
            clock: Arc::new(clock),
            engine: Arc::new(engine),
            bus: Arc::new(LocalBus::default()),
            runtimes: Arc::new(ForDaemon(Arc::clone(&machine.processes))),
            files: Arc::new(LocalFiles::new(state.join("claims"))),
            cluster: Some(settings),
        };
        let node = Node::over(who, seams, Budgets::default(), state, TaskTracker::new()).await?;
        let losses = node.membership().unwrap().lost.subscribe();
        Ok(Daemon {
            member: Member { node: who.node, boot: who.boot },
            node,
            machine,
            losses: Mutex::new(losses),
        })
    }
}

/// What a node runs on.
#[derive(Clone)]
pub struct Machine {
    wire: watch::Sender<Reach>,
    pub store_is_silent: Arc<AtomicBool>,
    pub processes: Arc<Processes>,
    /// By so many seconds somebody has set its wall clock forward.
    pub clock_set_s: Arc<AtomicU64>,
    /// For so many seconds it has slept.
    pub slept_s: Arc<AtomicU64>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            wire: watch::Sender::new(Reach::All),
            store_is_silent: Arc::default(),
            processes: Arc::default(),
            clock_set_s: Arc::default(),
            slept_s: Arc::default(),
        }
    }
}

/// A node that runs.
pub struct Daemon {
    pub node: Arc<Node>,
    pub member: Member,
    pub machine: Machine,
    losses: Mutex<broadcast::Receiver<Lost>>,
}

impl Daemon {
    pub fn cluster(&self) -> &Cluster {
        self.node.membership().unwrap()
    }

    pub fn reaches(&self, reach: Reach) {
        self.machine.wire.send_replace(reach);
    }

    /// As by SIGKILL: its tasks end and say nothing.
    pub async fn killed(self) -> Member {
        self.node.stop().await;
        self.member
    }

    /// Waits until it stands so.
    pub async fn stands(&self, standing: Standing) {
        self.standing(|now| *now == standing).await;
    }

    pub async fn standing(&self, is_so: impl FnMut(&Standing) -> bool) {
        let mut standing = self.cluster().standing.subscribe();
        let waited = tokio::time::timeout(PATIENCE, standing.wait_for(is_so)).await;
        let _held = waited.expect("it comes to stand so").unwrap();
    }

    /// Waits until so many live, this one too.
    pub async fn sees(&self, number: usize) {
        let mut members = self.cluster().members.subscribe();
        let waited =
            tokio::time::timeout(PATIENCE, members.wait_for(|members| members.alive().count() == number));
        let _held = waited.await.expect("it sees so many").unwrap();
    }

    /// The next loss that it tells.
    pub async fn loss(&self) -> Lost {
        let mut losses = self.cluster().lost.subscribe();
        std::mem::swap(&mut losses, &mut *self.losses.lock().unwrap());
        let lost = tokio::time::timeout(PATIENCE, losses.recv()).await.expect("a loss is told").unwrap();
        *self.losses.lock().unwrap() = losses;
        lost
    }

    /// The losses that it told and nobody has taken.
    pub fn losses(&self) -> Vec<Lost> {
        let mut losses = self.losses.lock().unwrap();
        std::iter::from_fn(|| losses.try_recv().ok()).collect()
    }

    /// A session whose command runs.
    pub async fn command(&self, n: u128) -> SessionView {
        let request = json!({
            "id": Uuid::from_u128(n),
            "workload": { "kind": "command" },
            "launch": {
                "program": { "kind": "command", "argv": ["sleep"] },
                "cwd": "/", "env": {}, "ready_timeout_ms": 1000,
            },
            "restart": {
                "restart": "temporary", "restarts_max": 0, "period_ms": 1, "backoff_ms": 1, "backoff_ms_max": 1,
            },
        });
        let request: CreateSession = serde_json::from_value(request).unwrap();
        self.node.create(request).await.unwrap()
    }

    pub async fn counter(&self, name: &str) -> u64 {
        let text = self.node.metrics().await;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().unwrap()
    }
}

/// Lets virtual time pass.
#[expect(clippy::disallowed_methods, reason = "time is virtual: nothing is waited for")]
pub async fn pass(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// Virtual time.
struct Clocks {
    origin: tokio::time::Instant,
    ahead: Duration,
    set: Arc<AtomicU64>,
    slept: Arc<AtomicU64>,
}

#[async_trait]
impl Clock for Clocks {
    fn now(&self) -> Now {
        let passed = self.origin.elapsed() + Duration::from_secs(1_000);
        let seconds = |of: &AtomicU64| Duration::from_secs(of.load(Ordering::SeqCst));
        let (set, slept) = (seconds(&self.set), seconds(&self.slept));
        let wall = u64::try_from((passed + self.ahead + set + slept).as_micros()).unwrap();
        Now { tick: Tick::default() + passed, wall: WallTime(wall), slept }
    }

    async fn until(&self, tick: Tick) {
        let origin = self.origin - Duration::from_secs(1_000);
        tokio::time::sleep_until(origin + Duration::from_nanos(tick.0)).await;
    }
}

/// What gets through a wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    All,
    /// Nothing, and nobody says so.
    Swallowed,
    /// Nothing, and that is known.
    Down,
}

/// A node's wire to the hub.
#[derive(Debug)]
struct Wire {
    hub: MemoryTransport,
    reach: watch::Receiver<Reach>,
    connection: watch::Sender<Connection>,
    tasks: TaskTracker,
}

impl Wire {
    fn to(hub: MemoryTransport, reach: watch::Sender<Reach>) -> Self {
        let wire = Self {
            hub,
            reach: reach.subscribe(),
            connection: watch::Sender::new(Connection::Up),
            tasks: TaskTracker::new(),
        };
        let (mut reach, connection) = (reach.subscribe(), wire.connection.clone());
        wire.tasks.spawn(async move {
            loop {
                let now = match *reach.borrow_and_update() {
                    Reach::Down => Connection::Down { why: "the test has cut it".to_owned() },
                    Reach::All | Reach::Swallowed => Connection::Up,
                };
                connection.send_if_modified(|before| std::mem::replace(before, now.clone()) != now);
                if reach.changed().await.is_err() {
                    return;
                }
            }
        });
        wire
    }
}

impl Transport for Wire {
    fn send(&self, topic: Topic, message: Bytes) {
        if *self.reach.borrow() == Reach::All {
            self.hub.send(topic, message);
        }
    }

    fn listen(&self, topic: Topic) -> mpsc::Receiver<Heard> {
        let (to, heard) = mpsc::channel(1_024);
        let (mut from, reach) = (self.hub.listen(topic), self.reach.clone());
        self.tasks.spawn(async move {
            while let Some(message) = from.recv().await {
                let passes = *reach.borrow() == Reach::All;
                if passes && to.send(message).await.is_err() {
                    return;
                }
            }
        });
        heard
    }

    fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.subscribe()
    }
}

/// Processes that run until they are stopped, and what was done to all of them.
#[derive(Default)]
pub struct Processes {
    pub frozen: AtomicUsize,
    pub stopped: AtomicUsize,
    pub beats: AtomicUsize,
    pub thawed: Mutex<Vec<SessionId>>,
    pub orders: Mutex<Vec<(SessionId, ToShim)>>,
    links: Mutex<Vec<mpsc::Sender<FromLink>>>,
    readers: TaskTracker,
}

struct ForDaemon(Arc<Processes>);

impl Runtimes for ForDaemon {
    fn launch(&self, order: LaunchOrder) -> Link {
        let (to, mut orders) = mpsc::channel(64);
        let (says, from) = mpsc::channel(64);
        self.0.links.lock().unwrap().push(says);
        let processes = Arc::clone(&self.0);
        self.0.readers.spawn(async move {
            while let Some(said) = orders.recv().await {
                processes.orders.lock().unwrap().push((order.session, said));
            }
        });
        Link { process: order.process, to, from }
    }

    fn adopt(&self, _found: &FoundShim, _acked: Src) -> Link {
        unreachable!("no shim is found")
    }

    fn found(&self) -> Vec<FoundShim> {
        Vec::new()
    }

    fn refuse(&self, _found: &FoundShim, _reason: &str) {}

    fn freeze_all(&self) {
        self.0.frozen.fetch_add(1, Ordering::SeqCst);
    }

    fn stop_all(&self) {
        self.0.stopped.fetch_add(1, Ordering::SeqCst);
    }

    fn thaw(&self, session: SessionId) {
        self.0.thawed.lock().unwrap().push(session);
    }

    fn beat_all(&self) {
        self.0.beats.fetch_add(1, Ordering::SeqCst);
    }
}
