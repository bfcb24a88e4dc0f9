//! Something at another node's address that is no healthy node.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};

use crate::client::in_time;

pub struct Impostor {
    pub address: SocketAddr,
    said: Arc<watch::Sender<Vec<String>>>,
    closes: Arc<watch::Sender<Vec<Option<CloseCode>>>>,
    _task: JoinSet<()>,
}

impl Impostor {
    /// Answers every request with these bytes and then says nothing more, but keeps its connections.
    pub async fn answers(answer: &str) -> Self {
        Self::with(answer, After::Silence).await
    }

    /// Answers every request with these bytes and hangs up.
    pub async fn hangs_up_after(answer: &str) -> Self {
        Self::with(answer, After::End).await
    }

    /// Takes every connection and reads nothing of it, as a process that is stopped.
    pub async fn frozen() -> Self {
        let (listener, mut impostor) = Self::bind().await;
        impostor._task.spawn(async move {
            let _never_accepted = listener;
            std::future::pending().await
        });
        impostor
    }

    /// A WebSocket that says again what it hears, and closes when it hears `close`.
    pub async fn echoes() -> Self {
        let (listener, mut impostor) = Self::bind().await;
        let closes = Arc::clone(&impostor.closes);
        impostor._task.spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let code = echo(socket).await;
                closes.send_modify(|all| all.push(code));
            }
        });
        impostor
    }

    /// A WebSocket that says this and then nothing more, not even pings.
    pub async fn says(text: &'static str) -> Self {
        let (listener, mut impostor) = Self::bind().await;
        impostor._task.spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let mut socket = tokio_tungstenite::accept_async(socket).await.unwrap();
            socket.send(Message::text(text)).await.unwrap();
            let _held = socket;
            std::future::pending().await
        });
        impostor
    }

    /// A WebSocket that breaks off in the middle of a frame.
    pub async fn breaks_off() -> Self {
        let (listener, mut impostor) = Self::bind().await;
        impostor._task.spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let mut socket = tokio_tungstenite::accept_async(socket).await.unwrap();
            // A text frame of 100 bytes, of which two come.
            socket.get_mut().write_all(&[0x81, 100, b'{', b'"']).await.unwrap();
        });
        impostor
    }

    async fn with(answer: &str, after: After) -> Self {
        let (listener, mut impostor) = Self::bind().await;
        let (said, answer) = (Arc::clone(&impostor.said), answer.to_owned());
        impostor._task.spawn(async move {
            let held = Mutex::new(Vec::new());
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let heard = read_request(&mut socket).await;
                // Asked whether it is there, it says nothing.
                if !heard.starts_with("GET /v1/live") {
                    socket.write_all(answer.as_bytes()).await.unwrap();
                    said.send_modify(|all| all.push(heard));
                }
                if after == After::Silence {
                    held.lock().unwrap().push(socket);
                }
            }
        });
        impostor
    }

    async fn bind() -> (TcpListener, Self) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let impostor = Self { address, said: Arc::default(), closes: Arc::default(), _task: JoinSet::new() };
        (listener, impostor)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The first request that it was asked.
    pub async fn heard(&self) -> String {
        let mut said = self.said.subscribe();
        in_time(said.wait_for(|all| !all.is_empty())).await.unwrap()[0].clone()
    }

    /// How many requests it was asked, apart from whether it is there.
    pub fn requests(&self) -> usize {
        self.said.borrow().len()
    }

    /// How its two conversations were closed.
    pub async fn closed(&self) -> Vec<Option<CloseCode>> {
        let mut closes = self.closes.subscribe();
        in_time(closes.wait_for(|all| all.len() == 2)).await.unwrap().clone()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Silence,
    End,
}

/// One request with its body, as it came.
async fn read_request(socket: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    loop {
        let mut piece = [0; 4_096];
        let read = socket.read(&mut piece).await.unwrap();
        heard.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&heard).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            assert!(read > 0, "half a request: {text}");
            continue;
        };
        let length =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return text;
        }
    }
}

async fn echo(socket: TcpStream) -> Option<CloseCode> {
    let mut socket = tokio_tungstenite::accept_async(socket).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Text(text) if text.as_str() == "close" => {
                let frame = CloseFrame { code: CloseCode::from(4404), reason: "no-such-session".into() };
                socket.close(Some(frame)).await.unwrap();
                while let Some(Ok(_)) = socket.next().await {}
                return Some(CloseCode::from(4404));
            }
            Message::Close(frame) => return frame.map(|frame| frame.code),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            other => socket.send(other).await.unwrap(),
        }
    }
    None
}
