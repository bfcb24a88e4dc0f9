//! Signals of this process itself, and file descriptors that it was given.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

/// Ignores the signals of terminals and service managers (HUP, INT, QUIT, TERM, TSTP) and PIPE: for a process that
/// outlives them. A program spawned by this crate starts with the defaults all the same.
pub fn ignore_terminal_and_service() {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGTSTP, libc::SIGPIPE] {
        // SAFETY: SIG_IGN installs no handler; these signal numbers are valid and may be ignored.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Takes over a descriptor that the starter of this process left open for it, and closes it on exec from now on.
///
/// # Errors
/// EBADF when it is not open.
pub fn inherited_fd(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: only probes and changes a flag; an fd that is not open gives EBADF and is not taken.
    let borrowed = unsafe { rustix::fd::BorrowedFd::borrow_raw(fd) };
    fcntl_getfd(borrowed)?;
    fcntl_setfd(borrowed, FdFlags::CLOEXEC)?;
    // SAFETY: it is open, and the contract of the hidden subcommands is that nobody else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
