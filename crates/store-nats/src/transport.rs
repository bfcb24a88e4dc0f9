//! What nodes tell each other at once, without JetStream, over another connection than the engine's.

use std::fmt;
use std::sync::Arc;

use async_nats::Subscriber;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use outlive_store::transport::HEARD_MAX;
use outlive_store::{Connection, Heard, Topic, Transport};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connect::{self, ConnectError, Link};
use crate::settings::Settings;
use crate::wire::Pending;

/// The way from node to node over NATS. Clones share it; it ends with the last of them.
#[derive(Clone)]
pub struct NatsTransport {
    inner: Arc<Inner>,
}

struct Inner {
    link: Link,
    prefix: String,
    /// Where the connection is worked at.
    runtime: Handle,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl fmt::Debug for NatsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsTransport").field("prefix", &self.inner.prefix).finish_non_exhaustive()
    }
}

impl NatsTransport {
    /// Connects, with a connection of its own: a heartbeat does not wait behind output that is stored. All its work is
    /// done by the runtime that this is called on.
    ///
    /// # Errors
    /// [`ConnectError`]; nothing is waited for.
    pub async fn connect(settings: &Settings) -> Result<Self, ConnectError> {
        let link = connect::link(settings, &settings.name, Pending::default()).await?;
        let inner = Inner {
            link,
            prefix: settings.prefix.clone(),
            runtime: Handle::current(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    fn subject(&self, topic: Topic) -> String {
        let prefix = &self.inner.prefix;
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
        if matches!(*self.inner.link.connection.borrow(), Connection::Down { .. }) {
            return;
        }
        let sent = self.inner.link.client.publish(self.subject(topic), message);
        if let Some(Err(error)) = sent.now_or_never() {
            tracing::debug!(%error, "a message to other nodes was not sent");
        }
    }

    fn listen(&self, topic: Topic) -> mpsc::Receiver<Heard> {
        let (to, heard) = mpsc::channel(HEARD_MAX);
        let (client, subject) = (self.inner.link.client.clone(), self.subject(topic));
        let missed = self.inner.link.missed.subscribe();
        let listen = async move {
            match client.subscribe(subject).await {
                Ok(messages) => pass_on(messages, missed, to).await,
                Err(error) => tracing::warn!(%error, "other nodes cannot be heard"),
            }
        };
        let listen = self.inner.stop.clone().run_until_cancelled_owned(listen);
        self.inner.tasks.spawn_on(listen, &self.inner.runtime);
        heard
    }

    fn connection(&self) -> watch::Receiver<Connection> {
        self.inner.link.connection.clone()
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
