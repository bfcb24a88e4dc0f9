//! A claim on a path: a locked file named by the path's directory (device and inode) and its last component. Never a
//! lock on the notebook itself, whose inode changes with each save. The lock goes with its holder, whatever ends it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use outlive_core::id::SessionId;
use rustix::fs::{Access, FlockOperation, access, flock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::path;
use crate::seams::{ClaimError, PathClaim};

/// How often a lock file that vanishes under our hands is made again, or one that is being written is read again.
const TRIES: usize = 500;
/// How long its holder is given to write it, each time: it has it locked and is between two calls.
const WRITING: Duration = Duration::from_millis(1);

/// What stands in a lock file.
#[derive(Serialize, Deserialize)]
struct Holder {
    session: SessionId,
    path: String,
    pid: u32,
}

/// A held claim.
#[derive(Debug)]
pub(super) struct Claim {
    path: PathBuf,
    lock: PathBuf,
    /// Locked as long as it is open.
    held: File,
    counted: Option<Arc<()>>,
}

impl Claim {
    /// The same, counted by the copies of `counted` that there are.
    pub(super) fn counted(mut self, counted: Arc<()>) -> Self {
        self.counted = Some(counted);
        self
    }
}

impl PathClaim for Claim {
    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Still locked, so nobody else can have made a file of this name.
        let _gone = fs::remove_file(&self.lock);
    }
}

/// Claims `path`, spelt in whatever way, for a session.
pub(super) fn take(claims: &Path, path: &Path, session: SessionId) -> Result<Claim, ClaimError> {
    let path = path::resolve(path)?;
    let shown = path.display().to_string();
    let directory = path.parent().expect("a resolved path is absolute and no directory");
    let name = path.file_name().expect("a resolved path is absolute and no directory");
    let place =
        fs::metadata(directory).map_err(|source| ClaimError::Unresolvable { path: shown.clone(), source })?;
    writable(directory, &path, &shown)?;
    let failed = |source| ClaimError::Io { path: shown.clone(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(claims).map_err(failed)?;
    let hash = Sha256::digest(path::distinct(directory, name));
    let hex = hash.iter().take(12).fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let lock = claims.join(format!("{:x}-{:x}-{hex}", place.dev(), place.ino()));
    let holder = Holder { session, path: shown.clone(), pid: std::process::id() };
    for _ in 0..TRIES {
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock)
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) if is_at(&file, &lock) => {
                let claim = Claim { path, lock, held: file, counted: None };
                write(&claim.held, &holder).map_err(failed)?;
                outlive_document::file::clean_up(&claim.path);
                return Ok(claim);
            }
            // Its holder removed it between our open and our lock.
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                if let Some(other) = read(&mut file) {
                    return Err(ClaimError::Held {
                        path: other.path,
                        session: other.session,
                        pid: other.pid,
                    });
                }
                std::thread::sleep(WRITING);
            }
            Err(errno) => return Err(failed(errno.into())),
        }
    }
    Err(failed(io::Error::new(io::ErrorKind::WouldBlock, "the claim changes hands too quickly; try again")))
}

fn writable(directory: &Path, file: &Path, shown: &str) -> Result<(), ClaimError> {
    let refused =
        |source: rustix::io::Errno| ClaimError::NotWritable { path: shown.to_owned(), source: source.into() };
    access(directory, Access::WRITE_OK | Access::EXEC_OK).map_err(refused)?;
    match access(file, Access::WRITE_OK) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(errno) => Err(refused(errno)),
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(there)) => held.ino() == there.ino() && held.dev() == there.dev(),
        _ => false,
    }
}

fn write(mut file: &File, holder: &Holder) -> io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&serde_json::to_vec(holder)?)
}

/// `None` while the holder is still writing it.
fn read(file: &mut File) -> Option<Holder> {
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn session() -> SessionId {
        SessionId::from_uuid(Uuid::now_v7())
    }

    #[test]
    fn one_of_two_spellings_of_a_path_wins_and_the_other_is_told_who_holds_it() {
        // C2
        let place = tempfile::tempdir().unwrap();
        let claims = place.path().join("claims");
        fs::create_dir(place.path().join("real")).unwrap();
        std::os::unix::fs::symlink(place.path().join("real"), place.path().join("link")).unwrap();
        std::os::unix::fs::symlink(place.path().join("real/n.ipynb"), place.path().join("dangling.ipynb"))
            .unwrap();
        let first = session();
        let held = take(&claims, &place.path().join("real/n.ipynb"), first).unwrap();
        for other in ["link/n.ipynb", "real/../link/n.ipynb", "dangling.ipynb"] {
            match take(&claims, &place.path().join(other), session()) {
                Err(ClaimError::Held { session, .. }) => assert_eq!(session, first, "{other}"),
                otherwise => panic!("{other}: {otherwise:?}"),
            }
        }
        drop(held);
        take(&claims, &place.path().join("link/n.ipynb"), session()).unwrap();
        assert_eq!(fs::read_dir(&claims).unwrap().count(), 0, "a claim that is given back leaves no file");
    }

    #[test]
    fn of_many_that_race_for_a_path_one_has_it_at_a_time() {
        // C2
        let place = tempfile::tempdir().unwrap();
        let (claims, path) = (place.path().join("claims"), place.path().join("n.ipynb"));
        let holders = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        if let Ok(claim) = take(&claims, &path, session()) {
                            assert_eq!(holders.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                            holders.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                            drop(claim);
                        }
                    }
                });
            }
        });
    }
}
