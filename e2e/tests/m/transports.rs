//! The same tools over HTTP, behind the same door as everything else.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use outlive_e2e::World;
use outlive_e2e::clock::PATIENCE;
use serde_json::{Value, json};

use crate::pipes::{Agent, hello, text};

/// One request of an agent on a connection of its own: the status, and the answer's last message.
fn ask(port: u16, headers: &str, message: &Value) -> (u16, Value) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let body = message.to_string();
    let request = format!(
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap();
    // A line of JSON, bare or as the data of an event.
    let lines = answer.lines().map(|line| line.strip_prefix("data:").unwrap_or(line).trim());
    let message = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok()).rfind(Value::is_object);
    (status, message.unwrap_or_default())
}

#[test]
fn over_http_with_the_token_and_not_without() {
    let mut world = World::new();
    let port = TcpListener::bind("127.0.0.1:0").and_then(|probe| probe.local_addr()).unwrap().port();
    let token_file = world.root().join("token");
    world.set("OUTLIVE_TCP", format!("127.0.0.1:{port}"));
    world.set("OUTLIVE_TOKEN_FILE", token_file.to_string_lossy());
    let daemon = world.daemon();
    let token = fs::read_to_string(&token_file).unwrap();
    let bearer = format!("Authorization: Bearer {}\r\n", token.trim());
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello()});

    assert_eq!(ask(port, "", &initialize).0, 401);
    let foreign = format!("{bearer}Origin: https://evil.example\r\n");
    assert_eq!(ask(port, &foreign, &initialize).0, 403);
    let (status, answer) = ask(port, &bearer, &initialize);
    assert_eq!((status, &answer["result"]["serverInfo"]["name"]), (200, &json!("outlive")), "{answer}");

    // No session with the server is needed between requests.
    let call = |id: u64, tool: &str, arguments: Value| {
        let message = json!({
            "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": arguments},
        });
        let headers = format!("{bearer}MCP-Protocol-Version: 2025-06-18\r\n");
        let (status, answer) = ask(port, &headers, &message);
        assert_eq!((status, &answer["id"]), (200, &json!(id)), "{tool}: {answer}");
        answer["result"].clone()
    };
    let session = call(2, "new", json!({}))["structuredContent"]["session"].clone();
    let ran = call(3, "run", json!({"session": session, "code": "print(6 * 7)", "wait_s": 60}));
    assert_eq!(ran["structuredContent"]["runs"][0]["outputs"][0]["text"], "42\n", "{}", text(&ran));
    let relative = call(4, "save", json!({"session": session, "path": "a.ipynb"}));
    assert_eq!(
        (&relative["isError"], &relative["structuredContent"]["code"]),
        (&json!(true), &json!("relative-path"))
    );

    // The same session over pipes, in the same daemon.
    let mut agent = Agent::start(&world);
    let seen = agent.call("sessions", &json!({}));
    assert_eq!(seen["structuredContent"]["sessions"][0]["session"], session);
    agent.leave();
    daemon.terminate().assert_code(0);
}
