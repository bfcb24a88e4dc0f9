//! What is shown of the members: written when something has changed, and now and then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use outlive_core::failover::Member;
use outlive_core::failover::liveness::{Guard, Liveness};
use outlive_core::limits::{CLUSTER_SHOWN_MS, CLUSTER_SKEW_MS};
use outlive_core::time::{Now, Tick};
use outlive_protocol::http::NodeState;
use outlive_protocol::node::Beat;

use crate::cluster::{Cluster, Members, Seen, Standing};

/// The members as they are shown.
pub(super) struct Table {
    seen: BTreeMap<Member, Seen>,
    guard: Option<Guard>,
    /// When it was shown last; `None`: something has changed since.
    shown: Option<Tick>,
    /// Whose clocks are off, which was said.
    skewed: BTreeSet<Member>,
}

impl Table {
    pub(super) fn new(cluster: &Cluster, now: Now) -> Self {
        let me = Seen {
            name: cluster.settings.name.clone(),
            url: cluster.settings.url.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: NodeState::Joining,
            since: now.wall,
            heard: None,
            clock_skew_ms: 0,
        };
        Self { seen: BTreeMap::from([(cluster.me, me)]), guard: None, shown: None, skewed: BTreeSet::new() }
    }

    /// A name, for people.
    pub(super) fn name(&self, member: Member) -> String {
        self.seen.get(&member).map_or_else(|| member.node.to_string(), |seen| seen.name.clone())
    }

    pub(super) fn of(&self, member: Member) -> Option<&Seen> {
        self.seen.get(&member)
    }

    /// A beat of a member that liveness knows as alive. Nothing is written for one that says nothing new.
    pub(super) fn heard(&mut self, beat: &Beat<'_>, now: Now) {
        let skew = i128::from(beat.wall.0) - i128::from(now.wall.0);
        let clock_skew_ms = i64::try_from(skew / 1_000).unwrap_or(i64::MAX);
        let seen = self.seen.entry(beat.member).or_insert_with(|| {
            self.shown = None;
            Seen {
                name: String::new(),
                url: None,
                version: String::new(),
                state: beat.state,
                since: now.wall,
                heard: None,
                clock_skew_ms,
            }
        });
        seen.heard = Some(now.tick);
        seen.clock_skew_ms = clock_skew_ms;
        let is_same = seen.name == beat.name
            && seen.url.as_deref() == beat.url.as_deref()
            && seen.version == beat.version;
        if !is_same {
            seen.name = beat.name.clone().into_owned();
            seen.url = beat.url.clone().map(std::borrow::Cow::into_owned);
            seen.version = beat.version.clone().into_owned();
            self.shown = None;
        }
        self.state(beat.member, beat.state, now);
        self.skew(beat, clock_skew_ms);
    }

    /// Says once of a node that its clock and ours differ.
    fn skew(&mut self, beat: &Beat<'_>, ms: i64) {
        let is_skewed = ms.unsigned_abs() > CLUSTER_SKEW_MS;
        if !is_skewed || !self.skewed.insert(beat.member) {
            return;
        }
        let (node, seconds) = (&beat.name, ms / 1_000);
        tracing::warn!(%node, seconds, "its clock differs from ours: times in records and views do, and nothing else");
    }

    /// How a member stands.
    pub(super) fn state(&mut self, member: Member, state: NodeState, now: Now) {
        if let Some(seen) = self.seen.get_mut(&member)
            && seen.state != state
        {
            (seen.state, seen.since) = (state, now.wall);
            self.shown = None;
        }
    }

    /// A member is not suspected any more.
    pub(super) fn cleared(&mut self, member: Member, now: Now) {
        if self.of(member).is_some_and(|seen| seen.state == NodeState::Suspected) {
            self.state(member, NodeState::Alive, now);
        }
    }

    /// Why nobody is suspected.
    pub(super) fn guard(&mut self, guard: Option<Guard>) {
        if self.guard != guard {
            self.guard = guard;
            self.shown = None;
        }
    }

    pub(super) const fn held(&self) -> Option<Guard> {
        self.guard
    }

    /// Shows it, if it is time to.
    pub(super) fn show(&mut self, cluster: &Cluster, liveness: &Liveness, now: Now) {
        let is_recent = |at: Tick| now.tick.since(at) < Duration::from_millis(CLUSTER_SHOWN_MS);
        if self.shown.is_some_and(is_recent) {
            return;
        }
        self.shown = Some(now.tick);
        self.seen.retain(|member, _| *member == cluster.me || liveness.knows(*member));
        self.skewed.retain(|member| self.seen.contains_key(member));
        let guard = self.guard.map(|guard| explain(guard).to_owned());
        cluster.members.send_replace(Arc::new(Members { seen: self.seen.clone(), guard }));
    }
}

/// Why nobody is suspected, for people.
const fn explain(guard: Guard) -> &'static str {
    match guard {
        Guard::Loop => "this node stood still, and hears itself again in a moment",
        Guard::Connection => "this node is not connected to NATS",
        Guard::OwnBeats => "this node does not hear its own heartbeats",
        Guard::Majority => {
            "more than half of the cluster is silent at once: this is believed only if it lasts while the store answers"
        }
    }
}

/// How a node that stands like this calls itself.
pub(super) const fn state(standing: Standing) -> NodeState {
    match standing {
        Standing::Joining => NodeState::Joining,
        Standing::Ready => NodeState::Alive,
        Standing::Isolated { .. } | Standing::Reuniting => NodeState::Isolated,
        Standing::Draining => NodeState::Draining,
    }
}
