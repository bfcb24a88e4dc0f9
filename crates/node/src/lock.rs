//! One daemon for each state directory. The lock goes with its holder, whatever ends it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// How often what the holder writes is read again, and how long it is given each time.
const TRIES: usize = 1_000;
const WRITING: Duration = Duration::from_millis(1);

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
            let Holder { pid, version } = holder(&mut file);
            Err(LockError::Held { directory: directory.to_owned(), pid, version })
        }
        Err(errno) => Err(failed(errno.into())),
    }
}

/// Who has the lock. It is between two calls, when there is nothing yet, or what the one before it wrote.
fn holder(file: &mut File) -> Holder {
    let read = |file: &mut File| {
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).ok()?;
        file.read_to_string(&mut text).ok()?;
        let holder: Holder = serde_json::from_str(&text).ok()?;
        Path::new("/proc").join(holder.pid.to_string()).exists().then_some(holder)
    };
    for _ in 0..TRIES {
        if let Some(holder) = read(file) {
            return holder;
        }
        std::thread::sleep(WRITING);
    }
    Holder { pid: 0, version: "unknown".to_owned() }
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

#[cfg(test)]
mod tests {
    use super::*;

    // D5: of daemons that start at once, those that lose say which has won, also while it is about to say that itself.
    #[test]
    fn the_holder_is_named_although_it_has_not_written_its_name_yet() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("lock");
        // What a daemon left that ended long ago. No process has this pid.
        fs::write(&path, r#"{"pid":4194305,"version":"0.0"}"#).unwrap();
        let mut winner = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        flock(&winner, FlockOperation::NonBlockingLockExclusive).unwrap();
        let loser = std::thread::scope(|scope| {
            let loser = scope.spawn(|| take(place.path()));
            // It waits: it has not read that name.
            while !loser.is_finished() && reads_of(&path) == 0 {
                std::thread::yield_now();
            }
            winner.set_len(0).unwrap();
            let holder = Holder { pid: std::process::id(), version: "1.2".to_owned() };
            winner.write_all(&serde_json::to_vec(&holder).unwrap()).unwrap();
            loser.join().unwrap()
        });
        match loser {
            Err(LockError::Held { pid, version, .. }) => {
                assert_eq!((pid, &*version), (std::process::id(), "1.2"));
            }
            otherwise => panic!("{otherwise:?}"),
        }
    }

    /// How many descriptors of this process beside the winner's are open on the file.
    fn reads_of(path: &Path) -> usize {
        let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
        open.filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == path)).count().saturating_sub(1)
    }
}
