//! Processes behind shims, on every machine. They go on when their daemon ends, and end when their machine does.
//!
//! | program | what it does |
//! |---|---|
//! | a runner | tasks, below; two at a time |
//! | a kernel | code: `say N EVERY_US`, or `die` |
//! | a command | `say N EVERY_US CODE`: says so many lines, and exits with that code |
//!
//! | task | what a runner does with it; its input has `n` and `every_us` |
//! |---|---|
//! | `plain` | says `n` chunks; the next attempt begins again |
//! | `saves` | the same, saves after each third, and goes on from there |
//! | `exact` | says the same chunks in each attempt |
//! | `dies` | its first attempt dies in the middle |
//! | `holds` | nothing, until it is cancelled |
//!
//! Each chunk says its run, its attempt (but for `exact`) and its number.

mod acting;
mod script;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use outlive_core::diagnosis::evidence::StopEvidence;
use outlive_core::id::{Attempt, ProcessKey, RunId, SessionId, Src};
use outlive_core::runtime::{ExitStatus, StopStep, StopWhy};
use outlive_core::time::Tick;
use outlive_node::seams::{FoundShim, FromLink, LaunchOrder, Link, Runtimes};
use outlive_protocol::shim::{Numbered, ShimIdentity, ToShim, VERSION, Welcome};
use tokio::sync::mpsc;

use crate::schedule::{Life, Place};
use crate::store::short;
use crate::world::{World, node_id};
use acting::Acting;
use script::Script;

/// Records that may be on their way to a node.
const RECORDS: usize = 100_000;
/// How long the process of a frozen program resists being asked to end.
const LADDER: Duration = Duration::from_secs(1);
/// A shim whose daemon says nothing for so long freezes its process by itself.
pub const GUARD: Duration = Duration::from_millis(outlive_core::limits::SHIM_GUARD_MS);

/// None freezes it sooner.
const GUARD_MIN: Duration = Duration::from_millis(outlive_core::limits::SHIM_GUARD_MS_MIN);

/// What a process has said or done for a run. It happens whether or not anybody ever hears of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Emitted {
    /// When.
    pub at: Tick,
    /// On which machine.
    pub node: usize,
    /// Which process.
    pub process: ProcessKey,
    /// In which attempt.
    pub attempt: Attempt,
    /// Which step of it.
    pub step: u64,
    /// What it said.
    pub text: String,
}

/// All machines.
#[derive(Default)]
pub struct Machines(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    shims: BTreeMap<(usize, ProcessKey), Shim>,
    emitted: BTreeMap<RunId, Vec<Emitted>>,
}

struct Shim {
    identity: ShimIdentity,
    order: LaunchOrder,
    /// What nobody has acknowledged, by its number.
    records: BTreeMap<Src, Numbered>,
    last: Src,
    acked: Src,
    link: Option<Wires>,
    process: Process,
    /// Orders and records keep their order on their way.
    told_at: Tick,
    said_at: Tick,
    /// When its daemon was heard last.
    heard: Tick,
    /// Nobody knows it: it goes with its process.
    is_refused: bool,
}

impl Shim {
    fn is_linked(&self, life: Life) -> bool {
        self.link.as_ref().is_some_and(|link| link.life == life)
    }
}

struct Wires {
    life: Life,
    says: mpsc::Sender<FromLink>,
    orders: mpsc::Receiver<ToShim>,
}

struct Process {
    state: State,
    works: BTreeMap<RunId, Work>,
    known: BTreeSet<(RunId, Attempt)>,
    /// Code that a kernel has not begun.
    waiting: VecDeque<(RunId, Attempt, String)>,
    count: u32,
    /// What it would have done if it were not frozen.
    missed: Vec<(RunId, Attempt)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Runs,
    Frozen,
    Ended,
}

struct Work {
    attempt: Attempt,
    script: Script,
    step: u64,
}

impl Machines {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nothing panics while it holds the machines")
    }

    /// What was ever said for each run.
    pub fn emitted(&self) -> BTreeMap<RunId, Vec<Emitted>> {
        self.lock().emitted.clone()
    }

    /// The processes that are there: session, machine, key, and whether it does anything.
    pub fn alive(&self) -> Vec<(SessionId, usize, ProcessKey, bool)> {
        let inner = self.lock();
        let alive = inner.shims.iter().filter(|(_, shim)| shim.process.state != State::Ended);
        alive
            .map(|((node, key), shim)| (shim.order.session, *node, *key, shim.process.state == State::Runs))
            .collect()
    }

    /// How many shims there are, of processes that have ended too.
    pub fn shims(&self) -> usize {
        self.lock().shims.len()
    }

    /// A daemon is gone: its links break.
    pub fn forget(&self, life: Life) {
        let mut inner = self.lock();
        for shim in inner.shims.values_mut() {
            shim.link.take_if(|link| link.life == life);
        }
        // What nobody knows any more has said its last.
        inner.shims.retain(|_, shim| !(shim.is_refused && shim.process.state == State::Ended));
    }

    /// The power of a machine fails.
    pub fn lose_power(&self, node: usize) {
        self.lock().shims.retain(|(of, _), _| *of != node);
    }

    /// Takes what a node has said to its shims; true when there was something.
    pub fn collect(&self, world: &Arc<World>, node: usize) -> bool {
        let mut inner = self.lock();
        let mut any = false;
        for ((of, process), shim) in &mut inner.shims {
            if *of != node {
                continue;
            }
            let Some(link) = &mut shim.link else { continue };
            let over = loop {
                match link.orders.try_recv() {
                    Ok(order) => {
                        any = true;
                        let wait = world.seed.draw(("order", node, *process)).micros(20..400);
                        let at = (world.schedule.now() + wait).max(shim.told_at + Duration::from_nanos(1));
                        shim.told_at = at;
                        let (world, process) = (Arc::clone(world), *process);
                        world.schedule.clone().at(at, Place::World, move || {
                            world.machines.told(&world, node, process, order);
                        });
                    }
                    Err(mpsc::error::TryRecvError::Empty) => break false,
                    Err(mpsc::error::TryRecvError::Disconnected) => break true,
                }
            };
            if over {
                shim.link = None;
            }
        }
        any
    }

    fn connect(&self, world: &Arc<World>, life: Life, process: ProcessKey, acked: Src) -> Link {
        let (to, orders) = mpsc::channel(64);
        let (says, from) = mpsc::channel(RECORDS);
        let mut inner = self.lock();
        let shim = inner.shims.get_mut(&(life.node, process)).expect("it is linked after it was made");
        shim.link = Some(Wires { life, says, orders });
        shim.heard = world.schedule.now();
        shim.acked = shim.acked.max(acked);
        shim.records.retain(|src, _| *src > acked);
        let welcome = Welcome {
            version: VERSION,
            identity: shim.identity.clone(),
            open_runs: shim.process.works.iter().map(|(run, work)| (*run, work.attempt)).collect(),
            last_src: shim.last,
            asks: None,
            frozen: shim.process.state == State::Frozen,
        };
        send(world, life.node, process, shim, FromLink::Welcome(Box::new(welcome)));
        let again: Vec<_> = shim.records.values().cloned().collect();
        for record in again {
            send(world, life.node, process, shim, FromLink::Record(record));
        }
        Link { process, to, from }
    }

    fn told(&self, world: &Arc<World>, node: usize, process: ProcessKey, order: ToShim) {
        let mut inner = self.lock();
        let Inner { shims, emitted, .. } = &mut *inner;
        let Some(shim) = shims.get_mut(&(node, process)) else { return };
        shim.heard = world.schedule.now();
        let mut acting = Acting { world, node, key: process, shim, emitted };
        match order {
            ToShim::Ack { through } => {
                acting.shim.acked = acting.shim.acked.max(through);
                acting.shim.records.retain(|src, _| *src > through);
            }
            ToShim::Execute { run, attempt, code, .. } => acting.execute(run, attempt, code),
            ToShim::Task { run, attempt, order } => {
                let script = Script::of_task(&order);
                acting.begin(run, attempt, script);
            }
            ToShim::CancelTask { run, attempt } => acting.cancel(run, attempt),
            ToShim::Interrupt => acting.interrupt(),
            ToShim::Stop { why, from } => {
                let stop = StopEvidence { why, step: from };
                let is_at_once = from == StopStep::Kill || acting.shim.process.state == State::Runs;
                let wait = if is_at_once { world.seed.draw(("stop", process)).millis(1..60) } else { LADDER };
                later(world, node, process, wait, move |mut acting| {
                    acting.dies(ExitStatus::Code { code: 0 }, Some(stop));
                });
            }
            ToShim::Goodbye => {
                let shim = acting.shim;
                if shim.process.state == State::Ended {
                    send(world, node, process, shim, FromLink::Gone { report: None });
                    shims.remove(&(node, process));
                }
            }
            ToShim::Refuse { .. } => acting.refuse(),
            ToShim::Freeze => acting.freeze(false),
            ToShim::Thaw => acting.thaw(),
            _ => {}
        }
    }

    /// Does something with each process that is so.
    fn each(&self, world: &Arc<World>, is_it: impl Fn(&Shim) -> bool, act: impl Fn(&mut Acting<'_>)) {
        let mut inner = self.lock();
        let Inner { shims, emitted } = &mut *inner;
        for ((node, key), shim) in shims.iter_mut().filter(|(_, shim)| is_it(shim)) {
            act(&mut Acting { world, node: *node, key: *key, shim, emitted });
        }
    }

    /// Shims whose daemon has been silent for long freeze what they hold.
    pub fn guard(&self, world: &Arc<World>) {
        let now = world.schedule.now();
        let is_left = |shim: &Shim| {
            let patience = if shim.order.spec.program.is_kernel() { world.setup.kernel_grace } else { GUARD };
            now.since(shim.heard) > patience.max(GUARD_MIN)
        };
        self.each(world, is_left, |acting| acting.freeze(true));
    }
}

/// Does something with a process after a while, if it is still there.
fn later(
    world: &Arc<World>,
    node: usize,
    key: ProcessKey,
    wait: Duration,
    act: impl FnOnce(Acting<'_>) + Send + 'static,
) {
    let reached = Arc::clone(world);
    world.schedule.after(wait, Place::World, move || {
        let mut inner = reached.machines.lock();
        let Inner { shims, emitted, .. } = &mut *inner;
        let Some(shim) = shims.get_mut(&(node, key)) else { return };
        act(Acting { world: &reached, node, key, shim, emitted });
        if shims.get(&(node, key)).is_some_and(|shim| shim.is_refused && shim.process.state == State::Ended) {
            shims.remove(&(node, key));
        }
    });
}

fn step_after(
    world: &Arc<World>,
    node: usize,
    key: ProcessKey,
    wait: Duration,
    run: RunId,
    attempt: Attempt,
) {
    later(world, node, key, wait, move |mut acting| acting.step(run, attempt));
}

/// Sends something to whoever is linked, in order.
fn send(world: &World, node: usize, process: ProcessKey, shim: &mut Shim, said: FromLink) {
    let Some(link) = &shim.link else { return };
    let wait = world.seed.draw(("record", node, process)).micros(20..400);
    let at = (world.schedule.now() + wait).max(shim.said_at + Duration::from_nanos(1));
    shim.said_at = at;
    let says = link.says.clone();
    world.schedule.at(at, Place::Node(link.life), move || {
        // One whose session's task is gone is not listened to.
        drop(says.try_send(said));
    });
}

/// The processes of one machine, for one life of its node.
pub struct Reached {
    world: Arc<World>,
    life: Life,
}

impl Reached {
    /// The processes, for this life of a node.
    #[must_use]
    pub fn new(world: Arc<World>, life: Life) -> Self {
        Self { world, life }
    }
}

impl Runtimes for Reached {
    fn launch(&self, order: LaunchOrder) -> Link {
        let (world, life, key) = (&self.world, self.life, order.process);
        world.tell(Some(life.node), format_args!("{} is launched for {}", short(key), short(order.session)));
        let identity = ShimIdentity {
            session: order.session,
            process: key,
            node: node_id(life.node),
            machine_boot: "one".to_owned(),
            shim_pid: 1,
            shim_start: 1,
            pid: Some(1),
            pid_start: Some(1),
            cgroups: Vec::new(),
        };
        let process = Process {
            state: State::Runs,
            works: BTreeMap::new(),
            known: BTreeSet::new(),
            waiting: VecDeque::new(),
            count: 0,
            missed: Vec::new(),
        };
        let now = world.schedule.now();
        let program = order.spec.program.clone();
        let shim = Shim {
            identity,
            order,
            records: BTreeMap::new(),
            last: Src(0),
            acked: Src(0),
            link: None,
            process,
            told_at: now,
            said_at: now,
            heard: now,
            is_refused: false,
        };
        let before = world.machines.lock().shims.insert((life.node, key), shim);
        assert!(before.is_none(), "{key} is launched twice on one machine");
        let link = world.machines.connect(world, life, key, Src(0));
        let wait = world.seed.draw(("boot", life.node, key)).millis(1..80);
        later(world, life.node, key, wait, move |mut acting| acting.boots(&program));
        link
    }

    fn adopt(&self, found: &FoundShim, acked: Src) -> Link {
        let key = found.identity.process;
        self.world.tell(Some(self.life.node), format_args!("{} is adopted behind {acked}", short(key)));
        self.world.machines.connect(&self.world, self.life, key, acked)
    }

    fn found(&self) -> Vec<FoundShim> {
        let inner = self.world.machines.lock();
        let mine = inner.shims.iter().filter(|((node, _), shim)| *node == self.life.node && !shim.is_refused);
        mine.map(|(_, shim)| FoundShim { identity: shim.identity.clone(), of_earlier_boot: false }).collect()
    }

    fn refuse(&self, found: &FoundShim, reason: &str) {
        let (node, process) = (self.life.node, found.identity.process);
        self.world.tell(Some(node), format_args!("{} is refused: {reason}", short(process)));
        later(&self.world, node, process, Duration::from_micros(100), |mut acting| acting.refuse());
    }

    fn freeze_all(&self) {
        self.world.machines.each(
            &self.world,
            |shim| shim.is_linked(self.life),
            |acting| acting.freeze(false),
        );
    }

    fn thaw(&self, session: SessionId) {
        let is_it = |shim: &Shim| shim.is_linked(self.life) && shim.identity.session == session;
        self.world.machines.each(&self.world, is_it, |acting| acting.thaw());
    }

    fn stop_all(&self) {
        let mine: Vec<_> = {
            let inner = self.world.machines.lock();
            let linked = inner.shims.iter().filter(|(_, shim)| shim.is_linked(self.life));
            linked.map(|((_, process), _)| *process).collect()
        };
        for process in mine {
            let stop = StopEvidence { why: StopWhy::Drain, step: StopStep::Term };
            later(&self.world, self.life.node, process, Duration::from_millis(2), move |mut acting| {
                acting.dies(ExitStatus::Signal { number: 15, core_dumped: false }, Some(stop));
            });
        }
    }

    fn beat_all(&self) {
        let now = self.world.schedule.now();
        let mut inner = self.world.machines.lock();
        for shim in inner.shims.values_mut().filter(|shim| shim.is_linked(self.life)) {
            shim.heard = now;
        }
    }
}
