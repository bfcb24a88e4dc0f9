//! Nothing explains it: the tail is kept and shown.

use super::{Finding, Rank};
use crate::diagnosis::case::Case;
use crate::diagnosis::cause::{Cause, CauseCode, Confidence};
use crate::diagnosis::lines;

pub(super) fn examine(case: &Case<'_>) -> Finding {
    let evidence = lines::evidence("stderr", case.last_lines(usize::MAX));
    let summary = match case.status {
        None => "it was not started, and nothing says why".to_owned(),
        Some(status) => format!("it ended ({status}), and nothing that was gathered says why"),
    };
    let remedy = if evidence.is_empty() {
        "It wrote nothing to standard error. Run `outlive doctor`, and the program by hand in the same environment."
    } else {
        "Nobody knows these lines yet: read them, and tell us if they name a cause that Outlive should recognise."
    };
    Finding {
        rank: Rank::Fallback,
        cause: Cause {
            code: CauseCode::Unknown,
            confidence: Confidence::Possible,
            summary,
            evidence,
            remedy: remedy.to_owned(),
        },
    }
}
