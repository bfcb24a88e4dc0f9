//! Who is alive: what a node concludes from the heartbeats that it hears, its own among them.
//!
//! ```text
//!              silent for `suspect` less one beat,
//!              or its connection was seen to end
//!   Heard ──────────────────────────────────────► Asked ──────────────► Gone (dead)
//!     ▲ ◄───────── a beat, or the answer ───────────┘   silent for `suspect`,
//!     │                                                 and no answer for a beat
//!     ├──── a goodbye ───────────────────────────────────────────────► Gone (left)
//!     └──── a new life of the same node: the old one is told as reborn
//! ```
//!
//! Three guards keep a node from taking its own trouble for that of others.
//!
//! 1. **Am I well?** Silence is counted only while we hear ourselves: in time during which the loop ran (a stall counts
//!    as one beat and a half at most), the transport was up and our own beats came back. Nobody is declared dead unless
//!    an own beat is fresher than any beat of a dead node could be. After a cut, those who have not been heard again get
//!    `REUNION`: they were perhaps cut off with us, and come back later than we do.
//! 2. **Is it everybody?** When more than half of the cluster, ourselves included, is silent at once, nobody is declared
//!    dead until that has lasted for `MAJORITY`, all that time in our own good health, and the store has answered a
//!    question that was asked meanwhile. So two nodes can fail over (one of two is no majority), and the last of three
//!    can, after that wait; one that is alone on its side of a cut cannot, as it has no store.
//! 3. **Does it answer?** It is asked once before it is declared dead.
//!
//! Invariants (tests/failover_liveness.rs): nobody is declared dead for silence who was heard within `suspect`; whoever
//! is silent for ever is declared dead at every node that is well, in a bounded time; one death is told once.

mod other;
mod pace;
mod told;

use std::collections::BTreeMap;
use std::time::Duration;

use self::other::{Other, Patience, Phase};
pub use self::pace::Pace;
pub use self::told::{Guard, Output, Why};
use super::{Member, rendezvous};
use crate::id::NodeId;
use crate::limits::{
    CLUSTER_GONE_MAX, CLUSTER_GONE_MS, CLUSTER_MAJORITY_MS, CLUSTER_NEIGHBOURS, CLUSTER_NEIGHBOURS_ABOVE,
    CLUSTER_REUNION_MS,
};
use crate::time::{Now, Tick};

/// How we hear ourselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Health {
    /// Not yet.
    Never,
    Well,
    Cut {
        guard: Guard,
        /// Since when nothing can be relied on.
        since: Tick,
        /// Our last beat that was sent by then. An older one that comes out of some queue proves nothing.
        sent: u64,
    },
}

/// The second guard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Majority {
    Heard,
    /// More than half are silent.
    Silent {
        /// Since when, in `listening` time.
        since: Duration,
        began: Tick,
        store: Store,
    },
    /// They are really gone.
    Believed,
}

/// Whether the store has answered a question that was asked since.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Store {
    Unknown,
    Answered,
}

/// One node's view of who is alive.
#[derive(Debug)]
pub struct Liveness {
    me: Member,
    pace: Pace,
    last: Now,
    /// The time for which the loop has run.
    awake: Duration,
    /// Of that, the time in which whoever is there would have been heard.
    listening: Duration,
    is_connected: bool,
    health: Health,
    /// When our last own beat was heard, in `awake` time and as a tick.
    own: (Duration, Tick),
    /// Beats that we have sent.
    sent: u64,
    majority: Majority,
    others: BTreeMap<NodeId, Other>,
    told: Vec<Output>,
}

impl Liveness {
    /// A node that has heard nothing yet.
    #[must_use]
    pub const fn new(me: Member, pace: Pace, now: Now) -> Self {
        Self {
            me,
            pace,
            last: now,
            awake: Duration::ZERO,
            listening: Duration::ZERO,
            is_connected: true,
            health: Health::Never,
            own: (Duration::ZERO, now.tick),
            sent: 0,
            majority: Majority::Heard,
            others: BTreeMap::new(),
            told: Vec::new(),
        }
    }

    /// The number of the beat that is sent now.
    pub const fn send(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    /// What has followed since this was called last, in order.
    pub fn told(&mut self) -> std::vec::Drain<'_, Output> {
        self.told.drain(..)
    }

    /// Whether we hear ourselves, and so may judge others.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.health == Health::Well
    }

    /// Since when we are cut off.
    #[must_use]
    pub const fn cut_since(&self) -> Option<Tick> {
        match self.health {
            Health::Never | Health::Well => None,
            Health::Cut { since, .. } => Some(since),
        }
    }

    /// Whether a member is remembered, be it as one that has gone.
    #[must_use]
    pub fn knows(&self, member: Member) -> bool {
        self.others.get(&member.node).is_some_and(|other| other.boot == member.boot)
    }

    /// When a member was heard last.
    #[must_use]
    pub fn heard(&self, member: Member) -> Option<Tick> {
        self.others.get(&member.node).filter(|other| other.boot == member.boot).map(|other| other.heard_at)
    }

    /// A beat was heard, our own or another's.
    pub fn beat(&mut self, member: Member, seq: u64, now: Now) {
        self.go_on(now);
        if member == self.me {
            self.own_beat(seq, now);
        } else if member.node != self.me.node {
            self.other_beat(member, seq, now);
        }
    }

    /// A member says goodbye.
    pub fn goodbye(&mut self, member: Member, seq: u64, now: Now) {
        self.go_on(now);
        if let Some(other) = self.present(member) {
            other.seq = other.seq.max(seq);
            self.lose(member.node, Why::Left);
        }
    }

    /// A member answered our question.
    pub fn answered(&mut self, member: Member, now: Now) {
        self.go_on(now);
        let listening = self.listening;
        if let Some(other) = self.present(member)
            && other.is_heard(listening, now.tick)
        {
            self.told.push(Output::Cleared(member));
        }
    }

    /// The service says that a node's connection has ended.
    pub fn disconnected(&mut self, node: NodeId, now: Now) {
        self.go_on(now);
        let at = self.listening;
        if self.is_well()
            && let Some(other) = self.others.get_mut(&node)
            && matches!(other.phase, Phase::Heard | Phase::Named)
        {
            other.phase = Phase::Asked { at, why: Why::Disconnected };
            self.told.push(Output::Suspected(Member { node, boot: other.boot }));
        }
    }

    /// One who watches this member says that it is dead. We look ourselves whether it is silent.
    pub fn announced(&mut self, member: Member, now: Now) {
        self.go_on(now);
        if let Some(other) = self.present(member)
            && other.phase == Phase::Heard
        {
            other.phase = Phase::Named;
        }
        self.judge();
    }

    /// The transport is up, or down.
    pub fn connection(&mut self, is_up: bool, now: Now) {
        self.go_on(now);
        self.is_connected = is_up;
        if !is_up {
            self.cut(Guard::Connection, now.tick);
        }
    }

    /// Messages were lost on their way to us: perhaps a beat of anybody.
    pub fn gap(&mut self, now: Now) {
        self.go_on(now);
        self.doubt_all();
    }

    /// The store has answered what was asked at this time.
    pub fn store_answered(&mut self, asked: Tick, now: Now) {
        self.go_on(now);
        if let Majority::Silent { began, store, .. } = &mut self.majority
            && asked >= *began
        {
            *store = Store::Answered;
        }
    }

    /// Time has passed. Called when [`Self::next`] has come, and at least with each beat that is sent.
    pub fn tick(&mut self, now: Now) {
        self.go_on(now);
        if self.is_well() && self.own_silence() > self.pace.suspect {
            self.cut(Guard::OwnBeats, self.own.1);
        }
        self.judge();
        self.forget();
    }

    /// When there may be something to conclude that nobody has told by then.
    #[must_use]
    pub fn next(&self, now: Tick) -> Tick {
        let mut wait = self.pace.beat;
        let mut consider = |after: Duration| {
            // What is due already waits for something else: a sign of our own health, a majority, a neighbour.
            if !after.is_zero() {
                wait = wait.min(after);
            }
        };
        if self.is_well() {
            consider(self.pace.suspect.saturating_sub(self.own_silence()) + Duration::from_millis(1));
            for other in self.others.values() {
                consider(other.due_in(self.pace, self.listening));
            }
            if let Majority::Silent { since, .. } = self.majority {
                consider((since + majority_wait()).saturating_sub(self.listening));
            }
        }
        now + wait
    }

    fn own_silence(&self) -> Duration {
        self.awake - self.own.0
    }

    /// The clocks go on. A wait that was longer than any should be is a stall: what others sent meanwhile is still on
    /// its way to us.
    fn go_on(&mut self, now: Now) {
        let before = std::mem::replace(&mut self.last, now);
        let passed = now.tick.since(before.tick);
        let counted = passed.min(self.pace.step());
        self.awake += counted;
        if self.is_well() {
            self.listening += counted;
        }
        // A machine that sleeps stops the monotonic clock. The wall clock says nothing of that: somebody may have set it.
        let stall = passed.max(now.slept.saturating_sub(before.slept));
        if stall > self.pace.standstill() && self.health != Health::Never {
            self.told.push(Output::Woke { stall });
            self.cut(Guard::Loop, before.tick);
        }
    }

    fn own_beat(&mut self, seq: u64, now: Now) {
        match self.health {
            Health::Never => {
                self.health = Health::Well;
                self.told.push(Output::Begun);
            }
            Health::Cut { guard, since, sent } if self.is_connected && seq > sent => {
                self.health = Health::Well;
                self.told.push(Output::Released(guard));
                self.told.push(Output::Rearmed { cut: now.tick.since(since) });
            }
            Health::Cut { .. } => return,
            Health::Well => {}
        }
        self.own = (self.awake, now.tick);
        self.judge();
    }

    fn other_beat(&mut self, member: Member, seq: u64, now: Now) {
        let listening = self.listening;
        let Some(other) = self.others.get_mut(&member.node) else {
            self.others.insert(member.node, Other::new(member.boot, seq, listening, now.tick));
            self.told.push(Output::Joined(member));
            return;
        };
        if other.boot != member.boot {
            // A late beat of an earlier life. One that goes on when there is no other was the later one.
            if other.is_earlier_life(member.boot) && other.phase != Phase::Gone {
                return;
            }
            self.lose(member.node, Why::Reborn);
            let other = self.others.get_mut(&member.node).expect("it was there");
            other.is_reborn(member.boot, seq, listening, now.tick);
            self.told.push(Output::Joined(member));
        } else if seq > other.seq {
            other.seq = seq;
            if matches!(other.phase, Phase::Gone) {
                self.told.push(Output::Joined(member));
            }
            if other.is_heard(listening, now.tick) {
                self.told.push(Output::Cleared(member));
            }
        }
    }

    /// The present life of a node, if it is this one and has not gone.
    fn present(&mut self, member: Member) -> Option<&mut Other> {
        let other = self.others.get_mut(&member.node)?;
        (other.boot == member.boot && other.phase != Phase::Gone).then_some(other)
    }

    /// We cannot judge anybody from here on, until a beat that we send later comes back.
    fn cut(&mut self, guard: Guard, since: Tick) {
        if !self.is_well() {
            return;
        }
        self.health = Health::Cut { guard, since, sent: self.sent };
        self.told.push(Output::Held(guard));
        if matches!(self.majority, Majority::Silent { .. }) {
            self.told.push(Output::Released(Guard::Majority));
        }
        self.majority = Majority::Heard;
        for (node, other) in &mut self.others {
            if matches!(other.phase, Phase::Asked { .. }) {
                other.phase = Phase::Heard;
                self.told.push(Output::Cleared(Member { node: *node, boot: other.boot }));
            }
        }
        self.doubt_all();
    }

    fn doubt_all(&mut self) {
        for other in self.others.values_mut() {
            other.patience = Patience::Reunion;
        }
    }

    /// Asks those who are silent, and declares dead who did not answer.
    fn judge(&mut self) {
        if !self.is_well() || self.own_silence() >= self.pace.fresh() {
            return;
        }
        self.ask_silent();
        let is_due = self.others.values().any(|other| other.is_due(self.pace, self.listening));
        if (!is_due && self.majority == Majority::Heard) || !self.may_believe() {
            return;
        }
        let due: Vec<NodeId> = self
            .others
            .iter()
            .filter(|(_, other)| other.is_due(self.pace, self.listening))
            .map(|(node, _)| *node)
            .collect();
        let announces = self.alive() > CLUSTER_NEIGHBOURS_ABOVE;
        for node in due {
            let other = &self.others[&node];
            let (why, was_named) = (other.why(), other.phase == Phase::Named);
            if announces && !was_named {
                self.told.push(Output::Announce(Member { node, boot: other.boot }));
            }
            self.lose(node, why);
        }
    }

    fn ask_silent(&mut self) {
        let silent = |other: &Other| other.is_to_ask(self.pace, self.listening);
        if !self.others.values().any(silent) {
            return;
        }
        let silent: Vec<NodeId> =
            self.others.iter().filter(|(_, other)| silent(other)).map(|(node, _)| *node).collect();
        for node in silent {
            let watches = self.watches(node);
            let at = self.listening;
            let other = self.others.get_mut(&node).expect("it was there");
            if watches || other.is_forsaken(at) {
                other.phase = Phase::Asked { at, why: Why::Silent };
                self.told.push(Output::Suspected(Member { node, boot: other.boot }));
            }
        }
    }

    /// In a large cluster, each member is watched by a few others. Who they are follows from who is alive.
    fn watches(&self, node: NodeId) -> bool {
        if self.alive() <= CLUSTER_NEIGHBOURS_ABOVE {
            return true;
        }
        let others = self.others.iter().filter(|(other, at)| **other != node && at.phase != Phase::Gone);
        rendezvous::is_among(
            node.as_uuid(),
            self.me.node,
            others.map(|(other, _)| *other),
            CLUSTER_NEIGHBOURS,
        )
    }

    /// How many there are, ourselves among them.
    fn alive(&self) -> usize {
        1 + self.others.values().filter(|other| other.phase != Phase::Gone).count()
    }

    fn is_majority_silent(&self) -> bool {
        let silent =
            |other: &&Other| other.phase != Phase::Gone && other.silence(self.listening) > self.pace.missed();
        2 * self.others.values().filter(silent).count() > self.alive()
    }

    /// The second guard: whether what we hear can be believed.
    fn may_believe(&mut self) -> bool {
        if !self.is_majority_silent() {
            if matches!(self.majority, Majority::Silent { .. }) {
                self.told.push(Output::Released(Guard::Majority));
            }
            self.majority = Majority::Heard;
            return true;
        }
        match self.majority {
            Majority::Believed => true,
            Majority::Heard => {
                let (since, began) = (self.listening, self.last.tick);
                self.majority = Majority::Silent { since, began, store: Store::Unknown };
                self.told.push(Output::Held(Guard::Majority));
                false
            }
            Majority::Silent { since, store, .. } => {
                let is_over = self.listening - since >= majority_wait() && store == Store::Answered;
                if is_over {
                    self.majority = Majority::Believed;
                    self.told.push(Output::Released(Guard::Majority));
                }
                is_over
            }
        }
    }

    fn lose(&mut self, node: NodeId, why: Why) {
        let other = self.others.get_mut(&node).expect("who is lost was there");
        if other.phase != Phase::Gone {
            other.phase = Phase::Gone;
            let member = Member { node, boot: other.boot };
            self.told.push(Output::Lost { member, why, heard: other.heard_at });
        }
    }

    fn forget(&mut self) {
        let now = self.last.tick;
        let kept = Duration::from_millis(CLUSTER_GONE_MS);
        self.others.retain(|_, other| other.phase != Phase::Gone || now.since(other.heard_at) < kept);
        while self.others.len() + 1 - self.alive() > CLUSTER_GONE_MAX {
            let gone = self.others.iter().filter(|(_, other)| other.phase == Phase::Gone);
            let oldest = gone.min_by_key(|(_, other)| other.heard_at).map(|(node, _)| *node);
            self.others.remove(&oldest.expect("there are more than none"));
        }
    }
}

const fn majority_wait() -> Duration {
    Duration::from_millis(CLUSTER_MAJORITY_MS)
}

const fn reunion() -> Duration {
    Duration::from_millis(CLUSTER_REUNION_MS)
}
