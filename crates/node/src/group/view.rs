//! A group's state as clients see it.

use std::collections::BTreeMap;
use std::io;

use outlive_core::group::state::{Member, Task, TaskState};
use outlive_core::group::{Group, MemberSpec, outlook};
use outlive_core::id::{Position, RunId, RuntimeId};
use outlive_core::limits::{QUEUE_VIEW_RUNS_MAX, RUN_SOURCE_VIEW_BYTES_MAX};
use outlive_core::log::fold::{Fold, RunFold};
use outlive_core::runtime::StopWhy;
use outlive_core::runtime::runner::Progress;
use outlive_core::session::spec::Trust;
use outlive_core::session::state::Life;
use outlive_protocol::http::{
    GroupView, MemberView, RunCounts, RunState, RunView, RuntimeState, RuntimeView, SessionState,
    SessionView, TaskView,
};

use crate::session::view::{Work, runtime_state, summary};

/// How far each member is with what it does before it is ready. In no log: a runner says it again.
pub type Loading = BTreeMap<RuntimeId, Progress>;

/// The whole group.
#[must_use]
pub fn group(group: &Group, position: Position, peers: u32, loading: &Loading) -> SessionView {
    let members = group.members.iter().zip(&group.spec.members);
    let members: Vec<_> = members.map(|(member, spec)| self::member(group, member, spec, loading)).collect();
    let running = group.members.iter().map(|member| member.running.len()).sum::<usize>();
    let running = u32::try_from(running).unwrap_or(u32::MAX);
    let worst = members.iter().map(|member| &member.runtime).max_by_key(|runtime| badness(&runtime.state));
    let closed_at = match &group.life {
        Life::Closed { at, .. } => Some(*at),
        Life::Open | Life::Closing(_) | Life::Saving(_) => None,
    };
    SessionView {
        id: group.spec.id,
        generation: group.generation,
        position,
        title: group.spec.name.clone(),
        kind: "runners".to_owned(),
        path: None,
        untitled: false,
        saved: None,
        base: None,
        trust: Trust::Trusted,
        queue: group.queue.iter().take(QUEUE_VIEW_RUNS_MAX).copied().collect(),
        loaded: true,
        created_at: group.spec.created_at,
        closed_at,
        state: state(group),
        runtime: worst.expect("a group has at least one member").clone(),
        runs: RunCounts {
            queued: u32::try_from(group.queue.len()).unwrap_or(u32::MAX),
            running,
            succeeded: group.ended.succeeded,
            failed: group.ended.failed,
            cancelled: group.ended.cancelled,
        },
        current: None,
        question: None,
        last_report: group.reports.back().map(summary),
        save_problem: None,
        peers,
        rests_at: None,
        group: Some(GroupView {
            name: group.spec.name.clone(),
            strategy: group.spec.strategy,
            members,
            running,
        }),
        node: None,
    }
}

fn state(group: &Group) -> SessionState {
    match &group.life {
        Life::Open | Life::Closing(_) | Life::Saving(_) if group.is_settled() => SessionState::Idle,
        Life::Open | Life::Closing(_) | Life::Saving(_) => SessionState::Working,
        Life::Closed { why: StopWhy::Finished, .. } => SessionState::Succeeded,
        Life::Closed { .. } => SessionState::Stopped,
    }
}

fn member(group: &Group, member: &Member, spec: &MemberSpec, loading: &Loading) -> MemberView {
    let work = if member.running.is_empty() { Work::None } else { Work::Some };
    let greeting = member.greeting.clone().unwrap_or_default();
    MemberView {
        name: spec.name.clone(),
        runtime: RuntimeView {
            id: member.id,
            incarnation: member.runtime.incarnation,
            name: spec.name.clone(),
            state: runtime_state(&member.runtime.status, work, member.present_report()),
            pid: member.runtime.pid,
            since: member.runtime.since,
        },
        comes: outlook::is_up_or_coming(group, member),
        phase: member.phase,
        progress: loading.get(&member.id).cloned().unwrap_or_default(),
        tasks: greeting.tasks,
        capabilities: greeting.capabilities,
        concurrency: greeting.concurrency,
        running: member.running.iter().copied().collect(),
        last_report: member.last_report.as_deref().map(summary),
    }
}

/// The member that is worst off stands for the group where there is room for one.
const fn badness(state: &RuntimeState) -> u8 {
    match state {
        RuntimeState::Idle => 0,
        RuntimeState::Busy => 1,
        RuntimeState::Down => 2,
        RuntimeState::Stopping { .. } => 3,
        RuntimeState::Launching => 4,
        RuntimeState::Unknown => 5,
        RuntimeState::Exited { .. } => 6,
        RuntimeState::Backoff { .. } => 7,
        RuntimeState::Unresponsive { .. } => 8,
        RuntimeState::GaveUp { .. } => 9,
    }
}

/// One task.
#[must_use]
pub fn task(group: &Group, fold: &Fold, id: RunId) -> Option<RunView> {
    Some(of_task(group, fold, id, group.tasks.get(&id)?))
}

/// All tasks that are remembered, in the order in which they were queued.
#[must_use]
pub fn tasks(group: &Group, fold: &Fold) -> Vec<RunView> {
    group.order.iter().filter_map(|id| task(group, fold, *id)).collect()
}

fn of_task(group: &Group, fold: &Fold, id: RunId, task: &Task) -> RunView {
    let state = match &task.state {
        TaskState::Queued => RunState::Queued,
        TaskState::Running { .. } => RunState::Running,
        TaskState::Ended(outcome) => RunState::Ended { outcome: outcome.clone() },
    };
    RunView {
        id,
        session: group.spec.id,
        index: task.index,
        cell: None,
        cell_id: None,
        source: source(task),
        may_raise: false,
        state,
        attempt: task.attempt,
        head: fold.run(id).map(RunFold::head).unwrap_or_default(),
        execution_count: None,
        queued_at: task.queued_at,
        started_at: task.started_at,
        ended_at: task.ended_at,
        task: Some(TaskView {
            task: task.new.task.clone(),
            key: task.new.key.clone(),
            idempotent: task.new.idempotent,
            member: holder(group, task),
        }),
    }
}

fn holder(group: &Group, task: &Task) -> Option<String> {
    let (place, _) = group.member(task.given?.runtime)?;
    group.spec.members.get(place).map(|member| member.name.clone())
}

/// What is asked, as a line to be recognised by: of a large input only its beginning is written out.
fn source(task: &Task) -> String {
    let mut beginning = Beginning(task.new.task.clone().into_bytes());
    if !task.new.input.is_null() {
        beginning.0.push(b' ');
        // An error says that there is no more room.
        let _full = serde_json::to_writer(&mut beginning, &task.new.input);
    }
    let is_cut = beginning.0.len() > RUN_SOURCE_VIEW_BYTES_MAX;
    beginning.0.truncate(RUN_SOURCE_VIEW_BYTES_MAX);
    let whole = beginning.0.utf8_chunks().next().map(|chunk| chunk.valid().to_owned()).unwrap_or_default();
    if is_cut { whole + "…" } else { whole }
}

/// Takes bytes until it has more than are shown.
struct Beginning(Vec<u8>);

impl io::Write for Beginning {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() > RUN_SOURCE_VIEW_BYTES_MAX {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let take = bytes.len().min(RUN_SOURCE_VIEW_BYTES_MAX + 1);
        self.0.extend_from_slice(&bytes[..take]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
