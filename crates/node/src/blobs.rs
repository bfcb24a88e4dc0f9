//! The blobs of a session on this node.
//!
//! A shim puts them into a folder of this machine, and a notebook's document reads them there. A single node's store is
//! that folder. Of several nodes it is a spool: the engine takes from it what a record names, before the record is
//! there, and what another node has put is brought here before somebody needs it as a file ([`bring`]).
//!
//! Blobs that nothing names any more go at two moments: those of a document's former snapshot when the next one counts
//! ([`OfDocument`]), and all that are old when a session without a process is taken up and its whole log read
//! ([`Unnamed`]). Both list first what they may remove, and decide after that: see the contract of [`Engine`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use outlive_core::id::SessionId;
use outlive_core::limits::BLOB_GRACE_MS;
use outlive_core::log::{BlobRef, Chunk, Entry, Fenced, FencedBody, Payload, Record, RunRecord};
use outlive_store::blob::check_name;
use outlive_store::{BlobError, BlobStamp, Engine, Unavailable};
use rustix::fs::OFlags;

use crate::session::notebook_record::DocumentRecord;
use crate::session::with_sources;

/// How many hexadecimal digits a blob's name has.
const NAME_DIGITS: usize = 64;

/// Blobs as they were listed: their names, and which put of each is meant.
pub(crate) type Listed = BTreeMap<String, BlobStamp>;

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

/// What of a session's document is beside its log, from the last snapshot on. No output is: those are messages of a kernel.
#[derive(Debug, Default)]
pub(crate) struct OfDocument(BTreeSet<String>);

impl OfDocument {
    /// Takes a record of the log that counts.
    pub(crate) fn push(&mut self, entry: &Entry) {
        let Record::Fenced(Fenced { body: FencedBody::Document(bytes), .. }) = &entry.record else { return };
        // An update can be large, and names nothing.
        let record = bytes.starts_with(b"{").then(|| DocumentRecord::decode(bytes)).flatten();
        let Some(record) = record else { return };
        if matches!(record, DocumentRecord::Snapshot(_)) {
            self.0.clear();
        }
        self.0.extend(record.blobs().map(|blob| blob.sha256.clone()));
    }

    /// All of it as it is now, before a snapshot replaces it.
    pub(crate) async fn list(&self, engine: &dyn Engine, session: SessionId) -> Listed {
        match engine.old_blobs(session, Duration::ZERO).await {
            Ok(all) => all.into_iter().filter(|(sha256, _)| self.0.contains(sha256)).collect(),
            Err(error) => {
                tracing::warn!(%session, error = %with_sources(&error), "the blobs of a replaced snapshot stay");
                Listed::new()
            }
        }
    }

    /// Those of what was listed that the document does not name any more.
    pub(crate) fn replaced(&self, listed: Listed) -> Listed {
        listed.into_iter().filter(|(sha256, _)| !self.0.contains(sha256)).collect()
    }
}

/// Old blobs of a session that nothing has named so far, while its log is read.
#[derive(Debug, Default)]
pub(crate) struct Unnamed(Listed);

impl Unnamed {
    /// Those that are old now, before the log is read. None where a part of the log is lost: it may have named some.
    pub(crate) async fn list(engine: &dyn Engine, session: SessionId) -> Self {
        let whole = match engine.dropped(session).await {
            Ok(dropped) => dropped.is_empty(),
            Err(_) => false,
        };
        if !whole {
            return Self::default();
        }
        let old = engine.old_blobs(session, Duration::from_millis(BLOB_GRACE_MS)).await;
        Self(old.unwrap_or_else(|error| {
            tracing::warn!(%session, error = %with_sources(&error), "old blobs are not looked for");
            Listed::new()
        }))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes a record of the log, whether or not it counts: what it names is needed, or might be.
    pub(crate) fn push(&mut self, entry: &Entry) {
        if self.is_empty() {
            return;
        }
        for blob in of_output(entry) {
            self.0.remove(&blob.sha256);
        }
        match &entry.record {
            Record::Fenced(fenced) => match &fenced.body {
                FencedBody::Document(bytes) => self.look_through(bytes),
                FencedBody::Run(RunRecord::Checkpoint { blob: Some(blob), .. }) => {
                    self.0.remove(&blob.sha256);
                }
                FencedBody::Journal(_) | FencedBody::Run(_) | FencedBody::Runtime { .. } => {}
            },
            // Of a later version: nobody knows what it names.
            Record::Unknown { .. } => self.0.clear(),
            Record::Control(_) | Record::Request(_) => {}
        }
    }

    /// Whatever looks like a name in these bytes is one: records of a document, and the references in it.
    pub(crate) fn look_through(&mut self, bytes: &[u8]) {
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        for digits in bytes.split(|byte| !is_digit(byte)) {
            for name in digits.windows(NAME_DIGITS) {
                self.0.remove(std::str::from_utf8(name).expect("digits are text"));
            }
        }
    }

    /// What is left when all was read is named by nothing.
    pub(crate) fn into_listed(self) -> Listed {
        self.0
    }
}

/// Removes these blobs. It is only a matter of space.
pub(crate) async fn remove(engine: Arc<dyn Engine>, session: SessionId, listed: Listed) {
    if listed.is_empty() {
        return;
    }
    match engine.remove_blobs(session, &listed).await {
        Ok(bytes) => {
            tracing::debug!(%session, blobs = listed.len(), bytes, "blobs that nothing names are gone")
        }
        Err(error) => {
            tracing::warn!(%session, error = %with_sources(&error), "blobs that nothing names stay");
        }
    }
}

#[cfg(test)]
mod tests {
    use outlive_core::id::{Attempt, Position, RunId, Seq};
    use outlive_core::log::{ChunkKind, Lane};
    use outlive_core::time::WallTime;
    use uuid::Uuid;

    use super::*;

    fn name(of: u8) -> String {
        format!("{of:02x}").repeat(NAME_DIGITS / 2)
    }

    fn blob(of: u8) -> BlobRef {
        BlobRef { sha256: name(of), size: 1, mime: "application/json".to_owned() }
    }

    fn old(blobs: impl IntoIterator<Item = u8>) -> Unnamed {
        Unnamed(blobs.into_iter().map(|of| (name(of), BlobStamp::default())).collect())
    }

    fn left(unnamed: Unnamed) -> Vec<String> {
        unnamed.into_listed().into_keys().collect()
    }

    fn entry(body: FencedBody) -> Entry {
        let record = Record::Fenced(Fenced { claim: Position(1), source: None, body });
        Entry { position: Position(2), lane: Lane::Journal, record }
    }

    #[test]
    fn what_any_record_names_is_not_unnamed() {
        let mut unnamed = old(1..=6);
        let output =
            || vec![Chunk { kind: ChunkKind::Stdout, at: WallTime(1), payload: Payload::Blob(blob(1)) }];
        let (attempt, seq) = (Attempt(1), Seq(1));
        unnamed.push(&entry(FencedBody::Run(RunRecord::Data { attempt, first: seq, chunks: output() })));
        unnamed.push(&entry(FencedBody::Run(RunRecord::Checkpoint { attempt, seq, blob: Some(blob(2)) })));
        unnamed.push(&entry(FencedBody::Run(RunRecord::Checkpoint { attempt, seq, blob: None })));
        let snapshot = format!(r#"{{"later":["{}"],"keys":{{"sha256":"{}"}}}}"#, name(3), name(4));
        unnamed.push(&entry(FencedBody::Document(snapshot.into_bytes())));
        unnamed.push(&entry(FencedBody::Document([&[1, 0x40], name(5).as_bytes(), b"a\0"].concat())));
        assert_eq!(left(unnamed), [name(6)]);
    }

    #[test]
    fn a_record_of_a_later_version_may_name_anything() {
        let mut unnamed = old(1..=2);
        let record = Record::Unknown { kind: 99 };
        let lane = Lane::Run(RunId::from_uuid(Uuid::from_u128(1)));
        unnamed.push(&Entry { position: Position(2), lane, record });
        assert!(unnamed.is_empty());
    }
}
