//! The group against a world that does everything in any order: repeats notices, sends those of earlier processes, kills the
//! daemon between any two facts. What must never be is asked by the world's witness after each fact, and after each input
//! nothing may wait for what will not come.

use outlive_core::diagnosis::Evidence;
use outlive_core::diagnosis::evidence::{HangEvidence, StallEvidence};
use outlive_core::group::input::{Input, RunnerInput, Timer};
use outlive_core::group::spec::{NewTask, Strategy as Together};
use outlive_core::group::state::TaskState;
use outlive_core::group::{GroupSpec, timers};
use outlive_core::id::{ReportId, RunId, Seq};
use outlive_core::runtime::runner::Phase;
use outlive_core::runtime::{ExitStatus, RestartPolicy, StopStep, StopWhy};
use outlive_core::session::input::ProcessInput;
use outlive_core::session::spec::{AfterLoss, HangPolicy};
use outlive_core::session::state::Life;
use outlive_core::session::{CancelWhy, Fact, RunOutcome};
use proptest::prelude::*;

use crate::world::{World, greeting, runtime, spec};

#[derive(Clone, Debug)]
enum Deed {
    Submit {
        handler: u8,
        idempotent: bool,
        wait: bool,
        limit: bool,
        again: bool,
    },
    Cancel(u8),
    Start(Option<u8>),
    Stop(Option<u8>, bool),
    Restart(Option<u8>),
    Close,
    Rises {
        concurrency: u32,
    },
    Spawned,
    Greets {
        both: bool,
        concurrency: u32,
    },
    Enters(Phase),
    Ready,
    Finishes {
        nth: u8,
        how: u8,
        stale: bool,
    },
    Checkpoint {
        nth: u8,
        seq: u64,
    },
    Hangs,
    Answers,
    Stopping(StopWhy),
    Exits(i32),
    Killed,
    LastsUntilHealthy,
    Drained,
    Dies,
    Stalls {
        loading: bool,
        nth: u8,
    },
    Violates {
        fatal: bool,
    },
    Timers,
    NextTimer,
    Forget(u8),
    HandOver,
    /// A runner that is asked to end stops a task at a step.
    Steps(u8),
    NodeLost,
}

fn phase() -> impl Strategy<Value = Phase> {
    prop_oneof![
        1 => Just(Phase::Loading),
        1 => Just(Phase::WarmingUp),
        3 => Just(Phase::Ready),
        1 => Just(Phase::ShuttingDown)
    ]
}

fn why() -> impl Strategy<Value = StopWhy> {
    prop_oneof![Just(StopWhy::User), Just(StopWhy::NeverReady), Just(StopWhy::Drain)]
}

fn submit() -> impl Strategy<Value = Deed> {
    (0..3_u8, any::<bool>(), prop::bool::weighted(0.8), any::<bool>(), prop::bool::weighted(0.1)).prop_map(
        |(handler, idempotent, wait, limit, again)| Deed::Submit { handler, idempotent, wait, limit, again },
    )
}

fn deed() -> impl Strategy<Value = Deed> {
    let member = || prop::option::of(0..3_u8);
    let wishes = prop_oneof![
        8 => submit(),
        3 => any::<u8>().prop_map(Deed::Cancel),
        1 => member().prop_map(Deed::Start),
        1 => (member(), any::<bool>()).prop_map(|(member, hard)| Deed::Stop(member, hard)),
        1 => member().prop_map(Deed::Restart),
        1 => any::<u8>().prop_map(Deed::Forget),
    ];
    let words = prop_oneof![
        6 => (1..4_u32).prop_map(|concurrency| Deed::Rises { concurrency }),
        1 => Just(Deed::Spawned),
        2 => (any::<bool>(), 0..3_u32).prop_map(|(both, concurrency)| Deed::Greets { both, concurrency }),
        2 => phase().prop_map(Deed::Enters),
        2 => Just(Deed::Ready),
        6 => (any::<u8>(), 0..4_u8, prop::bool::weighted(0.1))
            .prop_map(|(nth, how, stale)| Deed::Finishes { nth, how, stale }),
        2 => (any::<u8>(), 1..9_u64).prop_map(|(nth, seq)| Deed::Checkpoint { nth, seq }),
        1 => Just(Deed::Hangs),
        1 => Just(Deed::Answers),
        1 => why().prop_map(Deed::Stopping),
        1 => (any::<bool>(), any::<u8>()).prop_map(|(loading, nth)| Deed::Stalls { loading, nth }),
        1 => prop::bool::weighted(0.3).prop_map(|fatal| Deed::Violates { fatal }),
    ];
    let ends = prop_oneof![
        2 => (0..2).prop_map(Deed::Exits),
        1 => Just(Deed::Killed),
        1 => Just(Deed::LastsUntilHealthy),
        3 => Just(Deed::Drained),
        3 => Just(Deed::Dies),
        1 => Just(Deed::HandOver),
        2 => any::<u8>().prop_map(Deed::Steps),
        1 => Just(Deed::NodeLost),
        2 => Just(Deed::Timers),
        5 => Just(Deed::NextTimer),
    ];
    prop_oneof![20 => wishes, 30 => words, 20 => ends, 1 => Just(Deed::Close)]
}

fn outcome(how: u8) -> RunOutcome {
    match how {
        0 | 1 => RunOutcome::Succeeded,
        2 => RunOutcome::Raised { ename: "E".to_owned(), evalue: String::new() },
        _ => RunOutcome::Cancelled { why: CancelWhy::User },
    }
}

/// The n-th of those that the member has.
fn nth(world: &World, member: usize, nth: u8) -> Option<RunId> {
    let running = &world.group.members[member].running;
    running.iter().nth(usize::from(nth) % running.len().max(1)).copied()
}

/// The n-th of all that are known.
fn any_task(world: &World, nth: u8) -> Option<RunId> {
    let order = &world.group.order;
    (!order.is_empty()).then(|| order[usize::from(nth) % order.len()])
}

/// A runner says how a task ended, of this attempt or the one before.
fn finished(world: &World, run: RunId, how: u8, stale: bool) -> ProcessInput {
    let mut attempt = world.group.tasks[&run].attempt;
    attempt.0 -= u64::from(stale);
    ProcessInput::RunFinished { run, attempt, outcome: outcome(how), execution_count: None }
}

/// A runner stops a task at a step.
fn stopped(world: &World, run: RunId) -> ProcessInput {
    let outcome = RunOutcome::Cancelled { why: CancelWhy::Stopped };
    let attempt = world.group.tasks[&run].attempt;
    ProcessInput::RunFinished { run, attempt, outcome, execution_count: None }
}

fn inputs(world: &mut World, deed: &Deed, member: usize, back: u64) -> Vec<Input> {
    let process = world.process_before(member, back);
    let which = |n: &Option<u8>| n.map(|n| runtime(usize::from(n) % world.group.members.len()));
    let said = |what| vec![Input::Process(process, what)];
    let told = |what| vec![Input::Runner(process, what)];
    match deed {
        Deed::Submit { handler, idempotent, wait, limit, again } => {
            let key = any_task(world, *handler).map(|run| world.group.tasks[&run].new.key.clone());
            let name = ["chat", "embed", "nobody knows"][usize::from(*handler)];
            let mut new = NewTask { idempotent: *idempotent, ..world.task(name) };
            new.wait_ms = if *wait { new.wait_ms } else { 0 };
            new.limit_ms = limit.then_some(90_000);
            new.key = if *again { key.unwrap_or(new.key) } else { new.key };
            vec![Input::Submit(new)]
        }
        Deed::Cancel(n) => any_task(world, *n).map(Input::Cancel).into_iter().collect(),
        Deed::Start(n) => vec![Input::Start(which(n))],
        Deed::Stop(n, hard) => {
            vec![Input::Stop(which(n), if *hard { StopStep::Kill } else { StopStep::Ask })]
        }
        Deed::Restart(n) => vec![Input::Restart(which(n))],
        Deed::Close => vec![Input::Close { why: StopWhy::User, from: StopStep::Ask }],
        Deed::Rises { concurrency } => vec![
            Input::Process(process, ProcessInput::Spawned { pid: 7 }),
            Input::Runner(process, RunnerInput::Greeted(greeting(&["chat", "embed"], *concurrency))),
            Input::Runner(process, RunnerInput::Entered(Phase::Ready)),
            Input::Process(process, ProcessInput::Ready),
        ],
        Deed::Spawned => said(ProcessInput::Spawned { pid: 7 }),
        Deed::Greets { both, concurrency } => {
            let tasks: &[&str] = if *both { &["chat", "embed"] } else { &["chat"] };
            told(RunnerInput::Greeted(greeting(tasks, *concurrency)))
        }
        Deed::Enters(phase) => told(RunnerInput::Entered(*phase)),
        Deed::Ready => said(ProcessInput::Ready),
        Deed::Finishes { nth: n, how, stale } => match nth(world, member, *n) {
            Some(run) => said(finished(world, run, *how, *stale)),
            None => Vec::new(),
        },
        Deed::Checkpoint { nth: n, seq } => {
            let Some(run) = nth(world, member, *n) else { return Vec::new() };
            let attempt = world.group.tasks[&run].attempt;
            world.append(Fact::RunCheckpointed { run, attempt, seq: Seq(*seq), blob: None });
            Vec::new()
        }
        Deed::Hangs => said(ProcessInput::Unresponsive(HangEvidence::default())),
        Deed::Answers => said(ProcessInput::Responsive),
        Deed::Stopping(why) => said(ProcessInput::Stopping { why: *why, step: StopStep::Term }),
        Deed::Exits(code) => {
            vec![world.exit_of(process, ExitStatus::Code { code: *code }, Evidence::default())]
        }
        Deed::Killed => {
            let killed = ExitStatus::Signal { number: 9, core_dumped: false };
            vec![world.exit_of(process, killed, Evidence::default())]
        }
        Deed::LastsUntilHealthy => {
            world.passes(world.group.spec.restart.period_ms);
            Vec::new()
        }
        Deed::Drained => said(ProcessInput::Drained(Box::default())),
        Deed::Dies => {
            let exit = world.exit_of(process, ExitStatus::Code { code: 1 }, Evidence::default());
            vec![exit.clone(), exit, Input::Process(process, ProcessInput::Drained(Box::default()))]
        }
        Deed::Stalls { loading, nth: n } => {
            let run = if *loading { None } else { nth(world, member, *n) };
            told(RunnerInput::Stalled { stall: StallEvidence::default(), run })
        }
        Deed::Violates { fatal } => {
            let id = ReportId::from_uuid(world.id());
            told(RunnerInput::Violated { what: "garbage".to_owned(), is_fatal: *fatal, id })
        }
        Deed::Timers => timers(&world.group, world.now).into_iter().map(|(t, _)| Input::Timer(t)).collect(),
        Deed::HandOver => vec![Input::HandOver],
        Deed::Steps(n) => nth(world, member, *n).map_or_else(Vec::new, |run| said(stopped(world, run))),
        Deed::NodeLost | Deed::NextTimer => unreachable!("done by the world"),
        Deed::Forget(n) => vec![Input::Forget(any_task(world, *n).into_iter().collect())],
    }
}

fn any_spec() -> impl Strategy<Value = GroupSpec> {
    let policy = prop_oneof![
        Just(RestartPolicy::temporary()),
        Just(RestartPolicy::transient()),
        Just(RestartPolicy::permanent())
    ];
    let together = prop_oneof![Just(Together::OneForOne), Just(Together::OneForAll)];
    let on_hang = prop_oneof![Just(HangPolicy::Report), Just(HangPolicy::Restart)];
    let on_node_loss = prop_oneof![Just(None), Just(Some(AfterLoss::Restart)), Just(Some(AfterLoss::Leave))];
    (1..4_usize, together, policy, on_hang, on_node_loss).prop_map(
        |(n, together, policy, on_hang, on_node_loss)| GroupSpec {
            on_hang,
            on_node_loss,
            ..spec(n, together, policy)
        },
    )
}

fn any_deeds() -> impl Strategy<Value = Vec<(Deed, u8, u64, usize)>> {
    let back = prop_oneof![6 => Just(0_u64), 1 => Just(1_u64)];
    let budget = prop_oneof![2 => Just(usize::MAX), 1 => 1..8_usize];
    prop::collection::vec((deed(), 0..3_u8, back, budget), 0..80)
}

fn lives_through(spec: GroupSpec, deeds: Vec<(Deed, u8, u64, usize)>) -> World {
    let mut world = World::new(spec);
    for (deed, member, back, budget) in deeds {
        let member = usize::from(member) % world.group.members.len();
        match deed {
            Deed::NodeLost => {
                world.is_lost(budget);
                continue;
            }
            Deed::NextTimer => {
                world.next_timer();
                continue;
            }
            _ => {}
        }
        for input in inputs(&mut world, &deed, member, back) {
            // What is refused has changed nothing: the world has asked.
            world.give_until(input, budget).ok();
        }
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    // A6: any number of detectors, in any order, of this process or an earlier one; D1: a crash after any fact.
    #[test]
    fn each_task_ends_once_and_each_process_dies_once(spec in any_spec(), deeds in any_deeds()) {
        lives_through(spec, deeds).closes();
    }

    #[test]
    fn work_ends_when_everybody_dies(spec in any_spec(), deeds in any_deeds()) {
        let mut world = lives_through(spec, deeds);
        world.everything_dies();
        for task in world.group.tasks.values() {
            prop_assert!(matches!(task.state, TaskState::Ended(_)));
        }
        world.closes();
    }

    // E2: whatever it is at, it can be given away soon, and goes on where it is taken.
    #[test]
    fn a_group_can_always_be_given_away(spec in any_spec(), deeds in any_deeds()) {
        let mut world = lives_through(spec, deeds);
        if world.group.life == Life::Open {
            world.is_handed_over();
            world.come_back();
            world.everything_dies();
        }
        world.closes();
    }

    #[test]
    fn a_cancel_that_was_accepted_ends_the_task_in_its_grace_and_it_is_not_begun_again(
        spec in any_spec(), deeds in any_deeds(), nth in any::<u8>(),
    ) {
        let mut world = lives_through(spec, deeds);
        let Some(run) = any_task(&world, nth) else { return Ok(()) };
        let attempt = world.group.tasks[&run].attempt;
        if world.give(Input::Cancel(run)).is_err() {
            return Ok(());
        }
        let (since, mut deadlines) = (world.now, 0);
        while world.outcome(run).is_none() {
            let member = world.has(run).expect("what waits ends at once");
            let armed = timers(&world.group, world.now);
            let grace = armed.iter().find(|(t, _)| *t == Timer::CancelGrace(run, attempt));
            match grace {
                Some((timer, after)) => {
                    world.passes(u64::try_from(after.as_millis()).unwrap());
                    world.give(Input::Timer(*timer)).unwrap();
                    deadlines += 1;
                }
                // Its process is on its way out, which has its own deadlines in the shim.
                None => world.goes_away(member),
            }
        }
        prop_assert!(deadlines <= 1 && world.now.wall.0 - since.wall.0 <= 5_010_000);
        prop_assert_eq!(world.group.tasks[&run].attempt, attempt);
        world.closes();
    }
}
