//! The daemon's side of the socket: who may speak, and what it says.
//!
//! Each connection is a task of its own that reads until it has proved itself with a Hello and hands what follows to
//! the driver. The driver writes. The newest proved connection is the daemon; the older one is closed.
//!
//! ```text
//! accept ─► greeting (HELLO_TIMEOUT_MS, same user or root) ─Hello─► Proved{writer} ─► Message … ─► Closed
//! ```

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdListener;
use std::path::PathBuf;
use std::time::Duration;

use outlive_core::limits::HELLO_TIMEOUT_MS;
use outlive_protocol::frame::Decoder;
use outlive_protocol::shim::ToShim;
use outlive_protocol::shim_codec::{ShimCodecError, decode_to_shim};
use tokio::io::AsyncReadExt;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// How many connections may be open. One is the daemon's; the others prove themselves or are closed in two seconds.
const CONNECTIONS_MAX: usize = 8;
/// How many messages of the daemon wait for the driver; then the daemon waits.
const MESSAGES_MAX: usize = 64;
/// How much is read at once, in bytes.
const READ_BYTES: usize = 16 << 10;

/// Names a connection: they are counted.
pub(crate) type ConnectionId = u64;

/// What the driver hears.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// Somebody said Hello; whether to the right shim is for the driver to check. Dropping `open` closes it.
    Greeted { id: ConnectionId, hello: ToShim, writer: OwnedWriteHalf, open: oneshot::Sender<()> },
    /// A message after the Hello.
    Message { id: ConnectionId, message: ToShim },
    /// It is gone.
    Closed { id: ConnectionId },
}

/// The accepting task and its connections; dropping it closes them.
#[derive(Debug)]
pub(crate) struct Link {
    events: mpsc::Receiver<LinkEvent>,
    path: Option<PathBuf>,
    _accepting: JoinSet<()>,
}

impl Link {
    /// Listens on a socket that was bound by the daemon.
    ///
    /// # Errors
    /// When it is no listening Unix socket.
    pub(crate) fn listen(listener: OwnedFd) -> io::Result<Self> {
        let listener = StdListener::from(listener);
        let path = listener.local_addr()?.as_pathname().map(PathBuf::from);
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let (send, events) = mpsc::channel(MESSAGES_MAX);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, send));
        Ok(Self { events, path, _accepting: accepting })
    }

    /// The next event. Cancel-safe.
    pub(crate) async fn next(&mut self) -> LinkEvent {
        self.events
            .recv()
            .await
            .expect("the accepting task holds a sender as long as it lives, and that is as long as we do")
    }

    /// Removes the socket's file: nobody shall find it any more.
    pub(crate) fn remove_socket(&self) {
        if let Some(path) = &self.path {
            let _already_gone = std::fs::remove_file(path);
        }
    }
}

async fn accept(listener: UnixListener, events: mpsc::Sender<LinkEvent>) {
    let mut connections = JoinSet::new();
    let mut id: ConnectionId = 0;
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            // Waits for one to end; the kernel's backlog keeps the caller. Each ends within HELLO_TIMEOUT_MS, or is
            // closed by the driver, or is the daemon's.
            connections.join_next().await;
        }
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors: a connection that ends gives one back.
                tracing::warn!(%error, "accepting a connection failed");
                if connections.join_next().await.is_none() {
                    tokio::task::yield_now().await;
                }
                continue;
            }
        };
        if !is_ours(&stream) {
            tracing::warn!("a connection of another user was refused");
            continue;
        }
        id += 1;
        connections.spawn(serve(id, stream, events.clone()));
    }
}

/// The same user, or root.
fn is_ours(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

async fn serve(id: ConnectionId, stream: UnixStream, events: mpsc::Sender<LinkEvent>) {
    let (reader, writer) = stream.into_split();
    let mut messages = Messages { reader, decoder: Decoder::default(), buffer: vec![0; READ_BYTES] };
    let greeting = tokio::time::timeout(Duration::from_millis(HELLO_TIMEOUT_MS), messages.next()).await;
    let hello = match greeting {
        Ok(Ok(Some(hello @ ToShim::Hello { .. }))) => hello,
        Ok(Ok(Some(_))) => return tracing::warn!("a connection did not begin with a Hello; closed"),
        Ok(Ok(None)) => return,
        Ok(Err(error)) => return tracing::warn!(%error, "a connection was closed"),
        Err(_) => return tracing::warn!("a connection said no Hello in time; closed"),
    };
    let (open, closed) = oneshot::channel();
    if events.send(LinkEvent::Greeted { id, hello, writer, open }).await.is_err() {
        return;
    }
    let reading = async {
        loop {
            match messages.next().await {
                Ok(Some(message)) => {
                    if events.send(LinkEvent::Message { id, message }).await.is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => return tracing::warn!(%error, "the daemon's connection was closed"),
            }
        }
    };
    tokio::select! {
        biased;
        _ = closed => {}
        () = reading => {}
    }
    let _shim_ends = events.send(LinkEvent::Closed { id }).await;
}

/// Why a connection is closed.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("reading failed: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Codec(#[from] ShimCodecError),
    #[error("it ended within a message")]
    CutOff,
}

struct Messages {
    reader: OwnedReadHalf,
    decoder: Decoder,
    buffer: Vec<u8>,
}

impl Messages {
    /// The next message that is known here; `None` at the end.
    async fn next(&mut self) -> Result<Option<ToShim>, ReadError> {
        loop {
            while let Some(frame) = self.decoder.next_frame().map_err(ShimCodecError::from)? {
                match decode_to_shim(&frame)? {
                    Some(message) => return Ok(Some(message)),
                    // From a newer daemon: skipped.
                    None => tracing::debug!(kind = frame.kind, "a message of an unknown kind"),
                }
            }
            let count = self.reader.read(&mut self.buffer).await?;
            if count == 0 {
                return if self.decoder.is_mid_frame() { Err(ReadError::CutOff) } else { Ok(None) };
            }
            self.decoder.feed(&self.buffer[..count]);
        }
    }
}
