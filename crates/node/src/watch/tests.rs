//! Watching a run from any node, whoever owns the session, while it moves.

mod anybody;
mod cost;
mod speed;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use outlive_core::limits::WATCH_PATIENCE_MS;
use outlive_store::faulty::{Fault, Operation};
use outlive_store::{Engine as _, Faulty, Memory};
use tokio::time::Instant;

use crate::problem;
use world::{Client, Seen, begin, claim, end, head, node, nodes, open, print, session};

/// What readers on the owner's node and on others end with, whatever becomes of the owner.
#[tokio::test]
async fn a_run_that_another_node_takes_over_goes_on_for_everybody() {
    let (_store, nodes) = nodes(3);
    let mut first = begin(&nodes[0]).await;
    open(&mut first, None).await.unwrap();
    print(&mut first, &["a", "b"]).await;
    let mut clients = Vec::new();
    for node in &nodes {
        clients.push(Client::attach(node, Seen::default()).await.unwrap());
    }
    for client in &mut clients {
        client.until_text("b").await;
    }
    print(&mut first, &["c"]).await;
    for client in &mut clients {
        client.until_text("c").await;
    }
    // Its node is lost: nothing is released. Until somebody has it, everybody waits.
    let mut second = claim(&nodes[1], Some(0)).await.unwrap();
    drop(first);
    assert!(clients.iter_mut().all(|client| !client.take()), "{:?}", clients[0].seen);
    open(&mut second, Some(3)).await.unwrap();
    print(&mut second, &["d"]).await;
    for client in &mut clients {
        client.until_text("d").await;
        assert_eq!(client.seen.told, Vec::<String>::new(), "who goes on is not seen");
    }
    // And on to a third, which begins again behind the first chunk.
    let mut third = claim(&nodes[2], Some(1)).await.unwrap();
    drop(second);
    open(&mut third, Some(1)).await.unwrap();
    print(&mut third, &["B"]).await;
    end(&mut third).await;
    for client in clients {
        let seen = client.until_over().await;
        assert_eq!((seen.texts.join(""), seen.told.join(" ")), ("aB".to_owned(), "reset end".to_owned()));
    }
}

#[tokio::test]
async fn the_owners_tail_and_the_logs_never_mix() {
    let (_store, nodes) = nodes(2);
    let mut journal = begin(&nodes[0]).await;
    open(&mut journal, None).await.unwrap();
    let mut client = Client::attach(&nodes[1], Seen::default()).await.unwrap();
    assert!(nodes[1].bus.is_followed(session()));
    let mut expected = String::new();
    for turn in 0..40_usize {
        let text = format!("{turn}.");
        print(&mut journal, &[&text]).await;
        expected.push_str(&text);
        // With what came last still on its way.
        let next = claim(&nodes[(turn + 1) % 2], Some(turn % 2)).await.unwrap();
        drop(std::mem::replace(&mut journal, next));
        let owner = (turn + 1) % 2;
        assert_eq!(nodes[1].bus.is_followed(session()), owner != 1, "its own task tells, and nobody else");
        let seq = u64::try_from(turn).unwrap() + 1;
        open(&mut journal, Some(seq)).await.unwrap();
        if turn % 3 == 0 {
            client.until_text(&text).await;
        }
    }
    end(&mut journal).await;
    let seen = client.until_over().await;
    assert_eq!((seen.texts.concat(), seen.told.join(" ")), (expected, "end".to_owned()));
    assert!(!nodes[1].bus.is_followed(session()));
}

#[tokio::test]
async fn a_session_that_leaves_memory_or_is_given_away_ends_no_stream() {
    let (_store, nodes) = nodes(2);
    let mut journal = begin(&nodes[0]).await;
    open(&mut journal, None).await.unwrap();
    print(&mut journal, &["a"]).await;
    let view = world::known(&nodes[0]).await;
    nodes[0].index(&view, crate::context::Presence::Open, journal.fold().epoch()).await.unwrap();
    let mut client = Client::attach(&nodes[0], Seen::default()).await.unwrap();
    client.until_text("a").await;
    nodes[0].bus.close(session());
    drop(journal);
    // It has found out that the session goes on, and follows it.
    let mut journal = claim(&nodes[1], Some(0)).await.unwrap();
    open(&mut journal, Some(1)).await.unwrap();
    print(&mut journal, &["b"]).await;
    client.until_text("b").await;
    assert!(nodes[0].bus.is_followed(session()));
    // Closed for good, though the run has no end: nothing will follow.
    journal.close().await.unwrap();
    assert_eq!(client.until_over().await.told, ["end"]);
}

#[tokio::test]
async fn a_session_that_is_forgotten_ends_its_streams_with_a_reason() {
    let (store, nodes) = nodes(2);
    let mut journal = begin(&nodes[0]).await;
    open(&mut journal, None).await.unwrap();
    print(&mut journal, &["a"]).await;
    let mut client = Client::attach(&nodes[1], Seen::default()).await.unwrap();
    client.until_text("a").await;
    store.drop_session(session()).await.unwrap();
    assert_eq!(client.until_over().await.told, ["no-such-session"]);
}

#[tokio::test]
async fn a_node_that_is_cut_off_sends_its_watchers_away_at_once() {
    let (_store, nodes) = nodes(2);
    let mut journal = begin(&nodes[0]).await;
    open(&mut journal, None).await.unwrap();
    print(&mut journal, &["a"]).await;
    let mut here = Client::attach(&nodes[0], Seen::default()).await.unwrap();
    let mut there = Client::attach(&nodes[1], Seen::default()).await.unwrap();
    here.until_text("a").await;
    there.until_text("a").await;
    nodes[1].bus.sever(problem::node_isolated());
    assert!(there.take(), "it need not wait for anything");
    assert_eq!(there.seen.told, ["node-isolated"]);
    assert_eq!(Client::attach(&nodes[1], Seen::default()).await.err().unwrap().code, "node-isolated");
    // The owner's own watchers as well.
    nodes[0].bus.sever(problem::node_isolated());
    assert!(here.take());
    nodes[1].bus.mend();
    let mut again = Client::attach(&nodes[1], Seen { told: Vec::new(), ..there.seen }).await.unwrap();
    print(&mut journal, &["b"]).await;
    again.until_text("b").await;
    assert_eq!(again.seen.texts.concat(), "ab", "by its cursor");
}

/// A node whose reads of logs fail while this is true.
fn with_a_store_that_can_be_silent(store: &Memory) -> (Arc<crate::context::Context>, Arc<AtomicBool>) {
    let silent = Arc::new(AtomicBool::new(false));
    let is_silent = Arc::clone(&silent);
    let engine = Faulty::new(store.clone(), move |operation| match operation {
        Operation::Read { .. } if is_silent.load(Ordering::SeqCst) => Fault::Unavailable,
        _ => Fault::None,
    });
    (node(1, Arc::new(engine)), silent)
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_silent_for_a_moment_ends_no_stream() {
    let (store, nodes) = nodes(1);
    let (there, silent) = with_a_store_that_can_be_silent(&store);
    let mut journal = begin(&nodes[0]).await;
    open(&mut journal, None).await.unwrap();
    let mut live = Client::attach(&there, Seen::default()).await.unwrap();
    let mut late = Client::attach(&there, Seen::default()).await.unwrap();
    assert!(!live.take());
    silent.store(true, Ordering::SeqCst);
    print(&mut journal, &["a"]).await;
    let before = Instant::now();
    tokio::time::timeout(std::time::Duration::from_millis(WATCH_PATIENCE_MS - 600), live.next())
        .await
        .expect_err("nothing can be told");
    silent.store(false, Ordering::SeqCst);
    live.until_text("a").await;
    late.until_text("a").await;
    assert!(before.elapsed().as_millis() < u128::from(WATCH_PATIENCE_MS));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stays_silent_is_told() {
    let (store, nodes) = nodes(1);
    let (there, silent) = with_a_store_that_can_be_silent(&store);
    let mut journal = begin(&nodes[0]).await;
    open(&mut journal, None).await.unwrap();
    let mut live = Client::attach(&there, Seen::default()).await.unwrap();
    assert!(!live.take());
    let late = Client::attach(&there, Seen::default()).await.unwrap();
    silent.store(true, Ordering::SeqCst);
    print(&mut journal, &["a"]).await;
    let before = Instant::now();
    let ends = futures_util::future::join(live.until_over(), late.until_over()).await;
    assert_eq!(
        (ends.0.told.join(" "), ends.1.told.join(" ")),
        ("store-unavailable".into(), "store-unavailable".into())
    );
    let waited = u64::try_from(before.elapsed().as_millis()).unwrap();
    assert!((WATCH_PATIENCE_MS..2 * WATCH_PATIENCE_MS).contains(&waited), "{waited} ms");
    assert!(!there.bus.is_followed(session()));
    // Whoever comes back is served again.
    silent.store(false, Ordering::SeqCst);
    let mut again = Client::attach(&there, Seen::default()).await.unwrap();
    again.until_text("a").await;
    assert!(head(&store).await.0 > 0);
}
