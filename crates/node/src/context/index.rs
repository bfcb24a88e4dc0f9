//! The table of sessions: what is known of each without its log.

use outlive_core::id::{Revision, SessionId};
use outlive_protocol::http::SessionView;
use outlive_store::TableError;
use serde::{Deserialize, Deserializer, Serialize};

use super::Context;

/// The table of sessions.
const SESSIONS: &str = "sessions";

/// Where a session stands between its creation and its being forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// Its task runs, or is to be started by the next daemon.
    Open,
    /// It was evicted: whoever asks for it wakes it.
    Dormant,
    /// It has ended.
    Ended,
}

/// A session in the index.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Indexed {
    /// Its view when it was indexed last: at its creation, with another path, at its eviction and at its end.
    pub view: SessionView,
    /// Where it stands. Rows of version 0.1 say `open: bool`.
    #[serde(alias = "open", deserialize_with = "presence")]
    pub presence: Presence,
}

fn presence<'de, D: Deserializer<'de>>(from: D) -> Result<Presence, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Open(bool),
        Presence(Presence),
    }
    Ok(match Either::deserialize(from)? {
        Either::Open(true) => Presence::Open,
        Either::Open(false) => Presence::Ended,
        Either::Presence(presence) => presence,
    })
}

impl Context {
    /// Writes a session's row; only its owner does.
    ///
    /// # Errors
    /// As the store says.
    pub async fn index(&self, view: &SessionView, presence: Presence) -> Result<(), TableError> {
        let key = view.id.to_string();
        let mut view = view.clone();
        // A row is read when the session is not in memory, and nobody is attached to it.
        view.loaded = false;
        view.peers = 0;
        view.rests_at = None;
        let value = serde_json::to_vec(&Indexed { view, presence }).expect("a view is plain data");
        let before = self.engine.get(SESSIONS, &key).await?.map_or(Revision(0), |row| row.revision);
        self.engine.put_if(SESSIONS, &key, before, &value).await.map(|_| ())
    }

    /// A session's row.
    ///
    /// # Errors
    /// As the store says.
    pub async fn indexed(&self, id: SessionId) -> Result<Option<Indexed>, TableError> {
        let row = self.engine.get(SESSIONS, &id.to_string()).await?;
        Ok(row.and_then(|row| serde_json::from_slice(&row.value).ok()))
    }

    /// All rows, newest session first.
    ///
    /// # Errors
    /// As the store says.
    pub async fn all_indexed(&self) -> Result<Vec<Indexed>, TableError> {
        let rows = self.engine.scan(SESSIONS, "").await?;
        let mut all: Vec<Indexed> =
            rows.iter().filter_map(|row| serde_json::from_slice(&row.value).ok()).collect();
        all.sort_by_key(|row| std::cmp::Reverse(row.view.created_at));
        Ok(all)
    }

    /// A session has ended.
    pub async fn closed(&self, view: &SessionView) {
        if let Err(error) = self.index(view, Presence::Ended).await {
            tracing::error!(session = %view.id, %error, "the end of a session is not indexed");
        }
        self.remove(view.id);
        self.metrics.session_ended();
        self.engine.close_session(view.id).await;
    }

    /// Forgets an ended session.
    ///
    /// # Errors
    /// As the store says.
    pub async fn forget(&self, id: SessionId) -> Result<(), TableError> {
        let key = id.to_string();
        // The row goes last: what is left of a session is found again by it.
        self.engine.drop_session(id).await?;
        match self.engine.get(SESSIONS, &key).await? {
            Some(row) => self.engine.delete_if(SESSIONS, &key, row.revision).await,
            None => Ok(()),
        }
    }
}
