//! Blobs of a session: `blobs/SHA256`. A shim puts them there itself, by temporary name, fsync and rename.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use outlive_core::log::BlobRef;

use super::log::create_directory;
use crate::blob;
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

/// Puts what `open` gives to read, unless it is there.
pub(super) fn put<R: io::Read>(
    session: &Path,
    blob: &BlobRef,
    open: impl FnOnce() -> io::Result<R>,
) -> Result<(), BlobError> {
    blob::check_name(&blob.sha256)?;
    let failed = |source| unavailable("put", &blob.sha256, source);
    let directory = directory(session)?;
    let place = directory.join(&blob.sha256);
    match fs::metadata(&place) {
        // It came by rename, so it is whole; its size tells a stranger's file from it.
        Ok(there) => return blob::check_size(blob, there.len()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Err(_) => {}
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
    let entries = match fs::read_dir(session.join("blobs")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut bytes = 0;
    for entry in entries {
        match entry?.metadata() {
            Ok(metadata) => bytes += metadata.len(),
            // Put or removed just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}
