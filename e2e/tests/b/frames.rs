//! What comes from outside may lie about itself.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use outlive_e2e::clock::PATIENCE;
use outlive_e2e::{World, process};

/// More than a small process needs, far less than a length that lies asks for.
const MEMORY_BYTES_MAX: u64 = 64 << 20;

/// A frame's header: length, version, kind, flags, checksum (docs/design/log.md).
fn header(length: u32, version: u8, kind: u8) -> Vec<u8> {
    let mut header = length.to_le_bytes().to_vec();
    header.extend([version, kind, 0, 0]);
    header.extend(0_u32.to_le_bytes());
    header
}

/// The sockets that shims listen on.
fn shim_sockets(world: &World) -> Vec<PathBuf> {
    let api = world.api();
    world
        .sockets()
        .into_iter()
        .filter(|path| path != api.socket())
        .filter(|path| UnixStream::connect(path).is_ok())
        .collect()
}

/// Sends bytes and gives how the other side took them: closed within the time, or not.
fn closes(path: &PathBuf, bytes: &[u8], time: Duration) -> bool {
    let mut stream = UnixStream::connect(path).expect("it listens");
    stream.set_read_timeout(Some(time)).expect("a socket has time limits");
    // The other side may close at once.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).is_ok()
}

// B1: a shim whose peer lies, talks nonsense or falls silent closes that connection, allocates nothing for it, and
// serves the next daemon.
#[test]
fn a_shim_survives_peers_that_lie() {
    let world = World::new();
    let daemon = world.daemon();
    let session = world.kernel();
    session.run("kept = 'in memory'");
    let shim = process::find(session.pid()).expect("it is ready").parent;
    daemon.kill();

    let sockets = shim_sockets(&world);
    assert!(!sockets.is_empty(), "a shim listens for the next daemon");
    for socket in &sockets {
        for (what, bytes) in [
            ("a length that lies", header(u32::MAX, 1, 1)),
            ("a version of the future", header(2, 250, 1)),
            ("garbage", vec![0xA5; 4096]),
            ("half a frame, then silence", header(1000, 1, 1)[..7].to_vec()),
            ("nothing at all", Vec::new()),
        ] {
            assert!(closes(socket, &bytes, Duration::from_secs(20)), "{what}: the connection stays open");
        }
    }
    let peak = process::peak_memory_bytes(shim).expect("the shim lives");
    assert!(peak < MEMORY_BYTES_MAX, "the shim grew to {peak} bytes");

    let _daemon = world.daemon();
    session.wait_runtime("idle");
    assert_eq!(session.run("print(kept)").stdout(), "in memory\n");
}

// B1: the API closes on nonsense and on a request that never comes to its end, and goes on for others.
#[test]
fn the_api_survives_peers_that_lie() {
    let world = World::new();
    let daemon = world.daemon();
    let socket = world.api().socket().to_owned();
    for (what, bytes) in [
        ("garbage", vec![0xA5; 4096]),
        ("half a request line, then silence", b"GET /v1/no".to_vec()),
        (
            "a body that never comes",
            b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\n{".to_vec(),
        ),
    ] {
        assert!(closes(&socket, &bytes, PATIENCE), "{what}: the connection stays open");
    }
    let liar =
        b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n{".to_vec();
    assert!(closes(&socket, &liar, PATIENCE), "a length that lies: the connection stays open");
    let peak = process::peak_memory_bytes(daemon.pid()).expect("the daemon lives");
    assert!(peak < 2 * MEMORY_BYTES_MAX, "the daemon grew to {peak} bytes");
    assert_eq!(world.api().get("/v1/ready")["ready"], true);
}

// B1: a message of a kernel above every frame's limit arrives whole, or says how much was cut and why.
#[test]
fn a_message_over_the_frame_limit() {
    let world = World::new();
    let _daemon = world.daemon();
    let session = world.kernel();
    let size = 5_000_000;
    let ended = session.run(&format!(
        "from IPython.display import display\ndisplay({{'text/plain': 'x' * {size}}}, raw=True)"
    ));
    assert_eq!(ended.ended(), "succeeded");
    let chunks: Vec<_> = ended.of_kind("display_data").collect();
    assert_eq!(chunks.len(), 1);
    let blob = chunks[0]["blob"]["sha256"]
        .as_str()
        .unwrap_or_else(|| panic!("a large message is a blob: {:.300}", chunks[0].to_string()));
    let response = world.api().request("GET", &session.path(&format!("/blobs/{blob}")), None);
    assert_eq!(response.status, 200);
    assert_eq!(response.json()["data"]["text/plain"].as_str().map(str::len), Some(size));
    assert_eq!(session.run("print('alive')").stdout(), "alive\n");
}
