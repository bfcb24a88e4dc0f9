//! The shim, parent of the process, is gone without a report; nobody could wait for the exit status.

use super::{Finding, Rank};
use crate::diagnosis::case::Case;
use crate::diagnosis::cause::{CauseCode, Confidence};
use crate::diagnosis::evidence::ShimLostEvidence;
use crate::diagnosis::lines;
use crate::runtime::ExitStatus;

pub(super) fn examine(case: &Case<'_>) -> Option<Finding> {
    let lost = case.evidence.shim_lost.as_ref()?;
    if let Some(reason) = &lost.refused {
        return Some(refused(lost, reason));
    }
    let how = match lost.shim_status {
        Some(status @ ExitStatus::Signal { .. }) => format!(" by {status}"),
        Some(status @ ExitStatus::Code { .. }) => format!(" ({status})"),
        Some(ExitStatus::Unknown) | None => String::new(),
    };
    let summary = format!("the shim that held it was ended{how}, and it was ended with its shim");
    let shim = pid(lost);
    let status =
        lost.shim_status.map_or_else(|| "exit status not known".to_owned(), |status| status.to_string());
    let mut evidence = vec![lines::fact("shim", format!("{shim}, {status}"))];
    if lost.killed > 0 {
        let left = match lost.killed {
            1 => "1 process was left and has been killed".to_owned(),
            killed => format!("{killed} processes were left and have been killed"),
        };
        evidence.push(lines::fact("shim", left));
    }
    if case.evidence.memory.host_oom_kills > 0 {
        evidence.push(lines::fact(
            "/proc/vmstat",
            format!("oom_kill rose by {}", case.evidence.memory.host_oom_kills),
        ));
    }
    Some(
        Finding::new(Rank::Decision, CauseCode::ShimLost, Confidence::Certain, summary).evidence(evidence).remedy(
            "Somebody killed a process named `outlive … shim`: leave shims alone and use `outlive stop`. If nobody \
             did, look for the OOM killer in `journalctl -k`. Restart the session; output up to here is kept.",
        ),
    )
}

fn pid(lost: &ShimLostEvidence) -> String {
    lost.shim_pid.map_or_else(|| "pid not known".to_owned(), |pid| format!("pid {pid}"))
}

/// The shim lived, and the daemon could not use it.
fn refused(lost: &ShimLostEvidence, reason: &str) -> Finding {
    let summary = format!("its shim could not be used, and it was ended with its shim: {reason}");
    let evidence = vec![lines::fact("shim", format!("{}: {reason}", pid(lost)))];
    Finding::new(Rank::Decision, CauseCode::ShimLost, Confidence::Certain, summary).evidence(evidence).remedy(
        "A daemon takes over processes of its own version and the one before: stop sessions before an upgrade over \
         several versions. Restart the session; output up to here is kept.",
    )
}
