//! Watching one process by its pidfd: the end is told within a fraction of a millisecond, and never of a stranger
//! that was given the same pid.

use std::io;
use std::os::fd::OwnedFd;

use outlive_core::runtime::ExitStatus;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::identity::ProcStat;

/// One process, held by a pidfd.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    start: u64,
    pidfd: AsyncFd<OwnedFd>,
}

/// How a child ended and what it used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reaped {
    /// What wait(2) said.
    pub status: ExitStatus,
    /// Processor time of the process and the children that it waited for, in milliseconds.
    pub cpu_ms: u64,
    /// Its largest resident set in bytes.
    pub rss_bytes_peak: u64,
}

impl Process {
    /// Takes hold of a process of which only the pid is known, for instance a child that was just started.
    ///
    /// # Errors
    /// `NotFound` when there is none; else as `pidfd_open(2)`. Needs a tokio runtime.
    pub fn open(pid: i32) -> io::Result<Self> {
        let raw = Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
        let pidfd = pidfd_open(raw, PidfdFlags::NONBLOCK)?;
        // Read after the pidfd is held: from here on the pid cannot pass to somebody else unnoticed.
        let start = ProcStat::read(pid)?.start;
        // SAFETY: an OwnedFd that is moved in stays open, and the same, until the AsyncFd is dropped.
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?;
        Ok(Self { pid, start, pidfd })
    }

    /// Takes hold of the process that was started at `start` (clock ticks since boot).
    ///
    /// # Errors
    /// `NotFound` when it is gone, also when a stranger has its pid by now. Needs a tokio runtime.
    pub fn open_same(pid: i32, start: u64) -> io::Result<Self> {
        let process = Self::open(pid)?;
        if process.start == start { Ok(process) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Its pid.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// Its start time in clock ticks since boot.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// Waits until it has ended; a child may then be [`Self::reap`]ed. Cancel-safe.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    pub async fn exited(&self) -> io::Result<()> {
        self.pidfd.readable().await.map(|mut guard| guard.retain_ready())
    }

    /// Sends a signal to this process alone.
    ///
    /// # Errors
    /// `NotFound` (ESRCH) when it has been waited for; `PermissionDenied`.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        pidfd_send_signal(&self.pidfd, signal).map_err(Into::into)
    }

    /// Takes the exit status of our child; `None` while it lives. Afterwards the pid is free.
    ///
    /// # Errors
    /// ECHILD when it is not our child or was reaped before.
    pub fn reap(&self) -> io::Result<Option<Reaped>> {
        let mut status = 0;
        // SAFETY: an all-zero rusage is a valid value of this plain C struct.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to live local variables. wait4 and not waitid, because only it gives the usage
        // of this one child. The pid is ours until this call has reaped it, so it cannot name a stranger.
        let got = unsafe { libc::wait4(self.pid, &raw mut status, libc::WNOHANG, &raw mut usage) };
        match got {
            -1 => Err(io::Error::last_os_error()),
            0 => Ok(None),
            _ => Ok(Some(Reaped {
                status: exit_status(status),
                cpu_ms: millis(usage.ru_utime) + millis(usage.ru_stime),
                // Linux counts ru_maxrss in KiB (getrusage(2)).
                rss_bytes_peak: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1_024,
            })),
        }
    }
}

fn exit_status(status: libc::c_int) -> ExitStatus {
    if libc::WIFEXITED(status) {
        ExitStatus::Code { code: libc::WEXITSTATUS(status) }
    } else if libc::WIFSIGNALED(status) {
        ExitStatus::Signal { number: libc::WTERMSIG(status), core_dumped: libc::WCOREDUMP(status) }
    } else {
        ExitStatus::Unknown
    }
}

fn millis(time: libc::timeval) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(time.tv_usec).unwrap_or(0) / 1_000
}
