//! Why an engine cannot begin, each said so that somebody can do something about it.

use std::time::Duration;

use outlive_store::Engine;
use outlive_store_nats::testing::{Access, JetStream, NatsServer, Options};
use outlive_store_nats::{ConnectError, Credentials, Nats, Settings};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fake;
use crate::world::{Node, settings};

async fn refused(servers: &str, change: impl FnOnce(&mut Settings)) -> ConnectError {
    let spool = TempDir::new().unwrap();
    let mut settings = settings(servers, &spool);
    change(&mut settings);
    Nats::connect(settings).await.expect_err("it cannot be used")
}

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
async fn credentials_are_checked() {
    let token = |text: &str| Credentials::Token(text.to_owned());
    let server = NatsServer::start(&Options { access: Access::Token("right".into()), ..Options::default() });
    for wrong in [Credentials::None, token("wrong"), user("somebody", "right")] {
        let error = refused(&server.url(), |settings| settings.credentials = wrong).await;
        assert!(matches!(error, ConnectError::WrongCredentials { .. }), "{error:?}");
        assert!(!error.to_string().contains("wrong"), "no secret is shown: {error}");
    }
    Node::with(&server.url(), |settings| settings.credentials = token("right")).await;

    let password = Access::Password { user: "me".into(), password: "secret".into() };
    let server = NatsServer::start(&Options { access: password, ..Options::default() });
    let error = refused(&server.url(), |settings| settings.credentials = user("me", "wrong")).await;
    assert!(matches!(error, ConnectError::WrongCredentials { .. }), "{error:?}");
    Node::with(&server.url(), |settings| settings.credentials = user("me", "secret")).await;

    let absent = Credentials::File("/nowhere/outlive.creds".into());
    let error = refused(&server.url(), |settings| settings.credentials = absent).await;
    assert!(error.to_string().contains("/nowhere/outlive.creds"), "{error}");
}

fn user(user: &str, password: &str) -> Credentials {
    Credentials::User { user: user.to_owned(), password: password.to_owned() }
}

#[tokio::test]
async fn an_nkey_is_taken() {
    let pair = nkeys::KeyPair::new_user();
    let (public, seed) = (pair.public_key(), pair.seed().unwrap());
    let server = NatsServer::start(&Options { access: Access::Nkey(public), ..Options::default() });
    let error = refused(&server.url(), |_| {}).await;
    assert!(matches!(error, ConnectError::WrongCredentials { .. }), "{error:?}");
    Node::with(&server.url(), |settings| settings.credentials = Credentials::Nkey(seed)).await;
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

/// A request of JetStream that somebody makes by hand.
async fn by_hand(server: &NatsServer, operation: &str, request: Value) -> Value {
    let client = async_nats::connect(server.url()).await.unwrap();
    let answer = client.request(format!("$JS.API.{operation}"), request.to_string().into()).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert!(answer["error"].is_null(), "{answer}");
    answer
}

#[tokio::test]
async fn a_stream_that_somebody_has_changed_is_named() {
    let server = NatsServer::start(&Options::default());
    let session = Node::on(&server.url()).await.claimed().await.0;
    let mut config = by_hand(&server, "STREAM.INFO.OUTLIVE-SES-1", Value::Null).await["config"].take();
    config["max_age"] = json!(3_600_000_000_000_u64);
    by_hand(&server, "STREAM.UPDATE.OUTLIVE-SES-1", config.clone()).await;
    let error = refused(&server.url(), |_| {}).await;
    let ConnectError::Misconfigured { stream, setting, found, wanted } = &error else { panic!("{error:?}") };
    assert_eq!((stream.as_str(), setting.as_str()), ("OUTLIVE-SES-1", "max_age"));
    assert_eq!((found.as_str(), wanted.as_str()), ("3600000000000", "0"));
    // Put right by hand, it is used again, with what it held. A bound of the administrator's is his.
    config["max_age"] = json!(0);
    config["max_bytes"] = json!(1 << 30);
    by_hand(&server, "STREAM.UPDATE.OUTLIVE-SES-1", config).await;
    assert_eq!(Node::on(&server.url()).await.nats.sessions().await.unwrap(), [session]);
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
