//! A defect of Outlive itself ended the work.

use super::{Finding, Rank};
use crate::diagnosis::case::Case;
use crate::diagnosis::cause::{CauseCode, Confidence};
use crate::diagnosis::lines;

pub(super) fn examine(case: &Case<'_>) -> Option<Finding> {
    let message = case.evidence.bug.as_deref()?;
    let text = lines::clean(message);
    let first = text.first().map_or("no message", String::as_str);
    let finding = Finding::new(
        Rank::Decision,
        CauseCode::Bug,
        Confidence::Certain,
        format!("Outlive itself failed: {first}"),
    );
    Some(finding.evidence(lines::evidence("outlive", text.iter().map(String::as_str))).remedy(
        "This is our mistake, not yours. Start the work again, and report this page with `outlive doctor`.",
    ))
}
