//! The connection or the server goes, at any moment, and comes back.

use outlive_core::id::{Position, Revision, SessionId};
use outlive_store::{AppendError, Change, Connection, Engine, LaneFilter, ReadError, ReadLimit};
use outlive_store_nats::testing::{NatsServer, Options};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::proxy::Proxy;
use crate::world::{Node, PATIENCE, number};

/// Appends a number until it is stored, as an owner does: re-reads when it does not know.
async fn insist(node: &Node, session: SessionId, claim: Position, n: u32) -> Position {
    loop {
        match node.append(session, claim, &n.to_le_bytes()).await {
            Ok(position) => return position,
            Err(AppendError::Unknown) => {
                let all = node.all(session, claim).await;
                if let Some(found) = all.iter().find(|entry| number(entry) == Some(n)) {
                    return found.position;
                }
            }
            Err(AppendError::Unavailable(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// `// E5`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_in_mid_append_loses_and_doubles_nothing() {
    let mut server = NatsServer::start(&Options::default());
    let node = Node::on(&server.url()).await;
    let (session, claim) = node.claimed().await;
    let mut last = claim;
    for round in 0..4 {
        let begun = tokio::sync::Notify::new();
        let write = async {
            for n in round * 300..(round + 1) * 300 {
                let position = insist(&node, session, claim, n).await;
                assert!(position > last, "positions rise");
                last = position;
                if n == round * 300 + 100 {
                    begun.notify_one();
                }
            }
        };
        let kill = async {
            begun.notified().await;
            spawn_blocking(move || {
                server.kill();
                server.restart();
                server
            })
            .await
            .unwrap()
        };
        let ((), back) = timeout(PATIENCE, async { tokio::join!(write, kill) }).await.unwrap();
        server = back;
    }
    assert_eq!(node.numbers(session).await, (0..1_200).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_append_whose_answer_was_lost_is_stored_once() {
    let server = NatsServer::start(&Options::default());
    let node = Node::on(&server.url()).await;
    let (session, claim) = node.claimed().await;
    for n in 0_u32..3 {
        server.stop();
        let lost = node.append(session, claim, &n.to_le_bytes()).await;
        assert!(matches!(lost, Err(AppendError::Unknown)), "{lost:?}");
        server.cont();
        // It is on its way still: whatever a reader sees at this moment, the same append again is that one.
        let position = insist(&node, session, claim, n).await;
        let next = node.append(session, claim, b"next").await.unwrap();
        assert!(next > position);
    }
    assert_eq!(node.numbers(session).await.len(), 6, "three numbers and three times `next`");
}

#[tokio::test]
async fn without_a_server_nothing_is_an_empty_success() {
    let mut server = NatsServer::start(&Options::default());
    let node = Node::on(&server.url()).await;
    let (session, claim) = node.claimed().await;
    let mut connection = node.nats.connection();
    server.kill();
    let down = connection.wait_for(|state| matches!(state, Connection::Down { .. }));
    timeout(PATIENCE, down).await.unwrap().unwrap();
    let appended = node.append(session, claim, b"now").await;
    let Err(AppendError::Unavailable(unavailable)) = appended else { panic!("{appended:?}") };
    assert!(unavailable.to_string().contains("NATS servers"), "{unavailable}");
    for after in [Position(0), claim] {
        let read = node.nats.read(session, after, &LaneFilter::All, ReadLimit::default()).await;
        assert!(matches!(read, Err(ReadError::Unavailable(_))), "{read:?}");
    }
    assert!(node.nats.head(session).await.is_err());
    assert!(node.nats.sessions().await.is_err());
    assert!(node.nats.scan("t", "").await.is_err());
    assert!(node.nats.usage(session).await.is_err());
    server.restart();
    timeout(PATIENCE, connection.wait_for(|state| *state == Connection::Up)).await.unwrap().unwrap();
    node.append(session, claim, b"then").await.unwrap();
    assert_eq!(node.all(session, Position(0)).await.len(), 2);
}

/// What others did meanwhile is there afterwards, by itself, and again after the next cut.
#[tokio::test]
async fn what_happened_during_a_cut_is_told_after_it() {
    let server = NatsServer::start(&Options::default());
    let proxy = Proxy::to(server.port()).await;
    let (cut, whole) = (Node::on(&proxy.url()).await, Node::on(&server.url()).await);
    let (session, claim) = whole.claimed().await;
    let mut head = cut.nats.head(session).await.unwrap();
    let kept = whole.nats.put_if("t", "kept", Revision(0), b"0").await.unwrap();
    let mut gone = whole.nats.put_if("t", "gone", Revision(0), b"0").await.unwrap();
    let mut watch = cut.nats.watch("t", "").await.unwrap();
    while watch.next().await.unwrap() != Change::Current {}
    let mut revision = kept;
    for round in 1_u8..=2 {
        proxy.cut();
        let mut connection = cut.nats.connection();
        let down = connection.wait_for(|state| matches!(state, Connection::Down { .. }));
        timeout(PATIENCE, down).await.unwrap().unwrap();
        let last = whole.append(session, claim, &[round]).await.unwrap();
        revision = whole.nats.put_if("t", "kept", revision, &[round]).await.unwrap();
        whole.nats.delete_if("t", "gone", gone).await.unwrap();
        proxy.heal();
        timeout(PATIENCE, head.wait_for(|head| *head == last)).await.unwrap().unwrap();
        let Change::Put(row) = timeout(PATIENCE, watch.next()).await.unwrap().unwrap() else { panic!() };
        assert_eq!((row.key.as_str(), row.revision, row.value), ("kept", revision, vec![round]));
        let Change::Deleted { key, .. } = timeout(PATIENCE, watch.next()).await.unwrap().unwrap() else {
            panic!("a deletion is told")
        };
        assert_eq!(key, "gone");
        // And live again.
        gone = whole.nats.put_if("t", "gone", Revision(0), b"1").await.unwrap();
        let Change::Put(row) = timeout(PATIENCE, watch.next()).await.unwrap().unwrap() else { panic!() };
        assert_eq!(row.key, "gone");
        let last = whole.append(session, claim, b"live").await.unwrap();
        timeout(PATIENCE, head.wait_for(|head| *head == last)).await.unwrap().unwrap();
    }
    assert_eq!(cut.all(session, Position(0)).await, whole.all(session, Position(0)).await);
}
