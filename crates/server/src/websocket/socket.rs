//! The two halves of a WebSocket, and its end.

use std::borrow::Cow;
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
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
pub(crate) use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use super::close_code;
use crate::farewell::Farewell;
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
    pub farewell_time: Duration,
    /// Ends every conversation.
    pub farewell: Farewell,
}

impl Patience {
    /// When to ping; the first time is now.
    pub(crate) fn pings(&self) -> Interval {
        let mut pings = interval(self.ping);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pings
    }

    /// The next ping, which also tells the client that somebody is there. Cancel-safe.
    pub(crate) async fn ping(&self, pings: &mut Interval) -> Message {
        loop {
            pings.tick().await;
            if self.farewell.is_there() {
                return Message::Ping(Default::default());
            }
        }
    }
}

/// Why a conversation ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The client has left, or cannot be reached.
    Left,
    /// All is said, with this code and reason.
    Said(u16, Cow<'static, str>),
    /// This has still to be said.
    Cut(Problem),
}

/// Talks and listens until one of them ends, or the server does. A client that is gone, so that nothing can be said to it,
/// is heard out: what it typed before that counts.
pub(crate) async fn converse(
    telling: impl Future<Output = Ending>,
    listening: impl Future<Output = Ending>,
    patience: &Patience,
) -> Ending {
    let mut listening = pin!(listening);
    tokio::select! {
        biased;
        problem = patience.farewell.said() => Ending::Cut(problem),
        ending = telling => {
            if matches!(ending, Ending::Left) {
                tokio::select! {
                    _ = timeout(patience.silence, listening) => {}
                    _ = patience.farewell.said() => {}
                }
            }
            ending
        }
        ending = &mut listening => ending,
    }
}

/// Why nothing is heard any more.
#[derive(Debug)]
pub(crate) enum Unheard {
    /// The other side is gone.
    Gone,
    /// Nothing came for too long.
    Silent,
    /// What came is not taken.
    Refused(Problem),
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
    /// When it counts as silent.
    silent_at: Instant,
    /// How much had been read when that was settled.
    read: u64,
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
    pub(crate) async fn new(
        upgraded: Upgraded,
        role: Role,
        config: WebSocketConfig,
        patience: Patience,
    ) -> Self {
        let traffic = Arc::<Traffic>::default();
        let counted = Counted { io: TokioIo::new(upgraded), traffic: Arc::clone(&traffic) };
        let (sink, stream) = WebSocketStream::from_raw_socket(counted, role, Some(config)).await.split();
        let silence = patience.silence;
        Self {
            ear: Ear {
                stream,
                traffic: Arc::clone(&traffic),
                silence,
                silent_at: Instant::now() + silence,
                read: 0,
                garbled: false,
            },
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
        let leaving = timeout(patience.farewell_time, say_goodbye(mouth.sink, ear, ending));
        let close = Duration::from_millis(WEBSOCKET_CLOSE_MS);
        tokio::select! {
            _ = leaving => {}
            () = async {
                patience.farewell.begun().await;
                // A client that does not take its last word does not hold the shutdown.
                let _ = timeout(close, std::future::pending::<()>()).await;
            } => {}
        }
    }
}

async fn say_goodbye(mut sink: SplitSink<Stream, Message>, ear: Ear, ending: Ending) -> Result<(), Error> {
    let close = |code: u16, reason: &str| {
        // A control frame has 125 bytes, two of them for the code.
        let reason = &reason[..reason.floor_char_boundary(120)];
        Message::Close(Some(CloseFrame { code: CloseCode::from(code), reason: reason.into() }))
    };
    match ending {
        // Its close frame is answered by reading on.
        Ending::Left => {}
        Ending::Said(code, reason) => sink.send(close(code, &reason)).await?,
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
            match self.frame().await {
                Ok(message @ (Message::Binary(_) | Message::Text(_))) => return Ok(message),
                Ok(Message::Close(_)) | Err(Unheard::Gone) => return Err(Ending::Left),
                // Pings are answered by the library.
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Err(Unheard::Silent) => {
                    return Err(Ending::Cut(problem::silent_peer(self.silence.as_millis())));
                }
                Err(Unheard::Refused(problem)) => return Err(Ending::Cut(problem)),
            }
        }
    }

    /// The next message of any kind. Cancel-safe, and being cancelled does not make a silent client less so.
    ///
    /// # Errors
    /// Nothing more is heard.
    pub(crate) async fn frame(&mut self) -> Result<Message, Unheard> {
        let next = loop {
            let next = timeout_at(self.silent_at, self.stream.next()).await;
            let read = self.traffic.read.load(Ordering::Relaxed);
            // A large message over a slow line.
            let is_silent = next.is_err() && read == self.read;
            self.read = read;
            match next {
                _ if is_silent => return Err(Unheard::Silent),
                Ok(next) => {
                    self.silent_at = Instant::now() + self.silence;
                    break next;
                }
                Err(_) => self.silent_at = Instant::now() + self.silence,
            }
        };
        let refused = match next {
            None => return Err(Unheard::Gone),
            Some(Ok(message)) => return Ok(message),
            Some(Err(Error::Capacity(CapacityError::MessageTooLong { size, max_size }))) => {
                problem::message_too_large(size, max_size)
            }
            Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => {
                return Err(Unheard::Gone);
            }
            Some(Err(error @ (Error::Capacity(_) | Error::Protocol(_) | Error::Utf8(_)))) => {
                problem::bad_frame(&error)
            }
            Some(Err(_gone)) => return Err(Unheard::Gone),
        };
        self.garbled = true;
        Err(Unheard::Refused(refused))
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
