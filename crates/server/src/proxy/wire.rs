//! Connections to other nodes: kept for the next request, opened in time or not at all, and never waited on for ever.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;

use axum::http::header::{
    AUTHORIZATION, CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::response::Parts;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioIo, TokioTimer};
use outlive_core::id::NodeId;
use outlive_core::limits::{
    OWNER_ANSWER_MS, OWNER_CONNECT_MS, OWNER_IDLE_MAX, OWNER_IDLE_MS, OWNER_REFUSAL_BYTES_MAX,
    OWNER_SILENCE_MS, REQUEST_HEAD_BYTES_MAX,
};
use outlive_node::api::Api;
use outlive_protocol::http::Problem;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::util::ServiceFn;

use super::HOP_HEADER;
use super::copy::Copy;
use super::owner::Owner;
use super::refusal::Trouble;
use crate::door::token::TokenError;

type Connecting = Pin<Box<dyn Future<Output = io::Result<TokioIo<TcpStream>>> + Send>>;
type Connect = ServiceFn<fn(Uri) -> Connecting>;

/// Longest wait between two times that a silent owner is asked whether it is there: nobody is asked all the time because
/// one request takes minutes.
const ASK_AGAIN_MAX: Duration = Duration::from_secs(5);

/// The way to the other nodes.
#[derive(Clone)]
pub(crate) struct Wire {
    client: Client<Connect, Full<Bytes>>,
    connections: Connections,
    /// The cluster's token, as a header says it.
    authorization: HeaderValue,
    /// Who we are.
    hop: HeaderValue,
}

/// The tasks of all connections.
#[derive(Clone)]
struct Connections {
    tasks: TaskTracker,
    end: CancellationToken,
}

impl<F> hyper::rt::Executor<F> for Connections
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, connection: F) {
        let end = self.end.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                _ = connection => {}
                () = end.cancelled() => {}
            }
        });
    }
}

/// How an owner answers who asks it for a WebSocket.
pub(super) enum Opened {
    /// With a WebSocket.
    Socket(Upgraded),
    /// With something else.
    Refused(Response<Incoming>),
}

impl Wire {
    /// The way to the other nodes for this one, with the cluster's token.
    ///
    /// # Errors
    /// The token cannot stand in a header.
    pub(crate) fn new(node: NodeId, token: &str) -> Result<Self, TokenError> {
        let mut authorization =
            HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| TokenError::NoHeader)?;
        authorization.set_sensitive(true);
        let hop = HeaderValue::from_str(&node.to_string()).expect("an id is ASCII");
        let connections = Connections { tasks: TaskTracker::new(), end: CancellationToken::new() };
        let client = Client::builder(connections.clone())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_millis(OWNER_IDLE_MS))
            .pool_max_idle_per_host(OWNER_IDLE_MAX)
            .http1_max_buf_size(REQUEST_HEAD_BYTES_MAX)
            .build(tower::service_fn(connect as fn(Uri) -> Connecting));
        Ok(Self { client, connections, authorization, hop })
    }

    /// Ends every connection.
    pub(crate) async fn close(&self) {
        self.connections.end.cancel();
        self.connections.tasks.close();
        self.connections.tasks.wait().await;
    }

    /// Sends a request, in our name. The answer may take as long as it takes: see [`patient`].
    pub(super) async fn send(
        &self,
        owner: &Owner,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Trouble> {
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, self.authorization.clone());
        headers.insert(HOP_HEADER, self.hop.clone());
        let host = HeaderValue::from_str(owner.authority.as_str()).expect("an authority is ASCII");
        headers.insert(HOST, host);
        self.client.request(request).await.map_err(|error| told(&error))
    }

    /// Asks for a WebSocket in the place of a client.
    pub(super) async fn open_socket(&self, owner: &Owner, copy: &Copy) -> Result<Opened, Trouble> {
        let key = generate_key();
        let mut request = Request::new(Full::default());
        *request.uri_mut() = owner.uri(copy.path_and_query());
        *request.headers_mut() = copy.headers();
        let headers = request.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_str(&key).expect("base64"));
        let answer = self.send(owner, request).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Opened::Refused(answer));
        }
        let accepted = answer.headers().get(SEC_WEBSOCKET_ACCEPT);
        if accepted.is_none_or(|accepted| accepted.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes())
        {
            let why = "it answered to another WebSocket than it was asked for";
            return Err(Trouble::Garbled(why.to_owned()));
        }
        hyper::upgrade::on(answer).await.map(Opened::Socket).map_err(|_| Trouble::Lost)
    }

    /// Whether the owner is there: anything that it answers will do.
    async fn is_there(&self, owner: &Owner) -> bool {
        let mut request = Request::new(Full::default());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = owner.uri(PathAndQuery::from_static("/v1/live"));
        let patience = Duration::from_millis(OWNER_SILENCE_MS);
        timeout(patience, self.send(owner, request)).await.is_ok_and(|answer| answer.is_ok())
    }
}

/// Waits for something of the owner for as long as the owner is there. A node may be at work for minutes before it
/// answers; one that is stopped keeps its connections and says nothing.
pub(super) async fn patient<T>(
    wire: &Wire,
    api: &dyn Api,
    owner: &Owner,
    awaited: impl Future<Output = T>,
) -> Result<T, Trouble> {
    let mut awaited = pin!(awaited);
    let mut lost = pin!(api.until_lost(owner.node));
    let mut patience = Duration::from_millis(OWNER_ANSWER_MS);
    loop {
        tokio::select! {
            biased;
            waited = timeout(patience, awaited.as_mut()) => if let Ok(done) = waited {
                return Ok(done);
            },
            () = lost.as_mut() => return Err(Trouble::Lost),
        }
        tokio::select! {
            biased;
            done = awaited.as_mut() => return Ok(done),
            () = lost.as_mut() => return Err(Trouble::Lost),
            is_there = wire.is_there(owner) => if !is_there {
                return Err(Trouble::Silent);
            },
        }
        patience = (patience * 2).min(ASK_AGAIN_MAX);
    }
}

/// The owner's refusal, read.
pub(super) async fn refusal(head: &Parts, body: Incoming, owner: &Owner) -> Problem {
    let garbled = || {
        let why = format!("it refused with {} and no reason", head.status);
        Trouble::Garbled(why).of_stream(owner)
    };
    let read = Limited::new(body, OWNER_REFUSAL_BYTES_MAX).collect();
    match timeout(Duration::from_millis(OWNER_SILENCE_MS), read).await {
        Ok(Ok(body)) => serde_json::from_slice(&body.to_bytes()).unwrap_or_else(|_| garbled()),
        Ok(Err(_)) => garbled(),
        Err(_) => Trouble::Silent.of_stream(owner),
    }
}

fn connect(uri: Uri) -> Connecting {
    Box::pin(async move {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(80);
        let connecting = TcpStream::connect((host, port));
        let socket = timeout(Duration::from_millis(OWNER_CONNECT_MS), connecting).await.map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {OWNER_CONNECT_MS} ms"))
        })??;
        // Else a small request waits for the delayed acknowledgement of the one before, 40 ms.
        socket.set_nodelay(true)?;
        Ok(TokioIo::new(socket))
    })
}

/// Why there is no answer.
fn told(error: &legacy::Error) -> Trouble {
    let source = std::error::Error::source(error);
    if error.is_connect() {
        return Trouble::Unreachable(source.map_or_else(|| error.to_string(), ToString::to_string));
    }
    match source.and_then(|source| source.downcast_ref::<hyper::Error>()) {
        Some(garbage) if garbage.is_parse() => {
            Trouble::Garbled(format!("what answers there does not speak HTTP ({garbage})"))
        }
        Some(_) | None => Trouble::Lost,
    }
}
