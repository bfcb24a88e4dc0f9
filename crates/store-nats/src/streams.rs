//! The streams of a cluster: made as they have to be, or found so. A server that drops a setting, and somebody who changed
//! one, are told apart and named; nothing that exists is changed here.

use std::error::Error;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use outlive_core::id::Revision;
use outlive_core::limits::{NATS_REPEAT_MS, NATS_SETTLE_MS, NATS_SETTLE_STEP_MS};
use outlive_store::TableError;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep_until};

use crate::api::{self, ApiError, code};
use crate::error::ConnectError;
use crate::layout::Layout;
use crate::nats::Inner;
use crate::wire::{CallError, Wire};

/// Version of the layout and of what stands in the messages.
const FORMAT: u64 = 1;
/// The status of a refusal that passes.
const UNAVAILABLE: u64 = 503;
/// A sequence that no stream ever reaches.
const NEVER: u64 = 1 << 53;
/// Where the cluster's own settings are.
const TABLE: &str = "cluster";
const KEY: &str = "settings";
/// What a stream of ours never has: it would change, copy or refuse what we store.
const UNWANTED: [&str; 6] = [
    "mirror",
    "sources",
    "subject_transform",
    "discard_new_per_subject",
    "subject_delete_marker_ttl",
    "allow_msg_counter",
];

/// Whether somebody keeps things there for us.
pub(crate) async fn check_jetstream(wire: &Wire) -> Result<(), ConnectError> {
    let info = wire.client().server_info();
    let server = format!("{}:{}", info.host, info.port);
    match wire.api("INFO", &Value::Null).await {
        Ok(_) => Ok(()),
        Err(ApiError::Call(CallError::Nobody)) if !info.jetstream => {
            Err(ConnectError::NoJetStream { server, whose: "" })
        }
        Err(error) if error.is(code::NOT_ENABLED) => Err(ConnectError::NoJetStream { server, whose: "" }),
        Err(error) if error.is(code::NOT_ENABLED_FOR_ACCOUNT) => {
            Err(ConnectError::NoJetStream { server, whose: " for this account" })
        }
        Err(error) => Err(refused("use JetStream", &error)),
    }
}

/// Makes or checks the stream of tables, where the cluster's settings are.
pub(crate) async fn ensure_tables(wire: &Wire, layout: &Layout, replicas: u8) -> Result<(), ConnectError> {
    let live = json!({ "src": layout.tables(), "dest": layout.live_tables() });
    let own = json!({ "max_msgs_per_subject": 1, "allow_msg_ttl": true, "republish": live });
    stream(wire, &layout.table_stream(), &layout.tables(), replicas, own).await
}

/// Makes or checks all others.
pub(crate) async fn ensure(wire: &Wire, layout: &Layout, replicas: u8) -> Result<(), ConnectError> {
    for (k, name) in layout.session_streams() {
        let live = json!({
            "src": layout.shard_subjects(k), "dest": layout.live_shard(k), "headers_only": true,
        });
        let own = json!({ "republish": live });
        stream(wire, &name, &layout.shard_subjects(k), replicas, own).await?;
    }
    stream(wire, &layout.blob_stream(), &layout.blobs(), replicas, json!({})).await
}

/// What every stream of ours is: it keeps everything until we remove it, and refuses what it cannot keep.
fn wanted(name: &str, subjects: &str, replicas: u8, own: Value) -> Map<String, Value> {
    let mut config = json!({
        "name": name,
        "subjects": [subjects],
        "retention": "limits",
        "discard": "new",
        "storage": "file",
        "max_consumers": -1,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_msgs_per_subject": -1,
        "max_msg_size": -1,
        "num_replicas": replicas,
        "duplicate_window": NATS_REPEAT_MS * 1_000_000,
        "allow_direct": true,
        "deny_delete": false,
        "deny_purge": false,
        "sealed": false,
        "no_ack": false,
    });
    if let (Value::Object(config), Value::Object(own)) = (&mut config, own) {
        config.extend(own);
    }
    match config {
        Value::Object(config) => config,
        _ => unreachable!("it is written as one above"),
    }
}

async fn stream(
    wire: &Wire,
    name: &str,
    subjects: &str,
    replicas: u8,
    own: Value,
) -> Result<(), ConnectError> {
    let wanted = wanted(name, subjects, replicas, own);
    let is_new = match patiently(wire, &format!("STREAM.INFO.{name}"), &Value::Null).await {
        Ok(found) => {
            if let Some((setting, found, wanted)) = difference(&wanted, &found["config"]) {
                return Err(ConnectError::Misconfigured { stream: name.to_owned(), setting, found, wanted });
            }
            // Another node may have made it a moment ago.
            return settled(wire, name, subjects).await;
        }
        Err(error) => error,
    };
    if !is_new.is(code::NO_STREAM) {
        return Err(refused(&format!("tell of the stream {name}"), &is_new));
    }
    let request = Value::Object(wanted.clone());
    let made = match patiently(wire, &format!("STREAM.CREATE.{name}"), &request).await {
        Ok(made) => made,
        // Another node makes the same one at this moment; it is looked at as one that was there.
        Err(error) if error.is(code::NAME_IN_USE) => {
            let found = patiently(wire, &format!("STREAM.INFO.{name}"), &Value::Null).await;
            found.map_err(|error| refused(&format!("tell of the stream {name}"), &error))?
        }
        Err(error) => return Err(not_made(name, subjects, replicas, &error)),
    };
    match difference(&wanted, &made["config"]) {
        None => settled(wire, name, subjects).await,
        Some((setting, found, wanted)) => {
            Err(ConnectError::Dropped { stream: name.to_owned(), setting, found, wanted })
        }
    }
}

/// Asks again while the servers are busy with each other: with an election, or with the stream that is asked for.
async fn patiently(wire: &Wire, operation: &str, request: &Value) -> Result<Value, ApiError> {
    let deadline = Instant::now() + Duration::from_millis(NATS_SETTLE_MS);
    loop {
        match wire.api(operation, request).await {
            Err(ApiError::Call(_) | ApiError::Refused { status: UNAVAILABLE, .. })
                if Instant::now() < deadline =>
            {
                sleep_until(Instant::now() + Duration::from_millis(NATS_SETTLE_STEP_MS)).await;
            }
            other => return other,
        }
    }
}

/// Waits until a stream has its leader, and the server that we are connected to knows of it. It is asked to store what it
/// has to refuse, by its guard if by nothing else.
async fn settled(wire: &Wire, name: &str, subjects: &str) -> Result<(), ConnectError> {
    let deadline = Instant::now() + Duration::from_millis(NATS_SETTLE_MS);
    let subject = subjects.replace('>', "settled");
    loop {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Last-Subject-Sequence", NEVER.to_string());
        let asked = wire.call(subject.clone(), Some(headers), Bytes::new()).await;
        let asked = asked.map_err(ApiError::from).and_then(|answer| api::acknowledged(&answer));
        let looked = wire.direct_last(name, &subject).await;
        let error = match (asked, looked) {
            (Err(ApiError::Refused { status, .. }), Ok(_)) if status != UNAVAILABLE => return Ok(()),
            (_, Err(error)) | (Err(error), _) => error,
            (Ok(_), Ok(_)) => ApiError::Odd("it has stored what it had to refuse".to_owned()),
        };
        if Instant::now() > deadline {
            return Err(refused(&format!("use the stream {name}"), &error));
        }
        sleep_until(Instant::now() + Duration::from_millis(NATS_SETTLE_STEP_MS)).await;
    }
}

fn not_made(stream: &str, subjects: &str, replicas: u8, error: &ApiError) -> ConnectError {
    let (stream, subjects, why) = (stream.to_owned(), subjects.to_owned(), error.to_string());
    match error {
        ApiError::Refused { code: code::OVERLAP, .. } => {
            ConnectError::SubjectsTaken { stream, subjects, why }
        }
        ApiError::Refused { code: code::NO_PEERS | code::NOT_CLUSTERED, .. } => {
            ConnectError::TooFewServers { replicas, why }
        }
        ApiError::Refused { code, .. } if code::NO_RESOURCES.contains(code) => {
            ConnectError::NoRoom { stream, why }
        }
        ApiError::Call(_) | ApiError::Refused { .. } | ApiError::Odd(_) => {
            ConnectError::Refused { what: format!("make the stream {stream}"), why }
        }
    }
}

fn refused(what: &str, error: &ApiError) -> ConnectError {
    ConnectError::Refused { what: what.to_owned(), why: error.to_string() }
}

/// The first setting that is not as it has to be: its name, as it is, as it has to be. A server leaves out what is off.
fn difference(wanted: &Map<String, Value>, found: &Value) -> Option<(String, String, String)> {
    let differs = wanted.iter().find_map(|(setting, wanted)| {
        let found = &found[setting];
        let fits = match (setting.as_str(), wanted) {
            // An administrator may bound how much a stream takes up: it refuses what is more.
            ("max_bytes", _) => true,
            ("duplicate_window", wanted) => found.as_u64() >= wanted.as_u64(),
            ("republish", wanted) => ["src", "dest", "headers_only"]
                .iter()
                .all(|part| found[part] == wanted[part] || (is_off(&found[part]) && is_off(&wanted[part]))),
            (_, wanted) => found == wanted || (is_off(found) && is_off(wanted)),
        };
        (!fits).then(|| (setting.clone(), in_words(found), in_words(wanted)))
    });
    differs.or_else(|| {
        let setting = UNWANTED.iter().find(|setting| !is_off(&found[**setting]))?;
        Some(((*setting).to_owned(), in_words(&found[setting]), in_words(&Value::Null)))
    })
}

fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Array(all) => all.is_empty(),
        Value::Bool(true) | Value::String(_) | Value::Object(_) => false,
    }
}

fn in_words(value: &Value) -> String {
    if value.is_null() { "not set".to_owned() } else { value.to_string() }
}

impl Inner {
    /// The first node of a cluster writes down how its data lies; every other must see it the same way.
    pub(crate) async fn agree(&self) -> Result<(), ConnectError> {
        let ours = json!({ "format": FORMAT, "shards": self.layout.shards });
        let failed = |error: &(dyn Error + 'static)| ConnectError::Refused {
            what: "agree on the cluster's settings".to_owned(),
            why: error.source().unwrap_or(error).to_string(),
        };
        let value = ours.to_string();
        match self.put_if(TABLE, KEY, Revision(0), value.as_bytes()).await {
            Ok(_) => return Ok(()),
            Err(TableError::Conflict { .. } | TableError::Unknown) => {}
            Err(error) => return Err(failed(&error)),
        }
        let row = self.get(TABLE, KEY).await.map_err(|error| failed(&error))?;
        let row = row.ok_or_else(|| failed(&ApiError::Odd("its settings are gone again".to_owned())))?;
        let theirs: Value = serde_json::from_slice(&row.value).map_err(|error| failed(&error))?;
        for setting in ["format", "shards"] {
            if theirs[setting] != ours[setting] {
                return Err(ConnectError::OtherCluster {
                    setting,
                    theirs: theirs[setting].to_string(),
                    ours: ours[setting].to_string(),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_is_off_may_be_left_out() {
        let wanted = wanted("S", "s.>", 3, json!({ "republish": { "src": "a", "dest": "b" } }));
        let mut found = wanted.clone();
        for off in ["deny_delete", "deny_purge", "sealed", "no_ack", "max_age"] {
            found.remove(off);
        }
        found["max_bytes"] = json!(1 << 30);
        found["duplicate_window"] = json!(120_000_000_000_u64);
        found.insert("placement".to_owned(), json!({ "cluster": "c" }));
        assert_eq!(difference(&wanted, &Value::Object(found.clone())), None);
        for (setting, value) in [
            ("max_age", json!(5)),
            ("allow_direct", Value::Null),
            ("republish", json!({ "src": "a", "dest": "c" })),
            ("num_replicas", json!(1)),
            ("discard", json!("old")),
            ("mirror", json!({ "name": "OTHER" })),
        ] {
            let mut changed = found.clone();
            changed.insert(setting.to_owned(), value);
            let (named, ..) = difference(&wanted, &Value::Object(changed)).expect("it is noticed");
            assert_eq!(named, setting);
        }
    }
}
