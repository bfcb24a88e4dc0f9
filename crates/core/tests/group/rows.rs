//! What a user of a group relies on, one promise each.

use std::time::Duration;

use outlive_core::diagnosis::evidence::{LastWords, StallEvidence};
use outlive_core::diagnosis::{CauseCode, Evidence, FailureReport};
use outlive_core::group::event::GroupEvent;
use outlive_core::group::input::RunnerInput;
use outlive_core::group::spec::NewTask;
use outlive_core::group::state::TaskState;
use outlive_core::group::{Decision, Denied, Effect, Group, Input, Strategy, Timer, advance, apply, timers};
use outlive_core::id::{Attempt, ReportId, RunId, Seq};
use outlive_core::limits::{TASK_ATTEMPTS_MAX, TASKS_REMEMBERED_MAX};
use outlive_core::log::ChunkKind;
use outlive_core::log::chunk::Payload;
use outlive_core::runtime::runner::{Phase, Speaks, Watchdogs};
use outlive_core::runtime::{ExitStatus, Program, RestartPolicy, StopStep, StopWhy};
use outlive_core::session::event::{AfterExit, Happened, SessionEvent};
use outlive_core::session::input::ProcessInput;
use outlive_core::session::state::{Health, Life, Status};
use outlive_core::session::{CancelWhy, Fact, RunOutcome};
use outlive_core::time::WallTime;
use uuid::Uuid;

use crate::world::{GRACE_MS, WAIT_MS, World, greeting, runtime, spec};

const SEGFAULT: ExitStatus = ExitStatus::Signal { number: 11, core_dumped: false };

fn one_for_one(members: usize) -> World {
    World::ready(spec(members, Strategy::OneForOne, RestartPolicy::permanent()), 1)
}

fn ranks(members: usize) -> World {
    World::ready(spec(members, Strategy::OneForAll, RestartPolicy::permanent()), 1)
}

fn failed(outcome: Option<&RunOutcome>) -> (CauseCode, ReportId) {
    match outcome {
        Some(RunOutcome::Failed { code, report, .. }) => (*code, *report),
        other => panic!("it did not fail: {other:?}"),
    }
}

fn unserved(outcome: Option<&RunOutcome>) -> &str {
    match outcome {
        Some(RunOutcome::Unserved { reason }) => reason,
        other => panic!("it was served: {other:?}"),
    }
}

/// What the log says since then, in short, in order.
fn since(world: &World, from: usize) -> Vec<&'static str> {
    let words = world.log[from..].iter().filter_map(|fact| match fact {
        Fact::RunTold { .. } => Some("told"),
        Fact::RunEnded { .. } => Some("ended"),
        Fact::RunOpened { .. } => Some("opened"),
        Fact::RunCheckpointed { .. } => None,
        Fact::Journal(SessionEvent { what, .. }) => match what {
            Happened::RuntimeExited { .. } => Some("exited"),
            Happened::RuntimeDrained { .. } => Some("drained"),
            Happened::RuntimeLaunching(_) => Some("launching"),
            Happened::Group(GroupEvent::AllDown { .. }) => Some("all down"),
            Happened::Group(GroupEvent::TaskWaitsAgain { .. }) => Some("waits again"),
            _ => None,
        },
    });
    words.collect()
}

fn reports_of(world: &World, member: usize) -> Vec<&FailureReport> {
    let of = |report: &&FailureReport| report.process.is_some_and(|p| p.runtime == runtime(member));
    world.group.reports.iter().filter(of).collect()
}

// ---- deaths ----------------------------------------------------------------------------------------------------

// A6
#[test]
fn several_detectors_of_one_death_make_one_report_and_one_end_for_each_task() {
    let mut world = World::ready(spec(1, Strategy::OneForOne, RestartPolicy::permanent()), 2);
    let (first, second) = (world.chat(false), world.chat(false));
    let process = world.process(0);
    let exit = world.exit_of(process, SEGFAULT, Evidence::default());
    let again = world.exit_of(process, ExitStatus::Unknown, Evidence::default());
    for notice in [exit.clone(), again, exit] {
        world.give(notice).unwrap();
    }
    world.drains(0);
    world.drains(0);
    assert_eq!(world.group.reports.len(), 1);
    let death = world.group.reports[0].id;
    assert_eq!(failed(world.outcome(first)).1, death);
    assert_eq!(failed(world.outcome(second)).1, death, "one report, whatever it ended");
    assert_eq!(world.group.reports[0].interrupted, [first, second]);
    assert_eq!(world.group.reports[0].interrupted_names, ["task 1 (chat)", "task 2 (chat)"]);
    assert!(world.group.reports[0].subject.starts_with("runner llm-0"), "{}", world.group.reports[0].subject);
}

// A6
#[test]
fn a_notice_of_an_earlier_process_leaves_the_new_one_and_its_tasks_alone() {
    let mut world = one_for_one(1);
    let earlier = world.process(0);
    let exit = world.exit_of(earlier, SEGFAULT, Evidence::default());
    world.dies(0);
    world.rises(0);
    let run = world.chat(false);
    let before = world.group.clone();
    world.give(exit).unwrap();
    world.give(Input::Process(earlier, ProcessInput::Drained(Box::default()))).unwrap();
    world.give(Input::Runner(earlier, RunnerInput::Entered(Phase::ShuttingDown))).unwrap();
    let stall = RunnerInput::Stalled { stall: StallEvidence::default(), run: Some(run) };
    world.give(Input::Runner(earlier, stall)).unwrap();
    assert_eq!(world.group, before);
}

// A11
#[test]
fn a_task_in_flight_is_told_of_the_death_then_everybody_then_it_ends() {
    let mut world = one_for_one(1);
    let run = world.chat(false);
    let from = world.log.len();
    let last_words = LastWords {
        exception_type: "ValueError".to_owned(),
        message: "shapes differ".to_owned(),
        ..LastWords::default()
    };
    let evidence = Evidence { last_words: Some(last_words), ..Evidence::default() };
    let process = world.process(0);
    let exit = world.exit_of(process, ExitStatus::Code { code: 1 }, evidence);
    world.give(exit).unwrap();
    assert_eq!(since(&world, from), ["told", "exited"], "at once; the end waits for what was said last");
    assert_eq!(world.outcome(run), None);
    world.drains(0);
    assert_eq!(since(&world, from), ["told", "exited", "drained", "ended"]);

    let (code, report) = failed(world.outcome(run));
    let Fact::RunTold { run: told, chunks } = &world.log[from] else { panic!("{:?}", world.log[from]) };
    let [chunk] = chunks.as_slice() else { panic!("{chunks:?}") };
    let Payload::Inline(bytes) = &chunk.payload else { panic!("it is short") };
    let content: serde_json::Value = serde_json::from_slice(bytes).unwrap();
    assert_eq!((*told, &chunk.kind), (run, &ChunkKind::Error));
    assert_eq!(content["ename"], code.as_str());
    assert!(content["evalue"].as_str().unwrap().contains("shapes differ"), "{content}");
    assert_eq!(content["report"], report.to_string());
    let page = content["traceback"].as_array().unwrap();
    assert!(page.iter().any(|line| line.as_str().unwrap().contains("llm-0")), "{page:?}");
}

// A6, D1
#[test]
fn a_daemon_that_dies_between_telling_of_a_death_and_recording_it_tells_of_it_once() {
    let mut world = one_for_one(1);
    let run = world.chat(false);
    let (from, process) = (world.log.len(), world.process(0));
    let exit = world.exit_of(process, SEGFAULT, Evidence::default());
    world.give_until(exit, 1).unwrap();
    assert_eq!(since(&world, from), ["told"]);
    let told = world.group.tasks[&run].told.expect("it was told");
    let again = world.exit_of(process, SEGFAULT, Evidence::default());
    world.give(again).unwrap();
    world.drains(0);
    assert_eq!(since(&world, from), ["told", "exited", "drained", "ended"]);
    assert_eq!(failed(world.outcome(run)).1, told, "what it was told of is the report that there is");
}

// A9
#[test]
fn a_stop_that_was_asked_for_is_no_crash() {
    let mut world = one_for_one(2);
    let run = world.chat(false);
    world.give(Input::Stop(Some(runtime(0)), StopStep::Ask)).unwrap();
    assert_eq!(world.stops(), [(0, StopWhy::User, StopStep::Ask)]);
    let process = world.process(0);
    world.said(0, ProcessInput::Stopping { why: StopWhy::User, step: StopStep::Term });
    assert_eq!(*world.status(0), Status::Stopping { why: StopWhy::User, step: StopStep::Term });
    world.exits(0, ExitStatus::Signal { number: 15, core_dumped: false });
    world.drains(0);
    assert_eq!(world.outcome(run), Some(&RunOutcome::Cancelled { why: CancelWhy::Stopped }));
    assert_eq!(world.group.reports[0].cause().code, CauseCode::KilledByOperator);
    assert_eq!((world.status(0), world.process(0)), (&Status::Down, process), "it stays down");
    assert_eq!(world.group.members[1].runtime.status, Status::Ready(Health::Responsive));
    let next = world.chat(false);
    assert_eq!(world.has(next), Some(1), "the group stays");
}

// A9
#[test]
fn a_stop_that_interrupts_nothing_has_no_report() {
    let mut world = one_for_one(1);
    world.give(Input::Stop(None, StopStep::Term)).unwrap();
    world.exits(0, ExitStatus::Signal { number: 15, core_dumped: false });
    world.drains(0);
    assert!(world.group.reports.is_empty());
    let why = world.task("chat");
    let Err(Denied::NobodyReady(reason)) = world.give(Input::Submit(why)) else {
        panic!("it waits for nobody")
    };
    assert_eq!(reason, "llm-0 was stopped");
    world.give(Input::Start(None)).unwrap();
    assert_eq!(*world.status(0), Status::Launching);
}

// A10
#[test]
fn exit_code_0_in_mid_work_fails_the_work_and_says_so() {
    let mut world = one_for_one(1);
    let run = world.chat(false);
    world.exits(0, ExitStatus::Code { code: 0 });
    world.drains(0);
    let (code, _) = failed(world.outcome(run));
    assert_eq!(code, CauseCode::ExitCode);
    assert_eq!(world.group.reports[0].status, Some(ExitStatus::Code { code: 0 }));
    // In the middle of work no end is a normal one: also a transient runner is started again.
    let mut world = World::ready(spec(1, Strategy::OneForOne, RestartPolicy::transient()), 1);
    world.chat(false);
    world.exits(0, ExitStatus::Code { code: 0 });
    assert!(matches!(world.follows(0), AfterExit::Restart { .. }));
}

// A10
#[test]
fn exit_code_0_without_work_is_no_failure_and_a_transient_runner_stays_down() {
    let transient = spec(1, Strategy::OneForOne, RestartPolicy::transient());
    let mut world = World::ready(transient, 1);
    world.exits(0, ExitStatus::Code { code: 0 });
    world.drains(0);
    assert!(world.group.reports.is_empty());
    assert_eq!(*world.status(0), Status::Exited(ExitStatus::Code { code: 0 }));
    let mut world = one_for_one(1);
    world.exits(0, ExitStatus::Code { code: 0 });
    world.drains(0);
    assert!(matches!(world.status(0), Status::Backoff { .. }), "a permanent one is started again");
}

// A14
#[test]
fn a_crash_loop_backs_off_then_gives_up_with_a_reason_that_who_waits_is_told() {
    let mut world = World::new(spec(1, Strategy::OneForOne, RestartPolicy::permanent()));
    let waiting = world.chat(false);
    let mut waits = Vec::new();
    while !matches!(world.status(0), Status::GaveUp { .. }) {
        world.exits(0, ExitStatus::Code { code: 3 });
        if let AfterExit::Restart { after_ms, .. } = world.follows(0) {
            waits.push(*after_ms);
        }
        world.drains(0);
        if let Status::Backoff { .. } = world.status(0) {
            assert!(matches!(world.next_timer(), Some(Timer::Backoff(..))));
        }
    }
    assert_eq!(waits, [200, 400, 800]);
    let reason = unserved(world.outcome(waiting));
    assert!(reason.contains("llm-0 gave up: it ended again after 3 restarts"), "{reason}");
    assert!(reason.contains("exited with code 3"), "{reason}");
    let late = world.task("chat");
    let denied = world.give(Input::Submit(late)).unwrap_err();
    assert!(denied.to_string().contains("gave up"), "{denied}");
}

// A14
#[test]
fn healthy_time_and_a_start_by_hand_begin_the_count_anew() {
    let mut world = one_for_one(1);
    for _ in 0..6 {
        world.passes(61_000);
        world.dies(0);
        assert_eq!(*world.status(0), Status::Backoff { after_ms: 200 });
        world.rises(0);
    }
    for _ in 0..4 {
        world.dies(0);
        if let Status::Backoff { .. } = world.status(0) {
            world.rises(0);
        }
    }
    assert!(matches!(world.status(0), Status::GaveUp { .. }));
    world.give(Input::Start(Some(runtime(0)))).unwrap();
    assert_eq!(*world.status(0), Status::Launching);
    world.dies(0);
    assert_eq!(*world.status(0), Status::Backoff { after_ms: 200 });
}

#[test]
fn each_member_of_a_one_for_one_group_has_its_own_count_and_leaves_the_others_alone() {
    let mut world = one_for_one(2);
    let other = world.process(1);
    while !matches!(world.status(0), Status::GaveUp { .. }) {
        world.dies(0);
        if let Status::Backoff { .. } = world.status(0) {
            world.rises(0);
        }
    }
    assert_eq!(world.process(1), other);
    let run = world.chat(false);
    assert_eq!(world.has(run), Some(1));
    world.dies(1);
    assert_eq!(*world.status(1), Status::Backoff { after_ms: 200 }, "its first restart");
}

// ---- members that need each other ------------------------------------------------------------------------------

#[test]
fn when_one_rank_dies_the_others_are_stopped_and_all_are_started_together() {
    let mut world = ranks(3);
    let run = world.chat(false);
    assert_eq!(world.has(run), Some(0));
    world.stops();
    world.exits(1, SEGFAULT);
    let (sibling, term) = (StopWhy::Sibling, StopStep::Term);
    assert_eq!(world.stops(), [(0, sibling, term), (2, sibling, term)]);
    world.drains(1);
    let first = world.next_timer();
    assert!(matches!(first, Some(Timer::Backoff(..))));
    assert_eq!(*world.status(1), Status::Down, "its wait is over, and it waits for the others");
    world.dies(0);
    let (code, report) = failed(world.outcome(run));
    assert_eq!(code, CauseCode::GroupSibling);
    let explained = world.group.reports.iter().find(|known| known.id == report).unwrap();
    let why = explained.evidence.sibling.as_ref().expect("the first death is named");
    assert_eq!(why.name, "llm-1 (pid 7)");
    assert_eq!(why.cause, reports_of(&world, 1)[0].cause().code);
    assert_eq!(why.report, Some(reports_of(&world, 1)[0].id));
    world.next_timer();
    assert_eq!((world.status(0), world.status(1)), (&Status::Down, &Status::Down));
    world.dies(2);
    assert_eq!(*world.status(2), Status::Backoff { after_ms: 200 }, "one death, one count");
    world.next_timer();
    for member in 0..3 {
        assert_eq!(*world.status(member), Status::Launching);
    }
    assert_eq!(world.group.falling, None);
}

#[test]
fn ranks_give_up_together_and_their_intensity_is_the_groups() {
    let mut world = ranks(2);
    for death in 0..4 {
        let member = death % 2;
        world.exits(member, SEGFAULT);
        world.dies(1 - member);
        world.drains(member);
        while death < 3 && !matches!(world.status(0), Status::Launching) {
            world.next_timer().expect("they are started again");
        }
    }
    for member in 0..2 {
        let Status::GaveUp { reason } = world.status(member) else { panic!("{:?}", world.status(member)) };
        assert!(reason.contains("3 restarts"), "{reason}");
    }
}

#[test]
fn ranks_that_are_never_restarted_all_stay_down_until_somebody_starts_them() {
    let mut world = World::ready(spec(2, Strategy::OneForAll, RestartPolicy::temporary()), 1);
    world.exits(0, SEGFAULT);
    assert_eq!(*world.status(1), Status::Stopping { why: StopWhy::Sibling, step: StopStep::Term });
    world.drains(0);
    world.dies(1);
    assert!(world.next_timer().is_none());
    assert!(matches!(world.status(1), Status::Exited(_)));
    world.give(Input::Start(Some(runtime(1)))).unwrap();
    assert_eq!((world.status(0), world.status(1)), (&Status::Launching, &Status::Launching));
}

#[test]
fn a_restart_of_one_rank_is_one_of_all_and_none_starts_before_all_are_gone() {
    let mut world = ranks(2);
    world.give(Input::Restart(Some(runtime(0)))).unwrap();
    let (why, ask) = (StopWhy::Restart, StopStep::Ask);
    assert_eq!(world.stops(), [(0, why, ask), (1, why, ask)]);
    world.dies(0);
    world.next_timer();
    assert_eq!(*world.status(0), Status::Down);
    world.dies(1);
    world.next_timer();
    assert_eq!((world.status(0), world.status(1)), (&Status::Launching, &Status::Launching));
    assert!(world.group.reports.is_empty(), "it was asked for");
}

// ---- who gets what ---------------------------------------------------------------------------------------------

#[test]
fn a_task_goes_to_the_ready_member_with_the_least_to_do_the_first_of_equals() {
    let mut world = World::ready(spec(3, Strategy::OneForOne, RestartPolicy::permanent()), 2);
    world.runner_said(0, RunnerInput::Entered(Phase::Loading));
    let runs: Vec<RunId> = (0..5).map(|_| world.chat(false)).collect();
    let places: Vec<_> = runs.iter().map(|run| world.has(*run)).collect();
    assert_eq!(places, [Some(1), Some(2), Some(1), Some(2), None], "two each, none to the one that loads");
    world.finishes(runs[1], RunOutcome::Succeeded);
    assert_eq!(world.has(runs[4]), Some(2));
    let given = world.effects.iter().filter(|effect| matches!(effect, Effect::Task { .. }));
    assert_eq!(given.count(), 5);
}

#[test]
fn a_task_goes_past_those_that_need_another_handler() {
    let mut world = World::new(spec(2, Strategy::OneForOne, RestartPolicy::permanent()));
    world.gets_ready(0, &["chat"], 1);
    let embed = world.task("embed");
    let embed = world.submits(embed);
    let chat = world.chat(false);
    assert_eq!((world.has(embed), world.has(chat)), (None, Some(0)), "the other may have it");
    world.gets_ready(1, &["chat"], 1);
    let reason = unserved(world.outcome(embed));
    assert_eq!(reason, "no runner of llm has a task \"embed\"; it has chat");
    let late = world.task("embed");
    let denied = world.give(Input::Submit(late)).unwrap_err();
    assert_eq!(denied, Denied::UnknownTask { task: "embed".to_owned(), known: "chat".to_owned() });
}

// A11
#[test]
fn a_task_waits_for_a_runner_that_greets_with_nothing_only_to_say_why_it_fails() {
    let mut world = World::new(spec(1, Strategy::OneForOne, RestartPolicy::permanent()));
    let run = world.chat(false);
    world.said(0, ProcessInput::Spawned { pid: 7 });
    world.runner_said(0, RunnerInput::Greeted(greeting(&[], 1)));
    world.runner_said(0, RunnerInput::Entered(Phase::Loading));
    assert_eq!(world.outcome(run), None);
    world.dies(0);
    world.rises(0);
    assert_eq!(world.has(run), Some(0));
}

#[test]
fn a_task_that_must_not_wait_is_refused_with_the_reason_when_nobody_is_ready() {
    let mut world = World::new(spec(2, Strategy::OneForOne, RestartPolicy::permanent()));
    world.gets_ready(0, &["chat"], 1);
    let busy = world.chat(false);
    let full = NewTask { wait_ms: 0, ..world.task("chat") };
    world.submits(full);
    world.dies(0);
    assert!(world.outcome(busy).is_some());
    let new = NewTask { wait_ms: 0, ..world.task("chat") };
    let denied = world.give(Input::Submit(new)).unwrap_err().to_string();
    assert!(denied.contains("llm-0 is about to be started again (exit-code: "), "{denied}");
    assert!(denied.contains("llm-1 is being started"), "{denied}");
}

#[test]
fn a_task_waits_its_bound_from_the_moment_that_nobody_is_ready() {
    let mut world = one_for_one(1);
    let first = world.chat(false);
    let second = world.chat(false);
    world.passes(2 * WAIT_MS);
    assert_eq!(world.waits_until(second), None, "somebody takes it, when there is room");
    world.exits(0, SEGFAULT);
    let from = world.now.wall.0;
    assert_eq!(world.waits_until(second).unwrap().0, from + WAIT_MS * 1_000);
    world.drains(0);
    failed(world.outcome(first));
    assert!(matches!(world.next_timer(), Some(Timer::Backoff(..))));
    assert_eq!(world.next_timer(), Some(Timer::Wait(second)), "it loads and loads");
    let reason = unserved(world.outcome(second));
    assert_eq!(reason, "no runner of llm was ready within 60 s: llm-0 is being started");
}

#[test]
fn a_program_that_speaks_nothing_is_supervised_and_serves_no_tasks() {
    let mut silent = spec(1, Strategy::OneForOne, RestartPolicy::permanent());
    silent.members[0].launch.program = Program::Runner {
        name: "llm-0".to_owned(),
        argv: vec!["serve".to_owned()],
        speaks: Speaks::Nothing,
        watch: Watchdogs::default(),
    };
    let mut world = World::new(silent);
    world.said(0, ProcessInput::Spawned { pid: 7 });
    world.said(0, ProcessInput::Ready);
    assert_eq!(world.group.members[0].phase, Phase::Ready);
    let new = world.task("chat");
    let denied = world.give(Input::Submit(new)).unwrap_err().to_string();
    assert!(denied.contains("serves no tasks"), "{denied}");
    world.dies(0);
    assert!(matches!(world.status(0), Status::Backoff { .. }));
}

#[test]
fn asking_again_with_the_id_or_the_key_of_a_task_is_asking_for_that_one() {
    let mut world = one_for_one(1);
    let new = world.task("chat");
    let run = world.submits(new.clone());
    world.give(Input::Submit(new.clone())).unwrap();
    let same_key = NewTask { key: new.key.clone(), ..world.task("chat") };
    assert_eq!(world.group.known(&same_key), Some(run));
    world.give(Input::Submit(same_key)).unwrap();
    assert_eq!(world.group.tasks.len(), 1);
    world.finishes(run, RunOutcome::Succeeded);
    world.give(Input::Submit(new.clone())).unwrap();
    assert_eq!(world.outcome(run), Some(&RunOutcome::Succeeded), "it is not done again");
    world.give(Input::Forget(vec![run])).unwrap();
    assert_eq!(world.group.known(&new), None);
}

#[test]
fn the_bound_of_a_wait_begins_when_the_last_that_was_ready_is_not() {
    let mut world = one_for_one(2);
    world.passes(1_000);
    world.dies(1);
    world.passes(1_000);
    world.said(0, ProcessInput::Stopping { why: StopWhy::NeverReady, step: StopStep::Term });
    let last = world.now.wall.0;
    let run = world.chat(false);
    assert!(world.waits_until(run).unwrap().0 >= last + WAIT_MS * 1_000);
    world.passes(1_000);
    world.exits(0, SEGFAULT);
    assert!(
        world.waits_until(run).unwrap().0 < world.now.wall.0 + WAIT_MS * 1_000,
        "it was not ready before"
    );
    world.give(Input::Timer(Timer::Wait(run))).unwrap();
    assert_eq!(world.outcome(run), None, "a timer that was armed for an earlier moment ends nothing");
}

// ---- tasks that lose their runner ------------------------------------------------------------------------------

#[test]
fn only_an_idempotent_task_is_begun_again_first_in_the_queue_at_its_checkpoint() {
    let mut world = one_for_one(2);
    let (again, lost) = (world.chat(true), world.chat(false));
    let behind = world.chat(false);
    let checkpoint = Fact::RunCheckpointed { run: again, attempt: Attempt(1), seq: Seq(7), blob: None };
    world.append(checkpoint);
    world.exits(0, SEGFAULT);
    world.exits(1, SEGFAULT);
    assert_eq!(world.has(again), Some(0), "not before all is known that it wrote");
    world.drains(0);
    world.drains(1);
    failed(world.outcome(lost));
    assert_eq!(Vec::from(world.group.queue.clone()), [again, behind]);
    world.rises(1);
    assert_eq!(world.has(again), Some(1));
    let opened = world.log.iter().rev().find_map(|fact| match fact {
        Fact::RunOpened { attempt, base, .. } => Some((*attempt, *base)),
        _ => None,
    });
    assert_eq!(opened, Some((Attempt(2), Some(Seq(7)))));
    world.finishes(again, RunOutcome::Succeeded);
    assert_eq!(world.has(behind), Some(1));
}

#[test]
fn tasks_that_wait_again_keep_their_order() {
    let mut world = World::ready(spec(1, Strategy::OneForOne, RestartPolicy::permanent()), 3);
    let runs: Vec<RunId> = (0..4).map(|_| world.chat(true)).collect();
    world.dies(0);
    assert_eq!(Vec::from(world.group.queue.clone()), runs);
}

#[test]
fn what_is_said_of_another_attempt_is_not_said_of_this_one() {
    let mut world = one_for_one(1);
    let run = world.chat(true);
    world.dies(0);
    world.rises(0);
    for attempt in [Attempt(1), Attempt(3)] {
        let outcome = RunOutcome::Succeeded;
        world.said(0, ProcessInput::RunFinished { run, attempt, outcome, execution_count: None });
        assert_eq!(world.outcome(run), None);
    }
}

#[test]
fn a_task_that_takes_its_runner_with_it_does_not_take_all_of_them() {
    let mut world = one_for_one(1);
    let poison = world.chat(true);
    for attempt in 1..=TASK_ATTEMPTS_MAX {
        assert_eq!(world.group.tasks[&poison].attempt, Attempt(attempt));
        assert_eq!(world.outcome(poison), None);
        world.passes(61_000);
        world.dies(0);
        if attempt < TASK_ATTEMPTS_MAX {
            world.rises(0);
        }
    }
    assert_eq!(failed(world.outcome(poison)).1, world.group.reports.back().unwrap().id, "the last report");
}

#[test]
fn a_task_that_nobody_will_take_ends_with_the_death_that_it_lost_its_runner_by() {
    let temporary = spec(1, Strategy::OneForOne, RestartPolicy::temporary());
    let mut world = World::ready(temporary, 1);
    let run = world.chat(true);
    world.dies(0);
    assert_eq!(failed(world.outcome(run)).0, CauseCode::ExitCode);
    // The same for one that must not wait, while the only runner comes back.
    let mut world = one_for_one(1);
    let new = NewTask { idempotent: true, wait_ms: 0, ..world.task("chat") };
    let run = world.submits(new);
    world.dies(0);
    assert_eq!(failed(world.outcome(run)).0, CauseCode::ExitCode);
}

#[test]
fn a_restart_by_hand_keeps_idempotent_work_and_cancels_the_rest() {
    let mut world = World::ready(spec(1, Strategy::OneForOne, RestartPolicy::permanent()), 2);
    let (kept, cancelled) = (world.chat(true), world.chat(false));
    world.give(Input::Restart(None)).unwrap();
    // What a runner says of its work while it is asked to go is a consequence of that.
    for run in [kept, cancelled] {
        world.finishes(run, RunOutcome::Cancelled { why: CancelWhy::User });
        assert_eq!(world.outcome(run), None);
    }
    world.exits(0, ExitStatus::Code { code: 0 });
    world.drains(0);
    assert_eq!(world.outcome(cancelled), Some(&RunOutcome::Cancelled { why: CancelWhy::Stopped }));
    world.rises(0);
    assert_eq!(world.has(kept), Some(0));
    assert_eq!(world.group.tasks[&kept].attempt, Attempt(2));
}

// ---- cancel, limits, stalls ------------------------------------------------------------------------------------

#[test]
fn a_cancelled_task_ends_as_its_runner_says_and_the_runner_goes_on() {
    let mut world = one_for_one(1);
    let (running, queued) = (world.chat(false), world.chat(false));
    world.give(Input::Cancel(queued)).unwrap();
    assert_eq!(world.outcome(queued), Some(&RunOutcome::Cancelled { why: CancelWhy::User }));
    world.give(Input::Cancel(running)).unwrap();
    world.give(Input::Cancel(running)).unwrap();
    let cancels = world.effects.iter().filter(|effect| matches!(effect, Effect::Cancel { .. })).count();
    assert_eq!(cancels, 1);
    assert_eq!(world.outcome(running), None);
    let raised = RunOutcome::Raised { ename: "KeyboardInterrupt".to_owned(), evalue: String::new() };
    world.finishes(running, raised);
    assert_eq!(world.outcome(running), Some(&RunOutcome::Cancelled { why: CancelWhy::User }));
    assert_eq!(world.give(Input::Cancel(running)), Err(Denied::TaskEnded(running)));
    let quick = world.chat(false);
    world.give(Input::Cancel(quick)).unwrap();
    world.finishes(quick, RunOutcome::Succeeded);
    assert_eq!(world.outcome(quick), Some(&RunOutcome::Succeeded), "it was quicker");
    assert!(world.stops().is_empty());
}

#[test]
fn a_runner_that_ignores_a_cancel_finishes_its_other_task_gets_no_more_and_is_stopped() {
    let mut world = World::ready(spec(1, Strategy::OneForOne, RestartPolicy::permanent()), 2);
    let (deaf, other) = (world.chat(false), world.chat(false));
    world.give(Input::Cancel(deaf)).unwrap();
    let grace = timers(&world.group, world.now);
    assert_eq!(grace[0].0, Timer::CancelGrace(deaf, Attempt(1)));
    assert_eq!(grace[0].1.as_millis(), u128::from(GRACE_MS));
    world.next_timer();
    assert_eq!(world.outcome(deaf), Some(&RunOutcome::Cancelled { why: CancelWhy::User }));
    let next = world.chat(false);
    assert_eq!((world.has(other), world.has(next)), (Some(0), None));
    assert!(world.stops().is_empty());
    world.finishes(other, RunOutcome::Succeeded);
    assert_eq!(world.stops(), [(0, StopWhy::IgnoredCancel, StopStep::Term)]);
    world.dies(0);
    assert_eq!(world.group.reports[0].cause().code, CauseCode::IgnoredCancel);
    world.rises(0);
    assert_eq!(world.has(next), Some(0));
}

#[test]
fn nobody_waits_longer_because_a_clock_that_is_ahead_wrote_down_since_when() {
    let mut world = one_for_one(1);
    world.passes(5 * 3_600_000);
    let run = world.chat(false);
    world.give(Input::Cancel(run)).unwrap();
    let grace = vec![(Timer::CancelGrace(run, Attempt(1)), Duration::from_millis(GRACE_MS))];
    assert_eq!(timers(&world.group, world.now), grace);
    // Its next owner's clock is hours behind.
    world.now.wall = WallTime(0);
    assert_eq!(timers(&world.group, world.now), grace);
}

#[test]
fn a_task_over_its_limit_is_asked_to_end_and_has_timed_out() {
    let mut world = one_for_one(1);
    let new = NewTask { limit_ms: Some(1_000), idempotent: true, ..world.task("chat") };
    let run = world.submits(new);
    assert_eq!(world.next_timer(), Some(Timer::Limit(run, Attempt(1))));
    assert!(world.effects.iter().any(|effect| matches!(effect, Effect::Cancel { run: r, .. } if *r == run)));
    world.dies(0);
    assert_eq!(world.outcome(run), Some(&RunOutcome::TimedOut { limit_ms: 1_000 }));
}

// A4
#[test]
fn what_stalls_or_breaks_its_channel_is_stopped_and_what_hangs_gets_nothing() {
    let mut world = one_for_one(3);
    let stalled = world.chat(false);
    let stall = RunnerInput::Stalled { stall: StallEvidence::default(), run: Some(stalled) };
    world.runner_said(0, stall);
    let id = ReportId::from_uuid(Uuid::from_u128(9));
    world.runner_said(1, RunnerInput::Violated { what: "garbage".to_owned(), is_fatal: true, id });
    let term = StopStep::Term;
    assert_eq!(world.stops(), [(0, StopWhy::Stalled, term), (1, StopWhy::Violation, term)]);
    world.dies(0);
    assert_eq!(failed(world.outcome(stalled)).0, CauseCode::Stalled);
    world.group.spec.on_hang = outlive_core::session::spec::HangPolicy::Report;
    world.said(2, ProcessInput::Unresponsive(Default::default()));
    let waits = world.chat(false);
    assert_eq!(world.has(waits), None);
    world.said(2, ProcessInput::Responsive);
    assert_eq!(world.has(waits), Some(2));
}

#[test]
fn a_stall_of_a_task_that_has_ended_meanwhile_stops_nobody() {
    let mut world = one_for_one(1);
    let run = world.chat(false);
    world.finishes(run, RunOutcome::Succeeded);
    world.runner_said(0, RunnerInput::Stalled { stall: StallEvidence::default(), run: Some(run) });
    assert!(world.stops().is_empty());
}

#[test]
fn what_a_runner_does_wrong_and_lives_on_after_is_reported_a_few_times() {
    let mut world = one_for_one(1);
    let run = world.chat(false);
    for n in 0..50 {
        let id = ReportId::from_uuid(Uuid::from_u128(100 + n));
        let what = "a chunk for a task that was never given".to_owned();
        world.runner_said(0, RunnerInput::Violated { what, is_fatal: false, id });
    }
    assert_eq!(world.group.reports.len(), 10);
    assert_eq!(world.group.reports[0].cause().code, CauseCode::ProtocolViolation);
    assert_eq!(world.has(run), Some(0), "it goes on");
    assert!(world.stops().is_empty());
    world.dies(0);
    let death = failed(world.outcome(run)).1;
    assert_eq!(world.group.reports.back().unwrap().id, death);
}

// ---- the end, and what is remembered ---------------------------------------------------------------------------

#[test]
fn a_group_that_is_taken_down_settles_what_waits_at_once_and_ends_with_its_processes() {
    let mut world = one_for_one(1);
    let (running, queued) = (world.chat(true), world.chat(true));
    world.give(Input::Close { why: StopWhy::User, from: StopStep::Ask }).unwrap();
    let stopped = RunOutcome::Cancelled { why: CancelWhy::Stopped };
    assert_eq!(world.outcome(queued), Some(&stopped));
    assert_eq!(world.outcome(running), None);
    let late = world.task("chat");
    assert_eq!(world.give(Input::Submit(late)), Err(Denied::Closed));
    world.give(Input::Close { why: StopWhy::User, from: StopStep::Kill }).unwrap();
    let kill = (0, StopWhy::User, StopStep::Kill);
    assert_eq!(world.stops().last(), Some(&kill), "a harder wish overtakes");
    world.exits(0, ExitStatus::Signal { number: 9, core_dumped: false });
    assert!(!matches!(world.group.life, Life::Closed { .. }));
    world.drains(0);
    assert_eq!(world.outcome(running), Some(&stopped));
    assert!(matches!(world.group.life, Life::Closed { why: StopWhy::User, .. }));
    assert!(world.effects.contains(&Effect::Finish));
}

// D1
#[test]
fn a_daemon_that_comes_back_gives_what_runs_again_and_cancels_what_was_cancelled() {
    let mut world = World::ready(spec(2, Strategy::OneForOne, RestartPolicy::permanent()), 2);
    let (first, second) = (world.chat(false), world.chat(false));
    world.give(Input::Cancel(second)).unwrap();
    let before = world.group.clone();
    world.effects.clear();
    world.come_back();
    assert_eq!(world.group, before);
    let told: Vec<_> = world
        .effects
        .iter()
        .map(|effect| match effect {
            Effect::Task { process, run, attempt, .. } => ("task", process.runtime, *run, *attempt),
            Effect::Cancel { process, run, attempt } => ("cancel", process.runtime, *run, *attempt),
            other => panic!("{other:?}"),
        })
        .collect();
    let attempt = Attempt(1);
    let expected = [
        ("task", runtime(0), first, attempt),
        ("task", runtime(1), second, attempt),
        ("cancel", runtime(1), second, attempt),
    ];
    assert_eq!(told, expected);
}

#[test]
fn old_tasks_are_forgotten_oldest_first_and_those_that_run_are_not() {
    let mut world = World::ready(spec(1, Strategy::OneForOne, RestartPolicy::permanent()), 2);
    let runs = world.chat(false);
    let at = world.now.wall;
    // As a log of many tasks that ended.
    for n in 0..TASKS_REMEMBERED_MAX {
        let id = RunId::from_uuid(Uuid::from_u128(1_000_000 + n as u128));
        let new = NewTask { id, key: n.to_string(), ..world.task("chat") };
        let queued = Happened::Group(GroupEvent::TaskQueued(Box::new(new)));
        apply(&mut world.group, &Fact::Journal(SessionEvent { at, what: queued }));
        let outcome = RunOutcome::Succeeded;
        let ended = Fact::RunEnded { run: id, outcome, report: None, execution_count: None, at };
        apply(&mut world.group, &ended);
    }
    assert_eq!(world.group.tasks.len(), TASKS_REMEMBERED_MAX + 1);
    let decision = advance(&world.group, world.now);
    assert_eq!(decision, Decision::default(), "so many are remembered");
    let last = NewTask { key: "last".to_owned(), ..world.task("chat") };
    let id = last.id;
    let queued = Happened::Group(GroupEvent::TaskQueued(Box::new(last)));
    apply(&mut world.group, &Fact::Journal(SessionEvent { at, what: queued }));
    let ended = |outcome| Fact::RunEnded { run: id, outcome, report: None, execution_count: None, at };
    apply(&mut world.group, &ended(RunOutcome::Succeeded));
    let decision = advance(&world.group, world.now);
    assert_eq!(decision.facts.len(), 1, "one record for many");
    decision.facts.iter().for_each(|fact| apply(&mut world.group, fact));
    let last = id;
    assert!(world.group.tasks.len() <= TASKS_REMEMBERED_MAX);
    let oldest = RunId::from_uuid(Uuid::from_u128(1_000_000));
    assert!(!world.group.tasks.contains_key(&oldest) && !world.group.keys.contains_key("0"));
    assert!(matches!(world.group.tasks[&runs].state, TaskState::Running { .. }));
    assert!(world.group.tasks.contains_key(&last));
}

#[test]
fn a_new_process_says_anew_what_it_can_do() {
    let mut world = one_for_one(1);
    world.dies(0);
    while *world.status(0) != Status::Launching {
        world.next_timer();
    }
    world.said(0, ProcessInput::Spawned { pid: 8 });
    assert_eq!(world.group.members[0].greeting, None);
    world.runner_said(0, RunnerInput::Greeted(greeting(&["embed"], 3)));
    let group: &Group = &world.group;
    assert_eq!(group.members[0].concurrency(), 3);
    let new = world.task("chat");
    assert!(matches!(world.give(Input::Submit(new)), Err(Denied::UnknownTask { .. })));
}
