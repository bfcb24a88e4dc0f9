//! The blobs of a session on this node.
//!
//! A shim puts them into a folder of this machine, and a notebook's document reads them there. A single node's store is
//! that folder. Of several nodes it is a spool: the engine takes from it what a record names, before the record is
//! there, and what another node has put is brought here before somebody needs it as a file ([`bring`]).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use outlive_core::id::SessionId;
use outlive_core::log::{BlobRef, Chunk, Entry, FencedBody, Payload, Record, RunRecord};
use outlive_store::blob::check_name;
use outlive_store::{BlobError, Engine, Unavailable};
use rustix::fs::OFlags;

/// Opens a blob wherever it is: in the folder of this machine, else from the store.
///
/// # Errors
/// As the store says.
pub(crate) async fn open(engine: &dyn Engine, session: SessionId, sha256: &str) -> Result<File, BlobError> {
    if let Some(folder) = engine.blob_directory(session).await? {
        match open_in(folder, sha256).await {
            Err(BlobError::Missing { .. }) => {}
            opened => return opened,
        }
    }
    engine.get_blob(session, sha256).await
}

/// Opens a blob of this folder. A link, or anything that is no plain file, is no blob: it could lead out of it.
///
/// # Errors
/// [`BlobError`].
pub async fn open_in(folder: PathBuf, sha256: &str) -> Result<File, BlobError> {
    check_name(sha256)?;
    let place = folder.join(sha256);
    crate::aside::run(move || open_plain(&place))
        .await
        .map_err(|error| Unavailable::new(format!("open blob {sha256}"), error))?
        .ok_or_else(|| BlobError::Missing { sha256: sha256.to_owned() })
}

fn open_plain(place: &Path) -> io::Result<Option<File>> {
    // NONBLOCK: opening a pipe that nobody writes to would wait for ever.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let flags = i32::try_from(flags).expect("the flags of open(2) are an int");
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(place) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            tracing::warn!(place = %place.display(), "a symbolic link stands where a blob should be");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    Ok(file.metadata()?.is_file().then_some(file))
}

/// Puts a blob of the store into the folder of this machine, unless it is there.
///
/// # Errors
/// As the store says.
pub(crate) async fn bring(
    engine: &dyn Engine,
    session: SessionId,
    folder: &Path,
    blob: &BlobRef,
) -> Result<(), BlobError> {
    let place = folder.join(&blob.sha256);
    let looked = place.clone();
    if crate::aside::run(move || size(&looked)).await.is_ok_and(|size| size == blob.size) {
        return Ok(());
    }
    let content = engine.get_blob(session, &blob.sha256).await?;
    let folder = folder.to_owned();
    let copied = crate::aside::run(move || copy(content, &folder, &place)).await;
    copied.map_err(|error| Unavailable::new(format!("copy blob {} here", blob.sha256), error).into())
}

/// Of a file that came by rename, so that it is whole.
fn size(place: &Path) -> io::Result<u64> {
    Ok(fs::metadata(place)?.len())
}

fn copy(mut content: File, folder: &Path, place: &Path) -> io::Result<()> {
    // The engine may have put it there itself.
    if place.try_exists()? {
        return Ok(());
    }
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    io::copy(&mut content, &mut file)?;
    file.persist(place)?;
    Ok(())
}

/// The blobs that an entry's output is in.
pub(crate) fn of_output(entry: &Entry) -> impl Iterator<Item = &BlobRef> {
    let chunks: &[Chunk] = match &entry.record {
        Record::Fenced(fenced) => match &fenced.body {
            FencedBody::Run(RunRecord::Data { chunks, .. }) | FencedBody::Runtime { chunks, .. } => chunks,
            FencedBody::Run(_) | FencedBody::Journal(_) | FencedBody::Document(_) => &[],
        },
        Record::Control(_) | Record::Request(_) | Record::Unknown { .. } => &[],
    };
    chunks.iter().filter_map(|chunk| match &chunk.payload {
        Payload::Blob(blob) => Some(blob),
        Payload::Inline(_) => None,
    })
}
