//! The small parent of one process, which outlives the daemon.
//!
//! It alone can wait for the process's exit status; it owns the kernel's sockets and the runner's channel, drains the pipes, gathers evidence,
//! numbers every record and keeps it until a daemon has stored it. It does no policy. Single-threaded.
//!
//! ```text
//! daemon ◄─ link ─► driver ─► journal (numbered records: memory, then spool)
//!                     │
//!                     ├ process (pidfd, pipes, cgroup)
//!                     ├ kernel  (sockets, runs, heartbeat)
//!                     └ runner  (channel, tasks, watchdogs, heartbeat)
//! ```

mod blob;
mod clock;
mod driver;
pub mod identity;
mod journal;
mod kernel;
mod ladder;
mod link;
mod runner;
mod tail;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;

use driver::Driver;
use link::Link;

/// Runs a shim: reads `launch.json` in `directory`, serves daemons on `listener`, starts the process, and returns
/// when the process has ended and nobody needs its records any more. Call it from a process of its own, which ignores
/// the signals of terminals from here on.
#[must_use]
pub fn run(directory: &Path, listener: OwnedFd) -> ExitCode {
    match live(directory, listener) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(directory = %directory.display(), %error, "the shim could not begin");
            ExitCode::FAILURE
        }
    }
}

fn live(directory: &Path, listener: OwnedFd) -> io::Result<()> {
    outlive_process::signals::ignore_terminal_and_service();
    outlive_process::reap::become_subreaper()?;
    let launch = identity::read_launch(directory)?;
    let identity = identity::of_shim(&launch)?;
    identity::write(directory, &identity)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let link = Link::listen(listener)?;
        Driver::new(launch, identity, link)?.live().await;
        Ok(())
    })
}
