//! What is known of a process's memory: its cgroup's account, its own peaks, and the machine's.
//!
//! Formats: cgroup v2 `memory.events`, `memory.peak`, `memory.max` (Linux Documentation/admin-guide/cgroup-v2.rst);
//! v1 `memory.oom_control`, `memory.failcnt`, `memory.max_usage_in_bytes` (cgroup-v1/memory.rst); /proc/vmstat.

use std::fs;
use std::path::Path;

use outlive_core::diagnosis::evidence::{CgroupMemory, MemoryEvidence};

use crate::cgroup::Container;

/// Counters at the start of a process, and the last sample of what is gone once it has ended.
#[derive(Debug)]
pub struct MemoryWatch {
    host_oom_kills: u64,
    rlimit_as_bytes: Option<u64>,
    vm_bytes_peak: Option<u64>,
    host_bytes_available: Option<u64>,
}

impl MemoryWatch {
    /// Takes the counters now; call it right after the spawn.
    #[must_use]
    pub fn begin(rlimit_as_bytes: Option<u64>) -> Self {
        Self {
            host_oom_kills: host_oom_kills(),
            rlimit_as_bytes,
            vm_bytes_peak: None,
            host_bytes_available: None,
        }
    }

    /// Looks at the living process: what it had mapped is not told any more once it has ended. Two small files of
    /// /proc, some 50 µs.
    pub fn sample(&mut self, pid: i32) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        if let Some(peak) = kib_line(&status, "VmPeak:") {
            self.vm_bytes_peak = Some(peak);
            self.host_bytes_available = host("MemAvailable:");
        }
    }

    /// All that is known at the end. `rss_bytes_peak` is from the reaping.
    #[must_use]
    pub fn end(&self, container: Option<&Container>, rss_bytes_peak: Option<u64>) -> MemoryEvidence {
        MemoryEvidence {
            cgroup: container.and_then(cgroup_memory),
            rlimit_as_bytes: self.rlimit_as_bytes,
            rss_bytes_peak,
            vm_bytes_peak: self.vm_bytes_peak,
            host_oom_kills: host_oom_kills().saturating_sub(self.host_oom_kills),
            host_bytes_total: host("MemTotal:"),
            host_bytes_available: self.host_bytes_available.or_else(|| host("MemAvailable:")),
        }
    }
}

/// The account of the cgroup that limits memory. It was made for this process, so its counters began at zero.
fn cgroup_memory(container: &Container) -> Option<CgroupMemory> {
    if let Some(directory) = container.memory_v1() {
        let control = read(directory, "memory.oom_control")?;
        return Some(CgroupMemory {
            version: 1,
            path: directory.display().to_string(),
            oom_kills: word_line(&control, "oom_kill").unwrap_or(0),
            limit_hits: number(directory, "memory.failcnt").unwrap_or(0),
            // "No limit" is written as the largest page-aligned number of the machine.
            limit_bytes: number(directory, "memory.limit_in_bytes").filter(|bytes| *bytes < 1 << 62),
            peak_bytes: number(directory, "memory.max_usage_in_bytes"),
        });
    }
    let directory = container.unified()?;
    let events = read(directory, "memory.events")?;
    Some(CgroupMemory {
        version: 2,
        path: directory.display().to_string(),
        oom_kills: word_line(&events, "oom_kill").unwrap_or(0),
        limit_hits: word_line(&events, "max").unwrap_or(0),
        // "max" is no number: no limit.
        limit_bytes: number(directory, "memory.max"),
        peak_bytes: number(directory, "memory.peak"),
    })
}

fn host_oom_kills() -> u64 {
    fs::read_to_string("/proc/vmstat").ok().and_then(|text| word_line(&text, "oom_kill")).unwrap_or(0)
}

fn host(name: &str) -> Option<u64> {
    kib_line(&fs::read_to_string("/proc/meminfo").ok()?, name)
}

fn read(directory: &Path, name: &str) -> Option<String> {
    fs::read_to_string(directory.join(name)).ok()
}

fn number(directory: &Path, name: &str) -> Option<u64> {
    read(directory, name)?.trim().parse().ok()
}

/// `name number`, one a line.
fn word_line(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// `Name:   number kB`, one a line.
fn kib_line(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_begin_alike_are_told_apart() {
        let events = "low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 0\n";
        assert_eq!(word_line(events, "oom_kill"), Some(1));
        assert_eq!(word_line(events, "max"), Some(7));
        assert_eq!(word_line("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill"), Some(3));
        assert_eq!(kib_line("VmPeak:\t  2048 kB\nVmSize:\t 1 kB\n", "VmPeak:"), Some(2_097_152));
    }
}
