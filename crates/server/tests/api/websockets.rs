//! WebSockets: the same events as text frames, the same door, and every way to be no WebSocket.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _, stream};
use outlive_protocol::http::Problem;
use outlive_server::Bounds;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::client::{Client, Server, TOKEN, fill, in_time};
use crate::fake::{end, output};

const ATTACH: &str = "/v1/sessions/{id}/attach";

/// Connects.
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    socket: S,
    path: &str,
    headers: &[(&'static str, &str)],
) -> WebSocketStream<S> {
    let mut request = format!("ws://localhost{path}").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let (socket, answer) = in_time(tokio_tungstenite::client_async(request, socket)).await.unwrap();
    assert_eq!(answer.headers()["outlive-api"], "1", "each answer says the API's version");
    assert!(!answer.headers().contains_key("sec-websocket-extensions"), "nothing is compressed");
    socket
}

/// Asks for a WebSocket that is not granted.
async fn refused(mut client: Client, path: &str, headers: &[(&str, &str)]) -> Problem {
    let mut all = vec![
        ("host", "localhost"),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    all.retain(|(name, _)| !headers.iter().any(|(other, _)| other == name));
    all.extend(headers.iter().filter(|(_, value)| !value.is_empty()));
    let answer = client.call("GET", path, &all, b"").await;
    if answer.status == 426 {
        assert_eq!(answer.headers["sec-websocket-version"], "13");
    }
    answer.problem()
}

async fn over_unix(server: &Server, path: &str) -> WebSocketStream<UnixStream> {
    connect(UnixStream::connect(&server.socket).await.unwrap(), &fill(path), &[]).await
}

/// What was told until the end: events as JSON, then code and reason of the close.
pub async fn told<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
) -> (Vec<Value>, Option<(u16, String)>) {
    let (mut events, mut closed) = (Vec::new(), None);
    while let Some(message) = in_time(socket.next()).await {
        match message {
            Ok(Message::Text(text)) => events.push(serde_json::from_str(&text).unwrap()),
            Ok(Message::Close(frame)) => {
                closed = frame.map(|frame| (frame.code.into(), frame.reason.to_string()));
            }
            Ok(_) => {}
            Err(error) => {
                assert!(closed.is_none(), "{error}");
                break;
            }
        }
    }
    (events, closed)
}

fn some_events(server: &Server) {
    *server.fake.events.lock().unwrap() =
        Box::new(|_| stream::iter([output(1, "two\nlines é😀"), output(2, ""), end()]).boxed());
}

#[tokio::test]
async fn the_same_events_come_as_over_sse() {
    let server = Server::start().await;
    some_events(&server);
    let mut client = server.unix().await;
    for path in [ATTACH, "/v1/sessions/{id}/runs/{run}/attach"] {
        let sse = client.events(&fill(path), &[]).await.rest().await;
        let (events, closed) = told(&mut over_unix(&server, path).await).await;
        let expected: Vec<_> = sse
            .into_iter()
            .map(|mut event| {
                if let Some(id) = event.id {
                    event.data["id"] = id.into();
                }
                event.data
            })
            .collect();
        assert_eq!(events, expected);
        assert_eq!(events[0]["id"], "1.1");
        assert_eq!(closed, Some((1000, "end".to_owned())));
    }
    server.stop().await;
}

// B6
#[tokio::test]
async fn a_token_comes_in_a_header_the_query_or_a_subprotocol() {
    let server = Server::start().await;
    some_events(&server);
    let path = fill(ATTACH);
    let in_query = format!("{path}?token={TOKEN}");
    let bearer = format!("Bearer {TOKEN}");
    let offered = format!("outlive, outlive.token.{TOKEN}");
    let own = ("origin", "http://localhost");
    for (path, headers) in [
        (&path, vec![("authorization", bearer.as_str())]),
        (&in_query, vec![own]),
        (&path, vec![own, ("sec-websocket-protocol", offered.as_str())]),
    ] {
        let tcp = TcpStream::connect(server.address).await.unwrap();
        let mut socket = connect(tcp, path, &headers).await;
        assert_eq!(told(&mut socket).await.0.len(), 3, "{headers:?}");
    }
    for (headers, expected) in [
        (vec![], (401, "no-token")),
        (vec![("sec-websocket-protocol", "outlive, outlive.token.guess")], (401, "wrong-token")),
        (vec![("authorization", bearer.as_str()), ("host", "evil.example")], (403, "foreign-host")),
        (vec![("authorization", bearer.as_str()), ("origin", "https://evil.example")], (403, "cross-origin")),
    ] {
        let problem = refused(server.tcp().await, &path, &headers).await;
        assert_eq!((problem.status, problem.code.as_str()), expected, "before anything is upgraded");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_granted_is_refused_in_http() {
    let server = Server::start().await;
    let unknown = "/v1/sessions/01920000-0000-7000-8000-00000000ffff/document";
    let known = fill("/v1/sessions/{id}/document");
    let none = ("upgrade", "");
    for (path, headers, expected) in [
        (unknown, vec![], (404, "no-such-session")),
        (&known, vec![("sec-websocket-version", "8")], (426, "websocket-version")),
        (&known, vec![("sec-websocket-version", "")], (426, "websocket-version")),
        (&known, vec![("sec-websocket-key", "")], (400, "bad-handshake")),
        (&known, vec![("sec-websocket-key", "short")], (400, "bad-handshake")),
        (&known, vec![("connection", "keep-alive")], (400, "bad-handshake")),
        (&known, vec![none], (426, "upgrade-required")),
    ] {
        let problem = refused(server.unix().await, path, &headers).await;
        assert_eq!((problem.status, problem.code.as_str()), expected, "{headers:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_a_client_says_to_an_event_stream_is_ignored_but_its_pings_and_its_close() {
    let server = Server::start().await;
    let taken = Arc::<AtomicU64>::default();
    let held = Arc::clone(&taken);
    *server.fake.events.lock().unwrap() = Box::new(move |_| {
        let held = Arc::clone(&held);
        let quiet = stream::pending().inspect(move |_: &outlive_node::api::Delivered| {
            held.fetch_add(1, Ordering::SeqCst);
        });
        stream::iter([output(1, "")]).chain(quiet).boxed()
    });
    let mut socket = over_unix(&server, ATTACH).await;
    socket.send(Message::text("run this")).await.unwrap();
    socket.send(Message::binary(vec![0; 4_000])).await.unwrap();
    socket.send(Message::Ping(b"there?"[..].into())).await.unwrap();
    let answered = async {
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Pong(payload) = message {
                return payload;
            }
        }
        panic!("no answer to a ping")
    };
    assert_eq!(&in_time(answered).await[..], b"there?");
    socket.close(None).await.unwrap();
    assert_eq!(told(&mut socket).await.0.len(), 0);
    let left = async {
        while Arc::strong_count(&taken) > 2 {
            tokio::task::yield_now().await;
        }
    };
    in_time(left).await;
    server.stop().await;
}

/// An open event stream, as raw bytes.
async fn raw(server: &Server) -> UnixStream {
    *server.fake.events.lock().unwrap() = Box::new(|_| stream::pending().boxed());
    let mut socket = UnixStream::connect(&server.socket).await.unwrap();
    let head = format!(
        "GET {} HTTP/1.1\r\nhost: x\r\nconnection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        fill(ATTACH)
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(in_time(socket.read_u8()).await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap().to_lowercase();
    assert!(answer.starts_with("http/1.1 101 "), "{answer}");
    assert!(answer.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "RFC 6455 §1.3: {answer}");
    socket
}

// B1
#[tokio::test]
async fn frames_that_are_too_large_lie_or_are_none_end_that_connection_with_a_reason() {
    let server = Server::start().await;
    let masked = |opcode: u8, length: &[u8], payload: usize| {
        let mut frame = vec![0x80 | opcode];
        frame.extend_from_slice(length);
        frame.extend(vec![0; 4 + payload]);
        frame
    };
    let huge = [&[0xff][..], &(1_u64 << 62).to_be_bytes()].concat();
    let large = [&[0xff][..], &100_000_u64.to_be_bytes()].concat();
    for (sent, code, reason) in [
        (masked(2, &large, 100_000), 1009, "message-too-large"),
        (masked(2, &huge, 0), 1009, "message-too-large"),
        (masked(3, &[0x80], 0), 1002, "bad-frame"),
        (vec![0x82, 0x01, 0x00], 1002, "bad-frame"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), 1002, "bad-frame"),
        (vec![0x81, 0x81, 0, 0, 0, 0, 0xff], 1002, "bad-frame"),
    ] {
        let mut socket = raw(&server).await;
        socket.write_all(&sent).await.unwrap();
        let mut socket = WebSocketStream::from_raw_socket(
            socket,
            tokio_tungstenite::tungstenite::protocol::Role::Client,
            None,
        )
        .await;
        let (events, closed) = told(&mut socket).await;
        assert_eq!(events.last().unwrap()["problem"]["code"], reason);
        assert_eq!(closed, Some((code, reason.to_owned())));
    }
    assert_eq!(server.unix().await.get("/v1/node").await.status, 200);
    server.stop().await;
}

// B1
#[tokio::test]
async fn half_a_frame_and_then_silence_is_cut_and_a_client_that_answers_pings_is_not() {
    let bounds =
        Bounds { ping: Duration::from_millis(50), silence: Duration::from_millis(400), ..Bounds::default() };
    let server = Server::start_with(bounds).await;
    let mut half = raw(&server).await;
    // All but the last byte of a binary frame.
    half.write_all(&[0x82, 0x85, 0, 0, 0, 0, 1, 2, 3, 4]).await.unwrap();
    let role = tokio_tungstenite::tungstenite::protocol::Role::Client;
    let mut quiet = WebSocketStream::from_raw_socket(raw(&server).await, role, None).await;
    // The last byte never comes, so neither do answers to pings.
    let cut = async {
        let mut told = Vec::new();
        half.read_to_end(&mut told).await.unwrap();
        told
    };
    let mut cut = std::pin::pin!(in_time(cut));
    let (mut told, mut pings) = (None, 0);
    // The one that answers pings is there until the other one is cut, and for as long again.
    while told.is_none() || pings < 16 {
        tokio::select! {
            all = cut.as_mut(), if told.is_none() => told = Some(all),
            message = in_time(quiet.next()) => match message.unwrap().unwrap() {
                Message::Ping(_) => pings += 1,
                other => panic!("{other:?}"),
            },
        }
    }
    let close = [&4408_u16.to_be_bytes()[..], b"silent-peer"].concat();
    assert!(told.unwrap().ends_with(&close), "the reason is the last that it is told");
    server.stop().await;
}

// B5
#[tokio::test]
async fn a_reader_that_does_not_read_is_bounded_then_cut_and_told() {
    let bounds = Bounds { stream_stall: Duration::from_millis(300), ..Bounds::default() };
    let server = Server::start_with(bounds).await;
    let taken = Arc::<AtomicU64>::default();
    let counted = Arc::clone(&taken);
    *server.fake.events.lock().unwrap() = Box::new(move |_| {
        let (counted, text) = (Arc::clone(&counted), "x".repeat(1_000));
        stream::repeat_with(move || output(counted.fetch_add(1, Ordering::SeqCst) + 1, &text)).boxed()
    });
    let mut socket = over_unix(&server, ATTACH).await;
    let detached = async {
        while Arc::strong_count(&taken) > 2 {
            tokio::task::yield_now().await;
        }
    };
    // One is ours, one is the fake's.
    in_time(detached).await;
    let taken = taken.load(Ordering::SeqCst);
    assert!(taken < 3_000, "back-pressure: {taken} events of a kilobyte for a reader that takes none");
    let (events, closed) = told(&mut socket).await;
    let (last, before) = events.split_last().unwrap();
    assert_eq!(last["problem"]["code"], "slow-reader");
    assert_eq!(closed, Some((4008, "slow-reader".to_owned())));
    for (n, event) in before.iter().enumerate() {
        assert_eq!(event["first"], n + 1, "what it was sent before is whole and in order");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_slow_reader_that_takes_something_is_not_cut() {
    let bounds = Bounds { stream_stall: Duration::from_millis(200), ..Bounds::default() };
    let server = Server::start_with(bounds).await;
    *server.fake.events.lock().unwrap() =
        Box::new(|_| stream::iter([output(1, &"x".repeat(3_000_000)), end()]).boxed());
    let mut socket = over_unix(&server, ATTACH).await;
    let raw = socket.get_mut();
    let (mut taken, mut piece) = (Vec::new(), vec![0; 128 << 10]);
    // One event over a line that is slow, and never silent for as long as a stall.
    loop {
        let _ = tokio::time::timeout(Duration::from_millis(30), std::future::pending::<()>()).await;
        let read = in_time(raw.read(&mut piece)).await.unwrap();
        if read == 0 {
            break;
        }
        taken.extend_from_slice(&piece[..read]);
    }
    assert!(taken.ends_with(b"\x03\xe8end"), "it gets all, to the close 1000 `end`");
    server.stop().await;
}

#[tokio::test]
async fn the_end_of_the_server_is_told_and_nobody_holds_it_up() {
    let server = Server::start().await;
    *server.fake.events.lock().unwrap() =
        Box::new(|_| stream::iter([output(1, "so far")]).chain(stream::pending()).boxed());
    let mut reading = Vec::new();
    for _ in 0..20 {
        reading.push(over_unix(&server, ATTACH).await);
    }
    *server.fake.events.lock().unwrap() =
        Box::new(|_| stream::repeat_with(|| output(1, &"x".repeat(1_000))).boxed());
    let not_reading = over_unix(&server, ATTACH).await;
    let fake = Arc::clone(&server.fake);
    server.begin_shutdown();
    for socket in &mut reading {
        let (events, closed) = told(socket).await;
        assert_eq!(events.last().unwrap()["problem"]["code"], "shutting-down");
        assert_eq!(closed, Some((1001, "shutting-down".to_owned())));
    }
    server.ended().await;
    assert_eq!(Arc::strong_count(&fake), 1, "no task holds the node any more");
    drop(not_reading);
}

#[tokio::test]
async fn a_stream_that_breaks_off_or_panics_says_so() {
    let server = Server::start().await;
    for broken in [
        Box::new(|_| stream::empty().boxed()) as crate::fake::Source,
        Box::new(|_| stream::repeat_with(|| panic!("a bug in the node")).boxed()),
    ] {
        *server.fake.events.lock().unwrap() = broken;
        let (events, closed) = told(&mut over_unix(&server, ATTACH).await).await;
        assert_eq!(events[0]["problem"]["code"], "bug");
        assert_eq!(closed, Some((1011, "bug".to_owned())));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_websocket_counts_as_a_connection_for_as_long_as_it_lives() {
    let server = Server::start_with(Bounds { connections: 2, ..Bounds::default() }).await;
    *server.fake.events.lock().unwrap() = Box::new(|_| stream::pending().boxed());
    let mut first = over_unix(&server, ATTACH).await;
    let _second = over_unix(&server, ATTACH).await;
    let mut third = UnixStream::connect(&server.socket).await.unwrap();
    let mut refused = String::new();
    in_time(third.read_to_string(&mut refused)).await.unwrap();
    assert!(refused.contains("too-many-connections"), "{refused}");
    first.close(None).await.unwrap();
    told(&mut first).await;
    let freed = async {
        loop {
            let mut socket = UnixStream::connect(&server.socket).await.unwrap();
            let _ = socket.write_all(b"GET /v1/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
            let mut answer = String::new();
            if socket.read_to_string(&mut answer).await.is_ok() && answer.contains(" 200 OK") {
                break;
            }
        }
    };
    in_time(freed).await;
    server.stop().await;
}
