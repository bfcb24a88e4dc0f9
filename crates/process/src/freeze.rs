//! Keeping a process and everything that it started from running, and letting them go on where they were.
//!
//! By the freezer of the process's cgroup, which also keeps what they fork meanwhile, and which no signal of theirs gets
//! around; where there is none, by SIGSTOP to each of them. SIGKILL ends what is frozen in either way; every other signal
//! waits.

use rustix::process::Signal;

use crate::cgroup::Container;
use crate::stop::{members, signal_group};
use crate::watch::Process;

/// How often the members are read again: who was forked between a look and its parent's stop is found by the next look.
const ROUNDS_MAX: usize = 8;

/// Freezes a process. What cannot be signalled is left; that is said in the log.
pub fn freeze(container: &Container, group: i32) {
    if !container.freeze(true) {
        signal_all(container, group, Signal::STOP);
    }
}

/// Lets a frozen process go on; one that is not frozen is left alone.
pub fn thaw(container: &Container, group: i32) {
    if !container.freeze(false) {
        signal_all(container, group, Signal::CONT);
    }
}

fn signal_all(container: &Container, group: i32, signal: Signal) {
    if let Err(error) = signal_group(group, signal) {
        tracing::warn!(group, ?signal, %error, "a process group could not be signalled");
    }
    let mut known = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let new: Vec<i32> = members(container).into_iter().filter(|pid| !known.contains(pid)).collect();
        if new.is_empty() {
            return;
        }
        for pid in &new {
            // By a pidfd, so that it is no stranger who was given the pid meanwhile.
            let _gone = Process::open(*pid).and_then(|process| process.signal(signal));
        }
        known.extend(new);
    }
    tracing::warn!(?signal, "a process forks faster than it is signalled");
}
