//! Why an engine cannot begin, each said so that somebody can do something about it.

use std::time::Duration;

use outlive_store_nats::ConnectError;
use outlive_store_nats::testing::{Access, JetStream, NatsServer, Options};
use serde_json::{Value, json};

use crate::fake;
use crate::world::{Node, by_hand, refused};

#[tokio::test]
async fn nobody_is_there() {
    let mut server = NatsServer::start(&Options::default());
    let url = server.url();
    server.kill();
    let error = refused(&url, |_| {}).await;
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains(&url), "{error}");
    // Waited for, it is used as soon as it is there.
    let waiting = Node::with(&url, |settings| settings.wait = Some(Duration::from_secs(60)));
    let start = tokio::task::spawn_blocking(move || {
        server.restart();
        server
    });
    let (node, _server) = tokio::join!(waiting, start);
    node.claimed().await;
}

#[tokio::test]
async fn a_wait_ends() {
    let mut server = NatsServer::start(&Options::default());
    server.kill();
    let error = refused(&server.url(), |settings| settings.wait = Some(Duration::from_secs(2))).await;
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn an_old_server_is_refused() {
    let error = refused(&fake::start("2.9.10", |_, _| Value::Null), |_| {}).await;
    let ConnectError::TooOld { found, .. } = &error else { panic!("{error:?}") };
    assert_eq!(found, "2.9.10");
}

#[tokio::test]
async fn a_server_without_jetstream_is_refused() {
    let server = NatsServer::start(&Options { jetstream: JetStream::Off, ..Options::default() });
    let error = refused(&server.url(), |_| {}).await;
    assert!(matches!(error, ConnectError::NoJetStream { whose: "", .. }), "{error:?}");
    let server = NatsServer::start(&Options { access: Access::StoringForbidden, ..Options::default() });
    let error = refused(&server.url(), |_| {}).await;
    assert!(matches!(error, ConnectError::NoJetStream { whose: " for this account", .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_takes_short_messages_only_is_refused() {
    let server = NatsServer::start(&Options { message_bytes_max: Some(64 << 10), ..Options::default() });
    let error = refused(&server.url(), |_| {}).await;
    assert!(matches!(error, ConnectError::SmallMessages { found: 65_536, .. }), "{error:?}");
}

#[tokio::test]
async fn subjects_that_another_stream_has_are_named() {
    let server = NatsServer::start(&Options::default());
    let other = json!({ "name": "OTHER", "subjects": ["outlive.s.0.>"] });
    by_hand(&server, "STREAM.CREATE.OTHER", other).await;
    let error = refused(&server.url(), |_| {}).await;
    assert!(matches!(error, ConnectError::SubjectsTaken { .. }), "{error:?}");
    Node::with(&server.url(), |settings| settings.prefix = "second".into()).await;
}

#[tokio::test]
async fn a_setting_that_a_server_drops_is_noticed() {
    // As 2.8 did with settings that it did not know.
    let url = fake::start("2.11.0", |operation, request| {
        if operation.starts_with("STREAM.INFO") {
            return json!({ "error": { "code": 404, "err_code": 10059, "description": "stream not found" } });
        }
        let mut config = request.clone();
        config["allow_msg_ttl"] = Value::Null;
        json!({ "config": config })
    });
    let error = refused(&url, |_| {}).await;
    let ConnectError::Dropped { stream, setting, .. } = &error else { panic!("{error:?}") };
    assert_eq!((stream.as_str(), setting.as_str()), ("OUTLIVE-TAB", "allow_msg_ttl"));
}

#[tokio::test]
async fn replicas_need_servers() {
    let server = NatsServer::start(&Options::default());
    let error = refused(&server.url(), |settings| settings.replicas = 3).await;
    assert!(matches!(error, ConnectError::TooFewServers { replicas: 3, .. }), "{error:?}");
}

#[tokio::test]
async fn the_first_node_settles_how_data_lies() {
    let server = NatsServer::start(&Options::default());
    Node::on(&server.url()).await;
    let error = refused(&server.url(), |settings| settings.shards = 8).await;
    let ConnectError::OtherCluster { setting: "shards", theirs, ours } = &error else { panic!("{error:?}") };
    assert_eq!((theirs.as_str(), ours.as_str()), ("2", "8"));
    let names = by_hand(&server, "STREAM.NAMES", json!({})).await;
    assert_eq!(names["total"], 4, "nothing was made for the other one: {names}");
}
