//! The sockets to one kernel process.
//!
//! One task for each socket does nothing but receive and push into the caller's sink: a kernel's iopub socket drops
//! messages at a thousand, `status: idle` among them, when nobody reads. Sockets live as long as one process: after
//! its death drop [`Channels`], because a SUB socket goes on trying to reach the port for ever and would attach to
//! a stranger.
//!
//! ```text
//! shell, control, stdin   Sender ──► DEALER ──► kernel        (one ZeroMQ identity for all three)
//! each socket             kernel ──► reader task ──► sink(Incoming)
//! ```

use std::io;
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt as _};
use outlive_core::limits::PROBE_PERIOD_MS;
use outlive_core::runtime::spec::Transport;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use zeromq::util::PeerIdentity;
use zeromq::{
    DealerRecvHalf, DealerSendHalf, DealerSocket, Socket, SocketEvent, SocketOptions, SocketRecv,
    SocketSend as _, SubSocket, ZmqError, ZmqMessage,
};

use crate::connection::ConnectionInfo;
use crate::heartbeat::Heartbeat;
use crate::message::{Channel, DecodeError, KeyError, Message, SigningKey};

/// What a reader task pushes.
#[derive(Debug)]
pub enum Incoming {
    /// A message.
    Message(Channel, Box<Message>),
    /// Frames that are no message of this kernel.
    Rejected(Channel, DecodeError),
    /// The kernel's end is closed. Everything that it sent on this channel was pushed before; nothing follows.
    Disconnected(Channel),
}

/// The channels could not be connected.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The key is not usable.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The kernel did not listen in time.
    #[error("the kernel does not listen on {endpoint} ({what}) after {waited:?}")]
    NotListening {
        /// Where.
        endpoint: String,
        /// Which socket.
        what: &'static str,
        /// How long.
        waited: Duration,
    },
    /// The socket answered otherwise than ZeroMQ does.
    #[error("{endpoint} ({what}) does not speak ZeroMQ as a kernel does: another program may have the port")]
    Handshake {
        /// Where.
        endpoint: String,
        /// Which socket.
        what: &'static str,
        /// Why.
        #[source]
        source: ZmqError,
    },
    /// Looking at the socket failed otherwise than by refusal.
    #[error("cannot reach {endpoint} ({what})")]
    Unreachable {
        /// Where.
        endpoint: String,
        /// Which socket.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A message was not handed over: the kernel's socket is gone. Nothing was sent.
#[derive(Debug, thiserror::Error)]
#[error("the {channel} channel is disconnected: the kernel has died or is dying")]
pub struct SendError {
    /// Which.
    pub channel: Channel,
    /// What ZeroMQ said.
    #[source]
    pub source: ZmqError,
}

/// The sending side of one channel.
pub struct Sender {
    channel: Channel,
    key: SigningKey,
    socket: DealerSendHalf,
}

impl Sender {
    /// Signs and sends. Waits only when the kernel has not read thousands of messages; `Ok` does not mean that the
    /// kernel has read it.
    ///
    /// # Errors
    /// When the kernel's end is closed.
    pub async fn send(&mut self, message: &Message) -> Result<(), SendError> {
        let frames = ZmqMessage::try_from(message.encode(&self.key)).expect("a message has frames");
        self.socket.send(frames).await.map_err(|source| SendError { channel: self.channel, source })
    }
}

/// Everything open to one process. Dropping it (and the senders and heartbeat, when they were moved out) closes it.
pub struct Channels {
    /// Requests in order.
    pub shell: Sender,
    /// Requests that overtake.
    pub control: Sender,
    /// Answers to the kernel's questions.
    pub stdin: Sender,
    /// The echo.
    pub heartbeat: Heartbeat,
    /// The receiving side of all of them.
    pub readers: Readers,
}

/// The reader tasks; dropping them ends them.
pub struct Readers {
    _tasks: JoinSet<()>,
    iopub_seen: watch::Receiver<bool>,
    iopub_held: watch::Sender<bool>,
}

impl Channels {
    /// Connects to a kernel that was just spawned: looks at each socket every 5 ms until it listens.
    ///
    /// `session` becomes the ZeroMQ identity: give each connection another one, or replies go to the wrong one.
    /// `sink` is called on the reader tasks and must not block. Cancel by dropping the future, for instance when
    /// the process died: nothing is left.
    ///
    /// # Errors
    /// When the kernel does not listen within `timeout`, or does not speak ZeroMQ.
    pub async fn connect<F>(
        info: &ConnectionInfo,
        session: &str,
        timeout: Duration,
        sink: F,
    ) -> Result<Self, ConnectError>
    where
        F: FnMut(Incoming) + Clone + Send + 'static,
    {
        let key = info.signing_key()?;
        let connector = Connector { info, session, timeout, deadline: Instant::now() + timeout };
        // A kernel binds shell first and the heartbeat last: by the last probe the others are there.
        let shell = connector.dealer(info.shell_port, "shell").await?;
        let control = connector.dealer(info.control_port, "control").await?;
        let stdin = connector.dealer(info.stdin_port, "stdin").await?;
        let heartbeat = connector.dealer(info.hb_port, "heartbeat").await?;
        let mut iopub = SubSocket::new();
        let iopub_events = iopub.monitor().boxed();
        // The empty prefix subscribes to everything.
        connector.connect(&mut iopub, info.iopub_port, "iopub").await?;
        iopub.subscribe("").await.map_err(|source| connector.handshake(info.iopub_port, "iopub", source))?;

        let mut tasks = JoinSet::new();
        let (seen, iopub_seen) = watch::channel(false);
        let (iopub_held, held) = watch::channel(false);
        let (shell, reader) = split(shell, Channel::Shell, &key);
        tasks.spawn(reader.run(sink.clone()));
        let (control, reader) = split(control, Channel::Control, &key);
        tasks.spawn(reader.run(sink.clone()));
        let (stdin, reader) = split(stdin, Channel::Stdin, &key);
        tasks.spawn(reader.run(sink.clone()));
        let reader = Reader { channel: Channel::Iopub, key, socket: iopub, events: iopub_events };
        tasks.spawn(reader.run_iopub(sink, seen, held));
        Ok(Self {
            shell,
            control,
            stdin,
            heartbeat: Heartbeat::new(heartbeat.socket),
            readers: Readers { _tasks: tasks, iopub_seen, iopub_held },
        })
    }

    /// See [`Readers::subscribed`].
    pub async fn subscribed(&mut self, timeout: Duration) -> bool {
        self.readers.subscribed(timeout).await
    }

    /// See [`Readers::hold_iopub`].
    pub fn hold_iopub(&self, hold: bool) {
        self.readers.hold_iopub(hold);
    }
}

impl Readers {
    /// Waits until iopub is known to be subscribed: its first message came. Kernels with JEP 65 greet with
    /// `iopub_welcome`; for others ask for `kernel_info` first, whose status is the sign. `false` when `timeout`
    /// passed without one, which for a kernel that is silent means nothing bad.
    pub async fn subscribed(&mut self, timeout: Duration) -> bool {
        let seen = self.iopub_seen.wait_for(|seen| *seen);
        matches!(tokio::time::timeout(timeout, seen).await, Ok(Ok(_)))
    }

    /// Stops reading iopub, or goes on. A kernel that was told not to drop then waits; any other drops what exceeds
    /// the sockets' buffers. After a death go on, so that what still stands in the buffers is read.
    pub fn hold_iopub(&self, hold: bool) {
        self.iopub_held.send_replace(hold);
    }
}

struct Connector<'a> {
    info: &'a ConnectionInfo,
    session: &'a str,
    timeout: Duration,
    deadline: Instant,
}

struct Dealer {
    socket: DealerSocket,
    events: BoxStream<'static, SocketEvent>,
}

impl Connector<'_> {
    async fn dealer(&self, port: u16, what: &'static str) -> Result<Dealer, ConnectError> {
        let mut options = SocketOptions::default();
        let identity = PeerIdentity::try_from(self.session.as_bytes())
            .map_err(|source| self.handshake(port, what, source))?;
        options.peer_identity(identity);
        let mut socket = DealerSocket::with_options(options);
        // Before connect, or the first events are lost.
        let events = socket.monitor().boxed();
        self.connect(&mut socket, port, what).await?;
        Ok(Dealer { socket, events })
    }

    async fn connect(
        &self,
        socket: &mut impl Socket,
        port: u16,
        what: &'static str,
    ) -> Result<(), ConnectError> {
        let endpoint = self.info.endpoint(port);
        let connect = async {
            self.until_listening(port, what).await?;
            socket.connect(&endpoint).await.map_err(|source| self.handshake(port, what, source))
        };
        match tokio::time::timeout_at(self.deadline, connect).await {
            Ok(result) => result,
            Err(_) => {
                Err(ConnectError::NotListening { endpoint: endpoint.clone(), what, waited: self.timeout })
            }
        }
    }

    async fn until_listening(&self, port: u16, what: &'static str) -> Result<(), ConnectError> {
        let mut ticks = tokio::time::interval(Duration::from_millis(PROBE_PERIOD_MS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.probe(port).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(source) => {
                    let endpoint = self.info.endpoint(port);
                    return Err(ConnectError::Unreachable { endpoint, what, source });
                }
            }
        }
    }

    async fn probe(&self, port: u16) -> io::Result<bool> {
        let outcome = match self.info.transport {
            Transport::Tcp => TcpStream::connect((self.info.ip.as_str(), port)).await.and_then(|stream| {
                // A connection attempt to a free local port can meet itself when its own port is that one.
                Ok(stream.local_addr()? != stream.peer_addr()?)
            }),
            Transport::Ipc => UnixStream::connect(self.info.socket_path(port)).await.map(|_| true),
        };
        match outcome {
            Err(error) if is_not_yet(&error) => Ok(false),
            outcome => outcome,
        }
    }

    fn handshake(&self, port: u16, what: &'static str, source: ZmqError) -> ConnectError {
        ConnectError::Handshake { endpoint: self.info.endpoint(port), what, source }
    }
}

/// Nobody listens there yet, or its queue is full for the moment.
fn is_not_yet(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::WouldBlock
    )
}

fn split(dealer: Dealer, channel: Channel, key: &SigningKey) -> (Sender, Reader<DealerRecvHalf>) {
    let (send, receive) = dealer.socket.split();
    (
        Sender { channel, key: key.clone(), socket: send },
        Reader { channel, key: key.clone(), socket: receive, events: dealer.events },
    )
}

struct Reader<S> {
    channel: Channel,
    key: SigningKey,
    socket: S,
    events: BoxStream<'static, SocketEvent>,
}

impl<S: SocketRecv> Reader<S> {
    async fn run(mut self, mut sink: impl FnMut(Incoming)) {
        while let Some(frames) = self.next().await {
            sink(self.decode(frames));
        }
        sink(Incoming::Disconnected(self.channel));
    }

    async fn run_iopub(
        mut self,
        mut sink: impl FnMut(Incoming),
        seen: watch::Sender<bool>,
        mut held: watch::Receiver<bool>,
    ) {
        while let Some(frames) = self.next().await {
            sink(self.decode(frames));
            seen.send_if_modified(|seen| !std::mem::replace(seen, true));
            // Ends at once unless held; an error means that the channels are being dropped.
            if held.wait_for(|held| !held).await.is_err() {
                return;
            }
        }
        sink(Incoming::Disconnected(self.channel));
    }

    fn decode(&self, frames: ZmqMessage) -> Incoming {
        match Message::decode(frames.into_vec(), &self.key) {
            Ok(message) => Incoming::Message(self.channel, Box::new(message)),
            Err(error) => Incoming::Rejected(self.channel, error),
        }
    }

    /// The next message, or `None` when the peer is gone and everything that it sent was taken.
    ///
    /// `recv` goes first: the monitor's event comes out of the poll that found the end of the stream, so no message
    /// of that stream can follow it. A `recv` that is dropped when the event fires holds no message.
    async fn next(&mut self) -> Option<ZmqMessage> {
        loop {
            tokio::select! {
                biased;
                received = self.socket.recv() => return received.ok(),
                event = self.events.next() => match event {
                    Some(SocketEvent::Disconnected(_)) | None => return None,
                    Some(_) => {}
                },
            }
        }
    }
}
