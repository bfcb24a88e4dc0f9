//! The document again, from its lane of the log: the last snapshot, then what was changed since. What runs have done
//! stands in their own lanes and is applied after that ([`Document::apply`]).

use outlive_core::id::{Position, SessionId};
use outlive_core::log::fold::{Effect, Fold, Verdict};
use outlive_core::log::{BlobRef, Entry, FencedBody, Lane, Record};
use outlive_core::session::Session;
use outlive_document::file::FileStamp;
use outlive_document::live::{Live, RestoreError as UpdateError};
use outlive_document::{Blobs as _, CellKey, Notebook, NotebookError};
use outlive_store::{LaneFilter, ReadError, ReadLimit};

use super::document::{BlobFolder, Document, Kept};
use super::hex;
use super::record::{Beside, DocumentRecord, Rendered, Saved, Snapshot};
use crate::context::Context;
use crate::session::journal::{Journal, WriteError};

/// A notebook in its file's format.
pub const IPYNB: &str = "application/x-ipynb+json";

/// The part of a document lane that counts: from its last snapshot on.
#[derive(Debug, Default)]
pub struct DocumentLane {
    snapshot: Option<Snapshot>,
    since: Vec<DocumentRecord>,
    /// What of these is beside the log.
    beside: Vec<BlobRef>,
}

/// A notebook as its log has it.
pub struct Restored {
    /// What stands in it; the runs are to be applied again.
    pub document: Document,
    /// What its file was when it was opened, or when the snapshot was made.
    pub opened: Option<FileStamp>,
    /// What its file was when it was last written, if it was since then.
    pub saved: Option<Saved>,
    /// What was about to be written after that.
    pub rendered: Option<Rendered>,
}

/// Why a notebook cannot be had from its log.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The log cannot be read.
    #[error("the log of the notebook cannot be read")]
    Read(#[from] ReadError),
    /// There is no snapshot.
    #[error("the log holds no snapshot of the notebook")]
    NoSnapshot,
    /// A part that is kept beside the log is missing or cannot be read.
    #[error("{what} of the notebook cannot be read from the session's blobs ({sha256})")]
    Blob {
        /// Which part.
        what: &'static str,
        /// The blob.
        sha256: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The snapshot is no notebook.
    #[error("the notebook's snapshot is damaged")]
    Notebook(#[from] NotebookError),
    /// What is kept with the snapshot is not what was put there.
    #[error("what is kept with the notebook's snapshot is damaged")]
    Kept(#[from] serde_json::Error),
    /// An update does not fit what is before it.
    #[error("the notebook's updates are damaged")]
    Update(#[from] UpdateError),
}

/// Writes how a notebook was when its session began: what everything after it builds on.
///
/// # Errors
/// When the store does not take it.
pub async fn begin(
    journal: &mut Journal,
    document: &Notebook,
    blobs: &BlobFolder,
    file: Option<FileStamp>,
) -> Result<(), WriteError> {
    let document = journal.beside(&document.to_bytes(blobs), IPYNB).await?;
    let snapshot = Snapshot::first(document, file);
    journal.document(DocumentRecord::Snapshot(Box::new(snapshot)).encode()).await.map(drop)
}

impl DocumentLane {
    /// Takes a record of the log that counts.
    pub fn push(&mut self, entry: &Entry) {
        let Record::Fenced(fenced) = &entry.record else { return };
        let FencedBody::Document(bytes) = &fenced.body else { return };
        match DocumentRecord::decode(bytes) {
            Some(record @ DocumentRecord::Snapshot(_)) => {
                self.beside = record.blobs().cloned().collect();
                self.since.clear();
                if let DocumentRecord::Snapshot(snapshot) = record {
                    self.snapshot = Some(*snapshot);
                }
            }
            Some(record) => {
                self.beside.extend(record.blobs().cloned());
                self.since.push(record);
            }
            None => tracing::warn!(position = %entry.position, "a record of a later version is skipped"),
        }
    }

    /// The blobs that are read for it.
    #[must_use]
    pub fn beside(&self) -> &[BlobRef] {
        &self.beside
    }

    /// Makes the document of it. Reads files: not for an async thread.
    ///
    /// # Errors
    /// [`RestoreError`]. The log stays as it is.
    pub fn restore(self, session: SessionId, blobs: BlobFolder) -> Result<Restored, RestoreError> {
        let snapshot = self.snapshot.ok_or(RestoreError::NoSnapshot)?;
        let read = |what: &'static str, blob: &BlobRef| {
            let failed = |source| RestoreError::Blob { what, sha256: blob.sha256.clone(), source };
            blobs.read(blob).map_err(failed)
        };
        let mut notebook = Notebook::parse(&read("the snapshot", &snapshot.document)?)?;
        if let Some(blob) = &snapshot.keys {
            notebook.name_again(serde_json::from_slice(&read("the keys", blob)?)?);
        }
        let opened: Vec<CellKey> = notebook.cells().map(|cell| cell.key().clone()).collect();
        let mut restoring = Live::restore(notebook);
        let mut kept = Kept { through: snapshot.through, but: snapshot.but, ..Kept::default() };
        let state = |bytes: &[u8], kept: &mut Kept| {
            kept.state_bytes = bytes.len() as u64;
            kept.update_bytes = 0;
        };
        if let Some(blob) = &snapshot.state {
            let bytes = read("the state", blob)?;
            state(&bytes, &mut kept);
            restoring.update(&bytes)?;
        }
        if let Some(blob) = &snapshot.base {
            restoring.base(&read("the base", blob)?)?;
        }
        let saved = snapshot.file.clone().zip(snapshot.path).map(|(stamp, path)| Saved { stamp, path });
        let (mut rendered, mut saved) = (None, saved);
        for record in self.since {
            match record {
                DocumentRecord::Snapshot(_) => unreachable!("a snapshot begins anew"),
                DocumentRecord::State(bytes) => {
                    state(&bytes, &mut kept);
                    restoring.update(&bytes)?;
                }
                DocumentRecord::Beside(Beside::State, blob) => {
                    let bytes = read("the state", &blob)?;
                    state(&bytes, &mut kept);
                    restoring.update(&bytes)?;
                }
                DocumentRecord::Updates(updates) => {
                    for update in updates {
                        kept.update_bytes += update.len() as u64;
                        restoring.update(&update)?;
                    }
                }
                DocumentRecord::Beside(Beside::Update, blob) => {
                    let bytes = read("an update", &blob)?;
                    kept.update_bytes += bytes.len() as u64;
                    restoring.update(&bytes)?;
                }
                DocumentRecord::Rendered(now) => {
                    restoring.rendered();
                    rendered = Some(now);
                }
                DocumentRecord::Saved(now) => {
                    // Else it says where the file is, or what was merged: what was rendered is in no file.
                    if rendered.is_some_and(|rendered| rendered.sha256 == hex(&now.stamp.hash)) {
                        restoring.saved();
                    }
                    saved = Some(now);
                    rendered = None;
                }
            }
        }
        let document = Document::taken_up(session, restoring.finish(), opened, kept, blobs);
        Ok(Restored { document, opened: snapshot.file, saved, rendered })
    }
}

/// The document of a session that is open here, anew from its log: the one in memory was broken by an update.
///
/// # Errors
/// [`RestoreError`].
pub async fn again(
    context: &Context,
    session: &Session,
    blobs: BlobFolder,
) -> Result<Document, RestoreError> {
    let id = session.spec.id;
    let mut lane = DocumentLane::default();
    let lanes = LaneFilter::Only(vec![Lane::Control, Lane::Document]);
    read(context, id, &lanes, |entry, _| lane.push(entry)).await?;
    let mut document = crate::aside::run(move || lane.restore(id, blobs)).await?.document;
    read(context, id, &LaneFilter::All, |entry, effect| {
        document.apply(entry, effect, session);
    })
    .await?;
    Ok(document)
}

async fn read(
    context: &Context,
    id: SessionId,
    lanes: &LaneFilter,
    mut each: impl FnMut(&Entry, &Effect),
) -> Result<(), ReadError> {
    let mut fold = Fold::default();
    let mut after = Position(0);
    loop {
        let page = context.engine.read(id, after, lanes, ReadLimit::default()).await?;
        if page.through <= after {
            return Ok(());
        }
        after = page.through;
        for entry in &page.entries {
            if let Verdict::Counted(effect) = fold.push(entry) {
                each(entry, &effect);
            }
        }
    }
}
