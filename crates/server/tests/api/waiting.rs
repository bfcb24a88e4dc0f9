//! Alive, ready, and not yet: a server that is there before its node, and what a node says of itself and the others.

use std::sync::Arc;

use outlive_node::api::Api;
use outlive_protocol::http::Problem;
use serde_json::json;

use crate::client::{CLUSTER_TOKEN, Server, TOKEN, fill};
use crate::cluster::takeover;
use crate::requests::create_body;

// E11
#[tokio::test]
async fn a_daemon_that_waits_for_its_store_is_alive_and_says_for_what() {
    let (server, front) = Server::start_waiting("NATS at nats://a:4222 does not answer").await;
    let mut client = server.unix().await;
    let live = client.get("/v1/live").await;
    assert_eq!((live.status.as_u16(), &live.json()["ready"]), (200, &json!(false)));
    assert_eq!(client.get("/v1/node").await.json()["pid"], 4711);
    for path in ["/v1/ready", "/v1/sessions", "/metrics", "/no/such/route", &fill("/v1/sessions/{id}/attach")]
    {
        let answer = client.get(path).await;
        assert_eq!(answer.headers["retry-after"], "1");
        let problem = answer.problem();
        assert_eq!((problem.status, problem.code.as_str()), (503, "joining"), "{path}");
        assert!(problem.detail.contains("nats://a:4222"), "{problem:?}");
    }
    let chat = client.get("/v1/models").await;
    assert_eq!((chat.status.as_u16(), &chat.json()["error"]["code"]), (503, &json!("joining")));
    assert_eq!(client.post("/v1/sessions", &create_body()).await.problem().code, "joining");
    let mut stranger = server.tcp().await;
    let live = stranger.get("/v1/live").await;
    assert_eq!(
        (live.status.as_u16(), &live.json()["pid"]),
        (200, &json!(0)),
        "a stranger is told no more than before"
    );
    assert_eq!(stranger.get("/v1/ready").await.problem().code, "no-token");
    front.wait_for("the other nodes are not heard yet");
    assert!(client.get("/v1/ready").await.problem().detail.contains("not heard yet"));
    assert!(server.fake.calls().is_empty());
    front.open(Arc::clone(&server.fake) as Arc<dyn Api>, axum::Router::new());
    assert_eq!(client.get("/v1/ready").await.json()["ready"], true);
    assert_eq!(client.post("/v1/sessions", &create_body()).await.status, 201);
    drop(front);
    server.stop().await;
}

// E11
#[tokio::test]
async fn ready_says_why_not_and_alive_does_not_depend_on_it() {
    let server = Server::start().await;
    let mut client = server.unix().await;
    for code in ["joining", "isolated", "draining", "store-unavailable"] {
        let problem = Problem::new(503, code, "Not ready", "For a reason.").hint("Wait.");
        *server.fake.cluster.unready.lock().unwrap() = Some(problem);
        let refused = client.get("/v1/ready").await.problem();
        assert_eq!((refused.status, refused.code.as_str()), (503, code));
        assert_eq!(client.get("/v1/live").await.status, 200);
        assert_eq!(client.get(&fill("/v1/sessions/{id}")).await.status, 200, "what it can do it does");
    }
    *server.fake.cluster.unready.lock().unwrap() = None;
    assert_eq!(client.get("/v1/ready").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn nodes_takeovers_and_a_drain() {
    let server = Server::start().await;
    let mut client = server.unix().await;
    let nodes = client.get("/v1/nodes").await.json();
    assert_eq!((&nodes["nodes"][0]["name"], &nodes["nodes"][0]["state"]), (&json!("n2"), &json!("alive")));
    assert_eq!(nodes["takeovers"][0]["why"], "silent");
    let takeovers = client.get(&fill("/v1/sessions/{id}/takeovers")).await.json();
    assert_eq!(takeovers, json!([takeover()]));
    let drained = client.post("/v1/node/drain", &json!({ "cell_grace_ms": 1_500, "stop": true })).await;
    assert_eq!(drained.json()["released"][0], crate::fake::SESSION.to_string());
    let bare = client.call("POST", "/v1/node/drain", &[("host", "x")], b"").await;
    assert_eq!(bare.status, 200, "a drain needs no wish");
    assert_eq!(
        server.fake.calls(),
        ["drain cell_grace_ms=1500 stop=true", "drain cell_grace_ms=0 stop=false"]
    );
    server.stop().await;
}

// B6
#[tokio::test]
async fn the_clusters_token_opens_the_door_beside_the_nodes_own() {
    let server = Server::start_in_cluster(CLUSTER_TOKEN, outlive_server::Bounds::default()).await;
    let alone = Server::start().await;
    let asked = async |server: &Server, token: &str, host: &str| {
        let headers = [("host", host), ("authorization", &*format!("Bearer {token}"))];
        server.tcp().await.call("GET", "/v1/node", &headers, b"").await
    };
    for token in [TOKEN, CLUSTER_TOKEN] {
        assert_eq!(asked(&server, token, "localhost").await.status, 200);
        assert_eq!(asked(&server, token, "evil.example").await.problem().code, "foreign-host");
    }
    assert_eq!(asked(&alone, CLUSTER_TOKEN, "localhost").await.problem().code, "wrong-token");
    server.stop().await;
    alone.stop().await;
}
