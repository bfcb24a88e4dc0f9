//! It ran out of memory, or was killed for it.
//!
//! From the strongest fact to the weakest: the cgroup counted a kill; the kernel's log names the pid; the program said
//! so itself; the machine's count of kills moved; the use was close to a limit when SIGKILL came from nobody we know.

use super::{Finding, Rank};
use crate::diagnosis::case::{Case, Pattern, Weight, matches};
use crate::diagnosis::cause::{CauseCode, Confidence, EvidenceLine};
use crate::diagnosis::evidence::MemoryEvidence;
use crate::diagnosis::lines::bytes;
use crate::diagnosis::traceback::Link;
use crate::diagnosis::{errno, lines};
use crate::runtime::ExitStatus;

const SIGKILL: i32 = 9;
const ENOMEM: i32 = 12;
/// Signals of a program that did not get memory and did not check: abort, bus error, segmentation fault.
const CRASHES: [i32; 3] = [6, 7, 11];

/// What runtimes and libraries say when an allocation fails.
const PATTERNS: &[Pattern] = &[
    &["cannot allocate memory"],
    &["std::bad_alloc"],
    &["memory allocation of ", " bytes failed"],
    &["fatal error: runtime: out of memory"],
    &["fatal error: runtime: cannot allocate"],
    &["error: cannot allocate vector of size"],
    &["defaultcpuallocator", "allocate memory"],
    &["unable to allocate", "for an array"],
    &["out of memory: killed process"],
    &["outofmemoryerror()"],
    &["virtual memory exhausted"],
];

/// What the same words mean when a graphics processor is spoken of: another engine's.
const GPU: &[Pattern] = &[&["cuda"], &["hip "], &["mps backend"], &["gpu"], &["metal"]];

const KERNEL_LOG: &[Pattern] = &[&["out of memory"], &["oom-kill"], &["oom_reaper"]];

pub(super) fn is_memory_error(link: &Link) -> bool {
    let named = link.short_type().ends_with("MemoryError") && link.short_type() != "OutOfMemoryError";
    named || (link.short_type() == "OSError" && link.message.contains(&format!("[Errno {ENOMEM}]")))
}

pub(super) fn examine(case: &Case<'_>) -> Option<Finding> {
    let memory = &case.evidence.memory;
    let verdict = match case.stopped() {
        // What we end ourselves ends by our signal. A kill that the kernel had counted before may be why it hung.
        Some(_) if case.ended_by_verdict() => last_words(case).or_else(|| before_our_stop(memory)),
        Some(_) => None,
        None => counted(case)
            .or_else(|| logged(case))
            .or_else(|| said(case))
            .or_else(|| host_counted(case))
            .or_else(|| refused(case))
            .or_else(|| near_limit(case)),
    }?;
    let remedy = remedy(memory);
    let finding = Finding::new(verdict.rank, CauseCode::OutOfMemory, verdict.confidence, verdict.summary);
    Some(finding.evidence(verdict.first).evidence(facts(memory)).remedy(remedy))
}

struct Verdict {
    rank: Rank,
    confidence: Confidence,
    summary: String,
    /// Evidence of its own; the figures follow.
    first: Vec<EvidenceLine>,
}

impl Verdict {
    fn new(rank: Rank, confidence: Confidence, summary: String, first: Vec<EvidenceLine>) -> Option<Self> {
        Some(Self { rank, confidence, summary, first })
    }
}

fn wait_status(case: &Case<'_>) -> Vec<EvidenceLine> {
    case.status.map(|status| lines::fact("wait status", status.to_string())).into_iter().collect()
}

/// Killed, or ended in a way that nobody could see.
fn may_be_killed(case: &Case<'_>) -> bool {
    case.fatal_signal() == Some(SIGKILL) || case.status == Some(ExitStatus::Unknown)
}

fn before_our_stop(memory: &MemoryEvidence) -> Option<Verdict> {
    memory.cgroup.as_ref().filter(|cgroup| cgroup.oom_kills > 0)?;
    let summary = "the kernel had killed one of its processes for want of memory before".to_owned();
    Verdict::new(Rank::Suspicion, Confidence::Possible, summary, Vec::new())
}

fn counted(case: &Case<'_>) -> Option<Verdict> {
    let cgroup = case.evidence.memory.cgroup.as_ref().filter(|cgroup| cgroup.oom_kills > 0)?;
    if case.status.is_some_and(ExitStatus::is_success) {
        return None;
    }
    let figures = match (cgroup.peak_bytes, cgroup.limit_bytes) {
        (Some(peak), Some(limit)) => format!(" at {} of {}", bytes(peak), bytes(limit)),
        (None, Some(limit)) => format!(" at its limit of {}", bytes(limit)),
        (Some(peak), None) => format!(" at {}", bytes(peak)),
        (None, None) => String::new(),
    };
    if may_be_killed(case) {
        let summary = format!("killed by the OOM killer{figures}");
        return Verdict::new(Rank::Root, Confidence::Certain, summary, wait_status(case));
    }
    let summary = format!("one of its processes was killed by the OOM killer{figures}");
    Verdict::new(Rank::Root, Confidence::Likely, summary, wait_status(case))
}

fn logged(case: &Case<'_>) -> Option<Verdict> {
    let log: Vec<&str> = case
        .evidence
        .kernel_log
        .iter()
        .map(String::as_str)
        .filter(|line| matches(line, KERNEL_LOG))
        .collect();
    if log.is_empty() || !may_be_killed(case) {
        return None;
    }
    let peak =
        case.evidence.memory.rss_bytes_peak.map(|peak| format!(" at {}", bytes(peak))).unwrap_or_default();
    let summary = format!("killed by the OOM killer{peak}, says the kernel's log");
    let mut first = lines::evidence("kernel log", log);
    first.extend(wait_status(case));
    Verdict::new(Rank::Root, Confidence::Certain, summary, first)
}

/// A runner said that it ends for want of memory, and then did not end.
fn last_words(case: &Case<'_>) -> Option<Verdict> {
    case.evidence.last_words.as_ref()?;
    let (link, _) = case.link(is_memory_error)?;
    let first = lines::evidence(case.exception_source, link.lines());
    Verdict::new(Rank::Told, Confidence::Certain, format!("an allocation failed: {}", link.headline()), first)
}

/// The program said it: an exception, or an allocator's last message.
fn said(case: &Case<'_>) -> Option<Verdict> {
    let (weight, words, first) = if let Some((link, weight)) = case.link(is_memory_error) {
        (weight, link.headline(), lines::evidence(case.exception_source, link.lines()))
    } else {
        let hit = case.find(PATTERNS)?;
        let line = hit.lines.iter().rfind(|line| matches(line, PATTERNS) && !matches(line, GPU)).copied()?;
        (hit.weight, line.to_owned(), lines::evidence(hit.source, hit.lines.iter().copied()))
    };
    let words = words.trim();
    match (weight, case.evidence.memory.rlimit_as_bytes) {
        (Weight::Strong, Some(limit)) => {
            let summary =
                format!("an allocation failed at its limit of {} (RLIMIT_AS): {words}", bytes(limit));
            Verdict::new(Rank::Root, Confidence::Certain, summary, first)
        }
        (Weight::Strong, None) => {
            Verdict::new(Rank::Root, Confidence::Likely, format!("an allocation failed: {words}"), first)
        }
        (Weight::Weak, _) => Verdict::new(
            Rank::Suspicion,
            Confidence::Possible,
            format!("an allocation had failed before: {words}"),
            first,
        ),
    }
}

fn host_counted(case: &Case<'_>) -> Option<Verdict> {
    if case.evidence.memory.host_oom_kills == 0 || !may_be_killed(case) {
        return None;
    }
    let peak =
        case.evidence.memory.rss_bytes_peak.map(|peak| format!(" at {}", bytes(peak))).unwrap_or_default();
    let summary = format!("killed{peak} when the machine ran out of memory");
    // The count is the machine's: with memory to spare it was probably a limit of somebody else that was hit. And a
    // process that is known to have sent the signal is the better explanation.
    let (rank, confidence) = match case.evidence.signal_sender {
        None | Some(0) if !had_memory_to_spare(&case.evidence.memory) => (Rank::Root, Confidence::Likely),
        _ => (Rank::Suspicion, Confidence::Possible),
    };
    Verdict::new(rank, confidence, summary, wait_status(case))
}

/// More than a tenth of the machine's memory was free, and more than the process had taken.
fn had_memory_to_spare(memory: &MemoryEvidence) -> bool {
    let (Some(total), Some(available)) = (memory.host_bytes_total, memory.host_bytes_available) else {
        return false;
    };
    available > total / 10 && memory.rss_bytes_peak.is_some_and(|peak| available > peak)
}

/// The system refused memory to the launch.
fn refused(case: &Case<'_>) -> Option<Verdict> {
    let launch = case.evidence.launch.as_ref().filter(|launch| launch.errno == Some(ENOMEM))?;
    let summary = format!("the system had no memory to start it: {}", launch.message);
    let first = vec![lines::fact("launch", errno::of_system_call(ENOMEM))];
    Verdict::new(Rank::Root, Confidence::Certain, summary, first)
}

/// Nobody says so, but the use was close to a limit.
fn near_limit(case: &Case<'_>) -> Option<Verdict> {
    if !matches!(case.evidence.signal_sender, None | Some(0)) {
        return None;
    }
    let signal = case.fatal_signal()?;
    let memory = &case.evidence.memory;
    let killed = signal == SIGKILL;
    let (used, limit, of) = if killed {
        let cgroup =
            memory.cgroup.as_ref().and_then(|c| Some((c.peak_bytes?, c.limit_bytes?, "its memory limit")));
        let host = || Some((memory.rss_bytes_peak?, memory.host_bytes_total?, "the machine's memory"));
        cgroup.into_iter().chain(host()).find(|(used, limit, _)| is_near(*used, *limit))?
    } else if CRASHES.contains(&signal) {
        let address_space = memory.vm_bytes_peak.zip(memory.rlimit_as_bytes)?;
        Some((address_space.0, address_space.1, "its address space limit"))
            .filter(|(u, l, _)| is_near(*u, *l))?
    } else {
        return None;
    };
    let summary = format!("it had used {} of {} ({of})", bytes(used), bytes(limit));
    let rank = if killed { Rank::Root } else { Rank::Suspicion };
    Verdict::new(rank, Confidence::Possible, summary, wait_status(case))
}

/// At nine tenths of a limit.
const fn is_near(used: u64, limit: u64) -> bool {
    limit > 0 && used >= limit / 10 * 9
}

/// All figures that are known.
fn facts(memory: &MemoryEvidence) -> Vec<EvidenceLine> {
    let mut facts = Vec::new();
    if let Some(cgroup) = &memory.cgroup {
        let source =
            if cgroup.version == 2 { "cgroup memory.events" } else { "cgroup v1 memory.oom_control" };
        let counts = format!("oom_kill {}, limit hit {} times", cgroup.oom_kills, cgroup.limit_hits);
        facts.push(lines::fact(source, counts));
        let peak = cgroup.peak_bytes.map_or_else(|| "not known".to_owned(), bytes);
        let limit = cgroup.limit_bytes.map_or_else(|| "none".to_owned(), bytes);
        facts.push(lines::fact("cgroup", format!("peak {peak}, limit {limit} ({})", cgroup.path)));
    }
    if let Some(limit) = memory.rlimit_as_bytes {
        let peak = memory.vm_bytes_peak.map(|peak| format!(", largest address space {}", bytes(peak)));
        facts.push(lines::fact("RLIMIT_AS", format!("limit {}{}", bytes(limit), peak.unwrap_or_default())));
    }
    if let Some(peak) = memory.rss_bytes_peak {
        facts.push(lines::fact("getrusage", format!("largest resident set {}", bytes(peak))));
    }
    if memory.host_oom_kills > 0 {
        facts.push(lines::fact("/proc/vmstat", format!("oom_kill rose by {}", memory.host_oom_kills)));
    }
    if let Some(total) = memory.host_bytes_total {
        let free =
            memory.host_bytes_available.map(|free| format!(", {} available before the end", bytes(free)));
        facts.push(lines::fact(
            "/proc/meminfo",
            format!("machine {}{}", bytes(total), free.unwrap_or_default()),
        ));
    }
    facts
}

fn remedy(memory: &MemoryEvidence) -> String {
    let limit = memory.cgroup.as_ref().and_then(|cgroup| cgroup.limit_bytes).or(memory.rlimit_as_bytes);
    let raise = match limit {
        Some(limit) => format!("raise its limit of {}", bytes(limit)),
        None => "run it on a machine with more memory, or end what else uses it".to_owned(),
    };
    format!("Load less at a time (chunks, smaller types, `del` what is done with), or {raise}.")
}
