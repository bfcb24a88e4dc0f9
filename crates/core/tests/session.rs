//! The session against a world that does everything in any order: repeats notices, sends those of earlier processes,
//! kills the daemon between any two facts. Whatever happens, each run ends once, each process dies once, a refused
//! input changes nothing, a cell that waits is one run, a path changes by a written claim or with its file, nothing is
//! started that nobody asked for, and a session that is stopped comes to its end.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use std::collections::{BTreeMap, BTreeSet};

use outlive_core::diagnosis::Evidence;
use outlive_core::diagnosis::evidence::{HangEvidence, Phase, StopEvidence};
use outlive_core::failover::{Member, TakenWhy, Takeover};
use outlive_core::id::{
    Attempt, BootId, Epoch, Incarnation, NodeId, ProcessKey, ReportId, RunId, RuntimeId, Seq, SessionId,
};
use outlive_core::runtime::restart::RestartHistory;
use outlive_core::runtime::{ExitReport, ExitStatus, LaunchSpec, Program, RestartPolicy, StopStep, StopWhy};
use outlive_core::session::event::{AfterExit, Happened, NewRun, OnRaise, PathWhy};
use outlive_core::session::input::{Effect, ProcessInput};
use outlive_core::session::spec::{
    AfterLoss, AfterWork, HangPolicy, OnNodeLoss, Place, Rerun, StartWhen, Trust, Workload,
};
use outlive_core::session::state::{Life, RunState, Status};
use outlive_core::session::{
    CancelWhy, Fact, Input, RunOutcome, Session, SessionSpec, Timer, advance, apply, can_release, decide,
    effective, recover, timers,
};
use outlive_core::time::{Now, WallTime};
use proptest::prelude::*;
use uuid::Uuid;

/// No chain of consequences is longer than this for so few runs.
const STEPS_MAX: usize = 64;

/// A kernel or command that nobody has to ask for.
fn spec(command: bool, restart: RestartPolicy, on_hang: HangPolicy, after_work: AfterWork) -> SessionSpec {
    let workload = if command { Workload::Command { timeout_ms: Some(60_000) } } else { Workload::Kernel };
    spec_of(workload, restart, on_hang, after_work)
}

/// An untitled notebook.
fn notebook(restart: RestartPolicy, start: StartWhen, trust: Trust) -> SessionSpec {
    let (source, path, cell_timeout_ms) = (None, None, Some(60_000));
    let workload = Workload::Notebook { source, path, allow_errors: false, cell_timeout_ms };
    SessionSpec { start, trust, ..spec_of(workload, restart, HangPolicy::Report, AfterWork::Keep) }
}

fn spec_of(
    workload: Workload,
    restart: RestartPolicy,
    on_hang: HangPolicy,
    after_work: AfterWork,
) -> SessionSpec {
    let command = matches!(workload, Workload::Command { .. });
    let program = if command {
        Program::Command { argv: vec!["train".to_owned()] }
    } else {
        Program::Kernel {
            name: "python3".to_owned(),
            display_name: "Python 3".to_owned(),
            language: "python".to_owned(),
            argv: vec!["python3".to_owned()],
            resource_dir: None,
            interrupt_mode: outlive_core::runtime::InterruptMode::Signal,
            transport: outlive_core::runtime::spec::Transport::Tcp,
        }
    };
    SessionSpec {
        id: SessionId::from_uuid(Uuid::from_u128(1)),
        runtime: RuntimeId::from_uuid(Uuid::from_u128(2)),
        workload,
        launch: LaunchSpec {
            program,
            cwd: "/".to_owned(),
            env: BTreeMap::new(),
            memory_bytes_max: None,
            ready_timeout_ms: 1_000,
        },
        restart,
        on_hang,
        on_node_loss: OnNodeLoss::default(),
        after_work,
        start: StartWhen::AtOnce,
        place: Place::Fixed,
        trust: Trust::Trusted,
        parameters: BTreeMap::new(),
        created_at: WallTime(0),
    }
}

/// The log, the state, and what a process would know.
struct World {
    now: Now,
    log: Vec<Fact>,
    session: Session,
    ids: u128,
    /// How long the log was when each owner claimed it.
    claims: Vec<usize>,
}

impl World {
    fn new(spec: SessionSpec) -> Self {
        let mut world = Self {
            now: Now::default(),
            log: Vec::new(),
            session: Session::new(spec),
            ids: 100,
            claims: Vec::new(),
        };
        world.settle(usize::MAX);
        world
    }

    fn id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128(self.ids)
    }

    fn new_run(&mut self, on_raise: OnRaise) -> NewRun {
        NewRun {
            id: RunId::from_uuid(self.id()),
            cell: None,
            cell_id: None,
            source: "1".to_owned(),
            on_raise,
        }
    }

    fn new_cell(&mut self, cell: u8, on_raise: OnRaise) -> NewRun {
        NewRun { cell_id: Some(format!("cell {cell}")), ..self.new_run(on_raise) }
    }

    /// Stores and applies facts; after `budget` of them the daemon dies. Returns what is left of the budget.
    fn store(&mut self, facts: Vec<Fact>, mut budget: usize) -> usize {
        for fact in facts {
            if budget == 0 {
                return 0;
            }
            budget -= 1;
            self.may_follow(&fact);
            apply(&mut self.session, &fact);
            self.log.push(fact);
        }
        budget
    }

    /// What must have been before this fact.
    fn may_follow(&self, fact: &Fact) {
        let session = &self.session;
        let journal = self.log.iter().filter_map(|fact| match fact {
            Fact::Journal(event) => Some(&event.what),
            _ => None,
        });
        match fact {
            Fact::Journal(event) => match &event.what {
                Happened::PathChanged { path, why: PathWhy::Saved | PathWhy::SavedAs } => {
                    let claimed = session.claiming.as_ref().map(|claiming| &claiming.path);
                    assert_eq!(claimed, Some(path), "a path is taken that nobody claimed");
                }
                Happened::PathChanged { why: PathWhy::Renamed, .. } => {
                    assert!(session.path.is_some(), "a file is renamed that is not there");
                }
                Happened::RuntimeLaunching(_) => {
                    let mut asked = journal.filter(|what| match what {
                        Happened::RunsQueued(_) | Happened::RestartAsked => true,
                        Happened::TrustChanged(trust) => {
                            *trust == Trust::Trusted && session.spec.start == StartWhen::AtOnce
                        }
                        _ => false,
                    });
                    let by_itself =
                        (session.spec.start, session.spec.trust) == (StartWhen::AtOnce, Trust::Trusted);
                    assert!(by_itself || asked.next().is_some(), "nobody asked for a process");
                }
                _ => {}
            },
            Fact::RunEnded { run, outcome, .. } => self.may_end(*run, outcome),
            Fact::RunTold { .. } | Fact::RunCheckpointed { .. } => panic!("a session has no tasks"),
            Fact::RunOpened { .. } => {}
        }
    }

    /// A run that never began is lost only with the process that it waited for, or by a wish that came after it.
    fn may_end(&self, id: RunId, outcome: &RunOutcome) {
        let run = &self.session.runs[&id];
        let is_lost = matches!(
            outcome,
            RunOutcome::Failed { .. }
                | RunOutcome::Cancelled { why: CancelWhy::Stopped | CancelWhy::NodeDrained }
        );
        if run.state != RunState::Queued || !is_lost {
            return;
        }
        let since = self.log.iter().rev().filter_map(|fact| match fact {
            Fact::Journal(event) => Some(&event.what),
            _ => None,
        });
        let queued = |what: &&Happened| match what {
            Happened::RunsQueued(runs) => runs.iter().any(|run| run.id == id),
            _ => false,
        };
        let mut since = since.take_while(|what| !queued(what));
        let taken = since.any(|what| match what {
            Happened::RestAsked | Happened::RestartAsked | Happened::Closing(_) => true,
            Happened::RuntimeExited { process, then, .. } => {
                process.incarnation >= run.from || matches!(then, AfterExit::Stay | AfterExit::GiveUp { .. })
            }
            _ => false,
        });
        assert!(taken, "a run is lost that waited for a later process: {run:?}");
    }

    fn settle(&mut self, mut budget: usize) -> usize {
        for _ in 0..STEPS_MAX {
            if budget == 0 {
                return 0;
            }
            let decision = advance(&self.session, self.now);
            if decision.is_none() {
                return budget;
            }
            let saves = decision.effects.contains(&Effect::SaveFinally);
            budget = self.store(decision.facts, budget);
            if saves && budget > 0 {
                let saved = decide(&self.session, Input::Saved { problem: None }, self.now).unwrap();
                budget = self.store(saved.facts, budget);
            }
        }
        panic!("what follows from the state does not end: {:?}", self.session);
    }

    /// One input; the daemon dies after `budget` facts, and a new one folds the log.
    fn give(&mut self, input: Input, budget: usize) {
        self.now.wall.0 += 1_000;
        self.now.tick = self.now.tick + std::time::Duration::from_millis(1);
        let before = self.session.clone();
        match decide(&self.session, input, self.now) {
            Err(_) => assert_eq!(before, self.session, "a refused input changes nothing"),
            Ok(decision) => {
                let left = self.store(decision.facts, budget);
                if self.settle(left) == 0 {
                    self.come_back();
                }
            }
        }
        let _timers = timers(&self.session, self.now);
    }

    /// The next owner, on this node or another, claims the log and folds it.
    fn come_back(&mut self) {
        self.claims.push(self.log.len());
        self.session.claimed();
        let mut folded = Session::new(self.session.spec.clone());
        for n in 0..=self.log.len() {
            if self.claims.contains(&n) {
                folded.claimed();
            }
            if let Some(fact) = self.log.get(n) {
                apply(&mut folded, fact);
            }
        }
        assert_eq!(folded, self.session, "the fold of the facts is the state");
        for effect in recover(&folded) {
            if effect == Effect::SaveFinally {
                let saved = decide(&self.session, Input::Saved { problem: None }, self.now).unwrap();
                self.store(saved.facts, usize::MAX);
            }
        }
        self.settle(usize::MAX);
    }

    /// The node is lost, and another takes the session over; `budget` as in [`Self::give`].
    fn is_lost(&mut self, budget: usize) {
        self.come_back();
        let node = |n| {
            let id = Uuid::from_u128(n);
            Member { node: NodeId::from_uuid(id), boot: BootId::from_uuid(id) }
        };
        let takeover = Takeover {
            from: node(1),
            from_name: "one".to_owned(),
            to: node(2),
            to_name: "two".to_owned(),
            epoch: Epoch(2),
            why: TakenWhy::Silent,
            last_heard: Some(self.now.wall),
            noticed_at: self.now.wall,
            claimed_at: self.now.wall,
            resumed_at: WallTime(0),
            resumed: Vec::new(),
        };
        self.give(Input::TakenOver(Box::new(takeover)), budget);
        let (process, now) = (self.session.process(), self.now.wall);
        if self.session.has_process() {
            let report = Box::new(self.session.runtime.nowhere(process, now));
            let id = ReportId::from_uuid(self.id());
            self.give(Input::Process(process, ProcessInput::Exited { report, id }), budget);
            self.give(Input::Process(process, ProcessInput::Drained(Box::default())), usize::MAX);
        }
    }

    /// It is to be given away: it says what it was at to its end, or its time passes; its process ends when it is told to.
    fn is_handed_over(&mut self) {
        self.give(Input::HandOver { grace_ms: 1_000 }, usize::MAX);
        for _ in 0..STEPS_MAX {
            if can_release(&self.session) || self.session.life != Life::Open {
                return;
            }
            let process = self.session.process();
            match self.session.runtime.status {
                Status::Launching | Status::Ready(_) => {
                    let armed = timers(&self.session, self.now);
                    let (timer, after) = *armed.iter().find(|(t, _)| *t == Timer::HandOver).expect("a bound");
                    self.now.wall.0 += u64::try_from(after.as_micros()).unwrap();
                    self.give(Input::Timer(timer), usize::MAX);
                }
                Status::Stopping { .. } => {
                    let exit = self.exit(process, ExitStatus::Code { code: 0 });
                    self.give(exit, usize::MAX);
                }
                Status::Draining { .. } => {
                    self.give(Input::Process(process, ProcessInput::Drained(Box::default())), usize::MAX);
                }
                Status::Down | Status::Exited(_) | Status::Backoff { .. } | Status::GaveUp { .. } => {
                    let claiming = self.session.claiming.clone().expect("nothing else is in its way");
                    self.give(Input::ReleasePath { path: claiming.path }, usize::MAX);
                }
            }
        }
        panic!("it cannot be given away: {:#?}", self.session);
    }

    fn exit(&mut self, process: ProcessKey, status: ExitStatus) -> Input {
        let stop = match self.session.runtime.status {
            Status::Stopping { why, step } => Some(StopEvidence { why, step }),
            _ => None,
        };
        let evidence = Evidence { phase: Phase::Busy, stop, ..Evidence::default() };
        let report = ExitReport {
            process,
            pid: Some(7),
            started_at: WallTime(0),
            exited_at: self.now.wall,
            status,
            evidence,
        };
        let id = ReportId::from_uuid(self.id());
        Input::Process(process, ProcessInput::Exited { report: Box::new(report), id })
    }

    fn check(&self) {
        let mut ended: BTreeMap<RunId, usize> = BTreeMap::new();
        let mut died: BTreeMap<Incarnation, usize> = BTreeMap::new();
        for fact in &self.log {
            match fact {
                Fact::RunEnded { run, .. } => *ended.entry(*run).or_default() += 1,
                Fact::Journal(event) => {
                    if let Happened::RuntimeExited { process, .. } = &event.what {
                        *died.entry(process.incarnation).or_default() += 1;
                    }
                }
                Fact::RunOpened { .. } | Fact::RunTold { .. } | Fact::RunCheckpointed { .. } => {}
            }
        }
        assert!(ended.values().all(|n| *n == 1), "each run ends once: {ended:?}");
        assert!(died.values().all(|n| *n == 1), "each process dies once: {died:?}");
        let open = self.session.runs.values().filter(|run| !matches!(run.state, RunState::Ended(_))).count();
        let known = self.session.queue.len() + usize::from(self.session.running.is_some());
        assert_eq!(open, known, "what has not ended is queued or running");
        assert!(self.session.dropped.is_empty(), "what is dropped is settled at once");
        let waiting = self.session.queue.iter().filter_map(|id| self.session.runs[id].new.cell_id.as_ref());
        let waiting: Vec<_> = waiting.collect();
        let cells: BTreeSet<_> = waiting.iter().collect();
        // What was interrupted may have been asked for again meanwhile, and what a kernel had run is run again as often.
        let is_once = self.session.spec.on_node_loss.rerun == Rerun::None;
        assert!(!is_once || cells.len() == waiting.len(), "a cell waits twice");
        let count = self.session.ended;
        assert_eq!(ended.len(), (count.succeeded + count.failed + count.cancelled) as usize);
    }

    /// Everything a stop needs: the process ends when it is told to.
    fn stop_to_the_end(&mut self) {
        self.give(Input::Stop { why: StopWhy::User, from: StopStep::Ask }, usize::MAX);
        for _ in 0..STEPS_MAX {
            if let Life::Closed { .. } = self.session.life {
                break;
            }
            let process = self.session.process();
            let input = self.exit(process, ExitStatus::Signal { number: 15, core_dumped: false });
            self.give(input, usize::MAX);
            let drained = ProcessInput::Drained(Box::default());
            self.give(Input::Process(process, drained), usize::MAX);
        }
        assert!(matches!(self.session.life, Life::Closed { .. }), "{:?}", self.session);
        assert!(self.session.is_settled());
        assert!(!self.session.has_process());
    }
}

#[derive(Clone, Debug)]
enum Deed {
    Queue(u8, bool),
    Cells(Vec<u8>, bool),
    Rest(bool),
    Claim(bool),
    Release,
    Take(bool, PathWhy),
    Trust(bool),
    Interrupt,
    Cancel(u8),
    Restart(bool),
    Spawned,
    Ready,
    Finished(bool),
    Asked(bool),
    Hang,
    Answer,
    Stopping,
    Exit(i32),
    Killed,
    Drained,
    Timers,
    Stop,
    HandOver(u64),
    NodeLost,
}

fn why() -> impl Strategy<Value = PathWhy> {
    prop_oneof![Just(PathWhy::Saved), Just(PathWhy::SavedAs), Just(PathWhy::Renamed)]
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        3 => (1..4_u8, any::<bool>()).prop_map(|(n, go_on)| Deed::Queue(n, go_on)),
        4 => (prop::collection::vec(0..5_u8, 1..5), any::<bool>()).prop_map(|(n, on)| Deed::Cells(n, on)),
        2 => any::<bool>().prop_map(Deed::Rest),
        1 => any::<bool>().prop_map(Deed::Claim),
        1 => Just(Deed::Release),
        2 => (any::<bool>(), why()).prop_map(|(b, why)| Deed::Take(b, why)),
        1 => any::<bool>().prop_map(Deed::Trust),
        2 => Just(Deed::Interrupt),
        1 => any::<u8>().prop_map(Deed::Cancel),
        1 => any::<bool>().prop_map(Deed::Restart),
        1 => Just(Deed::Spawned),
        4 => Just(Deed::Ready),
        4 => any::<bool>().prop_map(Deed::Finished),
        1 => any::<bool>().prop_map(Deed::Asked),
        1 => Just(Deed::Hang),
        1 => Just(Deed::Answer),
        1 => Just(Deed::Stopping),
        2 => (0..3).prop_map(Deed::Exit),
        1 => Just(Deed::Killed),
        3 => Just(Deed::Drained),
        2 => Just(Deed::Timers),
        1 => Just(Deed::Stop),
        1 => (0..3_u64).prop_map(Deed::HandOver),
        1 => Just(Deed::NodeLost),
    ]
}

fn path(b: bool) -> String {
    if b { "/b.ipynb" } else { "/a.ipynb" }.to_owned()
}

fn inputs(world: &mut World, deed: &Deed, back: u64) -> Vec<Input> {
    let present = world.session.process();
    let process =
        ProcessKey { incarnation: Incarnation(present.incarnation.0.saturating_sub(back)), ..present };
    let said = |what| vec![Input::Process(process, what)];
    let running = world.session.running;
    let attempt = running.and_then(|run| world.session.runs.get(&run)).map_or(Attempt(1), |run| run.attempt);
    match deed {
        Deed::Queue(n, go_on) => {
            let on_raise = if *go_on { OnRaise::GoOn } else { OnRaise::Stop };
            vec![Input::Queue((0..*n).map(|_| world.new_run(on_raise)).collect())]
        }
        Deed::Cells(cells, go_on) => {
            let on_raise = if *go_on { OnRaise::GoOn } else { OnRaise::Stop };
            vec![Input::Queue(cells.iter().map(|cell| world.new_cell(*cell, on_raise)).collect())]
        }
        Deed::Rest(evict) => {
            let why = if *evict { StopWhy::Eviction } else { StopWhy::Rest };
            vec![Input::Rest { why, from: StopStep::Ask }]
        }
        Deed::Claim(b) => vec![Input::ClaimPath { path: path(*b), sha256: "00".to_owned() }],
        Deed::Release => {
            let claiming = world.session.claiming.as_ref();
            claiming.map(|claiming| Input::ReleasePath { path: claiming.path.clone() }).into_iter().collect()
        }
        Deed::Take(b, why) => vec![Input::TakePath { path: path(*b), why: *why }],
        Deed::Trust(yes) => vec![Input::Trust(if *yes { Trust::Trusted } else { Trust::Untrusted })],
        Deed::Interrupt => vec![Input::Interrupt],
        Deed::Cancel(n) => {
            let order = &world.session.order;
            let pick = (!order.is_empty()).then(|| order[usize::from(*n) % order.len()]);
            pick.map(Input::Cancel).into_iter().collect()
        }
        Deed::Restart(work) => {
            let runs = if *work { vec![world.new_run(OnRaise::Stop)] } else { Vec::new() };
            vec![Input::Restart(runs)]
        }
        Deed::Spawned => said(ProcessInput::Spawned { pid: 7 }),
        Deed::Ready => said(ProcessInput::Ready),
        Deed::Finished(well) => {
            let outcome = if *well {
                RunOutcome::Succeeded
            } else {
                RunOutcome::Raised { ename: "E".to_owned(), evalue: String::new() }
            };
            let finished =
                |run| ProcessInput::RunFinished { run, attempt, outcome, execution_count: Some(1) };
            running.map(|run| Input::Process(process, finished(run))).into_iter().collect()
        }
        Deed::Asked(attended) => {
            let asked = |run| ProcessInput::InputRequested {
                run,
                prompt: "?".to_owned(),
                password: false,
                attended: *attended,
            };
            running.map(|run| Input::Process(process, asked(run))).into_iter().collect()
        }
        Deed::Hang => said(ProcessInput::Unresponsive(HangEvidence::default())),
        Deed::Answer => said(ProcessInput::Responsive),
        Deed::Stopping => said(ProcessInput::Stopping { why: StopWhy::User, step: StopStep::Term }),
        Deed::Exit(code) => vec![world.exit(process, ExitStatus::Code { code: *code })],
        Deed::Killed => vec![world.exit(process, ExitStatus::Signal { number: 9, core_dumped: false })],
        Deed::Drained => said(ProcessInput::Drained(Box::default())),
        Deed::Timers => {
            let due = timers(&world.session, world.now);
            due.into_iter().map(|(timer, _)| Input::Timer(timer)).collect()
        }
        Deed::HandOver(grace_ms) => vec![Input::HandOver { grace_ms: *grace_ms }],
        Deed::NodeLost => unreachable!("done by the world"),
        Deed::Stop => vec![Input::Stop { why: StopWhy::User, from: StopStep::Ask }],
    }
}

fn policy() -> impl Strategy<Value = RestartPolicy> {
    prop_oneof![
        Just(RestartPolicy::temporary()),
        Just(RestartPolicy::transient()),
        Just(RestartPolicy::permanent())
    ]
}

/// A command, a kernel, or a notebook that is opened in one of the ways.
fn any_spec() -> impl Strategy<Value = SessionSpec> {
    let after = prop_oneof![Just(AfterWork::Keep), Just(AfterWork::Close)];
    let start = prop_oneof![Just(StartWhen::AtOnce), Just(StartWhen::FirstRun)];
    let trust = prop_oneof![Just(Trust::Trusted), Just(Trust::Untrusted)];
    let kind = prop_oneof![
        (any::<bool>(), policy(), hang(), after)
            .prop_map(|(c, policy, hang, after)| spec(c, policy, hang, after)),
        (policy(), start, trust).prop_map(|(policy, start, trust)| notebook(policy, start, trust)),
    ];
    (kind, on_node_loss()).prop_map(|(spec, on_node_loss)| SessionSpec { on_node_loss, ..spec })
}

fn on_node_loss() -> impl Strategy<Value = OnNodeLoss> {
    let rerun = prop_oneof![Just(Rerun::None), Just(Rerun::Interrupted), Just(Rerun::All)];
    let kernel = prop_oneof![Just(AfterLoss::Restart), Just(AfterLoss::Leave)];
    (rerun, kernel).prop_map(|(rerun, kernel)| OnNodeLoss { rerun, kernel })
}

fn any_deeds() -> impl Strategy<Value = Vec<(Deed, u64, usize, bool)>> {
    prop::collection::vec((deed(), 0..2_u64, 1..6_usize, any::<bool>()), 0..60)
}

fn lives_through(spec: SessionSpec, deeds: Vec<(Deed, u64, usize, bool)>) -> World {
    let mut world = World::new(spec);
    for (deed, back, budget, crash) in deeds {
        let budget = if crash { budget } else { usize::MAX };
        if let Deed::NodeLost = deed {
            world.is_lost(budget);
            world.check();
            continue;
        }
        for input in inputs(&mut world, &deed, back) {
            world.give(input, budget);
            world.check();
        }
    }
    world
}

fn hang() -> impl Strategy<Value = HangPolicy> {
    prop_oneof![Just(HangPolicy::Report), Just(HangPolicy::Interrupt), Just(HangPolicy::Restart)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    // A6: any number of detectors, in any order, of this process or an earlier one; D1: a crash after any fact.
    #[test]
    fn each_run_ends_once_and_each_process_dies_once(spec in any_spec(), deeds in any_deeds()) {
        let mut world = lives_through(spec, deeds);
        world.stop_to_the_end();
        world.check();
    }

    // E2: whatever it is at, it can be given away soon, and goes on where it is taken.
    #[test]
    fn a_session_can_always_be_given_away(spec in any_spec(), deeds in any_deeds()) {
        let mut world = lives_through(spec, deeds);
        if world.session.life == Life::Open {
            world.is_handed_over();
            world.check();
            world.come_back();
        }
        world.stop_to_the_end();
        world.check();
    }
}

#[test]
fn a_notice_of_an_earlier_process_leaves_the_new_one_and_its_queue_alone() {
    // A6
    let mut world = World::new(spec(false, RestartPolicy::permanent(), HangPolicy::Report, AfterWork::Keep));
    let first = world.session.process();
    world.give(Input::Process(first, ProcessInput::Ready), usize::MAX);
    let exit = world.exit(first, ExitStatus::Code { code: 1 });
    world.give(exit.clone(), usize::MAX);
    world.give(Input::Process(first, ProcessInput::Drained(Box::default())), usize::MAX);
    for (timer, _) in timers(&world.session, world.now) {
        world.give(Input::Timer(timer), usize::MAX);
    }
    let second = world.session.process();
    assert_ne!(first, second);
    world.give(Input::Process(second, ProcessInput::Ready), usize::MAX);
    let run = world.new_run(OnRaise::Stop);
    let id = run.id;
    world.give(Input::Queue(vec![run]), usize::MAX);
    let before = world.session.clone();
    world.give(exit, usize::MAX);
    world.give(Input::Process(first, ProcessInput::Unresponsive(HangEvidence::default())), usize::MAX);
    assert_eq!(world.session, before);
    assert_eq!(world.session.running, Some(id));
    assert_eq!(world.session.reports.len(), 1);
}

#[test]
fn exit_code_0_in_mid_work_fails_the_work_and_what_was_queued() {
    // A10
    let mut world = World::new(spec(false, RestartPolicy::temporary(), HangPolicy::Report, AfterWork::Keep));
    let process = world.session.process();
    world.give(Input::Process(process, ProcessInput::Ready), usize::MAX);
    let runs = vec![world.new_run(OnRaise::Stop), world.new_run(OnRaise::Stop)];
    world.give(Input::Queue(runs), usize::MAX);
    let exit = world.exit(process, ExitStatus::Code { code: 0 });
    world.give(exit, usize::MAX);
    world.give(Input::Process(process, ProcessInput::Drained(Box::default())), usize::MAX);
    for run in world.session.runs.values() {
        assert!(matches!(run.state, RunState::Ended(RunOutcome::Failed { .. })), "{:?}", run.state);
    }
}

#[test]
fn a_crash_loop_ends_in_giving_up_with_a_reason() {
    // A14
    let mut world = World::new(spec(true, RestartPolicy::permanent(), HangPolicy::Report, AfterWork::Keep));
    let run = world.new_run(OnRaise::Stop);
    world.give(Input::Queue(vec![run]), usize::MAX);
    let mut deaths = 0;
    while !matches!(world.session.runtime.status, Status::GaveUp { .. }) {
        deaths += 1;
        assert!(deaths < 20, "it is restarted for ever");
        let process = world.session.process();
        world.give(Input::Process(process, ProcessInput::Ready), usize::MAX);
        let exit = world.exit(process, ExitStatus::Code { code: 3 });
        world.give(exit, usize::MAX);
        world.give(Input::Process(process, ProcessInput::Drained(Box::default())), usize::MAX);
        for (timer, _) in timers(&world.session, world.now) {
            world.give(Input::Timer(timer), usize::MAX);
        }
    }
    let Status::GaveUp { reason } = &world.session.runtime.status else { unreachable!() };
    assert!(reason.contains("restarts"), "{reason}");
    assert!(world.session.is_settled());
    world.check();
}

fn ready(spec: SessionSpec) -> World {
    let mut world = World::new(spec);
    let process = world.session.process();
    world.give(Input::Process(process, ProcessInput::Spawned { pid: 7 }), usize::MAX);
    world.give(Input::Process(process, ProcessInput::Ready), usize::MAX);
    world
}

fn kept_notebook() -> SessionSpec {
    notebook(RestartPolicy::transient(), StartWhen::AtOnce, Trust::Trusted)
}

impl World {
    /// Queues these cells at once and returns the runs that it comes to.
    fn ask_for(&mut self, cells: &[u8]) -> Vec<RunId> {
        let runs: Vec<_> = cells.iter().map(|cell| self.new_cell(*cell, OnRaise::Stop)).collect();
        let runs = effective(&self.session, runs);
        let ids = runs.iter().map(|run| run.id).collect();
        self.give(Input::Queue(runs), usize::MAX);
        ids
    }

    /// The running run raises; the daemon dies after `budget` facts.
    fn raises(&mut self, budget: usize) {
        let run = self.session.running.unwrap();
        let attempt = self.session.runs[&run].attempt;
        let outcome = RunOutcome::Raised { ename: "E".to_owned(), evalue: String::new() };
        let finished = ProcessInput::RunFinished { run, attempt, outcome, execution_count: Some(1) };
        self.give(Input::Process(self.session.process(), finished), budget);
    }

    fn ended(&self, run: RunId) -> Option<&RunOutcome> {
        match &self.session.runs[&run].state {
            RunState::Ended(outcome) => Some(outcome),
            RunState::Queued | RunState::Running { .. } => None,
        }
    }

    /// The cells that wait, in order.
    fn waiting(&self) -> Vec<&str> {
        let cells = self.session.queue.iter().map(|id| self.session.runs[id].new.cell_id.as_deref());
        cells.map(|cell| cell.unwrap_or("code")).collect()
    }
}

const SKIPPED: Option<&RunOutcome> = Some(&RunOutcome::Cancelled { why: CancelWhy::EarlierFailure });

#[test]
fn a_cell_that_raises_takes_along_every_cell_that_waits_and_no_other_code_also_after_a_crash() {
    for budget in 1..6 {
        let mut world = ready(kept_notebook());
        let first = world.ask_for(&[1, 2]);
        let code = world.new_run(OnRaise::Stop);
        let code_id = code.id;
        world.give(Input::Queue(vec![code]), usize::MAX);
        let later = world.ask_for(&[3]);
        world.raises(budget);
        assert!(matches!(world.ended(first[0]), Some(RunOutcome::Raised { .. })), "{budget}");
        assert_eq!(world.ended(first[1]), SKIPPED, "{budget}: queued with it");
        assert_eq!(world.ended(later[0]), SKIPPED, "{budget}: queued later");
        assert_eq!(world.session.running, Some(code_id), "{budget}: not a cell");
        world.check();
    }
}

#[test]
fn code_that_raises_takes_along_only_what_was_queued_with_it() {
    let mut world = ready(kept_notebook());
    let code = vec![world.new_run(OnRaise::Stop), world.new_run(OnRaise::Stop)];
    let with_it = code[1].id;
    world.give(Input::Queue(code), usize::MAX);
    let cell = world.ask_for(&[1]);
    world.raises(usize::MAX);
    assert_eq!(world.ended(with_it), SKIPPED);
    assert_eq!(world.session.running, Some(cell[0]));
}

#[test]
fn a_cell_that_may_raise_takes_nothing_along() {
    let mut world = ready(kept_notebook());
    let cells = vec![world.new_cell(1, OnRaise::GoOn), world.new_cell(2, OnRaise::Stop)];
    let second = cells[1].id;
    world.give(Input::Queue(cells), usize::MAX);
    world.raises(usize::MAX);
    assert_eq!(world.session.running, Some(second));
}

#[test]
fn what_is_asked_for_after_an_interrupt_is_run_and_what_waited_is_not() {
    let mut world = ready(kept_notebook());
    let first = world.ask_for(&[1, 2, 3]);
    world.give(Input::Interrupt, usize::MAX);
    for waited in &first[1..] {
        let cleared = RunOutcome::Cancelled { why: CancelWhy::Interrupted };
        assert_eq!(world.ended(*waited), Some(&cleared));
    }
    let after = world.ask_for(&[4]);
    world.raises(usize::MAX);
    assert_eq!(world.session.running, Some(after[0]), "its asker knew of the interrupt");
}

#[test]
fn an_interrupt_is_whole_also_after_a_crash() {
    for budget in 1..6 {
        let mut world = ready(kept_notebook());
        let runs = world.ask_for(&[1, 2, 3, 4]);
        world.give(Input::Interrupt, budget);
        assert!(world.waiting().is_empty(), "{budget}: {:?}", world.waiting());
        assert_eq!(world.session.running, Some(runs[0]));
        world.check();
    }
}

#[test]
fn a_waiting_cell_keeps_its_run_and_a_running_one_is_queued_again() {
    let mut world = ready(kept_notebook());
    let first = world.ask_for(&[1, 2]);
    let again = world.ask_for(&[1, 2, 2]);
    assert_eq!(again.len(), 2, "a cell that is named twice is one run");
    assert_ne!(again[0], first[0], "it runs: this is another run");
    assert_eq!(again[1], first[1], "it waits: this is the same run");
}

#[test]
fn what_is_asked_for_together_is_run_in_that_order_also_where_a_part_of_it_waits_already() {
    let mut world = World::new(kept_notebook());
    world.ask_for(&[3]);
    world.ask_for(&[4]);
    assert_eq!(world.waiting(), ["cell 3", "cell 4"]);
    world.ask_for(&[3]);
    assert_eq!(world.waiting(), ["cell 3", "cell 4"], "asked for twice, it keeps its place");
    world.ask_for(&[1, 2, 3]);
    assert_eq!(world.waiting(), ["cell 4", "cell 1", "cell 2", "cell 3"]);
    world.ask_for(&[4, 1, 2, 3]);
    assert_eq!(world.waiting(), ["cell 4", "cell 1", "cell 2", "cell 3"]);
    world.check();
}

#[test]
fn a_cell_that_is_asked_for_again_while_its_process_is_stopped_waits_for_the_next() {
    let mut world = ready(kept_notebook());
    world.ask_for(&[1, 2]);
    let process = world.session.process();
    let term = ProcessInput::Stopping { why: StopWhy::User, step: StopStep::Term };
    world.give(Input::Process(process, term), usize::MAX);
    let again = world.ask_for(&[2]);
    let exit = world.exit(process, ExitStatus::Code { code: 1 });
    world.give(exit, usize::MAX);
    world.give(Input::Process(process, ProcessInput::Drained(Box::default())), usize::MAX);
    assert_eq!(world.ended(again[0]), None);
    assert_eq!(world.waiting(), ["cell 2"]);
    world.check();
}

#[test]
fn a_file_that_is_renamed_while_its_notebook_is_saved_elsewhere_leaves_that_claim() {
    // C3
    let mut world = World::new(kept_notebook());
    let take = |path: &str, why| Input::TakePath { path: path.to_owned(), why };
    let claim = |path: &str| Input::ClaimPath { path: path.to_owned(), sha256: "00".to_owned() };
    world.give(claim("/a.ipynb"), usize::MAX);
    world.give(take("/a.ipynb", PathWhy::Saved), usize::MAX);
    world.give(claim("/b.ipynb"), usize::MAX);
    world.give(take("/renamed.ipynb", PathWhy::Renamed), usize::MAX);
    assert_eq!(world.session.path.as_deref(), Some("/renamed.ipynb"));
    world.give(take("/b.ipynb", PathWhy::SavedAs), usize::MAX);
    assert_eq!(world.session.path.as_deref(), Some("/b.ipynb"));
    assert_eq!(world.session.claiming, None);
}

#[test]
fn a_process_that_was_started_after_a_rest_is_restarted_as_the_policy_says() {
    let mut world = ready(kept_notebook());
    let first = world.session.process();
    world.give(Input::Rest { why: StopWhy::Rest, from: StopStep::Ask }, usize::MAX);
    let exit = world.exit(first, ExitStatus::Code { code: 0 });
    world.give(exit, usize::MAX);
    world.give(Input::Process(first, ProcessInput::Drained(Box::default())), usize::MAX);
    assert_eq!(world.session.runtime.status, Status::Down);
    assert!(world.session.reports.is_empty(), "a rest is no failure");
    world.ask_for(&[1]);
    let second = world.session.process();
    let exit = world.exit(second, ExitStatus::Code { code: 1 });
    world.give(exit, usize::MAX);
    world.give(Input::Process(second, ProcessInput::Drained(Box::default())), usize::MAX);
    assert!(matches!(world.session.runtime.status, Status::Backoff { .. }), "{:?}", world.session.runtime);
}

impl World {
    /// Time passes until what is to be launched is, and it is ready.
    fn rises(&mut self) {
        while let Some((timer, after)) = timers(&self.session, self.now).into_iter().min_by_key(|(_, at)| *at)
            && self.session.runtime.status != Status::Launching
        {
            self.now.wall.0 += u64::try_from(after.as_micros()).unwrap();
            self.give(Input::Timer(timer), usize::MAX);
        }
        let process = self.session.process();
        self.give(Input::Process(process, ProcessInput::Spawned { pid: 7 }), usize::MAX);
        self.give(Input::Process(process, ProcessInput::Ready), usize::MAX);
    }

    /// What runs comes to a good end.
    fn finishes(&mut self) {
        let run = self.session.running.expect("something runs");
        let attempt = self.session.runs[&run].attempt;
        let outcome = RunOutcome::Succeeded;
        let finished = ProcessInput::RunFinished { run, attempt, outcome, execution_count: Some(1) };
        self.give(Input::Process(self.session.process(), finished), usize::MAX);
    }

    /// The cell that runs.
    fn at(&self) -> Option<&str> {
        self.session.runs[&self.session.running?].new.cell_id.as_deref()
    }

    /// The base of each attempt of a run.
    fn bases(&self, id: RunId) -> Vec<Option<Seq>> {
        let bases = self.log.iter().filter_map(|fact| match fact {
            Fact::RunOpened { run, base, .. } if *run == id => Some(*base),
            _ => None,
        });
        bases.collect()
    }
}

fn cause(outcome: Option<&RunOutcome>) -> &str {
    match outcome {
        Some(RunOutcome::Failed { code, .. }) => code.as_str(),
        other => panic!("{other:?}"),
    }
}

fn of_policy(rerun: Rerun, kernel: AfterLoss) -> SessionSpec {
    SessionSpec { on_node_loss: OnNodeLoss { rerun, kernel }, ..kept_notebook() }
}

#[test]
fn the_cell_that_a_lost_node_interrupted_ends_node_lost_and_the_kernel_is_started_again_without_a_wait() {
    // E10
    let mut world = ready(of_policy(Rerun::None, AfterLoss::Restart));
    let runs = world.ask_for(&[1, 2, 3]);
    world.finishes();
    world.is_lost(usize::MAX);
    assert_eq!(world.ended(runs[0]), Some(&RunOutcome::Succeeded));
    assert_eq!(cause(world.ended(runs[1])), "node-lost");
    assert_eq!(cause(world.ended(runs[2])), "node-lost", "it may need what the first has computed");
    let [report] = &world.session.reports[..] else { panic!("one death, one report") };
    assert_eq!((report.interrupted.len(), report.status), (2, Some(ExitStatus::Unknown)));
    assert_eq!(world.session.runtime.status, Status::Backoff { after_ms: 0 });
    assert_eq!(world.session.runtime.history, RestartHistory::default(), "it is nobody's fault");
    let taken = world.session.takeovers.back().unwrap();
    assert_eq!(
        taken.resumed,
        [
            "the notebook, with its document and outputs",
            "the memory of its kernel is gone",
            "its kernel, anew",
            "what was running is settled",
            "1 that waited are settled",
        ]
    );
    world.rises();
    let again = world.ask_for(&[1]);
    assert_eq!(world.session.running, Some(again[0]), "and takes work");
    world.check();
}

#[test]
fn what_waits_for_a_kernel_in_which_nothing_has_run_loses_nothing_with_its_node() {
    let mut world = World::new(of_policy(Rerun::None, AfterLoss::Leave));
    let runs = world.ask_for(&[1, 2]);
    world.is_lost(usize::MAX);
    assert_eq!(world.waiting(), ["cell 1", "cell 2"]);
    world.rises();
    assert_eq!((world.at(), world.bases(runs[0])), (Some("cell 1"), vec![None]));
    world.check();
}

#[test]
fn an_interrupted_cell_is_run_again_from_its_beginning_where_the_policy_says_so() {
    // E10: each watcher is told to forget what the first attempt had said.
    let mut world = ready(of_policy(Rerun::Interrupted, AfterLoss::Restart));
    let runs = world.ask_for(&[1, 2, 3]);
    world.finishes();
    world.is_lost(usize::MAX);
    assert_eq!(world.waiting(), ["cell 2", "cell 3"]);
    world.rises();
    assert_eq!((world.at(), world.bases(runs[1])), (Some("cell 2"), vec![None, Some(Seq(0))]));
    world.finishes();
    assert_eq!((world.at(), world.ended(runs[1])), (Some("cell 3"), Some(&RunOutcome::Succeeded)));
    world.check();
}

#[test]
fn all_that_a_lost_kernel_had_run_is_run_again_in_its_order_and_then_what_was_interrupted() {
    // E10
    for budget in 1..6 {
        let mut world = ready(of_policy(Rerun::All, AfterLoss::Restart));
        world.ask_for(&[1, 2]);
        world.finishes();
        world.raises(usize::MAX);
        world.ask_for(&[1]);
        world.finishes();
        let interrupted = world.ask_for(&[3, 4]);
        world.is_lost(budget);
        assert_eq!(world.waiting(), ["cell 1", "cell 1", "cell 3", "cell 4"], "{budget}: what raised is not");
        world.rises();
        for cell in ["cell 1", "cell 1", "cell 3"] {
            assert_eq!(world.at(), Some(cell), "{budget}");
            world.finishes();
        }
        assert_eq!(world.ended(interrupted[0]), Some(&RunOutcome::Succeeded));
        world.is_lost(usize::MAX);
        let cells = ["cell 1", "cell 1", "cell 3", "cell 4"];
        assert_eq!(world.waiting(), cells, "{budget}: it is what the second kernel had run");
        world.check();
    }
}

#[test]
fn what_was_cancelled_or_interrupted_before_its_node_was_lost_stays_so() {
    // E8
    let mut world = ready(of_policy(Rerun::All, AfterLoss::Restart));
    let runs = world.ask_for(&[1]);
    world.give(Input::Cancel(runs[0]), usize::MAX);
    world.is_lost(usize::MAX);
    assert_eq!(world.ended(runs[0]), Some(&RunOutcome::Cancelled { why: CancelWhy::User }));
    world.rises();
    let runs = world.ask_for(&[1]);
    world.give(Input::Interrupt, usize::MAX);
    world.is_lost(usize::MAX);
    assert_eq!(cause(world.ended(runs[0])), "node-lost");
    assert!(world.waiting().is_empty());
}

#[test]
fn a_kernel_is_left_down_where_the_policy_says_so_and_the_next_run_starts_it() {
    let mut world = ready(of_policy(Rerun::None, AfterLoss::Leave));
    world.is_lost(usize::MAX);
    assert_eq!(world.session.runtime.status, Status::Down);
    world.ask_for(&[1]);
    assert_eq!(world.session.runtime.status, Status::Launching);
}

fn command_of(restart: RestartPolicy, rerun: Rerun) -> World {
    let made = spec(true, restart, HangPolicy::Report, AfterWork::Keep);
    let on_node_loss = OnNodeLoss { rerun, kernel: AfterLoss::default() };
    let mut world = World::new(SessionSpec { on_node_loss, ..made });
    let run = world.new_run(OnRaise::Stop);
    world.give(Input::Queue(vec![run]), usize::MAX);
    world
}

#[test]
fn a_command_goes_on_by_its_restart_type_when_its_node_is_lost() {
    let begun_again = [
        (RestartPolicy::permanent(), Rerun::None, true),
        (RestartPolicy::transient(), Rerun::None, true),
        (RestartPolicy::temporary(), Rerun::None, false),
        (RestartPolicy::temporary(), Rerun::Interrupted, true),
    ];
    for (restart, rerun, again) in begun_again {
        let mut world = command_of(restart, rerun);
        let run = world.session.running.expect("it is begun");
        world.is_lost(usize::MAX);
        if again {
            world.rises();
            assert_eq!((world.session.running, world.session.runs[&run].attempt), (Some(run), Attempt(2)));
            assert_eq!(world.bases(run), [None, None], "what it had said stays");
        } else {
            assert_eq!(cause(world.ended(run)), "node-lost");
        }
        world.check();
    }
    let mut world = command_of(RestartPolicy::permanent(), Rerun::None);
    let run = world.session.running.expect("it is begun");
    world.give(Input::Cancel(run), usize::MAX);
    world.is_lost(usize::MAX);
    assert_eq!(world.ended(run), Some(&RunOutcome::Cancelled { why: CancelWhy::User }), "E8");
}

#[test]
fn a_command_that_is_started_again_has_an_attempt_for_its_process_wherever_the_daemon_died() {
    for budget in 0..6 {
        let mut world = command_of(RestartPolicy::permanent(), Rerun::None);
        let (run, first) = (world.session.running.expect("it is begun"), world.session.process());
        world.give(Input::Process(first, ProcessInput::Spawned { pid: 7 }), usize::MAX);
        world.give(Input::Process(first, ProcessInput::Ready), usize::MAX);
        let exited = world.exit(first, ExitStatus::Code { code: 3 });
        world.give(exited, usize::MAX);
        world.give(Input::Process(first, ProcessInput::Drained(Box::default())), usize::MAX);
        let again = Input::Timer(Timer::Backoff(first.incarnation));
        world.give(again.clone(), budget);
        world.settle(usize::MAX);
        if matches!(world.session.runtime.status, Status::Backoff { .. }) {
            world.give(again, usize::MAX);
        }
        assert_eq!(world.session.runtime.status, Status::Launching, "after {budget} facts");
        assert_eq!(world.session.runs[&run].attempt, Attempt(2), "after {budget} facts");
        world.check();
    }
}

#[test]
fn a_cell_has_its_grace_when_its_node_is_drained_and_then_ends_as_drained_and_not_as_a_crash() {
    // A9 (drain), E2
    let mut world = ready(of_policy(Rerun::None, AfterLoss::Restart));
    let runs = world.ask_for(&[1, 2]);
    world.give(Input::HandOver { grace_ms: 1_000 }, usize::MAX);
    assert!(matches!(world.session.runtime.status, Status::Ready(_)), "it may end by itself");
    world.is_handed_over();
    let drained = RunOutcome::Cancelled { why: CancelWhy::NodeDrained };
    assert_eq!((world.ended(runs[0]), world.ended(runs[1])), (Some(&drained), Some(&drained)));
    let [report] = &world.session.reports[..] else { panic!("{:?}", world.session.reports) };
    assert_eq!(report.cause().code.as_str(), "killed-by-operator", "{report:?}");
    let later = world.ask_for(&[3]);
    assert_eq!(world.ended(later[0]), None, "it goes along");
    assert!(can_release(&world.session));
    world.come_back();
    world.rises();
    assert_eq!(world.at(), Some("cell 3"));
    world.check();
}

#[test]
fn what_ends_within_the_grace_of_a_drain_ends_as_it_should_and_nothing_else_is_begun() {
    // E2
    let mut world = ready(of_policy(Rerun::Interrupted, AfterLoss::Restart));
    let runs = world.ask_for(&[1, 2]);
    world.give(Input::HandOver { grace_ms: 60_000 }, usize::MAX);
    world.finishes();
    assert_eq!(world.ended(runs[0]), Some(&RunOutcome::Succeeded));
    let stopping = matches!(world.session.runtime.status, Status::Stopping { why: StopWhy::Drain, .. });
    assert!(stopping, "{:?}", world.session.runtime.status);
    world.is_handed_over();
    assert_eq!(world.waiting(), ["cell 2"]);
    assert!(world.session.reports.is_empty(), "nothing was interrupted");
    world.come_back();
    world.rises();
    assert_eq!(
        (world.at(), world.bases(runs[0]).len()),
        (Some("cell 2"), 1),
        "what had ended is not run again"
    );
    world.check();
}

#[test]
fn a_cell_that_a_drain_interrupts_is_run_again_where_the_policy_says_so() {
    let mut world = ready(of_policy(Rerun::Interrupted, AfterLoss::Restart));
    let runs = world.ask_for(&[1, 2]);
    world.give(Input::HandOver { grace_ms: 0 }, usize::MAX);
    assert!(matches!(world.session.runtime.status, Status::Stopping { .. }));
    world.raises(usize::MAX);
    assert_eq!((world.ended(runs[0]), world.waiting()), (None, vec!["cell 1", "cell 2"]));
    world.is_handed_over();
    world.come_back();
    world.rises();
    assert_eq!((world.at(), world.bases(runs[0])), (Some("cell 1"), vec![None, Some(Seq(0))]));
    world.check();
}
