//! The two halves of a WebSocket, and its end.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use outlive_core::limits::WEBSOCKET_CLOSE_MS;
use outlive_protocol::http::{Problem, StreamEvent};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tokio_tungstenite::WebSocketStream;
pub(crate) use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_util::sync::CancellationToken;

use super::close_code;
use crate::problem;

/// How long a conversation waits for its client.
#[derive(Clone)]
pub(crate) struct Patience {
    /// Between two pings.
    pub ping: Duration,
    /// For any byte from it; it owes an answer to each ping.
    pub silence: Duration,
    /// For it to take any byte of what it is sent.
    pub stall: Duration,
    /// For it to take the last word.
    pub farewell: Duration,
    /// Ends every conversation.
    pub shutdown: CancellationToken,
}

impl Patience {
    /// When to ping; the first time is now.
    pub(crate) fn pings(&self) -> Interval {
        let mut pings = interval(self.ping);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pings
    }
}

/// Why a conversation ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The client has left, or cannot be reached.
    Left,
    /// All is said, with this code and reason.
    Said(u16, &'static str),
    /// This has still to be said.
    Cut(Problem),
}

type Stream = WebSocketStream<Counted<TokioIo<Upgraded>>>;

/// A WebSocket.
pub(crate) struct Socket {
    pub ear: Ear,
    pub mouth: Mouth,
    patience: Patience,
}

/// What comes from the client.
pub(crate) struct Ear {
    stream: SplitStream<Stream>,
    traffic: Arc<Traffic>,
    silence: Duration,
    /// Frames cannot be told apart any more.
    garbled: bool,
}

/// What goes to the client.
pub(crate) struct Mouth {
    sink: SplitSink<Stream, Message>,
    traffic: Arc<Traffic>,
    stall: Duration,
}

impl Socket {
    pub(super) async fn new(upgraded: Upgraded, config: WebSocketConfig, patience: Patience) -> Self {
        let traffic = Arc::<Traffic>::default();
        let counted = Counted { io: TokioIo::new(upgraded), traffic: Arc::clone(&traffic) };
        let (sink, stream) =
            WebSocketStream::from_raw_socket(counted, Role::Server, Some(config)).await.split();
        Self {
            ear: Ear { stream, traffic: Arc::clone(&traffic), silence: patience.silence, garbled: false },
            mouth: Mouth { sink, traffic, stall: patience.stall },
            patience,
        }
    }

    /// Waits for nobody for ever: says the last word, and hears the client out until it hangs up.
    pub(crate) async fn end(self, ending: Ending) {
        let Self { ear, mouth, patience } = self;
        if let Ending::Cut(problem) = &ending {
            tracing::debug!(%problem, "a WebSocket was cut");
        }
        let leaving = timeout(patience.farewell, say_goodbye(mouth.sink, ear, ending));
        let close = Duration::from_millis(WEBSOCKET_CLOSE_MS);
        tokio::select! {
            _ = leaving => {}
            () = async {
                patience.shutdown.cancelled().await;
                // A client that does not take its last word does not hold the shutdown.
                let _ = timeout(close, std::future::pending::<()>()).await;
            } => {}
        }
    }
}

async fn say_goodbye(mut sink: SplitSink<Stream, Message>, ear: Ear, ending: Ending) -> Result<(), Error> {
    let close = |code: u16, reason: &str| {
        let mut reason = reason.to_owned();
        reason.truncate(120);
        Message::Close(Some(CloseFrame { code: CloseCode::from(code), reason: reason.into() }))
    };
    match ending {
        // Its close frame is answered by reading on.
        Ending::Left => {}
        Ending::Said(code, reason) => sink.send(close(code, reason)).await?,
        Ending::Cut(problem) => {
            let last = close(close_code(&problem), &problem.code);
            sink.feed(text(&StreamEvent::Problem { problem }, None)).await?;
            sink.send(last).await?;
        }
    }
    let mut stream = sink.reunite(ear.stream).expect("the halves of one socket");
    // Hanging up while something of the client's is unread would reset the connection, and with it what was sent.
    let hear_out = async {
        let mut whole = !ear.garbled;
        while whole {
            match stream.next().await {
                Some(Ok(_)) => {}
                Some(Err(_)) => whole = false,
                None => return,
            }
        }
        // The client cannot answer in frames that we understand; it can hang up.
        let _ = stream.get_mut().shutdown().await;
        let mut scrap = [0; 4_096];
        while stream.get_mut().read(&mut scrap).await.is_ok_and(|read| read > 0) {}
    };
    let _ = timeout(Duration::from_millis(WEBSOCKET_CLOSE_MS), hear_out).await;
    Ok(())
}

/// An event as a text frame: its JSON, with the cursor to come back with as `id`.
pub(crate) fn text(event: &StreamEvent, cursor: Option<&str>) -> Message {
    #[derive(serde::Serialize)]
    struct Framed<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
        #[serde(flatten)]
        event: &'a StreamEvent,
    }
    let json = serde_json::to_string(&Framed { id: cursor, event });
    Message::text(json.expect("events have string keys, and memory does not fail"))
}

impl Ear {
    /// The next message, text or binary. Cancel-safe.
    ///
    /// # Errors
    /// The end of the conversation.
    pub(crate) async fn hear(&mut self) -> Result<Message, Ending> {
        loop {
            match self.frame().await? {
                message @ (Message::Binary(_) | Message::Text(_)) => return Ok(message),
                Message::Close(_) => return Err(Ending::Left),
                // Pings are answered by the library.
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    async fn frame(&mut self) -> Result<Message, Ending> {
        let mut next = pin!(self.stream.next());
        let next = loop {
            let before = self.traffic.read.load(Ordering::Relaxed);
            match timeout(self.silence, next.as_mut()).await {
                Ok(next) => break next,
                // A large message over a slow line.
                Err(_) if self.traffic.read.load(Ordering::Relaxed) > before => {}
                Err(_) => return Err(Ending::Cut(problem::silent_peer(self.silence.as_millis()))),
            }
        };
        let refused = match next {
            None => return Err(Ending::Left),
            Some(Ok(message)) => return Ok(message),
            Some(Err(Error::Capacity(CapacityError::MessageTooLong { size, max_size }))) => {
                problem::message_too_large(size, max_size)
            }
            Some(Err(error @ (Error::Capacity(_) | Error::Protocol(_) | Error::Utf8(_)))) => {
                problem::bad_frame(&error)
            }
            Some(Err(_gone)) => return Err(Ending::Left),
        };
        self.garbled = true;
        Err(Ending::Cut(refused))
    }

    /// Hears what is said and ignores it, until the end of the conversation.
    pub(crate) async fn ignore(&mut self) -> Ending {
        loop {
            if let Err(ending) = self.hear().await {
                return ending;
            }
        }
    }
}

impl Mouth {
    /// Puts a message behind those that are on their way; waits while they are too many.
    ///
    /// # Errors
    /// The end of the conversation.
    pub(crate) async fn put(&mut self, message: Message) -> Result<(), Ending> {
        watched(&self.traffic, self.stall, self.sink.feed(message)).await
    }

    /// Waits until all is on its way.
    ///
    /// # Errors
    /// The end of the conversation.
    pub(crate) async fn flush(&mut self) -> Result<(), Ending> {
        watched(&self.traffic, self.stall, self.sink.flush()).await
    }

    /// Says one message.
    ///
    /// # Errors
    /// The end of the conversation.
    pub(crate) async fn say(&mut self, message: Message) -> Result<(), Ending> {
        self.put(message).await?;
        self.flush().await
    }
}

/// Lets a write take its time as long as the client takes something.
async fn watched(
    traffic: &Traffic,
    stall: Duration,
    writing: impl Future<Output = Result<(), Error>>,
) -> Result<(), Ending> {
    let mut writing = pin!(writing);
    loop {
        let before = traffic.written.load(Ordering::Relaxed);
        match timeout(stall, writing.as_mut()).await {
            Ok(written) => return written.map_err(|_gone| Ending::Left),
            Err(_) if traffic.written.load(Ordering::Relaxed) > before => {}
            Err(_) => return Err(Ending::Cut(problem::slow_reader(stall.as_millis()))),
        }
    }
}

/// How many bytes have passed.
#[derive(Default)]
struct Traffic {
    read: AtomicU64,
    written: AtomicU64,
}

/// A socket that counts what passes.
struct Counted<S> {
    io: S,
    traffic: Arc<Traffic>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        self.traffic.read.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = &written {
            self.traffic.written.fetch_add(*written as u64, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
