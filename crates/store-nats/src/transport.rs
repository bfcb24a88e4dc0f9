//! What nodes tell each other at once, over the same connection as the engine, without JetStream.

use std::fmt;
use std::sync::Arc;

use async_nats::Subscriber;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use outlive_store::transport::HEARD_MAX;
use outlive_store::{Connection, Heard, Topic, Transport};
use tokio::sync::{mpsc, watch};

use crate::nats::{Inner, Nats};

/// The way from node to node over NATS.
#[derive(Clone)]
pub struct NatsTransport {
    inner: Arc<Inner>,
}

impl fmt::Debug for NatsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsTransport").field("prefix", &self.inner.layout.prefix).finish_non_exhaustive()
    }
}

impl Nats {
    /// The way from node to node over the same connection.
    #[must_use]
    pub fn transport(&self) -> NatsTransport {
        NatsTransport { inner: Arc::clone(&self.inner) }
    }
}

impl NatsTransport {
    fn subject(&self, topic: Topic) -> String {
        let prefix = &self.inner.layout.prefix;
        match topic {
            Topic::Beats => format!("{prefix}.node.beats"),
            Topic::Hints => format!("{prefix}.node.hints"),
            Topic::Node(node) => format!("{prefix}.node.to.{node}"),
            // Heard by users of the system account alone; others are refused, and never hear anything.
            Topic::Disconnects => "$SYS.ACCOUNT.*.DISCONNECT".to_owned(),
        }
    }
}

impl Transport for NatsTransport {
    fn send(&self, topic: Topic, message: Bytes) {
        // What would wait until the connection is back says by then what was, not what is.
        if matches!(*self.inner.wire.connection().borrow(), Connection::Down { .. }) {
            return;
        }
        let sent = self.inner.wire.client().publish(self.subject(topic), message);
        if let Some(Err(error)) = sent.now_or_never() {
            tracing::debug!(%error, "a message to other nodes was not sent");
        }
    }

    fn listen(&self, topic: Topic) -> mpsc::Receiver<Heard> {
        let (to, heard) = mpsc::channel(HEARD_MAX);
        let (client, subject) = (self.inner.wire.client().clone(), self.subject(topic));
        let missed = self.inner.missed.subscribe();
        let listen = async move {
            match client.subscribe(subject).await {
                Ok(messages) => pass_on(messages, missed, to).await,
                Err(error) => tracing::warn!(%error, "other nodes cannot be heard"),
            }
        };
        self.inner.tasks.spawn(self.inner.stop.clone().run_until_cancelled_owned(listen));
        heard
    }

    fn connection(&self) -> watch::Receiver<Connection> {
        self.inner.wire.connection()
    }
}

/// Until the listener is gone. What it has no room for is lost, and it is told as soon as it has.
async fn pass_on(mut messages: Subscriber, mut missed: watch::Receiver<u64>, to: mpsc::Sender<Heard>) {
    let mut lost = false;
    loop {
        let heard = tokio::select! {
            biased;
            () = to.closed() => return,
            changed = missed.changed() => {
                if changed.is_err() { return }
                Heard::Gap
            }
            message = messages.next() => {
                let Some(message) = message else { return };
                Heard::Message(message.payload)
            }
        };
        if lost && to.try_send(Heard::Gap).is_ok() {
            lost = false;
        }
        lost |= to.try_send(heard).is_err();
    }
}
