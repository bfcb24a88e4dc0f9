//! What only a runner says.

use super::super::event::GroupEvent;
use super::super::input::{Decision, RunnerInput};
use super::super::state::{Group, Member, TaskState};
use super::process::{phase, subject};
use super::stop_process;
use crate::diagnosis::report::Failure;
use crate::diagnosis::{CauseCode, Evidence, FailureReport, NextStep};
use crate::id::{ProcessKey, ReportId, RunId};
use crate::limits::VIOLATIONS_NOTED_MAX;
use crate::runtime::runner::Greeting;
use crate::runtime::{StopStep, StopWhy};
use crate::time::Now;

pub(super) fn decide(group: &Group, process: ProcessKey, what: RunnerInput, now: Now) -> Decision {
    let Some((_, member)) = group.member(process.runtime) else { return Decision::none() };
    if process != member.process() || !member.runtime.has_process() {
        return Decision::none();
    }
    match what {
        RunnerInput::Greeted(greeting) => greeted(member, greeting, now),
        RunnerInput::Entered(phase) if member.phase != phase => {
            Decision::none().event(now, GroupEvent::Entered { process, phase })
        }
        RunnerInput::Entered(_) => Decision::none(),
        RunnerInput::Stalled { stall: _, run } => stalled(group, member, run, now),
        RunnerInput::Violated { is_fatal: true, .. } => {
            stop_process(member, StopWhy::Violation, StopStep::Term, now)
        }
        RunnerInput::Violated { what, is_fatal: false, id } => noted(group, member, what, id, now),
    }
}

fn greeted(member: &Member, greeting: Greeting, now: Now) -> Decision {
    if member.greeting.as_ref() == Some(&greeting) {
        return Decision::none();
    }
    Decision::none().event(now, GroupEvent::Greeted { process: member.process(), greeting })
}

/// A task that has ended meanwhile, or is being ended, has its own bound.
fn stalled(group: &Group, member: &Member, run: Option<RunId>, now: Now) -> Decision {
    let stands_still = match run.map(|run| group.tasks.get(&run).map(|task| &task.state)) {
        None => true,
        Some(Some(TaskState::Running { process, ending: None })) => *process == member.process(),
        Some(Some(TaskState::Running { .. } | TaskState::Queued | TaskState::Ended(_)) | None) => false,
    };
    if !stands_still {
        return Decision::none();
    }
    stop_process(member, StopWhy::Stalled, StopStep::Term, now)
}

/// It goes on; the first few times are reported.
fn noted(group: &Group, member: &Member, what: String, id: ReportId, now: Now) -> Decision {
    let process = member.process();
    let of_this = |report: &&FailureReport| {
        report.process == Some(process) && report.cause().code == CauseCode::ProtocolViolation
    };
    if group.reports.iter().filter(of_this).count() >= VIOLATIONS_NOTED_MAX {
        return Decision::none();
    }
    let subject = subject(group, member);
    let report = FailureReport::build(Failure {
        id,
        session: group.spec.id,
        process: Some(process),
        subject: member.runtime.pid.map_or_else(|| subject.clone(), |pid| format!("{subject} (pid {pid})")),
        at: now.wall,
        lived_ms: None,
        status: None,
        evidence: Evidence { phase: phase(member), violation: Some(what), ..Evidence::default() },
        interrupted: Vec::new(),
        interrupted_names: Vec::new(),
        next: NextStep::Nothing,
    });
    Decision::none().event(now, GroupEvent::Noted { report: Box::new(report) })
}
