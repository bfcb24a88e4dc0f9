//! Whoever lost a session writes nothing, however often and from wherever it tries.

use futures_util::future::join_all;
use outlive_core::id::Position;
use outlive_store::AppendError;
use outlive_store_nats::testing::{NatsCluster, NatsServer, Options};

use crate::world::{Node, session};

/// `// E3`: 2.9 stored 2,158 of 5,000.
#[tokio::test]
async fn a_stale_owner_is_refused_each_of_5_000_times() {
    let server = NatsServer::start(&Options::default());
    let (old, new) = (Node::on(&server.url()).await, Node::on(&server.url()).await);
    let (session, first) = old.claimed().await;
    old.append(session, first, b"before").await.unwrap();
    let second = new.claim(session, first, 2).await.unwrap();
    let before = new.all(session, Position(0)).await;
    for _ in 0..50 {
        let tries = join_all((0..100).map(|_| old.append(session, first, b"late"))).await;
        for outcome in tries {
            assert!(
                matches!(outcome, Err(AppendError::Conflict { last_control }) if last_control == second),
                "{outcome:?}"
            );
        }
    }
    assert_eq!(new.all(session, Position(0)).await, before);
    new.append(session, second, b"after").await.unwrap();
}

async fn twenty_claim(nodes: Vec<Node>) {
    for _ in 0..10 {
        let session = session();
        let outcomes = join_all(nodes.iter().map(|node| node.claim(session, Position(0), 1))).await;
        let won: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
        assert_eq!(won.len(), 1, "{outcomes:?}");
        for outcome in &outcomes {
            if let Err(error) = outcome {
                let AppendError::Conflict { last_control } = error else { panic!("{error}") };
                assert_eq!(last_control, won[0], "a loser is told who won");
            }
        }
        for node in &nodes {
            assert_eq!(node.all(session, Position(0)).await.len(), 1);
        }
    }
}

#[tokio::test]
async fn one_of_twenty_nodes_gets_a_session() {
    let server = NatsServer::start(&Options::default());
    let url = server.url();
    twenty_claim(join_all((0..20).map(|_| Node::on(&url))).await).await;
}

#[tokio::test]
async fn one_of_twenty_nodes_gets_a_replicated_session() {
    let cluster = NatsCluster::start(&Options::default());
    let nodes = (0..20).map(|n| {
        let url = cluster.servers[n % 3].url();
        async move { Node::replicated(&url).await }
    });
    twenty_claim(join_all(nodes).await).await;
}
