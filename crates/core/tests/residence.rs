//! Whether a session stays in memory: each way to stay has something that ends it, and each deadline stays until
//! somebody comes or something is done.

use std::collections::BTreeMap;
use std::time::Duration;

use outlive_core::diagnosis::Evidence;
use outlive_core::diagnosis::evidence::StopEvidence;
use outlive_core::id::{ProcessKey, ReportId, RunId, RuntimeId, SessionId};
use outlive_core::runtime::{ExitReport, ExitStatus, LaunchSpec, Program, RestartPolicy, StopStep, StopWhy};
use outlive_core::session::event::{NewRun, OnRaise, PathWhy};
use outlive_core::session::input::{Effect, ProcessInput};
use outlive_core::session::residence::{Need, Residence, Resident, need};
use outlive_core::session::spec::{AfterWork, HangPolicy, OnNodeLoss, Place, StartWhen, Trust, Workload};
use outlive_core::session::state::Life;
use outlive_core::session::{Input, RunOutcome, Session, SessionSpec, advance, apply, decide, timers};
use outlive_core::time::{Now, Tick, WallTime};
use proptest::prelude::*;
use uuid::Uuid;

const TIMEOUT: Duration = Duration::from_secs(30);

fn spec(command: bool, keep: bool, start: StartWhen, restart: RestartPolicy) -> SessionSpec {
    let program = if command {
        Program::Command { argv: vec!["train".to_owned()] }
    } else {
        Program::OfNotebook { kernel: None, metadata: serde_json::Value::Null }
    };
    let notebook =
        Workload::Notebook { source: None, path: None, allow_errors: false, cell_timeout_ms: Some(1_000) };
    SessionSpec {
        id: SessionId::from_uuid(Uuid::from_u128(1)),
        runtime: RuntimeId::from_uuid(Uuid::from_u128(2)),
        workload: if command { Workload::Command { timeout_ms: None } } else { notebook },
        launch: LaunchSpec {
            program,
            cwd: "/".to_owned(),
            env: BTreeMap::new(),
            memory_bytes_max: None,
            ready_timeout_ms: 1_000,
        },
        restart,
        on_hang: HangPolicy::Report,
        on_node_loss: OnNodeLoss::default(),
        after_work: if keep { AfterWork::Keep } else { AfterWork::Close },
        start,
        place: Place::Notebook,
        trust: Trust::Trusted,
        parameters: BTreeMap::new(),
        created_at: WallTime(0),
    }
}

struct World {
    session: Session,
    now: Now,
    /// The last save was asked for and not answered.
    saving: Option<()>,
    ids: u128,
}

impl World {
    fn new(spec: SessionSpec) -> Self {
        let mut world = Self { session: Session::new(spec), now: Now::default(), saving: None, ids: 10 };
        world.settle();
        world
    }

    fn id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128(self.ids)
    }

    fn give(&mut self, input: Input) {
        self.now.tick = self.now.tick + Duration::from_millis(10);
        self.now.wall.0 += 10_000;
        if matches!(input, Input::Saved { .. }) {
            self.saving = None;
        }
        if let Ok(decision) = decide(&self.session, input, self.now) {
            for fact in &decision.facts {
                apply(&mut self.session, fact);
            }
            self.note(&decision.effects);
        }
        self.settle();
    }

    fn note(&mut self, effects: &[Effect]) {
        if effects.contains(&Effect::SaveFinally) {
            self.saving = Some(());
        }
    }

    fn settle(&mut self) {
        for _ in 0..64 {
            let decision = advance(&self.session, self.now);
            if decision.is_none() {
                return;
            }
            for fact in &decision.facts {
                apply(&mut self.session, fact);
            }
            self.note(&decision.effects);
        }
        panic!("what follows from the state does not end");
    }

    fn process(&self, what: ProcessInput) -> Input {
        Input::Process(self.session.process(), what)
    }

    fn run(&mut self) -> NewRun {
        let id = RunId::from_uuid(self.id());
        NewRun { id, cell: None, cell_id: None, source: "1".to_owned(), on_raise: OnRaise::Stop }
    }

    fn input(&mut self, n: u8) -> Input {
        let process: ProcessKey = self.session.process();
        match n % 16 {
            0 => Input::Queue(vec![self.run()]),
            1 => Input::Queue(vec![self.run(), self.run()]),
            2 => self.process(ProcessInput::Spawned { pid: 7 }),
            3 | 4 => self.process(ProcessInput::Ready),
            5 | 6 => match self.session.running {
                Some(run) => {
                    let attempt = self.session.runs[&run].attempt;
                    let outcome = RunOutcome::Succeeded;
                    self.process(ProcessInput::RunFinished { run, attempt, outcome, execution_count: None })
                }
                None => Input::Interrupt,
            },
            7 => {
                let report = ExitReport {
                    process,
                    pid: Some(7),
                    started_at: WallTime(0),
                    exited_at: self.now.wall,
                    status: ExitStatus::Code { code: 1 },
                    evidence: Evidence::default(),
                };
                let id = ReportId::from_uuid(self.id());
                self.process(ProcessInput::Exited { report: Box::new(report), id })
            }
            8 => self.process(ProcessInput::Drained(Box::default())),
            9 => Input::Rest { why: StopWhy::Eviction, from: StopStep::Ask },
            10 => Input::Restart(Vec::new()),
            11 => Input::ClaimPath { path: "/a.ipynb".to_owned(), sha256: "0".to_owned() },
            12 => Input::TakePath { path: "/a.ipynb".to_owned(), why: PathWhy::Saved },
            13 => match timers(&self.session, self.now).first() {
                Some((timer, _)) => Input::Timer(*timer),
                None => Input::Interrupt,
            },
            14 => Input::Saved { problem: None },
            _ => Input::Stop { why: StopWhy::User, from: StopStep::Ask },
        }
    }

    /// What will be heard of it without anybody asking.
    fn is_woken_by_something(&self) -> bool {
        self.session.has_process()
            || !timers(&self.session, self.now).is_empty()
            || self.session.claiming.is_some()
            || self.saving.is_some()
            || matches!(self.session.life, Life::Closed { .. })
    }
}

fn start() -> impl Strategy<Value = SessionSpec> {
    let policy = prop_oneof![Just(RestartPolicy::temporary()), Just(always())];
    let when = prop_oneof![Just(StartWhen::AtOnce), Just(StartWhen::FirstRun)];
    (any::<bool>(), any::<bool>(), when, policy)
        .prop_map(|(command, keep, start, restart)| spec(command, keep, start, restart))
}

fn always() -> RestartPolicy {
    RestartPolicy { restart: outlive_core::runtime::RestartType::Permanent, ..RestartPolicy::temporary() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    // C7, P8
    #[test]
    fn whoever_stays_has_something_that_wakes_it(
        spec in start(),
        steps in proptest::collection::vec((any::<u8>(), 0_u32..2), 0..40),
    ) {
        let mut world = World::new(spec);
        let mut resident = Resident::new(world.now.tick);
        for (step, there) in steps {
            let input = world.input(step);
            world.give(input);
            let before = resident;
            resident = resident.look(&world.session, there, world.now.tick, TIMEOUT);
            match resident.residence {
                Residence::Watched(n) => prop_assert_eq!(n, there),
                Residence::Working => {
                    prop_assert_eq!(there, 0);
                    prop_assert!(world.is_woken_by_something(), "it waits for nothing: {:?}", world.session);
                    prop_assert_eq!(resident.idle_since, world.now.tick);
                }
                Residence::KeptByKernel => {
                    prop_assert!(world.session.has_process() && world.session.is_settled());
                }
                Residence::Due(deadline) => {
                    prop_assert!(!world.session.has_process() && world.session.is_settled());
                    prop_assert!(world.session.claiming.is_none() && world.session.life == Life::Open);
                    let kept = before.residence.deadline().unwrap_or(world.now.tick + TIMEOUT);
                    prop_assert_eq!(deadline, kept, "a deadline does not move by being looked at");
                }
            }
            prop_assert!(resident.idle_since >= before.idle_since);
        }
    }
}

fn ready(world: &mut World) {
    let ready = world.process(ProcessInput::Ready);
    world.give(ready);
}

#[test]
fn an_idle_kernel_keeps_its_session_and_a_viewer_does_not_make_it_busy() {
    let mut world = World::new(spec(false, true, StartWhen::AtOnce, RestartPolicy::temporary()));
    let mut resident = Resident::new(world.now.tick).look(&world.session, 0, world.now.tick, TIMEOUT);
    assert_eq!(resident.residence, Residence::Working, "the kernel is being launched");
    ready(&mut world);
    let later = world.now.tick + Duration::from_secs(3_600);
    resident = resident.look(&world.session, 3, later, TIMEOUT);
    assert_eq!(resident.residence, Residence::Watched(3));
    assert_eq!(resident.idle_since, Tick(0), "nothing was executed since it began");
    resident = resident.look(&world.session, 0, later, TIMEOUT);
    assert_eq!(resident.residence, Residence::KeptByKernel);
    world.give(Input::Rest { why: StopWhy::Eviction, from: StopStep::Ask });
    assert_eq!(need(&world.session), Need::Work, "its kernel is being stopped");
    let process = world.session.process();
    let stop = Some(StopEvidence { why: StopWhy::Eviction, step: StopStep::Ask });
    let report = ExitReport {
        process,
        pid: Some(7),
        started_at: WallTime(0),
        exited_at: world.now.wall,
        status: ExitStatus::Code { code: 0 },
        evidence: Evidence { stop, ..Evidence::default() },
    };
    let id = ReportId::from_uuid(world.id());
    world.give(Input::Process(process, ProcessInput::Exited { report: Box::new(report), id }));
    world.give(Input::Process(process, ProcessInput::Drained(Box::default())));
    // A9
    assert!(world.session.reports.is_empty(), "an eviction is no crash: {:?}", world.session.reports);
    resident = resident.look(&world.session, 0, world.now.tick, TIMEOUT);
    assert_eq!(resident.residence, Residence::Due(world.now.tick + TIMEOUT));
    let again = world.now.tick + Duration::from_secs(31);
    assert_eq!(
        resident.postponed(again, TIMEOUT).residence,
        Residence::Due(again + TIMEOUT),
        "one that could not be evicted has another deadline"
    );
}

#[test]
fn what_waits_is_never_evicted() {
    let mut world = World::new(spec(false, true, StartWhen::FirstRun, RestartPolicy::temporary()));
    assert_eq!(need(&world.session), Need::Nothing, "its kernel comes with the first run");
    let run = world.run();
    world.give(Input::Queue(vec![run]));
    assert_eq!(need(&world.session), Need::Work);
    let mut saved = World::new(spec(false, true, StartWhen::FirstRun, RestartPolicy::temporary()));
    saved.give(Input::ClaimPath { path: "/a.ipynb".to_owned(), sha256: "0".to_owned() });
    assert_eq!(need(&saved.session), Need::Work, "it is being written to a new path");
    saved.give(Input::TakePath { path: "/a.ipynb".to_owned(), why: PathWhy::Saved });
    assert_eq!(need(&saved.session), Need::Nothing);
}
