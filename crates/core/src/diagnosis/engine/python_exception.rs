//! An uncaught Python exception ended it.

use super::{Finding, Rank, memory, missing_module};
use crate::diagnosis::case::Case;
use crate::diagnosis::cause::{CauseCode, Confidence, EvidenceLine};
use crate::diagnosis::evidence::LastWords;
use crate::diagnosis::lines;
use crate::diagnosis::traceback::{Link, Place, Traceback};
use crate::limits::{EVIDENCE_LINES_MAX, LAST_WORDS_CAUSES_MAX};
use crate::runtime::ExitStatus;

const SIGINT: i32 = 2;
const SIGABRT: i32 = 6;

pub(super) fn examine(case: &Case<'_>) -> Option<Finding> {
    let traceback = case.exception.as_ref().filter(|traceback| traceback.place != Place::Ignored)?;
    let uncaught = traceback.uncaught();
    if has_name(uncaught) || is_interrupt(case, uncaught) {
        return None;
    }
    let (rank, confidence) = weigh(case, traceback);
    let summary = match rank {
        Rank::Suspicion => format!("it had raised {} before", uncaught.headline()),
        _ => format!("uncaught {}{}", uncaught.headline(), when(case)),
    };
    let finding = Finding::new(rank, CauseCode::PythonException, confidence, summary);
    Some(finding.evidence(evidence(case, traceback)).remedy(remedy(uncaught)))
}

/// What a runner was at, as it says.
fn when(case: &Case<'_>) -> String {
    let words = case.evidence.last_words.as_ref().filter(|_| case.evidence.exception.is_none());
    match words {
        Some(LastWords { task: Some(task), .. }) => format!(" in task {task}"),
        Some(LastWords { phase, .. }) if !phase.is_empty() => format!(" while {}", phase.replace('_', " ")),
        Some(_) | None => String::new(),
    }
}

/// The innermost frames and the exception, then what it came from.
fn evidence(case: &Case<'_>, traceback: &Traceback) -> Vec<EvidenceLine> {
    let source = case.exception_source;
    let chain = traceback.towards_root().skip(1).map(|(link, sure)| {
        let how = if sure { "caused by" } else { "raised while handling" };
        lines::fact(source, format!("{how} {}", link.headline()))
    });
    let chain: Vec<EvidenceLine> = chain.take(LAST_WORDS_CAUSES_MAX).collect();
    let mut evidence = lines::evidence(source, traceback.uncaught().lines());
    // The root of a chain is worth more than an outer frame.
    let room = EVIDENCE_LINES_MAX.saturating_sub(chain.len());
    evidence.drain(..evidence.len().saturating_sub(room));
    evidence.extend(chain);
    evidence
}

fn weigh(case: &Case<'_>, traceback: &Traceback) -> (Rank, Confidence) {
    if case.evidence.last_words.is_some() && case.ended_by_verdict() {
        return (Rank::Told, Confidence::Certain); // it said that it ends of this, and then did not go on
    }
    if case.evidence.exception.is_some() || case.evidence.last_words.is_some() {
        return (Rank::Event, Confidence::Certain);
    }
    if !traceback.is_final() || case.evidence.stop.is_some() {
        return (Rank::Suspicion, Confidence::Possible);
    }
    match case.status {
        Some(ExitStatus::Code { code: 1 }) if traceback.place == Place::Main => {
            (Rank::Event, Confidence::Certain)
        }
        Some(ExitStatus::Code { .. }) | None => (Rank::Event, Confidence::Likely),
        Some(ExitStatus::Signal { number: SIGABRT, .. } | ExitStatus::Unknown) => {
            (Rank::Event, Confidence::Likely)
        }
        Some(ExitStatus::Signal { .. }) => (Rank::Suspicion, Confidence::Possible),
    }
}

/// Whether another engine has a better name for it.
fn has_name(link: &Link) -> bool {
    memory::is_memory_error(link) || missing_module::is_import_error(link)
}

/// Ctrl-C is a signal, and the signal says so.
fn is_interrupt(case: &Case<'_>, link: &Link) -> bool {
    link.short_type() == "KeyboardInterrupt" && case.fatal_signal() == Some(SIGINT)
}

fn remedy(link: &Link) -> String {
    let place = own_frame(link).map(|frame| format!(" at {frame}")).unwrap_or_default();
    match link.short_type() {
        "SyntaxError" | "IndentationError" | "TabError" => {
            format!("Correct the code{place}: Python could not read it.")
        }
        "RecursionError" => format!("A function calls itself without end{place}: give the recursion an end."),
        "FileNotFoundError" => format!("Check the path, and the working directory it is relative to{place}."),
        "PermissionError" => format!("Check owner and mode of the file, and as whom this runs{place}."),
        "ConnectionRefusedError" | "ConnectionResetError" | "TimeoutError" => {
            format!("Check that the other side runs and can be reached, then run it again{place}.")
        }
        _ => format!("Correct or catch it{place}. The whole traceback is in `outlive logs`."),
    }
}

/// `FILE line N` of the innermost frame that is the user's own code: in no library.
fn own_frame(link: &Link) -> Option<String> {
    const LIBRARIES: [&str; 5] = ["site-packages", "dist-packages", "/lib/python", "<frozen", "\"<string>\""];
    let own = |line: &&String| {
        line.trim_start().starts_with("File \"") && !LIBRARIES.iter().any(|l| line.contains(l))
    };
    let line = link.frames.iter().rev().find(own)?;
    let (path, rest) = line.trim_start().strip_prefix("File \"")?.split_once("\", line ")?;
    let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some(format!("{path} line {number}"))
}
