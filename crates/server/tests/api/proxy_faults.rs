//! Another node that is gone, frozen, foreign or confused: told in time, and never as an empty success.

use std::time::Duration;

use outlive_protocol::http::Problem;
use outlive_server::Bounds;
use serde_json::json;
use tokio::net::{TcpListener, UnixStream};

use crate::chat::streamed;
use crate::client::{CLUSTER_TOKEN, Event, Server, fill, in_time};
use crate::impostor::Impostor;
use crate::proxy::{ATTACH, asks, two};
use crate::streams::channel_stream;
use crate::websockets::{connect, told};

const SESSION_PATH: &str = "/v1/sessions/{id}";
const STREAM: &str = "HTTP/1.1 200 OK\r\noutlive-api: 1\r\ncontent-type: text/event-stream\r\n\r\n";

/// What a request for a session is told, and within which time.
async fn refusal(node: &Server, within: Duration) -> Problem {
    let mut client = node.unix().await;
    let path = fill(SESSION_PATH);
    let answered = tokio::time::timeout(within, client.get(&path)).await;
    let problem = answered.expect("nobody waits for a node that is not there").problem();
    assert_eq!(problem.facts.get("owner").map_or("n2", String::as_str), "n2");
    problem
}

/// All events of a stream that another node sends, up to its last word.
async fn events_of(node: &Server) -> Vec<Event> {
    let mut client = node.unix().await;
    client.events(&fill(ATTACH), &[]).await.rest().await
}

fn code(event: &Event) -> &str {
    assert_eq!(event.name, "problem", "{event:?}");
    event.data["problem"]["code"].as_str().unwrap()
}

const SOON: Duration = Duration::from_secs(10);

// E11
#[tokio::test]
async fn a_node_that_is_not_there_is_named_with_what_to_do() {
    // Nobody listens there any more.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let node = asks(&url).await;
    let refused = refusal(&node, SOON).await;
    assert_eq!((refused.status, refused.code.as_str()), (503, "owner-unreachable"));
    assert!(
        refused.detail.contains("n2") && refused.detail.contains("Nothing was done"),
        "{}",
        refused.detail
    );
    for (url, said) in [
        (None, "no address"),
        (Some("https://n2:8787"), "https://n2:8787"),
        (Some("not a url"), "not a url"),
        (Some("/v1"), "/v1"),
        (Some("http://name.invalid:8787"), "cannot be reached"),
    ] {
        node.fake.cluster.elsewhere(url);
        let refused = refusal(&node, SOON).await;
        assert_eq!((refused.status, refused.code.as_str()), (503, "owner-unreachable"), "{url:?}");
        assert!(refused.detail.contains(said), "{}", refused.detail);
    }
    node.stop().await;
}

// E3
#[tokio::test]
async fn a_frozen_node_hangs_nobody() {
    let impostor = Impostor::frozen().await;
    let node = asks(&impostor.url()).await;
    let refused = refusal(&node, SOON).await;
    assert_eq!((refused.status, refused.code.as_str()), (503, "owner-silent"));
    let path = fill("/v1/sessions/{id}/stop");
    let answer = node.unix().await.post(&path, &json!({})).await;
    // It may have been done before it froze.
    assert_eq!(answer.problem().code, "owner-lost");
    assert!(answer.problem().detail.contains("not known"), "{:?}", answer.body);
    assert_eq!(answer.headers["retry-after"], "1");
    let websocket = [
        ("host", "localhost"),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let answer = node.unix().await.call("GET", &fill(ATTACH), &websocket, b"").await;
    assert_eq!(answer.problem().code, "owner-silent");
    node.stop().await;
}

// E1
#[tokio::test]
async fn a_node_that_the_cluster_has_lost_is_not_waited_for() {
    let impostor = Impostor::frozen().await;
    let node = asks(&impostor.url()).await;
    node.fake.cluster.lost.send_replace(true);
    // Well before anybody would take silence for death.
    let refused = refusal(&node, Duration::from_millis(400)).await;
    assert_eq!((refused.status, refused.code.as_str()), (503, "owner-silent"));
    let owner = Impostor::answers(&format!("{STREAM}:\n\n")).await;
    node.fake.cluster.elsewhere(Some(&owner.url()));
    node.fake.cluster.lost.send_replace(false);
    let mut client = node.unix().await;
    let mut reader = client.events(&fill(ATTACH), &[]).await;
    node.fake.cluster.lost.send_replace(true);
    let last = tokio::time::timeout(Duration::from_millis(400), reader.next()).await.unwrap().unwrap();
    assert_eq!(code(&last), "owner-silent");
    assert_eq!(reader.next().await, None);
    node.stop().await;
}

// E1
#[tokio::test]
async fn a_stream_whose_owner_dies_in_the_middle_of_an_event_ends_with_a_whole_word() {
    let half = "id: 1.1\nevent: output\ndata: {\"event\":\"output\"}\n\nid: 1.2\nevent: out";
    for mid_stream in [format!("{STREAM}{half}"), STREAM.to_owned(), format!("{STREAM}:\n\n:\n\n")] {
        let owner = Impostor::hangs_up_after(&mid_stream).await;
        let node = asks(&owner.url()).await;
        let events = events_of(&node).await;
        let (last, whole) = events.split_last().unwrap();
        assert_eq!(code(last), "owner-silent");
        assert!(last.data["problem"]["hint"].as_str().unwrap().contains("`id`"), "{last:?}");
        assert_eq!(whole.len(), usize::from(mid_stream.contains("id: 1.1")), "whole events only");
        node.stop().await;
    }
}

// E3
#[tokio::test]
async fn a_stream_whose_owner_is_frozen_ends_after_a_second() {
    let event = "id: 1.1\nevent: output\ndata: {\"event\":\"output\"}\n\n";
    let owner = Impostor::answers(&format!("{STREAM}{event}id: 1.2\nevent: o")).await;
    let node = asks(&owner.url()).await;
    let mut client = node.unix().await;
    let mut reader = client.events(&fill(ATTACH), &[]).await;
    assert_eq!(reader.next().await.unwrap().id.as_deref(), Some("1.1"));
    let last = tokio::time::timeout(Duration::from_secs(5), reader.next()).await.unwrap().unwrap();
    assert_eq!(code(&last), "owner-silent");
    assert!(reader.comments >= 2, "this node was there meanwhile: {}", reader.comments);
    assert_eq!(reader.next().await, None);
    node.stop().await;
}

#[tokio::test]
async fn a_chat_whose_owner_dies_ends_as_openais_clients_read_it() {
    let begun = "data: {\"choices\":[]}\n\ndata: {\"cho";
    let owner = Impostor::hangs_up_after(&format!("{STREAM}{begun}")).await;
    let node = asks(&owner.url()).await;
    let mut client = node.unix().await;
    let (_, mut reader) = streamed(&mut client, json!({})).await;
    assert_eq!(reader.data().await.unwrap(), "{\"choices\":[]}");
    let error: serde_json::Value = serde_json::from_str(&reader.data().await.unwrap()).unwrap();
    assert_eq!(error["error"]["code"], "owner-silent");
    assert_eq!(reader.data().await.unwrap(), "[DONE]");
    assert_eq!(reader.data().await, None);
    node.fake.cluster.elsewhere(None);
    let refused = node.unix().await.post(crate::chat::CHAT, &crate::chat::body(json!({}))).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["error"]["code"]),
        (503, &"owner-unreachable".into())
    );
    node.stop().await;
}

// E1 E3
#[tokio::test]
async fn a_websocket_whose_owner_is_gone_or_frozen_says_so() {
    for (owner, ends) in [
        (Impostor::breaks_off().await, "was lost"),
        (Impostor::says("{\"event\":\"output\"}").await, "said nothing"),
    ] {
        let node = asks(&owner.url()).await;
        let mut socket = connect(UnixStream::connect(&node.socket).await.unwrap(), &fill(ATTACH), &[]).await;
        let (events, closed) = told(&mut socket).await;
        let (last, before) = events.split_last().unwrap();
        assert!(last["problem"]["detail"].as_str().unwrap().contains(ends), "{last}");
        assert_eq!(before.len(), usize::from(ends == "said nothing"), "whole messages only");
        assert_eq!(closed, Some((4503, "owner-silent".to_owned())));
        node.stop().await;
    }
}

// E1
#[tokio::test]
async fn an_owner_that_is_killed_in_the_middle_of_many_streams_is_told_in_all_of_them() {
    let (node, owner) = two().await;
    let events = channel_stream(&owner);
    let mut client = node.unix().await;
    let mut reader = client.events(&fill(ATTACH), &[]).await;
    events.send(crate::fake::output(1, "so far")).unwrap();
    assert_eq!(reader.next().await.unwrap().name, "output");
    owner.kill().await;
    assert_eq!(code(&reader.next().await.unwrap()), "owner-silent");
    assert_eq!(
        refusal(&node, SOON).await.code,
        "owner-unreachable",
        "and a kept connection is not used again"
    );
    node.stop().await;
}

#[tokio::test]
async fn nodes_that_point_at_each_other_ask_once() {
    let (node, owner) = two().await;
    owner.fake.cluster.elsewhere(Some(&format!("http://{}", node.address)));
    let refused = refusal(&node, SOON).await;
    assert_eq!((refused.status, refused.code.as_str()), (503, "session-moving"));
    let own = asks("http://127.0.0.1:1").await;
    own.fake.cluster.elsewhere(Some(&format!("http://{}", own.address)));
    assert_eq!(refusal(&own, SOON).await.code, "session-moving", "a node that points at itself");
    for server in [node, owner, own] {
        server.stop().await;
    }
}

// B6
#[tokio::test]
async fn a_node_of_another_cluster_is_not_taken_for_one_of_ours() {
    let stranger = Server::start_in_cluster("00000000000000000000000000000000", Bounds::default()).await;
    let node = asks(&format!("http://{}", stranger.address)).await;
    let refused = refusal(&node, SOON).await;
    assert_eq!(
        (refused.status, refused.code.as_str()),
        (502, "owner-refuses"),
        "not 401: the client did nothing wrong"
    );
    assert!(!format!("{refused:?}").contains(CLUSTER_TOKEN), "the token is not told");
    assert!(stranger.fake.calls().is_empty());
    let mut client = stranger.tcp().await;
    let headers = [("host", "localhost"), ("authorization", &*format!("Bearer {CLUSTER_TOKEN}"))];
    let answer = client.call("GET", "/v1/node", &headers, b"").await;
    assert_eq!(answer.problem().code, "wrong-token");
    node.stop().await;
    stranger.stop().await;
}

#[tokio::test]
async fn what_is_no_node_is_not_believed() {
    for garbage in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\noutlive-api: 2\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 999999 What\r\n\r\n",
        "HTTP/1.1 200 OK\r\noutlive-api: 1\r\ncontent-length: -5\r\n\r\n",
    ] {
        let impostor = Impostor::hangs_up_after(garbage).await;
        let node = asks(&impostor.url()).await;
        let refused = refusal(&node, SOON).await;
        assert_eq!((refused.status, refused.code.as_str()), (502, "owner-garbled"), "{garbage:?}");
        assert_eq!(impostor.requests(), 1, "it was asked once");
        node.stop().await;
    }
    // A head without end does not fill the memory.
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(1 << 20));
    let impostor = Impostor::hangs_up_after(&endless).await;
    let node = asks(&impostor.url()).await;
    let refused = refusal(&node, SOON).await;
    assert!(["owner-garbled", "owner-silent"].contains(&refused.code.as_str()), "{refused:?}");
    node.stop().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_for_the_client_too() {
    let half = "HTTP/1.1 200 OK\r\noutlive-api: 1\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"a\":";
    let impostor = Impostor::hangs_up_after(half).await;
    let node = asks(&impostor.url()).await;
    let mut client = node.unix().await;
    let path = fill(SESSION_PATH);
    let response = client.send(crate::client::request("GET", &path, &[("host", "x")], b"")).await;
    let body = http_body_util::BodyExt::collect(response.into_body());
    assert!(in_time(body).await.is_err(), "half an answer is no answer");
    let cut = Impostor::hangs_up_after("").await;
    node.fake.cluster.elsewhere(Some(&cut.url()));
    let refused = refusal(&node, SOON).await;
    assert_eq!((refused.status, refused.code.as_str()), (503, "owner-silent"), "asking again does no harm");
    let answer = node.unix().await.post(&fill("/v1/sessions/{id}/stop"), &json!({})).await.problem();
    assert_eq!((answer.status, answer.code.as_str()), (503, "owner-lost"));
    assert!(answer.detail.contains("not known"), "{}", answer.detail);
    node.stop().await;
}

#[tokio::test]
async fn a_daemon_that_is_alone_tells_its_client_where_it_is() {
    let alone = Server::start().await;
    alone.fake.cluster.elsewhere(Some("http://127.0.0.1:1"));
    let refused = refusal(&alone, SOON).await;
    assert_eq!((refused.status, refused.code.as_str()), (421, "elsewhere"));
    assert_eq!(refused.elsewhere.unwrap().name, "n2");
    alone.stop().await;
}
