//! The table of sessions: what is known of each without its log.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, MutexGuard};

use outlive_core::failover::Member;
use outlive_core::id::{Epoch, ReportId, Revision, SessionId};
use outlive_core::limits::STORE_RETRY_MS;
use outlive_document::file::FileMeta;
use outlive_protocol::http::{RunCounts, RuntimeState, SessionState, SessionView};
use outlive_store::{Row, TableError};
use serde::{Deserialize, Deserializer, Serialize};

use super::Context;
use crate::cluster::paths::VolumePath;

/// The table of sessions.
pub(crate) const SESSIONS: &str = "sessions";

/// How often a row is written anew because somebody else has written it meanwhile. Only its owner does and who takes
/// over, so that each of these is another owner.
const TRIES: usize = 16;

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
    /// Of several nodes the one that has it open. A hint: the truth is the control lane of its log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Member>,
    /// The claim under which this was written; of a node that is alone, 0.
    #[serde(default, skip_serializing_if = "is_first")]
    pub epoch: Epoch,
    /// Of several nodes: where its notebook's file is, for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<VolumePath>,
    /// Whether it has a live kernel, whose memory is waited for when its node is lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_kernel: bool,
    /// Of a dormant one: what its notebook's file looked like when it left memory. By that it is known under another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileMeta>,
}

impl Indexed {
    /// A session of a node that is alone, as its log has it.
    pub(crate) fn found(view: SessionView, presence: Presence) -> Self {
        Self {
            view,
            presence,
            owner: None,
            epoch: Epoch::default(),
            place: None,
            has_kernel: false,
            file: None,
        }
    }
}

const fn is_first(epoch: &Epoch) -> bool {
    epoch.0 == 0
}

/// What a row says; `None` of one that is damaged: it may also have come under another session's key.
fn read(row: &Row) -> Option<Indexed> {
    let read: Option<Indexed> = serde_json::from_slice(&row.value).ok();
    read.filter(|read| read.view.id.to_string() == row.key)
}

/// Whether a session has a kernel that lives, as its view says.
fn has_kernel(view: &SessionView) -> bool {
    let lives = match view.runtime.state {
        RuntimeState::Idle | RuntimeState::Busy | RuntimeState::Unresponsive { .. } => true,
        RuntimeState::Down
        | RuntimeState::Launching
        | RuntimeState::Stopping { .. }
        | RuntimeState::Exited { .. }
        | RuntimeState::Backoff { .. }
        | RuntimeState::GaveUp { .. }
        | RuntimeState::Unknown => false,
    };
    lives && matches!(view.kind.as_str(), "notebook" | "kernel")
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

/// What people look for in a list of sessions.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Shown {
    state: SessionState,
    runtime: RuntimeState,
    runs: RunCounts,
    path: Option<String>,
    report: Option<ReportId>,
}

impl Shown {
    fn of(view: &SessionView) -> Self {
        Self {
            state: view.state,
            runtime: view.runtime.state.clone(),
            runs: view.runs,
            path: view.path.clone(),
            report: view.last_report.as_ref().map(|report| report.id),
        }
    }
}

impl Context {
    /// Writes a session's row; only its owner does, under its claim of this epoch. What a later owner has written stays.
    ///
    /// # Errors
    /// As the store says.
    pub async fn index(
        &self,
        view: &SessionView,
        presence: Presence,
        epoch: Epoch,
    ) -> Result<(), TableError> {
        self.index_with(view, presence, epoch, None).await
    }

    /// Writes the row of a session that leaves memory, whose notebook's file looks like this.
    ///
    /// # Errors
    /// As the store says.
    pub async fn index_dormant(
        &self,
        view: &SessionView,
        epoch: Epoch,
        file: Option<FileMeta>,
    ) -> Result<(), TableError> {
        self.index_with(view, Presence::Dormant, epoch, file).await
    }

    async fn index_with(
        &self,
        view: &SessionView,
        presence: Presence,
        epoch: Epoch,
        file: Option<FileMeta>,
    ) -> Result<(), TableError> {
        let mut view = view.clone();
        // A row is read when the session is not in memory, and nobody is attached to it.
        view.loaded = false;
        view.peers = 0;
        view.rests_at = None;
        let (owner, epoch) = match &self.cluster {
            Some(cluster) => (Some(cluster.me).filter(|_| presence == Presence::Open), epoch),
            None => (None, Epoch::default()),
        };
        view.node = self.name().filter(|_| owner.is_some());
        let has_kernel = owner.is_some() && has_kernel(&view);
        let id = view.id;
        if owner.is_some() {
            self.listed().insert(id, Shown::of(&view));
        } else {
            self.unlist(id);
        }
        let row = Indexed { view, presence, owner, epoch, place: None, has_kernel, file };
        self.write_row(id, |before| match before {
            Some(before) if before.epoch > epoch => None,
            Some(_) | None => Some(row.clone()),
        })
        .await
    }

    /// Says in a session's row that it is open and nobody's.
    ///
    /// # Errors
    /// As the store says.
    pub async fn index_given(&self, view: &SessionView, epoch: Epoch) -> Result<(), TableError> {
        let mut view = view.clone();
        (view.loaded, view.peers, view.rests_at, view.node) = (false, 0, None, None);
        let row = Indexed { epoch, ..Indexed::found(view, Presence::Open) };
        self.write_row(row.view.id, |before| {
            let is_newer = before.is_some_and(|before| before.epoch > epoch);
            (!is_newer).then(|| row.clone())
        })
        .await
    }

    /// Brings the row of a session that is open here up to date, if what people look for in a list is another than was
    /// written last. What its owner writes meanwhile stays.
    ///
    /// # Errors
    /// As the store says.
    pub async fn refresh(&self, view: &SessionView) -> Result<(), TableError> {
        let shown = Shown::of(view);
        if self.listed().get(&view.id) == Some(&shown) {
            return Ok(());
        }
        let me = self.cluster.as_ref().map(|cluster| cluster.me);
        self.write_row(view.id, |before| {
            let before = before.filter(|before| before.owner.is_some() && before.owner == me)?;
            let mut view = view.clone();
            (view.loaded, view.peers, view.rests_at) = (false, 0, None);
            Some(Indexed { has_kernel: has_kernel(&view), view, ..before })
        })
        .await?;
        self.listed().insert(view.id, shown);
        Ok(())
    }

    /// A session's view changes. Whether it has a live kernel is told to the other nodes at once: they leave it to a node
    /// that is lost for a while.
    pub(crate) fn shows(&self, before: &SessionView, view: &SessionView) {
        if has_kernel(before) != has_kernel(view) {
            self.list_now.notify_one();
        }
    }

    /// Waits until rows are to be brought up to date at once. Cancel-safe.
    pub(crate) async fn is_to_list(&self) {
        self.list_now.notified().await;
    }

    /// A session is not open here any more.
    pub(super) fn unlist(&self, id: SessionId) {
        self.listed().remove(&id);
    }

    fn listed(&self) -> MutexGuard<'_, HashMap<SessionId, Shown>> {
        self.listed.lock().expect("nothing panics while it holds what is listed")
    }

    /// Says in a session's row that it is this node's, before all of it is read: others ask here from now on.
    ///
    /// # Errors
    /// As the store says.
    pub async fn index_owner(&self, id: SessionId, epoch: Epoch) -> Result<(), TableError> {
        let Some(cluster) = &self.cluster else { return Ok(()) };
        self.write_row(id, |before| {
            let before =
                before.filter(|before| before.epoch < epoch && before.presence != Presence::Ended)?;
            let view = SessionView { node: self.name(), ..before.view };
            Some(Indexed { owner: Some(cluster.me), epoch, presence: Presence::Open, view, ..before })
        })
        .await
    }

    /// Says in a session's row whose it is, as its log says, where the row says something else: one who claimed it as well,
    /// and whose claim does not count, may have written the row last.
    ///
    /// # Errors
    /// As the store says.
    pub async fn index_owner_of(
        &self,
        id: SessionId,
        owner: Member,
        name: String,
        epoch: Epoch,
    ) -> Result<(), TableError> {
        self.write_row(id, |before| {
            let is_wrong = |row: &Indexed| {
                row.presence == Presence::Open && row.epoch <= epoch && row.owner != Some(owner)
            };
            let before = before.filter(is_wrong)?;
            let view = SessionView { node: Some(name.clone()), ..before.view };
            Some(Indexed { owner: Some(owner), epoch, view, ..before })
        })
        .await
    }

    /// Writes a row as `row` says of the one that is there, which is nothing if it is to stay.
    pub(super) async fn write_row(
        &self,
        id: SessionId,
        row: impl Fn(Option<Indexed>) -> Option<Indexed>,
    ) -> Result<(), TableError> {
        let key = id.to_string();
        let mut last = None;
        for _ in 0..TRIES {
            let before = self.engine.get(SESSIONS, &key).await?;
            let revision = before.as_ref().map_or(Revision(0), |row| row.revision);
            let before = before.as_ref().and_then(read);
            let known = before.as_ref().map(|before| (before.view.path.clone(), before.place.clone()));
            let Some(mut row) = row(before) else { return Ok(()) };
            row.place = self.place_of(row.view.path.as_deref(), known);
            let value = serde_json::to_vec(&row).expect("a view is plain data");
            match self.engine.put_if(SESSIONS, &key, revision, &value).await {
                Ok(_) => return Ok(()),
                Err(error @ (TableError::Conflict { .. } | TableError::Unknown)) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.expect("it was tried at least once"))
    }

    /// Where a notebook's file is for all nodes. That of one that this node does not reach stays as it is known.
    fn place_of(
        &self,
        path: Option<&str>,
        known: Option<(Option<String>, Option<VolumePath>)>,
    ) -> Option<VolumePath> {
        let (cluster, path) = (self.cluster.as_ref()?, path?);
        match known {
            Some((before, Some(place))) if before.as_deref() == Some(path) => Some(place),
            _ => Some(cluster.place(Path::new(path))),
        }
    }

    /// A session's row.
    ///
    /// # Errors
    /// As the store says.
    pub async fn indexed(&self, id: SessionId) -> Result<Option<Indexed>, TableError> {
        let row = self.engine.get(SESSIONS, &id.to_string()).await?;
        Ok(row.as_ref().and_then(read))
    }

    /// All rows, newest session first.
    ///
    /// # Errors
    /// As the store says.
    pub async fn all_indexed(&self) -> Result<Vec<Indexed>, TableError> {
        let rows = self.engine.scan(SESSIONS, "").await?;
        let mut all: Vec<Indexed> = rows.iter().filter_map(read).collect();
        all.sort_by_key(|row| std::cmp::Reverse(row.view.created_at));
        Ok(all)
    }

    /// Removes the rows that cannot be read: whose log is there has another by now.
    ///
    /// # Errors
    /// As the store says.
    pub(crate) async fn drop_unreadable(&self) -> Result<(), TableError> {
        for row in self.engine.scan(SESSIONS, "").await?.iter().filter(|row| read(row).is_none()) {
            tracing::error!(key = row.key, "a row of the table of sessions cannot be read and is removed");
            match self.engine.delete_if(SESSIONS, &row.key, row.revision).await {
                Ok(()) | Err(TableError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A session has ended.
    pub async fn closed(self: &Arc<Self>, view: &SessionView, epoch: Epoch) {
        if let Err(error) = self.index(view, Presence::Ended, epoch).await {
            tracing::error!(session = %view.id, %error, "the end of a session is not indexed yet");
            let (context, view) = (Arc::clone(self), view.clone());
            self.tasks.spawn(async move { context.index_end(&view, epoch).await });
        }
        self.remove(view.id);
        self.metrics.session_ended();
        self.engine.close_session(view.id).await;
    }

    /// Indexes an end until it is, or somebody else has: else the session stands at its path until the node starts anew.
    async fn index_end(&self, view: &SessionView, epoch: Epoch) {
        while self.pause(STORE_RETRY_MS).await {
            let is_over = match self.indexed(view.id).await {
                Ok(None) => true,
                Ok(Some(row)) if row.presence == Presence::Ended => true,
                Ok(Some(_)) => self.index(view, Presence::Ended, epoch).await.is_ok(),
                Err(_) => false,
            };
            if is_over {
                return;
            }
        }
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
