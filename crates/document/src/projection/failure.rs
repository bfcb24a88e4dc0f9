//! What is put into a cell whose run was ended by something other than its own code.

use outlive_core::diagnosis::{CauseCode, FailureReport, NextStep};
use outlive_core::id::RunId;

use super::output::Failure;

/// How many lines of evidence a cell shows; the report has all.
const EVIDENCE_SHOWN: usize = 6;

/// The process of the run died, hung, or was never there.
pub(super) fn died(run: RunId, code: CauseCode, summary: &str, report: Option<&FailureReport>) -> Failure {
    let ename = match code {
        CauseCode::MissingInterpreter | CauseCode::MissingKernel | CauseCode::NeverReady => {
            "KernelDidNotStart"
        }
        CauseCode::Hung => "KernelHung",
        _ => "KernelDied",
    };
    let mut traceback = vec![format!("{ename}: {summary}")];
    if let Some(report) = report {
        let cause = report.cause();
        traceback.push(format!("  what:   {}", report.subject));
        traceback.push(format!("  cause:  {} ({})", cause.label(), cause.confidence));
        for line in cause.evidence.iter().take(EVIDENCE_SHOWN) {
            traceback.push(format!("  {}: {}", line.source, line.text));
        }
        if !cause.remedy.is_empty() {
            traceback.push(format!("  remedy: {}", cause.remedy));
        }
        traceback.push(match &report.next {
            NextStep::Nothing => "  next:   nothing is started again by itself".to_owned(),
            NextStep::Restart { nth, of, .. } => {
                format!("  next:   restart {nth} of {of}; variables are lost")
            }
            NextStep::GiveUp { reason } => format!("  next:   given up: {reason}"),
        });
    }
    traceback.push(format!("  more:   outlive explain {run}"));
    Failure { ename: ename.to_owned(), evalue: summary.to_owned(), traceback }
}

/// The run took longer than its limit.
pub(super) fn timed_out(limit_ms: u64) -> Failure {
    one_line("CellTimeout", format!("the cell took longer than its limit of {} s", seconds(limit_ms)))
}

/// The run was ended by a wish.
pub(super) fn cancelled(why: &str) -> Failure {
    one_line("RunCancelled", format!("the run of this cell did not come to its end: {why}"))
}

fn one_line(ename: &str, evalue: String) -> Failure {
    Failure { ename: ename.to_owned(), traceback: vec![format!("{ename}: {evalue}")], evalue }
}

fn seconds(ms: u64) -> String {
    if ms.is_multiple_of(1_000) {
        (ms / 1_000).to_string()
    } else {
        format!("{}.{:03}", ms / 1_000, ms % 1_000)
    }
}
