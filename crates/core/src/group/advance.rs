//! What follows from a group's state alone.

use std::time::Duration;

use super::decide::{ended, ended_as, error_chunk, stop_process};
use super::event::{GroupEvent, RunnerLost};
use super::input::{Decision, Effect, Timer};
use super::outlook::{Outlook, Outlooks, outlook, starts_again, unserved, waits_until};
use super::spec::Strategy;
use super::state::{Excused, Group, Member, Task, TaskState};
use crate::diagnosis::{CauseCode, FailureReport};
use crate::id::{Attempt, ProcessKey, RunId, Seq};
use crate::limits::{RUNS_FORGOTTEN_AT_ONCE, TASK_ATTEMPTS_MAX, TASK_NODES_LOST_MAX, TASKS_REMEMBERED_MAX};
use crate::runtime::runner::TaskOrder;
use crate::runtime::{StopStep, StopWhy};
use crate::session::event::{AfterExit, Happened};
use crate::session::state::{Displaced, Life, Status, Wanted};
use crate::session::{CancelWhy, Fact, RunOutcome};
use crate::time::{Now, WallTime};

/// The next thing that follows from the state, or nothing. Called after every change until it answers nothing;
/// each answer changes the state, so that this ends.
#[must_use]
pub fn advance(group: &Group, now: Now) -> Decision {
    let steps: &[fn(&Group, Now) -> Decision] = match group.life {
        Life::Open if group.hand_over.is_some() => &[settle_lost, fall, hand_over],
        Life::Open => &[settle_lost, fall, stop_what_must_end, settle_hopeless, launch, give, forget],
        Life::Closing(_) | Life::Saving(_) => &[settle_lost, settle_queue, stop_what_must_end, close],
        Life::Closed { .. } => &[],
    };
    steps.iter().map(|step| step(group, now)).find(|decision| !decision.is_none()).unwrap_or_default()
}

/// What has to be done again after the daemon was away. Every effect is safe to repeat (a shim ignores a run and attempt
/// that it knows).
#[must_use]
pub fn recover(group: &Group) -> Vec<Effect> {
    group.members.iter().flat_map(|member| recover_member(group, member.process())).collect()
}

/// The same, of one process: when its shim is there again.
#[must_use]
pub fn recover_member(group: &Group, process: ProcessKey) -> Vec<Effect> {
    let Some((_, member)) = group.member(process.runtime).filter(|(_, member)| member.process() == process)
    else {
        return Vec::new();
    };
    let mut effects = Vec::new();
    // A process that is on its way out begins nothing any more.
    if member.runtime.is_up() {
        for task in tasks_of(group, member) {
            let (run, attempt) = (task.new.id, task.attempt);
            effects.push(Effect::Task { process, run, attempt, order: order(task) });
            if let TaskState::Running { ending: Some(_), .. } = task.state {
                effects.push(Effect::Cancel { process, run, attempt });
            }
        }
    }
    if let Status::Stopping { why, step } = member.runtime.status {
        effects.push(Effect::Stop { process, why, from: step });
    }
    effects
}

/// The deadlines that the state asks for, from now. A timer is armed when it first appears here and disarmed when it does no
/// longer. Of all that wait while nobody is ready, the one that has waited enough first stands for all.
#[must_use]
pub fn timers(group: &Group, now: Now) -> Vec<(Timer, Duration)> {
    let mut timers = Vec::new();
    let until = |at: WallTime| Duration::from_micros(at.0.saturating_sub(now.wall.0));
    for member in &group.members {
        if let Status::Backoff { after_ms } = member.runtime.status {
            let timer = Timer::Backoff(member.id, member.runtime.incarnation);
            timers.push((timer, now.left(member.runtime.since, after_ms)));
        }
        // Those of a task end with the process's end, which has deadlines of its own in the shim.
        if !member.runtime.is_up() {
            continue;
        }
        for task in member.running.iter().filter_map(|run| group.tasks.get(run)) {
            let TaskState::Running { ending, .. } = &task.state else { continue };
            match (ending, task.new.limit_ms) {
                (Some((_, since)), _) => {
                    let timer = Timer::CancelGrace(task.new.id, task.attempt);
                    timers.push((timer, now.left(*since, group.spec.cancel_grace_ms)));
                }
                (None, Some(ms)) => {
                    let timer = Timer::Limit(task.new.id, task.attempt);
                    timers.push((timer, now.left(task.started_at.unwrap_or(now.wall), ms)));
                }
                (None, None) => {}
            }
        }
    }
    let waits = |name: &String| matches!(outlook(group, name), Outlook::Waits(_));
    if !group.waiting.keys().any(waits) {
        return timers;
    }
    let mut outlooks = Outlooks::new(group);
    let waiting = group.queue.iter().filter_map(|id| group.tasks.get(id));
    let deadlines =
        waiting.filter_map(|task| Some((waits_until(group, task, outlooks.of(&task.new.task))?, task)));
    if let Some((at, task)) = deadlines.min_by_key(|(at, _)| *at) {
        timers.push((Timer::Wait(task.new.id), until(at)));
    }
    timers
}

/// The tasks of a member, in the order in which they were queued.
fn tasks_of<'a>(group: &'a Group, member: &Member) -> Vec<&'a Task> {
    let mut tasks: Vec<&Task> = member.running.iter().filter_map(|run| group.tasks.get(run)).collect();
    tasks.sort_by_key(|task| task.index);
    tasks
}

/// The tasks of a process whose last word is known: they wait again, or have ended with it.
fn settle_lost(group: &Group, now: Now) -> Decision {
    let over =
        group.members.iter().find(|member| !member.runtime.has_process() && !member.running.is_empty());
    let Some(member) = over else { return Decision::none() };
    // The last first: each that waits again goes before all others.
    tasks_of(group, member).into_iter().rev().fold(Decision::none(), |decision, task| {
        let run = task.new.id;
        if waits_again(group, member, task) {
            let lost = runner_lost(member);
            return decision.event(now, GroupEvent::TaskWaitsAgain { run, lost });
        }
        let outcome = outcome(group, member, task);
        let is_told = matches!(
            outcome,
            RunOutcome::Failed { .. }
                | RunOutcome::Cancelled { why: CancelWhy::Stopped | CancelWhy::NodeDrained }
        );
        let report = member.present_report().filter(|_| is_told).cloned().map(Box::new);
        // It could have gone on, as far as was known when its runner ended.
        let decision = match &report {
            Some(report) if task.told.is_none() => {
                decision.fact(Fact::RunTold { run, chunks: vec![error_chunk(report, now)] })
            }
            Some(_) | None => decision,
        };
        decision.fact(Fact::RunEnded { run, outcome, report, execution_count: None, at: now.wall })
    })
}

/// Whether a task that lost its runner may be begun again, and somebody may take it.
fn waits_again(group: &Group, member: &Member, task: &Task) -> bool {
    may_go_on(group, task)
        && match outlook(group, &task.new.task) {
            Outlook::Ready => true,
            Outlook::Waits(_) => member.runtime.displaced.is_some() || task.new.wait_ms > 0,
            Outlook::Never => false,
        }
}

/// Whether a task that lost its runner may have another attempt.
pub(super) fn may_go_on(group: &Group, task: &Task) -> bool {
    let Excused { attempts, nodes_lost } = task.excused;
    matches!(task.state, TaskState::Running { ending: None, .. })
        && group.life == Life::Open
        && task.new.idempotent
        && task.attempt.0.saturating_sub(attempts) < TASK_ATTEMPTS_MAX
        && nodes_lost < TASK_NODES_LOST_MAX
}

fn runner_lost(member: &Member) -> RunnerLost {
    match member.runtime.displaced {
        Some(Displaced::Lost(_)) => RunnerLost::WithNode,
        Some(Displaced::Drained) => RunnerLost::HandedOver,
        None => RunnerLost::Ended,
    }
}

/// How a task ended whose process has.
fn outcome(group: &Group, member: &Member, task: &Task) -> RunOutcome {
    if let TaskState::Running { ending: Some((why, _)), .. } = task.state {
        return ended_as(group, task.new.id, why);
    }
    match member.present_report() {
        Some(report) if report.cause().code != CauseCode::KilledByOperator => RunOutcome::Failed {
            code: report.cause().code,
            summary: report.cause().summary.clone(),
            report: report.id,
        },
        Some(_) | None => match member.runtime.displaced {
            Some(Displaced::Drained) => RunOutcome::Cancelled { why: CancelWhy::NodeDrained },
            Some(Displaced::Lost(_)) | None => RunOutcome::Cancelled { why: CancelWhy::Stopped },
        },
    }
}

/// Nothing that waits is begun any more.
fn settle_queue(group: &Group, now: Now) -> Decision {
    let stopped = || RunOutcome::Cancelled { why: CancelWhy::Stopped };
    group.queue.iter().fold(Decision::none(), |decision, run| decision.fact(ended(*run, stopped(), now)))
}

/// What nobody will take does not wait for its bound.
fn settle_hopeless(group: &Group, now: Now) -> Decision {
    let names = group.waiting.keys().map(String::as_str);
    let hopeless: Vec<&str> = names.filter(|name| outlook(group, name) == Outlook::Never).collect();
    if hopeless.is_empty() {
        return Decision::none();
    }
    let waiting = group.queue.iter().filter_map(|id| group.tasks.get(id));
    waiting.filter(|task| hopeless.contains(&task.new.task.as_str())).fold(
        Decision::none(),
        |decision, task| {
            let reason = unserved(group, &task.new);
            decision.fact(ended(task.new.id, RunOutcome::Unserved { reason }, now))
        },
    )
}

/// In a `one_for_all` group a failure, and an end that is followed by a restart, is that of all.
fn fall(group: &Group, now: Now) -> Decision {
    if group.spec.strategy == Strategy::OneForOne || group.falling.is_some() {
        return Decision::none();
    }
    let fails = |report: &FailureReport| report.cause().code != CauseCode::KilledByOperator;
    let died = group.members.iter().find(|member| match &member.runtime.status {
        Status::Draining { then: AfterExit::Restart { nth, .. }, .. } => *nth > 0,
        Status::Draining { then: AfterExit::GiveUp { .. }, .. } => true,
        Status::Draining { then: AfterExit::Stay, .. } => member.present_report().is_some_and(fails),
        Status::Draining { then: AfterExit::Rest, .. }
        | Status::Down
        | Status::Launching
        | Status::Ready(_)
        | Status::Stopping { .. }
        | Status::Exited(_)
        | Status::Backoff { .. }
        | Status::GaveUp { .. } => false,
    });
    died.map_or_else(Decision::none, |member| {
        Decision::none().event(now, GroupEvent::AllDown { member: member.id })
    })
}

/// Nobody is given anything any more; who is up is asked to stop at a step.
fn hand_over(group: &Group, now: Now) -> Decision {
    let up = group.members.iter().filter(|member| member.runtime.is_up());
    up.fold(Decision::none(), |decision, member| {
        let (why, from) = match member.runtime.wanted {
            Wanted::Down => (StopWhy::User, StopStep::Ask),
            Wanted::Up if group.falling.is_some() => (StopWhy::Sibling, StopStep::Term),
            Wanted::Up => (StopWhy::Drain, StopStep::Ask),
        };
        decision.and(stop_process(member, why, from, now))
    })
}

/// Processes that are up and are to end; also where a crash came between the wish and the stop.
fn stop_what_must_end(group: &Group, now: Now) -> Decision {
    let up = group.members.iter().filter(|member| member.runtime.is_up());
    let stops = up.filter_map(|member| {
        let (why, from) = match group.life {
            Life::Closing(why) => (why, StopStep::Ask),
            _ if member.runtime.wanted == Wanted::Down => (StopWhy::User, StopStep::Ask),
            _ if group.falling.is_some() => (StopWhy::Sibling, StopStep::Term),
            _ if member.ignores_cancel && member.running.is_empty() => {
                (StopWhy::IgnoredCancel, StopStep::Term)
            }
            Life::Open | Life::Saving(_) | Life::Closed { .. } => return None,
        };
        Some(stop_process(member, why, from, now))
    });
    stops.fold(Decision::none(), Decision::and)
}

fn launch(group: &Group, now: Now) -> Decision {
    let down =
        |member: &&Member| member.runtime.status == Status::Down && member.runtime.wanted == Wanted::Up;
    let Some(member) = group.members.iter().find(down).filter(|_| may_launch(group)) else {
        return Decision::none();
    };
    let process = ProcessKey { runtime: member.id, incarnation: member.runtime.incarnation.next() };
    Decision::none().happened(now.wall, Happened::RuntimeLaunching(process)).effect(Effect::Launch(process))
}

/// Those that need each other are started when all that was is gone, and the wait is over for all.
fn may_launch(group: &Group) -> bool {
    let is_leaving = |member: &Member| match member.runtime.status {
        Status::Stopping { .. } | Status::Draining { .. } | Status::Backoff { .. } => true,
        Status::Down | Status::Launching | Status::Ready(_) | Status::Exited(_) | Status::GaveUp { .. } => {
            false
        }
    };
    match group.spec.strategy {
        Strategy::OneForOne => true,
        Strategy::OneForAll => starts_again(group) && !group.members.iter().any(is_leaving),
    }
}

/// The first that waits goes to the ready member with room that has its handler and the least to do.
fn give(group: &Group, now: Now) -> Decision {
    let free: Vec<&Member> = group.members.iter().filter(|member| member.has_room()).collect();
    if free.is_empty() {
        return Decision::none();
    }
    let mut unable: Vec<&str> = Vec::new();
    for task in group.queue.iter().filter_map(|id| group.tasks.get(id)) {
        let name = task.new.task.as_str();
        if unable.contains(&name) {
            continue;
        }
        let able = free.iter().filter(|member| member.has_handler(name) == Some(true));
        match able.min_by_key(|member| member.running.len()) {
            Some(member) => return give_to(member, task, now),
            None => unable.push(name),
        }
        // Nobody is left who could be given anything.
        if unable.len() == group.waiting.len() {
            break;
        }
    }
    Decision::none()
}

/// A first attempt begins with nothing; a later one where its last checkpoint stands, or at the head where what it says again
/// is the same.
fn give_to(member: &Member, task: &Task, now: Now) -> Decision {
    let (process, run, attempt): (_, RunId, Attempt) = (member.process(), task.new.id, task.attempt.next());
    let kept = task.checkpoint.as_ref().map_or(Seq(0), |(seq, _)| *seq);
    let continues = task.is_exact && member.replays(&task.new.task);
    let base = (task.attempt > Attempt(0) && !continues).then_some(kept);
    Decision::none()
        .event(now, GroupEvent::TaskGiven { run, process })
        .fact(Fact::RunOpened { run, attempt, base, at: now.wall })
        .effect(Effect::Task { process, run, attempt, order: order(task) })
}

fn order(task: &Task) -> TaskOrder {
    TaskOrder {
        task: task.new.task.clone(),
        input: task.new.input.clone(),
        key: task.new.key.clone(),
        checkpoint: None,
        replay: None,
    }
}

/// Many at a time, when there are too many.
fn forget(group: &Group, now: Now) -> Decision {
    let running: usize = group.members.iter().map(|member| member.running.len()).sum();
    let ended = group.tasks.len().saturating_sub(group.queue.len() + running);
    if ended <= TASKS_REMEMBERED_MAX {
        return Decision::none();
    }
    let has_ended =
        |id: &&RunId| group.tasks.get(id).is_some_and(|task| matches!(task.state, TaskState::Ended(_)));
    let runs = group.order.iter().filter(has_ended).take(RUNS_FORGOTTEN_AT_ONCE).copied().collect();
    Decision::none().event(now, GroupEvent::TasksForgotten { runs, ended: group.ended })
}

/// All is settled and nobody is left.
fn close(group: &Group, now: Now) -> Decision {
    if !group.is_settled() || group.members.iter().any(|member| member.runtime.has_process()) {
        return Decision::none();
    }
    Decision::none().happened(now.wall, Happened::Closed { save_problem: None }).effect(Effect::Finish)
}
