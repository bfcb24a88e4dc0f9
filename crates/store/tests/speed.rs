//! How fast the embedded engine is, for docs/decisions/002-log-format.md. Nothing is asserted: machines differ.
//!
//! `cargo test --release -p outlive-store --test speed -- --ignored --nocapture`

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]
#![expect(clippy::print_stdout, reason = "its figures are for a person")]

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use outlive_core::id::{Attempt, BootId, Epoch, NodeId, Position, RunId, Seq, SessionId};
use outlive_core::log::record::ControlChange;
use outlive_core::log::{Chunk, ChunkKind, Control, Fenced, FencedBody, Lane, Record, RunRecord};
use outlive_core::time::WallTime;
use outlive_store::{Durability, Embedded, Engine, Guard, LaneFilter, ReadLimit};
use uuid::Uuid;

const RECORDS: usize = 100_000;
const SYNCED: usize = 2_000;
const SESSIONS: u128 = 50;

fn session(n: u128) -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(n))
}

async fn claimed(engine: &Embedded, session: SessionId) -> Position {
    let (node, boot) = (NodeId::from_uuid(Uuid::from_u128(1)), BootId::from_uuid(Uuid::from_u128(2)));
    let change = ControlChange::Claim { epoch: Epoch(1), node, boot };
    let record = Record::Control(Control { prev: Position(0), change });
    engine
        .append(session, Lane::Control, Guard::Previous(Position(0)), &record, Durability::Synced)
        .await
        .unwrap()
}

/// One append of a 200-byte chunk, as a print makes it.
async fn append(
    engine: &Embedded,
    session: SessionId,
    claim: Position,
    seq: u64,
    durability: Durability,
) -> Duration {
    let chunks = vec![Chunk::inline(ChunkKind::Stdout, WallTime(seq), vec![b'x'; 200])];
    let data = RunRecord::Data { attempt: Attempt(1), first: Seq(seq), chunks };
    let record = Record::Fenced(Fenced { claim, source: None, body: FencedBody::Run(data) });
    let run = RunId::from_uuid(Uuid::from_u128(3));
    let start = Instant::now();
    engine.append(session, Lane::Run(run), Guard::Claim(claim), &record, durability).await.unwrap();
    start.elapsed()
}

fn show(what: &str, took: Duration, mut each: Vec<Duration>) {
    each.sort_unstable();
    let at = |percent: usize| each[(each.len() * percent / 100).min(each.len() - 1)];
    let rate = each.len() as f64 / took.as_secs_f64();
    println!(
        "{what:<44} {rate:>9.0}/s   p50 {:>9.1?}   p99 {:>9.1?}   worst {:>9.1?}",
        at(50),
        at(99),
        at(100)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it measures; run it by hand"]
async fn how_fast() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    let id = session(1);
    let claim = claimed(&engine, id).await;

    let start = Instant::now();
    let mut each = Vec::new();
    for seq in 1..=RECORDS as u64 {
        each.push(append(&engine, id, claim, seq, Durability::Written).await);
    }
    show("append 200 B, written, one session", start.elapsed(), each);

    let start = Instant::now();
    let mut each = Vec::new();
    for seq in 1..=SYNCED as u64 {
        each.push(append(&engine, id, claim, seq, Durability::Synced).await);
    }
    show("append 200 B, synced, one session", start.elapsed(), each);

    let claims = join_all((2..2 + SESSIONS).map(|n| claimed(&engine, session(n)))).await;
    let start = Instant::now();
    let each = join_all(claims.into_iter().zip(2..).map(|(claim, n)| {
        let engine = &engine;
        async move {
            let mut each = Vec::new();
            for seq in 1..=40 {
                each.push(append(engine, session(n), claim, seq, Durability::Synced).await);
            }
            each
        }
    }))
    .await
    .concat();
    show("append 200 B, synced, 50 sessions at once", start.elapsed(), each);

    engine.close_session(id).await;
    let start = Instant::now();
    engine.head(id).await.unwrap();
    let bytes = engine.usage(id).await.unwrap().log_bytes;
    println!("open and check a log of {bytes} bytes: {:.1?}", start.elapsed());

    let start = Instant::now();
    let mut after = Position(0);
    let mut read = 0;
    loop {
        let page = engine.read(id, after, &LaneFilter::All, ReadLimit::default()).await.unwrap();
        if page.through == after {
            break;
        }
        after = page.through;
        read += page.entries.len();
    }
    println!("read it: {read} records, {:.0}/s", read as f64 / start.elapsed().as_secs_f64());

    let mut head = engine.head(id).await.unwrap();
    let mut each = Vec::new();
    let start = Instant::now();
    for seq in 1..=SYNCED as u64 {
        let before = *head.borrow_and_update();
        let sent = Instant::now();
        let seen = async {
            head.changed().await.unwrap();
            engine.read(id, before, &LaneFilter::All, ReadLimit::default()).await.unwrap()
        };
        let (page, _) = tokio::join!(seen, append(&engine, id, claim, seq, Durability::Written));
        assert_eq!(page.entries.len(), 1);
        each.push(sent.elapsed());
    }
    show("append, until a live reader has the record", start.elapsed(), each);
}
