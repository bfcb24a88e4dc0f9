//! A node's name: a row of the table `nodes`, which says who has it. It is taken from one that has been silent while we
//! listened, and from nobody else.

use std::collections::BTreeMap;

use outlive_core::failover::Member;
use outlive_core::id::{NodeId, Revision};
use outlive_core::limits::{CLUSTER_NAME_SILENCES, STORE_RETRY_MS};
use outlive_core::time::Tick;
use outlive_protocol::node::{NodeMessage, NodeRow};
use outlive_store::{Connection, TableError, Topic};

use super::Membership;
use super::ears::Word;
use crate::node::StartError;
use crate::session::with_sources;

/// The table of names.
pub(super) const NODES: &str = "nodes";

/// So many beats prove a life: one may have been on its way when its sender died.
const BEATS_OF_A_LIFE: u32 = 2;

/// What was heard of who has the name.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Holder {
    Silent,
    Alive { member: Member, url: Option<String> },
}

/// How long is listened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Window {
    Open {
        until: Tick,
    },
    /// It is over once our own question comes back; it is asked again then.
    Over {
        again: Tick,
    },
}

impl Membership {
    /// Takes the name. Waits for a transport that is down and for a store that does not answer.
    ///
    /// # Errors
    /// [`StartError::NameTaken`].
    pub(super) async fn take_name(&mut self) -> Result<Revision, StartError> {
        let name = self.cluster.settings.name.clone();
        loop {
            let row = self.row().await?;
            if let Some((_, held)) = &row
                && held.member != self.cluster.me
                && let Holder::Alive { member, url } = self.listen_for(held.member).await
            {
                let url = url.or_else(|| held.url.clone()).unwrap_or_else(|| "no address".to_owned());
                return Err(StartError::NameTaken { name, node: member.node, url, pid: held.pid });
            }
            let before = row.map_or(Revision(0), |(revision, _)| revision);
            match self.context.engine.put_if(NODES, &name, before, &self.own_row()).await {
                Ok(revision) => return Ok(revision),
                // Somebody was quicker, and beats from now on; or it was our own write, which is found then.
                Err(TableError::Conflict { .. } | TableError::Unknown) => {}
                Err(TableError::Unavailable(error)) => self.wait_for_store(&error.into()).await?,
                Err(error @ TableError::TooLarge { .. }) => return Err(error.into()),
            }
        }
    }

    fn own_row(&self) -> Vec<u8> {
        let row = NodeRow {
            member: self.cluster.me,
            url: self.cluster.settings.url.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.context.clock.now().wall,
            pid: std::process::id(),
        };
        serde_json::to_vec(&row).expect("a row is plain data")
    }

    /// The row of our name. One that cannot be read counts as none: its place is taken over by its revision.
    async fn row(&mut self) -> Result<Option<(Revision, NodeRow)>, StartError> {
        loop {
            match self.context.engine.get(NODES, &self.cluster.settings.name).await {
                Ok(row) => {
                    return Ok(
                        row.and_then(|row| Some((row.revision, serde_json::from_slice(&row.value).ok()?)))
                    );
                }
                Err(error) => self.wait_for_store(&error).await?,
            }
        }
    }

    async fn wait_for_store(&self, error: &TableError) -> Result<(), StartError> {
        tracing::warn!(error = with_sources(error), "the node waits for the cluster's store to join");
        if self.context.pause(STORE_RETRY_MS).await { Ok(()) } else { Err(StartError::Stopped) }
    }

    /// Listens whether somebody with our name is alive, for as long as whoever is alive can be silent, several times.
    /// That we would have heard is known from our own question, which comes back to us at the end.
    async fn listen_for(&mut self, holder: Member) -> Holder {
        let me = self.cluster.me;
        self.ask(holder.node);
        let mut window = Window::Open { until: self.window_ends() };
        let mut beats: BTreeMap<Member, u32> = BTreeMap::new();
        loop {
            let (Window::Open { until } | Window::Over { again: until }) = window;
            let word = tokio::select! {
                biased;
                word = self.ears.next() => word,
                () = self.context.clock.until(until) => {
                    // Comes back at once, or the transport does not work and is asked again.
                    self.ask(me.node);
                    window = Window::Over { again: self.window_ends() };
                    continue;
                }
            };
            let message = match word {
                Word::Gap | Word::Connection(Connection::Down { .. }) => {
                    window = Window::Open { until: self.window_ends() };
                    continue;
                }
                Word::Connection(Connection::Up) => {
                    window = Window::Open { until: self.window_ends() };
                    self.ask(holder.node);
                    continue;
                }
                Word::Ended(_) => continue,
                Word::Message(message) => message,
            };
            match NodeMessage::decode(&message) {
                Some(NodeMessage::Answer { from }) if from == holder => {
                    return Holder::Alive { member: from, url: None };
                }
                Some(NodeMessage::Beat(beat))
                    if beat.member != me && beat.name == self.cluster.settings.name =>
                {
                    let heard = beats.entry(beat.member).or_default();
                    *heard += 1;
                    if *heard >= BEATS_OF_A_LIFE {
                        let url = beat.url.map(std::borrow::Cow::into_owned);
                        return Holder::Alive { member: beat.member, url };
                    }
                }
                Some(NodeMessage::Probe { from }) if from == me && matches!(window, Window::Over { .. }) => {
                    return Holder::Silent;
                }
                _ => {}
            }
        }
    }

    fn ask(&self, node: NodeId) {
        let question = NodeMessage::Probe { from: self.cluster.me }.encode();
        self.cluster.settings.transport.send(Topic::Node(node), question.into());
    }

    fn window_ends(&self) -> Tick {
        self.context.clock.now().tick + self.pace.suspect * CLUSTER_NAME_SILENCES
    }
}
