//! The way to a usable engine: connect, see who answers, make or check the streams, agree with the cluster.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{ConnectOptions, Event, ServerAddr, ServerInfo};
use outlive_core::limits::{
    BATCH_BYTES_MAX, NATS_INBOX_MAX, NATS_OUTBOX_MAX, NATS_PING_MS, NATS_RECONNECT_MS, NATS_START_RETRY_MS,
};
use outlive_store::Connection;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access;
pub use crate::error::ConnectError;
use crate::layout::Layout;
use crate::nats::Nats;
use crate::settings::Settings;
use crate::streams;
use crate::wire::{Pending, Wire};

/// The first version whose appends can be fenced by another subject (`Nats-Expected-Last-Subject-Sequence-Subject`).
const VERSION_NEEDED: &str = "2.11";
/// What a message needs beside a record: headers, subject.
const MESSAGE_BYTES: usize = BATCH_BYTES_MAX + (16 << 10);
/// How long a server may take to answer a connection. A frozen one takes it and says nothing.
const HANDSHAKE: Duration = Duration::from_secs(1);

pub(crate) async fn connect(settings: Settings) -> Result<Nats, ConnectError> {
    let deadline = settings.wait.map(|wait| Instant::now() + wait);
    loop {
        let again = Instant::now() + Duration::from_millis(NATS_START_RETRY_MS);
        match attempt(&settings).await {
            Err(error) if error.may_pass() && deadline.is_some_and(|deadline| again < deadline) => {
                tracing::info!(%error, "NATS is waited for");
                sleep_until(again).await;
            }
            other => return other,
        }
    }
}

/// A connection that goes on by itself after a cut.
pub(crate) struct Link {
    pub(crate) client: async_nats::Client,
    /// Whether NATS can be reached.
    pub(crate) connection: watch::Receiver<Connection>,
    /// Rises when something may have been missed.
    pub(crate) missed: watch::Sender<u64>,
}

/// Connects once. The connection's own work is done by the runtime that this is called on.
pub(crate) async fn link(settings: &Settings, name: &str, pending: Pending) -> Result<Link, ConnectError> {
    let servers = check(settings)?;
    let (is_up, connection) = watch::channel(Connection::Up);
    let (missed, _) = watch::channel(0);
    let options = options(settings, is_up, missed.clone(), pending).await?;
    let connected = options.name(name).connect(&servers[..]).await;
    let client = connected.map_err(|error| access::failed(settings, &error))?;
    Ok(Link { client, connection, missed })
}

fn unreachable(settings: &Settings, why: String) -> ConnectError {
    ConnectError::Unreachable { servers: access::shown(settings), why }
}

/// One attempt at all of it. Nothing of it runs on when it fails.
async fn attempt(settings: &Settings) -> Result<Nats, ConnectError> {
    let stop = CancellationToken::new();
    let unfinished = stop.clone().drop_guard();
    let tasks = TaskTracker::new();
    let pending = Pending::default();
    // The node's own name is that of the connection whose end says that the node has ended (`transport`).
    let Link { client, connection, missed } =
        link(settings, &format!("{} log", settings.name), pending.clone()).await?;
    check_server(&client.server_info())?;
    let (wire, dispatch) = Wire::new(client, pending, connection)
        .await
        .map_err(|error| unreachable(settings, error.to_string()))?;
    tasks.spawn(stop.clone().run_until_cancelled_owned(dispatch));

    streams::check_jetstream(&wire).await?;
    let layout = Layout { prefix: settings.prefix.clone(), shards: settings.shards };
    streams::ensure_tables(&wire, &layout, settings.replicas).await?;
    let nats = Nats::new(wire, layout, settings, missed, tasks, stop);
    nats.inner.agree().await?;
    streams::ensure(&nats.inner.wire, &nats.inner.layout, settings.replicas).await?;
    nats.inner.hear_of_elections().await.map_err(|error| unreachable(settings, error.to_string()))?;
    // From here on it ends with the engine.
    drop(unfinished.disarm());
    Ok(nats)
}

fn check(settings: &Settings) -> Result<Vec<ServerAddr>, ConnectError> {
    let bad =
        |what, found: &str, why: String| ConnectError::BadSetting { what, found: found.to_owned(), why };
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if settings.prefix.is_empty() || !settings.prefix.chars().all(fits) {
        let why = "lower-case letters, digits, `-` and `_` make a prefix".to_owned();
        return Err(bad("the prefix", &settings.prefix, why));
    }
    if ![1, 3, 5].contains(&settings.replicas) {
        let why = "1, 3 or 5 copies can agree".to_owned();
        return Err(bad("the number of replicas", &settings.replicas.to_string(), why));
    }
    if !(1..=64).contains(&settings.shards) {
        let why = "1 to 64 make sense".to_owned();
        return Err(bad("the number of shards", &settings.shards.to_string(), why));
    }
    if settings.servers.is_empty() {
        return Err(bad("the list of NATS servers", "", "it is empty".to_owned()));
    }
    access::addresses(settings)
}

async fn options(
    settings: &Settings,
    connection: watch::Sender<Connection>,
    missed: watch::Sender<u64>,
    pending: Pending,
) -> Result<ConnectOptions, ConnectError> {
    let options = access::options(settings).await?;
    let has_begun = AtomicBool::new(false);
    let hear = move |event: Event| {
        // The first time it is told behind our back, when somebody may listen already, who has missed nothing.
        let is_first = event == Event::Connected && !has_begun.swap(true, Ordering::Relaxed);
        if !is_first {
            hear(&event, &connection, &missed, &pending);
        }
        std::future::ready(())
    };
    Ok(options
        .ping_interval(Duration::from_millis(NATS_PING_MS))
        .connection_timeout(HANDSHAKE)
        .client_capacity(NATS_OUTBOX_MAX)
        .subscription_capacity(NATS_INBOX_MAX)
        .reconnect_delay_callback(|attempts| {
            let doubled = 1_u64 << attempts.saturating_sub(1).min(16);
            let ms = if attempts <= 1 { 0 } else { doubled.min(NATS_RECONNECT_MS) };
            Duration::from_millis(ms)
        })
        .event_callback(hear))
}

/// What the library tells of the connection.
fn hear(
    event: &Event,
    connection: &watch::Sender<Connection>,
    missed: &watch::Sender<u64>,
    pending: &Pending,
) {
    let down = |why: String| {
        connection.send_if_modified(|connection| {
            let was_up = *connection == Connection::Up;
            *connection = Connection::Down { why };
            was_up
        });
    };
    match event {
        Event::Connected => {
            connection.send_if_modified(|connection| {
                std::mem::replace(connection, Connection::Up) != Connection::Up
            });
            // What was told while it was cut is lost.
            missed.send_modify(|missed| *missed += 1);
        }
        Event::Disconnected => {
            down("the connection was cut".to_owned());
            pending.cut();
        }
        Event::Closed => down("the connection was closed".to_owned()),
        Event::SlowConsumer(_) => missed.send_modify(|missed| *missed += 1),
        Event::ClientError(error) => {
            let is_news = match &*connection.borrow() {
                Connection::Down { why } => *why != error.to_string(),
                Connection::Up => false,
            };
            if is_news {
                // Once: it is tried again several times a second.
                tracing::warn!(%error, "NATS cannot be reached again");
                down(error.to_string());
            }
        }
        Event::ServerError(error) => tracing::warn!(%error, "NATS reports an error"),
        Event::LameDuckMode => tracing::info!("this NATS server is about to stop; another is used then"),
        Event::Draining => {}
    }
}

fn check_server(info: &ServerInfo) -> Result<(), ConnectError> {
    let server = format!("{}:{}", info.host, info.port);
    if version(&info.version) < version(VERSION_NEEDED) {
        let found = if info.version.is_empty() { "unknown".to_owned() } else { info.version.clone() };
        return Err(ConnectError::TooOld { server, found, needed: VERSION_NEEDED });
    }
    if info.max_payload < MESSAGE_BYTES {
        return Err(ConnectError::SmallMessages { server, found: info.max_payload, needed: MESSAGE_BYTES });
    }
    Ok(())
}

/// `2.11.3-beta` as (2, 11).
fn version(text: &str) -> (u32, u32) {
    let mut parts = text.trim_start_matches('v').split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

impl crate::nats::Inner {
    /// Heeds the elections of leaders: what an old one stored last it may not have told.
    async fn hear_of_elections(&self) -> io::Result<()> {
        use futures_util::StreamExt;
        let mut elections =
            self.wire.client().subscribe(self.layout.elections()).await.map_err(io::Error::other)?;
        let missed = self.missed.clone();
        let heed = async move {
            while elections.next().await.is_some() {
                missed.send_modify(|missed| *missed += 1);
            }
        };
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(heed));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(version("2.9.10") < version(VERSION_NEEDED));
        assert!(version("2.11.0") >= version(VERSION_NEEDED));
        assert!(version("v2.15.1-beta") >= version(VERSION_NEEDED));
        assert!(version("3.0") >= version(VERSION_NEEDED));
        assert!(version("odd") < version(VERSION_NEEDED));
    }

    #[test]
    fn settings_that_cannot_work_are_named() {
        let good = Settings::new(["nats://127.0.0.1:4222"], "/tmp/spool");
        assert!(check(&good).is_ok());
        let bad = |settings: &Settings| check(settings).unwrap_err().to_string();
        let prefixed = Settings { prefix: "Out.live".to_owned(), ..good.clone() };
        assert!(bad(&prefixed).contains("\"Out.live\""));
        assert!(bad(&Settings { replicas: 2, ..good.clone() }).contains('2'));
        assert!(bad(&Settings { shards: 0, ..good.clone() }).contains("shards"));
        let address = Settings { servers: vec!["nats://host:port".to_owned()], ..good };
        assert!(bad(&address).contains("nats://host:port"));
    }
}
