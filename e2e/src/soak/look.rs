//! What a daemon holds when nobody is attached and nothing runs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::clock::{PATIENCE, within};
use crate::{World, process};

/// Files that may be open more than at the first look: connections that are about to be closed.
const FILES_MORE: usize = 12;
/// Threads that may be there more: blocking work keeps its threads for some seconds after a burst.
const THREADS_MORE: u64 = 24;
/// Tasks within the daemon that may be there more: connections that are about to be closed, and this question's own.
const TASKS_MORE: u64 = 12;
/// Memory that may be held more, in bytes: what the allocator cannot give back.
const BYTES_MORE: u64 = 24 << 20;

/// What there is none of when every session has left memory.
const NOTHING: [&str; 8] = [
    "outlive_sessions{state=\"open\"}",
    "outlive_sessions{state=\"broken\"}",
    "outlive_peers",
    "outlive_claims_held",
    "outlive_file_watches",
    "outlive_evictions_due",
    "outlive_zombie_sessions",
    "outlive_zombie_processes",
];
/// How often it is asked whether that is so.
const LOOK_PERIOD: Duration = Duration::from_millis(50);

/// What was seen.
pub struct Look {
    files: usize,
    threads: u64,
    tasks: u64,
    bytes: u64,
    metrics: BTreeMap<String, u64>,
}

impl Look {
    /// Waits until all sessions are dormant, then looks.
    ///
    /// # Panics
    /// When one stays, when a process, claim or watch is left, or when the counters contradict each other.
    pub fn when_quiet(world: &World, pid: i32, sessions: u64) -> Self {
        let busy = |metrics: &BTreeMap<String, u64>| {
            let of =
                |name: &str| *metrics.get(name).unwrap_or_else(|| panic!("no metric {name}: {metrics:#?}"));
            let dormant = "outlive_sessions{state=\"dormant\"}";
            let missing = (of(dormant) != sessions).then_some(dormant);
            let skipped =
                metrics.iter().filter(|(name, _)| name.starts_with("outlive_evictions_skipped_total"));
            let skipped: u64 = skipped.map(|(_, number)| number).sum();
            let settled =
                of("outlive_evictions_done_total") + of("outlive_evictions_cancelled_total") + skipped;
            let scheduled = "outlive_evictions_scheduled_total";
            let lost = (of(scheduled) != settled).then_some(scheduled);
            NOTHING.into_iter().find(|name| of(name) != 0).or(missing).or(lost)
        };
        let deadline = within(PATIENCE);
        let metrics = loop {
            let metrics = metrics(world);
            match busy(&metrics) {
                None => break metrics,
                Some(name) => assert!(!deadline.is_over(), "{name} of {sessions} sessions: {metrics:#?}"),
            }
            std::thread::sleep(LOOK_PERIOD);
        };
        world.assert_nothing_supervised();
        let of = |name: &str| metrics.get(name).copied().unwrap_or_else(|| panic!("no metric {name}"));
        let files = process::open_files(pid);
        let bytes = process::anonymous_bytes(pid).expect("the daemon lives");
        Self { files, threads: threads(pid), tasks: of("outlive_async_tasks"), bytes, metrics }
    }

    /// What has grown since `first`; `None` when nothing has.
    pub fn more_than(&self, first: &Self) -> Option<String> {
        let grown = [
            ("files", self.files as u64, (first.files + FILES_MORE) as u64),
            ("threads", self.threads, first.threads + THREADS_MORE),
            ("tasks", self.tasks, first.tasks + TASKS_MORE),
            ("bytes of memory", self.bytes, first.bytes + BYTES_MORE),
        ];
        let too_many = grown.into_iter().find(|(_, now, most)| now > most);
        too_many.map(|(what, now, most)| format!("{now} {what}, at most {most} may be there"))
    }
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |name: &str| self.metrics.get(name).copied().unwrap_or_default();
        write!(
            f,
            "{} files, {} threads, {} tasks, {} MiB; {} dormant, {} ended; {} evictions, {} woken",
            self.files,
            self.threads,
            self.tasks,
            self.bytes >> 20,
            of("outlive_sessions{state=\"dormant\"}"),
            of("outlive_sessions_ended_total"),
            of("outlive_evictions_done_total"),
            of("outlive_sessions_woken_total"),
        )
    }
}

/// Prometheus' text format: `name{labels} value`.
fn metrics(world: &World) -> BTreeMap<String, u64> {
    let response = world.api().request("GET", "/metrics", None);
    let text = String::from_utf8(response.body).expect("metrics are text");
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap_or_default()))
        .collect()
}

fn threads(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the daemon lives");
    let line = status.lines().find_map(|line| line.strip_prefix("Threads:")).expect("a field of status");
    line.trim().parse().expect("a number")
}
