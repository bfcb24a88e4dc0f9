//! The notebook's file: read whole, replaced whole, never half.
//!
//! A write goes to a temporary file in the same directory, which is fsynced and renamed over the target; then the
//! directory is fsynced. Whatever dies in between, the file is the old one or the new one. A symbolic link is written
//! through: its target is replaced, the link stays. Mode and (where permitted) owner are kept; hard links and extended
//! attributes are not. All functions block.
//!
//! A writer holds a lock on its temporary file. One that can be locked by somebody else is the leftover of a writer
//! that died, and is removed by whoever reads or claims the notebook next.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirEntryExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use outlive_core::limits::NOTEBOOK_FILE_BYTES_MAX;
use rustix::fs::{Access, FlockOperation, RenameFlags, flock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What a file was when it was last read or written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileStamp {
    /// Inode number.
    pub inode: u64,
    /// Length in bytes.
    pub size: u64,
    /// Time of the last change of content, in nanoseconds since 1970-01-01 UTC.
    pub mtime_ns: i64,
    /// Time of the last change of anything, which no program can set back. Stamps of earlier versions have none: then
    /// only the content tells that the file is the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctime_ns: Option<i64>,
    /// SHA-256 of the content.
    pub hash: [u8; 32],
}

/// What a file looks like from outside, without reading it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileMeta {
    /// Inode number.
    pub inode: u64,
    /// Length in bytes.
    pub size: u64,
    /// Time of the last change of content, in nanoseconds since 1970-01-01 UTC.
    pub mtime_ns: i64,
    /// Time of the last change of anything, a rename too; `None` when that is not known.
    pub ctime_ns: Option<i64>,
}

impl FileMeta {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            size: metadata.len(),
            mtime_ns: mtime_ns(metadata),
            ctime_ns: Some(ctime_ns(metadata)),
        }
    }

    /// Whether this is that file under another name, as far as can be told without reading it.
    #[must_use]
    pub fn is_renamed(&self, before: &Self) -> bool {
        (self.inode, self.size, self.mtime_ns) == (before.inode, before.size, before.mtime_ns)
    }
}

impl FileStamp {
    /// What the file looked like from outside.
    #[must_use]
    pub const fn meta(&self) -> FileMeta {
        let Self { inode, size, mtime_ns, ctime_ns, hash: _ } = *self;
        FileMeta { inode, size, mtime_ns, ctime_ns }
    }
}

/// What a writer believes to be on disk.
#[derive(Clone, Copy, Debug)]
pub enum Expected<'a> {
    /// Whatever is there may be replaced: somebody has decided so.
    Anything,
    /// Nothing is there.
    Absent,
    /// What was last read or written.
    Unchanged(&'a FileStamp),
}

/// A file that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Nothing has this path.
    #[error("there is no file {0:?}")]
    NotFound(PathBuf),
    /// A directory, a pipe, a device.
    #[error("{0:?} is not a file but {1}")]
    NotAFile(PathBuf, &'static str),
    /// Over the limit.
    #[error("{path:?} has {size} bytes; a notebook may have {limit}: clear the outputs of some cells")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// It changes faster than it can be read: somebody writes it at this moment.
    #[error("{0:?} is being written by another program; try again when that is done")]
    InMidWrite(PathBuf),
    /// The file's mode forbids it.
    #[error("no permission to read {0:?}; ask its owner, or change its mode")]
    NoPermission(PathBuf),
    /// Anything else that the system said.
    #[error("{path:?} could not be read")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A file that was not replaced. It is as it was, and no temporary file is left.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Another program has changed, removed or made it since: merge or ask before writing again.
    #[error("{path:?} was {} by another program since it was last read or written", if .now.is_some() { "changed" } else { "removed" })]
    Changed {
        /// The file.
        path: PathBuf,
        /// What it looks like now; `None` when it is gone.
        now: Option<FileMeta>,
    },
    /// A directory, a pipe, a device.
    #[error("{0:?} is not a file but {1}")]
    NotAFile(PathBuf, &'static str),
    /// The parent directory is missing.
    #[error("the directory of {0:?} does not exist; make it first")]
    MissingDirectory(PathBuf),
    /// The file system is mounted read-only.
    #[error("{0:?} is on a read-only file system; save it under another path")]
    ReadOnly(PathBuf),
    /// The mode of the file or of its directory forbids it.
    #[error("no permission to write {0:?} or its directory; change the mode, or save it under another path")]
    NoPermission(PathBuf),
    /// No space, or the quota is used up.
    #[error("the disk of {0:?} is full; the old file is intact: free some space and save again")]
    DiskFull(PathBuf),
    /// The name or the whole path is longer than the file system takes.
    #[error("the path {0:?} is too long for its file system; save it under a shorter name")]
    PathTooLong(PathBuf),
    /// Anything else that the system said.
    #[error("{path:?} could not be written; the old file is intact")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Reads a whole notebook file and what it is at this moment. Temporary files of writers that died are removed.
///
/// # Errors
/// When it is not a readable file of reasonable size, or changes while it is read.
pub fn read(path: &Path) -> Result<(Vec<u8>, FileStamp), ReadError> {
    let error = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ReadError::NotFound(path.to_owned()),
        io::ErrorKind::PermissionDenied => ReadError::NoPermission(path.to_owned()),
        _ => ReadError::Io { path: path.to_owned(), source },
    };
    let metadata = fs::metadata(path).map_err(error)?;
    if let Some(what) = not_a_file(&metadata) {
        return Err(ReadError::NotAFile(path.to_owned(), what));
    }
    let limit = NOTEBOOK_FILE_BYTES_MAX;
    let too_large = |size| ReadError::TooLarge { path: path.to_owned(), size, limit };
    if metadata.len() > limit {
        return Err(too_large(metadata.len()));
    }
    let mut file = File::open(path).map_err(error)?;
    let before = file.metadata().map_err(error)?;
    let mut bytes = Vec::new();
    (&mut file).take(limit + 1).read_to_end(&mut bytes).map_err(error)?;
    if bytes.len() as u64 > limit {
        return Err(too_large(bytes.len() as u64));
    }
    let after = file.metadata().map_err(error)?;
    if FileMeta::of(&before) != FileMeta::of(&after) || after.len() != bytes.len() as u64 {
        return Err(ReadError::InMidWrite(path.to_owned()));
    }
    clean_up(path);
    let stamp = stamp(&after, &bytes);
    Ok((bytes, stamp))
}

/// Looks at a file without reading it. `None` when nothing has this path.
///
/// # Errors
/// As the system says.
pub fn look(path: &Path) -> io::Result<Option<FileMeta>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(FileMeta::of(&metadata))),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The file of a directory that has this inode number. The system gives the number of a file that was deleted to
/// the next one that is made: whoever looks for a renamed file compares size and time too.
#[must_use]
pub fn find_inode(directory: &Path, inode: u64) -> Option<PathBuf> {
    let named = fs::read_dir(directory).ok()?.flatten().find(|entry| entry.ino() == inode)?;
    named.file_type().ok()?.is_file().then(|| named.path())
}

/// Replaces the file at `path` by `bytes` in one step, if it still is what the caller believes.
///
/// # Errors
/// When it is not, or cannot be written: nothing has changed then.
pub fn write_atomic(path: &Path, bytes: &[u8], expected: Expected<'_>) -> Result<FileStamp, WriteError> {
    let target = resolve_links(path).map_err(|source| write_error(path, source))?;
    let old = match fs::symlink_metadata(&target) {
        Ok(metadata) => Some(metadata),
        Err(source) if source.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(write_error(path, source)),
    };
    if let Some(what) = old.as_ref().and_then(not_a_file) {
        return Err(WriteError::NotAFile(path.to_owned(), what));
    }
    check(path, &target, expected)?;
    if old.is_some() {
        // A rename would replace a file that its owner has made read-only.
        rustix::fs::access(&target, Access::WRITE_OK).map_err(|errno| write_error(path, errno.into()))?;
    }
    let (temporary, file) = make_temporary(&target).map_err(|source| write_error(path, source))?;
    let written = fill(&file, bytes, old.as_ref())
        .map_err(|source| write_error(path, source))
        // Again, now that the slow part is done: what is left between check and rename is microseconds.
        .and_then(|filled| check(path, &target, expected).map(|()| filled))
        .and_then(|filled| replace(path, &temporary, &target, expected).map(|()| filled));
    match written {
        Ok(filled) => Ok(stamp(&renamed(&file, filled), bytes)),
        Err(error) => {
            // Where even this fails, the next reader of the notebook removes it.
            let _ = fs::remove_file(&temporary);
            Err(error)
        }
    }
}

/// Removes temporary files of this notebook whose writers are gone.
pub fn clean_up(path: &Path) {
    let Ok(target) = resolve_links(path) else { return };
    let Some(prefix) = temporary_prefix(&target) else { return };
    let Some(Ok(entries)) = target.parent().map(fs::read_dir) else { return };
    for entry in entries.flatten() {
        let named = entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix));
        if !named || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let Ok(left) = OpenOptions::new().write(true).open(entry.path()) else { continue };
        // By the lock and not by the writer's pid: that may be somebody else's by now, or ours, in a container
        // that was started again.
        if flock(&left, FlockOperation::NonBlockingLockExclusive).is_ok() && is_at(&left, &entry.path()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// How many names for a temporary file are tried: as many as one that dies again and again may have left.
const TEMPORARY_TRIES: usize = 1_000;

/// How much of a file is read at once to compare it.
const PIECE_BYTES: usize = 1 << 20;

/// How many symbolic links may follow on each other, as in Linux.
const LINKS_MAX: usize = 40;

/// The path that a write must replace: links followed to the end, also to a target that does not exist yet.
fn resolve_links(path: &Path) -> io::Result<PathBuf> {
    let mut target = path.to_owned();
    for _ in 0..LINKS_MAX {
        let Ok(link) = fs::read_link(&target) else {
            let name = target.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_owned();
            let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
            return Ok(fs::canonicalize(parent.unwrap_or(Path::new(".")))?.join(name));
        };
        target = target.parent().unwrap_or(Path::new("")).join(link);
    }
    Err(rustix::io::Errno::LOOP.into())
}

fn check(path: &Path, target: &Path, expected: Expected<'_>) -> Result<(), WriteError> {
    let changed = |now| Err(WriteError::Changed { path: path.to_owned(), now });
    let last = match expected {
        Expected::Anything => return Ok(()),
        Expected::Absent => None,
        Expected::Unchanged(stamp) => Some(stamp),
    };
    let now = match fs::metadata(target) {
        Ok(metadata) => FileMeta::of(&metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return if last.is_some() { changed(None) } else { Ok(()) };
        }
        Err(source) => return Err(write_error(path, source)),
    };
    // What has another size is not read: it may be anything.
    let Some(last) = last.filter(|last| last.size == now.size) else { return changed(Some(now)) };
    // Touched, copied back or checked out again with the same content: nothing that a write would lose.
    if last.meta() == now || has_hash(target, last).map_err(|source| write_error(path, source))? {
        Ok(())
    } else {
        changed(Some(now))
    }
}

/// Whether the file still has the content of this stamp, whose size it has. It is read piece by piece, and no further.
fn has_hash(target: &Path, last: &FileStamp) -> io::Result<bool> {
    if last.size > NOTEBOOK_FILE_BYTES_MAX {
        return Ok(false);
    }
    let mut file = File::open(target)?.take(last.size + 1);
    let (mut hash, mut piece) = (Sha256::new(), vec![0; PIECE_BYTES]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(<[u8; 32]>::from(hash.finalize()) == last.hash),
            read => hash.update(&piece[..read]),
        }
    }
}

/// What the file that was filled is after its rename, which is a change to it too. Somebody who has written into it since
/// then is not covered up.
fn renamed(file: &File, filled: Metadata) -> Metadata {
    match file.metadata() {
        Ok(now) if FileMeta::of(&now).is_renamed(&FileMeta::of(&filled)) => now,
        Ok(_) | Err(_) => filled,
    }
}

/// What the names of a target's temporary files begin with. Long names are shortened: the temporary name must fit
/// where the name itself does.
fn temporary_prefix(target: &Path) -> Option<String> {
    let name = target.file_name()?.to_string_lossy();
    let short = &name[..name.floor_char_boundary(200)];
    Some(format!(".{short}.outlive-tmp-"))
}

/// Makes a temporary file for a target, and locks it against [`clean_up`].
fn make_temporary(target: &Path) -> io::Result<(PathBuf, File)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let prefix = temporary_prefix(target).expect("resolve_links gives a path with a name");
    for _ in 0..TEMPORARY_TRIES {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = target.with_file_name(format!("{prefix}{}-{number}", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).mode(0o666).open(&path) {
            Ok(file) => {
                // A file system without locks has nobody who could take it away either.
                let _ = flock(&file, FlockOperation::LockExclusive);
                if is_at(&file, &path) {
                    return Ok((path, file));
                }
            }
            // Left by a process that had our pid.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "every name for a temporary file is taken"))
}

/// Whether this open file still is what the path leads to.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn fill(mut file: &File, bytes: &[u8], old: Option<&Metadata>) -> io::Result<Metadata> {
    file.write_all(bytes)?;
    if let Some(old) = old {
        if (old.uid(), old.gid()) != (file.metadata()?.uid(), file.metadata()?.gid()) {
            // Only root may give a file away; without that it belongs to who writes it.
            let _ = std::os::unix::fs::fchown(file, Some(old.uid()), Some(old.gid()));
        }
        file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
    }
    file.sync_all()?;
    file.metadata()
}

fn replace(path: &Path, temporary: &Path, target: &Path, expected: Expected<'_>) -> Result<(), WriteError> {
    let renamed = if matches!(expected, Expected::Absent) {
        match rustix::fs::renameat_with(
            rustix::fs::CWD,
            temporary,
            rustix::fs::CWD,
            target,
            RenameFlags::NOREPLACE,
        ) {
            // Some network file systems cannot refuse to replace; `check` has looked a moment ago.
            Err(rustix::io::Errno::INVAL) => fs::rename(temporary, target),
            done => done.map_err(io::Error::from),
        }
    } else {
        fs::rename(temporary, target)
    };
    match renamed {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            check(path, target, expected)?;
            // It was there for a moment only; whoever made it is at work on it.
            return Err(WriteError::Changed { path: path.to_owned(), now: None });
        }
        other => other.map_err(|source| write_error(path, source))?,
    }
    let directory = target.parent().expect("resolve_links gives an absolute path");
    // The rename is done and cannot be taken back, so a directory that cannot be synced is no failure of the write.
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
    Ok(())
}

fn write_error(path: &Path, source: io::Error) -> WriteError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => WriteError::MissingDirectory(path),
        io::ErrorKind::IsADirectory => WriteError::NotAFile(path, "a directory"),
        io::ErrorKind::ReadOnlyFilesystem => WriteError::ReadOnly(path),
        io::ErrorKind::PermissionDenied => WriteError::NoPermission(path),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => WriteError::DiskFull(path),
        io::ErrorKind::InvalidFilename => WriteError::PathTooLong(path),
        _ => WriteError::Io { path, source },
    }
}

fn not_a_file(metadata: &Metadata) -> Option<&'static str> {
    if metadata.is_file() {
        None
    } else if metadata.is_dir() {
        Some("a directory")
    } else {
        Some("a pipe, socket or device")
    }
}

fn stamp(metadata: &Metadata, bytes: &[u8]) -> FileStamp {
    FileStamp {
        inode: metadata.ino(),
        size: metadata.len(),
        mtime_ns: mtime_ns(metadata),
        ctime_ns: Some(ctime_ns(metadata)),
        hash: Sha256::digest(bytes).into(),
    }
}

fn mtime_ns(metadata: &Metadata) -> i64 {
    metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec())
}

fn ctime_ns(metadata: &Metadata) -> i64 {
    metadata.ctime().saturating_mul(1_000_000_000).saturating_add(metadata.ctime_nsec())
}
