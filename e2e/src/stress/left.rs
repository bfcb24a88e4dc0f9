//! What is left when a group has ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::within;
use crate::{Daemon, World, process};

/// Files that may be open more than at the first look: connections that are about to be closed, and the log's segments.
const FILES_MORE: usize = 12;
/// Threads that may be there more: blocking work keeps its threads for some seconds after a burst.
const THREADS_MORE: usize = 24;
/// How long it may take until that is so.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);

/// How often it is looked.
const LOOK_PERIOD: Duration = Duration::from_millis(50);

/// What a daemon holds when nothing runs.
#[derive(Debug)]
pub struct Held {
    files: usize,
    threads: usize,
}

impl Held {
    /// Looks.
    pub fn by(world: &World, daemon: &Daemon) -> Self {
        world.assert_nothing_supervised();
        Self { files: process::open_files(daemon.pid()), threads: threads(daemon.pid()) }
    }

    /// Waits until no more is held than this.
    ///
    /// # Panics
    /// When more stays.
    pub fn no_more_now(&self, world: &World, daemon: &Daemon) {
        let deadline = within(SETTLED_WITHIN);
        loop {
            let now = Self::by(world, daemon);
            if now.files <= self.files + FILES_MORE && now.threads <= self.threads + THREADS_MORE {
                return;
            }
            assert!(!deadline.is_over(), "at first {self:?}, now {now:?}");
            std::thread::sleep(LOOK_PERIOD);
        }
    }
}

fn threads(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// Waits until no directory of these runtimes is left: of a process, or a cgroup.
///
/// # Panics
/// With those that are.
pub fn directories(world: &World, runtimes: &[String]) {
    let deadline = within(SETTLED_WITHIN);
    loop {
        let mut left = named(&world.state().join("processes"), 1, runtimes);
        left.extend(named(Path::new("/sys/fs/cgroup"), 4, runtimes));
        if left.is_empty() {
            return;
        }
        assert!(!deadline.is_over(), "left behind: {left:#?}");
        std::thread::sleep(LOOK_PERIOD);
    }
}

/// The directories below this one, so deep, that have one of these ids in their names.
fn named(folder: &Path, depth: usize, ids: &[String]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if ids.iter().any(|id| name.contains(id)) {
            found.push(entry.path());
        } else if depth > 1 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(named(&entry.path(), depth - 1, ids));
        }
    }
    found
}
