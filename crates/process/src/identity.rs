//! Who a process is: pid and start time, never a bare pid, which the system gives to somebody else one day.

use std::io;
use std::time::Duration;

/// What is read from `/proc/PID/stat` (proc_pid_stat(5)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProcStat {
    /// The scheduler's state letter: R running, S sleeping, D in a system call, T stopped, Z ended and not waited for.
    pub state: char,
    /// The parent's pid.
    pub parent: i32,
    /// Processor time used by all its threads, in milliseconds.
    pub cpu_ms: u64,
    /// Start time in clock ticks since boot (field 22).
    pub start: u64,
}

impl ProcStat {
    /// Reads it for a pid.
    ///
    /// # Errors
    /// `NotFound` when there is no such process; `InvalidData` when the kernel's line has another form.
    pub fn read(pid: i32) -> io::Result<Self> {
        let line = std::fs::read(format!("/proc/{pid}/stat"))?;
        Self::parse(&line)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat")))
    }

    /// The name in parentheses may hold spaces and parentheses of its own: fields are counted from the last one.
    fn parse(line: &[u8]) -> Option<Self> {
        let end_of_name = line.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(line.get(end_of_name + 2..)?).ok()?;
        let field: Vec<&str> = rest.split_ascii_whitespace().collect();
        // `rest` begins with field 3; the numbers below are those of the manual page.
        let number = |n: usize| field.get(n - 3).and_then(|text| text.parse::<u64>().ok());
        let ticks = number(14)? + number(15)?;
        Some(Self {
            state: field.first()?.chars().next()?,
            parent: field.get(1)?.parse().ok()?,
            cpu_ms: ticks * 1_000 / ticks_per_second(),
            start: number(22)?,
        })
    }

    /// Whether it has ended, though nobody waited for it yet.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// The start time of a process in clock ticks since boot, or `None` when there is none with this pid.
#[must_use]
pub fn start_time(pid: i32) -> Option<u64> {
    ProcStat::read(pid).ok().map(|stat| stat.start)
}

/// Whether the process with this pid is the one that was started at `start` and has not ended.
#[must_use]
pub fn is_same_process(pid: i32, start: u64) -> bool {
    ProcStat::read(pid).is_ok_and(|stat| stat.start == start && !stat.has_ended())
}

/// The machine's boot id, new at each boot.
///
/// # Errors
/// When /proc is not there.
pub fn machine_boot_id() -> io::Result<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned())
}

/// How long ago a process was started, by the clock that does not stop while the machine sleeps.
#[must_use]
pub fn age(start: u64) -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let now_ms =
        u64::try_from(now.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000;
    let start_ms = start * 1_000 / ticks_per_second();
    Duration::from_millis(now_ms.saturating_sub(start_ms))
}

/// The unit of the times in /proc; 100 on every Linux that we know of, but only the system can say.
fn ticks_per_second() -> u64 {
    // SAFETY: asks for a number.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).unwrap_or(100).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let line = b"4711 (a) R (b c) S 17 1 1 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 987654 1 1 18446744073709551615";
        let stat = ProcStat::parse(line).unwrap();
        assert_eq!((stat.state, stat.parent, stat.start), ('S', 17, 987_654));
        assert_eq!(stat.cpu_ms, 200 * 1_000 / ticks_per_second());
    }

    #[test]
    fn a_pid_with_another_start_time_is_a_stranger() {
        // D5
        let own = i32::try_from(std::process::id()).unwrap();
        let start = start_time(own).unwrap();
        assert!(is_same_process(own, start));
        assert!(!is_same_process(own, start + 1));
    }
}
