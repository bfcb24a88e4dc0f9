//! Where a notebook really is. Two spellings of one file give one path: links are followed, also one that leads to
//! nothing yet, `..` goes up from the real directory, and where names differ by case alone the one on disk is taken.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use uuid::Uuid;

use crate::seams::{ClaimError, Files};

/// What the name of a notebook ends in.
const SUFFIX: &str = ".ipynb";
/// Longest name of a file, in bytes, on every file system that Linux writes.
const NAME_BYTES_MAX: usize = 255;
/// How many links may follow on each other, as in Linux.
const LINKS_MAX: usize = 40;
/// How many entries of a directory are asked whether case matters in it.
const CASE_PROBES_MAX: usize = 8;

/// The path of the notebook that a person means: `.ipynb` is appended where it is missing.
///
/// # Errors
/// When it names no file, or is the id of a session, with the ending or without.
pub fn notebook_path(path: &Path) -> Result<PathBuf, ClaimError> {
    let name = file_name(path)?;
    let id = name.to_str().map(|name| name.strip_suffix(SUFFIX).unwrap_or(name));
    if let Some(id) = id.filter(|id| Uuid::try_parse(id).is_ok()) {
        return Err(ClaimError::UseTheId { path: id.to_owned() });
    }
    if name.as_bytes() == SUFFIX.as_bytes() {
        return Err(bad(path, "its name is empty"));
    }
    let whole = if name.as_bytes().ends_with(SUFFIX.as_bytes()) {
        path.to_owned()
    } else {
        let mut whole = name.to_owned();
        whole.push(SUFFIX);
        path.with_file_name(whole)
    };
    file_name(&whole)?;
    Ok(whole)
}

/// Where the notebook really is that a person means. What names a directory, or something else that no notebook can be,
/// is not another name for the notebook beside it.
///
/// # Errors
/// When no notebook can be there.
pub async fn notebook_at(files: &dyn Files, asked: &Path) -> Result<PathBuf, ClaimError> {
    let named = notebook_path(asked)?;
    if named != asked
        && let Err(error @ ClaimError::BadPath { .. }) = files.resolve(asked).await
    {
        return Err(error);
    }
    files.resolve(&named).await
}

/// See [`crate::seams::Files::resolve`].
pub(super) fn resolve(asked: &Path) -> Result<PathBuf, ClaimError> {
    if !asked.is_absolute() {
        return Err(ClaimError::Relative { path: asked.display().to_string() });
    }
    let mut path = asked.to_owned();
    for _ in 0..LINKS_MAX {
        let name = file_name(&path).map_err(|error| about(asked, error))?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        let directory = fs::canonicalize(parent).map_err(|source| no_directory(asked, parent, source))?;
        let here = directory.join(name);
        let found = match fs::symlink_metadata(&here) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(no_directory(asked, &directory, source)),
            Ok(metadata) => Some(metadata),
        };
        match found {
            Some(link) if link.is_symlink() => {
                let target = fs::read_link(&here).map_err(|source| unresolvable(asked, source))?;
                path = directory.join(target);
            }
            Some(other) if other.is_dir() => return Err(bad(asked, "it is a directory")),
            Some(other) if !other.is_file() => return Err(bad(asked, "it is a pipe, a socket or a device")),
            there => {
                let mut real = directory
                    .components()
                    .fold(PathBuf::new(), |above, part| spelt(&above, part.as_os_str()));
                real = if there.is_some() { spelt(&real, name) } else { real.join(name) };
                // A session keeps its path as text: another file must not be written instead.
                return if real.to_str().is_some() {
                    Ok(real)
                } else {
                    Err(bad(asked, "it is no valid UTF-8"))
                };
            }
        }
    }
    Err(unresolvable(asked, rustix::io::Errno::LOOP.into()))
}

/// The last component, if it can be the name of a file.
fn file_name(path: &Path) -> Result<&OsStr, ClaimError> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.contains(&0) {
        return Err(bad(path, "it contains a NUL"));
    }
    // `Path` itself drops a trailing `/` and `/.`, which say that a directory is meant.
    let name = bytes.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    match name {
        b"" if bytes.is_empty() => Err(bad(path, "its name is empty")),
        b"" | b"." | b".." => Err(bad(path, "it is a directory")),
        long if long.len() > NAME_BYTES_MAX => Err(bad(path, "its name is longer than 255 bytes")),
        name => Ok(OsStr::from_bytes(name)),
    }
}

/// An entry with its name as it is on disk, where the directory takes other spellings for it too: of its case, or, which
/// can only be seen in the list of names, of its letters with marks.
fn spelt(directory: &Path, name: &OsStr) -> PathBuf {
    let asked = directory.join(name);
    let folds_case = case_is_equal(directory, name);
    if matches!(asked.components().next_back(), Some(Component::RootDir) | None)
        || (!folds_case && name.is_ascii())
    {
        return asked;
    }
    let Ok(inode) = fs::symlink_metadata(&asked).map(|metadata| metadata.ino()) else { return asked };
    let Ok(entries) = fs::read_dir(directory) else { return asked };
    let mut real = None;
    for entry in entries.flatten() {
        let there = entry.file_name();
        if there == *name {
            return asked;
        }
        if entry.ino() == inode && (!folds_case || folded(&there) == folded(name)) {
            real = Some(there);
        }
    }
    real.map_or(asked, |real| directory.join(real))
}

/// What tells a name from others in its directory: without case, where the directory makes no difference.
pub(super) fn distinct(directory: &Path, name: &OsStr) -> Vec<u8> {
    let exists = directory.join(name).symlink_metadata().is_ok();
    let equal = if exists { case_is_equal(directory, name) } else { ignores_case(directory) };
    if equal { folded(name).into_bytes() } else { name.as_bytes().to_vec() }
}

/// Whether a directory makes no difference between upper and lower case. Its entries tell; an empty one is asked by
/// an entry that is there for a moment.
fn ignores_case(directory: &Path) -> bool {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().take(CASE_PROBES_MAX);
    let lettered = entries.map(|entry| entry.file_name()).find(|name| other_case(name).is_some());
    if let Some(name) = lettered {
        return case_is_equal(directory, &name);
    }
    let probe = tempfile::Builder::new().prefix(".outlive-case-").tempfile_in(directory);
    probe.is_ok_and(|probe| probe.path().file_name().is_some_and(|name| case_is_equal(directory, name)))
}

/// Whether an entry is found in the other case too, as itself.
fn case_is_equal(directory: &Path, name: &OsStr) -> bool {
    let Some(other) = other_case(name) else { return false };
    let look = |name: &OsStr| {
        fs::symlink_metadata(directory.join(name)).ok().map(|metadata| (metadata.dev(), metadata.ino()))
    };
    look(&other).is_some_and(|other| look(name) == Some(other))
}

/// The name with its ASCII letters in the other case; `None` when it has none. Every notebook's name has some.
fn other_case(name: &OsStr) -> Option<std::ffi::OsString> {
    let flip = |byte: &u8| {
        if byte.is_ascii_lowercase() { byte.to_ascii_uppercase() } else { byte.to_ascii_lowercase() }
    };
    let bytes = name.as_bytes();
    bytes
        .iter()
        .any(u8::is_ascii_alphabetic)
        .then(|| OsStr::from_bytes(&bytes.iter().map(flip).collect::<Vec<_>>()).to_owned())
}

fn folded(name: &OsStr) -> String {
    name.to_string_lossy().to_lowercase()
}

fn bad(path: &Path, why: &'static str) -> ClaimError {
    ClaimError::BadPath { path: path.display().to_string(), why }
}

/// The same error about the path that was asked for and not about the link that it led to.
fn about(asked: &Path, error: ClaimError) -> ClaimError {
    match error {
        ClaimError::BadPath { why, .. } => bad(asked, why),
        other => other,
    }
}

fn unresolvable(path: &Path, source: io::Error) -> ClaimError {
    ClaimError::Unresolvable { path: path.display().to_string(), source }
}

fn no_directory(path: &Path, directory: &Path, source: io::Error) -> ClaimError {
    let is_other = |above: &&Path| above.metadata().is_ok_and(|metadata| !metadata.is_dir());
    match (source.kind(), directory.ancestors().find(is_other)) {
        (io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, Some(file)) => {
            ClaimError::NoDirectory { path: path.display().to_string(), file: file.display().to_string() }
        }
        (io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, None) => ClaimError::MissingDirectory {
            path: path.display().to_string(),
            directory: directory.display().to_string(),
        },
        (io::ErrorKind::InvalidFilename, _) => bad(path, "it is longer than the file system takes"),
        _ => unresolvable(path, source),
    }
}
