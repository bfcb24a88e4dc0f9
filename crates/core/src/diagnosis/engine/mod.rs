//! The engines, one per file, and the order of what they find.
//!
//! An engine looks at the whole [`Case`] and gives at most one finding. It is silent when its facts are missing: a
//! cause that is named without evidence is worse than `unknown`.

mod address_in_use;
mod bug;
mod disk_full;
mod exit_code;
mod hung;
mod interpreter;
mod launch;
mod machine_restarted;
mod matched;
mod memory;
mod missing_kernel;
mod missing_module;
mod native_crash;
mod never_ready;
mod node_lost;
mod operator;
mod python_exception;
mod runner;
mod shim_lost;
mod signal;
mod timeout;
mod unknown;

use std::cmp::Reverse;

use super::case::{Case, Weight};
use super::cause::{Cause, CauseCode, Confidence, EvidenceLine};
use super::matchers::Matchers;
use crate::limits::EVIDENCE_LINES_MAX;

/// Where a finding stands: the root before its consequence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Rank {
    /// Somebody decided it, or what held the process is gone: nothing else is worth a look first.
    Decision,
    /// What it had said while it lived, before Outlive ended it for not going on: why it did not.
    Told,
    /// Outlive ended it: it hung, stalled, took too long, broke its protocol.
    Verdict,
    /// Something that the program needs was missing: memory, disk, a module, a port.
    Root,
    /// What follows when something else breaks first: a member of a group is gone, nobody answers.
    Consequence,
    /// What happened to the program: an exception, a crash, no answer.
    Event,
    /// How the system saw its end: an exit code, a signal, a failed system call.
    End,
    /// A root that is only possible.
    Suspicion,
    /// Nothing else was found.
    Fallback,
}

/// A cause with its place.
struct Finding {
    rank: Rank,
    cause: Cause,
}

impl Finding {
    fn new(rank: Rank, code: CauseCode, confidence: Confidence, summary: String) -> Self {
        let cause =
            Cause { code, name: None, confidence, summary, evidence: Vec::new(), remedy: String::new() };
        Self { rank, cause }
    }

    /// A root found in text: likely in the last words, else a suspicion.
    fn of_text(weight: Weight, code: CauseCode, summary: String) -> Self {
        match weight {
            Weight::Strong => Self::new(Rank::Root, code, Confidence::Likely, summary),
            Weight::Weak => Self::new(Rank::Suspicion, code, Confidence::Possible, summary),
        }
    }

    fn evidence(mut self, lines: impl IntoIterator<Item = EvidenceLine>) -> Self {
        self.cause.evidence.extend(lines);
        self
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.cause.remedy = remedy.into();
        self
    }
}

type Engine = fn(&Case<'_>) -> Option<Finding>;

/// Within one rank and confidence the matchers go first, in their order, and then the order here decides.
const ENGINES: [Engine; 24] = [
    bug::examine,
    machine_restarted::examine,
    node_lost::examine,
    shim_lost::examine,
    runner::sibling,
    runner::violation,
    runner::channel_closed,
    runner::stalled,
    runner::ignored_cancel,
    hung::examine,
    timeout::examine,
    operator::examine,
    memory::examine,
    disk_full::examine,
    missing_module::examine,
    missing_kernel::examine,
    interpreter::examine,
    address_in_use::examine,
    native_crash::examine,
    python_exception::examine,
    never_ready::examine,
    launch::examine,
    signal::examine,
    exit_code::examine,
];

/// Asks the matchers and every engine, and sorts what they found.
pub(super) fn examine_all(case: &Case<'_>, matchers: &Matchers) -> Vec<Cause> {
    let mut findings = matched::examine(case, matchers);
    findings.extend(ENGINES.iter().filter_map(|engine| engine(case)));
    if findings.iter().all(|finding| finding.rank >= Rank::Suspicion) {
        findings.push(unknown::examine(case));
    }
    findings.sort_by_key(|finding| (finding.rank, Reverse(finding.cause.confidence)));
    let mut causes: Vec<Cause> = Vec::new();
    for Finding { mut cause, .. } in findings {
        if !causes.iter().any(|known| known.label() == cause.label()) {
            cause.evidence.truncate(EVIDENCE_LINES_MAX);
            causes.push(cause);
        }
    }
    causes
}
