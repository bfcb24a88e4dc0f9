//! What all engines do alike with blobs.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, SystemTime};

use outlive_core::log::BlobRef;
use sha2::{Digest, Sha256};

use crate::error::{BlobError, Unavailable};

/// How much of a file is hashed at once, in bytes.
const READ_BYTES: usize = 256 << 10;

/// A blob's name comes from outside and becomes a file's name: nothing but a hash may pass.
///
/// # Errors
/// [`BlobError::BadName`].
pub fn check_name(sha256: &str) -> Result<(), BlobError> {
    let fits = sha256.len() == 64 && sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if fits { Ok(()) } else { Err(BlobError::BadName { sha256: sha256.to_owned() }) }
}

/// What these bytes are called.
#[must_use]
pub fn reference(bytes: &[u8], mime: &str) -> BlobRef {
    BlobRef { sha256: hex(&Sha256::digest(bytes)), size: bytes.len() as u64, mime: mime.to_owned() }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What has come of a blob's content so far.
#[derive(Clone, Default)]
pub struct Seen {
    hash: Sha256,
    size: u64,
}

impl Seen {
    /// Takes what comes next.
    pub fn take(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// Whether all of it is what `blob` says.
    ///
    /// # Errors
    /// [`BlobError::Mismatch`].
    pub fn check(self, blob: &BlobRef) -> Result<(), BlobError> {
        check_size(blob, self.size)?;
        let found = hex(&self.hash.finalize());
        if found == blob.sha256 {
            Ok(())
        } else {
            Err(BlobError::Mismatch { sha256: blob.sha256.clone(), what: format!("its hash is {found}") })
        }
    }
}

/// Copies `from` to `to` and checks on the way that it is what `blob` says.
pub(crate) fn copy_checked(
    blob: &BlobRef,
    mut from: impl Read,
    to: &mut impl io::Write,
) -> Result<(), BlobError> {
    let failed = |source| Unavailable::new(format!("copy blob {}", blob.sha256), source);
    let mut seen = Seen::default();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let n = from.read(&mut buffer).map_err(failed)?;
        let Some(bytes) = buffer.get(..n).filter(|bytes| !bytes.is_empty()) else { break };
        seen.take(bytes);
        to.write_all(bytes).map_err(failed)?;
    }
    seen.check(blob)
}

/// The content of `file`, checked to be what `blob` says.
pub(crate) fn read_checked(blob: &BlobRef, file: &Path) -> Result<Vec<u8>, BlobError> {
    let file =
        File::open(file).map_err(|source| Unavailable::new(format!("copy blob {}", blob.sha256), source))?;
    let mut content = Vec::new();
    copy_checked(blob, file, &mut content)?;
    Ok(content)
}

/// A file's time of modification, which is another one after each put.
#[must_use]
pub fn modified(metadata: &Metadata) -> u64 {
    let since = metadata.modified().ok().and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Puts a file anew that is there already: its time of modification rises. Whether it is there, and how long it is.
pub(crate) fn put_again(place: &Path) -> io::Result<Option<u64>> {
    let there = || -> io::Result<u64> {
        let file = File::open(place)?;
        let metadata = file.metadata()?;
        #[expect(clippy::disallowed_methods, reason = "compared with the times of files alone")]
        let now = SystemTime::now();
        file.set_modified(now.max(metadata.modified()? + Duration::from_nanos(1)))?;
        // It may have been removed before it was touched.
        fs::metadata(place).map(|metadata| metadata.len())
    };
    match there() {
        Ok(size) => Ok(Some(size)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a file unless it was put again since it was listed with this time of modification. How long it was; nothing if
/// it stays or is not there.
///
/// # Errors
/// As rename(2), link(2), unlink(2).
pub fn remove_listed(place: &Path, listed: u64) -> io::Result<u64> {
    // Out of everybody's way first: whoever touches it in this moment does so before, and it is seen, or finds nothing and
    // puts it anew.
    let aside = place.with_extension("going");
    match fs::rename(place, &aside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other?,
    }
    let metadata = fs::metadata(&aside)?;
    let stays = modified(&metadata) != listed;
    if stays {
        match fs::hard_link(&aside, place) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
    }
    fs::remove_file(&aside)?;
    Ok(if stays { 0 } else { metadata.len() })
}

/// Whether a blob's length is what its reference says.
///
/// # Errors
/// [`BlobError::Mismatch`].
pub fn check_size(blob: &BlobRef, size: u64) -> Result<(), BlobError> {
    if size == blob.size {
        Ok(())
    } else {
        let what = format!("it has {size} bytes instead of {}", blob.size);
        Err(BlobError::Mismatch { sha256: blob.sha256.clone(), what })
    }
}
