//! What is told live: heads and tables, and what it costs.

use std::time::{Duration, Instant};

use outlive_core::id::{Position, Revision};
use outlive_core::limits::TABLE_WATCH_CHANGES_MAX;
use outlive_store::{Change, Engine, LaneFilter, ReadLimit};
use outlive_store_nats::testing::{NatsServer, Options};
use tokio::time::timeout;

use crate::world::{Node, PATIENCE, session};

#[tokio::test]
async fn a_head_moves_with_what_another_node_writes() {
    let server = NatsServer::start(&Options::default());
    let (owner, watcher) = (Node::on(&server.url()).await, Node::on(&server.url()).await);
    let id = session();
    let mut head = watcher.nats.head(id).await.unwrap();
    assert_eq!(*head.borrow(), Position(0));
    let claim = owner.claim(id, Position(0), 1).await.unwrap();
    timeout(PATIENCE, head.wait_for(|head| *head == claim)).await.unwrap().unwrap();
    let mut seen = Vec::new();
    let mut after = claim;
    for n in 0..200_u32 {
        let position = owner.append(id, claim, &n.to_le_bytes()).await.unwrap();
        if n % 7 == 0 {
            timeout(PATIENCE, head.wait_for(|head| *head >= position)).await.unwrap().unwrap();
            let page = watcher.nats.read(id, after, &LaneFilter::All, ReadLimit::default()).await.unwrap();
            assert!(page.through >= position, "the head only shows what can be read");
            after = page.through;
            seen.extend(page.entries);
        }
    }
    seen.extend(watcher.all(id, after).await);
    assert_eq!(seen, owner.all(id, claim).await);
    watcher.nats.close_session(id).await;
    timeout(PATIENCE, async { while head.changed().await.is_ok() {} }).await.unwrap();
}

#[tokio::test]
async fn a_session_that_is_removed_elsewhere_ends_its_head() {
    let server = NatsServer::start(&Options::default());
    let (owner, watcher) = (Node::on(&server.url()).await, Node::on(&server.url()).await);
    let (id, _) = owner.claimed().await;
    let mut head = watcher.nats.head(id).await.unwrap();
    owner.nats.drop_session(id).await.unwrap();
    timeout(PATIENCE, async { while head.changed().await.is_ok() {} }).await.unwrap();
}

/// Sessions are known by the thousand; only those that somebody looks at cost the server anything.
#[tokio::test]
async fn only_followed_sessions_cost_a_subscription() {
    let server = NatsServer::start(&Options::default());
    let node = Node::on(&server.url()).await;
    let mut ids = Vec::new();
    for _ in 0..40 {
        ids.push(node.claimed().await.0);
    }
    let idle = server.subscriptions();
    let mut heads = Vec::new();
    for id in &ids[..20] {
        heads.push(node.nats.head(*id).await.unwrap());
    }
    until("each head has one", || server.subscriptions() == idle + 20).await;
    for id in &ids[..10] {
        node.nats.close_session(*id).await;
    }
    drop(heads);
    until("nobody looks any more", || server.subscriptions() == idle).await;
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_millis(20)).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "the server's own figures have no event")]
fn now() -> Instant {
    Instant::now()
}

#[tokio::test]
async fn a_watch_that_does_not_keep_up_is_told_so() {
    let server = NatsServer::start(&Options::default());
    let node = Node::on(&server.url()).await;
    let mut watch = node.nats.watch("t", "").await.unwrap();
    assert_eq!(watch.next().await, Some(Change::Current));
    let mut revision = Revision(0);
    for _ in 0..TABLE_WATCH_CHANGES_MAX + 50 {
        revision = node.nats.put_if("t", "k", revision, b"v").await.unwrap();
    }
    let mut last = None;
    let mut gaps = 0;
    while last != Some(revision) {
        match timeout(PATIENCE, watch.next()).await.unwrap().unwrap() {
            Change::Put(row) => last = Some(row.revision),
            Change::Gap => gaps += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(gaps, 1);
}
