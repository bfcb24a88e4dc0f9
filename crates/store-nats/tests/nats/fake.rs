//! A server that speaks just enough NATS to be connected to, and is not what it should be.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

use serde_json::{Value, json};

/// Starts one that says it is of this version, and answers requests of JetStream by `answer(operation, request)`. Gives
/// its address; it ends with the test.
pub fn start(version: &str, answer: fn(&str, &Value) -> Value) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let version = version.to_owned();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let _ = serve(&stream, &version, answer);
        }
    });
    url
}

fn serve(stream: &TcpStream, version: &str, answer: fn(&str, &Value) -> Value) -> std::io::Result<()> {
    let mut to = stream;
    let info = json!({
        "server_id": "FAKE", "server_name": "fake", "host": "fake", "port": 1, "version": version, "go": "",
        "max_payload": 1 << 20, "proto": 1, "headers": true, "jetstream": true, "client_id": 1,
    });
    write!(to, "INFO {info}\r\n")?;
    let mut from = BufReader::new(stream);
    let mut inbox = String::new();
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        match words[..] {
            ["PING"] => to.write_all(b"PONG\r\n")?,
            ["SUB", subject, sid] if subject.starts_with("_INBOX") => sid.clone_into(&mut inbox),
            ["PUB", subject, reply, length] => {
                let mut body = vec![0; length.parse::<usize>().unwrap() + 2];
                from.read_exact(&mut body)?;
                let request = serde_json::from_slice(&body).unwrap_or_default();
                let operation = subject.strip_prefix("$JS.API.").unwrap_or(subject);
                let said = answer(operation, &request).to_string();
                write!(to, "MSG {reply} {inbox} {}\r\n{said}\r\n", said.len())?;
            }
            _ => {}
        }
    }
}
