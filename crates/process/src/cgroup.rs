//! The container of one process: its own cgroup, so that whatever it forks can be found, limited, counted, killed.
//!
//! Version 2 gives `cgroup.kill` even without controllers; memory is limited by version 2 where it has the
//! controller, else by version 1. Where neither can be written, there is no cgroup, and [`crate::stop`] falls back on
//! the process group and the marker in the environment.
//!
//! ```text
//! /sys/fs/cgroup/unified/CURRENT/outlive-KEY   v2: every process
//! /sys/fs/cgroup/memory/CURRENT/outlive-KEY    v1: only when a memory limit is asked for and v2 cannot do it
//! ```

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use outlive_core::id::ProcessKey;

/// The cgroups of one process, and its name in environments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Container {
    process: ProcessKey,
    unified: Option<PathBuf>,
    memory_v1: Option<PathBuf>,
}

/// Who limits a process's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryLimit {
    /// Nobody: none was asked for.
    None,
    /// A cgroup.
    Cgroup,
    /// RLIMIT_AS in bytes, because no cgroup can.
    AddressSpace(u64),
}

impl Container {
    /// Makes the cgroups of a process. What cannot be made is left out: a cgroup is wanted and never required.
    #[must_use]
    pub fn make(process: ProcessKey, memory_bytes_max: Option<u64>) -> (Self, MemoryLimit) {
        let mut container = Self { process, unified: None, memory_v1: None };
        let places = places();
        let name = format!("outlive-{process}");
        container.unified = places.unified.as_deref().and_then(|parent| make_directory(&parent.join(&name)));
        let Some(limit) = memory_bytes_max else { return (container, MemoryLimit::None) };
        if let (Some(directory), Some(parent)) = (&container.unified, &places.unified)
            && limit_v2(parent, directory, limit).is_ok()
        {
            return (container, MemoryLimit::Cgroup);
        }
        if let Some(directory) = places.memory_v1.and_then(|parent| make_directory(&parent.join(&name))) {
            if limit_v1(&directory, limit).is_ok() {
                container.memory_v1 = Some(directory);
                return (container, MemoryLimit::Cgroup);
            }
            remove_directory(&directory);
        }
        (container, MemoryLimit::AddressSpace(limit))
    }

    /// The container of a process that somebody else made, from the paths in its identity.
    #[must_use]
    pub fn from_paths<P: AsRef<Path>>(process: ProcessKey, paths: &[P]) -> Self {
        let mut container = Self { process, unified: None, memory_v1: None };
        let own_name = format!("outlive-{process}");
        for path in paths.iter().map(AsRef::as_ref) {
            // A path that does not carry this process's name is never written to, whoever stored it.
            if path.file_name() != Some(OsStr::new(&own_name)) {
                continue;
            }
            if path.join("cgroup.kill").exists() {
                container.unified = Some(path.to_owned());
            } else if path.join("memory.limit_in_bytes").exists() {
                container.memory_v1 = Some(path.to_owned());
            }
        }
        container
    }

    /// Whose container it is.
    #[must_use]
    pub const fn process(&self) -> ProcessKey {
        self.process
    }

    /// Its cgroup directories, absolute.
    #[must_use]
    pub fn paths(&self) -> Vec<&Path> {
        self.unified.iter().chain(&self.memory_v1).map(PathBuf::as_path).collect()
    }

    /// The version 2 directory, when there is one.
    #[must_use]
    pub fn unified(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    /// The version 1 memory directory, when there is one.
    #[must_use]
    pub fn memory_v1(&self) -> Option<&Path> {
        self.memory_v1.as_deref()
    }

    /// Every process in it, in no order; those that have ended are left out by the kernel.
    #[must_use]
    pub fn members(&self) -> Vec<i32> {
        let mut pids: Vec<i32> = self
            .paths()
            .into_iter()
            .filter_map(|directory| fs::read_to_string(directory.join("cgroup.procs")).ok())
            .flat_map(|list| list.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>())
            // 0 stands for a process outside of our pid namespace.
            .filter(|pid| *pid > 0)
            .collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Kills all members at once, where the kernel has `cgroup.kill` (5.14). Whether it did.
    #[must_use]
    pub fn kill_at_once(&self) -> bool {
        self.unified.as_ref().is_some_and(|directory| fs::write(directory.join("cgroup.kill"), "1").is_ok())
    }

    /// Freezes all members, or thaws them, where the kernel has `cgroup.freeze` (5.2). Whether it did. Who joins later, or is
    /// forked, is what the others are.
    #[must_use]
    pub fn freeze(&self, is_frozen: bool) -> bool {
        let value = if is_frozen { "1" } else { "0" };
        self.unified.as_ref().is_some_and(|directory| {
            // Not made by writing to it: a kernel without it has no such file.
            let file = OpenOptions::new().write(true).open(directory.join("cgroup.freeze"));
            file.and_then(|mut file| std::io::Write::write_all(&mut file, value.as_bytes())).is_ok()
        })
    }

    /// Removes the cgroups; whether they are gone. Fails while a member lives.
    #[must_use]
    pub fn remove(&self) -> bool {
        let left = self.paths().into_iter().filter(|path| !remove_directory(path)).count();
        left == 0
    }

    /// The files that a child writes `0` to, to join each cgroup before it executes the program.
    ///
    /// # Errors
    /// As open(2).
    pub fn join_files(&self) -> io::Result<Vec<File>> {
        self.paths()
            .into_iter()
            .map(|path| OpenOptions::new().write(true).open(path.join("cgroup.procs")))
            .collect()
    }
}

/// Where new cgroups are made: below the ones that this process is in.
struct Places {
    unified: Option<PathBuf>,
    memory_v1: Option<PathBuf>,
}

fn places() -> Places {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    places_in(&mounts, &own)
}

/// Formats: proc_pid_mountinfo(5) `id parent dev root mountpoint options … - type source super-options`, and
/// cgroups(7) `/proc/PID/cgroup`, lines `hierarchy:controllers:path`.
fn places_in(mounts: &str, own: &str) -> Places {
    let path_of = |wanted: &str| {
        own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            controllers.split(',').any(|name| name == wanted).then_some(path)
        })
    };
    let mount_of = |kind: &str, option: Option<&str>| {
        mounts.lines().find_map(|line| {
            let (mount, system) = line.split_once(" - ")?;
            let mut system = system.split(' ');
            let (type_, options) = (system.next()?, system.nth(1).unwrap_or(""));
            let wanted = type_ == kind && option.is_none_or(|name| options.split(',').any(|o| o == name));
            let mut fields = mount.split(' ').skip(3);
            wanted.then_some((fields.next()?, fields.next()?))
        })
    };
    let below = |(root, mount): (&str, &str), path: &str| {
        // In a container the mount shows a part of the hierarchy only: `root` is taken off the path.
        let inside = path.strip_prefix(root.trim_end_matches('/')).unwrap_or(path);
        PathBuf::from(mount).join(inside.trim_start_matches('/'))
    };
    Places {
        unified: mount_of("cgroup2", None).zip(path_of("")).map(|(mount, path)| below(mount, path)),
        memory_v1: mount_of("cgroup", Some("memory"))
            .zip(path_of("memory"))
            .map(|(mount, path)| below(mount, path)),
    }
}

fn make_directory(path: &Path) -> Option<PathBuf> {
    match fs::create_dir(path) {
        Ok(()) => Some(path.to_owned()),
        // Left by an earlier try for the same process: usable when nobody is in it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && fs::remove_dir(path).is_ok() => {
            fs::create_dir(path).ok().map(|()| path.to_owned())
        }
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "no cgroup here");
            None
        }
    }
}

fn remove_directory(path: &Path) -> bool {
    match fs::remove_dir(path) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn limit_v2(parent: &Path, directory: &Path, bytes: u64) -> io::Result<()> {
    let file = directory.join("memory.max");
    if !file.exists() {
        // Refused with EBUSY where the parent holds processes itself, and then version 1 or RLIMIT_AS does it.
        fs::write(parent.join("cgroup.subtree_control"), "+memory")?;
    }
    fs::write(file, bytes.to_string())?;
    // A limit that swap lets through would be none. Missing where swap is not accounted.
    let _unaccounted = fs::write(directory.join("memory.swap.max"), "0");
    Ok(())
}

fn limit_v1(directory: &Path, bytes: u64) -> io::Result<()> {
    fs::write(directory.join("memory.limit_in_bytes"), bytes.to_string())?;
    let _unaccounted = fs::write(directory.join("memory.memsw.limit_in_bytes"), bytes.to_string());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_hierarchies_are_told_apart() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                      31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let places = places_in(mounts, "4:memory:/a/b\n1:name=systemd:/\n0::/\n");
        assert_eq!(places.unified, Some(PathBuf::from("/sys/fs/cgroup/unified/")));
        assert_eq!(places.memory_v1, Some(PathBuf::from("/sys/fs/cgroup/memory/a/b")));
    }

    #[test]
    fn a_mount_of_a_part_of_the_hierarchy_is_taken_off_the_path() {
        let mounts = "31 25 0:27 /docker/x /sys/fs/cgroup ro - cgroup2 cgroup rw,nsdelegate";
        let places = places_in(mounts, "0::/docker/x/inner\n");
        assert_eq!(places.unified, Some(PathBuf::from("/sys/fs/cgroup/inner")));
        assert_eq!(places.memory_v1, None);
    }

    #[test]
    fn a_stored_path_of_another_name_is_not_touched() {
        // D5
        let process = ProcessKey {
            runtime: outlive_core::id::RuntimeId::from_uuid(Default::default()),
            incarnation: outlive_core::id::Incarnation(1),
        };
        let container = Container::from_paths(process, &["/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory"]);
        assert!(container.paths().is_empty());
    }
}
