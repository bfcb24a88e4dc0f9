//! A claim on a path: a locked file named by the path's directory (device and inode) and its last component. Never a
//! lock on the notebook itself, whose inode changes with each save. The lock goes with its holder, whatever ends it.
//!
//! ```text
//!  path ─► resolved ─► name of its lock ─► ours, for the same session? shared
//!                                          free?                       taken
//!                                          held, and the holder's path leads here?      refused
//!                                          held, and that path leads elsewhere by now?  taken away
//! ```
//! A directory can be moved, removed or replaced under its claims, and its inode's number is given to another one. So a
//! claim counts as long as its path leads to what it is on ([`Claim::standing`], asked before each write), and one that
//! does not keeps nobody out.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use async_trait::async_trait;
use outlive_core::id::SessionId;
use rustix::fs::{Access, FlockOperation, access, flock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{blocking, path};
use crate::seams::{ClaimError, PathClaim, Standing};

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

/// The folders in which claims are recorded, and the claims of this process.
#[derive(Debug)]
pub(super) struct Claims {
    folder: PathBuf,
    /// Where daemons of earlier versions have their locks: there a link leads to each of ours.
    earlier: Option<PathBuf>,
    ours: Mutex<HashMap<PathBuf, Weak<Lock>>>,
}

/// A lock file that is locked as long as this is.
#[derive(Debug)]
struct Lock {
    claims: Arc<Claims>,
    at: PathBuf,
    file: File,
    session: SessionId,
}

/// A held claim.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    path: PathBuf,
    lock: Arc<Lock>,
}

#[async_trait]
impl PathClaim for Claim {
    fn path(&self) -> &Path {
        &self.path
    }

    async fn standing(&self) -> Standing {
        let claim = self.clone();
        blocking(move || claim.look()).await
    }
}

impl Claim {
    fn look(&self) -> Standing {
        // Of what cannot be resolved the write says what is wrong.
        let Ok(now) = path::resolve(&self.path) else { return Standing::Stands };
        let name = match name(&now) {
            Ok(name) => name,
            Err(_) => return Standing::Stands,
        };
        if self.lock.at.file_name().is_some_and(|held| *held == *name) {
            let is_there = is_at(&self.lock.file, &self.lock.at);
            return if is_there { Standing::Stands } else { Standing::Lapsed };
        }
        if now == self.path { Standing::Lapsed } else { Standing::Elsewhere(now) }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Another may be there already, if this one was taken away.
        let mut ours = self.claims.ours();
        if ours.get(&self.at).is_some_and(|lock| lock.strong_count() == 0) {
            ours.remove(&self.at);
        }
        drop(ours);
        // Whoever takes away what does not count does it in the same order.
        let _alone = alone(&self.claims.folder);
        if is_at(&self.file, &self.at) {
            if let Some(link) = self.claims.link(&self.at)
                && fs::read_link(&link).is_ok_and(|to| to == self.at)
            {
                let _gone = fs::remove_file(link);
            }
            let _gone = fs::remove_file(&self.at);
        }
    }
}

impl Claims {
    pub fn new(folder: PathBuf, earlier: Option<PathBuf>) -> Self {
        let earlier = earlier.filter(|earlier| *earlier != folder);
        Self { folder, earlier, ours: Mutex::default() }
    }

    fn ours(&self) -> MutexGuard<'_, HashMap<PathBuf, Weak<Lock>>> {
        self.ours.lock().expect("nothing panics while it holds the claims")
    }

    /// How many locks are held.
    pub fn count(&self) -> usize {
        self.ours().values().filter(|lock| lock.strong_count() > 0).count()
    }

    /// Claims `path`, spelt in whatever way, for a session. One that it has already is shared.
    pub fn take(self: &Arc<Self>, path: &Path, session: SessionId) -> Result<Claim, ClaimError> {
        let path = path::resolve(path)?;
        let shown = path.display().to_string();
        let name = name(&path).map_err(|source| ClaimError::Unresolvable { path: shown.clone(), source })?;
        writable(&path, &shown)?;
        let failed = |source| ClaimError::Io { path: shown.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(failed)?;
        let at = self.folder.join(name);
        let holder = Holder { session, path: shown.clone(), pid: std::process::id() };
        for _ in 0..TRIES {
            if let Some(lock) = self.own(&at, session) {
                write(&lock.file, &holder).map_err(failed)?;
                return Ok(Claim { path, lock });
            }
            let mut file = open(&at).map_err(failed)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_at(&file, &at) => {
                    write(&file, &holder).map_err(failed)?;
                    let lock = Arc::new(Lock { claims: Arc::clone(self), at: at.clone(), file, session });
                    self.show_to_earlier(&at, &shown)?;
                    self.ours().insert(at, Arc::downgrade(&lock));
                    outlive_document::file::clean_up(&path);
                    return Ok(Claim { path, lock });
                }
                // Its holder removed it between our open and our lock.
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => match read(&mut file) {
                    Some(other) if other.is_elsewhere(&at) => self.take_away(&file, &at).map_err(failed)?,
                    Some(other) => return Err(other.refuses()),
                    None => std::thread::sleep(WRITING),
                },
                Err(errno) => return Err(failed(errno.into())),
            }
        }
        let source =
            io::Error::new(io::ErrorKind::WouldBlock, "the claim changes hands too quickly; try again");
        Err(failed(source))
    }

    /// The lock of this session, if it is still where everybody looks for it.
    fn own(&self, at: &Path, session: SessionId) -> Option<Arc<Lock>> {
        let lock = self.ours().get(at)?.upgrade()?;
        (lock.session == session && is_at(&lock.file, at)).then_some(lock)
    }

    /// Removes a lock file whose holder has it locked and not where its path leads any more. The holder finds that out
    /// before it writes again.
    fn take_away(&self, seen: &File, at: &Path) -> io::Result<()> {
        let _alone = alone(&self.folder)?;
        if is_at(seen, at) { fs::remove_file(at) } else { Ok(()) }
    }

    /// Where an earlier version looks for this lock.
    fn link(&self, at: &Path) -> Option<PathBuf> {
        Some(self.earlier.as_ref()?.join(at.file_name()?))
    }

    /// Keeps daemons of earlier versions out, and is kept out by them.
    fn show_to_earlier(&self, at: &Path, shown: &str) -> Result<(), ClaimError> {
        let (Some(folder), Some(link)) = (&self.earlier, self.link(at)) else { return Ok(()) };
        let failed = |source| ClaimError::Io { path: shown.to_owned(), source };
        match DirBuilder::new().recursive(true).mode(0o700).create(folder) {
            // It is gone with its login, and so is whoever had locks in it.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) =>
            {
                tracing::debug!(folder = %folder.display(), %error, "claims are not shown to earlier versions");
                return Ok(());
            }
            made => made.map_err(failed)?,
        }
        for _ in 0..TRIES {
            match symlink(at, &link) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                done => return done.map_err(failed),
            }
            match fs::read_link(&link) {
                Ok(to) if to == at => return Ok(()),
                // Of a daemon with another folder.
                Ok(_) => drop(fs::remove_file(&link)),
                // A lock of theirs, or what is left of it.
                Err(_) => {
                    let Ok(mut theirs) = File::open(&link) else { continue };
                    match flock(&theirs, FlockOperation::NonBlockingLockExclusive) {
                        Ok(()) if is_at(&theirs, &link) => drop(fs::remove_file(&link)),
                        Ok(()) => {}
                        Err(_) => match read(&mut theirs) {
                            Some(other) => return Err(other.refuses()),
                            None => std::thread::sleep(WRITING),
                        },
                    }
                }
            }
        }
        Err(failed(io::ErrorKind::WouldBlock.into()))
    }
}

impl Holder {
    fn refuses(self) -> ClaimError {
        ClaimError::Held { path: self.path, session: self.session, pid: self.pid }
    }

    /// Whether its path leads to something else than this lock is for. One who sees other directories than we do is
    /// believed.
    fn is_elsewhere(&self, at: &Path) -> bool {
        let sees = |pid: &str| fs::read_link(Path::new("/proc").join(pid).join("ns/mnt")).ok();
        if sees("self").is_none() || sees("self") != sees(&self.pid.to_string()) {
            return false;
        }
        match path::resolve(Path::new(&self.path)).map(|path| name(&path)) {
            Ok(Ok(name)) => at.file_name().is_some_and(|held| *held != *name),
            Err(ClaimError::MissingDirectory { .. } | ClaimError::NoDirectory { .. }) => true,
            Ok(Err(_)) | Err(_) => false,
        }
    }
}

/// What the lock file of a resolved path is called.
fn name(path: &Path) -> io::Result<String> {
    let directory = path.parent().expect("a resolved path is absolute and no directory");
    let name = path.file_name().expect("a resolved path is absolute and no directory");
    let place = fs::metadata(directory)?;
    let hash = Sha256::digest(path::distinct(directory, name));
    let hex = hash.iter().take(12).fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    Ok(format!("{:x}-{:x}-{hex}", place.dev(), place.ino()))
}

/// Nobody else removes lock files while this is held.
fn alone(folder: &Path) -> io::Result<File> {
    let folder = File::open(folder)?;
    flock(&folder, FlockOperation::LockExclusive)?;
    Ok(folder)
}

fn open(at: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).open(at)
}

fn writable(file: &Path, shown: &str) -> Result<(), ClaimError> {
    let refused =
        |source: rustix::io::Errno| ClaimError::NotWritable { path: shown.to_owned(), source: source.into() };
    let directory = file.parent().expect("a resolved path is absolute and no directory");
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

    fn desk() -> (tempfile::TempDir, Arc<Claims>) {
        let place = tempfile::tempdir().unwrap();
        let claims = Claims::new(place.path().join("claims"), None);
        (place, Arc::new(claims))
    }

    fn left(claims: &Claims) -> usize {
        fs::read_dir(&claims.folder).unwrap().count()
    }

    fn holder(refused: Result<Claim, ClaimError>) -> SessionId {
        match refused {
            Err(ClaimError::Held { session, .. }) => session,
            otherwise => panic!("{otherwise:?}"),
        }
    }

    #[test]
    fn a_session_does_not_meet_its_own_claim() {
        let (place, claims) = desk();
        let (path, mine) = (place.path().join("n.ipynb"), session());
        let first = claims.take(&path, mine).unwrap();
        let second = claims.take(&path, mine).unwrap();
        assert_eq!(claims.count(), 1);
        drop(first);
        assert_eq!(holder(claims.take(&path, session())), mine, "it has it until the last of them goes");
        drop(second);
        claims.take(&path, session()).unwrap();
        assert_eq!((claims.count(), left(&claims)), (0, 0));
    }

    #[test]
    fn a_claim_whose_directory_was_made_anew_has_lapsed_and_keeps_nobody_out() {
        // C2
        let (place, claims) = desk();
        let (directory, mine) = (place.path().join("p"), session());
        fs::create_dir(&directory).unwrap();
        let path = directory.join("n.ipynb");
        let claim = claims.take(&path, mine).unwrap();
        assert_eq!(claim.look(), Standing::Stands);
        // Another one has its name, as after a checkout of another branch and back.
        fs::rename(&directory, place.path().join("moved")).unwrap();
        assert_eq!(claim.look(), Standing::Stands, "nothing is there to be written");
        fs::create_dir(&directory).unwrap();
        assert_eq!(claim.look(), Standing::Lapsed);
        // What it is on has another name, as if the number of its inode had been given away.
        let other = session();
        let theirs = claims.take(&place.path().join("moved/n.ipynb"), other).unwrap();
        assert_eq!(theirs.look(), Standing::Stands);
        assert_eq!(holder(claims.take(&place.path().join("moved/n.ipynb"), session())), other);
        // Taken anew where the path leads; and the old one, when it goes, takes nothing of others along.
        let anew = claims.take(&path, mine).unwrap();
        drop(claim);
        assert_eq!((anew.look(), theirs.look()), (Standing::Stands, Standing::Stands));
        assert_eq!((claims.count(), left(&claims)), (2, 2));
    }

    #[test]
    fn a_session_has_its_file_where_the_directory_was_renamed_to() {
        // C2
        let (place, claims) = desk();
        let (q, q2, mine) = (place.path().join("q"), place.path().join("q2"), session());
        fs::create_dir(&q).unwrap();
        let _claim = claims.take(&q.join("n.ipynb"), mine).unwrap();
        fs::rename(&q, &q2).unwrap();
        let moved = claims.take(&q2.join("n.ipynb"), mine).unwrap();
        assert_eq!(moved.path(), path::resolve(&q2.join("n.ipynb")).unwrap());
        assert_eq!(holder(claims.take(&q2.join("n.ipynb"), session())), mine);
    }

    #[test]
    fn a_path_that_became_a_link_leads_elsewhere() {
        // C2
        let (place, claims) = desk();
        let (a, b) = (place.path().join("a.ipynb"), place.path().join("b.ipynb"));
        fs::write(&b, "").unwrap();
        let claim = claims.take(&a, session()).unwrap();
        symlink(&b, &a).unwrap();
        assert_eq!(claim.look(), Standing::Elsewhere(path::resolve(&b).unwrap()));
        fs::remove_file(&a).unwrap();
        assert_eq!(claim.look(), Standing::Stands);
        // Somebody has wiped the folder: the lock is no lock any more.
        fs::remove_dir_all(&claims.folder).unwrap();
        assert_eq!(claim.look(), Standing::Lapsed);
    }

    /// Takes a path as version 0.1 did, in the folder that it knew.
    fn take_as_before(folder: &Path, path: &Path) -> Option<File> {
        fs::create_dir_all(folder).unwrap();
        let at = folder.join(name(path).unwrap());
        let file = open(&at).unwrap();
        flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
        write(&file, &Holder { session: session(), path: path.display().to_string(), pid: 1 }).unwrap();
        is_at(&file, &at).then_some(file)
    }

    #[test]
    fn daemons_of_the_version_before_are_kept_out_and_keep_out() {
        // D6
        let place = tempfile::tempdir().unwrap();
        let path = path::resolve(&place.path().join("n.ipynb")).unwrap();
        let earlier = place.path().join("run/claims");
        let claims = Arc::new(Claims::new(place.path().join("claims"), Some(earlier.clone())));
        // They have it; when they have died, what is left is no obstacle.
        let theirs = take_as_before(&earlier, &path).unwrap();
        assert!(matches!(claims.take(&path, session()), Err(ClaimError::Held { pid: 1, .. })));
        drop(theirs);
        let ours = claims.take(&path, session()).unwrap();
        assert!(take_as_before(&earlier, &path).is_none());
        drop(ours);
        assert_eq!((left(&claims), fs::read_dir(&earlier).unwrap().count()), (0, 0));
        // Daemons with other runtime directories share the one folder.
        let third = Arc::new(Claims::new(place.path().join("claims"), Some(place.path().join("other"))));
        let ours = claims.take(&path, session()).unwrap();
        holder(third.take(&path, session()));
        drop(ours);
        third.take(&path, session()).unwrap();
    }

    #[test]
    fn one_of_two_spellings_of_a_path_wins_and_the_other_is_told_who_holds_it() {
        // C2
        let (place, claims) = desk();
        fs::create_dir(place.path().join("real")).unwrap();
        std::os::unix::fs::symlink(place.path().join("real"), place.path().join("link")).unwrap();
        std::os::unix::fs::symlink(place.path().join("real/n.ipynb"), place.path().join("dangling.ipynb"))
            .unwrap();
        let first = session();
        let held = claims.take(&place.path().join("real/n.ipynb"), first).unwrap();
        for other in ["link/n.ipynb", "real/../link/n.ipynb", "dangling.ipynb"] {
            match claims.take(&place.path().join(other), session()) {
                Err(ClaimError::Held { session, .. }) => assert_eq!(session, first, "{other}"),
                otherwise => panic!("{other}: {otherwise:?}"),
            }
        }
        drop(held);
        claims.take(&place.path().join("link/n.ipynb"), session()).unwrap();
        assert_eq!(left(&claims), 0, "a claim that is given back leaves no file");
    }

    #[test]
    fn of_many_that_race_for_a_path_one_has_it_at_a_time() {
        // C2
        let (place, claims) = desk();
        let path = place.path().join("n.ipynb");
        let holders = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        if let Ok(claim) = claims.take(&path, session()) {
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
