//! A session's notebook: what stands in it, who edits it live, and the file that it is written to.
//!
//! The document as it was opened (parameters injected) is a snapshot in the log, and each edit since is a record, so that
//! a daemon that comes back has the same notebook and projects the same outputs into the same cells whatever has become
//! of the file.

pub mod asks;
pub mod document;
mod file;
pub mod record;
pub mod restore;
pub mod saving;
pub mod shorten;

pub use document::{BlobFolder, Document};
pub use file::{Done, NotebookFile, Step};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use outlive_core::id::SessionId;
use outlive_core::limits::DOCUMENT_PROJECT_MS;
use outlive_core::log::Entry;
use outlive_core::log::fold::Effect;
use outlive_core::session::Session;
use outlive_core::time::Tick;
use outlive_document::live::wire::Awareness;
use sha2::{Digest, Sha256};

use super::peers::{LivePeers, PeerId};
use crate::seams::Clock;

/// A session's notebook.
pub struct NotebookPlane {
    /// What stands in it.
    pub document: Document,
    /// Where it is written.
    pub file: NotebookFile,
    /// Who edits it live.
    pub(super) peers: LivePeers,
    /// Where each of them says that it is.
    pub(super) awareness: Awareness,
    /// The peer that speaks for each client.
    pub(super) speakers: BTreeMap<u64, PeerId>,
    /// What each peer is known to have, as a state vector.
    pub(super) known: BTreeMap<PeerId, Vec<u8>>,
    /// When outputs were last brought into the shared document.
    pub(super) projected_at: Tick,
}

impl NotebookPlane {
    /// A notebook that nobody edits live yet.
    pub fn new(session: SessionId, clock: Arc<dyn Clock>, document: Document, file: NotebookFile) -> Self {
        Self {
            document,
            file,
            peers: LivePeers::new(session, clock),
            awareness: Awareness::default(),
            speakers: BTreeMap::new(),
            known: BTreeMap::new(),
            projected_at: Tick(0),
        }
    }

    /// When those who edit live are to be shown what runs have made since they were last; at once if they have seen
    /// nothing of it for a while.
    pub(super) fn project_due(&mut self) -> Option<Tick> {
        let due = !self.peers.is_empty() && self.document.live().has_unprojected();
        due.then(|| self.projected_at + Duration::from_millis(DOCUMENT_PROJECT_MS))
    }

    /// A notebook that was taken up: the daemon before may have ended, or the session left memory, between an edit and
    /// its save.
    pub fn compare(&mut self, now: Tick) {
        let hash = Sha256::digest(self.document.to_bytes());
        self.file.compare(hash.into(), now);
    }

    /// Projects a record that counts. `session` is the state after it.
    pub fn apply(&mut self, entry: &Entry, effect: &Effect, session: &Session, now: Tick) {
        if self.document.apply(entry, effect, session) {
            self.file.changed(now);
        }
    }
}

/// Bytes as lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |hex, byte| hex + &format!("{byte:02x}"))
}

pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
