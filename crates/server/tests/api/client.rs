//! A server on real sockets, and clients that talk to it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use outlive_core::id::NodeId;
use outlive_node::api::Api;
use outlive_protocol::http::NodeView;
use outlive_protocol::http::Problem;
use outlive_server::{Bounds, Front, Listeners, TcpPolicy, Token, bind_tcp, bind_unix, serve_front};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::fake::{Fake, RUN, SESSION};

pub const TOKEN: &str = "00112233445566778899aabbccddeeff";
/// By which the nodes of a test know each other.
pub const CLUSTER_TOKEN: &str = "ffeeddccbbaa99887766554433221100";
/// Beyond any wait of a healthy test.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Server {
    pub fake: Arc<Fake>,
    pub socket: PathBuf,
    pub address: SocketAddr,
    pub folder: TempDir,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(Bounds::default()).await
    }

    pub async fn start_with(bounds: Bounds) -> Self {
        let (fake, folder) = new_fake();
        let front = Front::new(Arc::clone(&fake) as Arc<dyn Api>, axum::Router::new());
        Self::start_front(front, fake, folder, bounds).await
    }

    /// One of several nodes.
    pub async fn start_in_cluster(token: &str, bounds: Bounds) -> Self {
        let (fake, folder) = new_fake();
        let front = Front::waiting(fake.node(), "the store is not there yet");
        front.join(NodeId::from_uuid(SESSION), token).unwrap();
        front.open(Arc::clone(&fake) as Arc<dyn Api>, axum::Router::new());
        Self::start_front(front, fake, folder, bounds).await
    }

    /// A server whose node is not there yet.
    pub async fn start_waiting(why: &str) -> (Self, Front) {
        let (fake, folder) = new_fake();
        let front = Front::waiting(NodeView { ready: true, ..fake.node() }, why);
        (Self::start_front(front.clone(), fake, folder, Bounds::default()).await, front)
    }

    async fn start_front(front: Front, fake: Arc<Fake>, folder: TempDir, bounds: Bounds) -> Self {
        let socket = folder.path().join("run/daemon.sock");
        let policy = TcpPolicy {
            token: Token::new(TOKEN).unwrap(),
            hosts: vec!["notebooks.example.org".to_owned()],
            origins: vec!["https://trusted.example.org".to_owned()],
        };
        let unix = bind_unix(&socket).unwrap();
        let tcp = bind_tcp("127.0.0.1:0".parse().unwrap(), policy).await.unwrap();
        let address = tcp.address();
        let shutdown = CancellationToken::new();
        let listeners = Listeners { unix, tcp: Some(tcp) };
        let serving = TaskTracker::new().spawn(serve_front(front, listeners, bounds, shutdown.clone()));
        Self { fake, socket, address, folder, shutdown, serving }
    }

    pub async fn unix(&self) -> Client {
        Client::over(UnixStream::connect(&self.socket).await.unwrap()).await
    }

    pub async fn tcp(&self) -> Client {
        Client::over(TcpStream::connect(self.address).await.unwrap()).await
    }

    pub fn begin_shutdown(&self) {
        self.shutdown.cancel();
    }

    pub async fn ended(self) -> TempDir {
        in_time(self.serving).await.unwrap();
        self.folder
    }

    /// As a process that is killed: nothing is said to anybody.
    pub async fn kill(self) {
        self.serving.abort();
        assert!(in_time(self.serving).await.unwrap_err().is_cancelled());
    }

    pub async fn stop(self) {
        self.begin_shutdown();
        self.ended().await;
    }
}

fn new_fake() -> (Arc<Fake>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let blobs = folder.path().join("blobs");
    std::fs::create_dir(&blobs).unwrap();
    (Arc::new(Fake::new(blobs)), folder)
}

pub async fn in_time<T>(waited: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, waited).await.expect("within a generous time")
}

/// One connection.
pub struct Client {
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    _connection: JoinSet<()>,
}

/// A whole answer.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }

    /// The refusal; checks that it is one in every respect.
    pub fn problem(&self) -> Problem {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{:?}", self.body);
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.status, self.status.as_u16());
        assert!(!problem.title.is_empty() && !problem.detail.is_empty(), "{problem:?}");
        assert!(problem.hint.is_some(), "says what to do: {problem:?}");
        assert_eq!(problem.kind, format!("about:outlive#{}", problem.code));
        problem
    }
}

impl Client {
    pub async fn over(socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.unwrap();
        let mut task = JoinSet::new();
        task.spawn(async move {
            // Tests look at answers, and some of them break connections on purpose.
            let _ = connection.await;
        });
        Self { sender, _connection: task }
    }

    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        in_time(self.sender.send_request(request)).await.unwrap()
    }

    pub async fn call(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let response = self.send(request(method, path, headers, body)).await;
        let (head, body) = response.into_parts();
        let body = in_time(body.collect()).await.unwrap().to_bytes();
        assert_eq!(head.headers["outlive-api"], "1", "each answer says the API's version");
        Answer { status: head.status, headers: head.headers, body }
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.call("GET", path, &[("host", "localhost")], b"").await
    }

    pub async fn post(&mut self, path: &str, body: &Value) -> Answer {
        let headers = [("host", "localhost"), ("content-type", "application/json")];
        self.call("POST", path, &headers, &serde_json::to_vec(body).unwrap()).await
    }

    pub async fn events(&mut self, path: &str, headers: &[(&str, &str)]) -> EventReader {
        let all: Vec<_> = [("host", "localhost")].iter().chain(headers).copied().collect();
        let response = self.send(request("GET", path, &all, b"")).await;
        EventReader::of(response)
    }
}

pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(Bytes::copy_from_slice(body))).unwrap()
}

/// Replaces `{id}`, `{run}`, `{name}` and `{model}` by the fake's.
pub fn fill(template: &str) -> String {
    let filled = template.replace("{id}", &SESSION.to_string()).replace("{run}", &RUN.to_string());
    filled.replace("{name}", "llm").replace("{model}", "llm")
}

#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    pub id: Option<String>,
    pub name: String,
    pub data: Value,
}

/// Reads a stream as an EventSource does.
pub struct EventReader {
    body: Incoming,
    /// What has come and is not taken yet, from `at` on.
    rest: Vec<u8>,
    at: usize,
    pub comments: u32,
}

impl EventReader {
    /// Reads an answer that is a stream.
    pub fn of(response: Response<Incoming>) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body(), rest: Vec::new(), at: 0, comments: 0 }
    }

    /// The data of the next event, of a stream whose events have nothing else; `None` at the end.
    pub async fn data(&mut self) -> Option<String> {
        loop {
            while let Some(block) = self.block() {
                let block = std::str::from_utf8(&self.rest[block]).unwrap();
                match block.strip_prefix("data: ") {
                    Some(data) => return Some(data.trim_end().to_owned()),
                    None => assert_eq!(block, ":\n\n", "nothing but data and comments"),
                }
                self.comments += 1;
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// The next event; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some(block) = self.block() {
                let block = std::str::from_utf8(&self.rest[block]).unwrap();
                match parse(block) {
                    Some(event) => return Some(event),
                    None => self.comments += u32::from(block.starts_with(':')),
                }
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Counts the events up to the end, without looking into them.
    pub async fn count(&mut self) -> u64 {
        let mut count = 0;
        loop {
            while let Some(block) = self.block() {
                let is_event =
                    ![&b":"[..], b"retry:"].iter().any(|other| self.rest[block.clone()].starts_with(other));
                count += u64::from(is_event);
            }
            if !self.more().await {
                return count;
            }
        }
    }

    fn block(&mut self) -> Option<std::ops::Range<usize>> {
        let mut from = self.at;
        loop {
            let line_end = from + self.rest[from..].iter().position(|byte| *byte == b'\n')?;
            if self.rest.get(line_end + 1)? == &b'\n' {
                let block = self.at..line_end + 2;
                self.at = block.end;
                return Some(block);
            }
            from = line_end + 1;
        }
    }

    /// Waits for more; false at the end.
    async fn more(&mut self) -> bool {
        self.rest.drain(..self.at);
        self.at = 0;
        let Some(frame) = in_time(self.body.frame()).await else {
            assert!(self.rest.is_empty(), "a stream ends between events");
            return false;
        };
        self.rest.extend_from_slice(&frame.unwrap().into_data().unwrap());
        true
    }

    pub async fn rest(&mut self) -> Vec<Event> {
        let mut all = Vec::new();
        while let Some(event) = self.next().await {
            all.push(event);
        }
        all
    }
}

fn parse(block: &str) -> Option<Event> {
    let (mut id, mut name, mut data) = (None, None, None);
    for line in block.trim_end().lines() {
        match line.split_once(':').unwrap() {
            ("", _) => {}
            ("retry", value) => assert_eq!(value.trim_start(), "250", "as long as a comment takes"),
            ("id", value) => id = Some(value.trim_start().to_owned()),
            ("event", value) => name = Some(value.trim_start().to_owned()),
            ("data", value) => {
                assert_eq!(data.replace(serde_json::from_str(value).unwrap()), None, "one line of data")
            }
            (field, _) => panic!("an unknown field {field}"),
        }
    }
    Some(Event { id, name: name?, data: data.unwrap() })
}
