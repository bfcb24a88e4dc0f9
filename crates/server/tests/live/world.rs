//! A node with a server in front of it, on real sockets. Its kernels are started and never get ready, so that what is
//! queued stays queued.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outlive_core::id::{BootId, NodeId, SessionId, Src};
use outlive_node::Node;
use outlive_node::api::Api as _;
use outlive_node::budget::Budgets;
use outlive_node::bus::LocalBus;
use outlive_node::clock::SystemClock;
use outlive_node::context::Seams;
use outlive_node::files::LocalFiles;
use outlive_node::seams::{FoundShim, FromLink, Identity, LaunchOrder, Link, Runtimes};
use outlive_protocol::http::{NewSession, Opened, RunView, SubmitRuns};
use outlive_protocol::shim::ToShim;
use outlive_server::{Bounds, Listeners, TcpPolicy, Token, bind_tcp, bind_unix, serve_with};
use outlive_store::Embedded;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

pub const TOKEN: &str = "00112233445566778899aabbccddeeff";
/// Beyond any wait of a healthy test.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub async fn in_time<T>(waited: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, waited).await.expect("within a generous time")
}

/// Starts kernels that never say anything.
#[derive(Default)]
struct Silent(Mutex<Vec<(mpsc::Receiver<ToShim>, mpsc::Sender<FromLink>)>>);

impl Runtimes for Silent {
    fn launch(&self, order: LaunchOrder) -> Link {
        let (to, orders) = mpsc::channel(1_024);
        let (says, from) = mpsc::channel(1);
        self.0.lock().unwrap().push((orders, says));
        Link { process: order.process, to, from }
    }

    fn adopt(&self, found: &FoundShim, _: Src) -> Link {
        panic!("nothing is left of {found:?}");
    }

    fn found(&self) -> Vec<FoundShim> {
        Vec::new()
    }

    fn refuse(&self, found: &FoundShim, reason: &str) {
        panic!("{found:?} is refused: {reason}");
    }
}

pub struct World {
    pub node: Arc<Node>,
    pub socket: PathBuf,
    pub address: SocketAddr,
    pub folder: Arc<TempDir>,
    boot: u128,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

impl World {
    pub async fn start() -> Self {
        Self::start_with(Bounds::default()).await
    }

    pub async fn start_with(bounds: Bounds) -> Self {
        Self::boot(Arc::new(tempfile::tempdir().unwrap()), bounds, 1).await
    }

    async fn boot(folder: Arc<TempDir>, bounds: Bounds, boot: u128) -> Self {
        let place = folder.path();
        let who = Identity {
            node: NodeId::from_uuid(Uuid::from_u128(1)),
            boot: BootId::from_uuid(Uuid::from_u128(100 + boot)),
        };
        let seams = Seams {
            clock: Arc::new(SystemClock::default()),
            engine: Arc::new(Embedded::open(&place.join("store")).unwrap()),
            bus: Arc::new(LocalBus::default()),
            runtimes: Arc::new(Silent::default()),
            files: Arc::new(LocalFiles::new(place.join("claims"))),
            cluster: None,
        };
        let node =
            Node::over(who, seams, Budgets::default(), place.to_owned(), TaskTracker::new()).await.unwrap();
        let socket = place.join("run/daemon.sock");
        let unix = bind_unix(&socket).unwrap();
        let policy = TcpPolicy { token: Token::new(TOKEN).unwrap(), hosts: Vec::new(), origins: Vec::new() };
        let tcp = bind_tcp("127.0.0.1:0".parse().unwrap(), policy).await.unwrap();
        let address = tcp.address();
        let shutdown = CancellationToken::new();
        let api = Arc::clone(&node) as Arc<dyn outlive_node::api::Api>;
        let listeners = Listeners { unix, tcp: Some(tcp) };
        let serving = TaskTracker::new().spawn(serve_with(
            api,
            axum::Router::new(),
            listeners,
            bounds,
            shutdown.clone(),
        ));
        Self { node, socket, address, folder, boot, shutdown, serving }
    }

    /// An untitled notebook.
    pub async fn notebook(&self) -> SessionId {
        let cwd = Some(self.folder.path().display().to_string());
        self.node.new_session(NewSession { cwd, ..NewSession::default() }).await.unwrap().session_id
    }

    /// One run more in the queue.
    pub async fn queue(&self, id: SessionId) -> RunView {
        self.queue_code(id, "print(1)").await
    }

    pub async fn queue_code(&self, id: SessionId, code: &str) -> RunView {
        let code = SubmitRuns::Code { code: code.to_owned() };
        self.node.submit(id, code).await.unwrap().remove(0)
    }

    pub async fn save(&self, id: SessionId, name: &str) -> Opened {
        let path = Some(self.folder.path().join(name).display().to_string());
        let how = outlive_protocol::http::SaveSession { path, ..Default::default() };
        self.node.save(id, how).await.unwrap()
    }

    /// A WebSocket at a path of the API, over the Unix socket.
    pub async fn websocket(&self, path: &str) -> WebSocketStream<UnixStream> {
        websocket(UnixStream::connect(&self.socket).await.unwrap(), path).await
    }

    pub async fn websocket_over_tcp(&self, path: &str) -> WebSocketStream<TcpStream> {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        websocket(tcp, &format!("{path}?token={TOKEN}")).await
    }

    pub async fn stop(self) -> Arc<TempDir> {
        self.shutdown.cancel();
        in_time(self.serving).await.unwrap();
        in_time(self.node.stop()).await;
        self.folder
    }

    /// The next daemon over the same state.
    pub async fn restart(self) -> Self {
        let boot = self.boot + 1;
        let folder = self.stop().await;
        Self::boot(folder, Bounds::default(), boot).await
    }
}

async fn websocket<S: AsyncRead + AsyncWrite + Unpin>(socket: S, path: &str) -> WebSocketStream<S> {
    let request = format!("ws://localhost{path}").into_client_request().unwrap();
    in_time(tokio_tungstenite::client_async(request, socket)).await.unwrap().0
}

pub fn document(id: SessionId) -> String {
    format!("/v1/sessions/{id}/document")
}

pub fn state(id: SessionId, after: &str) -> String {
    format!("/v1/sessions/{id}/attach?outputs=false&after={after}")
}

pub fn all(id: SessionId, after: &str) -> String {
    format!("/v1/sessions/{id}/attach?after={after}")
}
