//! Starting our own binary as a process that outlives us: a shim, or the daemon itself.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};

use crate::descriptors;
use crate::spawn::reset_signals;
use crate::watch::Process;

/// The descriptor at which a detached process finds what it was given.
pub const INHERITED_FD: RawFd = 3;

/// Starts `program` in its own session, with `/` as working directory, our environment and our limits (of open files,
/// the one before [`descriptors::raise`]), no standard input or output,
/// standard error in `log`, and `inherited` as descriptor 3. It is our child: watch it, and reap it when it ends
/// before us. Needs a tokio runtime.
///
/// # Errors
/// As fork(2), exec(2) and pidfd_open(2); the caller knows the program.
pub fn spawn(program: &Path, args: &[&str], inherited: Option<OwnedFd>, log: File) -> io::Result<Process> {
    let mut command = Command::new(program);
    command.args(args).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    // Takes number 3 when it is free, so that std's own report pipe cannot be there when the child moves ours to it.
    let reserved =
        inherited.as_ref().map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, INHERITED_FD)).transpose()?;
    let given = inherited.as_ref().map(AsRawFd::as_raw_fd);
    let descriptors = descriptors::before();
    // SAFETY: only async-signal-safe calls; `given` stays open until `spawn` has returned.
    unsafe { command.pre_exec(move || prepare(given, descriptors)) };
    let child = command.spawn()?;
    drop((inherited, reserved));
    Process::open(i32::try_from(child.id()).expect("a pid fits pid_t"))
}

/// In the child: its own session, default signals, and no descriptor but the standard streams and the given one.
fn prepare(given: Option<RawFd>, descriptors: Option<libc::rlimit>) -> io::Result<()> {
    if let Some(limit) = descriptors {
        // SAFETY: the pointer is to a live local variable.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: no arguments.
    if unsafe { libc::setsid() } < 0 {
        return Err(io::Error::last_os_error());
    }
    reset_signals();
    // SAFETY: only sets flags; ENOSYS (before 5.11) leaves what is close-on-exec anyway.
    unsafe { libc::syscall(libc::SYS_close_range, INHERITED_FD, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    match given {
        None => Ok(()),
        Some(INHERITED_FD) => {
            // SAFETY: clears close-on-exec of an open descriptor.
            if unsafe { libc::fcntl(INHERITED_FD, libc::F_SETFD, 0) } < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        }
        Some(fd) => {
            // SAFETY: both are plain numbers; the copy is not close-on-exec (dup2(2)).
            if unsafe { libc::dup2(fd, INHERITED_FD) } < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        }
    }
}

/// Opens a log file for appending, mode 0600.
///
/// # Errors
/// As open(2).
pub fn open_log(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?.into())
}
