//! The task that tells the others that this node is there, hears them, and writes what follows from that: who is there,
//! how this node stands, and each loss.
//!
//! Decisions are `core::failover::liveness` and `core::failover::isolation`; here is what they are told and what is done
//! about what they say. The task never waits for the store or for a session: whoever does is told by it.

mod ears;
mod name;
mod pulse;
mod store;
mod table;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use outlive_core::failover::Member;
use outlive_core::failover::isolation::{Isolation, Place};
use outlive_core::failover::liveness::{Guard, Liveness, Output, Pace, Why};
use outlive_core::id::Revision;
use outlive_core::limits::{CLUSTER_SHIM_BEAT_MS, CLUSTER_STORE_MS};
use outlive_core::time::{Now, Tick};
use outlive_protocol::http::NodeState;
use outlive_protocol::node::{Beat, NodeMessage};
use outlive_store::{Connection, Topic};
use serde::Deserialize;

use self::ears::{Ears, Word};
use self::name::NODES;
use self::pulse::Pulse;
use self::store::{Answer, Store};
use self::table::Table;
use super::isolation::{Hands, Looked};
use super::{Cluster, Lost, Standing};
use crate::context::Context;
use crate::node::StartError;
use crate::session::with_sources;

/// Takes the node's name and starts to beat. The node is one of the others when [`Cluster::standing`] says so.
///
/// # Errors
/// [`StartError`].
pub async fn join(context: &Arc<Context>) -> Result<(), StartError> {
    let Some(cluster) = &context.cluster else { return Ok(()) };
    let mut membership = Membership::new(context, cluster);
    membership.revision = membership.take_name().await?;
    if let Some(heart) = &cluster.settings.heart {
        membership.pulse = Pulse::of_this_runtime(context);
        context.tasks.spawn_on(membership.run(), heart);
    } else {
        context.tasks.spawn(membership.run());
    }
    Ok(())
}

impl Cluster {
    /// Says goodbye, when all is given away: the others do not wait for anything then. Returns when it is said.
    pub async fn goodbye(&self) {
        self.leaving.cancel();
        self.left.cancelled().await;
    }
}

/// What woke the task.
enum Woken {
    Heard(Word),
    Answered(Tick, Answer),
    Looked(Looked),
    Told,
    Due,
    Leaving,
    Stopped,
}

/// A node's part in its cluster.
struct Membership {
    context: Arc<Context>,
    cluster: Arc<Cluster>,
    pace: Pace,
    ears: Ears,
    liveness: Liveness,
    isolation: Isolation,
    hands: Hands,
    store: Store,
    table: Table,
    pulse: Pulse,
    /// Our row's.
    revision: Revision,
    next_beat: Tick,
    next_shim_beat: Tick,
    phase: Phase,
    /// Cancelled at the end of the task, however it ends.
    _left: tokio_util::sync::DropGuard,
}

/// What NATS says of a connection that has ended, as far as it matters here (`$SYS.ACCOUNT.*.DISCONNECT`).
#[derive(Deserialize)]
struct Ended {
    client: Client,
}

#[derive(Deserialize)]
struct Client {
    #[serde(default)]
    name: String,
}

/// How far the node has come, apart from being cut off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// It does not hear itself.
    Unheard,
    /// It does, since then.
    Heard(Tick),
    Ready,
    Draining,
}

impl Membership {
    fn new(context: &Arc<Context>, cluster: &Arc<Cluster>) -> Self {
        let now = context.clock.now();
        let pace = if cluster.settings.is_wide { Pace::WIDE } else { Pace::LAN };
        Self {
            pace,
            ears: Ears::open(cluster),
            liveness: Liveness::new(cluster.me, pace, now),
            isolation: Isolation::default(),
            hands: Hands::new(context, cluster),
            store: Store::new(context, &cluster.settings.name),
            table: Table::new(cluster, now),
            pulse: Pulse::among_the_rest(),
            revision: Revision(0),
            next_beat: now.tick,
            next_shim_beat: now.tick,
            phase: Phase::Unheard,
            _left: cluster.left.clone().drop_guard(),
            context: Arc::clone(context),
            cluster: Arc::clone(cluster),
        }
    }

    async fn run(mut self) {
        // The wait for the name is no stall.
        self.liveness = Liveness::new(self.cluster.me, self.pace, self.context.clock.now());
        let (mut armed, mut standing) = (self.cluster.directory.armed(), self.cluster.standing.subscribe());
        loop {
            let due = self.due();
            let woken = tokio::select! {
                biased;
                () = self.context.stop.cancelled() => Woken::Stopped,
                () = self.cluster.leaving.cancelled() => Woken::Leaving,
                word = self.ears.next() => Woken::Heard(word),
                (asked, answer) = self.store.answer() => Woken::Answered(asked, answer),
                looked = self.hands.looked() => Woken::Looked(looked),
                Ok(()) = armed.changed() => Woken::Told,
                Ok(()) = standing.changed() => Woken::Told,
                () = self.context.clock.until(due) => Woken::Due,
            };
            match woken {
                Woken::Stopped => return,
                Woken::Leaving => return self.leave().await,
                Woken::Heard(word) => self.heard(&word),
                Woken::Answered(asked, answer) => self.answered(asked, answer),
                Woken::Looked(looked) => self.hands.settle(&mut self.isolation, looked),
                Woken::Told | Woken::Due => {}
            }
            let now = self.context.clock.now();
            if now.tick >= due {
                self.tick(now);
            }
            self.conclude(now);
        }
    }

    fn due(&mut self) -> Tick {
        let now = self.context.clock.now().tick;
        let asks = self.store.ask(now);
        self.liveness.next(now).min(self.next_beat).min(asks.unwrap_or(self.next_beat))
    }

    fn tick(&mut self, now: Now) {
        if now.tick >= self.next_beat {
            self.next_beat = now.tick + self.pace.beat;
            if self.pulse.goes_on(now.tick) {
                self.beat(now);
            }
        }
        if now.tick >= self.next_shim_beat {
            self.next_shim_beat = now.tick + Duration::from_millis(CLUSTER_SHIM_BEAT_MS);
            match *self.cluster.standing.borrow() {
                Standing::Isolated { .. } => self.hands.hold(),
                Standing::Reuniting => {}
                Standing::Joining | Standing::Ready | Standing::Draining => self.context.runtimes.beat_all(),
            }
        }
        self.liveness.tick(now);
    }

    fn beat(&mut self, now: Now) {
        let Cluster { me, settings, standing, .. } = &*self.cluster;
        let beat = Beat {
            member: *me,
            seq: self.liveness.send(),
            name: settings.name.as_str().into(),
            url: settings.url.as_deref().map(Into::into),
            version: env!("CARGO_PKG_VERSION").into(),
            state: table::state(*standing.borrow()),
            wall: now.wall,
        };
        settings.transport.send(Topic::Beats, NodeMessage::Beat(beat).encode().into());
        self.context.metrics.cluster.beat_sent();
    }

    fn heard(&mut self, word: &Word) {
        let now = self.context.clock.now();
        match word {
            Word::Message(message) => self.message(message, now),
            Word::Ended(notice) => self.ended(notice, now),
            Word::Gap => self.liveness.gap(now),
            Word::Connection(connection) => {
                self.liveness.connection(matches!(connection, Connection::Up), now);
                if let Connection::Down { why } = connection {
                    tracing::warn!(node = %self.cluster.settings.name, why, "the connection to the cluster is lost");
                }
            }
        }
    }

    fn message(&mut self, message: &Bytes, now: Now) {
        // Others speak of other things on the same topics.
        match NodeMessage::decode(message) {
            Some(NodeMessage::Beat(beat)) => {
                if beat.member != self.cluster.me {
                    self.context.metrics.cluster.beat_heard();
                }
                self.liveness.beat(beat.member, beat.seq, now);
                let is_new = self.liveness.heard(beat.member) == Some(now.tick);
                if is_new {
                    self.table.heard(&beat, now);
                }
            }
            Some(NodeMessage::Goodbye { member, seq }) => self.liveness.goodbye(member, seq, now),
            Some(NodeMessage::Probe { from }) if from != self.cluster.me => {
                self.send(Topic::Node(from.node), &NodeMessage::Answer { from: self.cluster.me });
            }
            Some(NodeMessage::Answer { from }) => self.liveness.answered(from, now),
            Some(NodeMessage::Dead { member, by }) if by != self.cluster.me => {
                self.liveness.announced(member, now);
            }
            Some(NodeMessage::Probe { .. } | NodeMessage::Dead { .. }) | None => {}
        }
    }

    /// A node's connection is called as the node is. Whoever else has that name is asked for nothing.
    fn ended(&mut self, notice: &Bytes, now: Now) {
        let Ok(Ended { client: Client { name } }) = serde_json::from_slice(notice) else { return };
        let members = self.cluster.members.borrow().clone();
        for (member, seen) in members.alive() {
            if seen.name == name && *member != self.cluster.me {
                self.liveness.disconnected(member.node, now);
            }
        }
    }

    fn answered(&mut self, asked: Tick, answer: Answer) {
        let now = self.context.clock.now();
        let Answer::Holder(holder) = answer else { return };
        self.liveness.store_answered(asked, now);
        if let Some(member) = holder.filter(|member| *member != self.cluster.me) {
            let (name, node) = (&self.cluster.settings.name, member.node);
            tracing::error!(%name, %node, "another node has taken this node's name while it was cut off; stop one of them");
        }
    }

    /// Does what follows from what was told.
    fn conclude(&mut self, now: Now) {
        let told: Vec<Output> = self.liveness.told().collect();
        for output in told {
            self.follow(output, now);
        }
        self.cluster.out_of_touch.store(self.liveness.cut_since().is_some(), Ordering::Relaxed);
        let amiss = self.liveness.cut_since().into_iter().chain(self.store.silent_since()).min();
        self.isolation.observe(now.tick, amiss);
        self.stand(now);
        self.hands.carry_out(&mut self.isolation);
        self.stand(now);
        self.table.show(&self.cluster, &self.liveness, now);
    }

    fn follow(&mut self, output: Output, now: Now) {
        let metrics = &self.context.metrics.cluster;
        match output {
            Output::Begun => {
                tracing::info!(node = %self.cluster.settings.name, "liveness started: own heartbeats are heard")
            }
            Output::Joined(member) => {
                tracing::info!(node = %self.table.name(member), id = %member.node, boot = %member.boot, "a node is there");
            }
            Output::Suspected(member) => {
                metrics.suspected();
                tracing::warn!(node = %self.table.name(member), id = %member.node, "node suspected: it is silent, and is asked whether it is there");
                self.table.state(member, NodeState::Suspected, now);
                self.send(Topic::Node(member.node), &NodeMessage::Probe { from: self.cluster.me });
            }
            Output::Cleared(member) => {
                tracing::info!(node = %self.table.name(member), id = %member.node, "the node is not suspected any more");
                self.table.cleared(member, now);
            }
            Output::Lost { member, why, heard } => self.lose(member, why, heard, now),
            Output::Announce(member) => {
                self.send(Topic::Hints, &NodeMessage::Dead { member, by: self.cluster.me });
            }
            Output::Held(guard) => {
                metrics.guard_held(guard);
                self.table.guard(Some(guard));
                if guard == Guard::Majority {
                    tracing::error!(
                        ?guard,
                        "guard held: more than half of the cluster is silent at once, nobody is declared dead yet"
                    );
                } else {
                    tracing::warn!(?guard, "guard held: nobody is suspected");
                }
            }
            Output::Released(guard) => {
                tracing::info!(?guard, "guard released");
                if self.table.held() == Some(guard) {
                    self.table.guard(None);
                }
            }
            Output::Rearmed { cut } => {
                metrics.rearmed();
                tracing::info!(cut_ms = cut.as_millis(), "liveness re-armed: all silence is counted anew");
                self.isolation.rearmed();
            }
            Output::Woke { stall } => {
                tracing::warn!(stall_ms = stall.as_millis(), "this node stood still");
                self.isolation.woke(now.tick - stall, stall);
            }
        }
    }

    fn lose(&mut self, member: Member, why: Why, heard: Tick, now: Now) {
        let metrics = &self.context.metrics.cluster;
        let (name, id) = (self.table.name(member), member.node);
        let silent_ms = now.tick.since(heard).as_millis();
        let state = match why {
            Why::Left => {
                metrics.left();
                tracing::info!(node = name, %id, "node left");
                NodeState::Left
            }
            Why::Silent | Why::Disconnected | Why::Reborn => {
                metrics.dead();
                tracing::error!(node = name, %id, ?why, silent_ms, "node dead");
                NodeState::Dead
            }
        };
        self.table.state(member, state, now);
        // First who is there, then that one is not: whoever acts on the loss looks at the others.
        self.table.show(&self.cluster, &self.liveness, now);
        let ago = u64::try_from(now.tick.since(heard).as_micros()).unwrap_or(u64::MAX);
        let heard = Some(outlive_core::time::WallTime(now.wall.0.saturating_sub(ago)));
        let lost = Lost { member, name, why, heard, at: now.tick };
        // Nobody listens while the node starts, and then the sweep finds what is lost.
        drop(self.cluster.lost.send(lost));
    }

    /// How the node stands. It gives everything away from the moment that somebody has said so.
    fn stand(&mut self, now: Now) {
        let is_armed = *self.cluster.directory.armed().borrow();
        let cluster = Arc::clone(&self.cluster);
        cluster.standing.send_if_modified(|standing| {
            if *standing == Standing::Draining {
                self.phase = Phase::Draining;
            }
            self.phase = match self.phase {
                Phase::Unheard if self.liveness.is_well() => Phase::Heard(now.tick),
                Phase::Heard(_) if !self.liveness.is_well() => Phase::Unheard,
                // By then it has heard whoever is there.
                Phase::Heard(since) if now.tick.since(since) >= self.pace.suspect && is_armed => {
                    tracing::info!(node = %cluster.settings.name, "the node is ready");
                    Phase::Ready
                }
                phase => phase,
            };
            let now_standing = match (self.isolation.place(), self.phase) {
                (Place::Isolated { since }, _) => Standing::Isolated { since },
                (Place::Reuniting, _) => Standing::Reuniting,
                (Place::Well, Phase::Unheard | Phase::Heard(_)) => Standing::Joining,
                (Place::Well, Phase::Ready) => Standing::Ready,
                (Place::Well, Phase::Draining) => Standing::Draining,
            };
            self.table.state(cluster.me, table::state(now_standing), now);
            std::mem::replace(standing, now_standing) != now_standing
        });
    }

    async fn leave(mut self) {
        let seq = self.liveness.send();
        self.send(Topic::Beats, &NodeMessage::Goodbye { member: self.cluster.me, seq });
        let name = &self.cluster.settings.name;
        let late = self.context.clock.now().tick + Duration::from_millis(CLUSTER_STORE_MS);
        tokio::select! {
            biased;
            freed = self.context.engine.delete_if(NODES, name, self.revision) => {
                if let Err(error) = freed {
                    tracing::warn!(name, error = with_sources(&error), "the node's name stays taken for a moment");
                }
            }
            () = self.context.clock.until(late) => {}
        }
        tracing::info!(name, "this node has left the cluster");
    }

    fn send(&self, topic: Topic, message: &NodeMessage<'_>) {
        self.cluster.settings.transport.send(topic, message.encode().into());
    }
}
