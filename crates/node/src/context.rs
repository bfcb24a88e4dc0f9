//! What every session's task shares: the seams, and the registry of what is open here.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use outlive_core::id::{ProcessKey, Revision, SessionId};
use outlive_protocol::http::{Problem, SessionView};
use outlive_store::Engine;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::seams::{Bus, Clock, Files, FoundShim, Identity, Runtimes};
use crate::session::Handle;

/// How many refused shims `doctor` remembers.
const REFUSED_MAX: usize = 32;
/// The table of sessions.
const SESSIONS: &str = "sessions";

/// The seams and the registry.
pub struct Context {
    /// Who this node is.
    pub who: Identity,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Logs, tables, blobs.
    pub engine: Arc<dyn Engine>,
    /// Live tails.
    pub bus: Arc<dyn Bus>,
    /// Processes.
    pub runtimes: Arc<dyn Runtimes>,
    /// Files.
    pub files: Arc<dyn Files>,
    /// Owner of every session's task.
    pub tasks: TaskTracker,
    /// Ends every session's task; processes go on.
    pub stop: CancellationToken,
    registry: Mutex<Registry>,
    /// What was said of shims that were refused, the latest last; at most [`REFUSED_MAX`].
    refused: Mutex<VecDeque<String>>,
}

/// What is open here, and which session has which path: one lock for both.
#[derive(Default)]
struct Registry {
    sessions: HashMap<SessionId, Slot>,
    /// Canonical paths of notebooks, those of dormant sessions too.
    paths: HashMap<PathBuf, SessionId>,
}

/// A path that is reserved for a session. Dropping it gives it back.
pub struct PathSlot {
    context: Arc<Context>,
    path: PathBuf,
    session: SessionId,
    kept: bool,
}

impl PathSlot {
    /// The session has the path from now on; any other that it had is free.
    pub fn confirm(mut self) {
        self.kept = true;
        let (path, session) = (&self.path, self.session);
        self.context.registry().paths.retain(|other, holder| *holder != session || other == path);
    }
}

impl Drop for PathSlot {
    fn drop(&mut self) {
        if !self.kept {
            self.context.registry().paths.remove(&self.path);
        }
    }
}

enum Slot {
    /// Somebody is making it.
    Reserved,
    Open(Handle),
    /// Its task ended for this reason; the next start takes it up again.
    Broken(String),
}

/// A session in the index: what is known of it without its log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Indexed {
    /// Its last view that was indexed: at its creation and at its end.
    pub view: SessionView,
    /// Whether it has not ended.
    pub open: bool,
}

impl Context {
    /// A node without sessions.
    #[expect(clippy::too_many_arguments, reason = "one for each seam")]
    pub fn new(
        who: Identity,
        clock: Arc<dyn Clock>,
        engine: Arc<dyn Engine>,
        bus: Arc<dyn Bus>,
        runtimes: Arc<dyn Runtimes>,
        files: Arc<dyn Files>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self {
            who,
            clock,
            engine,
            bus,
            runtimes,
            files,
            tasks,
            stop,
            registry: Mutex::default(),
            refused: Mutex::default(),
        }
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().expect("nothing panics while it holds the registry")
    }

    /// The session that has this path, or is about to.
    pub fn session_at(&self, path: &Path) -> Option<SessionId> {
        self.registry().paths.get(path).copied()
    }

    /// Reserves a path (canonical) for a session.
    ///
    /// # Errors
    /// The session that has it.
    pub fn reserve_path(self: &Arc<Self>, path: &Path, session: SessionId) -> Result<PathSlot, SessionId> {
        use std::collections::hash_map::Entry;
        match self.registry().paths.entry(path.to_owned()) {
            Entry::Occupied(held) => Err(*held.get()),
            Entry::Vacant(free) => {
                free.insert(session);
                Ok(PathSlot { context: Arc::clone(self), path: path.to_owned(), session, kept: false })
            }
        }
    }

    /// Reserves an id; `false` when somebody has it.
    pub fn reserve(&self, id: SessionId) -> bool {
        match self.registry().sessions.entry(id) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert(Slot::Reserved);
                true
            }
        }
    }

    /// Gives a reservation back.
    pub fn release(&self, id: SessionId) {
        self.registry().sessions.remove(&id);
    }

    #[cfg(test)]
    pub(crate) fn is_reserved(&self, id: SessionId) -> bool {
        matches!(self.registry().sessions.get(&id), Some(Slot::Reserved))
    }

    /// Registers a session's task.
    pub fn register(&self, handle: Handle) {
        self.registry().sessions.insert(handle.id, Slot::Open(handle));
    }

    /// The session's task, if it is open here.
    ///
    /// # Errors
    /// When its task ended without its end.
    pub fn handle(&self, id: SessionId) -> Result<Option<Handle>, Problem> {
        match self.registry().sessions.get(&id) {
            Some(Slot::Open(handle)) => Ok(Some(handle.clone())),
            Some(Slot::Broken(why)) => Err(Problem::new(
                503,
                "session-broken",
                "The session cannot go on",
                format!("session {id} cannot go on: {why}"),
            )
            .hint("its processes run on; repair what is wrong and start the daemon again")),
            Some(Slot::Reserved) | None => Ok(None),
        }
    }

    /// All that are open here.
    pub fn handles(&self) -> Vec<Handle> {
        let registry = self.registry();
        registry
            .sessions
            .values()
            .filter_map(|slot| match slot {
                Slot::Open(handle) => Some(handle.clone()),
                Slot::Reserved | Slot::Broken(_) => None,
            })
            .collect()
    }

    /// A session's task ended without its end.
    pub fn broken(&self, id: SessionId, why: String) {
        self.registry().sessions.insert(id, Slot::Broken(why));
    }

    /// The sessions whose tasks ended without their end, and why.
    pub fn broken_sessions(&self) -> Vec<(SessionId, String)> {
        let registry = self.registry();
        registry
            .sessions
            .iter()
            .filter_map(|(id, slot)| match slot {
                Slot::Broken(why) => Some((*id, why.clone())),
                Slot::Reserved | Slot::Open(_) => None,
            })
            .collect()
    }

    /// Tells a shim that nobody knows it, and remembers that for `doctor`.
    pub fn refuse(&self, shim: &FoundShim, reason: &str) {
        self.note_refused(shim.identity.process, shim.identity.session, reason);
        self.runtimes.refuse(shim, reason);
    }

    /// Remembers for `doctor` that a shim was refused.
    pub fn note_refused(&self, process: ProcessKey, session: SessionId, reason: &str) {
        tracing::warn!(%process, reason, "a shim is refused");
        let mut refused = self.refused.lock().expect("nothing panics while it holds the refused");
        if refused.len() == REFUSED_MAX {
            refused.pop_front();
        }
        refused.push_back(format!("{process} of session {session}: {reason}"));
    }

    /// The shims that were refused since the daemon's start, the latest last.
    pub fn refused(&self) -> Vec<String> {
        self.refused.lock().expect("nothing panics while it holds the refused").iter().cloned().collect()
    }

    /// A session has ended.
    pub async fn closed(&self, view: &SessionView) {
        if let Err(error) = self.index(view, false).await {
            tracing::error!(session = %view.id, %error, "the end of a session is not indexed");
        }
        self.registry().sessions.remove(&view.id);
        self.engine.close_session(view.id).await;
    }

    /// Writes a session's row; only its owner does.
    ///
    /// # Errors
    /// As the store says.
    pub async fn index(&self, view: &SessionView, open: bool) -> Result<(), outlive_store::TableError> {
        let key = view.id.to_string();
        let row = Indexed { view: view.clone(), open };
        let value = serde_json::to_vec(&row).expect("a view is plain data");
        let before = self.engine.get(SESSIONS, &key).await?.map_or(Revision(0), |row| row.revision);
        self.engine.put_if(SESSIONS, &key, before, &value).await.map(|_| ())
    }

    /// A session's row.
    ///
    /// # Errors
    /// As the store says.
    pub async fn indexed(&self, id: SessionId) -> Result<Option<Indexed>, outlive_store::TableError> {
        let row = self.engine.get(SESSIONS, &id.to_string()).await?;
        Ok(row.and_then(|row| serde_json::from_slice(&row.value).ok()))
    }

    /// All rows, newest session first.
    ///
    /// # Errors
    /// As the store says.
    pub async fn all_indexed(&self) -> Result<Vec<Indexed>, outlive_store::TableError> {
        let rows = self.engine.scan(SESSIONS, "").await?;
        let mut all: Vec<Indexed> =
            rows.iter().filter_map(|row| serde_json::from_slice(&row.value).ok()).collect();
        all.sort_by_key(|row| std::cmp::Reverse(row.view.created_at));
        Ok(all)
    }

    /// Forgets an ended session.
    ///
    /// # Errors
    /// As the store says.
    pub async fn forget(&self, id: SessionId) -> Result<(), outlive_store::TableError> {
        let key = id.to_string();
        // The row goes last: what is left of a session is found again by it.
        self.engine.drop_session(id).await?;
        match self.engine.get(SESSIONS, &key).await? {
            Some(row) => self.engine.delete_if(SESSIONS, &key, row.revision).await,
            None => Ok(()),
        }
    }
}
