//! The server as a whole: its start, one request's way through it, and its end.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, Request, Response, StatusCode};
use futures_util::FutureExt as _;
use outlive_core::limits::{
    CONNECTIONS_MAX, REQUEST_BODY_MS, REQUEST_HEAD_MS, SERVER_SHUTDOWN_MS, SSE_STALL_MS, WEBSOCKET_BEAT_MS,
    WEBSOCKET_PING_MS, WEBSOCKET_SILENCE_MS, WRITE_STALL_MS,
};
use outlive_node::api::Api;
use outlive_protocol::http::API_VERSION;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::door::{API_VERSION_HEADER, Admitted, Door, Guest};
use crate::farewell::Farewell;
use crate::front::{Front, Open};
use crate::listen::accept::{self, Listener};
use crate::listen::bind::{BoundTcp, BoundUnix};
use crate::native;
use crate::problem;
use crate::proxy::{Away, Copy, Proxy};
use crate::stream::Streams;
use crate::websocket::socket::Patience;

/// Where a server listens.
#[derive(Debug)]
pub struct Listeners {
    /// For programs of this machine: no token.
    pub unix: BoundUnix,
    /// For everybody who has the token.
    pub tcp: Option<BoundTcp>,
}

/// How many clients there may be on one listener, and how long they may take. The defaults stand in `core::limits`;
/// tests narrow them.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections of one listener at a time.
    pub connections: usize,
    /// For a request's head, and between two requests.
    pub head: Duration,
    /// For a request's body.
    pub body: Duration,
    /// For a reader of a stream to take something of a full queue.
    pub stream_stall: Duration,
    /// For any client to take one byte of its answer.
    pub write_stall: Duration,
    /// Between two pings of a WebSocket.
    pub ping: Duration,
    /// For a WebSocket's client to send anything; it owes an answer to each ping.
    pub silence: Duration,
    /// For answers under way at shutdown.
    pub shutdown: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS_MAX,
            head: Duration::from_millis(REQUEST_HEAD_MS),
            body: Duration::from_millis(REQUEST_BODY_MS),
            stream_stall: Duration::from_millis(SSE_STALL_MS),
            write_stall: Duration::from_millis(WRITE_STALL_MS),
            ping: Duration::from_millis(WEBSOCKET_PING_MS),
            silence: Duration::from_millis(WEBSOCKET_SILENCE_MS),
            shutdown: Duration::from_millis(SERVER_SHUTDOWN_MS),
        }
    }
}

/// Serves `api` until `shutdown`. Then, in this order: no connection is accepted any more, each event stream ends with
/// a `problem` event `shutting-down`, answers under way are sent, connections are closed, the Unix socket is removed.
/// Returns when nothing of it is left; takes [`Bounds::shutdown`] at most.
///
/// `beside` holds the routes of other surfaces: they stand behind the same door, and end by themselves at `shutdown`.
pub async fn serve(api: Arc<dyn Api>, beside: Router, listeners: Listeners, shutdown: CancellationToken) {
    serve_with(api, beside, listeners, Bounds::default(), shutdown).await;
}

/// As [`serve`], with other bounds.
pub async fn serve_with(
    api: Arc<dyn Api>,
    beside: Router,
    listeners: Listeners,
    bounds: Bounds,
    shutdown: CancellationToken,
) {
    serve_front(Front::new(api, beside), listeners, bounds, shutdown).await;
}

/// As [`serve`], for a node that may come later, and for one of a cluster.
pub async fn serve_front(front: Front, listeners: Listeners, bounds: Bounds, shutdown: CancellationToken) {
    let tasks = TaskTracker::new();
    let site =
        Site { front, house: Arc::default(), bounds, tasks: tasks.clone(), shutdown: shutdown.clone() };
    let Listeners { unix, tcp } = listeners;
    let tcp = async {
        if let Some(tcp) = tcp {
            accept::run(Listener::Tcp(tcp), site.clone(), shutdown.clone()).await;
        }
    };
    tokio::join!(accept::run(Listener::Unix(unix), site.clone(), shutdown.clone()), tcp);
    tasks.close();
    tasks.wait().await;
    if let Some(neighbours) = site.front.neighbours() {
        neighbours.wire.close().await;
    }
}

/// What every connection shares.
#[derive(Clone)]
pub(crate) struct Site {
    front: Front,
    /// What answers, once the node is there.
    house: Arc<OnceLock<House>>,
    bounds: Bounds,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

/// What answers requests.
struct House {
    router: Router,
    /// Asks other nodes, of a node that has any.
    proxy: Option<Proxy>,
}

impl Site {
    pub(crate) const fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Answers one request: every one gets an answer, and every answer the API's version.
    pub(crate) async fn answer(&self, door: &Door, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let (method, path) = (head.method.clone(), head.uri.path().to_owned());
        let cluster = self.front.neighbours().map(|neighbours| &neighbours.token);
        let mut response = match door.admit(&head, cluster) {
            Err(refused) => problem::response(&path, &refused),
            Ok(Admitted { guest: Guest::Preflight, origin }) => preflight(origin),
            Ok(Admitted { guest, origin }) => {
                let mut request = Request::from_parts(head, body);
                request.extensions_mut().insert(guest);
                let mut response = self.route(&path, guest, request).await;
                allow_origin(&mut response, origin);
                response
            }
        };
        let headers = response.headers_mut();
        headers.insert(API_VERSION_HEADER, HeaderValue::from(API_VERSION));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // The query may hold the token.
        tracing::debug!(%method, path, status = response.status().as_u16(), "answered");
        response
    }

    /// Answers here, or where the answer says.
    async fn route(&self, path: &str, guest: Guest, request: Request<Body>) -> Response<Body> {
        let Some(house) = self.house() else {
            let (who, why) = self.front.waits();
            return native::nodes::waiting(path, guest, who, &why);
        };
        let Some(proxy) = &house.proxy else { return house.answer(path, request).await };
        let (request, copy) = Copy::of(request);
        let response = house.answer(path, request).await;
        match response.extensions().get::<Away>().cloned() {
            Some(away) => proxy.forward(copy, away).await,
            None => response,
        }
    }

    /// What answers, if the node is there.
    fn house(&self) -> Option<&House> {
        let open = self.front.node()?;
        Some(self.house.get_or_init(|| self.build(open)))
    }

    fn build(&self, Open { api, beside }: &Open) -> House {
        let Self { front, bounds, tasks, shutdown, .. } = self;
        let farewell = Farewell::new(shutdown.clone(), Arc::clone(api));
        let streams =
            Streams { tasks: tasks.clone(), farewell: farewell.clone(), stall: bounds.stream_stall };
        let neighbours = front.neighbours();
        // Whoever listens to one of several nodes is to notice in time that it is gone.
        let ping =
            neighbours.map_or(bounds.ping, |_| bounds.ping.min(Duration::from_millis(WEBSOCKET_BEAT_MS)));
        let patience = Patience {
            ping,
            silence: bounds.silence,
            stall: bounds.stream_stall,
            farewell_time: bounds.write_stall,
            farewell,
        };
        let proxy = neighbours.map(|neighbours| Proxy {
            wire: neighbours.wire.clone(),
            streams: streams.clone(),
            patience: patience.clone(),
            api: Arc::clone(api),
        });
        let app = native::App { api: Arc::clone(api), streams, patience, body_deadline: bounds.body };
        House { router: native::router(app).merge(beside.clone()), proxy }
    }
}

impl House {
    async fn answer(&self, path: &str, request: Request<Body>) -> Response<Body> {
        match AssertUnwindSafe(self.router.clone().oneshot(request)).catch_unwind().await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_panic) => {
                problem::response(path, &problem::bug("The daemon's code for this request panicked."))
            }
        }
    }
}

/// Tells the browser that a page of this foreign origin may read the answer.
fn allow_origin(response: &mut Response<Body>, origin: Option<HeaderValue>) {
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("outlive-api, outlive-run, x-request-id"),
        );
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
}

/// Tells a browser what a page of an allowed origin may send; those beginning with `x-stainless` are from OpenAI's client.
fn preflight(origin: Option<HeaderValue>) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, PUT, DELETE"));
    headers.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static(
            "authorization, content-type, last-event-id, idempotency-key, outlive-api, mcp-protocol-version, \
             mcp-session-id, mcp-method, mcp-name, x-stainless-arch, x-stainless-lang, x-stainless-os, \
             x-stainless-package-version, x-stainless-retry-count, x-stainless-runtime, \
             x-stainless-runtime-version, x-stainless-timeout",
        ),
    );
    allow_origin(&mut response, origin);
    response
}
