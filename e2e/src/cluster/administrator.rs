//! Somebody who administers NATS by hand, and looks at its streams and changes them behind the nodes' backs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use outlive_store_nats::testing::NatsServer;
use serde_json::Value;

/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(30);

/// A request of JetStream, such as `STREAM.INFO.OUTLIVE-TAB`, and its answer.
///
/// # Panics
/// When the server does not answer, or refuses.
#[track_caller]
pub fn jetstream(server: &NatsServer, operation: &str, request: &Value) -> Value {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).expect("a server that runs");
    stream.set_read_timeout(Some(ANSWER)).expect("a socket has a time limit");
    let body = if request.is_null() { String::new() } else { request.to_string() };
    let ask = format!(
        "CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB $JS.API.{operation} answer {}\r\n{body}\r\n",
        body.len()
    );
    stream.write_all(ask.as_bytes()).expect("a server that runs");
    let mut lines = BufReader::new(stream);
    loop {
        let mut line = String::new();
        let length = lines.read_line(&mut line).expect("an answer");
        assert!(length > 0, "{operation}: the server closed the connection");
        // `MSG answer 1 LENGTH`, between other lines.
        let Some(length) = line.strip_prefix("MSG ").and_then(|rest| rest.split_ascii_whitespace().last())
        else {
            continue;
        };
        let mut answer = vec![0; length.parse().expect("a length")];
        lines.read_exact(&mut answer).expect("an answer");
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        assert!(answer["error"].is_null(), "{operation}: {answer}");
        return answer;
    }
}

/// Changes one setting of a stream.
///
/// # Panics
/// As [`jetstream`].
#[track_caller]
pub fn edit(server: &NatsServer, stream: &str, setting: &str, value: Value) {
    let mut config = jetstream(server, &format!("STREAM.INFO.{stream}"), &Value::Null)["config"].take();
    config[setting] = value;
    jetstream(server, &format!("STREAM.UPDATE.{stream}"), &config);
}

/// Gives each stream of sessions this bound, in bytes; -1 is none.
///
/// # Panics
/// As [`jetstream`].
#[track_caller]
pub fn bound_sessions(server: &NatsServer, bytes: i64) {
    for shard in 0..4 {
        edit(server, &format!("OUTLIVE-SES-{shard}"), "max_bytes", bytes.into());
    }
}
