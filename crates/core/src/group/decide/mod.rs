//! What a group does with each input. Nothing changes here: the facts do that, once they are stored.

mod process;
mod runner;
mod wish;

pub(super) use process::error_chunk;

use super::event::{GroupEvent, TaskEndingWhy};
use super::handover;
use super::input::{Decision, Denied, Effect, Input, Timer};
use super::outlook::{Outlooks, unserved, waits_until};
use super::state::{Group, Member, Task, TaskState};
use crate::id::{Attempt, RunId};
use crate::runtime::{StopStep, StopWhy};
use crate::session::event::Happened;
use crate::session::process::Stops;
use crate::session::state::{Life, Status};
use crate::session::{CancelWhy, Fact, RunOutcome};
use crate::time::Now;

/// Answers one input. What follows from the new state alone is [`super::advance`]'s.
///
/// # Errors
/// [`Denied`] when the input cannot be had; then nothing changes.
pub fn decide(group: &Group, input: Input, now: Now) -> Result<Decision, Denied> {
    match input {
        Input::Submit(new) => wish::submit(group, new, now),
        Input::Cancel(run) => wish::cancel(group, run, now),
        Input::Start(which) => wish::start(group, which, now),
        Input::Stop(which, from) => wish::stop(group, which, from, now),
        Input::Restart(which) => wish::restart(group, which, now),
        Input::Close { why, from } => Ok(wish::close(group, why, from, now)),
        Input::TakenOver(takeover) => Ok(handover::taken_over(group, *takeover, now)),
        Input::HandOver => Ok(hand_over(group, now)),
        Input::Process(process, what) => Ok(process::decide(group, process, what, now)),
        Input::Runner(process, what) => Ok(runner::decide(group, process, what, now)),
        Input::Timer(timer) => Ok(timed_out(group, timer, now)),
        Input::Forget(runs) => Ok(forget(group, runs, now)),
    }
}

/// A timer that ran out after its reason had gone does nothing.
fn timed_out(group: &Group, timer: Timer, now: Now) -> Decision {
    match timer {
        Timer::Backoff(id, incarnation) => match group.member(id) {
            Some((_, member))
                if member.runtime.incarnation == incarnation
                    && matches!(member.runtime.status, Status::Backoff { .. }) =>
            {
                Decision::none().event(now, GroupEvent::RestartDue { member: id })
            }
            Some(_) | None => Decision::none(),
        },
        Timer::Wait(_) => waited_enough(group, now),
        Timer::Limit(run, attempt) => match in_flight(group, run, attempt) {
            Some((member, None)) => end_task(member, run, attempt, TaskEndingWhy::TimedOut, now),
            Some((_, Some(_))) | None => Decision::none(),
        },
        Timer::CancelGrace(run, attempt) => match in_flight(group, run, attempt) {
            Some((_, Some(why))) => Decision::none()
                .event(now, GroupEvent::CancelIgnored { run })
                .fact(ended(run, ended_as(group, run, why), now)),
            Some((_, None)) | None => Decision::none(),
        },
    }
}

/// A group that is ending ends here.
fn hand_over(group: &Group, now: Now) -> Decision {
    if group.life != Life::Open || group.hand_over.is_some() {
        return Decision::none();
    }
    Decision::none().happened(now.wall, Happened::HandOverAsked { grace_ms: 0 })
}

/// The bound of one task is over, and perhaps that of others that came at the same time.
fn waited_enough(group: &Group, now: Now) -> Decision {
    let mut outlooks = Outlooks::new(group);
    group.queue.iter().filter_map(|id| group.tasks.get(id)).fold(Decision::none(), |decision, task| {
        let until = waits_until(group, task, outlooks.of(&task.new.task));
        if until.is_none_or(|until| until > now.wall) {
            return decision;
        }
        let reason = unserved(group, &task.new);
        decision.fact(ended(task.new.id, RunOutcome::Unserved { reason }, now))
    })
}

/// The member that works on this attempt with a process that is up, and why the task is being ended, when it is.
fn in_flight(group: &Group, run: RunId, attempt: Attempt) -> Option<(&Member, Option<TaskEndingWhy>)> {
    let task = group.tasks.get(&run).filter(|task| task.attempt == attempt)?;
    let TaskState::Running { process, ending } = &task.state else { return None };
    let (_, member) = group.member(process.runtime)?;
    (member.process() == *process && member.runtime.is_up()).then_some((member, ending.map(|(why, _)| why)))
}

/// Ends a task before its time: its runner is asked, and has a while to say how it ended.
fn end_task(member: &Member, run: RunId, attempt: Attempt, why: TaskEndingWhy, now: Now) -> Decision {
    let process = member.process();
    let asked = Decision::none().event(now, GroupEvent::TaskEnding { run, why });
    if member.runtime.is_up() { asked.effect(Effect::Cancel { process, run, attempt }) } else { asked }
}

/// The outcome of a task that was being ended and did end.
pub(super) fn ended_as(group: &Group, run: RunId, why: TaskEndingWhy) -> RunOutcome {
    match why {
        TaskEndingWhy::Cancelled => RunOutcome::Cancelled { why: CancelWhy::User },
        TaskEndingWhy::TimedOut => {
            let limit_ms = group.tasks.get(&run).and_then(|task| task.new.limit_ms);
            RunOutcome::TimedOut { limit_ms: limit_ms.unwrap_or_default() }
        }
    }
}

/// Only what has ended is forgotten.
fn forget(group: &Group, mut runs: Vec<RunId>, now: Now) -> Decision {
    let has_ended = |task: &Task| matches!(task.state, TaskState::Ended(_));
    runs.retain(|run| group.tasks.get(run).is_some_and(has_ended));
    if runs.is_empty() {
        return Decision::none();
    }
    Decision::none().event(now, GroupEvent::TasksForgotten { runs, ended: group.ended })
}

/// The end of a task that has no report.
pub(super) fn ended(run: RunId, outcome: RunOutcome, now: Now) -> Fact {
    Fact::RunEnded { run, outcome, report: None, execution_count: None, at: now.wall }
}

/// Stops the member's process if there is one to stop; a softer rung than the present one changes nothing.
pub(super) fn stop_process(member: &Member, why: StopWhy, from: StopStep, now: Now) -> Decision {
    let process = member.process();
    match member.runtime.stops(from) {
        Stops::Begins => Decision::none()
            .happened(now.wall, Happened::RuntimeStopping { process, why, step: from })
            .effect(Effect::Stop { process, why, from }),
        Stops::Harder => Decision::none().effect(Effect::Stop { process, why, from }),
        Stops::Not => Decision::none(),
    }
}
