//! Contents that are too large for a record, as files beside the log, named by their hash.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use bytes::Bytes;
use outlive_core::log::BlobRef;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, utimensat};
use sha2::{Digest, Sha256};

/// Writes a content, synced, before the record that names it is made. The same content is written once. Blocks: call
/// it off the driver's thread.
///
/// # Errors
/// As write(2), fsync(2), rename(2); then no file of that name was made by this call.
pub(crate) fn write(directory: &Path, content: &Bytes, mime: &str) -> io::Result<BlobRef> {
    let sha256 = hex(&Sha256::digest(content));
    let size = content.len() as u64;
    let blob = BlobRef { sha256, size, mime: mime.to_owned() };
    let path = directory.join(&blob.sha256);
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == size) && put_again(&path).is_ok() {
        return Ok(blob);
    }
    fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(&path)?;
    File::open(directory)?.sync_all()?;
    Ok(blob)
}

/// By a new time of modification the daemon knows that what it may be about to remove is named again.
fn put_again(path: &Path) -> io::Result<()> {
    let keep = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: keep, last_modification: now };
    Ok(utimensat(CWD, path, &times, AtFlags::empty())?)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_blob_is_named_by_its_content_and_written_once() {
        let directory = tempfile::tempdir().unwrap();
        let content = Bytes::from_static(b"abc");
        let first = write(directory.path(), &content, "application/json").unwrap();
        let file = directory.path().join(&first.sha256);
        File::open(&file).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        let second = write(directory.path(), &content, "application/json").unwrap();
        assert_eq!(first, second);
        assert!(fs::metadata(&file).unwrap().modified().unwrap() > SystemTime::UNIX_EPOCH, "it is put again");
        assert_eq!(first.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(fs::read(directory.path().join(&first.sha256)).unwrap(), b"abc");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
