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

mod reached;
mod script;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use outlive_core::diagnosis::Evidence;
use outlive_core::diagnosis::evidence::StopEvidence;
use outlive_core::id::{Attempt, ProcessKey, RunId, SessionId, Src};
use outlive_core::log::{Chunk, ChunkKind};
use outlive_core::runtime::{ExitReport, ExitStatus, Program, StopStep, StopWhy};
use outlive_core::session::RunOutcome;
use outlive_core::session::outcome::CancelWhy;
use outlive_core::time::{Tick, WallTime};
use outlive_node::seams::{FoundShim, FromLink, LaunchOrder, Link, Runtimes};
use outlive_protocol::shim::{Notice, Numbered, ShimIdentity, StateNotice, ToShim, VERSION, Welcome};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::schedule::{Life, Place};
use crate::store::short;
use crate::world::{World, node_id};
use script::{How, Script};

pub use reached::Reached;

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
            ToShim::CancelTask { run, attempt }
                if acting.shim.process.works.get(&run).is_some_and(|work| work.attempt == attempt) =>
            {
                acting.finish(run, RunOutcome::Cancelled { why: CancelWhy::User });
            }
            ToShim::CancelTask { .. } => {}
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

/// A process that does something.
struct Acting<'a> {
    world: &'a Arc<World>,
    node: usize,
    key: ProcessKey,
    shim: &'a mut Shim,
    emitted: &'a mut BTreeMap<RunId, Vec<Emitted>>,
}

impl Acting<'_> {
    fn says(&mut self, notice: Notice) {
        self.shim.last = self.shim.last.next();
        let record = Numbered { src: self.shim.last, at: self.wall(), notice };
        self.shim.records.insert(record.src, record.clone());
        send(self.world, self.node, self.key, self.shim, FromLink::Record(record));
    }

    fn state(&mut self, state: StateNotice) {
        self.says(Notice::State(state));
    }

    fn wall(&self) -> WallTime {
        self.world.wall(self.node)
    }

    fn output(&mut self, run: RunId, kind: ChunkKind, text: &str) {
        let chunks = vec![Chunk::inline(kind, self.wall(), text.as_bytes())];
        self.says(Notice::Output { run: Some(run), chunks });
    }

    fn execute(&mut self, run: RunId, attempt: Attempt, code: String) {
        if self.shim.process.state == State::Ended || !self.shim.process.known.insert((run, attempt)) {
            return;
        }
        match &self.shim.order.spec.program {
            Program::Command { argv } => {
                let script = Script::of_command(argv);
                self.state(StateNotice::Spawned { pid: 1, pid_start: 1 });
                self.state(StateNotice::RunStarted { run, attempt });
                self.state(StateNotice::Ready { kernel_info: Value::Null });
                self.start(run, attempt, script);
            }
            Program::Kernel { .. } | Program::OfNotebook { .. } | Program::Runner { .. } => {
                self.shim.process.waiting.push_back((run, attempt, code));
                self.next_code();
            }
        }
    }

    fn next_code(&mut self) {
        if !self.shim.process.works.is_empty() {
            return;
        }
        let Some((run, attempt, code)) = self.shim.process.waiting.pop_front() else { return };
        self.state(StateNotice::RunStarted { run, attempt });
        self.start(run, attempt, Script::of_code(&code));
    }

    fn begin(&mut self, run: RunId, attempt: Attempt, script: Script) {
        if self.shim.process.state != State::Ended && self.shim.process.known.insert((run, attempt)) {
            self.start(run, attempt, script);
        }
    }

    fn start(&mut self, run: RunId, attempt: Attempt, script: Script) {
        self.world.tell(
            Some(self.node),
            format_args!("{} begins {} attempt {attempt}", short(self.key), short(run)),
        );
        let step = script.from;
        let wait = script.every;
        self.shim.process.works.insert(run, Work { attempt, script, step });
        step_after(self.world, self.node, self.key, wait, run, attempt);
    }

    fn step(&mut self, run: RunId, attempt: Attempt) {
        let process = &mut self.shim.process;
        match process.state {
            State::Ended => return,
            State::Frozen => return process.missed.push((run, attempt)),
            State::Runs => {}
        }
        let Some(work) = process.works.get_mut(&run).filter(|work| work.attempt == attempt) else { return };
        if work.script.how == How::Holds {
            return;
        }
        work.step += 1;
        let (step, script) = (work.step, work.script.clone());
        if step > script.n {
            return self.end(run, &script);
        }
        if script.how == How::Dies && attempt == Attempt(1) && step == script.n / 2 + 1 {
            return self.dies(ExitStatus::Signal { number: 11, core_dumped: false }, None);
        }
        let text = script.text(run, attempt, step);
        let (at, node, process) = (self.world.schedule.now(), self.node, self.key);
        let emitted = Emitted { at, node, process, attempt, step, text: text.clone() };
        self.emitted.entry(run).or_default().push(emitted);
        self.output(run, script.kind, &text);
        if script.how == How::Saves && step.is_multiple_of(3) {
            let blob = self.world.saved.clone();
            self.state(StateNotice::Checkpointed { run, attempt, blob });
        }
        step_after(self.world, self.node, self.key, script.every, run, attempt);
    }

    fn end(&mut self, run: RunId, script: &Script) {
        match script.code {
            Some(code) => {
                self.shim.process.works.remove(&run);
                self.dies(ExitStatus::Code { code }, None);
            }
            None => self.finish(run, RunOutcome::Succeeded),
        }
    }

    fn finish(&mut self, run: RunId, outcome: RunOutcome) {
        let Some(work) = self.shim.process.works.remove(&run) else { return };
        self.shim.process.count += 1;
        let execution_count = Some(self.shim.process.count);
        if outcome.is_success() && work.script.kind == ChunkKind::Text {
            self.output(run, ChunkKind::Result, &json!(work.script.n).to_string());
        }
        let attempt = work.attempt;
        self.state(StateNotice::RunFinished { run, attempt, outcome, execution_count });
        self.next_code();
    }

    fn interrupt(&mut self) {
        let running: Vec<RunId> = self.shim.process.works.keys().copied().collect();
        for run in running {
            if matches!(self.shim.order.spec.program, Program::Command { .. }) {
                return self.dies(ExitStatus::Signal { number: 2, core_dumped: false }, None);
            }
            let (ename, evalue) = ("KeyboardInterrupt".to_owned(), String::new());
            self.finish(run, RunOutcome::Raised { ename, evalue });
        }
    }

    fn freeze(&mut self, by_guard: bool) {
        if self.shim.process.state == State::Runs {
            self.shim.process.state = State::Frozen;
            self.world.tell(
                Some(self.node),
                format_args!("{} is frozen, by its guard: {by_guard}", short(self.key)),
            );
            self.state(StateNotice::Frozen { by_guard });
        }
    }

    fn thaw(&mut self) {
        self.shim.heard = self.world.schedule.now();
        if self.shim.process.state != State::Frozen {
            return;
        }
        self.shim.process.state = State::Runs;
        self.world.tell(Some(self.node), format_args!("{} is thawed", short(self.key)));
        for (run, attempt) in std::mem::take(&mut self.shim.process.missed) {
            step_after(self.world, self.node, self.key, Duration::from_micros(50), run, attempt);
        }
        self.state(StateNotice::Thawed);
    }

    fn refuse(&mut self) {
        self.shim.is_refused = true;
        let stop = StopEvidence { why: StopWhy::Disowned, step: StopStep::Kill };
        later(self.world, self.node, self.key, Duration::from_millis(5), move |mut acting| {
            acting.dies(ExitStatus::Code { code: 0 }, Some(stop));
        });
    }

    fn dies(&mut self, status: ExitStatus, stop: Option<StopEvidence>) {
        if std::mem::replace(&mut self.shim.process.state, State::Ended) == State::Ended {
            return;
        }
        self.world.tell(Some(self.node), format_args!("{} ends: {status}", short(self.key)));
        self.shim.process.works.clear();
        self.shim.process.waiting.clear();
        let evidence = Evidence { stop, ..Evidence::default() };
        let report = ExitReport {
            process: self.key,
            pid: Some(1),
            started_at: WallTime(0),
            exited_at: self.wall(),
            status,
            evidence: evidence.clone(),
        };
        self.state(StateNotice::Exited { report: Box::new(report) });
        self.state(StateNotice::Drained { evidence: Box::new(evidence) });
    }
}

impl Acting<'_> {
    fn boots(&mut self, program: &Program) {
        if self.shim.process.state == State::Ended {
            return;
        }
        match program {
            Program::Command { .. } => {}
            Program::Kernel { .. } | Program::OfNotebook { .. } => {
                self.state(StateNotice::Spawned { pid: 1, pid_start: 1 });
                self.state(StateNotice::Ready { kernel_info: Value::Null });
            }
            Program::Runner { .. } => {
                self.state(StateNotice::Spawned { pid: 1, pid_start: 1 });
                self.state(StateNotice::Greeted { greeting: script::greeting() });
                let (phase, progress) = (outlive_core::runtime::runner::Phase::Ready, Default::default());
                self.state(StateNotice::Entered { phase, progress });
                self.state(StateNotice::Ready { kernel_info: Value::Null });
            }
        }
    }
}
