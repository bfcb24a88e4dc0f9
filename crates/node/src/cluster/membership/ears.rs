//! Everything that a node hears of the others.

use bytes::Bytes;
use outlive_store::{Connection, Heard, Topic};
use tokio::sync::{mpsc, watch};

use crate::cluster::Cluster;

/// One thing that was heard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Word {
    /// What another node, or this one, has sent.
    Message(Bytes),
    /// What the service says of a connection that has ended.
    Ended(Bytes),
    /// Something was missed.
    Gap,
    /// The transport is up, or down.
    Connection(Connection),
}

/// Listens from the moment that it is made.
pub(super) struct Ears {
    beats: mpsc::Receiver<Heard>,
    hints: mpsc::Receiver<Heard>,
    direct: mpsc::Receiver<Heard>,
    disconnects: mpsc::Receiver<Heard>,
    connection: watch::Receiver<Connection>,
}

impl Ears {
    pub(super) fn open(cluster: &Cluster) -> Self {
        let transport = &cluster.settings.transport;
        let mut connection = transport.connection();
        connection.mark_changed();
        Self {
            beats: transport.listen(Topic::Beats),
            hints: transport.listen(Topic::Hints),
            direct: transport.listen(Topic::Node(cluster.me.node)),
            disconnects: transport.listen(Topic::Disconnects),
            connection,
        }
    }

    /// The next thing; the state of the connection first. Cancel-safe.
    pub(super) async fn next(&mut self) -> Word {
        let word = |heard: Option<Heard>| match heard {
            Some(Heard::Message(message)) => Some(Word::Message(message)),
            Some(Heard::Gap) => Some(Word::Gap),
            None => None,
        };
        loop {
            // A topic that nobody serves ends at once and is not asked again.
            let heard = tokio::select! {
                biased;
                Ok(()) = self.connection.changed() => {
                    Some(Word::Connection(self.connection.borrow_and_update().clone()))
                }
                heard = self.direct.recv(), if !self.direct.is_closed() => word(heard),
                heard = self.beats.recv(), if !self.beats.is_closed() => word(heard),
                heard = self.hints.recv(), if !self.hints.is_closed() => word(heard),
                heard = self.disconnects.recv(), if !self.disconnects.is_closed() => match heard {
                    Some(Heard::Message(message)) => Some(Word::Ended(message)),
                    // It only helps: what is missed there is noticed by silence.
                    Some(Heard::Gap) | None => None,
                },
                () = std::future::pending() => None,
            };
            if let Some(word) = heard {
                return word;
            }
        }
    }
}
