//! A crash in native code: what the crash handler, the C library or the language's runtime printed of it.

use super::{Finding, Rank};
use crate::diagnosis::case::{Case, Pattern, matches};
use crate::diagnosis::cause::{CauseCode, Confidence, EvidenceLine};
use crate::diagnosis::lines;
use crate::runtime::ExitStatus;
use crate::runtime::exit::signal_name;

/// SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS.
const CRASHES: [i32; 7] = [4, 5, 6, 7, 8, 11, 31];
/// Lines of a stack that are kept.
const STACK_LINES: usize = 9;

const PATTERNS: &[Pattern] = &[
    // CPython's faulthandler and Py_FatalError
    &["fatal python error: "],
    &["windows fatal exception"],
    // C++
    &["terminate called "],
    &["libc++abi: terminating"],
    // glibc
    &["*** stack smashing detected ***"],
    &["double free or corruption"],
    &["free(): invalid"],
    &["malloc(): "],
    &["malloc_consolidate(): "],
    &["corrupted size vs. prev_size"],
    &["munmap_chunk(): invalid pointer"],
    &["realloc(): invalid"],
    &["assertion `", "' failed."],
    // Julia, R, sanitizers
    &["signal (11): segmentation fault"],
    &["signal (6): aborted"],
    &["*** caught segfault ***"],
    &["error: addresssanitizer: "],
];

/// A child of its own crashed, and a shell or library said so.
const CHILD: &[Pattern] = &[&["segmentation fault"], &["aborted (core dumped)"], &["illegal instruction"]];

const KERNEL_LOG: &[Pattern] =
    &[&["segfault at "], &["traps: "], &["general protection"], &["trap invalid opcode"]];

pub(super) fn examine(case: &Case<'_>) -> Option<Finding> {
    let crash = case.fatal_signal().filter(|signal| CRASHES.contains(signal));
    let direct = crash.is_some() || case.status == Some(ExitStatus::Unknown);
    let name = crash.map(|number| format!(" ({})", signal_name(number))).unwrap_or_default();

    let stack = stack(case);
    let log: Vec<&str> = case
        .evidence
        .kernel_log
        .iter()
        .map(String::as_str)
        .filter(|line| matches(line, KERNEL_LOG))
        .collect();
    if direct && let Some(first) = stack.first() {
        let summary = format!("crashed in native code{name}: {}{}", first.trim(), called_from(&stack));
        let confidence = if crash.is_some() { Confidence::Certain } else { Confidence::Likely };
        let evidence = lines::evidence("stderr", stack.iter().copied());
        let finding = Finding::new(Rank::Event, CauseCode::NativeCrash, confidence, summary);
        return Some(finding.evidence(evidence).evidence(facts(case, &log)).remedy(REMEDY));
    }
    if crash.is_some()
        && let Some(first) = log.first()
    {
        let summary = format!("crashed in native code{name}{}", library(first));
        let finding = Finding::new(Rank::Event, CauseCode::NativeCrash, Confidence::Certain, summary);
        return Some(finding.evidence(facts(case, &log)).remedy(REMEDY));
    }
    if crash.is_some() && case.evidence.signal_sender.is_none() && case.evidence.stop.is_none() {
        let summary = format!("may have crashed in native code{name}; nothing was printed that says where");
        let finding = Finding::new(Rank::Suspicion, CauseCode::NativeCrash, Confidence::Possible, summary);
        return Some(finding.evidence(facts(case, &log)).remedy(FIND_OUT));
    }
    said_of_a_child(case)
}

const REMEDY: &str = "A library in native code is at fault, not Python itself: look at the topmost frame, update or \
                      reinstall that package, and check that packages built against each other (numpy, CUDA) match.";
const FIND_OUT: &str = "Set PYTHONFAULTHANDLER=1 to have the Python stack printed at the next crash; `ulimit -c \
                        unlimited` keeps a core for gdb.";

/// Something of it, or a child, crashed; the program itself ended in another way.
fn said_of_a_child(case: &Case<'_>) -> Option<Finding> {
    if case.evidence.stop.is_some() {
        return None;
    }
    let hit = case.find(CHILD).or_else(|| case.find(PATTERNS))?;
    let last = hit.lines.last().copied().unwrap_or_default().trim().to_owned();
    let summary = format!("a process that it started may have crashed: {last}");
    let finding = Finding::new(Rank::Suspicion, CauseCode::NativeCrash, Confidence::Possible, summary);
    Some(finding.evidence(lines::evidence(hit.source, hit.lines)).remedy(FIND_OUT))
}

/// The message of the crash and the lines after it: the stack of the thread that crashed, where it says which.
fn stack<'a>(case: &'a Case<'_>) -> Vec<&'a str> {
    let text = &case.stderr;
    let Some(last) = text.iter().rposition(|line| matches(line, PATTERNS)) else { return Vec::new() };
    // `terminate called` is followed by what Python's handler says of the abort: begin with the first of them.
    let from =
        (last.saturating_sub(STACK_LINES)..last).find(|&i| matches(&text[i], PATTERNS)).unwrap_or(last);
    let shown = || text[from..].iter().map(String::as_str).filter(|line| !line.trim().is_empty());
    // faulthandler prints all threads, and the one that crashed last.
    let of_thread = |line: &&str| !line.starts_with("Thread 0x");
    let crashed = shown().skip_while(|line| !line.starts_with("Current thread 0x"));
    let message = shown().take_while(|line| of_thread(line) && !line.starts_with("Current thread 0x"));
    if crashed.clone().next().is_some() {
        return message.chain(crashed.take_while(of_thread)).take(STACK_LINES).collect();
    }
    shown().take(STACK_LINES).collect()
}

/// The innermost Python frame that faulthandler prints: `  File "x.py", line 3 in boom`.
fn called_from(stack: &[&str]) -> String {
    let frame = stack.iter().find_map(|line| {
        let (path, rest) = line.trim_start().strip_prefix("File \"")?.split_once("\", line ")?;
        let (line, function) = rest.split_once(" in ")?;
        let file = path.rsplit('/').next().unwrap_or(path);
        Some(format!(", in {function} ({file} line {line})"))
    });
    frame.unwrap_or_default()
}

/// The mapped file that the kernel names: `… error 4 in libfoo.so[7f…+1000]`.
fn library(log: &str) -> String {
    let named = log.rsplit_once(" in ").and_then(|(_, rest)| rest.split('[').next());
    named.map(|file| format!(" in {file}, says the kernel's log")).unwrap_or_default()
}

fn facts(case: &Case<'_>, log: &[&str]) -> Vec<EvidenceLine> {
    let mut facts = lines::evidence("kernel log", log.iter().copied());
    facts.extend(case.status.map(|status| lines::fact("wait status", status.to_string())));
    facts
}
