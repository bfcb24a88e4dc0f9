//! It was started and did not become ready in time, or answered in a way that cannot be used.

use super::{Finding, Rank};
use crate::diagnosis::case::Case;
use crate::diagnosis::cause::{CauseCode, Confidence};
use crate::diagnosis::evidence::LaunchStep;
use crate::diagnosis::lines;
use crate::runtime::{ExitStatus, StopWhy};

pub(super) fn examine(case: &Case<'_>) -> Option<Finding> {
    let launch = case.evidence.launch.as_ref();
    let ended_itself = matches!(case.status, Some(ExitStatus::Code { .. } | ExitStatus::Signal { .. }));
    let waited_in_vain = launch
        .is_some_and(|launch| matches!(launch.step, LaunchStep::Connect | LaunchStep::Ready))
        && case.evidence.stop.is_none()
        && !ended_itself;
    if case.stopped() != Some(StopWhy::NeverReady) && !waited_in_vain {
        return None;
    }
    let waited = launch.and_then(|launch| launch.waited_ms);
    let within = waited.map(|ms| format!(" within {}", lines::duration(ms))).unwrap_or_default();
    let unreachable = launch.is_some_and(|launch| launch.step == LaunchStep::Connect);
    let step = if unreachable { "its sockets could not be reached" } else { "it did not become ready" };
    let mut evidence = Vec::new();
    if let Some(launch) = launch {
        evidence.push(lines::fact("launch", launch.message.clone()));
    }
    if let Some(cpu) = case.evidence.cpu_ms {
        evidence
            .push(lines::fact("getrusage", format!("{} of processor time until then", lines::duration(cpu))));
    }
    evidence.extend(lines::evidence("stderr", case.last_lines(6)));
    let finding =
        Finding::new(Rank::Event, CauseCode::NeverReady, Confidence::Certain, format!("{step}{within}"));
    Some(finding.evidence(evidence).remedy(
        "If it is slow to start (large imports, a network disk), raise the ready timeout. If it waits for \
         something, its last lines say for what. Run its command by hand to see it start.",
    ))
}
