//! One daemon for each state directory. The lock goes with its holder, whatever ends it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// A held state directory.
#[derive(Debug)]
pub struct StateLock {
    _held: File,
}

/// Who holds it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Holder {
    pid: u32,
    version: String,
}

/// Why a state directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon has it.
    #[error(
        "{} is in use by the daemon with pid {pid} (version {version}); stop it first, or set OUTLIVE_STATE_DIR",
        .directory.display()
    )]
    Held {
        /// The directory.
        directory: PathBuf,
        /// The other daemon.
        pid: u32,
        /// Its version.
        version: String,
    },
    /// It cannot be used.
    #[error("the state directory {} cannot be used", .directory.display())]
    Io {
        /// The directory.
        directory: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Makes the directory (mode 0700) and takes its lock.
///
/// # Errors
/// [`LockError`].
pub fn take(directory: &Path) -> Result<StateLock, LockError> {
    let failed = |source| LockError::Io { directory: directory.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let mut options = OpenOptions::new();
    let path = directory.join("lock");
    let mut file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            let holder = Holder { pid: std::process::id(), version: env!("CARGO_PKG_VERSION").to_owned() };
            let text = serde_json::to_vec(&holder).map_err(|error| failed(error.into()))?;
            file.set_len(0).and_then(|()| file.write_all(&text)).map_err(failed)?;
            Ok(StateLock { _held: file })
        }
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let _at_start = file.seek(SeekFrom::Start(0));
            let _read = file.read_to_string(&mut text);
            let unknown = Holder { pid: 0, version: "unknown".to_owned() };
            let Holder { pid, version } = serde_json::from_str(&text).unwrap_or(unknown);
            Err(LockError::Held { directory: directory.to_owned(), pid, version })
        }
        Err(errno) => Err(failed(errno.into())),
    }
}

/// The node's id: made once, kept in the state directory.
///
/// # Errors
/// When it cannot be read or written.
pub fn node_id(directory: &Path) -> Result<outlive_core::id::NodeId, LockError> {
    let failed = |source| LockError::Io { directory: directory.to_owned(), source };
    let path = directory.join("node");
    if let Some(id) = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()) {
        return Ok(id);
    }
    let id = outlive_core::id::NodeId::from_uuid(uuid::Uuid::now_v7());
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    writeln!(file, "{id}").and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(&path).map_err(|error| failed(error.error))?;
    Ok(id)
}
