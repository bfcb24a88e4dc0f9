//! What the child does between fork and exec. Only async-signal-safe calls: no allocation, no lock, no formatting.

use std::io;
use std::os::fd::RawFd;

use crate::channel::{PROGRAM_READS_FD, PROGRAM_WRITES_FD};

/// The step that failed, told by one byte through the report pipe, because an errno alone does not say where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Joining a cgroup.
    Contain,
    /// Setting the limit of the address space.
    Limit,
    /// Leaving the session of the parent.
    Session,
    /// Putting the private channel in its place.
    Channel,
}

impl Step {
    pub(super) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Contain),
            2 => Some(Self::Limit),
            3 => Some(Self::Session),
            4 => Some(Self::Channel),
            _ => None,
        }
    }

    const fn byte(self) -> u8 {
        match self {
            Self::Contain => 1,
            Self::Limit => 2,
            Self::Session => 3,
            Self::Channel => 4,
        }
    }
}

/// At most one cgroup for each version.
pub(super) const CGROUPS_MAX: usize = 2;

/// All that the child needs, laid out before the fork.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    /// Open `cgroup.procs` files; -1 where there is none.
    pub(super) cgroups: [RawFd; CGROUPS_MAX],
    /// RLIMIT_AS in bytes.
    pub(super) address_space: Option<u64>,
    /// The writing end of the report pipe.
    pub(super) report: RawFd,
    /// What becomes descriptors 3 and 4; neither is one of the two.
    pub(super) channel: Option<[RawFd; 2]>,
}

/// Contains the child, then makes its signals and descriptors those of a fresh program.
pub(super) fn prepare(plan: &Plan) -> io::Result<()> {
    match steps(plan) {
        Ok(()) => Ok(()),
        Err(step) => {
            let error = io::Error::last_os_error();
            let byte = step.byte();
            // SAFETY: one byte from a live local variable to an open pipe.
            let _told = unsafe { libc::write(plan.report, (&raw const byte).cast(), 1) };
            Err(error)
        }
    }
}

fn steps(plan: &Plan) -> Result<(), Step> {
    for fd in plan.cgroups {
        // SAFETY: "0" names the writer itself (cgroups(7)); the descriptor was opened before the fork.
        if fd >= 0 && unsafe { libc::write(fd, c"0".as_ptr().cast(), 1) } != 1 {
            return Err(Step::Contain);
        }
    }
    if let Some(bytes) = plan.address_space {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
        // SAFETY: the pointer is to a live local variable.
        if unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) } != 0 {
            return Err(Step::Limit);
        }
    }
    // SAFETY: no arguments; a fresh child leads no group, so this cannot fail with EPERM.
    if unsafe { libc::setsid() } < 0 {
        return Err(Step::Session);
    }
    reset_signals();
    // Everything but the standard streams is closed at exec; std's own report pipe must stay open until then.
    // SAFETY: only sets flags. ENOSYS (before 5.11) is harmless: all our own descriptors are close-on-exec anyway.
    let _old_kernel =
        unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    // Last, so that only these two are spared. Nothing that is needed until exec has one of the two numbers (see `spawn`).
    for (source, place) in plan.channel.into_iter().flatten().zip([PROGRAM_READS_FD, PROGRAM_WRITES_FD]) {
        // SAFETY: plain numbers of open descriptors; the copy is not close-on-exec (dup2(2)).
        if unsafe { libc::dup2(source, place) } < 0 {
            return Err(Step::Channel);
        }
    }
    Ok(())
}

/// Ignored signals stay ignored over exec, and so does the mask: a program must not inherit ours.
pub(crate) fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL installs no handler; KILL, STOP and the two of the C library refuse, harmlessly.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an empty set from a live local variable; no old mask is asked for.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}
