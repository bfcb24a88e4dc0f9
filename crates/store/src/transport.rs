//! What nodes tell each other at once: heartbeats, probes, hints.
//!
//! A message arrives at most once, in no promised order, and may be lost without anybody being told. So nothing that
//! matters is said here alone: who owns what stands in the logs.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use outlive_core::id::NodeId;
use tokio::sync::{mpsc, watch};

/// Messages that one listener holds before the oldest way of losing them begins: what does not fit is dropped and told.
pub const HEARD_MAX: usize = 1_024;

/// To whom a message goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Topic {
    /// Heartbeats, to every node; the sender hears its own.
    Beats,
    /// What is worth knowing soon, to every node; the sender hears its own.
    Hints,
    /// To this node alone.
    Node(NodeId),
    /// What the service itself says of connections that end, where it may be asked (NATS: `$SYS`).
    Disconnects,
}

/// What a listener hears.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// A message.
    Message(Bytes),
    /// Some were lost here: the connection was cut, or the listener did not keep up.
    Gap,
}

/// Whether the service can be reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Connection {
    /// It can.
    Up,
    /// It cannot.
    Down {
        /// Why, for people.
        why: String,
    },
}

/// The way from node to node.
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Sends a message. Never waits: what cannot be sent now is lost.
    fn send(&self, topic: Topic, message: Bytes);
    /// Everything that is sent to a topic from now on, until the receiver is dropped. It goes on by itself after the
    /// connection was cut, and says [`Heard::Gap`] then.
    fn listen(&self, topic: Topic) -> mpsc::Receiver<Heard>;
    /// Whether the service can be reached, live.
    fn connection(&self) -> watch::Receiver<Connection>;
}

/// Nodes in one process: for tests.
#[derive(Clone, Debug)]
pub struct MemoryTransport {
    topics: Arc<Mutex<HashMap<Topic, Vec<mpsc::Sender<Heard>>>>>,
    connection: Arc<watch::Sender<Connection>>,
}

impl Default for MemoryTransport {
    fn default() -> Self {
        Self { topics: Arc::default(), connection: Arc::new(watch::Sender::new(Connection::Up)) }
    }
}

impl MemoryTransport {
    fn topics(&self) -> MutexGuard<'_, HashMap<Topic, Vec<mpsc::Sender<Heard>>>> {
        self.topics.lock().expect("nothing panics while it holds the topics")
    }
}

impl Transport for MemoryTransport {
    fn send(&self, topic: Topic, message: Bytes) {
        if let Some(listeners) = self.topics().get_mut(&topic) {
            listeners.retain(|to| !to.is_closed());
            for to in listeners {
                // One that does not keep up loses it, as it may.
                drop(to.try_send(Heard::Message(message.clone())));
            }
        }
    }

    fn listen(&self, topic: Topic) -> mpsc::Receiver<Heard> {
        let (to, heard) = mpsc::channel(HEARD_MAX);
        self.topics().entry(topic).or_default().push(to);
        heard
    }

    fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.subscribe()
    }
}
