//! `outlive serve`: the daemon. In the foreground for people and services; in the background for clients, which wait
//! at the other end of a pipe for the word that it is ready.
//!
//! Start: directories → lock → listen → recover → serve. End, in this order: no requests, no tasks, store flushed,
//! lock given back. Kernels and commands go on after SIGTERM, SIGINT and SIGHUP; `outlive daemon stop` ends them too.
//! One of several nodes serves before it has joined, to say what it waits for, and gives its work away at its end:
//! [`cluster`].

pub mod cluster;
mod heart;
mod neighbours;
mod signals;
mod tcp;

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use outlive_core::id::NodeId;
use outlive_node::api::Api;
use outlive_node::budget::{Budgets, Keep};
use outlive_node::clock::SystemClock;
use outlive_node::{Node, NodeConfig, lock};
use outlive_process::signals::inherited_fd;
use outlive_process::{descriptors, detached, memory};
use outlive_server::{BoundTcp, Listeners, bind_unix};
use outlive_store::{Embedded, Engine};
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use self::signals::Signals;
use crate::config::{Config, Origin, Setting, paths};
use crate::daemon::{Readiness, own_program};
use crate::exit::Exit;
use crate::failure::{Failure, with_sources};
use crate::moved;
use crate::nodes::Nodes;
use crate::terminal;

/// Threads of the daemon, on a machine with fewer cores too: who renders a large notebook keeps nobody else waiting.
const WORKERS_MIN: usize = 4;

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Also listen on this TCP address; its clients need the token
    #[arg(long, value_name = "ADDR:PORT")]
    pub tcp: Option<String>,
    /// File with the token for TCP clients; made when it is missing
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<String>,
    /// Make this daemon one of several nodes, which share these NATS servers (with commas between them)
    #[arg(long, value_name = "nats://HOST:PORT")]
    pub cluster: Option<String>,
    /// This node's name, which no other node has [default: the machine's]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Where other nodes and clients reach this one [default: where --tcp listens]
    #[arg(long, value_name = "http://HOST:PORT")]
    pub advertise: Option<String>,
    /// How long NATS is waited for at the start, for instance 5m
    #[arg(long, value_name = "TIME")]
    pub wait: Option<String>,
    /// How many copies NATS keeps of everything: 1, 3 or 5 [default: 1]
    #[arg(long, value_name = "NUMBER")]
    pub replicas: Option<String>,
    /// Directories that all nodes share, by name, with commas between them
    #[arg(long, value_name = "NAME=DIR")]
    pub volumes: Option<String>,
    /// What is logged: error, warn, info, debug, trace, or a filter by module
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Directory of the socket [OUTLIVE_RUNTIME_DIR]
    #[arg(long, value_name = "DIR")]
    pub runtime_dir: Option<String>,
    /// Directory of managed environments [OUTLIVE_CACHE_DIR]
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<String>,
    /// How long a session without kernel, work and clients stays in memory [default: 30]
    #[arg(long, value_name = "SECONDS")]
    pub idle_timeout: Option<String>,
    /// How many sessions may be in memory before the kernels that were idle longest are stopped
    #[arg(long, value_name = "NUMBER")]
    pub max_sessions: Option<String>,
    /// How much memory all kernels may take up before those that were idle longest are stopped
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// The socket, which otherwise follows from the directories.
    #[arg(long, hide = true, value_name = "FILE")]
    socket: Option<PathBuf>,
    /// Started by a client: says when it is ready through the inherited pipe.
    #[arg(long, hide = true)]
    background: bool,
}

impl Args {
    /// Serves until it is told to end.
    pub fn run(self, mut config: Config) -> Result<Exit, Failure> {
        if let Some(socket) = self.socket {
            config.socket = Setting { value: socket, origin: Origin::Flag("socket".to_owned()) };
        }
        memory::share_pools();
        let client = self.background.then(|| inherited_fd(detached::INHERITED_FD)).and_then(Result::ok);
        let mut client = Waiting(client);
        let ended = start_logging(&config).and_then(|()| {
            let workers =
                thread::available_parallelism().map_or(WORKERS_MIN, |cores| cores.get().max(WORKERS_MIN));
            let runtime = Builder::new_multi_thread().worker_threads(workers).enable_all().build();
            let runtime = runtime.map_err(|error| {
                Failure::new(Exit::Failed, format!("the event loop cannot start: {error}"))
            })?;
            runtime.block_on(serve(&config, &mut client))
        });
        match ended {
            Ok(()) => Ok(Exit::Ok),
            Err(failure) => {
                client.tell(&Readiness::Failed { what: failure.what.clone(), hint: failure.hint.clone() });
                Err(failure)
            }
        }
    }
}

/// The client that started us and waits.
struct Waiting(Option<OwnedFd>);

impl Waiting {
    fn tell(&mut self, readiness: &Readiness) {
        if let Some(pipe) = self.0.take() {
            let text = serde_json::to_vec(readiness).expect("two strings at most");
            // A client that left does not want to know.
            drop(File::from(pipe).write_all(&text));
        }
    }
}

fn start_logging(config: &Config) -> Result<(), Failure> {
    // What the library says at each of its attempts is said once by us; whoever wants it names it.
    let filter = format!("async_nats=off,{}", config.log_level.value);
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        let Setting { value, origin } = &config.log_level;
        Failure::new(Exit::Usage, format!("the log level {value:?} (from {origin}) cannot be used: {error}"))
            .hint("one of error, warn, info, debug, trace")
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal::Paint::err().is_on())
        // It would say so with `eprintln!`, on the same full disk, and that panics in whatever task logs.
        .log_internal_errors(false)
        .init();
    Ok(())
}

/// What keeps the daemon from starting, with its sources.
fn cannot(error: &dyn std::error::Error) -> Failure {
    Failure::new(Exit::Daemon, with_sources(error))
}

async fn serve(config: &Config, client: &mut Waiting) -> Result<(), Failure> {
    if let Err(error) = descriptors::raise() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    let mut signals = Signals::new()?;
    let state = &config.state_dir.value;
    paths::private(&config.runtime_dir.value, "runtime_dir")?;
    paths::private(state, "state_dir")?;
    paths::socket_fits(&config.socket.value)?;
    let lock = lock::take(state).map_err(|error| cannot(&error))?;
    let node_id = lock::node_id(state).map_err(|error| cannot(&error))?;
    if config.cluster.is_on() {
        cluster::serve(config, node_id, &mut signals, client).await?;
    } else {
        alone(config, node_id, &mut signals, client).await?;
    }
    tracing::info!("ended");
    drop(lock);
    Ok(())
}

/// A daemon with a store of its own.
async fn alone(
    config: &Config,
    node_id: NodeId,
    signals: &mut Signals,
    client: &mut Waiting,
) -> Result<(), Failure> {
    let state = &config.state_dir.value;
    moved::stays_alone(state)?;
    Nodes::remove(&config.socket.value);
    let engine = Embedded::open(&state.join("store")).map_err(|error| cannot(&error))?;
    // Bound before the recovery: clients that come now wait for it instead of starting another daemon.
    let unix = bind_unix(&config.socket.value).map_err(|error| cannot(&error))?;
    let tcp = tcp::listen(config, &[]).await?;
    // Nothing is relative from here on, and no directory of the user's is kept from being unmounted.
    drop(std::env::set_current_dir("/"));
    let node = Node::start(node_config(config, node_id, Arc::new(engine), None)?)
        .await
        .map_err(|error| cannot(&error))?;
    is_ready(config, tcp.as_ref(), client);
    let shutdown = CancellationToken::new();
    let ending = async {
        tokio::select! {
            () = node.ending() => {}
            () = signals.next() => tracing::info!("a signal ends the daemon; what it runs goes on"),
        }
        shutdown.cancel();
    };
    let api: Arc<dyn Api> = Arc::clone(&node) as Arc<dyn Api>;
    let mcp = outlive_mcp::router(Arc::clone(&api), shutdown.clone());
    let listeners = Listeners { unix, tcp };
    tokio::join!(outlive_server::serve(api, mcp, listeners, shutdown.clone()), ending);
    node.stop().await;
    Ok(())
}

fn is_ready(config: &Config, tcp: Option<&BoundTcp>, client: &mut Waiting) {
    let address = tcp.map(BoundTcp::address);
    let socket = config.socket.value.display();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %socket, tcp = ?address, "ready");
    client.tell(&Readiness::Ready);
}

fn node_config(
    config: &Config,
    node: NodeId,
    engine: Arc<dyn Engine>,
    cluster: Option<outlive_node::cluster::Settings>,
) -> Result<NodeConfig, Failure> {
    Ok(NodeConfig {
        node,
        state: config.state_dir.value.clone(),
        claims: paths::claims()?,
        earlier_claims: Some(config.runtime_dir.value.join("claims")),
        program: own_program(),
        engine,
        clock: Arc::new(SystemClock::default()),
        cache: config.cache_dir.value.clone(),
        budgets: budgets(config)?,
        causes: config.file.with_file_name("causes.toml"),
        cluster,
    })
}

/// What shims keep can be made small for tests; it is no setting for people.
fn budgets(config: &Config) -> Result<Budgets, Failure> {
    let mut budgets = Budgets {
        idle_timeout: Duration::from_secs(config.idle_timeout_s.value),
        sessions_max: config.max_sessions.value.and_then(|max| usize::try_from(max).ok()),
        memory_bytes_max: config.memory_bytes_max.value,
        ..Budgets::default()
    };
    let said = |name| {
        let Some(text) = std::env::var_os(name) else { return Ok(None) };
        let bytes = text.to_str().and_then(|text| text.parse::<u64>().ok());
        bytes
            .map(Some)
            .ok_or_else(|| Failure::new(Exit::Usage, format!("{name} is {text:?}: no number of bytes")))
    };
    let (memory, spool) = (said("OUTLIVE_SHIM_MEMORY_BYTES")?, said("OUTLIVE_SPOOL_BYTES")?);
    let keep = budgets.keep;
    budgets.keep = Keep::new(memory.unwrap_or(keep.memory_bytes()), spool.unwrap_or(keep.spool_bytes()))
        .map_err(|error| {
            Failure::new(Exit::Usage, error.to_string())
                .hint("unset OUTLIVE_SHIM_MEMORY_BYTES and OUTLIVE_SPOOL_BYTES")
        })?;
    Ok(budgets)
}
