//! The accept loop of one listener, and one connection.
//!
//! Owner of each connection's task: the [`JoinSet`] here, which is joined before [`run`] returns. What ends a
//! connection: the client, a deadline, or the shutdown, which lets answers under way end first. What a panic does: that
//! one connection ends, and the log says so.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use futures_util::FutureExt as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use outlive_core::limits::{ACCEPT_BACKOFF_MS, REQUEST_HEAD_BYTES_MAX};
use outlive_protocol::http::Problem;
use rustix::io::Errno;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use super::bind::{BoundTcp, BoundUnix};
use super::stall::Stall;
use crate::door::Door;
use crate::problem;
use crate::serve::{Bounds, Site};
use crate::websocket::handshake::Sequel;

type Socket = Either<UnixStream, TcpStream>;

/// One of the two kinds of listeners.
pub(crate) enum Listener {
    Unix(BoundUnix),
    Tcp(BoundTcp),
}

impl Listener {
    /// Cancel-safe, as tokio's `accept`.
    async fn accept(&self) -> io::Result<(Socket, Door)> {
        match self {
            Self::Unix(bound) => {
                let (socket, _) = bound.listener.accept().await?;
                let peer = socket.peer_cred().ok().map(|credentials| credentials.uid());
                Ok((Either::Left(socket), Door::Unix { peer }))
            }
            Self::Tcp(bound) => {
                let (socket, _) = bound.listener.accept().await?;
                // Else a small answer waits for the client's delayed acknowledgement, 40 ms.
                socket.set_nodelay(true)?;
                let local = socket.local_addr()?.ip().to_canonical();
                Ok((Either::Right(socket), Door::Tcp { local, policy: Arc::clone(&bound.policy) }))
            }
        }
    }
}

/// Accepts until `shutdown`, then joins every connection.
pub(crate) async fn run(listener: Listener, site: Site, shutdown: CancellationToken) {
    let mut connections = JoinSet::new();
    let mut reserve = Reserve::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = connections.join_next() => {
                log_panic(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) if connections.len() >= site.bounds().connections => {
                refuse(&socket, &problem::too_many_connections(site.bounds().connections));
            }
            Ok((socket, door)) => {
                reserve.refill();
                connections.spawn(converse(socket, door, site.clone(), shutdown.clone()));
            }
            Err(error) if is_exhausted(&error) && reserve.spend() => {
                // The freed descriptor takes one waiting client, who is told, instead of spinning on the error.
                // Nobody may be waiting: accept(2) wants a descriptor before it looks.
                if let Some(Ok((socket, _))) = listener.accept().now_or_never() {
                    refuse(&socket, &problem::out_of_descriptors());
                }
                reserve.refill();
            }
            Err(error) => {
                tracing::debug!(%error, "accept failed");
                // Nothing but time helps here; the shutdown ends it.
                let _ = timeout(Duration::from_millis(ACCEPT_BACKOFF_MS), shutdown.cancelled()).await;
                reserve.refill();
            }
        }
    }
    let join_all = async {
        while let Some(ended) = connections.join_next().await {
            log_panic(ended);
        }
    };
    if timeout(site.bounds().shutdown, join_all).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "connections were cut: their clients did not read in time"
        );
        connections.shutdown().await;
    }
}

/// A descriptor held back for the moment when there are none left.
struct Reserve {
    file: Option<File>,
    is_exhausted: bool,
}

impl Reserve {
    fn new() -> Self {
        Self { file: File::open("/dev/null").ok(), is_exhausted: false }
    }

    /// Frees the descriptor; false when it is not there.
    fn spend(&mut self) -> bool {
        if !self.is_exhausted {
            self.is_exhausted = true;
            tracing::error!(
                "out of file descriptors: new clients are refused until some are freed; raise `ulimit -n`"
            );
        }
        self.file.take().is_some()
    }

    fn refill(&mut self) {
        if self.file.is_none() {
            self.file = File::open("/dev/null").ok();
        } else if self.is_exhausted {
            self.is_exhausted = false;
            tracing::info!("file descriptors are free again");
        }
    }
}

fn is_exhausted(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

/// Tells a client in one write that never waits, and hangs up.
fn refuse(socket: &Socket, problem: &Problem) {
    let body = problem::json(problem);
    let mut answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: {}\r\ncontent-length: {}\r\nretry-after: 1\r\nconnection: close\r\n\r\n",
        problem::MEDIA_TYPE,
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    let told = match socket {
        Either::Left(socket) => socket.try_write(&answer),
        Either::Right(socket) => socket.try_write(&answer),
    };
    tracing::warn!(code = problem.code, told = told.is_ok(), "a client was refused");
}

async fn converse(socket: Socket, door: Door, site: Site, shutdown: CancellationToken) {
    let Bounds { head, write_stall, .. } = site.bounds();
    let io = TokioIo::new(Stall::new(socket, write_stall));
    let door = Arc::new(door);
    let sequel = Sequel::default();
    let left = sequel.clone();
    let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
        let (site, door) = (site.clone(), Arc::clone(&door));
        request.extensions_mut().insert(left.clone());
        async move { Ok::<Response<Body>, Infallible>(site.answer(&door, request.map(Body::new)).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .max_buf_size(REQUEST_HEAD_BYTES_MAX)
        .serve_connection(io, service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // A WebSocket ends by itself when the server does.
    if let Some(conversation) = sequel.take() {
        conversation.await;
    }
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    match ended {
        Err(error) if error.is_panic() => tracing::error!(%error, "a connection's task panicked (a bug)"),
        Ok(()) | Err(_) => {}
    }
}
