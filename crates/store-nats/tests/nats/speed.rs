//! How fast the engine is on one server and on three. Nothing is asserted: machines differ.
//!
//! `cargo test --release -p outlive-store-nats --test nats speed -- --ignored --nocapture`

#![expect(clippy::disallowed_methods, reason = "it measures real time")]
#![expect(clippy::print_stdout, reason = "its figures are for a person")]

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use outlive_core::id::{BootId, Epoch, NodeId, Position, SessionId};
use outlive_core::log::record::ControlChange;
use outlive_core::log::{Control, Fenced, FencedBody, Lane, Record};
use outlive_store::{Durability, Engine, Guard, LaneFilter, ReadLimit};
use outlive_store_nats::testing::{NatsCluster, NatsServer, Options};
use outlive_store_nats::{Nats, Settings};
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it measures"]
async fn on_one_server_and_on_three() {
    let server = NatsServer::start(&Options::default());
    measure("1 server", &server.url(), 1).await;
    drop(server);
    let cluster = NatsCluster::start(&Options::default());
    measure("3 servers, 3 replicas", &cluster.url(), 3).await;
}

async fn measure(what: &str, servers: &str, replicas: u8) {
    let spool = tempfile::TempDir::new().unwrap();
    let connect = |name: &str| {
        let settings = Settings { replicas, ..Settings::new(servers.split(','), spool.path().join(name)) };
        async move { Nats::connect(settings).await.unwrap() }
    };
    let (nats, other) = (connect("one").await, connect("two").await);
    println!("{what}");
    for bytes in [200, 64 << 10] {
        let (session, at) = claimed(&nats).await;
        let mut times = Vec::new();
        for _ in 0..2_000 {
            times.push(append(&nats, session, at, bytes).await);
        }
        show(&format!("append of {bytes} bytes"), times);
    }
    let sessions = join_all((0..8).map(|_| claimed(&nats))).await;
    let began = Instant::now();
    join_all(sessions.iter().map(async |(session, at)| {
        for _ in 0..500 {
            append(&nats, *session, *at, 200).await;
        }
    }))
    .await;
    println!("  8 sessions at once           {:>8.0} appends/s", 4_000.0 / began.elapsed().as_secs_f64());

    let (session, at) = claimed(&nats).await;
    let mut head = other.head(session).await.unwrap();
    for _ in 0..2_000 {
        append(&nats, session, at, 200).await;
    }
    let mut times = Vec::new();
    for _ in 0..20 {
        let reader = connect("three").await;
        let began = Instant::now();
        assert_eq!(read_all(&reader, session, Position(0)).await, 2_001);
        times.push(began.elapsed());
    }
    show("read of 2,000 records", times);

    let last = nats.read(session, at, &LaneFilter::All, ReadLimit::default()).await.unwrap().through;
    head.mark_unchanged();
    let mut times = Vec::new();
    for _ in 0..500 {
        let began = Instant::now();
        append(&nats, session, at, 200).await;
        head.wait_for(|head| *head > last).await.unwrap();
        head.mark_unchanged();
        let after = Position(head.borrow().0 - 1);
        other.read(session, after, &LaneFilter::All, ReadLimit::default()).await.unwrap();
        times.push(began.elapsed());
    }
    show("append, head and read there", times);

    let content = vec![7; 10 << 20];
    let began = Instant::now();
    let blob = nats.put_blob_bytes(session, &content, "application/octet-stream").await.unwrap();
    println!("  put a blob of 10 MB          {:>8.2} ms", ms(began.elapsed()));
    let began = Instant::now();
    other.get_blob(session, &blob.sha256).await.unwrap();
    println!("  get it elsewhere             {:>8.2} ms", ms(began.elapsed()));
}

async fn claimed(nats: &Nats) -> (SessionId, Position) {
    let session = SessionId::from_uuid(Uuid::new_v4());
    let (node, boot) = (NodeId::from_uuid(Uuid::new_v4()), BootId::from_uuid(Uuid::new_v4()));
    let change = ControlChange::Claim { epoch: Epoch(1), node, boot };
    let record = Record::Control(Control { prev: Position(0), change });
    let guard = Guard::Previous(Position(0));
    let at = nats.append(session, Lane::Control, guard, &record, Durability::Synced).await.unwrap();
    (session, at)
}

async fn append(nats: &Nats, session: SessionId, claim: Position, bytes: usize) -> Duration {
    let body = FencedBody::Document(vec![7; bytes]);
    let record = Record::Fenced(Fenced { claim, source: None, body });
    let began = Instant::now();
    nats.append(session, Lane::Document, Guard::Claim(claim), &record, Durability::Written).await.unwrap();
    began.elapsed()
}

async fn read_all(nats: &Nats, session: SessionId, mut after: Position) -> usize {
    let mut count = 0;
    loop {
        let page = nats.read(session, after, &LaneFilter::All, ReadLimit::default()).await.unwrap();
        if page.entries.is_empty() {
            return count;
        }
        count += page.entries.len();
        after = page.through;
    }
}

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| ms(times[((times.len() - 1) as f64 * share) as usize]);
    println!("  {what:<28} {:>8.2} ms   p99 {:>8.2} ms", at(0.5), at(0.99));
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
