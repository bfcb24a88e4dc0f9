//! How many files this process may have open.
//!
//! A daemon needs many; the programs that it starts must not inherit its raised limit: `select(2)` breaks beyond 1,024,
//! and some programs close every number up to the limit when they start.

use std::io;
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit as it was before [`raise`].
static BEFORE: OnceLock<Rlimit> = OnceLock::new();

/// Raises the soft limit to the hard one. What is started by [`crate::detached::spawn`] has the former one.
///
/// # Errors
/// As setrlimit(2).
pub fn raise() -> io::Result<()> {
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: before.maximum, maximum: before.maximum })?;
    // A second call finds it raised already.
    let _first = BEFORE.set(before);
    Ok(())
}

/// The limit that other programs are to have; `None` when it was never raised.
pub(crate) fn before() -> Option<libc::rlimit> {
    let Rlimit { current, maximum } = BEFORE.get()?;
    let value = |limit: &Option<u64>| limit.unwrap_or(libc::RLIM_INFINITY);
    Some(libc::rlimit { rlim_cur: value(current), rlim_max: value(maximum) })
}

/// How many may be open; `None` for no limit.
#[must_use]
pub fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// How many are open.
///
/// # Errors
/// When /proc cannot be read; without a free descriptor that is so before Linux 6.2.
pub fn used() -> io::Result<u64> {
    // Since Linux 6.2 this is their number (proc_pid_fd(5)).
    match std::fs::metadata("/proc/self/fd")?.len() {
        0 => Ok(std::fs::read_dir("/proc/self/fd")?.count() as u64 - 1),
        number => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_counted() {
        let before = used().unwrap();
        let files: Vec<_> = (0..10).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        assert_eq!(used().unwrap(), before + files.len() as u64);
    }
}
