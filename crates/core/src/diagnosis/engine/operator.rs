//! Somebody asked for its end: never a crash, however it then ended.

use super::{Finding, Rank};
use crate::diagnosis::case::Case;
use crate::diagnosis::cause::{CauseCode, Confidence};
use crate::diagnosis::lines;
use crate::runtime::{StopStep, StopWhy};

pub(super) fn examine(case: &Case<'_>) -> Option<Finding> {
    let stop = case.evidence.stop.as_ref()?;
    let (wish, remedy) = match stop.why {
        StopWhy::User => {
            ("stopped because somebody asked for it", "Nothing is wrong. `outlive restart` starts it again.")
        }
        StopWhy::Rest => {
            ("stopped because somebody asked for it", "Nothing is wrong. The next run starts it again.")
        }
        StopWhy::Restart => {
            ("ended for a restart that somebody asked for", "Nothing is wrong: a new one takes its place.")
        }
        StopWhy::Finished => ("ended because its work was done", "Nothing is wrong."),
        StopWhy::Eviction => (
            "ended because its session was idle",
            "Nothing is wrong: opening the session starts it again. To keep it, change the eviction policy.",
        ),
        StopWhy::Drain => (
            "ended because its node hands its work over",
            "Nothing is wrong: the session goes on elsewhere, or here after the restart of the daemon.",
        ),
        StopWhy::Disowned => (
            "ended because no daemon owned it any more",
            "Its session belongs to another owner or is gone. `outlive ps` shows where it is now.",
        ),
        StopWhy::Hung
        | StopWhy::NeverReady
        | StopWhy::Timeout
        | StopWhy::Sibling
        | StopWhy::Stalled
        | StopWhy::Violation
        | StopWhy::IgnoredCancel => return None,
    };
    let how = match stop.step {
        StopStep::Ask => "",
        StopStep::Term => "; it was sent SIGTERM",
        StopStep::Kill => "; it did not end when asked, and was killed",
    };
    let mut evidence = vec![lines::fact(
        "stop",
        format!("asked by {:?}, last step {:?}", stop.why, stop.step).to_lowercase(),
    )];
    if let Some(status) = case.status {
        evidence.push(lines::fact("wait status", status.to_string()));
    }
    let finding = Finding::new(
        Rank::Decision,
        CauseCode::KilledByOperator,
        Confidence::Certain,
        format!("{wish}{how}"),
    );
    Some(finding.evidence(evidence).remedy(remedy))
}
