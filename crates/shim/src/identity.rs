//! `identity.json`: how a daemon that was started later knows whom it meets.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use outlive_process::{Container, Process, machine_boot_id, start_time};
use outlive_protocol::shim::{ShimIdentity, ShimLaunch};

/// The file's name in the process's directory.
pub const IDENTITY_FILE: &str = "identity.json";
/// The name of the launch's file in the process's directory.
pub const LAUNCH_FILE: &str = "launch.json";

/// A shim's identity before its process exists.
///
/// # Errors
/// When /proc is not there.
pub(crate) fn of_shim(launch: &ShimLaunch) -> io::Result<ShimIdentity> {
    let shim_pid = i32::try_from(std::process::id()).map_err(io::Error::other)?;
    Ok(ShimIdentity {
        session: launch.session,
        process: launch.process,
        node: launch.node,
        machine_boot: machine_boot_id()?,
        shim_pid,
        shim_start: start_time(shim_pid).ok_or(io::ErrorKind::NotFound)?,
        pid: None,
        pid_start: None,
        cgroups: Vec::new(),
    })
}

/// Adds the process.
pub(crate) fn add_process(identity: &mut ShimIdentity, process: &Process, container: &Container) {
    identity.pid = Some(process.pid());
    identity.pid_start = Some(process.start());
    identity.cgroups = container.paths().iter().map(|path| path.display().to_string()).collect();
}

/// Writes the file, mode 0600, whole or not at all.
///
/// # Errors
/// As write(2) and rename(2).
pub(crate) fn write(directory: &Path, identity: &ShimIdentity) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    serde_json::to_writer_pretty(&mut file, identity)?;
    file.flush()?;
    file.persist(directory.join(IDENTITY_FILE))?;
    Ok(())
}

/// Reads the file of some shim.
///
/// # Errors
/// `NotFound`, or `InvalidData` when it is damaged.
pub fn read(directory: &Path) -> io::Result<ShimIdentity> {
    let bytes = std::fs::read(directory.join(IDENTITY_FILE))?;
    serde_json::from_slice(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Reads what the daemon wrote for this shim.
///
/// # Errors
/// `NotFound`, or `InvalidData` when it is damaged.
pub(crate) fn read_launch(directory: &Path) -> io::Result<ShimLaunch> {
    let path: PathBuf = directory.join(LAUNCH_FILE);
    let bytes = std::fs::read(path)?;
    serde_json::from_slice(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
