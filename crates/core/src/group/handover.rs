//! A group that goes to another node: given away, or taken over from a node that was lost. See
//! [`session::handover`](crate::session::handover): a group has more processes, and tasks that can go on.
//!
//! A task that may be begun again (it was submitted as idempotent) waits again, before all others, and goes on from its last
//! checkpoint. One that its runner stopped at a step, because its node gives its work away, does so in any case: nothing of
//! it is done twice. The others end: `node-lost`, or cancelled as `node_drained`. That a node went is not a task's fault and
//! does not count as one of its attempts, but for [`TASK_NODES_LOST_MAX`](crate::limits::TASK_NODES_LOST_MAX) of them.

use super::advance::may_go_on;
use super::input::Decision;
use super::state::{Group, Task};
use crate::failover::Takeover;
use crate::session::event::Happened;
use crate::session::state::Life;
use crate::time::Now;

/// Whether the group can be given away now: it is asked to be, has no process and no task in flight. What waits goes along.
/// To be asked when nothing follows from its state any more.
#[must_use]
pub fn can_release(group: &Group) -> bool {
    let is_quiet = |member: &super::state::Member| !member.runtime.has_process() && member.running.is_empty();
    group.life == Life::Open && group.hand_over.is_some() && group.members.iter().all(is_quiet)
}

/// What a takeover means for the group is said with it.
pub(super) fn taken_over(group: &Group, mut takeover: Takeover, now: Now) -> Decision {
    takeover.resumed_at = now.wall;
    takeover.resumed = resumed(group);
    Decision::none().happened(now.wall, Happened::TakenOver(Box::new(takeover)))
}

/// What goes on and what does not, for people.
fn resumed(group: &Group) -> Vec<String> {
    let members: Vec<_> = group.members.iter().filter(|member| member.runtime.can_be_lost()).collect();
    let names: Vec<&str> = members.iter().map(|member| group.name(member.id)).collect();
    let tasks: Vec<&Task> =
        members.iter().flat_map(|member| &member.running).filter_map(|run| group.tasks.get(run)).collect();
    let (go_on, end): (Vec<&Task>, Vec<&Task>) = tasks.into_iter().partition(|task| may_go_on(group, task));
    let (kept, anew): (Vec<&Task>, Vec<&Task>) =
        go_on.into_iter().partition(|task| task.checkpoint.is_some());
    let said = |count: usize, one: &str, more: &str| match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        count => Some(format!("{count} {more}")),
    };
    let runners = (!names.is_empty()).then(|| format!("its runners, anew: {}", names.join(", ")));
    [
        runners,
        said(kept.len(), "task, from its checkpoint", "tasks, from their checkpoints"),
        said(anew.len(), "task, from its beginning", "tasks, from their beginning"),
        said(
            end.len(),
            "task is settled, because it may not be begun again",
            "tasks are settled, because they may not be begun again",
        ),
        said(group.queue.len(), "task that waits", "tasks that wait"),
    ]
    .into_iter()
    .flatten()
    .collect()
}
