//! What watching costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use outlive_store::Faulty;
use outlive_store::faulty::{Fault, Operation};

use super::world::{Client, Seen, begin, chunks, node, nodes, open, other_run, print, session};

const WATCHERS: usize = 1_000;

#[tokio::test]
async fn a_thousand_watchers_of_another_nodes_run_are_one_reader() {
    let (store, nodes) = nodes(1);
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&reads);
    let engine = Faulty::new(store, move |operation| {
        if let Operation::Read { .. } = operation {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        Fault::None
    });
    let there = node(1, Arc::new(engine));
    let mut journal = begin(&nodes[0]).await;
    open(&mut journal, None).await.unwrap();
    print(&mut journal, &["begun"]).await;
    let mut clients = Vec::new();
    for _ in 0..WATCHERS {
        let mut client = Client::attach(&there, Seen::default()).await.unwrap();
        client.until_text("begun").await;
        assert!(!client.take(), "it listens");
        clients.push(client);
    }
    // What came before the follower stood is read by each.
    print(&mut journal, &["go"]).await;
    for client in &mut clients {
        client.until_text("go").await;
        assert!(!client.take(), "it listens again");
    }
    let before = reads.load(Ordering::SeqCst);
    for n in 0..100 {
        print(&mut journal, &[&n.to_string()]).await;
        clients[0].until_text(&n.to_string()).await;
    }
    for client in &mut clients {
        client.until_text("99").await;
    }
    let live = reads.load(Ordering::SeqCst) - before;
    assert!(live <= 2 * 100, "{live} reads for 100 records");
    // What another run prints is read for nobody, and wakes nobody.
    let before = reads.load(Ordering::SeqCst);
    let attempt = outlive_core::session::Fact::RunOpened {
        run: other_run(),
        attempt: outlive_core::id::Attempt(1),
        base: None,
        at: outlive_core::time::WallTime(1),
    };
    journal.fact(&attempt, None).await.unwrap();
    for n in 0..100 {
        journal.output(other_run(), chunks(&[n.to_string()]), None).await.unwrap();
    }
    print(&mut journal, &["last"]).await;
    for client in &mut clients {
        client.until_text("last").await;
        assert_eq!(client.seen.told, Vec::<String>::new());
    }
    assert!(reads.load(Ordering::SeqCst) - before <= 2 * 102);
    clients.truncate(1);
    assert!(there.bus.is_followed(session()));
    clients.clear();
    assert!(!there.bus.is_followed(session()), "nobody is left to read for");
}
