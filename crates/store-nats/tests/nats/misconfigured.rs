//! Streams that somebody has made or changed: named with the setting, and not touched.

use outlive_store::Engine;
use outlive_store_nats::ConnectError;
use outlive_store_nats::testing::{NatsCluster, NatsServer, Options};
use serde_json::{Value, json};

use crate::world::{Node, by_hand, refused};

/// The stream of tables, that of the sessions' first shard, that of the blobs.
const STREAMS: [&str; 3] = ["TAB", "SES-0", "BLO"];

/// Which setting is complained of, when somebody has made this stream of a cluster so before its first node came.
struct Wrong {
    stream: &'static str,
    setting: &'static str,
    value: Value,
}

fn wrong(stream: &'static str, setting: &'static str, value: Value) -> Wrong {
    Wrong { stream, setting, value }
}

fn all_wrongs() -> Vec<Wrong> {
    let mut all = vec![
        wrong("SES-0", "subjects", json!(["PREFIX.s.0.*.control"])),
        wrong("SES-0", "retention", json!("workqueue")),
        wrong("SES-0", "retention", json!("interest")),
        wrong("SES-0", "republish", Value::Null),
        wrong("SES-0", "republish", json!({ "src": "PREFIX.s.0.>", "dest": "PREFIX.live.s.0.>" })),
        wrong("SES-0", "max_msgs_per_subject", json!(100)),
        wrong("TAB", "max_msgs_per_subject", json!(5)),
        wrong("TAB", "allow_msg_ttl", Value::Null),
        wrong("TAB", "republish", Value::Null),
        wrong(
            "TAB",
            "republish",
            json!({ "src": "PREFIX.t.>", "dest": "PREFIX.live.t.>", "headers_only": true }),
        ),
        wrong("TAB", "discard_new_per_subject", json!(true)),
        wrong("SES-0", "subject_transform", json!({ "src": "PREFIX.s.0.>", "dest": "PREFIX.elsewhere.>" })),
    ];
    for stream in STREAMS {
        for (setting, value) in [
            ("discard", json!("old")),
            ("storage", json!("memory")),
            ("deny_delete", json!(true)),
            ("deny_purge", json!(true)),
            ("allow_direct", json!(false)),
            ("max_age", json!(3_600_000_000_000_u64)),
            ("max_msgs", json!(1_000)),
            ("max_msg_size", json!(1_000)),
            ("no_ack", json!(true)),
            ("duplicate_window", json!(1_000_000_000)),
        ] {
            all.push(wrong(stream, setting, value));
        }
    }
    all
}

#[tokio::test]
async fn each_setting_that_matters_is_named_when_it_is_wrong() {
    let server = NatsServer::start(&Options::default());
    Node::with(&server.url(), |settings| settings.prefix = "good".into()).await;
    let mut good = Vec::new();
    for stream in STREAMS {
        let name = format!("STREAM.INFO.GOOD-{stream}");
        good.push((stream, by_hand(&server, &name, Value::Null).await["config"].to_string()));
    }
    for (n, Wrong { stream, setting, value }) in all_wrongs().into_iter().enumerate() {
        let prefix = format!("p{n}");
        let (_, config) = good.iter().find(|(name, _)| *name == stream).unwrap();
        let config = config.replace("GOOD-", &format!("{}-", prefix.to_uppercase()));
        let mut config: Value =
            serde_json::from_str(&config.replace("good.", &format!("{prefix}."))).unwrap();
        config[setting] = serde_json::from_str(&value.to_string().replace("PREFIX", &prefix)).unwrap();
        let name = format!("{}-{stream}", prefix.to_uppercase());
        let made = by_hand(&server, &format!("STREAM.CREATE.{name}"), config).await;
        let error = refused(&server.url(), |settings| settings.prefix.clone_from(&prefix)).await;
        let ConnectError::Misconfigured { stream: told, setting: named, .. } = &error else {
            panic!("{stream} with {setting} = {value}: {error:?}")
        };
        assert_eq!((told, named.as_str()), (&name, setting), "with {value}: {error}");
        let after = by_hand(&server, &format!("STREAM.INFO.{name}"), Value::Null).await;
        assert_eq!(after["config"], made["config"], "nothing was changed");
        by_hand(&server, &format!("STREAM.DELETE.{name}"), Value::Null).await;
    }
}

#[tokio::test]
async fn fewer_copies_than_were_asked_for_are_noticed() {
    let cluster = NatsCluster::start(&Options::default());
    Node::on(&cluster.url()).await;
    let error = refused(&cluster.url(), |settings| settings.replicas = 3).await;
    let ConnectError::Misconfigured { setting, found, wanted, .. } = &error else { panic!("{error:?}") };
    assert_eq!((setting.as_str(), found.as_str(), wanted.as_str()), ("num_replicas", "1", "3"));
}

#[tokio::test]
async fn what_is_put_right_is_used_again_with_what_it_held() {
    let server = NatsServer::start(&Options::default());
    let session = Node::on(&server.url()).await.claimed().await.0;
    let mut config = by_hand(&server, "STREAM.INFO.OUTLIVE-SES-1", Value::Null).await["config"].take();
    config["max_age"] = json!(3_600_000_000_000_u64);
    by_hand(&server, "STREAM.UPDATE.OUTLIVE-SES-1", config.clone()).await;
    let error = refused(&server.url(), |_| {}).await;
    let ConnectError::Misconfigured { stream, setting, found, wanted } = &error else { panic!("{error:?}") };
    assert_eq!((stream.as_str(), setting.as_str()), ("OUTLIVE-SES-1", "max_age"));
    assert_eq!((found.as_str(), wanted.as_str()), ("3600000000000", "0"));
    config["max_age"] = json!(0);
    // A bound of the administrator's is his.
    config["max_bytes"] = json!(1 << 30);
    by_hand(&server, "STREAM.UPDATE.OUTLIVE-SES-1", config).await;
    assert_eq!(Node::on(&server.url()).await.nats.sessions().await.unwrap(), [session]);
}
