//! What the tools ask of a daemon, whichever way it is reached.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use outlive_core::diagnosis::FailureReport;
use outlive_core::id::{Cursor, RunId, SessionId};
use outlive_node::api::Events;
use outlive_protocol::http::{
    Close, EditNotebook, Edited, NewSession, NotebookView, OpenSession, Opened, Problem, Restart, RunView,
    SaveSession, SessionView, SubmitRuns,
};
use serde_json::Value;

/// Where the tools' user is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Caller {
    /// What relative paths are resolved against, and where untitled notebooks run. Without one, relative paths are
    /// left to the daemon, which refuses them.
    pub directory: Option<PathBuf>,
    /// The variables for kernels; without them, the daemon's.
    pub variables: Option<BTreeMap<String, String>>,
}

impl Caller {
    /// A path as the daemon is told it.
    #[must_use]
    pub fn path(&self, said: String) -> String {
        match &self.directory {
            // A directory that is no text was refused before there was a caller.
            Some(directory) => directory.join(said).to_string_lossy().into_owned(),
            None => said,
        }
    }
}

/// A daemon. Every method may answer with a [`Problem`] that can be shown as it is.
#[async_trait]
pub trait Host: Send + Sync + 'static {
    /// Where the user is.
    fn caller(&self) -> &Caller;
    /// Makes an untitled notebook.
    async fn new_session(&self, request: NewSession) -> Result<Opened, Problem>;
    /// Opens a notebook by path, or a session by id.
    async fn open(&self, request: OpenSession) -> Result<Opened, Problem>;
    /// Saves a notebook.
    async fn save(&self, id: SessionId, how: SaveSession) -> Result<Opened, Problem>;
    /// Saves, stops the kernel and ends the session.
    async fn close(&self, id: SessionId, how: Close) -> Result<SessionView, Problem>;
    /// The open sessions, or all that are remembered, newest first.
    async fn sessions(&self, all: bool) -> Result<Vec<SessionView>, Problem>;
    /// One session.
    async fn session(&self, id: SessionId) -> Result<SessionView, Problem>;
    /// A notebook as it is now, without outputs.
    async fn notebook(&self, id: SessionId) -> Result<NotebookView, Problem>;
    /// The outputs of a cell, in nbformat's form.
    async fn cell_outputs(&self, id: SessionId, cell: String) -> Result<Vec<Value>, Problem>;
    /// Edits a notebook, all or nothing.
    async fn edit(&self, id: SessionId, edits: EditNotebook) -> Result<Edited, Problem>;
    /// Queues work, all or nothing.
    async fn submit(&self, id: SessionId, work: SubmitRuns) -> Result<Vec<RunView>, Problem>;
    /// A session's runs, in the order in which they were queued.
    async fn runs(&self, id: SessionId) -> Result<Vec<RunView>, Problem>;
    /// One run.
    async fn run(&self, id: SessionId, run: RunId) -> Result<RunView, Problem>;
    /// What a run has printed so far, behind a cursor.
    async fn run_output(&self, id: SessionId, run: RunId, after: Cursor) -> Result<Events, Problem>;
    /// What becomes of a session and its runs from now on, without output.
    async fn watch(&self, id: SessionId) -> Result<Events, Problem>;
    /// The beginning of a blob, at most so many bytes.
    async fn blob(&self, id: SessionId, sha256: &str, bytes_max: u64) -> Result<Vec<u8>, Problem>;
    /// Interrupts what runs.
    async fn interrupt(&self, id: SessionId) -> Result<SessionView, Problem>;
    /// Restarts the kernel; running and queued work is cancelled.
    async fn restart(&self, id: SessionId, how: Restart) -> Result<SessionView, Problem>;
    /// The failures of a session, oldest first.
    async fn reports(&self, id: SessionId) -> Result<Vec<FailureReport>, Problem>;
}
