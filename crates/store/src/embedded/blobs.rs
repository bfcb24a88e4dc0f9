//! Blobs of a session: `blobs/SHA256`. A shim puts them there itself, by temporary name, fsync and rename.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use outlive_core::log::BlobRef;

use super::log::create_directory;
use crate::blob;
use crate::engine::BlobStamp;
use crate::error::{BlobError, Unavailable};

fn unavailable(what: &str, sha256: &str, source: io::Error) -> BlobError {
    Unavailable::new(format!("{what} blob {sha256}"), source).into()
}

/// The folder for a session's blobs; made if it is not there.
pub(super) fn directory(session: &Path) -> Result<PathBuf, BlobError> {
    let blobs = session.join("blobs");
    create_directory(&blobs).map_err(|source| Unavailable::new("make a blob directory", source))?;
    Ok(blobs)
}

/// Puts what `open` gives to read, or what is there anew.
pub(super) fn put<R: io::Read>(
    session: &Path,
    blob: &BlobRef,
    open: impl FnOnce() -> io::Result<R>,
) -> Result<(), BlobError> {
    blob::check_name(&blob.sha256)?;
    let failed = |source| unavailable("put", &blob.sha256, source);
    let directory = directory(session)?;
    let place = directory.join(&blob.sha256);
    if let Some(size) = blob::put_again(&place).map_err(failed)? {
        // It came by rename, so it is whole; its size tells a stranger's file from it.
        return blob::check_size(blob, size);
    }
    let mut copy = tempfile::NamedTempFile::new_in(&directory).map_err(failed)?;
    blob::copy_checked(blob, open().map_err(failed)?, &mut copy)?;
    copy.as_file().sync_all().map_err(failed)?;
    copy.persist(&place).map_err(|error| failed(error.error))?;
    File::open(&directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

pub(super) fn get(session: &Path, sha256: &str) -> Result<File, BlobError> {
    blob::check_name(sha256)?;
    File::open(session.join("blobs").join(sha256)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => BlobError::Missing { sha256: sha256.to_owned() },
        _ => unavailable("read", sha256, error),
    })
}

/// What a session's blobs take up, in bytes.
pub(super) fn bytes(session: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    each(session, |_, metadata| bytes += metadata.len())?;
    Ok(bytes)
}

/// Those that were put longer than this ago. One from the future is not old.
pub(super) fn old(session: &Path, age: Duration) -> io::Result<BTreeMap<String, BlobStamp>> {
    let mut old = BTreeMap::new();
    each(session, |name, metadata| {
        let is_old =
            || metadata.modified().ok().and_then(|at| at.elapsed().ok()).is_some_and(|since| since >= age);
        if blob::check_name(&name).is_ok() && (age.is_zero() || is_old()) {
            old.insert(name, BlobStamp { stored: blob::modified(&metadata), spooled: 0 });
        }
    })?;
    Ok(old)
}

/// Removes those that were not put again since they were listed. How many bytes they had.
pub(super) fn remove(session: &Path, listed: &BTreeMap<String, BlobStamp>) -> Result<u64, BlobError> {
    listed.keys().try_for_each(|sha256| blob::check_name(sha256))?;
    let directory = session.join("blobs");
    let mut freed = 0;
    for (sha256, stamp) in listed {
        freed += blob::remove_listed(&directory.join(sha256), stamp.stored)
            .map_err(|source| unavailable("remove", sha256, source))?;
    }
    if freed > 0 {
        File::open(&directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|source| Unavailable::new("remove blobs", source))?;
    }
    Ok(freed)
}

/// Each file that is there, and what is known of it.
fn each(session: &Path, mut each: impl FnMut(String, fs::Metadata)) -> io::Result<()> {
    let entries = match fs::read_dir(session.join("blobs")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        match entry.metadata() {
            Ok(metadata) => each(entry.file_name().to_string_lossy().into_owned(), metadata),
            // Put or removed just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
