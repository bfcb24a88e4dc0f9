//! All of it together, and the loop.

mod ambush;
mod clock;
mod door;
mod live;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use outlive_core::id::{BootId, NodeId};
use outlive_core::log::BlobRef;
use outlive_core::time::{Tick, WallTime};
use outlive_node::Node;
use outlive_node::budget::Budgets;
use outlive_node::bus::LocalBus;
use outlive_node::cluster;
use outlive_node::context::Seams;
use outlive_node::seams::Identity;
use sha2::{Digest as _, Sha256};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::files::{self, Disks};
use crate::host::Host;
use crate::machine::{self, Machines};
use crate::schedule::{Event, Life, Place, Schedule};
use crate::seed::Seed;
use crate::store::{self, Store};
use crate::trace::Trace;
use crate::wire::{self, Wire};
use ambush::Ambushes;
pub use ambush::Moment;
pub use door::{Called, Told};
use door::{Door, Knock};
pub use live::{Heard, Live};

/// Wall time at the beginning of every story, in microseconds.
const BEGINNING: u64 = 1_800_000_000_000_000;
/// A story in which so much happens at one moment never ends.
const AT_ONCE_MAX: u32 = 100_000;
/// Nor does one in which so much happens in all.
const EVENTS_MAX: u64 = 3_000_000;

/// The id of a node.
#[must_use]
pub fn node_id(node: usize) -> NodeId {
    NodeId::from_uuid(Uuid::from_u128(0x1000 + node as u128))
}

/// The boot of a life.
#[must_use]
pub fn boot_id(life: Life) -> BootId {
    BootId::from_uuid(Uuid::from_u128((u128::from(life.nth) << 64) + 0xb000 + life.node as u128))
}

/// How nodes are set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How many there are.
    pub nodes: usize,
    /// Whether they know of each other.
    pub is_cluster: bool,
    /// What a node that is cut off does with its processes.
    pub on_isolation: cluster::OnIsolation,
    /// How long a node's live kernels are left to it.
    pub kernel_grace: Duration,
    /// How long a session without work stays in memory.
    pub idle: Duration,
    /// How many sessions may be in memory.
    pub sessions_max: Option<usize>,
}

/// What is done to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Its daemon is started.
    Start,
    /// Its daemon is killed; its processes go on.
    Kill,
    /// The machine loses power.
    LosePower,
    /// Its daemon does nothing until it is thawed.
    Freeze,
    /// It goes on.
    Thaw,
}

/// What the seams of all nodes reach.
pub struct World {
    /// Random numbers.
    pub seed: Seed,
    /// Time and what is to happen.
    pub schedule: Schedule,
    /// What has happened.
    pub trace: Trace,
    /// How nodes are set up.
    pub setup: Setup,
    /// The network.
    pub wire: Wire,
    /// The store.
    pub store: Store,
    /// The disks.
    pub disks: Disks,
    /// The processes.
    pub machines: Machines,
    /// What every saved state is.
    pub saved: BlobRef,
    place: PathBuf,
    doors: Vec<Mutex<Door>>,
    orders: Mutex<Vec<(usize, Order)>>,
    knocks: Mutex<Vec<Knock>>,
    ambushes: Ambushes,
    /// How far each machine's wall clock is off, in microseconds.
    skews: Vec<Mutex<i64>>,
}

impl World {
    fn new(seed: u64, setup: Setup, trace: Trace, place: PathBuf) -> Self {
        let n = setup.nodes;
        let saved = BlobRef {
            sha256: Sha256::digest(SAVED).iter().map(|byte| format!("{byte:02x}")).collect(),
            size: SAVED.len() as u64,
            mime: "application/octet-stream".to_owned(),
        };
        Self {
            seed: Seed::new(seed),
            schedule: Schedule::default(),
            trace,
            setup,
            wire: Wire::default(),
            store: Store::default(),
            disks: Disks::default(),
            machines: Machines::default(),
            saved,
            place,
            doors: std::iter::repeat_with(Mutex::default).take(n).collect(),
            orders: Mutex::default(),
            knocks: Mutex::default(),
            ambushes: Ambushes::default(),
            skews: std::iter::repeat_with(Mutex::default).take(n).collect(),
        }
    }

    /// Something happens, at a node or in the world.
    pub fn tell(&self, who: Option<usize>, what: fmt::Arguments<'_>) {
        self.trace.tell(self.schedule.now(), who, what);
    }

    /// The wall clock of a machine.
    ///
    /// # Panics
    /// When there is no such machine.
    #[must_use]
    pub fn wall(&self, node: usize) -> WallTime {
        let skew = *self.skews[node].lock().expect("nothing panics while it holds a clock");
        let micros = BEGINNING + self.schedule.now().0 / 1_000;
        WallTime(micros.saturating_add_signed(skew))
    }

    /// Somebody sets the wall clock of a machine.
    ///
    /// # Panics
    /// When there is no such machine.
    pub fn set_clock(&self, node: usize, off_us: i64) {
        *self.skews[node].lock().expect("nothing panics while it holds a clock") = off_us;
        self.tell(None, format_args!("the clock of n{node} is {off_us} µs off"));
    }

    /// Does something to a node, as soon as what happens now is over.
    pub fn order(&self, node: usize, order: Order) {
        self.orders.lock().expect("nothing panics while it holds the orders").push((node, order));
    }

    fn door(&self, node: usize) -> MutexGuard<'_, Door> {
        self.doors[node].lock().expect("nothing panics while it holds a door")
    }

    /// The present life of a node, if it has one.
    #[must_use]
    pub fn life(&self, node: usize) -> Option<Life> {
        self.door(node).life
    }

    /// The node itself, when it has started.
    #[must_use]
    pub fn node(&self, node: usize) -> Option<Arc<Node>> {
        self.door(node).node.clone()
    }
}

/// What every state that a task saves consists of.
const SAVED: &[u8] = b"what a task has saved";

/// The world and what drives it.
pub struct Sim {
    /// What the seams reach.
    pub world: Arc<World>,
    nodes: Vec<Slot>,
    /// Where clients run.
    clients: Host,
    _place: Place_,
}

/// A directory that goes with its owner.
struct Place_(PathBuf);

impl Drop for Place_ {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

#[derive(Default)]
struct Slot {
    host: Option<Host>,
    lives: u32,
    gate: Gate,
}

/// Whether what happens to a node reaches it.
#[derive(Default)]
enum Gate {
    #[default]
    Open,
    /// It is frozen, and this waits for it.
    Shut(Vec<Event>),
}

impl Sim {
    /// A world without any life in it.
    ///
    /// # Panics
    /// When no directory can be made for what processes save.
    #[must_use]
    pub fn new(seed: u64, setup: Setup, trace: Trace) -> Self {
        outlive_node::aside::at_once(true);
        let mut ids = crate::seed::Random::new(seed ^ 0x1d5);
        outlive_node::ids::drawn_from(Some(Box::new(move || {
            Uuid::from_u128((u128::from(ids.number()) << 64) | u128::from(ids.number()))
        })));
        static NTH: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let nth = NTH.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let place = std::env::temp_dir().join(format!("outlive-sim-{}-{nth}", std::process::id()));
        std::fs::create_dir_all(&place).expect("there is a place for temporary files");
        let nodes = std::iter::repeat_with(Slot::default).take(setup.nodes).collect();
        let world = Arc::new(World::new(seed, setup, trace, place.clone()));
        std::fs::write(place.join(&world.saved.sha256), SAVED).expect("the directory was made just now");
        guard_now_and_then(&world);
        Self { world, nodes, clients: Host::new(), _place: Place_(place) }
    }

    /// Somebody who is no node does something.
    pub fn client(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.clients.tasks().spawn(task));
    }

    /// Where clients run.
    #[must_use]
    pub fn clients_handle(&self) -> tokio::runtime::Handle {
        self.clients.tasks().clone()
    }

    /// Lets everything happen until `is_over` or until `limit`.
    pub fn run(&mut self, limit: Tick, mut is_over: impl FnMut() -> bool) {
        self.clients.run();
        self.carry_out();
        let (mut last, mut at_once, mut events) = (Tick(0), 0, 0);
        while !is_over() {
            let Some(event) = self.world.schedule.next(limit) else { return };
            let now = self.world.schedule.now();
            at_once = if now == last { at_once + 1 } else { 0 };
            assert!(at_once < AT_ONCE_MAX, "something is done for ever at {now:?}");
            last = now;
            events += 1;
            assert!(events < EVENTS_MAX, "something is done again and again, at last at {now:?}");
            match event.place {
                Place::World => event.happen(),
                Place::Clients => {
                    event.happen();
                    self.clients.run();
                }
                Place::Node(life) => self.happen_at(life, event),
            }
            self.carry_out();
        }
    }

    fn happen_at(&mut self, life: Life, event: Event) {
        let slot = &mut self.nodes[life.node];
        if slot.host.is_none() || slot.lives != life.nth {
            return;
        }
        match &mut slot.gate {
            Gate::Shut(waiting) => waiting.push(event),
            Gate::Open => {
                event.happen();
                self.run_node(life.node);
            }
        }
    }

    fn run_node(&mut self, node: usize) {
        let Some(host) = &self.nodes[node].host else { return };
        if self.world.trace.is_aloud() {
            let now = self.world.schedule.now();
            crate::logs::at(|| format!("{} n{node} ", crate::trace::moment(now)));
        }
        loop {
            host.run();
            if !self.world.machines.collect(&self.world, node) {
                return;
            }
        }
    }

    /// What was ordered meanwhile.
    fn carry_out(&mut self) {
        loop {
            let orders =
                std::mem::take(&mut *self.world.orders.lock().expect("nothing panics while it holds this"));
            let knocks =
                std::mem::take(&mut *self.world.knocks.lock().expect("nothing panics while it holds this"));
            if orders.is_empty() && knocks.is_empty() {
                return;
            }
            for (node, order) in orders {
                self.world.tell(None, format_args!("n{node}: {order:?}"));
                self.obey(node, order);
            }
            for knock in knocks {
                self.open(knock);
            }
        }
    }

    fn obey(&mut self, node: usize, order: Order) {
        match order {
            Order::Start => self.start(node),
            Order::Kill => self.kill(node),
            Order::LosePower => {
                self.kill(node);
                self.world.machines.lose_power(node);
            }
            Order::Freeze => {
                if matches!(self.nodes[node].gate, Gate::Open) {
                    self.nodes[node].gate = Gate::Shut(Vec::new());
                }
            }
            Order::Thaw => {
                if let Gate::Shut(waiting) = std::mem::take(&mut self.nodes[node].gate) {
                    for event in waiting {
                        self.world.schedule.again(event);
                    }
                }
            }
        }
    }

    fn start(&mut self, node: usize) {
        let slot = &mut self.nodes[node];
        if slot.host.is_some() {
            return;
        }
        slot.lives += 1;
        slot.gate = Gate::Open;
        let life = Life { node, nth: slot.lives };
        let host = Host::new();
        let world = Arc::clone(&self.world);
        *world.door(node) = Door { life: Some(life), node: None, tasks: Some(host.tasks().clone()) };
        drop(host.tasks().spawn(async move {
            let over = over(&world, life).await;
            let mut door = world.door(node);
            match over {
                Ok(started) => door.node = Some(started),
                Err(error) => {
                    drop(door);
                    world.tell(Some(node), format_args!("it does not start: {error:?}"));
                    world.order(node, Order::Kill);
                    // Who keeps it up tries again.
                    let wait = world.seed.draw(("again", life)).millis(300..1_500);
                    let again = Arc::clone(&world);
                    world.schedule.after(wait, Place::World, move || again.order(node, Order::Start));
                }
            }
        }));
        slot.host = Some(host);
        self.run_node(node);
    }

    fn kill(&mut self, node: usize) {
        let slot = &mut self.nodes[node];
        let Some(host) = slot.host.take() else { return };
        slot.gate = Gate::Open;
        let life = Life { node, nth: slot.lives };
        *self.world.door(node) = Door::default();
        self.world.wire.forget(life);
        self.world.store.forget(life);
        self.world.machines.forget(life);
        drop(host);
        self.world.disks.forget(life);
        // Whoever was connected hears of it.
        self.clients.run();
    }
}

async fn over(world: &Arc<World>, life: Life) -> Result<Arc<Node>, outlive_node::StartError> {
    let setup = &world.setup;
    let settings = cluster::Settings {
        name: format!("n{}", life.node),
        url: Some(format!("http://n{}", life.node)),
        transport: Arc::new(wire::Reached::new(Arc::clone(world), life)),
        heart: None,
        kernel_grace: setup.kernel_grace,
        on_isolation: setup.on_isolation,
        volumes: [("shared".to_owned(), PathBuf::from(files::SHARED))].into(),
        is_wide: false,
    };
    let seams = Seams {
        clock: Arc::new(clock::Clock::new(Arc::clone(world), life)),
        engine: Arc::new(store::Reached::new(Arc::clone(world), life, world.place.clone())),
        bus: Arc::new(LocalBus::default()),
        runtimes: Arc::new(machine::Reached::new(Arc::clone(world), life)),
        files: Arc::new(files::Reached::new(Arc::clone(world), life)),
        cluster: setup.is_cluster.then_some(settings),
    };
    let who = Identity { node: node_id(life.node), boot: boot_id(life) };
    let (idle_timeout, sessions_max) = (setup.idle, setup.sessions_max);
    let budgets = Budgets { idle_timeout, sessions_max, ..Budgets::default() };
    Node::over(who, seams, budgets, PathBuf::from("/state"), TaskTracker::new()).await
}

fn guard_now_and_then(world: &Arc<World>) {
    let again = Arc::clone(world);
    world.schedule.after(Duration::from_millis(500), Place::World, move || {
        if again.setup.is_cluster {
            again.machines.guard(&again);
        }
        guard_now_and_then(&again);
    });
}
