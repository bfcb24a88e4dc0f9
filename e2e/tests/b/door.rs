//! Who may not come in.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;

use outlive_e2e::clock::PATIENCE;
use outlive_e2e::{Daemon, World, process};
use serde_json::Value;

/// A world whose daemon also listens on TCP, with the port and the token.
fn open_door() -> (World, Daemon, u16, String) {
    let mut world = World::new();
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|probe| probe.local_addr()).expect("a port is free").port();
    let token_file = world.root().join("token");
    world.set("OUTLIVE_TCP", format!("127.0.0.1:{port}"));
    world.set("OUTLIVE_TOKEN_FILE", token_file.to_string_lossy());
    let daemon = world.daemon();
    let token = fs::read_to_string(&token_file).expect("the daemon made a token").trim().to_owned();
    (world, daemon, port, token)
}

/// Sends a request as it is; the status and all that came.
fn ask(port: u16, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the daemon listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket has time limits");
    // A server that refuses early may close before it has read all of it.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (status, answer)
}

fn get(host: &str, headers: &str) -> String {
    format!("GET /v1/sessions HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n")
}

// B6: over TCP: no token, a wrong one, another site's page, another name for this address.
#[test]
fn strangers_over_tcp() {
    let (world, _daemon, port, token) = open_door();
    let host = format!("127.0.0.1:{port}");
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let (status, answer) = ask(port, &get(&host, &bearer));
    assert_eq!(status, 200, "the token opens the door: {answer}");

    let wrong = format!("Authorization: Bearer {}\r\n", "0".repeat(token.len()));
    let refused = [
        ("no token", get(&host, ""), 401..=401),
        ("a wrong token", get(&host, &wrong), 401..=403),
        ("another site's page", get(&host, &format!("{bearer}Origin: https://evil.example\r\n")), 403..=403),
        ("another name", get("evil.example", &bearer), 400..=421),
    ];
    for (what, request, statuses) in refused {
        let (status, answer) = ask(port, &request);
        assert!(statuses.contains(&status), "{what}: {answer}");
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        assert!(body.contains("\"code\"") && body.contains("\"detail\""), "{what} is told clearly: {answer}");
        assert!(!answer.contains(&token), "nothing is leaked: {answer}");
    }
    let mode = fs::metadata(world.root().join("token")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "the token is ours alone");
}

// B6: the socket is for its user alone.
#[test]
fn the_socket_is_private() {
    let world = World::new();
    let _daemon = world.daemon();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(world.api().socket()), 0o600);
    assert_eq!(mode(&world.runtime()), 0o700);
    assert_eq!(mode(&world.state()), 0o700);
}

// B6: bodies that are too large, too deep, or no JSON: a clear refusal and no memory for them.
#[test]
fn bodies_that_may_not_pass() {
    let world = World::new();
    let daemon = world.daemon();
    let before = process::peak_memory_bytes(daemon.pid()).expect("the daemon lives");
    let too_large = format!("{{\"id\": \"{}\"}}", "x".repeat(40 << 20));
    let too_deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for (what, body, status) in
        [("too large", too_large, 413), ("too deep", too_deep, 400), ("no JSON", "{\"id\": ".to_owned(), 400)]
    {
        let mut connection = world.api().connect().unwrap();
        let head = format!(
            "POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        connection.send(head.as_bytes()).unwrap();
        // A server that refuses by the length closes before it has read the body.
        let _ = connection.send(body.as_bytes());
        let response = connection.response().unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(
            response.status == status || (status == 400 && response.status == 422),
            "{what}: {}",
            response.status
        );
        let problem: Value = response.json();
        assert!(
            problem["code"].is_string() && problem["detail"].is_string(),
            "{what} is told clearly: {problem}"
        );
    }
    let grown = process::peak_memory_bytes(daemon.pid()).expect("the daemon lives") - before;
    assert!(grown < 32 << 20, "the daemon grew by {grown} bytes");
    assert_eq!(world.api().get("/v1/ready")["ready"], true);
}
