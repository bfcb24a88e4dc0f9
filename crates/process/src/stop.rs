//! Ending a process and everything that it started.
//!
//! First the container says who is left; where there is none, the process group and the marker in the environment
//! do. Each member is killed and waited for by its pidfd; then the list is read again, because it may have forked
//! meanwhile.

use std::io;
use std::path::Path;
use std::time::Duration;

use outlive_core::id::ProcessKey;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::MARKER;
use crate::cgroup::Container;
use crate::reap::reap_orphans;
use crate::watch::Process;

/// How often the list of members is read again. A process that forks faster than it is killed loses against
/// `cgroup.kill`; without that, this bounds the chase.
const ROUNDS_MAX: usize = 64;
/// How long one member may take to end after SIGKILL, in milliseconds. Only one that hangs in a system call
/// (state D) takes longer, and nobody can kill that.
const KILL_MS: u64 = 2_000;

/// Sends a signal to a process group; a group that is gone is no error.
///
/// # Errors
/// `PermissionDenied` when none of its members may be signalled.
pub fn signal_group(group: i32, signal: Signal) -> io::Result<()> {
    let Some(group) = Pid::from_raw(group) else { return Ok(()) };
    match kill_process_group(group, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(other) => Err(other.into()),
    }
}

/// Kills all that is left of a process: members of its container, its group, and, where no container could be made,
/// whatever carries its marker. Returns how many it found. `spared` is the child whose status somebody else takes.
pub async fn kill_all(container: &Container, group: Option<i32>, spared: Option<i32>) -> usize {
    if let Some(group) = group {
        let _unsignalled = signal_group(group, Signal::KILL);
    }
    let mut killed = 0;
    for _ in 0..ROUNDS_MAX {
        let members = members(container);
        let found = members.len();
        if found == 0 {
            break;
        }
        let watched: Vec<Process> = members.into_iter().filter_map(|pid| Process::open(pid).ok()).collect();
        if !container.kill_at_once() {
            for process in &watched {
                let _gone = process.signal(Signal::KILL);
            }
        }
        for process in &watched {
            let ended = tokio::time::timeout(Duration::from_millis(KILL_MS), process.exited()).await;
            if ended.is_err() {
                tracing::warn!(pid = process.pid(), "does not end after SIGKILL");
                return killed;
            }
        }
        killed += found;
        reap_orphans(spared);
    }
    killed
}

/// Every process that belongs to it: by its container, or where none could be made, by its marker.
pub(crate) fn members(container: &Container) -> Vec<i32> {
    if container.unified().is_some() { container.members() } else { marked(container) }
}

/// Ends what is left of a process whose shim is gone and removes its container. Returns how many it killed.
pub async fn sweep<P: AsRef<Path>>(process: ProcessKey, cgroups: &[P]) -> usize {
    let container = Container::from_paths(process, cgroups);
    let mut killed = kill_all(&container, None, None).await;
    // What left its cgroup on purpose still carries the marker.
    let uncontained = Container::from_paths::<P>(process, &[]);
    killed += kill_all(&uncontained, None, None).await;
    let _removed = container.remove();
    killed
}

/// Members of the container and every process that carries its marker, but for this process itself.
fn marked(container: &Container) -> Vec<i32> {
    let wanted = format!("{MARKER}={}", container.process());
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let mut pids = container.members();
    let Ok(entries) = std::fs::read_dir("/proc") else { return pids };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // Unreadable: another user's, hence not ours. Empty: a kernel thread or one that has ended.
        let Ok(environment) = std::fs::read(entry.path().join("environ")) else { continue };
        if pid != own && environment.split(|byte| *byte == 0).any(|pair| pair == wanted.as_bytes()) {
            pids.push(pid);
        }
    }
    pids.sort_unstable();
    pids.dedup();
    pids
}
