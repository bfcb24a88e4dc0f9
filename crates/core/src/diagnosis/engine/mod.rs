//! The engines, one per file, and the order of what they find.

mod exit_code;
mod signal;
mod unknown;

use super::case::Case;
use super::cause::{Cause, CauseCode};

/// Where a finding stands: the root before its consequence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Rank {
    /// Somebody decided it, or what held the process is gone: nothing behind it is worth a look first.
    Decision,
    /// Something that the program needs was missing: memory, disk, a module, a port.
    Root,
    /// What happened to the program: an exception, a crash, no answer.
    Event,
    /// How the system saw its end: an exit code, a signal.
    End,
    /// A root that is only possible.
    Suspicion,
    /// Nothing else.
    Fallback,
}

/// A cause with its place.
pub(super) struct Finding {
    pub(super) rank: Rank,
    pub(super) cause: Cause,
}

type Engine = fn(&Case<'_>) -> Option<Finding>;

/// Within one rank and confidence the order here decides.
const ENGINES: [Engine; 2] = [signal::examine, exit_code::examine];

/// Asks every engine and sorts what they found.
pub(super) fn examine_all(case: &Case<'_>) -> Vec<Cause> {
    let mut findings: Vec<Finding> = ENGINES.iter().filter_map(|engine| engine(case)).collect();
    if findings.is_empty() {
        findings.push(unknown::examine(case));
    }
    findings.sort_by_key(|finding| (finding.rank, std::cmp::Reverse(finding.cause.confidence)));
    let mut seen: Vec<CauseCode> = Vec::new();
    findings
        .into_iter()
        .map(|finding| finding.cause)
        .filter(|cause| {
            let new = !seen.contains(&cause.code);
            seen.push(cause.code);
            new
        })
        .collect()
}
