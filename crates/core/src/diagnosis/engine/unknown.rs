//! Nothing explains it: the tail is kept and shown.

use super::{Finding, Rank};
use crate::diagnosis::case::Case;
use crate::diagnosis::cause::{CauseCode, Confidence};
use crate::diagnosis::lines;
use crate::runtime::ExitStatus;

pub(super) fn examine(case: &Case<'_>) -> Finding {
    let evidence = lines::evidence("stderr", case.last_lines(usize::MAX));
    let summary = match case.status {
        None => "was not started, and nothing that was gathered says why".to_owned(),
        Some(ExitStatus::Unknown) => "ended, and nobody could wait for its exit status".to_owned(),
        Some(status) => format!("ended ({status}), and nothing that was gathered says why"),
    };
    let remedy = if evidence.is_empty() {
        "It wrote nothing to standard error. Try `outlive doctor`, and its command by hand in the same environment."
    } else {
        "Nobody has taught Outlive these lines: read them, and report them if they name a cause."
    };
    Finding::new(Rank::Fallback, CauseCode::Unknown, Confidence::Possible, summary)
        .evidence(evidence)
        .remedy(remedy)
}
