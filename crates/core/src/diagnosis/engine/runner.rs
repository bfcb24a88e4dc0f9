//! What only a runner can do wrong: break its protocol, close its channel, make no progress, go on with what was
//! cancelled, or lose the group that it belongs to. The supervisor has seen each of them itself.

use super::{Finding, Rank};
use crate::diagnosis::case::Case;
use crate::diagnosis::cause::{CauseCode, Confidence};
use crate::diagnosis::lines;
use crate::runtime::StopWhy;

/// How many lines of standard error stand below a verdict.
const LAST_LINES: usize = 4;

/// Another member of its group died, and it was stopped.
pub(super) fn sibling(case: &Case<'_>) -> Option<Finding> {
    if case.stopped() != Some(StopWhy::Sibling) {
        return None;
    }
    let Some(sibling) = &case.evidence.sibling else {
        let summary = "stopped because another member of its group died".to_owned();
        let finding = Finding::new(Rank::Decision, CauseCode::GroupSibling, Confidence::Certain, summary);
        return Some(finding.evidence(lines::evidence("stop", ["asked by its group"])).remedy(SIBLING));
    };
    let summary = format!("stopped because {} of its group died of {}", sibling.name, sibling.cause);
    let finding = Finding::new(Rank::Decision, CauseCode::GroupSibling, Confidence::Certain, summary);
    let mut evidence = vec![lines::fact(sibling.name.clone(), sibling.summary.clone())];
    evidence.extend(sibling.report.map(|report| lines::fact("its report", report.to_string())));
    Some(finding.evidence(evidence).remedy(SIBLING))
}

const SIBLING: &str = "Nothing is wrong with this member: look at the one that died first. Members that do not need \
                       each other belong in a group with `one_for_one`.";

/// What it sent is not the protocol.
pub(super) fn violation(case: &Case<'_>) -> Option<Finding> {
    let said = case.evidence.violation.as_deref()?;
    let rank = rank_of(case, StopWhy::Violation)?;
    let said = lines::clean(said);
    let first = said.first().map_or("no details", String::as_str);
    let summary = format!("broke the runner protocol: {first}");
    let finding = Finding::new(rank, CauseCode::ProtocolViolation, Confidence::Certain, summary);
    let evidence = lines::evidence("channel", said.iter().map(String::as_str));
    Some(finding.evidence(evidence).evidence(lines::evidence("stderr", case.last_lines(LAST_LINES))).remedy(
        "Only frames belong on descriptor 4: print to standard output instead, keep children from inheriting it, \
         and compare what is sent with `docs/design/runner-protocol.md`.",
    ))
}

/// Nobody can hear it any more.
pub(super) fn channel_closed(case: &Case<'_>) -> Option<Finding> {
    let lived_on_ms = case.evidence.channel_closed_ms?;
    let rank = rank_of(case, StopWhy::Violation)?;
    let summary = format!(
        "closed its channel without saying `end`, and lived on for {}: nobody could give it work or hear it",
        lines::duration(lived_on_ms)
    );
    let finding = Finding::new(rank, CauseCode::ChannelClosed, Confidence::Certain, summary);
    let closed = lines::fact("channel", format!("closed {} before", lines::duration(lived_on_ms)));
    let evidence = std::iter::once(closed).chain(lines::evidence("stderr", case.last_lines(LAST_LINES)));
    Some(finding.evidence(evidence).remedy(
        "Look for code that closes descriptors it does not know (a daemonizing library, `os.closerange`), or for a \
         thread that serves the channel and has died. A runner that means to end says `end` and exits.",
    ))
}

/// A watchdog has run out.
pub(super) fn stalled(case: &Case<'_>) -> Option<Finding> {
    if case.stopped() != Some(StopWhy::Stalled) {
        return None;
    }
    let (at, figures) = case.evidence.stall.as_ref().map_or_else(
        || (" in time".to_owned(), None),
        |stall| {
            let (silent, limit) = (lines::duration(stall.silent_ms), lines::duration(stall.limit_ms));
            let at = format!(" for {silent} ({}; the limit is {limit})", stall.phase);
            (at, Some(lines::fact("watchdog", format!("{}: nothing for {silent}", stall.phase))))
        },
    );
    let summary = format!("made no progress{at}, and was ended for it");
    let finding = Finding::new(Rank::Verdict, CauseCode::Stalled, Confidence::Certain, summary);
    let mut evidence: Vec<_> = figures.into_iter().collect();
    if let Some(cpu) = case.evidence.cpu_ms {
        evidence.push(lines::fact("getrusage", format!("{} of processor time in all", lines::duration(cpu))));
    }
    evidence.extend(lines::evidence("stderr", case.last_lines(LAST_LINES)));
    if evidence.is_empty() {
        evidence.push(lines::fact("stop", "asked by its watchdog"));
    }
    Some(finding.evidence(evidence).remedy(
        "If it was at work, let it tell its progress (`loading`, `progress` or a chunk each count), or raise this \
         watchdog's limit. If not, its last lines say what it waited for: a download, a lock, another rank.",
    ))
}

/// A task went on after it had been cancelled.
pub(super) fn ignored_cancel(case: &Case<'_>) -> Option<Finding> {
    if case.stopped() != Some(StopWhy::IgnoredCancel) {
        return None;
    }
    let summary = "went on with a task that had been cancelled, and was ended for it".to_owned();
    let finding = Finding::new(Rank::Verdict, CauseCode::IgnoredCancel, Confidence::Certain, summary);
    let asked = lines::fact("stop", "the cancelled task did not end in time");
    let evidence = std::iter::once(asked).chain(lines::evidence("stderr", case.last_lines(LAST_LINES)));
    Some(finding.evidence(evidence).remedy(
        "Let the handler look whether it is cancelled between its steps (an async or generator handler does so by \
         itself), and give blocking calls their own timeouts.",
    ))
}

/// Where something stands that the supervisor saw: it is why it ended the process for `why`; after the process's own
/// end it is an event among others; beside somebody's wish for the end it is nothing.
fn rank_of(case: &Case<'_>, why: StopWhy) -> Option<Rank> {
    match case.stopped() {
        Some(stopped) if stopped == why => Some(Rank::Verdict),
        Some(_) => None,
        None if case.status.is_none() => Some(Rank::Verdict),
        None => Some(Rank::Event),
    }
}
