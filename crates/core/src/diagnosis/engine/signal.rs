//! A signal ended it.

use super::{Finding, Rank};
use crate::diagnosis::case::Case;
use crate::diagnosis::cause::{CauseCode, Confidence, EvidenceLine};
use crate::diagnosis::lines;
use crate::runtime::ExitStatus;
use crate::runtime::exit::signal_name;

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

pub(super) fn examine(case: &Case<'_>) -> Option<Finding> {
    let Some(ExitStatus::Signal { number, core_dumped }) = case.status else { return None };
    let stopping = case.evidence.stop.is_some();
    if stopping && [SIGHUP, SIGINT, SIGKILL, SIGTERM].contains(&number) {
        return None; // our own
    }
    let name = signal_name(number);
    let sender = match case.evidence.signal_sender {
        None => "",
        Some(0) => ", sent by the kernel",
        Some(pid) => &format!(", sent by process {pid}"),
    };
    let when = if stopping { " while it was stopping" } else { "" };
    let meaning = meaning(number).map(|text| format!(" ({text})")).unwrap_or_default();
    let dumped = if core_dumped { ", core dumped" } else { "" };
    let mut evidence = vec![lines::fact("wait status", format!("signal {number}, {name}{dumped}"))];
    if number == SIGKILL {
        evidence.push(looked_for_oom(case));
    }
    evidence.extend(lines::evidence("stderr", case.last_lines(LAST_LINES)));
    let finding = Finding::new(
        Rank::End,
        CauseCode::Signal,
        Confidence::Certain,
        format!("ended by {name}{sender}{when}{meaning}"),
    );
    Some(finding.evidence(evidence).remedy(remedy(number)))
}

/// How many lines of standard error stand below a signal.
const LAST_LINES: usize = 5;

/// Where the OOM killer was looked for. Said with every SIGKILL, because that is what people suspect first.
fn looked_for_oom(case: &Case<'_>) -> EvidenceLine {
    let memory = &case.evidence.memory;
    let mut places = Vec::new();
    if let Some(cgroup) = &memory.cgroup {
        places.push(format!("cgroup {} (oom_kill {})", cgroup.path, cgroup.oom_kills));
    }
    places.push(format!("/proc/vmstat (oom_kill rose by {})", memory.host_oom_kills));
    let log = case.evidence.kernel_log.len();
    places.push(if log == 0 {
        "the kernel log where readable (no line)".to_owned()
    } else {
        format!("the kernel log ({log} lines)")
    });
    let found =
        memory.host_oom_kills > 0 || memory.cgroup.as_ref().is_some_and(|cgroup| cgroup.oom_kills > 0);
    let verdict = if found { "seen" } else { "not seen" };
    lines::fact("OOM killer", format!("{verdict}: looked in {}", places.join(", ")))
}

fn meaning(number: i32) -> Option<&'static str> {
    Some(match number {
        SIGHUP => "its terminal was closed",
        SIGINT => "as Ctrl-C sends",
        4 => "an instruction that this processor does not have",
        6 => "it aborted itself",
        7 => "access to memory that could not be provided",
        8 => "an arithmetic error such as a division by zero",
        11 => "access to memory that is not its own",
        13 => "it wrote to a pipe that nobody reads",
        14 => "an alarm that it had set and does not handle",
        SIGTERM => "a request to end",
        24 => "its limit of processor time was reached",
        25 => "its limit of file size was reached",
        31 => "a system call that a filter forbids",
        _ => return None,
    })
}

fn remedy(number: i32) -> &'static str {
    match number {
        SIGKILL => {
            "Somebody or something outside killed it: a person, a batch system, a container's runtime, or a memory guard \
             such as systemd-oomd or earlyoom (`journalctl -e`). It was not Outlive."
        }
        SIGTERM | SIGINT | SIGHUP => {
            "It was asked to end from outside Outlive: a person, a batch system at its time limit, a logout. Use \
             `outlive stop` to end it on the record."
        }
        4 => "The program or a library was built for another processor: install a build for this one.",
        13 => "The program that read its output ended first: look there.",
        24 | 25 => "Raise the limit (`ulimit -t`, `ulimit -f`) or the batch system's.",
        31 => "A seccomp filter (of a container, for instance) forbids a system call that it needs.",
        _ => "Set PYTHONFAULTHANDLER=1 to see where it stands when this happens again.",
    }
}
