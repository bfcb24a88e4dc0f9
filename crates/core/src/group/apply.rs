//! The only thing that changes a group.

use serde_json::Value;

use super::event::{GroupEvent, RunnerLost};
use super::outlook::speaks;
use super::spec::{NewTask, Strategy};
use super::state::{Excused, Falling, Group, Member, Task, TaskState};
use crate::diagnosis::FailureReport;
use crate::id::{Attempt, ProcessKey, ReportId, RunId, RuntimeId, Seq};
use crate::limits::{REPORTS_REMEMBERED_MAX, RUN_SOURCE_VIEW_BYTES_MAX};
use crate::log::chunk::Payload;
use crate::log::{Chunk, ChunkKind};
use crate::runtime::runner::{Phase, Speaks};
use crate::session::event::{AfterExit, Happened, SessionEvent};
use crate::session::handover::remember;
use crate::session::state::{Life, Status, Wanted};
use crate::session::{Fact, HandOver, RunOutcome};
use crate::time::WallTime;

/// Folds one fact into the group. Total: a fact that fits nothing changes nothing but the generation.
pub fn apply(group: &mut Group, fact: &Fact) {
    group.generation = group.generation.next();
    match fact {
        Fact::Journal(SessionEvent { at, what: Happened::Group(event) }) => {
            of_group(group, *at, event);
            look_who_is_ready(group, *at);
        }
        Fact::Journal(SessionEvent { at, what }) => {
            happened(group, *at, what);
            look_who_is_ready(group, *at);
        }
        Fact::RunOpened { run, attempt, base, at } => opened(group, *run, *attempt, *base, *at),
        Fact::RunTold { run, chunks } => {
            let told = chunks.iter().find_map(death_told_of);
            if let Some(task) = group.tasks.get_mut(run) {
                task.told = told.or(task.told);
            }
        }
        Fact::RunCheckpointed { run, attempt, seq, blob } => {
            if let Some(task) = group.tasks.get_mut(run).filter(|task| task.attempt == *attempt) {
                task.checkpoint = Some((*seq, blob.clone()));
            }
        }
        Fact::RunEnded { run, outcome, report: _, execution_count: _, at } => {
            ended(group, *run, outcome, *at);
        }
    }
}

/// Each member's `unready_since` follows from the rest of it.
fn look_who_is_ready(group: &mut Group, at: WallTime) {
    for member in &mut group.members {
        member.unready_since = match (member.is_ready(), member.unready_since) {
            (true, _) => None,
            (false, since) => Some(since.unwrap_or(at)),
        };
    }
}

/// The member whose present process this is.
fn member_of(group: &mut Group, process: ProcessKey) -> Option<&mut Member> {
    group.members.iter_mut().find(|member| member.process() == process)
}

fn member(group: &mut Group, id: RuntimeId) -> Option<&mut Member> {
    group.members.iter_mut().find(|member| member.id == id)
}

fn happened(group: &mut Group, at: WallTime, what: &Happened) {
    match what {
        Happened::RuntimeLaunching(process) => {
            group.falling = None;
            if let Some(member) = member(group, process.runtime) {
                member.phase = Phase::Connecting;
                member.greeting = None;
                member.ignores_cancel = false;
                member.runtime.follow(at, what);
            }
        }
        Happened::RuntimeSpawned { process, .. }
        | Happened::RuntimeUnresponsive { process, .. }
        | Happened::RuntimeRecovered(process)
        | Happened::RuntimeStopping { process, .. } => {
            if let Some(member) = member_of(group, *process) {
                member.runtime.follow(at, what);
            }
        }
        Happened::RuntimeReady(process) => ready(group, at, *process, what),
        Happened::RuntimeExited { process, report, then, .. } => {
            exited(group, at, *process, report.as_deref(), then, what);
        }
        Happened::RuntimeDrained { process, report } => drained(group, at, *process, report.as_deref()),
        Happened::Closing(why) => {
            group.life = Life::Closing(*why);
            for member in &mut group.members {
                if let Status::Backoff { .. } = member.runtime.status {
                    member.runtime.enter(at, Status::Down);
                }
            }
        }
        Happened::Closed { save_problem } => {
            if let Life::Closing(why) = group.life {
                group.life = Life::Closed { why, at, save_problem: save_problem.clone() };
            }
        }
        Happened::TakenOver(takeover) => {
            remember(&mut group.takeovers, takeover);
            for member in &mut group.members {
                member.runtime.lost(takeover.evidence());
                // Another clock, which may be hours off the last one, counts from here: who waits begins to wait.
                member.unready_since = member.unready_since.map(|_| at);
            }
            for run in &group.queue {
                if let Some(task) = group.tasks.get_mut(run) {
                    task.waits_since = at;
                }
            }
        }
        Happened::HandOverAsked { grace_ms } => {
            group.hand_over = Some(HandOver { since: at, grace_ms: *grace_ms });
        }
        // Of sessions with one process.
        Happened::Created(_)
        | Happened::RunsQueued(_)
        | Happened::RunsQueuedInParts { .. }
        | Happened::RunWaitsAgain { .. }
        | Happened::RunsForgotten { .. }
        | Happened::RestartDue
        | Happened::RestartAsked
        | Happened::Interrupted
        | Happened::RestAsked
        | Happened::RunEnding { .. }
        | Happened::QuestionAsked { .. }
        | Happened::QuestionAnswered { .. }
        | Happened::PathClaimed { .. }
        | Happened::PathReleased { .. }
        | Happened::PathChanged { .. }
        | Happened::TrustChanged(_)
        | Happened::Group(_)
        | Happened::Settled => {}
    }
}

/// What speaks nothing is ready as soon as it runs.
fn ready(group: &mut Group, at: WallTime, process: ProcessKey, what: &Happened) {
    let speaks = group.member(process.runtime).map(|(_, member)| speaks(group, member));
    if let Some(member) = member_of(group, process) {
        member.runtime.follow(at, what);
        if speaks == Some(Speaks::Nothing) {
            member.phase = Phase::Ready;
        }
    }
}

/// In a `one_for_all` group one death counts for all of those that follow from it.
fn exited(
    group: &mut Group,
    at: WallTime,
    process: ProcessKey,
    report: Option<&FailureReport>,
    then: &AfterExit,
    what: &Happened,
) {
    let together = group.spec.strategy == Strategy::OneForAll;
    let is_falling = group.falling.is_some();
    let Some(member) = member_of(group, process) else { return };
    member.runtime.follow(at, what);
    if let Some(report) = report {
        member.last_report = Some(Box::new(report.clone()));
    }
    let is_displaced = member.runtime.displaced.is_some();
    if let (AfterExit::Restart { nth, .. }, false) = (then, is_displaced) {
        match (together, is_falling) {
            (false, _) => member.runtime.history.restarted(at, *nth),
            (true, false) => group.history.restarted(at, *nth),
            (true, true) => {}
        }
    }
    group.reports.extend(report.cloned());
    forget_reports(group);
    if together && is_displaced && matches!(then, AfterExit::Restart { .. }) {
        start_with_others(group, at);
    }
}

/// One that had ended well is started again with the others.
fn start_with_others(group: &mut Group, at: WallTime) {
    for member in &mut group.members {
        let is_over = matches!(member.runtime.status, Status::Exited(_));
        if is_over && member.runtime.wanted == Wanted::Up {
            member.runtime.enter(at, Status::Down);
        }
    }
}

fn forget_reports(group: &mut Group) {
    while group.reports.len() > REPORTS_REMEMBERED_MAX {
        group.reports.pop_front();
    }
}

fn drained(group: &mut Group, at: WallTime, process: ProcessKey, report: Option<&FailureReport>) {
    let goes_on = group.life == Life::Open;
    let Some(member) = member_of(group, process) else { return };
    if !matches!(member.runtime.status, Status::Draining { .. }) {
        return;
    }
    member.runtime.drained(at, goes_on);
    let Some(report) = report else { return };
    if let Some(last) = member.last_report.as_deref_mut().filter(|last| last.id == report.id) {
        *last = report.clone();
    }
    if let Some(known) = group.reports.iter_mut().rev().find(|known| known.id == report.id) {
        *known = report.clone();
    }
}

fn of_group(group: &mut Group, at: WallTime, event: &GroupEvent) {
    match event {
        GroupEvent::Created(spec) => *group = Group::new((**spec).clone()),
        GroupEvent::TaskQueued(new) => queued(group, at, new),
        GroupEvent::TaskGiven { run, process } => {
            if let Some(task) = group.tasks.get_mut(run) {
                task.given = Some(*process);
            }
        }
        GroupEvent::Greeted { process, greeting } => {
            if let Some(member) = member_of(group, *process) {
                member.greeting = Some(greeting.clone());
            }
        }
        GroupEvent::Entered { process, phase } => {
            if let Some(member) = member_of(group, *process) {
                member.phase = *phase;
            }
        }
        GroupEvent::StartAsked { member } => start_asked(group, at, *member),
        GroupEvent::StopAsked { member: id } => {
            if let Some(member) = member(group, *id) {
                member.runtime.rest_asked(at);
            }
        }
        GroupEvent::RestartDue { member: id } => {
            if let Some(member) = member(group, *id) {
                member.runtime.enter(at, Status::Down);
            }
        }
        GroupEvent::AllDown { member } => all_down(group, at, *member),
        GroupEvent::TaskEnding { run, why } => {
            if let Some(Task { state: TaskState::Running { ending, .. }, .. }) = group.tasks.get_mut(run) {
                *ending = Some((*why, at));
            }
        }
        GroupEvent::CancelIgnored { run } => {
            if let Some(Task { state: TaskState::Running { process, .. }, .. }) = group.tasks.get(run) {
                let process = *process;
                if let Some(member) = member_of(group, process) {
                    member.ignores_cancel = true;
                }
            }
        }
        GroupEvent::TaskWaitsAgain { run, lost } => waits_again(group, at, *run, *lost),
        GroupEvent::Noted { report } => {
            group.reports.push_back((**report).clone());
            forget_reports(group);
        }
        GroupEvent::TasksForgotten { runs, ended } => {
            forget(group, runs);
            group.ended = *ended;
        }
    }
}

/// What is down is to be launched; what is on its way out, after its end. What it can do is said anew.
fn start_asked(group: &mut Group, at: WallTime, id: RuntimeId) {
    group.history.reset();
    if let Some(falling) = &mut group.falling {
        falling.then = AfterExit::Restart { after_ms: 0, nth: 0 };
    }
    let Some(member) = member(group, id) else { return };
    member.runtime.start_asked();
    match member.runtime.status {
        Status::Backoff { .. } | Status::Exited(_) | Status::GaveUp { .. } => {
            member.greeting = None;
            member.runtime.enter(at, Status::Down);
        }
        Status::Down
        | Status::Launching
        | Status::Ready(_)
        | Status::Stopping { .. }
        | Status::Draining { .. } => {}
    }
}

/// What follows the end of the first follows for all.
fn all_down(group: &mut Group, at: WallTime, first: RuntimeId) {
    let then = match group.member(first).map(|(_, member)| &member.runtime.status) {
        Some(Status::Draining { then, .. }) => then.clone(),
        Some(Status::GaveUp { reason }) => AfterExit::GiveUp { reason: reason.clone() },
        Some(Status::Backoff { after_ms }) => AfterExit::Restart { after_ms: *after_ms, nth: 1 },
        Some(
            Status::Down | Status::Launching | Status::Ready(_) | Status::Stopping { .. } | Status::Exited(_),
        )
        | None => AfterExit::Stay,
    };
    if let AfterExit::Restart { .. } = then {
        start_with_others(group, at);
    }
    group.falling = Some(Falling { first, then });
}

fn queued(group: &mut Group, at: WallTime, new: &NewTask) {
    let task = Task {
        new: new.clone(),
        index: group.queued,
        state: TaskState::Queued,
        attempt: Attempt(0),
        excused: Excused::default(),
        given: None,
        is_exact: false,
        checkpoint: None,
        told: None,
        queued_at: at,
        waits_since: at,
        started_at: None,
        ended_at: None,
    };
    group.queued = group.queued.saturating_add(1);
    group.keys.insert(new.key.clone(), new.id);
    group.tasks.insert(new.id, task);
    group.order.push_back(new.id);
    group.queue.push_back(new.id);
    *group.waiting.entry(new.task.clone()).or_default() += 1;
}

/// Nearly always the first.
fn unqueue(group: &mut Group, run: RunId) {
    let Some(task) = group.tasks.get(&run).filter(|task| task.state == TaskState::Queued) else { return };
    if let Some(number) = group.waiting.get_mut(&task.new.task) {
        *number -= 1;
        if *number == 0 {
            group.waiting.remove(&task.new.task);
        }
    }
    if group.queue.front() == Some(&run) {
        group.queue.pop_front();
    } else {
        group.queue.retain(|queued| *queued != run);
    }
}

/// To whom it was given was said before it.
fn opened(group: &mut Group, run: RunId, attempt: Attempt, base: Option<Seq>, at: WallTime) {
    let Some(task) = group.tasks.get(&run) else { return };
    let Some(process) = task.given else { return };
    let replays = group.member(process.runtime).is_some_and(|(_, member)| member.replays(&task.new.task));
    unqueue(group, run);
    let Some(task) = group.tasks.get_mut(&run) else { return };
    // What an attempt goes on behind, beyond the saved state, counts too.
    let kept = task.checkpoint.as_ref().map_or(Seq(0), |(seq, _)| *seq);
    let continues = attempt > Attempt(1) && base.is_none_or(|base| base > kept);
    task.is_exact = replays && (task.is_exact || !continues);
    task.state = TaskState::Running { process, ending: None };
    task.attempt = attempt;
    task.told = None;
    task.started_at = Some(at);
    if let Some(member) = member(group, process.runtime) {
        member.running.insert(run);
    }
}

fn ended(group: &mut Group, id: RunId, outcome: &RunOutcome, at: WallTime) {
    unqueue(group, id);
    for member in &mut group.members {
        member.running.remove(&id);
    }
    let Some(task) = group.tasks.get_mut(&id).filter(|task| !matches!(task.state, TaskState::Ended(_)))
    else {
        return;
    };
    group.ended.count(outcome);
    task.state = TaskState::Ended(outcome.clone());
    task.ended_at = Some(at);
    // Nobody begins it again, many are remembered, and the log has it.
    if is_larger(&task.new.input, RUN_SOURCE_VIEW_BYTES_MAX) {
        task.new.input = Value::Null;
    }
}

/// Whether there is more in a value than so many bytes of names and texts, about.
fn is_larger(value: &Value, bytes: usize) -> bool {
    fn left(value: &Value, room: usize) -> Option<usize> {
        let room = room.checked_sub(1)?;
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => Some(room),
            Value::String(text) => room.checked_sub(text.len()),
            Value::Array(values) => values.iter().try_fold(room, |room, value| left(value, room)),
            Value::Object(fields) => {
                fields.iter().try_fold(room, |room, (name, value)| left(value, room.checked_sub(name.len())?))
            }
        }
    }
    left(value, bytes).is_none()
}

fn waits_again(group: &mut Group, at: WallTime, id: RunId, lost: RunnerLost) {
    let Some(task) = group.tasks.get_mut(&id).filter(|task| matches!(task.state, TaskState::Running { .. }))
    else {
        return;
    };
    task.state = TaskState::Queued;
    task.waits_since = at;
    task.excused.attempts += u64::from(lost != RunnerLost::Ended);
    task.excused.nodes_lost += u64::from(lost == RunnerLost::WithNode);
    *group.waiting.entry(task.new.task.clone()).or_default() += 1;
    for member in &mut group.members {
        member.running.remove(&id);
    }
    group.queue.push_front(id);
}

fn forget(group: &mut Group, runs: &[RunId]) {
    for id in runs {
        // Of one whose end has left the log, the fold knows only that it was queued.
        unqueue(group, *id);
        let Some(task) = group.tasks.remove(id) else { continue };
        if group.keys.get(&task.new.key) == Some(id) {
            group.keys.remove(&task.new.key);
        }
    }
    group.order.retain(|id| group.tasks.contains_key(id));
}

/// The report that an error chunk of ours names.
fn death_told_of(chunk: &Chunk) -> Option<ReportId> {
    let (ChunkKind::Error, Payload::Inline(bytes)) = (&chunk.kind, &chunk.payload) else { return None };
    let content: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    content.get("report")?.as_str()?.parse().ok()
}
