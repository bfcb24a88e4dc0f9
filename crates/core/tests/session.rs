//! The session against a world that does everything in any order: repeats notices, sends those of earlier processes,
//! kills the daemon between any two facts. Whatever happens, each run ends once, each process dies once, a refused
//! input changes nothing, and a session that is stopped comes to its end.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use std::collections::BTreeMap;

use outlive_core::diagnosis::Evidence;
use outlive_core::diagnosis::evidence::{HangEvidence, Phase, StopEvidence};
use outlive_core::id::{Attempt, Incarnation, ProcessKey, ReportId, RunId, RuntimeId, SessionId};
use outlive_core::runtime::{ExitReport, ExitStatus, LaunchSpec, Program, RestartPolicy, StopStep, StopWhy};
use outlive_core::session::event::{Happened, NewRun, OnRaise};
use outlive_core::session::input::{Effect, ProcessInput};
use outlive_core::session::spec::{AfterWork, HangPolicy, Place, StartWhen, Trust, Workload};
use outlive_core::session::state::{Life, RunState, Status};
use outlive_core::session::{
    Fact, Input, RunOutcome, Session, SessionSpec, advance, apply, decide, recover, timers,
};
use outlive_core::time::{Now, WallTime};
use proptest::prelude::*;
use uuid::Uuid;

/// No chain of consequences is longer than this for so few runs.
const STEPS_MAX: usize = 64;

fn spec(command: bool, restart: RestartPolicy, on_hang: HangPolicy, after_work: AfterWork) -> SessionSpec {
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
    let workload = if command { Workload::Command { timeout_ms: Some(60_000) } } else { Workload::Kernel };
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
}

impl World {
    fn new(spec: SessionSpec) -> Self {
        let mut world = Self { now: Now::default(), log: Vec::new(), session: Session::new(spec), ids: 100 };
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

    /// Stores and applies facts; after `budget` of them the daemon dies. Returns what is left of the budget.
    fn store(&mut self, facts: Vec<Fact>, mut budget: usize) -> usize {
        for fact in facts {
            if budget == 0 {
                return 0;
            }
            budget -= 1;
            apply(&mut self.session, &fact);
            self.log.push(fact);
        }
        budget
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

    fn come_back(&mut self) {
        let mut folded = Session::new(self.session.spec.clone());
        for fact in &self.log {
            apply(&mut folded, fact);
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
                Fact::RunOpened { .. } => {}
            }
        }
        assert!(ended.values().all(|n| *n == 1), "each run ends once: {ended:?}");
        assert!(died.values().all(|n| *n == 1), "each process dies once: {died:?}");
        let open = self.session.runs.values().filter(|run| !matches!(run.state, RunState::Ended(_))).count();
        let known = self.session.queue.len() + usize::from(self.session.running.is_some());
        assert_eq!(open, known, "what has not ended is queued or running");
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
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        3 => (1..4_u8, any::<bool>()).prop_map(|(n, go_on)| Deed::Queue(n, go_on)),
        1 => Just(Deed::Interrupt),
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
    ]
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

fn hang() -> impl Strategy<Value = HangPolicy> {
    prop_oneof![Just(HangPolicy::Report), Just(HangPolicy::Interrupt), Just(HangPolicy::Restart)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    // A6: any number of detectors, in any order, of this process or an earlier one; D1: a crash after any fact.
    #[test]
    fn each_run_ends_once_and_each_process_dies_once(
        command in any::<bool>(),
        policy in policy(),
        hang in hang(),
        keep in any::<bool>(),
        deeds in prop::collection::vec((deed(), 0..2_u64, 1..6_usize, any::<bool>()), 0..60),
    ) {
        let after = if keep { AfterWork::Keep } else { AfterWork::Close };
        let mut world = World::new(spec(command, policy, hang, after));
        for (deed, back, budget, crash) in deeds {
            for input in inputs(&mut world, &deed, back) {
                world.give(input, if crash { budget } else { usize::MAX });
                world.check();
            }
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
