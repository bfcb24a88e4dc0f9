//! Facts about a process's life and death. Nothing is inferred here; what cannot be read is left out.

pub mod kernel_log;
pub mod memory;

use std::path::Path;

use outlive_core::diagnosis::evidence::DiskEvidence;

pub use kernel_log::KernelLog;
pub use memory::MemoryWatch;

/// What the file systems of these paths have left for an ordinary user. The same file system is named once.
#[must_use]
pub fn disks<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Vec<DiskEvidence> {
    let mut seen = Vec::new();
    let mut found = Vec::new();
    for path in paths {
        let (Ok(about), Ok(status)) = (rustix::fs::stat(path), rustix::fs::statvfs(path)) else { continue };
        if seen.contains(&about.st_dev) {
            continue;
        }
        seen.push(about.st_dev);
        found.push(DiskEvidence {
            path: path.display().to_string(),
            free_bytes: status.f_bavail.saturating_mul(status.f_frsize),
            free_inodes: status.f_favail,
        });
    }
    found
}
