//! What all engines do alike with blobs.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

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
