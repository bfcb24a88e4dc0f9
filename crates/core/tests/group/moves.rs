//! What becomes of a group, its members and its tasks when its node is lost or gives it away.

use std::collections::BTreeSet;

use outlive_core::group::input::RunnerInput;
use outlive_core::group::spec::NewTask;
use outlive_core::group::state::TaskState;
use outlive_core::group::{GroupSpec, Input, Strategy, Timer, can_release, timers};
use outlive_core::id::{Attempt, RunId, Seq};
use outlive_core::limits::TASK_NODES_LOST_MAX;
use outlive_core::runtime::restart::RestartHistory;
use outlive_core::runtime::runner::{Greeting, Phase};
use outlive_core::runtime::{ExitStatus, RestartPolicy, StopStep, StopWhy};
use outlive_core::session::input::ProcessInput;
use outlive_core::session::spec::AfterLoss;
use outlive_core::session::state::Status;
use outlive_core::session::{CancelWhy, Fact, RunOutcome};

use crate::world::{World, greeting, spec};

fn one(restart: RestartPolicy) -> World {
    World::ready(spec(1, Strategy::OneForOne, restart), 4)
}

/// The only runner is there again, for several tasks at a time.
fn rises(world: &mut World) {
    while world.status(0) != &Status::Launching {
        world.next_timer().expect("its restart is due");
    }
    world.gets_ready(0, &["chat"], 4);
}

fn cause(world: &World, run: RunId) -> &str {
    match world.outcome(run) {
        Some(RunOutcome::Failed { code, .. }) => code.as_str(),
        other => panic!("{other:?}"),
    }
}

fn saves(world: &mut World, run: RunId, seq: u64) {
    let attempt = world.group.tasks[&run].attempt;
    world.append(Fact::RunCheckpointed { run, attempt, seq: Seq(seq), blob: None });
}

/// The base of each attempt, and whether anybody was told of a death.
fn story(world: &World, run: RunId) -> (Vec<Option<Seq>>, usize) {
    let opened = |fact: &Fact| match fact {
        Fact::RunOpened { run: of, base, .. } if *of == run => Some(*base),
        _ => None,
    };
    let told = world.log.iter().filter(|fact| matches!(fact, Fact::RunTold { run: of, .. } if *of == run));
    (world.log.iter().filter_map(opened).collect(), told.count())
}

#[test]
fn a_task_that_may_be_begun_again_goes_on_from_its_checkpoint_and_the_others_end_node_lost() {
    // E1, E10
    let mut world = one(RestartPolicy::transient());
    let (kept, anew, once) = (world.chat(true), world.chat(true), world.chat(false));
    saves(&mut world, kept, 7);
    world.is_lost(usize::MAX);
    assert_eq!(cause(&world, once), "node-lost");
    assert_eq!(story(&world, once).1, 1, "it is told why");
    assert_eq!(world.status(0), &Status::Backoff { after_ms: 0 }, "its runner is launched at once");
    assert_eq!(world.group.members[0].runtime.history, RestartHistory::default());
    let resumed = &world.group.takeovers.back().unwrap().resumed;
    assert_eq!(
        resumed[..],
        [
            "its runners, anew: llm-0",
            "1 task, from its checkpoint",
            "1 task, from its beginning",
            "1 task is settled, because it may not be begun again",
        ]
    );
    rises(&mut world);
    let first = (vec![None, Some(Seq(7))], 0);
    assert_eq!((story(&world, kept), story(&world, anew)), (first, (vec![None, Some(Seq(0))], 0)));
    world.closes();
}

#[test]
fn a_task_that_would_not_have_waited_waits_for_its_runner_to_come_back_elsewhere() {
    let mut world = one(RestartPolicy::permanent());
    let new = NewTask { wait_ms: 0, idempotent: true, ..world.task("chat") };
    let run = world.submits(new);
    world.is_lost(usize::MAX);
    assert_eq!(world.outcome(run), None);
    rises(&mut world);
    assert_eq!(world.has(run), Some(0));
}

#[test]
fn who_waits_begins_to_wait_by_the_clock_of_the_new_owner() {
    let mut world = World::new(spec(1, Strategy::OneForOne, RestartPolicy::permanent()));
    let new = NewTask { wait_ms: 10_000, ..world.task("chat") };
    let run = world.submits(new);
    // Of which nothing has passed for anybody.
    world.now.wall.0 += 5 * 3_600_000_000;
    world.is_lost(usize::MAX);
    world.give(Input::Timer(Timer::Wait(run))).unwrap();
    assert_eq!(world.outcome(run), None);
    let waits = timers(&world.group, world.now).into_iter().find(|(timer, _)| *timer == Timer::Wait(run));
    assert!(waits.is_some_and(|(_, left)| (9_000..=10_000).contains(&left.as_millis())), "{waits:?}");
}

#[test]
fn lost_nodes_are_not_a_tasks_fault_until_there_are_too_many() {
    let mut world = one(RestartPolicy::permanent());
    let run = world.chat(true);
    for _ in 0..TASK_NODES_LOST_MAX {
        world.is_lost(usize::MAX);
        assert_eq!(world.outcome(run), None);
        rises(&mut world);
    }
    world.is_lost(usize::MAX);
    assert_eq!(cause(&world, run), "node-lost", "perhaps it takes its machine down");
}

#[test]
fn a_cancel_that_was_asked_before_stays_one() {
    // E8
    for gives in [false, true] {
        let mut world = one(RestartPolicy::permanent());
        let run = world.chat(true);
        world.give(Input::Cancel(run)).unwrap();
        if gives {
            world.is_handed_over()
        } else {
            world.is_lost(usize::MAX)
        }
        assert_eq!(world.outcome(run), Some(&RunOutcome::Cancelled { why: CancelWhy::User }));
    }
}

#[test]
fn members_that_are_never_started_again_are_so_after_a_loss_unless_the_policy_says_otherwise() {
    for (on_node_loss, restart, rises) in [
        (None, RestartPolicy::temporary(), false),
        (Some(AfterLoss::Restart), RestartPolicy::temporary(), true),
        (Some(AfterLoss::Leave), RestartPolicy::permanent(), false),
    ] {
        let made = GroupSpec { on_node_loss, ..spec(1, Strategy::OneForOne, restart) };
        let mut world = World::ready(made, 1);
        let run = world.chat(true);
        world.is_lost(usize::MAX);
        assert_eq!(matches!(world.status(0), Status::Backoff { .. }), rises, "{on_node_loss:?}");
        assert_eq!(world.outcome(run).is_none(), rises);
    }
}

#[test]
fn a_rank_that_had_ended_well_is_started_again_with_those_that_were_lost() {
    let mut world = World::ready(spec(2, Strategy::OneForAll, RestartPolicy::transient()), 1);
    world.exits(0, ExitStatus::Code { code: 0 });
    world.drains(0);
    assert!(matches!(world.status(0), Status::Exited(_)));
    world.is_lost(usize::MAX);
    assert!(world.next_timer().is_some(), "the other is due");
    for member in 0..2 {
        assert_eq!(world.status(member), &Status::Launching);
    }
}

#[test]
fn a_drained_runner_gives_each_task_back_at_a_step_and_only_what_cannot_go_on_ends() {
    // E2
    let mut world = one(RestartPolicy::permanent());
    let (stepped, silent, ends, again) =
        (world.chat(false), world.chat(false), world.chat(false), world.chat(true));
    saves(&mut world, stepped, 5);
    world.give(Input::HandOver).unwrap();
    assert_eq!(world.stops(), [(0, StopWhy::Drain, StopStep::Ask)]);
    let waiting = world.chat(true);
    world.finishes(stepped, RunOutcome::Cancelled { why: CancelWhy::Stopped });
    world.finishes(ends, RunOutcome::Succeeded);
    assert_eq!(world.group.tasks[&stepped].state, TaskState::Queued, "although it may not be begun again");
    world.is_handed_over();
    assert_eq!(world.outcome(silent), Some(&RunOutcome::Cancelled { why: CancelWhy::NodeDrained }));
    assert_eq!((world.outcome(ends), world.outcome(again)), (Some(&RunOutcome::Succeeded), None));
    assert!(can_release(&world.group));
    world.come_back();
    rises(&mut world);
    assert_eq!(story(&world, stepped), (vec![None, Some(Seq(5))], 0), "nothing is done twice");
    assert_eq!(story(&world, again), (vec![None, Some(Seq(0))], 0));
    assert_eq!(world.has(waiting), Some(0), "what was asked for meanwhile has gone along");
    world.closes();
}

fn greets_exact(world: &mut World, member: usize) {
    world.said(member, ProcessInput::Spawned { pid: 7 });
    let exact = Greeting { exact: BTreeSet::from(["chat".to_owned()]), ..greeting(&["chat"], 4) };
    world.runner_said(member, RunnerInput::Greeted(exact));
    world.runner_said(member, RunnerInput::Entered(Phase::Ready));
    world.said(member, ProcessInput::Ready);
}

#[test]
fn a_task_that_is_replayed_exactly_goes_on_at_the_head_and_nobody_is_told_of_anything() {
    // E10
    let mut world = World::new(spec(1, Strategy::OneForOne, RestartPolicy::permanent()));
    greets_exact(&mut world, 0);
    let run = world.chat(true);
    world.is_lost(usize::MAX);
    world.next_timer();
    greets_exact(&mut world, 0);
    assert_eq!(story(&world, run), (vec![None, None], 0));
    // Also when only its runner dies.
    world.dies(0);
    while world.status(0) != &Status::Launching {
        world.next_timer();
    }
    greets_exact(&mut world, 0);
    assert_eq!(story(&world, run), (vec![None, None, None], 0));
    // One that does not replay begins where the checkpoint stands, and what it says is not replayed by the next.
    world.is_lost(usize::MAX);
    world.next_timer();
    world.gets_ready(0, &["chat"], 4);
    world.is_lost(usize::MAX);
    world.next_timer();
    greets_exact(&mut world, 0);
    assert_eq!(story(&world, run).0[3..], [Some(Seq(0)), Some(Seq(0))]);
    assert_eq!(world.group.tasks[&run].attempt, Attempt(5));
}
