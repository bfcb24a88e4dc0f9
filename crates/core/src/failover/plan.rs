//! What this node takes over, and when. Pure: the executor says what it sees, and is told what to claim now.
//!
//! ```text
//!  lost, ownerless ─► waits: kernel grace, then rank × step ─► due ─► begun ─► done
//!                        │                                      │       │ refused, failed
//!                        └── somebody has it ──► forgotten      └───────┴──► after everybody else had a turn
//! ```
//! Every node makes the same order of claimants for a session, without talking: the first claims at once, and the next
//! one only where nobody has claimed until then. Two that claim all the same (they do not see the same members) are
//! told apart by the log. So a plan is about speed and load, never about safety.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Member, rendezvous};
use crate::id::{NodeId, SessionId};
use crate::limits::{TAKEOVER_RETRY_MS, TAKEOVER_STEP_MS, TAKEOVERS_AT_ONCE};
use crate::time::Tick;

/// How soon a session is wanted, among those that are due together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Urgency {
    /// Somebody watches it on this node.
    Watched,
    /// It is a group or a command: it works, whoever looks.
    Works,
    /// A notebook or a kernel, which waits for somebody.
    Waits,
}

/// A session whose owner is no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Orphan {
    /// Which.
    pub session: SessionId,
    /// Who had it, as far as its row says.
    pub owner: Option<Member>,
    /// Whether it has a live kernel, so that its node is waited for: a daemon that comes back finds it alive.
    pub has_kernel: bool,
    /// How soon it is wanted.
    pub urgency: Urgency,
}

/// An orphan that is not claimed yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Waiting {
    orphan: Orphan,
    /// Its turns are counted from here.
    since: Tick,
    /// When this node claims it, unless somebody else has until then; `None` while it may claim nothing.
    at: Option<Tick>,
    is_begun: bool,
}

/// What there is to take over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    me: NodeId,
    kernel_grace: Duration,
    /// Who may claim, this node among them unless it may not.
    claimants: BTreeSet<NodeId>,
    orphans: BTreeMap<SessionId, Waiting>,
    /// Owners whom nobody has ever heard of here, since when.
    unknown: BTreeMap<Member, Tick>,
}

impl Plan {
    /// Nothing to take over.
    #[must_use]
    pub fn new(me: NodeId, kernel_grace: Duration) -> Self {
        Self {
            me,
            kernel_grace,
            claimants: BTreeSet::new(),
            orphans: BTreeMap::new(),
            unknown: BTreeMap::new(),
        }
    }

    /// Those who may claim something now: they live, are not cut off and do not give everything away.
    pub fn claimants(&mut self, claimants: impl IntoIterator<Item = NodeId>) {
        let claimants: BTreeSet<NodeId> = claimants.into_iter().collect();
        if claimants == self.claimants {
            return;
        }
        self.claimants = claimants;
        for waiting in self.orphans.values_mut() {
            waiting.at = turn(waiting, self.me, &self.claimants);
        }
    }

    /// A session has lost its owner. Said again of one that is known, it changes nothing: two notices of one death are
    /// one.
    pub fn lost(&mut self, orphan: Orphan, now: Tick) {
        // Its next owner may have been lost too: that is another loss. A claim of ours that did not come to its end is
        // none: it is tried again in the place of the owner before.
        let is_ours = orphan.owner.is_some_and(|owner| owner.node == self.me);
        let known = self.orphans.get(&orphan.session);
        if known.is_some_and(|known| known.is_begun || is_ours || known.orphan.owner == orphan.owner) {
            return;
        }
        let grace = if orphan.has_kernel { self.kernel_grace } else { Duration::ZERO };
        self.wait(orphan, now + grace);
    }

    /// Whether an owner that nobody has heard of here has been so for so long that it is none; of one that is heard,
    /// say so with [`Self::heard`]. A node that has just joined may claim before its first heartbeat is here.
    pub fn is_nobody(&mut self, owner: Member, now: Tick, patience: Duration) -> bool {
        let since = *self.unknown.entry(owner).or_insert(now);
        now.since(since) >= patience
    }

    /// An owner is known.
    pub fn heard(&mut self, owner: Member) {
        self.unknown.remove(&owner);
    }

    /// Somebody has the session, or it has ended, or this node has it now.
    pub fn settled(&mut self, session: SessionId) {
        self.orphans.remove(&session);
    }

    /// This node could not take the session over: everybody else has a turn first.
    pub fn refused(&mut self, session: SessionId, now: Tick) {
        let round = step(self.claimants.len()) + Duration::from_millis(TAKEOVER_RETRY_MS);
        if let Some(waiting) = self.orphans.get(&session) {
            self.wait(waiting.orphan, now + round);
        }
    }

    fn wait(&mut self, orphan: Orphan, since: Tick) {
        let mut waiting = Waiting { orphan, since, at: None, is_begun: false };
        waiting.at = turn(&waiting, self.me, &self.claimants);
        self.orphans.insert(orphan.session, waiting);
    }

    /// The sessions that are to be claimed now, those first that are wanted soonest; they are begun with this.
    pub fn due(&mut self, now: Tick) -> Vec<Orphan> {
        let begun = self.orphans.values().filter(|waiting| waiting.is_begun).count();
        let mut due: Vec<(Urgency, Tick, SessionId)> = self
            .orphans
            .values()
            .filter(|waiting| !waiting.is_begun)
            .filter_map(|waiting| {
                let at = waiting.at?;
                (at <= now).then_some((waiting.orphan.urgency, at, waiting.orphan.session))
            })
            .collect();
        due.sort_unstable();
        due.truncate(TAKEOVERS_AT_ONCE.saturating_sub(begun));
        let begin = |(_, _, session)| {
            let waiting = self.orphans.get_mut(&session).expect("it was found a moment ago");
            waiting.is_begun = true;
            waiting.orphan
        };
        due.into_iter().map(begin).collect()
    }

    /// When something is due next; `None`: nothing is, or so much is under way that its end comes first.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Tick> {
        let begun = self.orphans.values().filter(|waiting| waiting.is_begun).count();
        if begun >= TAKEOVERS_AT_ONCE {
            return None;
        }
        let waiting = self.orphans.values().filter(|waiting| !waiting.is_begun);
        waiting.filter_map(|waiting| waiting.at).min()
    }

    /// The sessions that wait or are under way.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.orphans.keys().copied()
    }
}

fn turn(waiting: &Waiting, me: NodeId, claimants: &BTreeSet<NodeId>) -> Option<Tick> {
    Some(waiting.since + step(rank(waiting.orphan.session, me, claimants)?))
}

/// How many are meant to claim a session before this one does; `None` when it is not among them.
#[must_use]
pub fn rank(session: SessionId, me: NodeId, claimants: &BTreeSet<NodeId>) -> Option<usize> {
    let order = rendezvous::order(session.as_uuid(), claimants.iter().copied());
    order.iter().position(|node| *node == me)
}

/// The node that is meant to have a session, of these.
#[must_use]
pub fn heir(session: SessionId, claimants: impl IntoIterator<Item = NodeId>) -> Option<NodeId> {
    rendezvous::order(session.as_uuid(), claimants).first().copied()
}

fn step(rank: usize) -> Duration {
    Duration::from_millis(TAKEOVER_STEP_MS.saturating_mul(rank as u64))
}
