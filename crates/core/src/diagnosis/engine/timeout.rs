//! Its run took longer than its limit, did not react to the interrupt, and was ended.

use super::{Finding, Rank};
use crate::diagnosis::case::Case;
use crate::diagnosis::cause::{CauseCode, Confidence};
use crate::diagnosis::lines;
use crate::runtime::StopWhy;

pub(super) fn examine(case: &Case<'_>) -> Option<Finding> {
    if case.stopped() != Some(StopWhy::Timeout) {
        return None;
    }
    let limit =
        case.evidence.time_limit_ms.map(|ms| format!(" of {}", lines::duration(ms))).unwrap_or_default();
    let summary = format!("took longer than the run's limit{limit} and did not react to the interrupt");
    let mut evidence = Vec::new();
    if let Some(cpu) = case.evidence.cpu_ms {
        evidence.push(lines::fact("getrusage", format!("{} of processor time in all", lines::duration(cpu))));
    }
    evidence.extend(lines::evidence("stderr", case.last_lines(3)));
    Some(
        Finding::new(Rank::Verdict, CauseCode::Timeout, Confidence::Certain, summary)
            .evidence(evidence)
            .remedy(
                "If it needs the time, raise the limit. If not: what does not look for interrupts (in Python native \
         loops and blocking calls) cannot be ended gently, so give such calls their own timeouts.",
            ),
    )
}
