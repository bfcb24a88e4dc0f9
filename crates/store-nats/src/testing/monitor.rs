//! What a server says of itself over its monitoring port.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A stopped server takes the connection and never answers.
const ANSWER: Duration = Duration::from_secs(2);

#[expect(clippy::disallowed_methods, reason = "a fixture waits in real time")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Between two looks.
pub(super) fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

/// Whether the server takes work; with JetStream, whether its store has recovered and it is in touch with its leader.
pub(super) fn is_healthy(port: u16) -> bool {
    get(port, "/healthz").is_some_and(|answer| answer["status"] == "ok")
}

/// Whether this server leads the cluster and is in touch with the two others.
pub(super) fn leads_whole_cluster(port: u16) -> bool {
    let answer = get(port, "/jsz").unwrap_or_default();
    let replicas = answer["meta_cluster"]["replicas"].as_array().map(Vec::as_slice).unwrap_or_default();
    replicas.len() == 2 && replicas.iter().all(|replica| replica["current"] == true)
}

/// The name of the server that leads a stream, as this one sees it.
pub(super) fn stream_leader(port: u16, stream: &str) -> Option<String> {
    let answer = get(port, "/jsz?accounts=true&streams=true")?;
    let accounts = answer["account_details"].as_array()?;
    let mut streams = accounts.iter().filter_map(|account| account["stream_detail"].as_array()).flatten();
    let leader = &streams.find(|detail| detail["name"] == stream)?["cluster"]["leader"];
    leader.as_str().map(str::to_owned)
}

/// How many subscriptions its clients have.
pub(super) fn subscriptions(port: u16) -> Option<u64> {
    let answer = get(port, "/connz?limit=10000")?;
    let connections = answer["connections"].as_array()?;
    Some(connections.iter().filter_map(|connection| connection["subscriptions"].as_u64()).sum())
}

/// The JSON at a path; nothing when it is not there (yet).
fn get(port: u16, path: &str) -> Option<Value> {
    let mut stream =
        TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), ANSWER).ok()?;
    stream.set_read_timeout(Some(ANSWER)).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}
