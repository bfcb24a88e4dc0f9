//! The document again, from its lane of the log: the last snapshot, then what was changed since. What runs have done
//! stands in their own lanes and is applied after that ([`Document::apply`]).

use std::sync::Arc;

use outlive_core::id::{Position, SessionId};
use outlive_core::log::fold::{Effect, Fold, Verdict};
use outlive_core::log::{BlobRef, Entry, FencedBody, Lane, Record};
use outlive_core::session::Session;
use outlive_document::file::FileStamp;
use outlive_document::live::{Live, RestoreError as UpdateError, Restoring};
use outlive_document::{Blobs as _, CellKey, Notebook, NotebookError};
use outlive_store::{LaneFilter, ReadError, ReadLimit};

use super::document::{BlobFolder, Document, Kept};
use super::record::{Beside, DocumentRecord, Rendered, Saved, Snapshot};
use super::{hex, with_sources};
use crate::context::Context;
use crate::session::journal::{Journal, WriteError};

/// A notebook in its file's format.
const IPYNB: &str = "application/x-ipynb+json";
/// The bytes of an update or a state of a shared document, in blobs and in the log.
pub const YJS: &str = "application/x-yjs-v1";
/// What is kept with a snapshot.
const JSON: &str = "application/json";

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

impl RestoreError {
    /// Whether what is kept may be well, and cannot be had now: too many open files, a disk that does not answer.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Read(_) => true,
            Self::Blob { source, .. } => {
                !matches!(source.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::InvalidData)
            }
            Self::NoSnapshot | Self::Notebook(_) | Self::Kept(_) | Self::Update(_) => false,
        }
    }
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

/// Writes all that stands in a notebook: what comes after builds on it, and nothing before counts. `kept` says which runs it
/// stands for; `file`, what its file is and which; `base`, what later changes of the file are compared with, if that is not
/// the notebook itself.
///
/// # Errors
/// When the store does not take it.
pub async fn snapshot(
    journal: &mut Journal,
    document: &mut Document,
    kept: Kept,
    (file, path): (Option<FileStamp>, Option<String>),
    base: Option<&[u8]>,
) -> Result<Arc<Entry>, WriteError> {
    let bytes = document.to_bytes();
    let keys = document.notebook().made_up_keys();
    let keys = keys.map(|keys| serde_json::to_vec(&keys).expect("keys are plain data"));
    let state = document.is_shared().then(|| document.live().state());
    let snapshot = Snapshot {
        document: journal.beside(&bytes, IPYNB).await?,
        file,
        path,
        base: journal.beside_if(base, JSON).await?,
        keys: journal.beside_if(keys.as_deref(), JSON).await?,
        state: journal.beside_if(state.as_deref(), YJS).await?,
        through: kept.through,
        but: kept.but,
    };
    let entry = journal.document(DocumentRecord::Snapshot(Box::new(snapshot)).encode()).await?;
    let state_bytes = state.as_ref().map_or(0, |state| state.len() as u64);
    document.keep(Kept { state_bytes, update_bytes: 0, ..kept });
    Ok(entry)
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
    pub fn restore(&self, session: SessionId, blobs: BlobFolder) -> Result<Restored, RestoreError> {
        self.restore_but(session, blobs, Err)
    }

    /// As [`Self::restore`], of what can be had: without what is damaged, and without the edits that build on it.
    pub fn restore_what_is_whole(&self, session: SessionId, blobs: BlobFolder) -> Restored {
        let passed_over = |error: RestoreError| {
            tracing::error!(%session, error = %with_sources(&error), "the notebook goes on without it");
            Ok(())
        };
        self.restore_but(session, blobs, passed_over).expect("all that is damaged is passed over")
    }

    /// Whether people have edited it since it was last written to its file, as far as the log knows.
    #[must_use]
    pub fn has_unsaved_edits(&self) -> bool {
        let saved = self.since.iter().rposition(|record| matches!(record, DocumentRecord::Saved(_)));
        let is_edit = |record: &DocumentRecord| {
            matches!(record, DocumentRecord::Updates(_) | DocumentRecord::Beside(Beside::Update, _))
        };
        self.since[saved.map_or(0, |saved| saved + 1)..].iter().any(is_edit)
    }

    /// Whether a file is what this log knows of its notebook's file.
    #[must_use]
    pub fn knows(&self, file: &FileStamp) -> bool {
        let saved = self.since.iter().filter_map(|record| match record {
            DocumentRecord::Saved(saved) => Some(&saved.stamp),
            _ => None,
        });
        let opened = self.snapshot.iter().filter_map(|snapshot| snapshot.file.as_ref());
        opened.chain(saved).last().is_some_and(|known| known.hash == file.hash)
    }

    /// `damaged` is given what cannot be had, and says whether it goes on without.
    fn restore_but(
        &self,
        session: SessionId,
        blobs: BlobFolder,
        damaged: impl Fn(RestoreError) -> Result<(), RestoreError>,
    ) -> Result<Restored, RestoreError> {
        let snapshot = self.snapshot.as_ref();
        if snapshot.is_none() {
            damaged(RestoreError::NoSnapshot)?;
        }
        let mut notebook = None;
        if let Some(snapshot) = snapshot {
            match part(&blobs, "the snapshot", &snapshot.document)
                .and_then(|bytes| Ok(Notebook::parse(&bytes)?))
            {
                Ok(found) => notebook = Some(found),
                Err(error) => damaged(error)?,
            }
        }
        let mut notebook = notebook.unwrap_or_else(empty);
        if let Some(blob) = snapshot.and_then(|snapshot| snapshot.keys.as_ref()) {
            match part(&blobs, "the keys", blob).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?)) {
                Ok(keys) => notebook.name_again(keys),
                Err(error) => damaged(error)?,
            }
        }
        let opened: Vec<CellKey> = notebook.cells().map(|cell| cell.key().clone()).collect();
        let kept = snapshot.map_or_else(Kept::default, |snapshot| Kept {
            through: snapshot.through,
            but: snapshot.but,
            ..Kept::default()
        });
        let saved = snapshot.and_then(|snapshot| {
            snapshot.file.clone().zip(snapshot.path.clone()).map(|(stamp, path)| Saved { stamp, path })
        });
        let mut again = Again { live: Live::restore(notebook), kept, saved, rendered: None };
        let mut is_whole = true;
        if let Some(blob) = snapshot.and_then(|snapshot| snapshot.state.as_ref())
            && let Err(error) = part(&blobs, "the state", blob).and_then(|bytes| again.state(&bytes))
        {
            damaged(error)?;
            is_whole = false;
        }
        if let Some(blob) = snapshot.and_then(|snapshot| snapshot.base.as_ref())
            && let Err(error) =
                part(&blobs, "the base", blob).and_then(|bytes| Ok(again.live.base(&bytes)?))
        {
            damaged(error)?;
        }
        for record in &self.since {
            // What was edited behind something that is missing builds on it; what became of the file does not.
            let is_of_file = matches!(record, DocumentRecord::Rendered(_) | DocumentRecord::Saved(_));
            if (is_whole || is_of_file)
                && let Err(error) = again.take(record, &blobs)
            {
                damaged(error)?;
                is_whole = false;
            }
        }
        let Again { live, kept, saved, rendered } = again;
        let document = Document::taken_up(session, live.finish(), opened, kept, blobs);
        let opened = snapshot.and_then(|snapshot| snapshot.file.clone());
        Ok(Restored { document, opened, saved, rendered })
    }
}

/// A notebook that is being made again.
struct Again {
    live: Restoring,
    kept: Kept,
    saved: Option<Saved>,
    rendered: Option<Rendered>,
}

impl Again {
    fn state(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        self.kept.state_bytes = bytes.len() as u64;
        self.kept.update_bytes = 0;
        Ok(self.live.update(bytes)?)
    }

    fn update(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        self.kept.update_bytes += bytes.len() as u64;
        Ok(self.live.update(bytes)?)
    }

    /// Takes a record behind the snapshot.
    fn take(&mut self, record: &DocumentRecord, blobs: &BlobFolder) -> Result<(), RestoreError> {
        match record {
            DocumentRecord::Snapshot(_) => unreachable!("a snapshot begins anew"),
            DocumentRecord::State(bytes) => self.state(bytes)?,
            DocumentRecord::Beside(Beside::State, blob) => self.state(&part(blobs, "the state", blob)?)?,
            DocumentRecord::Updates(updates) => {
                updates.iter().try_for_each(|update| self.update(update))?;
            }
            DocumentRecord::Beside(Beside::Update, blob) => self.update(&part(blobs, "an update", blob)?)?,
            DocumentRecord::Rendered(now) => {
                self.live.rendered();
                self.rendered = Some(now.clone());
            }
            DocumentRecord::Saved(now) => {
                // Else it says where the file is, or what was merged: what was rendered is in no file.
                let is_rendered = |rendered: &Rendered| rendered.sha256 == hex(&now.stamp.hash);
                if self.rendered.take().as_ref().is_some_and(is_rendered) {
                    self.live.saved();
                }
                self.saved = Some(now.clone());
            }
        }
        Ok(())
    }
}

fn part(blobs: &BlobFolder, what: &'static str, blob: &BlobRef) -> Result<Vec<u8>, RestoreError> {
    let failed = |source| RestoreError::Blob { what, sha256: blob.sha256.clone(), source };
    blobs.read(blob).map_err(failed)
}

/// A notebook without cells.
fn empty() -> Notebook {
    Notebook::parse(br#"{"cells":[],"metadata":{},"nbformat":4,"nbformat_minor":5}"#).expect("it is one")
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
