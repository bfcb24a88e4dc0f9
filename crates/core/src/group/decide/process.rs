//! What is said about the process of a member. A notice about any process but its present one changes nothing, and of
//! several notices of one death the first counts.

use super::super::advance::may_go_on;
use super::super::event::{GroupEvent, RunnerLost};
use super::super::input::Decision;
use super::super::spec::Strategy;
use super::super::state::{Group, Member, Task, TaskState};
use super::{ended_as, stop_process};
use crate::diagnosis::evidence::{Phase, SiblingEvidence};
use crate::diagnosis::explain::{ExplainOptions, explain};
use crate::diagnosis::report::Failure;
use crate::diagnosis::{FailureReport, NextStep};
use crate::id::{Attempt, ProcessKey, ReportId, RunId};
use crate::limits::TASK_ERROR_LINES_MAX;
use crate::log::{Chunk, ChunkKind};
use crate::runtime::restart::{Ended, EndedHow};
use crate::runtime::{ExitReport, RestartType, StopStep, StopWhy};
use crate::session::event::{AfterExit, Happened};
use crate::session::input::ProcessInput;
use crate::session::process::{begun_elsewhere, by_policy};
use crate::session::spec::{AfterLoss, HangPolicy};
use crate::session::state::{Life, Status, Wanted};
use crate::session::{CancelWhy, Fact, RunOutcome};
use crate::time::Now;

pub(super) fn decide(group: &Group, process: ProcessKey, what: ProcessInput, now: Now) -> Decision {
    let Some((_, member)) = group.member(process.runtime) else { return Decision::none() };
    if process != member.process() {
        return Decision::none();
    }
    let mut decision = Decision::none();
    if let Some(happened) = member.runtime.noticed(process, &what) {
        decision = decision.happened(now.wall, happened);
    }
    match what {
        ProcessInput::Spawned { .. }
        | ProcessInput::Ready
        | ProcessInput::Responsive
        | ProcessInput::Stopping { .. }
        // A runner has nobody to ask.
        | ProcessInput::InputRequested { .. } => decision,
        ProcessInput::Unresponsive(_) => match group.spec.on_hang {
            HangPolicy::Restart if !decision.is_none() => {
                decision.and(stop_process(member, StopWhy::Hung, StopStep::Term, now))
            }
            HangPolicy::Restart | HangPolicy::Report | HangPolicy::Interrupt => decision,
        },
        ProcessInput::RunFinished { run, attempt, outcome, execution_count: _ } => {
            task_finished(group, member, run, attempt, outcome, now)
        }
        ProcessInput::Exited { report, id } => exited(group, member, *report, id, now),
        ProcessInput::Drained(evidence) => {
            let drained = member.runtime.drains(process, member.present_report(), *evidence);
            drained.map_or_else(Decision::none, |drained| Decision::none().happened(now.wall, drained))
        }
    }
}

/// What a runner says of a task that it was not asked to end, while it is stopped, is a consequence of that: the end
/// of the process, which knows why, settles the task.
fn task_finished(
    group: &Group,
    member: &Member,
    run: RunId,
    attempt: Attempt,
    outcome: RunOutcome,
    now: Now,
) -> Decision {
    let Some(task) = group.tasks.get(&run).filter(|task| task.attempt == attempt) else {
        return Decision::none();
    };
    let ending = match &task.state {
        TaskState::Running { process, ending } if *process == member.process() => ending.map(|(why, _)| why),
        TaskState::Running { .. } | TaskState::Queued | TaskState::Ended(_) => return Decision::none(),
    };
    let is_drained = matches!(member.runtime.status, Status::Stopping { why: StopWhy::Drain, .. });
    let outcome = match (ending, outcome) {
        (_, RunOutcome::Succeeded) => RunOutcome::Succeeded,
        // It stopped at a step, with all that it had done behind its checkpoint: nothing is done twice.
        (None, RunOutcome::Cancelled { why: CancelWhy::Stopped }) if is_drained => {
            let lost = RunnerLost::HandedOver;
            return Decision::none().event(now, GroupEvent::TaskWaitsAgain { run, lost });
        }
        (Some(why), _) => ended_as(group, run, why),
        (None, _) if !member.runtime.is_up() => return Decision::none(),
        (None, outcome) => outcome,
    };
    Decision::none().fact(super::ended(run, outcome, now))
}

/// How far a process is.
pub(super) fn phase(member: &Member) -> Phase {
    match &member.runtime.status {
        Status::Ready(_) if member.running.is_empty() => Phase::Idle,
        Status::Ready(_) => Phase::Busy,
        Status::Stopping { .. } | Status::Draining { .. } => Phase::Stopping,
        Status::Down
        | Status::Launching
        | Status::Exited(_)
        | Status::Backoff { .. }
        | Status::GaveUp { .. } => Phase::Launching,
    }
}

/// What died, in the user's words.
pub(super) fn subject(group: &Group, member: &Member) -> String {
    format!("runner {}", group.name(member.id))
}

/// The one death: what it interrupts is told of it first, then everybody.
fn exited(group: &Group, member: &Member, mut exit: ExitReport, id: ReportId, now: Now) -> Decision {
    let Some((phase, stop_why)) = member.runtime.ends(!member.running.is_empty()) else {
        return Decision::none();
    };
    // The shim knows what the process was at; where the shim itself is gone, nobody but the group does.
    if exit.evidence.shim_lost.is_some() || exit.evidence.node_lost.is_some() {
        exit.evidence.phase = phase;
    }
    let is_displaced = exit.evidence.is_displaced() || stop_why == Some(StopWhy::Drain);
    if stop_why == Some(StopWhy::Sibling) {
        exit.evidence.sibling = first_death(group);
    }
    let (process, status) = (exit.process, exit.status);
    let lost = lost(group, member);
    let mut ended = Ended::of(&exit);
    if ended.how == EndedHow::Normal && !lost.is_empty() {
        // In the middle of work no end is a normal one, whatever the exit code.
        ended.how = EndedHow::Abnormal;
    }
    let (then, next) = what_follows(group, member, ended, stop_why, is_displaced, now);
    let report = is_failure(&exit, ended, stop_why, &lost).then(|| {
        // A daemon that died in between has told of it already.
        let id = lost.iter().find_map(|task| task.told).unwrap_or(id);
        let mut failure = Failure::of_exit(id, group.spec.id, &subject(group, member), exit);
        failure.interrupted = lost.iter().map(|task| task.new.id).collect();
        failure.interrupted_names = lost.iter().map(|task| name(task)).collect();
        failure.next = next;
        Box::new(FailureReport::build(failure))
    });
    let mut decision = Decision::none();
    if let Some(report) = &report {
        let chunk = error_chunk(report, now);
        // Whoever watches a task that goes on elsewhere, or says the same again, sees it go on.
        let ends = |task: &&&Task| !((is_displaced || task.is_exact) && may_go_on(group, task));
        for task in lost.iter().filter(|task| task.told.is_none()).filter(ends) {
            decision = decision.fact(Fact::RunTold { run: task.new.id, chunks: vec![chunk.clone()] });
        }
    }
    decision.happened(now.wall, Happened::RuntimeExited { process, status, report, then })
}

/// The tasks that end with the process against somebody's will, in the order in which they were queued.
fn lost<'a>(group: &'a Group, member: &Member) -> Vec<&'a Task> {
    let running = member.running.iter().filter_map(|run| group.tasks.get(run));
    let mut lost: Vec<&Task> =
        running.filter(|task| matches!(task.state, TaskState::Running { ending: None, .. })).collect();
    lost.sort_by_key(|task| task.index);
    lost
}

/// A task, as people call it: tasks are counted from 1.
fn name(task: &Task) -> String {
    format!("task {} ({})", task.index.saturating_add(1), task.new.task)
}

/// An end is a failure unless it is what was wanted: a stop that interrupts nothing, or exit code 0 without work and
/// without last words.
fn is_failure(exit: &ExitReport, ended: Ended, stop: Option<StopWhy>, lost: &[&Task]) -> bool {
    match ended.how {
        EndedHow::Abnormal => true,
        EndedHow::Normal => exit.evidence.last_words.is_some(),
        EndedHow::Asked => !lost.is_empty() && exit.pid.is_some() && stop != Some(StopWhy::Finished),
    }
}

/// Who died first, for those that were stopped because of it.
fn first_death(group: &Group) -> Option<SiblingEvidence> {
    let falling = group.falling.as_ref()?;
    let (_, first) = group.member(falling.first)?;
    let report = first.present_report()?;
    let cause = report.cause();
    Some(SiblingEvidence {
        name: report.subject.strip_prefix("runner ").unwrap_or(&report.subject).to_owned(),
        cause: cause.code,
        summary: cause.summary.clone(),
        report: Some(report.id),
    })
}

fn what_follows(
    group: &Group,
    member: &Member,
    mut ended: Ended,
    stop: Option<StopWhy>,
    is_displaced: bool,
    now: Now,
) -> (AfterExit, NextStep) {
    match group.life {
        Life::Closing(_) | Life::Saving(_) | Life::Closed { .. } => {
            return (AfterExit::Stay, NextStep::Nothing);
        }
        Life::Open => {}
    }
    if member.runtime.wanted == Wanted::Down {
        return (AfterExit::Rest, NextStep::Nothing);
    }
    if stop == Some(StopWhy::Restart) {
        return (
            AfterExit::Restart { after_ms: 0, nth: 0 },
            NextStep::Restart { after_ms: 0, nth: 1, of: 1 },
        );
    }
    if let Some(falling) = &group.falling {
        return (falling.then.clone(), next_step(group, &falling.then));
    }
    if is_displaced {
        return elsewhere(group);
    }
    // Nobody wished the end of a member that is to be up.
    if stop == Some(StopWhy::User) {
        ended.how = EndedHow::Abnormal;
    }
    let history = match group.spec.strategy {
        Strategy::OneForOne => &member.runtime.history,
        Strategy::OneForAll => &group.history,
    };
    by_policy(group.spec.restart, history, ended, stop, now)
}

/// What follows when the group goes on on another node.
fn elsewhere(group: &Group) -> (AfterExit, NextStep) {
    let by_type = match group.spec.restart.restart {
        RestartType::Permanent | RestartType::Transient => AfterLoss::Restart,
        RestartType::Temporary => AfterLoss::Leave,
    };
    match group.spec.on_node_loss.unwrap_or(by_type) {
        AfterLoss::Restart => begun_elsewhere(),
        AfterLoss::Leave => (AfterExit::Stay, NextStep::Nothing),
    }
}

fn next_step(group: &Group, then: &AfterExit) -> NextStep {
    match then {
        AfterExit::Stay | AfterExit::Rest => NextStep::Nothing,
        AfterExit::Restart { after_ms, nth } => {
            NextStep::Restart { after_ms: *after_ms, nth: *nth, of: group.spec.restart.restarts_max }
        }
        AfterExit::GiveUp { reason } => NextStep::GiveUp { reason: reason.clone() },
    }
}

/// The death as its tasks are told of it: Jupyter's `error`, so that every client shows it, with the report's id.
pub(in super::super) fn error_chunk(report: &FailureReport, now: Now) -> Chunk {
    let cause = report.cause();
    let page = explain(report, &ExplainOptions::default());
    let lines: Vec<&str> = page.lines().take(TASK_ERROR_LINES_MAX).collect();
    let content = serde_json::json!({
        "ename": cause.code.as_str(),
        "evalue": cause.summary,
        "traceback": lines,
        "report": report.id,
    });
    Chunk::inline(ChunkKind::Error, now.wall, content.to_string().into_bytes())
}
