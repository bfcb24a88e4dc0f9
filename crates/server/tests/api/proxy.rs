//! What another node has: asked of it, and carried through as it is.

use axum::http::HeaderMap;
use futures_util::{SinkExt as _, StreamExt as _, stream};
use outlive_core::limits::REQUEST_BYTES_MAX;
use outlive_server::Bounds;
use outlive_server::native::openapi_document;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::chat::{CHAT, JSON, body, done, result, streamed};
use crate::client::{Answer, CLUSTER_TOKEN, Server, TOKEN, fill, in_time, request};
use crate::document::body_of;
use crate::fake::{end, output};
use crate::group::{config_body, text};
use crate::impostor::Impostor;
use crate::streams::{channel_stream, endless, numbered};
use crate::websockets::{connect, told};

pub const ATTACH: &str = "/v1/sessions/{id}/attach";
const RUN_STREAM: &str = "/v1/sessions/{id}/runs/{run}/attach";

/// A node, and another one that has everything.
pub async fn two() -> (Server, Server) {
    let owner = Server::start_in_cluster(CLUSTER_TOKEN, Bounds::default()).await;
    let node = asks(&format!("http://{}", owner.address)).await;
    (node, owner)
}

/// A node whose sessions are all on another one.
pub async fn asks(url: &str) -> Server {
    let node = Server::start_in_cluster(CLUSTER_TOKEN, Bounds::default()).await;
    node.fake.cluster.elsewhere(Some(url));
    node
}

/// The headers that say something about the answer.
fn telling(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut telling: Vec<_> = headers
        .iter()
        .filter(|(name, _)| *name != "date")
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    telling.sort();
    telling
}

async fn call(server: &Server, method: &str, path: &str, body: &[u8]) -> Answer {
    server.unix().await.call(method, path, &JSON, body).await
}

// E10
#[tokio::test]
async fn every_route_answers_the_same_byte_for_byte_on_a_node_that_does_not_have_it() {
    let (node, owner) = two().await;
    let alone = Server::start().await;
    let blob = "cd".repeat(32);
    for server in [&owner, &alone] {
        std::fs::write(server.fake.blobs.join(&blob), "content\0\r\n").unwrap();
    }
    let document = openapi_document();
    let mut elsewhere = 0;
    for (template, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            for server in [&owner, &alone] {
                server.fake.groups.raise("llm", serde_json::from_value(config_body(1)).unwrap());
            }
            let id = operation["operationId"].as_str().unwrap();
            let before = owner.fake.calls().len();
            let path = fill(template).replace("{sha256}", &blob).replace("{cell}", "a%2Fb%3F");
            let body = operation.get("requestBody").map(|_| serde_json::to_vec(&body_of(id)).unwrap());
            let (method, body) = (method.to_uppercase(), body.unwrap_or_default());
            let carried = call(&node, &method, &path, &body).await;
            let direct = call(&alone, &method, &path, &body).await;
            assert_eq!(carried.status, direct.status, "{id}: {:?}", carried.body);
            assert_eq!(telling(&carried.headers), telling(&direct.headers), "{id}");
            assert!(carried.body == direct.body, "{id}: {:?} {:?}", carried.body, direct.body);
            elsewhere += usize::from(owner.fake.calls().len() > before);
        }
    }
    assert!(elsewhere >= 25, "most of it was asked of the owner: {elsewhere}");
    let asked = alone.fake.calls().into_iter().filter(|call| of_sessions(call));
    // By its session: its path there may be another.
    let asked = asked.map(|call| call.replace("open path=Some(\"/a.ipynb\")", "open path=None"));
    assert_eq!(owner.fake.calls(), asked.collect::<Vec<_>>());
    for server in [node, owner, alone] {
        server.stop().await;
    }
}

/// Whether it is about what only one node has.
fn of_sessions(call: &str) -> bool {
    !["shutdown", "drain", "sessions"].iter().any(|of_a_node| call.starts_with(of_a_node))
}

#[tokio::test]
async fn what_the_client_said_reaches_the_owner_and_what_it_showed_us_does_not() {
    let impostor =
        Impostor::answers("HTTP/1.1 204 No Content\r\noutlive-api: 1\r\nx-mine: yes\r\n\r\n").await;
    let node = asks(&impostor.url()).await;
    let mut client = node.tcp().await;
    let headers = [
        ("host", "localhost"),
        ("origin", "https://trusted.example.org"),
        ("content-type", "application/json"),
        ("idempotency-key", "k 1"),
        ("last-event-id", "7"),
        ("outlive-api", "1"),
        ("te", "trailers"),
    ];
    let path = format!("{}?token={TOKEN}&a=b%20c&token=x&d", fill("/v1/sessions/{id}/stop"));
    let body = br#" {"force" : true} "#;
    let answer = client.call("POST", &path, &headers, body).await;
    assert_eq!((answer.status.as_u16(), &answer.headers["x-mine"]), (204, &"yes".parse().unwrap()));
    assert_eq!(answer.headers["access-control-allow-origin"], "https://trusted.example.org");
    let heard = impostor.heard().await;
    let (head, sent) = heard.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    assert_eq!(lines.next().unwrap(), format!("POST {}?a=b%20c&d HTTP/1.1", fill("/v1/sessions/{id}/stop")));
    let lines: Vec<_> = lines.map(str::to_lowercase).collect();
    let has = |line: &str| lines.iter().any(|one| one == line);
    for kept in
        ["content-type: application/json", "idempotency-key: k 1", "last-event-id: 7", "outlive-api: 1"]
    {
        assert!(has(kept), "{kept}: {lines:?}");
    }
    assert!(has(&format!("authorization: bearer {CLUSTER_TOKEN}")), "the cluster's token: {lines:?}");
    assert!(has(&format!("outlive-hop: {}", crate::fake::SESSION)), "who asks: {lines:?}");
    assert!(has(&format!("host: {}", impostor.address)), "{lines:?}");
    assert!(!head.contains(TOKEN) && !head.contains("origin") && !head.contains("trailers"), "{head}");
    assert_eq!(sent.as_bytes(), body, "byte for byte");
    node.stop().await;
}

#[tokio::test]
async fn large_bodies_pass_both_ways_and_one_that_is_too_large_is_refused_at_the_first_door() {
    let (node, owner) = two().await;
    let source = "é😀\\\"x".repeat(1_000_000);
    let edits = json!({ "edits": [{ "edit": "set_source", "cell": "a", "source": source }] });
    let sent = serde_json::to_vec(&edits).unwrap();
    assert!(sent.len() > 8 << 20 && sent.len() < REQUEST_BYTES_MAX);
    let answer = call(&node, "POST", &fill("/v1/sessions/{id}/notebook"), &sent).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    let heard = owner.fake.calls();
    assert!(heard[0].contains(&format!("{source:?}")), "the whole source, as it was written");
    assert!(node.fake.calls().is_empty(), "nothing was done where it was asked first");
    let content: Vec<u8> = (0..8_000_000_u32).map(|i| (i * 7 % 251) as u8).collect();
    let blob = "ab".repeat(32);
    std::fs::write(owner.fake.blobs.join(&blob), &content).unwrap();
    let path = fill(&format!("/v1/sessions/{{id}}/blobs/{blob}"));
    let answer = call(&node, "GET", &path, b"").await;
    assert_eq!(answer.headers["content-length"], "8000000");
    assert!(answer.body == content, "byte for byte");
    let head = call(&node, "HEAD", &path, b"").await;
    assert_eq!((head.headers["content-length"].to_str().unwrap(), head.body.len()), ("8000000", 0));
    let too_large = vec![b' '; REQUEST_BYTES_MAX + 1];
    let refused = call(&node, "POST", &fill("/v1/sessions/{id}/notebook"), &too_large).await.problem();
    assert_eq!((refused.status, refused.code.as_str()), (413, "body-too-large"));
    node.stop().await;
    owner.stop().await;
}

#[tokio::test]
async fn a_file_that_another_node_has_open_is_asked_for_by_its_session() {
    let (node, owner) = two().await;
    let open = json!({ "path": "/mnt/here/a.ipynb", "trust": "trusted", "kernel": "python3" });
    let answer = call(&node, "POST", "/v1/sessions/open", &serde_json::to_vec(&open).unwrap()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(owner.fake.calls(), ["open path=None trust=Some(Trusted)"], "its path there may be another");
    node.stop().await;
    owner.stop().await;
}

// B4
#[tokio::test]
async fn events_arrive_as_they_are_and_a_reader_comes_back_with_its_cursor() {
    let (node, owner) = two().await;
    numbered(&owner, 10);
    let mut direct = Vec::new();
    let mut carried = Vec::new();
    for (server, all) in [(&owner, &mut direct), (&node, &mut carried)] {
        let mut client = server.unix().await;
        let path = format!("{}?cursor=1.2", fill(RUN_STREAM));
        *all = client.events(&path, &[("last-event-id", "1.6")]).await.rest().await;
    }
    assert_eq!(carried, direct);
    assert_eq!(carried.len(), 5, "1.7 to 1.10, and the end");
    assert_eq!(owner.fake.calls()[1], "attach_run cursor=1.6 follow=true");
    node.stop().await;
    owner.stop().await;
}

#[tokio::test]
async fn an_event_is_carried_at_once_and_a_quiet_stream_is_not_a_dead_one() {
    let (node, owner) = two().await;
    let events = channel_stream(&owner);
    let mut client = node.unix().await;
    let mut reader = client.events(&fill(ATTACH), &[]).await;
    let tricky = "two\nlines\r\n\u{2028}é😀\0\"\n\nevent: end\n\n";
    events.send(output(1, tricky)).unwrap();
    let event = reader.next().await.unwrap();
    assert_eq!((event.id.as_deref(), &event.data["chunks"][0]["text"]), (Some("1.1"), &tricky.into()));
    // Longer than an owner may be silent.
    let ending = async {
        let _ =
            tokio::time::timeout(std::time::Duration::from_millis(1_600), std::future::pending::<()>()).await;
        events.send(end()).unwrap();
    };
    let (all, ()) = tokio::join!(reader.rest(), ending);
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].name, "end");
    assert!(reader.comments >= 4, "comments go on: {}", reader.comments);
    node.stop().await;
    owner.stop().await;
}

// B3
#[tokio::test]
async fn a_flood_through_two_nodes_arrives_complete_and_in_order() {
    const EVENTS: u64 = 20_000;
    let (node, owner) = two().await;
    numbered(&owner, EVENTS);
    let mut client = node.unix().await;
    let mut reader = client.events(&fill(RUN_STREAM), &[]).await;
    for seq in 1..=EVENTS {
        assert_eq!(reader.next().await.unwrap().id.unwrap(), format!("1.{seq}"));
    }
    assert_eq!(reader.next().await.unwrap().name, "end");
    assert_eq!(reader.next().await, None);
    node.stop().await;
    owner.stop().await;
}

// B5
#[tokio::test]
async fn a_reader_that_does_not_read_holds_the_owner_back_and_then_finds_everything() {
    let (node, owner) = two().await;
    let taken = std::sync::Arc::default();
    let detached = endless(&owner, &taken);
    let mut client = node.unix().await;
    let response = client.send(request("GET", &fill(RUN_STREAM), &[("host", "x")], b"")).await;
    let full = async {
        let mut before = 0;
        // It is full when nothing more was taken for a while.
        loop {
            let _ = tokio::time::timeout(std::time::Duration::from_millis(500), std::future::pending::<()>())
                .await;
            let now = taken.load(std::sync::atomic::Ordering::SeqCst);
            if now == before {
                break now;
            }
            before = now;
        }
    };
    let full = in_time(full).await;
    assert!(
        full < 20_000,
        "back-pressure: {full} events of a kilobyte were taken for a reader that takes none"
    );
    let mut reader = crate::client::EventReader::of(response);
    for seq in 1..=full + 100 {
        assert_eq!(reader.next().await.unwrap().id.unwrap(), format!("1.{seq}"), "nothing was lost");
    }
    drop((reader, client));
    in_time(detached).await.unwrap();
    node.stop().await;
    owner.stop().await;
}

#[tokio::test]
async fn a_chat_is_the_same_whichever_node_is_asked() {
    let (node, owner) = two().await;
    let alone = Server::start().await;
    for server in [&owner, &alone] {
        *server.fake.events.lock().unwrap() = Box::new(|_| {
            stream::iter([
                text(1, "Hel"),
                text(2, "lo"),
                result(3, json!({ "finish_reason": "stop" })),
                done(),
            ])
            .boxed()
        });
    }
    let mut told = Vec::new();
    for server in [&node, &alone] {
        let mut client = server.unix().await;
        let (headers, mut reader) = streamed(&mut client, json!({})).await;
        assert_eq!(headers["outlive-run"], headers["x-request-id"]);
        let mut all = Vec::new();
        while let Some(data) = reader.data().await {
            all.push(data);
        }
        told.push((headers["outlive-run"].clone(), all));
    }
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0].1.last().unwrap(), "[DONE]");
    let whole = serde_json::to_vec(&body(json!({}))).unwrap();
    let answers = [call(&node, "POST", CHAT, &whole).await, call(&alone, "POST", CHAT, &whole).await];
    assert_eq!(answers[0].body, answers[1].body);
    assert_eq!(answers[0].json()["choices"][0]["message"]["content"], "Hello");
    for server in [node, owner, alone] {
        server.stop().await;
    }
}

#[tokio::test]
async fn events_over_a_websocket_arrive_with_the_owners_close() {
    let (node, owner) = two().await;
    *owner.fake.events.lock().unwrap() =
        Box::new(|_| stream::iter([output(1, "two\nlines é😀"), output(2, ""), end()]).boxed());
    let mut all = Vec::new();
    for server in [&node, &owner] {
        let socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
        let offered = format!("outlive, outlive.token.{TOKEN}");
        let mut socket = connect(socket, &fill(ATTACH), &[("sec-websocket-protocol", &offered)]).await;
        all.push(told(&mut socket).await);
    }
    assert_eq!(all[0], all[1]);
    assert_eq!(all[0].1, Some((1000, "end".to_owned())));
    node.stop().await;
    owner.stop().await;
}

#[tokio::test]
async fn messages_pass_both_ways_as_they_are() {
    let impostor = Impostor::echoes().await;
    let node = asks(&impostor.url()).await;
    let socket = tokio::net::UnixStream::connect(&node.socket).await.unwrap();
    let mut socket = connect(socket, &fill("/v1/sessions/{id}/document"), &[]).await;
    let large: Vec<u8> = (0..6_000_000_u32).map(|i| (i * 7 % 251) as u8).collect();
    for message in
        [Message::binary(vec![0, 255]), Message::text("é😀"), Message::binary(large), Message::binary(vec![])]
    {
        socket.send(message.clone()).await.unwrap();
        let answer = loop {
            match in_time(socket.next()).await.unwrap().unwrap() {
                Message::Ping(_) | Message::Pong(_) => {}
                other => break other,
            }
        };
        assert!(answer == message, "{} bytes", message.len());
    }
    socket.send(Message::text("close")).await.unwrap();
    let (_, closed) = told(&mut socket).await;
    assert_eq!(closed, Some((4404, "no-such-session".to_owned())), "the owner's own close");
    // A client that leaves leaves the owner too.
    let socket = tokio::net::UnixStream::connect(&node.socket).await.unwrap();
    let mut socket = connect(socket, &fill("/v1/sessions/{id}/document"), &[]).await;
    socket.close(None).await.unwrap();
    told(&mut socket).await;
    assert_eq!(impostor.closed().await, [Some(CloseCode::from(4404)), Some(CloseCode::Normal)]);
    node.stop().await;
}

#[tokio::test]
async fn a_websocket_that_the_owner_does_not_grant_is_refused_in_its_words() {
    let (node, owner) = two().await;
    let headers = [
        ("host", "localhost"),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let path = fill("/v1/sessions/{id}/document");
    let answer = node.unix().await.call("GET", &path, &headers, b"").await;
    assert_eq!((answer.status.as_u16(), answer.problem().code.as_str()), (409, "no-notebook"));
    node.stop().await;
    owner.stop().await;
}

/// The owner's refusals are the client's to know, as they are.
#[tokio::test]
async fn what_the_owner_refuses_is_refused_in_its_words() {
    let (node, owner) = two().await;
    let save = json!({ "path": "/held.ipynb", "how": "save_as" });
    let answer =
        call(&node, "POST", &fill("/v1/sessions/{id}/save"), &serde_json::to_vec(&save).unwrap()).await;
    let problem = answer.problem();
    assert_eq!((problem.status, problem.code.as_str()), (409, "path-already-open"));
    assert_eq!(problem.facts["path"], "/held.ipynb");
    let gone = "/v1/sessions/01920000-0000-7000-8000-00000000ffff";
    assert_eq!(call(&node, "GET", gone, b"").await.problem().code, "no-such-session");
    assert_eq!(
        call(&node, "PUT", gone, b"").await.status,
        405,
        "what no node answers is not asked of others"
    );
    node.stop().await;
    owner.stop().await;
}

#[tokio::test]
async fn the_end_of_this_node_is_told_in_the_middle_of_another_nodes_stream() {
    let (node, owner) = two().await;
    *owner.fake.events.lock().unwrap() =
        Box::new(|_| stream::iter([output(1, "so far")]).chain(stream::pending()).boxed());
    *node.fake.cluster.neighbour.lock().unwrap() = Some(crate::cluster::other(Some("http://n2:1")));
    let mut client = node.unix().await;
    let mut reader = client.events(&fill(ATTACH), &[]).await;
    assert_eq!(reader.next().await.unwrap().name, "output");
    let socket = tokio::net::UnixStream::connect(&node.socket).await.unwrap();
    let mut socket = connect(socket, &fill(ATTACH), &[]).await;
    assert!(matches!(in_time(socket.next()).await, Some(Ok(Message::Ping(_) | Message::Text(_)))));
    node.begin_shutdown();
    let last: Value = reader.next().await.unwrap().data;
    assert_eq!(last["problem"]["code"], "shutting-down");
    assert_eq!(last["problem"]["elsewhere"]["url"], "http://n2:1", "where to go");
    let (events, closed) = told(&mut socket).await;
    assert_eq!(events.last().unwrap()["problem"]["elsewhere"]["name"], "n2");
    assert_eq!(closed, Some((1001, "shutting-down".to_owned())));
    let fake = std::sync::Arc::clone(&node.fake);
    node.ended().await;
    assert_eq!(std::sync::Arc::strong_count(&fake), 1, "nothing of the other node's connections is left");
    owner.stop().await;
}
