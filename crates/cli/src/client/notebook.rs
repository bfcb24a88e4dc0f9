//! The calls about notebooks that are opened, edited and saved.

use std::time::Duration;

use hyper::Method;
use outlive_core::id::{RunId, SessionId};
use outlive_core::session::spec::Trust;
use outlive_protocol::http::{
    Close, NewSession, NotebookView, OpenSession, Opened, RunView, SaveSession, SavedState, SessionView,
    SetTrust, Stop, SubmitRuns,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{CallError, Client};

/// Longest wait for a notebook to be opened or saved: a large one on a slow or remote disk.
const FILE_TIMEOUT: Duration = Duration::from_secs(300);

impl Client {
    /// Makes an untitled notebook.
    pub async fn new_session(&self, request: &NewSession) -> Result<Opened, CallError> {
        self.post("/v1/sessions/new", request, FILE_TIMEOUT).await
    }

    /// Opens a notebook by path, or a session by id.
    pub async fn open(&self, request: &OpenSession) -> Result<Opened, CallError> {
        self.post("/v1/sessions/open", request, FILE_TIMEOUT).await
    }

    /// Saves a notebook.
    pub async fn save(&self, id: SessionId, how: &SaveSession) -> Result<Opened, CallError> {
        self.post(&format!("/v1/sessions/{id}/save"), how, FILE_TIMEOUT).await
    }

    /// Saves, stops the kernel and ends the session.
    pub async fn close(&self, id: SessionId, how: Close) -> Result<SessionView, CallError> {
        self.post(&format!("/v1/sessions/{id}/close"), &how, FILE_TIMEOUT).await
    }

    /// Ends a session. One whose notebook cannot be saved ends only when nothing is lost with it, unless by force.
    /// A group is taken down.
    pub async fn end(&self, session: &SessionView, force: bool) -> Result<SessionView, CallError> {
        if let Some(group) = &session.group {
            return self.down(&group.name, force).await;
        }
        match session.saved {
            Some(SavedState::Untitled | SavedState::Failing { .. } | SavedState::Conflict { .. })
                if !force =>
            {
                self.close(session.id, Close { discard: false }).await
            }
            _ => self.stop(session.id, Stop { force }).await,
        }
    }

    /// Stops the kernel and keeps the session.
    pub async fn rest(&self, id: SessionId, how: Stop) -> Result<SessionView, CallError> {
        self.ask(Method::POST, &format!("/v1/sessions/{id}/rest"), Some(&how)).await
    }

    /// Vouches for a notebook, or takes that back.
    pub async fn trust(&self, id: SessionId, trust: Trust) -> Result<SessionView, CallError> {
        self.ask(Method::POST, &format!("/v1/sessions/{id}/trust"), Some(&SetTrust { trust })).await
    }

    /// Queues work.
    pub async fn submit(&self, id: SessionId, work: &SubmitRuns) -> Result<Vec<RunView>, CallError> {
        self.ask(Method::POST, &format!("/v1/sessions/{id}/runs"), Some(work)).await
    }

    /// One run.
    pub async fn run(&self, id: SessionId, run: RunId) -> Result<RunView, CallError> {
        self.get(&format!("/v1/sessions/{id}/runs/{run}")).await
    }

    /// A notebook as it is now.
    pub async fn notebook(&self, id: SessionId, outputs: bool) -> Result<NotebookView, CallError> {
        self.get(&format!("/v1/sessions/{id}/notebook?outputs={outputs}")).await
    }

    async fn post<B, T>(&self, path: &str, body: &B, patience: Duration) -> Result<T, CallError>
    where
        B: Serialize + Sync,
        T: DeserializeOwned,
    {
        let bytes = self.exchange(Method::POST, path, Some(body), patience).await?;
        serde_json::from_slice(&bytes).map_err(|error| CallError::Unreadable {
            what: format!("POST {path}"),
            reason: error.to_string(),
        })
    }
}
