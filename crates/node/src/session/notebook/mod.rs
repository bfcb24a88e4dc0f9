//! A session's notebook: what stands in it, and the file that it is written to.
//!
//! The document as it was opened (parameters injected) is a snapshot in the log, so that a daemon that comes back
//! projects the same outputs into the same cells whatever has become of the file.

mod document;
mod file;

pub use document::{BlobFolder, Document};
pub use file::NotebookFile;

use outlive_core::log::Entry;
use outlive_core::log::fold::Effect;
use outlive_core::session::Session;
use outlive_core::time::Tick;

/// A session's notebook.
pub struct NotebookPlane {
    /// What stands in it.
    pub document: Document,
    /// Where it is written.
    pub file: NotebookFile,
}

impl NotebookPlane {
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
