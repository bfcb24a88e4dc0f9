//! The exit code of a client that saw a session to its end.

use outlive_core::diagnosis::CauseCode;
use outlive_core::diagnosis::evidence::Phase;
use outlive_core::id::RunId;
use outlive_core::session::{CancelWhy, RunOutcome};
use outlive_protocol::http::{RunState, RuntimeState, SessionState};

use super::watch::Watch;
use crate::exit::Exit;

/// How a notebook or kernel went.
pub fn of_notebook(watch: &Watch) -> Exit {
    let state = watch.session.as_ref().map(|session| session.state);
    match (watch.first_failure(), state) {
        (_, Some(SessionState::Succeeded)) => Exit::Ok,
        (Some(outcome), _) => of_outcome(outcome, watch),
        (None, Some(SessionState::Stopped)) => Exit::Stopped,
        // Nothing was run, and the runtime's own end says why.
        (None, Some(SessionState::Failed)) => of_reports(watch),
        (None, _) => Exit::Ok,
    }
}

/// How a command went: its own exit code, unless it never ran or took too long.
pub fn of_command(watch: &Watch) -> Exit {
    if let Some(exit @ (Exit::TimedOut | Exit::CannotStart)) =
        watch.first_failure().map(|outcome| of_outcome(outcome, watch))
    {
        return exit;
    }
    let state = watch.session.as_ref().map(|session| &session.runtime.state);
    let by_state = match state {
        Some(RuntimeState::Exited { status, .. }) => Some(*status),
        Some(_) | None => None,
    };
    let by_report = watch.reports.last().and_then(|report| report.status);
    if let Some(exit) = by_state.or(by_report).and_then(Exit::of_command) {
        return exit;
    }
    match watch.session.as_ref().map(|session| session.state) {
        Some(SessionState::Succeeded) | None => Exit::Ok,
        Some(SessionState::Stopped) => Exit::Stopped,
        Some(SessionState::Failed) => of_reports(watch),
        Some(SessionState::Working | SessionState::Idle | SessionState::Unknown) => {
            watch.first_failure().map_or(Exit::Ok, |outcome| of_outcome(outcome, watch))
        }
    }
}

/// How a group went: it is meant to be taken down, and its tasks have outcomes of their own.
pub fn of_group(watch: &Watch) -> Exit {
    match watch.session.as_ref().map(|session| session.state) {
        Some(SessionState::Failed) => of_reports(watch),
        Some(
            SessionState::Working
            | SessionState::Idle
            | SessionState::Succeeded
            | SessionState::Stopped
            | SessionState::Unknown,
        )
        | None => Exit::Ok,
    }
}

/// How a task went; one that was not seen to its end counts as failed.
pub fn of_task(watch: &Watch, run: RunId) -> Exit {
    match watch.runs.get(&run).map(|run| &run.state) {
        Some(RunState::Ended { outcome }) => of_outcome(outcome, watch),
        Some(RunState::Queued | RunState::Running | RunState::Unknown) | None => {
            watch.outcome.as_ref().map_or(Exit::Failed, |outcome| of_outcome(outcome, watch))
        }
    }
}

fn of_outcome(outcome: &RunOutcome, watch: &Watch) -> Exit {
    match outcome {
        RunOutcome::Succeeded => Exit::Ok,
        RunOutcome::Raised { .. } => Exit::Failed,
        RunOutcome::Unserved { .. } => Exit::CannotStart,
        RunOutcome::TimedOut { .. } => Exit::TimedOut,
        RunOutcome::Cancelled {
            why: CancelWhy::User | CancelWhy::Interrupted | CancelWhy::Stopped | CancelWhy::NodeDrained,
        } => Exit::Stopped,
        RunOutcome::Cancelled { why: CancelWhy::EarlierFailure } => Exit::Failed,
        RunOutcome::Failed { code, report, .. } => {
            let phase =
                watch.reports.iter().find(|known| known.id == *report).map(|report| report.evidence.phase);
            of_cause(*code, phase)
        }
    }
}

fn of_reports(watch: &Watch) -> Exit {
    let last = watch.reports.last().map(|report| (report.cause().code, Some(report.evidence.phase)));
    let summary = watch.session.as_ref().and_then(|session| session.last_report.as_ref());
    let known = last.or_else(|| summary.map(|summary| (summary.code, None)));
    known.map_or(Exit::Failed, |(code, phase)| of_cause(code, phase))
}

const fn of_cause(code: CauseCode, phase: Option<Phase>) -> Exit {
    match (code, phase) {
        (CauseCode::Timeout, _) => Exit::TimedOut,
        (CauseCode::KilledByOperator, _) => Exit::Stopped,
        (CauseCode::MissingInterpreter | CauseCode::MissingKernel | CauseCode::NeverReady, _)
        | (_, Some(Phase::Launching)) => Exit::CannotStart,
        (_, _) => Exit::Died,
    }
}

#[cfg(test)]
mod tests {
    use outlive_core::id::ReportId;
    use outlive_protocol::http::StreamEvent;
    use serde_json::json;

    use super::*;

    fn watch(state: &str, runtime: serde_json::Value, outcomes: &[RunOutcome]) -> Watch {
        let id = uuid::Uuid::nil();
        let mut watch = Watch::default();
        let session = json!({
            "id": id, "generation": 1, "position": 1, "title": "t", "kind": "notebook", "path": null,
            "created_at": 1, "closed_at": 2, "state": state,
            "runtime": {"id": id, "incarnation": 1, "name": "k", "state": runtime, "pid": null, "since": 0},
            "runs": {"queued": 0, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0},
            "current": null, "question": null, "last_report": null, "save_problem": null, "peers": 0,
        });
        watch.session = Some(serde_json::from_value(session).expect("a session"));
        for (index, outcome) in outcomes.iter().enumerate() {
            let run = json!({
                "id": RunId::from_uuid(uuid::Uuid::from_u128(index as u128)), "session": id, "index": index,
                "cell": index, "source": "", "state": {"state": "ended", "outcome": outcome}, "attempt": 1,
                "head": 0, "execution_count": 1, "queued_at": 0, "started_at": 0, "ended_at": 1,
            });
            watch.admit(StreamEvent::Run { run: Box::new(serde_json::from_value(run).expect("a run")) });
        }
        watch
    }

    fn raised() -> RunOutcome {
        RunOutcome::Raised { ename: "E".to_owned(), evalue: "v".to_owned() }
    }

    fn failed(code: CauseCode) -> RunOutcome {
        RunOutcome::Failed { code, summary: String::new(), report: ReportId::from_uuid(uuid::Uuid::nil()) }
    }

    const SKIPPED: RunOutcome = RunOutcome::Cancelled { why: CancelWhy::EarlierFailure };

    #[test]
    fn a_notebook_ends_with_its_first_failure() {
        let exit = |state: &str, outcomes: &[RunOutcome]| {
            of_notebook(&watch(state, json!({"state": "idle"}), outcomes))
        };
        assert_eq!(exit("succeeded", &[RunOutcome::Succeeded]), Exit::Ok);
        assert_eq!(exit("succeeded", &[]), Exit::Ok);
        assert_eq!(exit("failed", &[RunOutcome::Succeeded, raised(), SKIPPED]), Exit::Failed);
        assert_eq!(exit("failed", &[failed(CauseCode::OutOfMemory), SKIPPED]), Exit::Died);
        assert_eq!(exit("failed", &[failed(CauseCode::MissingInterpreter)]), Exit::CannotStart);
        assert_eq!(exit("failed", &[RunOutcome::TimedOut { limit_ms: 1 }]), Exit::TimedOut);
        assert_eq!(exit("stopped", &[RunOutcome::Cancelled { why: CancelWhy::Stopped }]), Exit::Stopped);
        assert_eq!(exit("stopped", &[]), Exit::Stopped);
        assert_eq!(exit("failed", &[]), Exit::Failed);
    }

    #[test]
    fn allowed_errors_are_no_failure_but_a_death_is() {
        let exit = |outcomes: &[RunOutcome]| {
            // As after `run --keep --allow-errors`: the session stays open and says nothing about success.
            let mut watch = watch("idle", json!({"state": "idle"}), outcomes);
            watch.runs.values_mut().for_each(|run| run.may_raise = true);
            of_notebook(&watch)
        };
        assert_eq!(exit(&[raised(), RunOutcome::Succeeded, raised()]), Exit::Ok);
        assert_eq!(exit(&[raised(), failed(CauseCode::Signal)]), Exit::Died);
    }

    #[test]
    fn a_command_passes_its_exit_code_on() {
        let exited = |status| json!({"state": "exited", "status": status, "cause": null});
        let code =
            watch("failed", exited(json!({"kind": "code", "code": 42})), &[failed(CauseCode::ExitCode)]);
        assert_eq!(of_command(&code).code(), 42);
        let signal = json!({"kind": "signal", "number": 15, "core_dumped": false});
        assert_eq!(of_command(&watch("stopped", exited(signal), &[])).code(), 143);
        let timeout = watch(
            "failed",
            exited(json!({"kind": "code", "code": 1})),
            &[RunOutcome::TimedOut { limit_ms: 5 }],
        );
        assert_eq!(of_command(&timeout), Exit::TimedOut);
        let missing =
            watch("failed", exited(json!({"kind": "unknown"})), &[failed(CauseCode::MissingInterpreter)]);
        assert_eq!(of_command(&missing), Exit::CannotStart);
    }
}
