//! What a node does that is cut off from the others or from the store: others may take its sessions over, and it cannot
//! know. It stops showing what may not be true any more, and keeps its processes from doing anything, but it does not
//! end them: a store that is restarted, or elects a leader, must not cost anybody's memory.
//!
//! ```text
//!         amiss for `limit`,                 all is well again
//!         or stood still so long
//!   Well ─────────────────────► Isolated ────────────────────► Reuniting ──► Well
//!     │ back after a shorter cut   ▲   watchers closed,            │  each session's control lane is read:
//!     └─► looks at all sessions    │   processes frozen            │  still mine: it goes on; else given up
//!                                  └───────────────────────────────┘ amiss again for `limit`
//! ```
//!
//! Invariant (tests/failover_isolation.rs): nothing goes on after an isolation that was not looked at since.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::id::SessionId;
use crate::limits::CLUSTER_ISOLATION_MS;
use crate::time::Tick;

/// A round of looks at the sessions. The answers of an earlier one do not count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Round(u64);

/// What the control lane says of a session that is open here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is ours, in this life.
    Mine,
    /// Somebody else has it, or nobody.
    NotMine,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Close all watchers; freeze, stop or leave what runs, as the node was told.
    Isolate {
        /// Since when something is amiss.
        since: Tick,
    },
    /// Look at the control lane of every session that is open here; [`Isolation::begin`] is told which they are.
    Look(Round),
    /// It is ours: whatever of it is frozen goes on.
    GoOn(SessionId),
    /// It is not ours: its processes are ended, nothing is written.
    GiveUp(SessionId),
    /// Watchers may come again.
    Rejoin,
}

/// How a node is placed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// It is one of the others.
    Well,
    /// It is cut off.
    Isolated {
        /// Since when something is amiss.
        since: Tick,
    },
    /// It is back, and does not know yet what is its own.
    Reuniting,
}

/// How cut off a node is.
#[derive(Debug)]
pub struct Isolation {
    limit: Duration,
    place: Place,
    round: Round,
    /// The sessions that nobody has answered for in this round.
    left: BTreeSet<SessionId>,
    orders: Vec<Order>,
}

impl Default for Isolation {
    fn default() -> Self {
        Self {
            limit: Duration::from_millis(CLUSTER_ISOLATION_MS),
            place: Place::Well,
            round: Round::default(),
            left: BTreeSet::new(),
            orders: Vec::new(),
        }
    }
}

impl Isolation {
    /// What is to be done since this was called last, in order.
    pub fn orders(&mut self) -> std::vec::Drain<'_, Order> {
        self.orders.drain(..)
    }

    /// How the node is placed.
    #[must_use]
    pub const fn place(&self) -> Place {
        self.place
    }

    /// How it looks now: since when the transport is down, our own beats are missing or the store is silent, whichever
    /// is longest.
    pub fn observe(&mut self, now: Tick, amiss: Option<Tick>) {
        match (self.place, amiss) {
            (Place::Well | Place::Reuniting, Some(since)) if now.since(since) >= self.limit => {
                self.isolate(since);
            }
            (Place::Isolated { .. }, None) => {
                self.place = Place::Reuniting;
                self.look();
            }
            (Place::Well | Place::Reuniting | Place::Isolated { .. }, Some(_))
            | (Place::Well | Place::Reuniting, None) => {}
        }
    }

    /// The node, or its machine, stood still from `since` until now.
    pub fn woke(&mut self, since: Tick, stall: Duration) {
        if stall >= self.limit && !matches!(self.place, Place::Isolated { .. }) {
            self.isolate(since);
        }
    }

    /// The node is back after a cut that others may have taken for its death.
    pub fn rearmed(&mut self) {
        match self.place {
            Place::Well | Place::Reuniting => self.look(),
            // All of them are looked at when it ends.
            Place::Isolated { .. } => {}
        }
    }

    /// These sessions are looked at in this round.
    pub fn begin(&mut self, round: Round, sessions: impl IntoIterator<Item = SessionId>) {
        if round == self.round {
            self.left = sessions.into_iter().collect();
            self.settle();
        }
    }

    /// A session was looked at.
    pub fn looked(&mut self, round: Round, session: SessionId, verdict: Verdict) {
        if round != self.round || !self.left.remove(&session) {
            return;
        }
        self.orders.push(match verdict {
            Verdict::Mine => Order::GoOn(session),
            Verdict::NotMine => Order::GiveUp(session),
        });
        self.settle();
    }

    fn isolate(&mut self, since: Tick) {
        self.place = Place::Isolated { since };
        // Answers that are on their way may be older than what happens now.
        self.round.0 += 1;
        self.left.clear();
        self.orders.push(Order::Isolate { since });
    }

    fn look(&mut self) {
        self.round.0 += 1;
        self.orders.push(Order::Look(self.round));
    }

    fn settle(&mut self) {
        if self.left.is_empty() && self.place == Place::Reuniting {
            self.place = Place::Well;
            self.orders.push(Order::Rejoin);
        }
    }
}
