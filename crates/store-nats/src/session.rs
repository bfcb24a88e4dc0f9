//! What is held in memory of sessions that are written or followed here. A session that is only known costs nothing.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use outlive_core::id::{Position, SessionId};
use outlive_core::log::Lane;
use outlive_store::Guard;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::layout::{Layout, Place};
use crate::tail::Tail;

/// The sessions in memory.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<HashMap<SessionId, Arc<Session>>>);

/// One of them.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) place: Place,
    /// The last position that is known to be stored. Its receivers are closed when the session leaves the memory.
    pub(crate) head: watch::Sender<Position>,
    /// One append at a time: replicas refuse guarded ones that overtake each other.
    pub(crate) turn: Semaphore,
    /// One reader at a time fetches the tail for all.
    pub(crate) fetching: Semaphore,
    pub(crate) tail: Mutex<Tail>,
    pub(crate) ended: CancellationToken,
    writing: Mutex<Writing>,
    following: Mutex<Following>,
}

/// What is known for the next append.
#[derive(Debug, Default)]
pub(crate) struct Writing {
    /// What the log takes up, in bytes, about; unknown before the first append.
    pub(crate) size: Option<u64>,
    pub(crate) doubt: Option<Doubt>,
    /// Blobs that are known to be in the store.
    pub(crate) put: HashSet<String>,
}

/// An append without an answer. Repeated, it goes by the same name, so that the server stores it once.
#[derive(Debug)]
pub(crate) struct Doubt {
    pub(crate) lane: Lane,
    pub(crate) guard: Guard,
    pub(crate) payload: Bytes,
    pub(crate) name: String,
}

/// Whether a task hears of what is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Following {
    No,
    Yes,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Session>>> {
        self.0.lock().expect("no holder of this lock panics")
    }

    pub(crate) fn get(&self, id: SessionId) -> Option<Arc<Session>> {
        self.lock().get(&id).cloned()
    }

    pub(crate) fn enter(&self, id: SessionId, layout: &Layout) -> Arc<Session> {
        Arc::clone(self.lock().entry(id).or_insert_with(|| Arc::new(Session::new(id, layout.place(id)))))
    }

    /// As [`Self::enter`]; one that is not in memory stays out of it.
    pub(crate) fn look(&self, id: SessionId, layout: &Layout) -> Arc<Session> {
        self.get(id).unwrap_or_else(|| Arc::new(Session::new(id, layout.place(id))))
    }

    /// Forgets it; whoever holds its head is told.
    pub(crate) fn forget(&self, id: SessionId) -> Option<Arc<Session>> {
        let session = self.lock().remove(&id)?;
        session.ended.cancel();
        Some(session)
    }

    /// Forgets a session that nobody looks at and that was never written here.
    pub(crate) fn forget_unused(&self, session: &Arc<Session>) -> bool {
        let mut sessions = self.lock();
        let is_unused = session.head.receiver_count() == 0;
        if is_unused {
            session.tail().clear();
            *session.following.lock().expect("no holder of this lock panics") = Following::No;
            let written = session.writing().size.is_some();
            let same = sessions.get(&session.id).is_some_and(|known| Arc::ptr_eq(known, session));
            if !written && same {
                sessions.remove(&session.id);
                session.ended.cancel();
            }
        }
        is_unused
    }

    /// Its head, and whether somebody has to begin to follow it. In one step with [`Self::forget_unused`].
    pub(crate) fn hold(
        &self,
        id: SessionId,
        layout: &Layout,
    ) -> (Arc<Session>, watch::Receiver<Position>, bool) {
        let mut sessions = self.lock();
        let session = sessions.entry(id).or_insert_with(|| Arc::new(Session::new(id, layout.place(id))));
        let receiver = session.head.subscribe();
        let mut following = session.following.lock().expect("no holder of this lock panics");
        let begins = std::mem::replace(&mut *following, Following::Yes) == Following::No;
        drop(following);
        (Arc::clone(session), receiver, begins)
    }

    /// Ends all.
    pub(crate) fn clear(&self) {
        for (_, session) in self.lock().drain() {
            session.ended.cancel();
        }
    }
}

impl Session {
    fn new(id: SessionId, place: Place) -> Self {
        Self {
            id,
            place,
            head: watch::Sender::new(Position::default()),
            turn: Semaphore::new(1),
            fetching: Semaphore::new(1),
            tail: Mutex::default(),
            ended: CancellationToken::new(),
            writing: Mutex::default(),
            following: Mutex::new(Following::No),
        }
    }

    pub(crate) fn known(&self) -> Position {
        *self.head.borrow()
    }

    /// Something is stored at this position.
    pub(crate) fn advance(&self, to: Position) {
        self.head.send_if_modified(|head| {
            let further = to > *head;
            if further {
                *head = to;
            }
            further
        });
    }

    pub(crate) fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().expect("no holder of this lock panics")
    }

    pub(crate) fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().expect("no holder of this lock panics")
    }

    pub(crate) fn is_followed(&self) -> bool {
        *self.following.lock().expect("no holder of this lock panics") == Following::Yes
    }
}
