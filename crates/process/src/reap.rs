//! Being the parent of orphans: what a program leaves behind comes to its shim instead of to init.

use std::io;

use rustix::process::{getpid, set_child_subreaper};

/// Makes this process the parent of all orphans among its descendants.
///
/// # Errors
/// As prctl(2); never on a supported kernel.
pub fn become_subreaper() -> io::Result<()> {
    set_child_subreaper(Some(getpid())).map_err(Into::into)
}

/// Waits for every child that has ended, but for `spared`, whose status somebody else takes. Call it on SIGCHLD and
/// again after `spared` was reaped. Returns how many there were.
pub fn reap_orphans(spared: Option<i32>) -> usize {
    let mut count = 0;
    // Each round takes one ended child away, so the loop ends with them.
    while let Some(pid) = ended_child() {
        // `spared` would be found again and again: it is reaped first, the others at the next call.
        // SAFETY: no status is asked for, hence the null pointer; the pid is an unreaped child's.
        if spared == Some(pid) || unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) } != pid {
            break;
        }
        count += 1;
    }
    count
}

/// The pid of a child that has ended and was not waited for; it is left so.
fn ended_child() -> Option<i32> {
    // SAFETY: an all-zero siginfo_t is valid, and waitid leaves si_pid 0 when there is nothing to report.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live local variable.
    let result =
        unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) };
    // SAFETY: waitid filled the SIGCHLD variant, or left all zero.
    let pid = unsafe { info.si_pid() };
    (result == 0 && pid > 0).then_some(pid)
}
