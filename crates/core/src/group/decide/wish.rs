//! What people and programs ask of a group.

use super::super::event::{GroupEvent, TaskEndingWhy};
use super::super::input::{Decision, Denied};
use super::super::outlook::{Outlook, outlook, standing, unknown_task};
use super::super::spec::{NewTask, Strategy};
use super::super::state::{Group, Member, TaskState};
use super::{end_task, ended, ended_as, stop_process};
use crate::id::{RunId, RuntimeId};
use crate::limits::QUEUED_RUNS_MAX;
use crate::runtime::{StopStep, StopWhy};
use crate::session::event::Happened;
use crate::session::state::{Life, Status, Wanted};
use crate::time::Now;

fn open(group: &Group) -> Result<(), Denied> {
    match group.life {
        Life::Open => Ok(()),
        Life::Closing(_) | Life::Saving(_) | Life::Closed { .. } => Err(Denied::Closed),
    }
}

/// A task that is known already, by its id or its key, is not queued again.
pub(super) fn submit(group: &Group, new: NewTask, now: Now) -> Result<Decision, Denied> {
    if group.known(&new).is_some() {
        return Ok(Decision::none());
    }
    open(group)?;
    if group.queue.len() >= QUEUED_RUNS_MAX {
        return Err(Denied::QueueFull { queued: group.queue.len() + 1, max: QUEUED_RUNS_MAX });
    }
    if let Some(known) = unknown_task(group, &new.task) {
        return Err(Denied::UnknownTask { task: new.task, known });
    }
    match outlook(group, &new.task) {
        Outlook::Never => return Err(Denied::NobodyReady(standing(group))),
        Outlook::Waits(_) if new.wait_ms == 0 => return Err(Denied::NobodyReady(standing(group))),
        Outlook::Waits(_) | Outlook::Ready => {}
    }
    Ok(Decision::none().event(now, GroupEvent::TaskQueued(Box::new(new))))
}

pub(super) fn cancel(group: &Group, run: RunId, now: Now) -> Result<Decision, Denied> {
    let task = group.tasks.get(&run).ok_or(Denied::NoSuchTask(run))?;
    match &task.state {
        TaskState::Queued => {
            Ok(Decision::none().fact(ended(run, ended_as(group, run, TaskEndingWhy::Cancelled), now)))
        }
        TaskState::Running { ending: Some(_), .. } => Ok(Decision::none()),
        TaskState::Running { process, ending: None } => {
            let (_, member) = group.member(process.runtime).ok_or(Denied::NoSuchMember)?;
            Ok(end_task(member, run, task.attempt, TaskEndingWhy::Cancelled, now))
        }
        TaskState::Ended(_) => Err(Denied::TaskEnded(run)),
    }
}

/// Those that a wish is about. The members of a `one_for_all` group go up and down together.
fn chosen(group: &Group, which: Option<RuntimeId>) -> Result<Vec<&Member>, Denied> {
    open(group)?;
    match which {
        Some(id) => {
            let (_, member) = group.member(id).ok_or(Denied::NoSuchMember)?;
            match group.spec.strategy {
                Strategy::OneForOne => Ok(vec![member]),
                Strategy::OneForAll => Ok(group.members.iter().collect()),
            }
        }
        None => Ok(group.members.iter().collect()),
    }
}

pub(super) fn start(group: &Group, which: Option<RuntimeId>, now: Now) -> Result<Decision, Denied> {
    let down = chosen(group, which)?.into_iter().filter(|member| {
        let goes_up = member.runtime.is_up() || member.runtime.status == Status::Down;
        !(goes_up && member.runtime.wanted == Wanted::Up)
    });
    Ok(down.fold(Decision::none(), |decision, member| decision.and(start_again(member, now))))
}

/// The member is up after its present process, if it has one that is on its way out.
fn start_again(member: &Member, now: Now) -> Decision {
    let asked = Decision::none().event(now, GroupEvent::StartAsked { member: member.id });
    match &member.runtime.status {
        // Whatever it is stopped for, the next one follows. That a sibling died stays the reason.
        Status::Stopping { why, step } if !matches!(why, StopWhy::Restart | StopWhy::Sibling) => {
            let (process, why, step) = (member.process(), StopWhy::Restart, *step);
            asked.happened(now.wall, Happened::RuntimeStopping { process, why, step })
        }
        Status::Stopping { .. }
        | Status::Down
        | Status::Launching
        | Status::Ready(_)
        | Status::Draining { .. }
        | Status::Exited(_)
        | Status::Backoff { .. }
        | Status::GaveUp { .. } => asked,
    }
}

pub(super) fn stop(
    group: &Group,
    which: Option<RuntimeId>,
    from: StopStep,
    now: Now,
) -> Result<Decision, Denied> {
    Ok(chosen(group, which)?.into_iter().fold(Decision::none(), |decision, member| {
        let asked = match member.runtime.wanted {
            Wanted::Up => decision.event(now, GroupEvent::StopAsked { member: member.id }),
            Wanted::Down => decision,
        };
        asked.and(stop_process(member, StopWhy::User, from, now))
    }))
}

pub(super) fn restart(group: &Group, which: Option<RuntimeId>, now: Now) -> Result<Decision, Denied> {
    Ok(chosen(group, which)?.into_iter().fold(Decision::none(), |decision, member| {
        let again = decision.and(start_again(member, now));
        if member.runtime.is_up() {
            again.and(stop_process(member, StopWhy::Restart, StopStep::Ask, now))
        } else {
            again
        }
    }))
}

/// Never refused: ending what has ended does nothing, and a harder rung overtakes a softer one.
pub(super) fn close(group: &Group, why: StopWhy, from: StopStep, now: Now) -> Decision {
    let closing = match group.life {
        Life::Open => Decision::none().happened(now.wall, Happened::Closing(why)),
        Life::Closing(_) => Decision::none(),
        Life::Saving(_) | Life::Closed { .. } => return Decision::none(),
    };
    group.members.iter().fold(closing, |decision, member| decision.and(stop_process(member, why, from, now)))
}
