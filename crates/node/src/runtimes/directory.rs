//! A process's directory: what its shim is told, who it is, its socket, its spool.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use outlive_core::diagnosis::evidence::{LaunchEvidence, LaunchStep};
use outlive_core::id::ProcessKey;
use outlive_core::limits::EVIDENCE_LINE_BYTES_MAX;
use outlive_process::detached;
use outlive_protocol::shim::{ShimIdentity, ShimLaunch, directory_name, parse_directory_name};

const LAUNCH: &str = "launch.json";
const IDENTITY: &str = "identity.json";
const SOCKET: &str = "shim.sock";
const LOG: &str = "shim.log";

/// A directory that is held open: its socket is reached through the descriptor, so that no length of the state
/// directory's path can exceed what a Unix socket's address holds.
pub(super) struct Directory {
    path: PathBuf,
    held: File,
}

impl Directory {
    pub(super) fn make(processes: &Path, process: ProcessKey) -> Result<Self, Box<LaunchEvidence>> {
        let path = processes.join(directory_name(process));
        let made = fs::create_dir_all(processes).and_then(|()| DirBuilder::new().mode(0o700).create(&path));
        made.and_then(|()| Self::hold(path.clone()))
            .map_err(|error| evidence("making the process's directory", &path, &error))
    }

    pub(super) fn open(processes: &Path, process: ProcessKey) -> io::Result<Self> {
        Self::hold(processes.join(directory_name(process)))
    }

    fn hold(path: PathBuf) -> io::Result<Self> {
        let held = File::open(&path)?;
        Ok(Self { path, held })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The socket's address; valid while this is held.
    pub(super) fn socket(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", self.held.as_raw_fd()))
    }

    pub(super) fn write_launch(&self, launch: &ShimLaunch) -> Result<(), Box<LaunchEvidence>> {
        let path = self.path.join(LAUNCH);
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(&serde_json::to_vec(launch)?)
        };
        write().map_err(|error| evidence("writing the launch order", &path, &error))
    }

    pub(super) fn bind(&self) -> Result<UnixListener, Box<LaunchEvidence>> {
        UnixListener::bind(self.socket())
            .map_err(|error| evidence("binding the shim's socket", &self.path.join(SOCKET), &error))
    }

    pub(super) fn open_log(&self) -> Result<File, Box<LaunchEvidence>> {
        let path = self.path.join(LOG);
        detached::open_log(&path).map_err(|error| evidence("opening the shim's log", &path, &error))
    }

    /// Who the shim says it is; `None` before it has said so.
    pub(super) fn identity(&self) -> Option<ShimIdentity> {
        identity(&self.path)
    }

    /// The end of the shim's own log, for the report of a shim that ended before its time.
    pub(super) fn last_words(&self) -> String {
        let log = fs::read(self.path.join(LOG)).unwrap_or_default();
        let tail = &log[log.len().saturating_sub(EVIDENCE_LINE_BYTES_MAX)..];
        format!("its last words: {}", String::from_utf8_lossy(tail).trim())
    }

    pub(super) fn remove(&self) {
        match fs::remove_dir_all(&self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "a directory cannot be removed")
            }
        }
    }
}

fn identity(directory: &Path) -> Option<ShimIdentity> {
    serde_json::from_slice(&fs::read(directory.join(IDENTITY)).ok()?).ok()
}

/// The identities in all directories. One without an identity belongs to a launch that its daemon did not live to
/// see through: nothing was started in it, and it is removed.
pub(super) fn identities(processes: &Path) -> Vec<ShimIdentity> {
    let Ok(entries) = fs::read_dir(processes) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.to_str().and_then(parse_directory_name).is_none() {
            continue;
        }
        match identity(&entry.path()) {
            Some(identity) => found.push(identity),
            None => {
                tracing::info!(directory = %entry.path().display(), "a launch that never began is removed");
                let _gone = fs::remove_dir_all(entry.path());
            }
        }
    }
    found
}

/// A failed step before there was a process.
pub(super) fn evidence(doing: &str, path: &Path, error: &io::Error) -> Box<LaunchEvidence> {
    Box::new(LaunchEvidence {
        errno: error.raw_os_error(),
        path: Some(path.display().to_string()),
        ..launch_evidence(format!("{doing} failed: {error}"))
    })
}

pub(super) fn launch_evidence(message: String) -> LaunchEvidence {
    LaunchEvidence { step: LaunchStep::Shim, errno: None, path: None, message, waited_ms: None }
}
