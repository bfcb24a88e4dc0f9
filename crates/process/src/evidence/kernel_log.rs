//! What the kernel itself says about a process: a segmentation fault, a kill for want of memory.
//!
//! Format of /dev/kmsg: one record a read, `priority,sequence,microseconds,flags;text` (Linux
//! Documentation/ABI/testing/dev-kmsg). Readable for root, and for others where `dmesg_restrict` is 0.

use std::os::fd::OwnedFd;

use outlive_core::limits::{EVIDENCE_LINE_BYTES_MAX, EVIDENCE_LINES_MAX};
use rustix::fs::{Mode, OFlags, SeekFrom, open, seek};

/// How many records are looked at. The kernel's buffer holds some thousands.
const RECORDS_MAX: usize = 8_192;
/// Longest record (CONSOLE_EXT_LOG_MAX), in bytes.
const RECORD_BYTES_MAX: usize = 8_192;

/// A place in the kernel's log; what is written after it is looked at.
#[derive(Debug)]
pub struct KernelLog {
    device: Option<OwnedFd>,
}

impl KernelLog {
    /// Remembers the end of the log. Where it may not be read, nothing will be found.
    #[must_use]
    pub fn at_end() -> Self {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let device = open("/dev/kmsg", flags, Mode::empty()).ok();
        Self { device: device.filter(|device| seek(device, SeekFrom::End(0)).is_ok()) }
    }

    /// The lines since then that name this pid. Does not wait.
    #[must_use]
    pub fn lines_about(&self, pid: i32) -> Vec<String> {
        let Some(device) = &self.device else { return Vec::new() };
        let mut lines = Vec::new();
        let mut record = vec![0_u8; RECORD_BYTES_MAX];
        for _ in 0..RECORDS_MAX {
            match rustix::io::read(device, &mut record) {
                Ok(0) | Err(rustix::io::Errno::AGAIN) => break,
                Ok(count) => {
                    let text = String::from_utf8_lossy(&record[..count]);
                    if let Some(line) = about(&text, pid)
                        && lines.len() < EVIDENCE_LINES_MAX
                    {
                        lines.push(line);
                    }
                }
                // EPIPE: the next record was overwritten; the read after it goes on with the oldest that is left.
                Err(rustix::io::Errno::PIPE | rustix::io::Errno::INTR) => {}
                Err(_) => break,
            }
        }
        lines
    }
}

/// The text of a record if it names the pid: `python3[42]: segfault at …`, `Killed process 42 (python3)`, `pid=42,`.
fn about(record: &str, pid: i32) -> Option<String> {
    let text = record.split_once(';').map_or(record, |(_, text)| text);
    // Further lines of a record are its dictionary.
    let line = text.lines().next()?;
    let named = [format!("[{pid}]"), format!("process {pid} "), format!("pid={pid},"), format!("pid {pid} ")];
    if !named.iter().any(|name| line.contains(name.as_str())) {
        return None;
    }
    let mut end = line.len().min(EVIDENCE_LINE_BYTES_MAX);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    Some(line[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_about_this_pid() {
        let segfault = "4,1201,98,-;python3[42]: segfault at 0 ip 0 sp 0 error 4 in libc.so\n SUBSYSTEM=x\n";
        assert_eq!(about(segfault, 42).unwrap(), "python3[42]: segfault at 0 ip 0 sp 0 error 4 in libc.so");
        assert_eq!(about(segfault, 4), None);
        let killed = "3,1,1,-;Memory cgroup out of memory: Killed process 42 (python3) total-vm:1kB";
        assert!(about(killed, 42).is_some());
        assert_eq!(about(killed, 421), None);
    }
}
