//! How fast a run of another node is watched. Nothing is asserted: machines differ. Writer, follower and watchers share
//! one thread and a store in memory, so these are costs of processor time.
//!
//! `cargo test -p outlive-node --lib watch::tests::speed -- --ignored --nocapture`

#![expect(clippy::disallowed_methods, reason = "it measures real time")]

use std::time::Instant;

use super::world::{Client, Seen, begin, chunks, nodes, open, print, run};

const CHUNKS: usize = 50_000;
const WATCHERS: usize = 1_000;
const FANS: usize = 50;

#[tokio::test]
#[ignore = "it measures"]
async fn chunks_through_one_watcher_of_another_node() {
    for together in [1, 25] {
        let (_store, nodes) = nodes(2);
        let mut journal = begin(&nodes[0]).await;
        open(&mut journal, None).await.unwrap();
        let mut client = Client::attach(&nodes[1], Seen::default()).await.unwrap();
        print(&mut journal, &["begun"]).await;
        client.until_text("begun").await;
        let began = Instant::now();
        for n in 0..CHUNKS / together {
            let texts: Vec<_> = (0..together).map(|_| format!("{n:0>200}")).collect();
            journal.output(run(), chunks(&texts), None).await.unwrap();
            // As often as a real writer waits for its store.
            tokio::task::yield_now().await;
            client.take();
        }
        client.until_text(&format!("{:0>200}", CHUNKS / together - 1)).await;
        let rate = CHUNKS as f64 / began.elapsed().as_secs_f64();
        let gaps = client.seen.told.len();
        println!(
            "{CHUNKS} chunks of 200 bytes, {together:>2} in a record: {rate:>9.0} chunks/s, {gaps} gaps"
        );
    }
}

#[tokio::test]
#[ignore = "it measures"]
async fn one_record_to_a_thousand_watchers_of_another_node() {
    let (_store, nodes) = nodes(2);
    let mut journal = begin(&nodes[0]).await;
    open(&mut journal, None).await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..WATCHERS {
        let mut client = Client::attach(&nodes[1], Seen::default()).await.unwrap();
        client.take();
        clients.push(client);
    }
    print(&mut journal, &["begun"]).await;
    for client in &mut clients {
        client.until_text("begun").await;
        client.take();
    }
    let mut took = Vec::new();
    for n in 0..FANS {
        let text = n.to_string();
        let began = Instant::now();
        print(&mut journal, &[&text]).await;
        for client in &mut clients {
            client.until_text(&text).await;
        }
        took.push(began.elapsed());
    }
    took.sort_unstable();
    println!(
        "append to the last of {WATCHERS} watchers: p50 {:?}, worst {:?}",
        took[FANS / 2],
        took[FANS - 1]
    );
}
