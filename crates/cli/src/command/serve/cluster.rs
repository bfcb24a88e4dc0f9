//! A daemon that is one of several nodes on NATS JetStream.
//!
//! ```text
//!  listen, serve (/v1/live; all else is refused as `joining`, with the reason) ──► NATS ──► token ──► join, recover ──► open
//!                                                                                   ▲ │
//!                                                                                   └─┘ waited for, when told to
//!  signal ──► drain ──► end          a second signal ──► end; what runs is left for this node's next life
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use outlive_core::id::{BootId, NodeId, Revision};
use outlive_node::Node;
use outlive_node::api::Api;
use outlive_node::cluster::Settings;
use outlive_protocol::http::{API_VERSION, Drain, NodeView};
use outlive_server::{Bounds, Front, Listeners, bind_unix, serve_front};
use outlive_store::{Engine, TableError};
use outlive_store_nats::{ConnectError, Credentials, Nats, NatsTransport};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::heart::Heart;
use super::signals::Signals;
use super::{Waiting, cannot, is_ready, neighbours, node_config, tcp};
use crate::clock;
use crate::config::cluster::Cluster;
use crate::config::{Config, Setting};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::moved;

/// The table of what belongs to the cluster as a whole, and the row of the token that all nodes accept.
const TABLE: &str = "cluster";
const TOKEN: &str = "token";
/// The wait between two looks for NATS.
const AGAIN: Duration = Duration::from_millis(500);

pub(super) async fn serve(
    config: &Config,
    node_id: NodeId,
    signals: &mut Signals,
    client: &mut Waiting,
) -> Result<(), Failure> {
    moved::may_join(&config.state_dir.value).await?;
    volumes(&config.cluster)?;
    let unix = bind_unix(&config.socket.value).map_err(|error| cannot(&error))?;
    let (tcp, url) = tcp::listen_for_nodes(config).await?;
    drop(std::env::set_current_dir("/"));
    let address = tcp.address();
    tracing::info!(node = %config.cluster.name.value, %url, %address, "one of several nodes");
    let front = Front::waiting(myself(config, node_id), "NATS has not been reached yet");
    let shutdown = CancellationToken::new();
    // Until the node has stopped.
    let heart = Heart::start().map_err(|error| cannot(&error))?;
    let mut serving = JoinSet::new();
    let listeners = Listeners { unix, tcp: Some(tcp) };
    serving.spawn(serve_front(front.clone(), listeners, Bounds::default(), shutdown.clone()));
    let begun = tokio::select! {
        begun = begin(config, node_id, url, &front, &heart) => begun.map(Some),
        () = signals.next() => Ok(None),
    };
    let ended = match begun {
        Ok(Some((node, token))) => {
            let api: Arc<dyn Api> = Arc::clone(&node) as Arc<dyn Api>;
            let others = front.others(Arc::clone(&api));
            let mcp = outlive_mcp::router_among(Arc::clone(&api), others, shutdown.clone());
            front.open(api, mcp);
            is_ready(config, None, client);
            if let Some(members) = node.watch_members() {
                let me = config.cluster.name.value.clone();
                serving.spawn(neighbours::keep(
                    config.socket.value.clone(),
                    me,
                    token,
                    members,
                    shutdown.clone(),
                ));
            }
            until_end(&node, signals).await;
            Ok(Some(node))
        }
        Ok(None) => {
            tracing::info!("a signal ends the daemon before it has joined its cluster");
            Ok(None)
        }
        Err(failure) => Err(failure),
    };
    shutdown.cancel();
    while serving.join_next().await.is_some() {}
    if let Some(node) = ended? {
        node.stop().await;
    }
    drop(heart);
    Ok(())
}

/// Who answers while there is no node yet.
fn myself(config: &Config, node: NodeId) -> NodeView {
    NodeView {
        node,
        boot: BootId::from_uuid(uuid::Uuid::now_v7()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api: API_VERSION,
        pid: std::process::id(),
        state_directory: config.state_dir.value.display().to_string(),
        started_at: clock::now(),
        ready: false,
    }
}

/// The node, when it has joined, and the cluster's token.
async fn begin(
    config: &Config,
    node_id: NodeId,
    url: String,
    front: &Front,
    heart: &Heart,
) -> Result<(Arc<Node>, String), Failure> {
    let nats = connect(&config.cluster, &spool(config), Some(front)).await?;
    let token = token(&nats).await.map_err(|error| cannot(&error))?;
    front.join(node_id, &token).map_err(|error| cannot(&error))?;
    front.wait_for("the node takes its place among the others");
    let nats_settings = nats_settings(&config.cluster, &spool(config))?;
    let transport =
        reach(&config.cluster, Some(front), async || heart.connect(nats_settings.clone()).await).await?;
    let settings = settings(&config.cluster, url, transport, heart);
    let node = Node::start(node_config(config, node_id, Arc::new(nats), Some(settings))?);
    let node = node.await.map_err(|error| cannot(&error))?;
    Ok((node, token))
}

/// Where blobs are put on their way to the cluster.
pub fn spool(config: &Config) -> PathBuf {
    config.state_dir.value.join("spool")
}

fn settings(cluster: &Cluster, url: String, transport: NatsTransport, heart: &Heart) -> Settings {
    Settings {
        name: cluster.name.value.clone(),
        url: Some(url),
        transport: Arc::new(transport),
        heart: Some(heart.runtime().clone()),
        kernel_grace: cluster.kernel_grace.value,
        on_isolation: cluster.on_isolation.value,
        volumes: cluster.volumes.value.clone(),
        is_wide: cluster.wide.value,
    }
}

/// Connects to NATS; waits for it if the configuration says so, and says meanwhile what it waits for.
pub async fn connect(
    cluster: &Cluster,
    spool: &std::path::Path,
    front: Option<&Front>,
) -> Result<Nats, Failure> {
    let settings = nats_settings(cluster, spool)?;
    reach(cluster, front, async || Nats::connect(settings.clone()).await).await
}

async fn reach<T>(
    cluster: &Cluster,
    front: Option<&Front>,
    attempt: impl AsyncFn() -> Result<T, ConnectError>,
) -> Result<T, Failure> {
    let deadline = cluster.wait.value.map(|wait| Instant::now() + wait);
    loop {
        let again = Instant::now() + AGAIN;
        let error = match attempt().await {
            Ok(reached) => return Ok(reached),
            Err(error) => error,
        };
        if !error.may_pass() || deadline.is_none_or(|deadline| again >= deadline) {
            return Err(refused(&error, deadline.is_some()));
        }
        tracing::info!(%error, "NATS is waited for");
        if let Some(front) = front {
            front.wait_for(format!("NATS is waited for: {error}"));
        }
        tokio::time::sleep_until(again).await;
    }
}

fn nats_settings(
    cluster: &Cluster,
    spool: &std::path::Path,
) -> Result<outlive_store_nats::Settings, Failure> {
    let mut settings = outlive_store_nats::Settings::new(&cluster.servers.value, spool);
    settings.name = cluster.name.value.clone();
    settings.credentials = credentials(cluster);
    settings.tls_ca = cluster.tls_ca.value.clone();
    if let Some(prefix) = &cluster.prefix.value {
        settings.prefix = prefix.clone();
    }
    let small = |number: u64| u16::try_from(number).expect("its bounds are those of the key");
    if let Some(shards) = cluster.shards.value {
        settings.shards = small(shards);
    }
    if let Some(replicas) = cluster.replicas.value {
        settings.replicas = u8::try_from(replicas).expect("its bounds are those of the key");
    }
    Ok(settings)
}

/// At most one of them is given: the configuration has been checked.
fn credentials(cluster: &Cluster) -> Credentials {
    if let Some(token) = &cluster.token.value {
        return Credentials::Token(token.reveal().to_owned());
    }
    if let (Some(user), Some(password)) = (&cluster.user.value, &cluster.password.value) {
        return Credentials::User { user: user.clone(), password: password.reveal().to_owned() };
    }
    if let Some(file) = &cluster.credentials.value {
        return Credentials::File(file.clone());
    }
    cluster.nkey.value.clone().map_or(Credentials::None, Credentials::Nkey)
}

fn refused(error: &ConnectError, was_waited_for: bool) -> Failure {
    let failure = cannot(error);
    match error {
        ConnectError::BadFile { .. } => {
            Failure { exit: Exit::Usage, ..failure }.hint("`outlive config show` says where it is named")
        }
        ConnectError::BadSetting { .. } | ConnectError::OtherCluster { .. } => {
            Failure { exit: Exit::Usage, ..failure }
        }
        error if error.may_pass() && !was_waited_for => {
            failure.hint("`--wait 5m` (or `wait` in [cluster]) waits for it instead of giving up")
        }
        _ => failure,
    }
}

/// The token that all nodes accept: the first node has made it.
async fn token(engine: &dyn Engine) -> Result<String, TableError> {
    loop {
        if let Some(row) = engine.get(TABLE, TOKEN).await? {
            return Ok(String::from_utf8_lossy(&row.value).into_owned());
        }
        // Two random UUIDs: 244 random bits.
        let token = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
        match engine.put_if(TABLE, TOKEN, Revision::default(), token.as_bytes()).await {
            Ok(_) => return Ok(token),
            // Another node was first, or it may have been this one.
            Err(TableError::Conflict { .. } | TableError::Unknown) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Directories that are not there would be found missing by the first notebook.
fn volumes(cluster: &Cluster) -> Result<(), Failure> {
    let Setting { value: volumes, origin } = &cluster.volumes;
    let missing: BTreeMap<_, _> = volumes.iter().filter(|(_, directory)| !directory.is_dir()).collect();
    match missing.first_key_value() {
        None => Ok(()),
        Some((name, directory)) => {
            let what =
                format!("the volume {name} (from {origin}) is no directory here: {}", directory.display());
            Err(Failure::new(Exit::Usage, what)
                .hint("mount it, or leave it out: notebooks on it are then saved by other nodes"))
        }
    }
}

/// Until somebody asks for the end. A signal gives everything away first; a second one does not wait for that.
async fn until_end(node: &Arc<Node>, signals: &mut Signals) {
    tokio::select! {
        () = node.ending() => return,
        () = signals.next() => {}
    }
    tracing::info!("a signal drains this node; a second one ends it at once");
    tokio::select! {
        drained = node.drain(Drain::default()) => match drained {
            Ok(drained) => {
                tracing::info!(released = drained.released.len(), taken = drained.taken.len(), "drained");
                for why in drained.kept {
                    tracing::warn!(why, "a session was not given away");
                }
            }
            Err(problem) => tracing::warn!(%problem, "not drained; what runs is left for this node's next life"),
        },
        () = signals.next() => tracing::info!("a second signal ends the daemon; what it runs goes on"),
    }
}
