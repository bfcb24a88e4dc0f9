//! From facts to causes: evidence in, ranked causes out, one engine per file.
//!
//! ```text
//! Evidence + ExitStatus ──► Case (cleaned lines, traceback, kind of end) ──► matchers, every engine ──► Findings
//!                                                                                                 │ sort by rank
//! FailureReport ◄── build / amend ◄── Vec<Cause>, the first is the cause ◄────────────────────┘
//!      └──► explain: the text that a person reads
//! ```
//!
//! Nothing here is a second death: late evidence [amends](FailureReport::amend) a report and ranks its causes anew.

pub mod cause;
pub mod evidence;
pub mod explain;
pub mod matchers;
pub mod report;

mod case;
mod engine;
mod errno;
mod lines;
mod template;
mod traceback;

pub use cause::{Cause, CauseCode, Confidence, EvidenceLine};
pub use evidence::Evidence;
pub use explain::{ExplainOptions, explain, explain_lines};
pub use matchers::{MatcherError, Matchers};
pub use report::{Failure, FailureReport, NextStep};

use crate::runtime::ExitStatus;
use case::Case;

/// Draws causes from evidence: never empty, the root before its consequence, one cause for each code.
///
/// `status` is `None` when no process was ever spawned. The matchers are those of this process
/// ([`Matchers::current`]).
#[must_use]
pub fn diagnose(evidence: &Evidence, status: Option<ExitStatus>) -> Vec<Cause> {
    diagnose_with(evidence, status, Matchers::current())
}

/// The same with matchers of one's own.
#[must_use]
pub fn diagnose_with(evidence: &Evidence, status: Option<ExitStatus>, matchers: &Matchers) -> Vec<Cause> {
    engine::examine_all(&Case::new(evidence, status), matchers)
}
