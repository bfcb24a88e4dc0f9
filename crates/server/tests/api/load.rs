//! Many at once, and no descriptors left.

use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use crate::client::{Server, fill, in_time};
use crate::fake::{end, output};

fn allow_descriptors(wanted: u64) {
    let limit = getrlimit(Resource::Nofile);
    let enough = limit.maximum.is_none_or(|maximum| maximum >= wanted);
    assert!(enough, "this test needs {wanted} descriptors: raise the hard limit");
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }).unwrap();
}

// B5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_watchers_and_ten_that_never_read() {
    const WATCHERS: usize = 1_000;
    const EVENTS: u64 = 20;
    /// The cursor of those that never read: their stream is endless, so that their sockets are full.
    const SLEEPER: u64 = 1;
    allow_descriptors(4_096);
    let server = Server::start().await;
    let (go, gone) = tokio::sync::watch::channel(false);
    *server.fake.events.lock().unwrap() = Box::new(move |cursor| {
        if cursor.seq.0 == SLEEPER {
            return stream::repeat_with(|| output(1, &"x".repeat(1_000))).boxed();
        }
        let mut gone = gone.clone();
        let waited = async move {
            gone.wait_for(|go| *go).await.unwrap();
            stream::iter(1..=EVENTS).map(|seq| output(seq, &"x".repeat(1_000)))
        };
        stream::once(waited).flatten().chain(stream::iter([end()])).boxed()
    });
    let mut sleepers = Vec::new();
    for _ in 0..10 {
        let mut socket = UnixStream::connect(&server.socket).await.unwrap();
        let head =
            format!("GET {}?after={SLEEPER} HTTP/1.1\r\nhost: x\r\n\r\n", fill("/v1/sessions/{id}/attach"));
        socket.write_all(head.as_bytes()).await.unwrap();
        sleepers.push(socket);
    }
    let mut watchers = JoinSet::new();
    for _ in 0..WATCHERS {
        let mut client = server.unix().await;
        let mut reader = client.events(&fill("/v1/sessions/{id}/attach"), &[]).await;
        watchers.spawn(async move {
            let events = reader.count().await;
            drop(client);
            events
        });
    }
    go.send(true).unwrap();
    while let Some(seen) = in_time(watchers.join_next()).await {
        assert_eq!(seen.unwrap(), EVENTS + 1);
    }
    drop(sleepers);
    server.stop().await;
}

/// What measures has the machine to itself.
mod alone {
    use super::*;

    /// 10,000 events a second to one client have to be no effort even in a debug build.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn ten_thousand_events_a_second() {
        const EVENTS: u64 = 50_000;
        let server = Server::start().await;
        *server.fake.events.lock().unwrap() = Box::new(|_| {
            stream::iter(1..=EVENTS)
                .map(|seq| output(seq, "a line of output\n"))
                .chain(stream::iter([end()]))
                .boxed()
        });
        let mut client = server.unix().await;
        let mut reader = client.events(&fill("/v1/sessions/{id}/attach"), &[]).await;
        #[expect(clippy::disallowed_methods, reason = "the test measures")]
        let started = Instant::now();
        assert_eq!(reader.count().await, EVENTS + 1);
        let rate = EVENTS as f64 / started.elapsed().as_secs_f64();
        assert!(rate > 10_000.0, "{rate:.0} events a second");
        server.stop().await;
    }
}

/// What a client is told that sends nothing and reads until the server hangs up.
async fn told(server: &Server) -> String {
    in_time(async {
        let mut socket = UnixStream::connect(&server.socket).await.unwrap();
        let mut bytes = Vec::new();
        socket.read_to_end(&mut bytes).await.unwrap();
        String::from_utf8(bytes).unwrap()
    })
    .await
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_the_other_listener_is_not_concerned() {
    let bounds = outlive_server::Bounds { connections: 3, ..Default::default() };
    let server = Server::start_with(bounds).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = server.unix().await;
        assert_eq!(client.get("/v1/node").await.status, 200);
        clients.push(client);
    }
    let refused = told(&server).await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("too-many-connections"), "{refused}");
    assert_eq!(server.tcp().await.get("/v1/live").await.status, 200);
    for client in &mut clients {
        assert_eq!(client.get("/v1/node").await.status, 200);
    }
    server.stop().await;
}

fn cpu_time_ms() -> i64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    spent.tv_sec * 1_000 + spent.tv_nsec / 1_000_000
}

// C9
#[tokio::test]
async fn without_descriptors_clients_are_told_nothing_spins_and_all_is_well_afterwards() {
    let server = Server::start().await;
    let mut before = server.unix().await;
    assert_eq!(before.get("/v1/node").await.status, 200);
    let limit = getrlimit(Resource::Nofile);
    let mut fillers = vec![std::fs::File::open("/dev/null").unwrap()];
    let next = u64::try_from(fillers[0].as_raw_fd()).unwrap() + 8;
    setrlimit(Resource::Nofile, Rlimit { current: Some(next), maximum: limit.maximum }).unwrap();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        fillers.push(file);
    }
    // The one free descriptor is the client's own; the server has none left.
    fillers.pop();
    let refused = told(&server).await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("out-of-descriptors"), "{refused}");
    assert_eq!(before.get("/v1/node").await.status, 200, "who was there is served on");

    // A stretch of time without descriptors: the accept loop rests.
    fillers.push(std::fs::File::open("/dev/null").unwrap());
    let spent = cpu_time_ms();
    let _ = tokio::time::timeout(Duration::from_millis(500), std::future::pending::<()>()).await;
    let spent = cpu_time_ms() - spent;
    assert!(spent < 100, "{spent} ms of processor time in half a second without descriptors");

    drop(fillers);
    setrlimit(Resource::Nofile, limit).unwrap();
    assert_eq!(server.unix().await.get("/v1/node").await.status, 200, "and new ones again");
    server.stop().await;
}
