//! Processes as the system shows them below /proc.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, kill_process, pidfd_open};

use crate::clock::Deadline;

pub use rustix::process::Signal;

/// A process at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Process {
    /// Its pid.
    pub pid: i32,
    /// Its parent's pid.
    pub parent: i32,
    /// When it began, in clock ticks since boot: with the pid it names a process for good.
    pub start: u64,
    /// `R` running, `S` sleeping, `T` stopped, `Z` ended and not waited for, …
    pub state: char,
    /// Its command line, words joined by spaces.
    pub command: String,
    /// User and system time used, in clock ticks (1/100 s).
    pub cpu_ticks: u64,
}

/// The process with this pid, if there is one.
#[must_use]
pub fn find(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything; what follows is regular (proc_pid_stat(5)).
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(Process {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        start: number(19)?,
        state: fields.first()?.chars().next()?,
        command: String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " "),
        cpu_ticks: number(11)? + number(12)?,
    })
}

/// Every process that is visible.
#[must_use]
pub fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| find(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// The processes whose parent this is.
#[must_use]
pub fn children(pid: i32) -> Vec<Process> {
    all().into_iter().filter(|process| process.parent == pid).collect()
}

/// Everything below this process.
#[must_use]
pub fn descendants(pid: i32) -> Vec<Process> {
    let all = all();
    let (mut found, mut parents) = (Vec::new(), vec![pid]);
    while let Some(parent) = parents.pop() {
        for process in all.iter().filter(|process| process.parent == parent) {
            parents.push(process.pid);
            found.push(process.clone());
        }
    }
    found
}

/// Whether a process has this text in its command line or its environment. A test's directory has a name of its own,
/// so this finds what the test started, however it was reparented.
#[must_use]
pub fn mentions(pid: i32, text: &str) -> bool {
    let contains = |file: &str| {
        fs::read(format!("/proc/{pid}/{file}"))
            .is_ok_and(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    };
    contains("cmdline") || contains("environ")
}

/// Sends a signal; a process that is gone already is no error.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // The only other errors are a lack of permission, which a test's own processes do not have.
        let _ = kill_process(pid, signal);
    }
}

/// Waits until a process has ended (also when nobody has waited for it yet). Gives whether it did in time.
#[must_use]
pub fn wait_gone(process: &Process, deadline: Deadline) -> bool {
    let Some(handle) = open(process) else { return true };
    let left = deadline.left();
    let timeout = Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(left.subsec_nanos()),
    };
    matches!(poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&timeout)), Ok(ready) if ready > 0)
}

/// A handle to exactly this process; `None` when it is gone.
fn open(process: &Process) -> Option<OwnedFd> {
    let handle = pidfd_open(Pid::from_raw(process.pid)?, PidfdFlags::empty()).ok()?;
    // Only now is it known that the pid was not given away before the handle was opened.
    let same = find(process.pid).is_some_and(|now| now.start == process.start && now.state != 'Z');
    same.then_some(handle)
}

/// How many files a process has open.
#[must_use]
pub fn open_files(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// A process's proportional share of memory, in bytes.
#[must_use]
pub fn memory_bytes(pid: i32) -> Option<u64> {
    field_kib(&Path::new("/proc").join(pid.to_string()).join("smaps_rollup"), "Pss:")
}

/// What of a process's memory is in no file, in bytes: its heap and its stacks.
#[must_use]
pub fn anonymous_bytes(pid: i32) -> Option<u64> {
    field_kib(&Path::new("/proc").join(pid.to_string()).join("smaps_rollup"), "Pss_Anon:")
}

/// The most memory that a process ever had resident, in bytes.
#[must_use]
pub fn peak_memory_bytes(pid: i32) -> Option<u64> {
    field_kib(&Path::new("/proc").join(pid.to_string()).join("status"), "VmHWM:")
}

fn field_kib(file: &Path, field: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(field))?;
    Some(value.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}
