//! From facts to causes: evidence in, ranked causes out, one engine per file.

pub mod cause;
pub mod evidence;
pub mod report;

pub use cause::{Cause, CauseCode, Confidence};
pub use evidence::Evidence;
pub use report::{FailureReport, NextStep};
