//! The evidence of one end, prepared once for all engines.

use super::evidence::Evidence;
use super::lines;
use crate::runtime::ExitStatus;

/// What engines look at.
pub(super) struct Case<'a> {
    pub(super) evidence: &'a Evidence,
    pub(super) status: Option<ExitStatus>,
    /// Standard error, cleaned. Empty when the program ended well: then nothing it wrote was fatal.
    pub(super) stderr: Vec<String>,
}

impl<'a> Case<'a> {
    pub(super) fn new(evidence: &'a Evidence, status: Option<ExitStatus>) -> Self {
        let fatal = !status.is_some_and(ExitStatus::is_success);
        let stderr = if fatal { lines::clean(&evidence.stderr_tail) } else { Vec::new() };
        Self { evidence, status, stderr }
    }
}

impl Case<'_> {
    /// The last lines of standard error that are not blank, in their order.
    pub(super) fn last_lines(&self, n: usize) -> impl Iterator<Item = &str> {
        let shown: Vec<&str> =
            self.stderr.iter().map(String::as_str).filter(|line| !line.trim().is_empty()).collect();
        let from = shown.len().saturating_sub(n);
        shown.into_iter().skip(from)
    }
}
