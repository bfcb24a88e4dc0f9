//! Who is not let in, and what happens to those who do not speak HTTP.

use std::time::Duration;

use outlive_server::Bounds;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::client::{Server, TOKEN, in_time};

const HOST: (&str, &str) = ("host", "localhost");

// B6
#[tokio::test]
async fn tcp_asks_for_the_token_and_the_unix_socket_does_not() {
    let server = Server::start().await;
    let mut tcp = server.tcp().await;
    let bare = tcp.get("/v1/node").await;
    assert_eq!((bare.status.as_u16(), bare.problem().code.as_str()), (401, "no-token"));
    assert!(bare.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    let wrong = tcp.call("GET", "/v1/node", &[HOST, ("authorization", "Bearer wrong")], b"").await;
    assert_eq!((wrong.status.as_u16(), wrong.problem().code.as_str()), (401, "wrong-token"));
    for (path, header) in [
        ("/v1/node".to_owned(), Some(format!("Bearer {TOKEN}"))),
        ("/v1/node".to_owned(), Some(format!("token {TOKEN}"))),
        (format!("/v1/node?token={TOKEN}"), None),
    ] {
        let mut headers = vec![HOST];
        headers.extend(header.as_deref().map(|value| ("authorization", value)));
        assert_eq!(tcp.call("GET", &path, &headers, b"").await.json()["pid"], 4711, "{path} {header:?}");
    }
    let stranger = tcp.get("/v1/nowhere").await.problem();
    assert_eq!(stranger.code, "no-token", "a stranger learns no routes");
    assert_eq!(server.unix().await.get("/v1/node").await.json()["state_directory"], "/secret/place");
    server.stop().await;
}

// B6
#[tokio::test]
async fn live_answers_a_stranger_and_tells_nothing() {
    let server = Server::start().await;
    let mut tcp = server.tcp().await;
    let live = tcp.get("/v1/live").await;
    assert_eq!(live.status, 200);
    assert!(!String::from_utf8_lossy(&live.body).contains("secret"), "{:?}", live.body);
    assert_eq!(live.json()["pid"], 0);
    server.stop().await;
}

// B6
#[tokio::test]
async fn pages_of_other_origins_and_rebound_names_are_refused() {
    let server = Server::start().await;
    let mut tcp = server.tcp().await;
    let bearer = format!("Bearer {TOKEN}");
    let bearer = ("authorization", bearer.as_str());
    let foreign = tcp.call("GET", "/v1/node", &[HOST, bearer, ("origin", "https://evil.example")], b"").await;
    assert_eq!((foreign.status.as_u16(), foreign.problem().code.as_str()), (403, "cross-origin"));
    assert!(!foreign.headers.contains_key("access-control-allow-origin"));
    let rebound = tcp.call("GET", "/v1/node", &[("host", "evil.example:80"), bearer], b"").await;
    assert_eq!((rebound.status.as_u16(), rebound.problem().code.as_str()), (403, "foreign-host"));
    assert_eq!(rebound.problem().facts["host"], "evil.example");

    let trusted = ("origin", "https://trusted.example.org");
    let asked = tcp.call("OPTIONS", "/v1/sessions", &[HOST, trusted], b"").await;
    assert_eq!(asked.status, 204);
    assert_eq!(asked.headers["access-control-allow-origin"], trusted.1);
    assert!(asked.headers["access-control-allow-methods"].to_str().unwrap().contains("PUT"));
    let headers = asked.headers["access-control-allow-headers"].to_str().unwrap();
    for from_openai in ["authorization", "x-stainless-retry-count", "idempotency-key"] {
        assert!(headers.split(", ").any(|name| name == from_openai), "{from_openai}: {headers}");
    }
    let allowed = tcp.call("GET", "/v1/node", &[HOST, bearer, trusted], b"").await;
    assert_eq!(allowed.status, 200);
    assert_eq!(allowed.headers["access-control-allow-origin"], trusted.1);
    let tokenless = tcp.call("GET", "/v1/node", &[HOST, trusted], b"").await;
    assert_eq!(tokenless.problem().code, "no-token", "an allowed origin is no token");
    server.stop().await;
}

/// What a raw client is told until the server hangs up.
async fn raw(server: &Server, sent: &[u8]) -> String {
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    // The server may hang up in the middle of what we send.
    let _ = socket.write_all(sent).await;
    let mut told = Vec::new();
    let _ = in_time(socket.read_to_end(&mut told)).await;
    String::from_utf8_lossy(&told).into_owned()
}

// B1, B6
#[tokio::test]
async fn garbage_half_requests_and_endless_heads_end_and_harm_nobody() {
    let bounds = Bounds { head: Duration::from_millis(200), ..Bounds::default() };
    let server = Server::start_with(bounds).await;
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/sessions HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/sessions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999999999999999\r\n\r\n",
    ] {
        let told = raw(&server, garbage).await;
        assert!(told.is_empty() || told.starts_with("HTTP/1.1 4"), "{told}");
    }
    assert_eq!(raw(&server, b"GET /v1/live HTTP/1.1\r\nhost: loc").await, "", "half a request, then silence");
    assert_eq!(raw(&server, b"").await, "", "silence");
    let endless = [b"GET /v1/live HTTP/1.1\r\nx: ".as_slice(), &vec![b'x'; 1 << 20]].concat();
    assert!(raw(&server, &endless).await.starts_with("HTTP/1.1 431"), "a head of a megabyte");
    let smuggled = b"POST /v1/sessions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/node HTTP/1.1\r\n\r\n";
    assert!(!raw(&server, smuggled).await.contains("4711"));
    assert_eq!(server.unix().await.get("/v1/node").await.status, 200, "others are served");
    server.stop().await;
}

// B6
#[tokio::test]
async fn a_body_that_does_not_come_times_out() {
    let bounds = Bounds { body: Duration::from_millis(100), ..Bounds::default() };
    let server = Server::start_with(bounds).await;
    let mut socket = UnixStream::connect(&server.socket).await.unwrap();
    let head = b"POST /v1/sessions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    socket.write_all(head).await.unwrap();
    let mut told = Vec::new();
    in_time(socket.read_to_end(&mut told)).await.unwrap();
    let told = String::from_utf8(told).unwrap();
    assert!(told.starts_with("HTTP/1.1 408") && told.contains("body-too-slow"), "{told}");
    server.stop().await;
}

// B1
#[tokio::test]
async fn a_body_that_is_cut_off_reaches_nobody() {
    let server = Server::start().await;
    let mut socket = UnixStream::connect(&server.socket).await.unwrap();
    let head = b"POST /v1/sessions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    socket.write_all(head).await.unwrap();
    socket.shutdown().await.unwrap();
    let mut told = Vec::new();
    in_time(socket.read_to_end(&mut told)).await.unwrap();
    assert!(server.fake.calls().is_empty());
    server.stop().await;
}
