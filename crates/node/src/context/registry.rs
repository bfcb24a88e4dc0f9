//! Which sessions are in memory here, and which session has which path: one lock for both.
//!
//! ```text
//!            reserve                     opened                      vacate
//!  (absent) ─────────► Moving: being made ──────► Open: its task runs ──────► Moving: being evicted ──► (absent)
//!                      or woken                     │        ▲                    │
//!                                                   ▼        └────────────────────┘
//!                                                Broken            not after all
//! ```
//! Whoever meets a session that is moving waits for the end of that, and looks again. Whoever enters one is counted
//! in the same step in which it is looked up, so that it cannot be evicted under them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};

use outlive_core::id::{Epoch, SessionId};
use outlive_core::limits::RENAMED_LOOKS_MAX;
use outlive_protocol::http::{Problem, SessionView};
use tokio_util::sync::CancellationToken;

use super::Context;
use crate::cluster::paths::{self, NotTaken};
use crate::seams::ClaimError;
use crate::session::Handle;
use crate::session::handle::{Visit, Visiting};
use crate::session::with_sources;

/// What is in memory here.
#[derive(Default)]
pub(super) struct Registry {
    sessions: BTreeMap<SessionId, Slot>,
    /// Canonical paths of notebooks, those of dormant sessions too.
    paths: BTreeMap<PathBuf, Held>,
}

impl Registry {
    /// Of all paths that a session has, it keeps this one; those that it does not are returned.
    fn keep_path(&mut self, path: &Path, session: SessionId) -> Vec<PathBuf> {
        let freed = self.paths_of(session).filter(|other| *other != path).cloned().collect();
        self.paths.retain(|other, held| held.by != session || other == path);
        if let Some(held) = self.paths.get_mut(path) {
            held.until = None;
        }
        freed
    }

    fn paths_of(&self, session: SessionId) -> impl Iterator<Item = &PathBuf> {
        self.paths.iter().filter(move |(_, held)| held.by == session).map(|(path, _)| path)
    }
}

/// Who has a path.
struct Held {
    by: SessionId,
    /// Only until this is cancelled, unless it is kept then: somebody is being saved there, or opened.
    until: Option<CancellationToken>,
}

/// What whoever wants a path finds there.
#[derive(Debug)]
pub enum PathHolder {
    /// This session has it.
    Session(SessionId),
    /// Nobody knows yet; look again when this is cancelled.
    Unsettled(CancellationToken),
}

enum Slot {
    /// Somebody makes, wakes or evicts it; the token is cancelled when that is over.
    Moving(CancellationToken),
    Open(Handle),
    /// Its task ended for this reason; the next start takes it up again.
    Broken(String),
}

/// A session with the right to ask it something: it is not evicted meanwhile.
#[derive(Debug)]
pub struct Entered {
    /// The session.
    pub handle: Handle,
    _visit: Visit,
}

/// What stands in a session's place.
#[derive(Debug)]
pub enum Found {
    /// It is open.
    Open(Entered),
    /// It is being made, woken or evicted; look again when this is cancelled.
    Moving(CancellationToken),
    /// Nothing: it is dormant, or ended, or there never was one.
    Absent,
}

/// The right to make, wake or evict a session. Dropping it leaves its place empty, or broken where that was said.
#[must_use]
pub struct Reservation {
    context: Arc<Context>,
    /// The session.
    pub id: SessionId,
    over: CancellationToken,
}

impl Reservation {
    /// The session is open.
    pub fn opened(&self, handle: Handle) {
        self.context.registry().sessions.insert(self.id, Slot::Open(handle));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut registry = self.context.registry();
        if let Some(Slot::Moving(_)) = registry.sessions.get(&self.id) {
            registry.sessions.remove(&self.id);
        }
        drop(registry);
        self.over.cancel();
    }
}

/// A path that is reserved for a session. Dropping it gives it back.
pub struct PathSlot {
    context: Arc<Context>,
    path: PathBuf,
    session: SessionId,
    over: CancellationToken,
}

impl PathSlot {
    /// The session has the path from now on; any other that it had is free.
    pub fn confirm(self) {
        let freed = self.context.registry().keep_path(&self.path, self.session);
        self.context.free_everywhere(freed, self.session);
    }
}

impl PathSlot {
    /// Claims the path from all nodes once more, when the session that was made for it is listed. A node that stood still
    /// meanwhile was perhaps taken for dead, and its claim for left over; from here on nobody takes it for that.
    ///
    /// # Errors
    /// [`ClaimError::Held`] when another session has it, or why that is not known.
    pub async fn claim_again(&self) -> Result<(), ClaimError> {
        self.context.claim_everywhere(&self.path, self.session).await
    }

    /// The path is somebody else's, or may be: only this node lets go of it.
    pub fn forgo(self) {
        self.context.registry().paths.remove(&self.path);
    }
}

impl Drop for PathSlot {
    fn drop(&mut self) {
        let mut registry = self.context.registry();
        // One that is kept is held by the session itself.
        let is_given_back = registry
            .paths
            .get(&self.path)
            .is_some_and(|held| held.by == self.session && held.until.is_some());
        if is_given_back {
            registry.paths.remove(&self.path);
        }
        drop(registry);
        if is_given_back {
            self.context.free_everywhere(vec![self.path.clone()], self.session);
        }
        self.over.cancel();
    }
}

impl Context {
    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().expect("nothing panics while it holds the registry")
    }

    /// Who has this path.
    pub fn holder(&self, path: &Path) -> Option<PathHolder> {
        let registry = self.registry();
        let held = registry.paths.get(path)?;
        Some(held.until.clone().map_or(PathHolder::Session(held.by), PathHolder::Unsettled))
    }

    /// The sessions that are not in memory here and whose notebooks are in this directory, with their paths.
    pub fn dormant_in(&self, directory: &Path) -> Vec<(PathBuf, SessionId)> {
        let registry = self.registry();
        let below = registry.paths.range::<Path, _>((Bound::Excluded(directory), Bound::Unbounded));
        below
            .take_while(|(path, _)| path.starts_with(directory))
            .filter(|(path, held)| {
                let is_settled = held.until.is_none() && !registry.sessions.contains_key(&held.by);
                is_settled && path.parent() == Some(directory)
            })
            .map(|(path, held)| (path.clone(), held.by))
            .take(RENAMED_LOOKS_MAX)
            .collect()
    }

    /// Reserves a path (canonical) for a session.
    ///
    /// # Errors
    /// The session that has it.
    pub fn reserve_path(self: &Arc<Self>, path: &Path, session: SessionId) -> Result<PathSlot, SessionId> {
        match self.registry().paths.entry(path.to_owned()) {
            Entry::Occupied(held) => Err(held.get().by),
            Entry::Vacant(free) => {
                let over = CancellationToken::new();
                free.insert(Held { by: session, until: Some(over.clone()) });
                Ok(PathSlot { context: Arc::clone(self), path: path.to_owned(), session, over })
            }
        }
    }

    /// Notes the path that a session has by its log or its row; any other that it had is free: a row may be older than
    /// the log.
    ///
    /// # Errors
    /// Another session that has it.
    pub fn hold_path(self: &Arc<Self>, path: &Path, session: SessionId) -> Result<(), SessionId> {
        let mut registry = self.registry();
        let holder = registry.paths.entry(path.to_owned()).or_insert(Held { by: session, until: None }).by;
        if holder != session {
            return Err(holder);
        }
        let freed = registry.keep_path(path, session);
        drop(registry);
        self.free_everywhere(freed, session);
        Ok(())
    }

    /// Reserves a path (canonical) for a session, and of several nodes claims it from all of them.
    ///
    /// # Errors
    /// [`ClaimError::Held`], or why the claim is not recorded.
    pub async fn take_path(
        self: &Arc<Self>,
        path: &Path,
        session: SessionId,
    ) -> Result<PathSlot, ClaimError> {
        let slot = self.reserve_path(path, session).map_err(|by| held(path, by))?;
        match self.claim_everywhere(path, session).await {
            Ok(()) => Ok(slot),
            Err(error) => {
                // It is not ours to give back.
                slot.forgo();
                Err(error)
            }
        }
    }

    /// Claims a path (canonical) for a session from all nodes.
    ///
    /// # Errors
    /// As [`Self::take_path`].
    pub async fn claim_everywhere(&self, path: &Path, session: SessionId) -> Result<(), ClaimError> {
        let Some(cluster) = &self.cluster else { return Ok(()) };
        paths::claim(self, cluster, path, session).await.map_err(|not_taken| match not_taken {
            NotTaken::By(other) => held(path, other),
            NotTaken::Store(error) => {
                ClaimError::Io { path: path.display().to_string(), source: std::io::Error::other(error) }
            }
        })
    }

    /// Gives back a claim that a session has on a path that is not its notebook's.
    pub async fn free_path(&self, path: &Path, session: SessionId) {
        if let Some(cluster) = &self.cluster {
            paths::free(self, cluster, path, session).await;
        }
    }

    /// Gives paths back that a session had, to all nodes.
    fn free_everywhere(self: &Arc<Self>, freed: Vec<PathBuf>, session: SessionId) {
        let (Some(cluster), Ok(runtime)) = (&self.cluster, tokio::runtime::Handle::try_current()) else {
            return;
        };
        if freed.is_empty() {
            return;
        }
        let (context, cluster) = (Arc::clone(self), Arc::clone(cluster));
        let freeing = async move {
            for path in freed {
                paths::free(&context, &cluster, &path, session).await;
            }
        };
        self.tasks.spawn_on(freeing, &runtime);
    }

    /// Reserves the place of a session; `None` when something stands there.
    pub fn reserve(self: &Arc<Self>, id: SessionId) -> Option<Reservation> {
        let mut registry = self.registry();
        match registry.sessions.entry(id) {
            Entry::Occupied(_) => None,
            Entry::Vacant(slot) => {
                let over = CancellationToken::new();
                slot.insert(Slot::Moving(over.clone()));
                Some(Reservation { context: Arc::clone(self), id, over })
            }
        }
    }

    /// Reserves the place of a session whose task has ended without its end; `None` when something else stands there.
    pub fn reserve_broken(self: &Arc<Self>, id: SessionId) -> Option<Reservation> {
        let mut registry = self.registry();
        let slot = registry.sessions.get_mut(&id).filter(|slot| matches!(slot, Slot::Broken(_)))?;
        let over = CancellationToken::new();
        *slot = Slot::Moving(over.clone());
        Some(Reservation { context: Arc::clone(self), id, over })
    }

    /// Looks a session up, and enters it if it is open.
    ///
    /// # Errors
    /// `session-broken`.
    pub fn enter(&self, id: SessionId, why: Visiting) -> Result<Found, Problem> {
        match self.registry().sessions.get(&id) {
            Some(Slot::Open(handle)) => Ok(Found::Open(Entered {
                handle: handle.clone(),
                _visit: Visit::begin(Arc::clone(&handle.peers), why),
            })),
            Some(Slot::Moving(over)) => Ok(Found::Moving(over.clone())),
            Some(Slot::Broken(why)) => Err(broken(id, why)),
            None => Ok(Found::Absent),
        }
    }

    /// Takes an open session out of the registry to evict it; `None` when somebody is there, or was just now.
    pub fn vacate(self: &Arc<Self>, id: SessionId) -> Option<(Reservation, Handle)> {
        let mut registry = self.registry();
        let slot = registry.sessions.get_mut(&id)?;
        let Slot::Open(handle) = slot else { return None };
        if !handle.peers.is_deserted() || handle.mailbox.capacity() != handle.mailbox.max_capacity() {
            return None;
        }
        let handle = handle.clone();
        let over = CancellationToken::new();
        *slot = Slot::Moving(over.clone());
        Some((Reservation { context: Arc::clone(self), id, over }, handle))
    }

    /// The session's task, if it is open here: to look at, not to ask it something.
    ///
    /// # Errors
    /// `session-broken`.
    pub fn handle(&self, id: SessionId) -> Result<Option<Handle>, Problem> {
        match self.registry().sessions.get(&id) {
            Some(Slot::Open(handle)) => Ok(Some(handle.clone())),
            Some(Slot::Broken(why)) => Err(broken(id, why)),
            Some(Slot::Moving(_)) | None => Ok(None),
        }
    }

    /// Whether something of the session is in memory here.
    pub fn is_here(&self, id: SessionId) -> bool {
        self.registry().sessions.contains_key(&id)
    }

    /// All of which something is in memory here.
    pub fn present(&self) -> Vec<SessionId> {
        self.registry().sessions.keys().copied().collect()
    }

    /// All that are open here.
    pub fn handles(&self) -> Vec<Handle> {
        let registry = self.registry();
        registry
            .sessions
            .values()
            .filter_map(|slot| match slot {
                Slot::Open(handle) => Some(handle.clone()),
                Slot::Moving(_) | Slot::Broken(_) => None,
            })
            .collect()
    }

    /// Returns when everything that is being made, woken or evicted at this moment is open or gone.
    pub async fn settled(&self) {
        let moving: Vec<CancellationToken> = {
            let registry = self.registry();
            let slots = registry.sessions.values().filter_map(|slot| match slot {
                Slot::Moving(over) => Some(over.clone()),
                Slot::Open(_) | Slot::Broken(_) => None,
            });
            slots.collect()
        };
        for over in moving {
            over.cancelled().await;
        }
    }

    /// A session's task ended without its end.
    pub fn broken(&self, id: SessionId, why: String) {
        self.registry().sessions.insert(id, Slot::Broken(why));
    }

    /// A session's task ended because another node has the session: nothing of it is here any more, and whoever asks for
    /// it is told who has it. False on a node that is alone.
    pub fn give_up(&self, id: SessionId) -> bool {
        if self.cluster.is_none() {
            return false;
        }
        self.remove(id);
        self.unlist(id);
        self.bus.moved(id);
        true
    }

    /// A session was given to another node: its row says that it is nobody's, and nothing of it is here any more.
    pub async fn given_away(&self, view: &SessionView, epoch: Epoch) {
        if let Err(error) = self.index_given(view, epoch).await {
            // It is found by whoever looks for sessions of a node that has left.
            tracing::warn!(session = %view.id, error = %with_sources(&error), "that it is given away is not listed");
        }
        self.close_here(view.id).await;
        self.give_up(view.id);
    }

    /// Another node has the session, or will have it: what the store holds for it here goes, unless somebody watches.
    pub async fn close_here(&self, id: SessionId) {
        if !self.bus.is_followed(id) {
            self.engine.close_session(id).await;
        }
        self.bus.moved(id);
    }

    /// The sessions whose tasks ended without their end, and why.
    pub fn broken_sessions(&self) -> Vec<(SessionId, String)> {
        let registry = self.registry();
        registry
            .sessions
            .iter()
            .filter_map(|(id, slot)| match slot {
                Slot::Broken(why) => Some((*id, why.clone())),
                Slot::Moving(_) | Slot::Open(_) => None,
            })
            .collect()
    }

    /// A session that ends or was never made has no path.
    pub fn forget_paths_of(self: &Arc<Self>, id: SessionId) {
        let freed = self.registry().paths_of(id).cloned().collect();
        self.leave_paths_of(id);
        self.free_everywhere(freed, id);
    }

    /// A session is not this node's any more, and takes its path along.
    pub fn leave_paths_of(&self, id: SessionId) {
        self.registry().paths.retain(|_, held| held.by != id);
    }

    /// Nothing of a session that has ended is kept: neither its place nor its path.
    pub(super) fn remove(&self, id: SessionId) {
        let mut registry = self.registry();
        registry.sessions.remove(&id);
        registry.paths.retain(|_, held| held.by != id);
    }
}

fn held(path: &Path, by: SessionId) -> ClaimError {
    ClaimError::Held { path: path.display().to_string(), session: by, pid: std::process::id() }
}

fn broken(id: SessionId, why: &str) -> Problem {
    Problem::new(
        503,
        crate::problem::SESSION_BROKEN,
        "The session cannot go on",
        format!("session {id} cannot go on: {why}"),
    )
    .hint(
        "its processes run on; repair what is wrong and start the daemon again, or give it up with `outlive stop --force`",
    )
}
