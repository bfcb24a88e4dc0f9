//! It stopped answering and was ended for it, or was silent when it ended.

use super::{Finding, Rank};
use crate::diagnosis::case::Case;
use crate::diagnosis::cause::{CauseCode, Confidence, EvidenceLine};
use crate::diagnosis::evidence::HangEvidence;
use crate::diagnosis::lines;
use crate::runtime::StopWhy;

pub(super) fn examine(case: &Case<'_>) -> Option<Finding> {
    let hang = case.evidence.hang.as_ref();
    if case.stopped() == Some(StopWhy::Hung) {
        let silent = hang.map(|hang| format!(" for {}", lines::duration(hang.silent_ms))).unwrap_or_default();
        let doing = hang.map(doing).unwrap_or_default();
        let summary = format!("did not answer{silent}{doing}, and was ended for it as its policy says");
        let finding = Finding::new(Rank::Verdict, CauseCode::Hung, Confidence::Certain, summary);
        return Some(finding.evidence(hang.map(facts).into_iter().flatten()).remedy(remedy(hang)));
    }
    let hang = hang.filter(|_| case.evidence.stop.is_none())?;
    let summary =
        format!("had not answered for {} when it ended{}", lines::duration(hang.silent_ms), doing(hang));
    let finding = Finding::new(Rank::Suspicion, CauseCode::Hung, Confidence::Possible, summary);
    Some(finding.evidence(facts(hang)).remedy(remedy(Some(hang))))
}

/// What the process did meanwhile, told by the scheduler's state and its processor time.
fn doing(hang: &HangEvidence) -> String {
    match (hang.state, hang.cpu_ms) {
        (Some('T' | 't'), _) => " (it was stopped, as by SIGSTOP or a debugger)".to_owned(),
        (Some('D'), _) => " (it was stuck in a system call, as on a dead network disk)".to_owned(),
        (_, Some(cpu)) if cpu.saturating_mul(2) >= hang.silent_ms && cpu > 0 => {
            format!(" (it was computing: {} of processor time)", lines::duration(cpu))
        }
        (_, Some(cpu)) => format!(" (it was waiting: {} of processor time)", lines::duration(cpu)),
        (_, None) => String::new(),
    }
}

fn facts(hang: &HangEvidence) -> Vec<EvidenceLine> {
    let silence = format!("{} missed in a row, silent for {}", hang.misses, lines::duration(hang.silent_ms));
    let mut facts = vec![lines::fact("heartbeat", silence)];
    if let Some(state) = hang.state {
        facts.push(lines::fact("/proc/PID/stat", format!("state {state}")));
    }
    if let Some(cpu) = hang.cpu_ms {
        facts.push(lines::fact(
            "/proc/PID/stat",
            format!("{} of processor time in the silence", lines::duration(cpu)),
        ));
    }
    facts
}

fn remedy(hang: Option<&HangEvidence>) -> &'static str {
    match hang.and_then(|hang| hang.state) {
        Some('T' | 't') => {
            "Something stopped the process: a debugger, Ctrl-Z, SIGSTOP or a batch system. `kill -CONT PID` wakes it. To \
             be told and not have it ended, set the hang policy to `report`."
        }
        Some('D') => {
            "It waited for a device or a network file system: look at `dmesg` and at the mounts it uses."
        }
        _ => {
            "Native code that holds Python's lock for long looks like this, and so does a deadlock. `py-spy dump --pid \
             PID` shows where it stands. If such pauses are normal for this work, set the hang policy to `report`."
        }
    }
}
