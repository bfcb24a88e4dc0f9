//! An address that the launch needs is taken. (What programs say of theirs is a matcher.)

use super::{Finding, Rank};
use crate::diagnosis::case::Case;
use crate::diagnosis::cause::{CauseCode, Confidence};
use crate::diagnosis::lines;

/// EADDRINUSE on Linux, macOS.
const ERRNOS: [i32; 2] = [98, 48];

pub(super) fn examine(case: &Case<'_>) -> Option<Finding> {
    let launch = case.evidence.launch.as_ref().filter(|l| l.errno.is_some_and(|n| ERRNOS.contains(&n)))?;
    let what = launch.path.as_deref().unwrap_or("an address");
    let summary = format!("{what} is already in use: {}", launch.message);
    let finding = Finding::new(Rank::Root, CauseCode::AddressInUse, Confidence::Certain, summary);
    Some(finding.evidence([lines::fact("launch", launch.message.clone())]).remedy(
        "`ss -ltnp` shows who holds it: end that program, or give this one another port (0 lets the system choose).",
    ))
}
