//! Three servers: a leader dies, a replica lags.

use outlive_core::id::Position;
use outlive_core::log::Lane;
use outlive_store::{AppendError, Engine, LaneFilter, ReadError, ReadLimit};
use outlive_store_nats::testing::{NatsCluster, Options};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::world::{Node, PATIENCE, number};

/// `// E5`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_loses_and_doubles_nothing() {
    let mut cluster = NatsCluster::start(&Options::default());
    let (node, reader) = (Node::replicated(&cluster.url()).await, Node::replicated(&cluster.url()).await);
    let (session, claim) = node.claimed().await;
    let mut head = reader.nats.head(session).await.unwrap();
    let mut stored = 0_u32;
    for _ in 0..2 {
        for _ in 0..50 {
            node.append(session, claim, &stored.to_le_bytes()).await.unwrap();
            stored += 1;
        }
        // Whichever stream has the session: the first of both is as good as the second, so both leaders go.
        let mut leaders = vec![cluster.leader_of("OUTLIVE-SES-0"), cluster.leader_of("OUTLIVE-SES-1")];
        leaders.dedup();
        let leader = leaders.pop().unwrap();
        cluster.servers[leader].kill();
        let write = async {
            for n in stored..stored + 50 {
                insist(&node, session, claim, n).await;
            }
        };
        timeout(PATIENCE, write).await.unwrap();
        stored += 50;
        cluster = spawn_blocking(move || {
            cluster.servers[leader].restart();
            cluster.wait_whole();
            cluster
        })
        .await
        .unwrap();
    }
    let expected: Vec<_> = (0..stored).collect();
    assert_eq!(node.numbers(session).await, expected);
    assert_eq!(reader.numbers(session).await, expected);
    let last = node.all(session, Position(0)).await.last().unwrap().position;
    timeout(PATIENCE, head.wait_for(|head| *head >= last)).await.unwrap().unwrap();
}

async fn insist(node: &Node, session: outlive_core::id::SessionId, claim: Position, n: u32) {
    loop {
        match node.append(session, claim, &n.to_le_bytes()).await {
            Ok(_) => return,
            Err(AppendError::Unknown) => {
                if node.all(session, claim).await.iter().any(|entry| number(entry) == Some(n)) {
                    return;
                }
            }
            Err(AppendError::Unavailable(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Two of three are gone: nothing more is acknowledged, what was is there, and soon nobody says any more that it is all.
#[tokio::test]
async fn without_a_majority_nothing_is_acknowledged_and_nothing_is_missing() {
    let mut cluster = NatsCluster::start(&Options::default());
    let node = Node::replicated(&cluster.servers[0].url()).await;
    let (session, claim) = node.claimed().await;
    cluster.servers[1].kill();
    cluster.servers[2].kill();
    let appended = node.append(session, claim, b"alone").await;
    assert!(matches!(appended, Err(AppendError::Unknown | AppendError::Unavailable(_))), "{appended:?}");
    let read = async {
        loop {
            match node.nats.read(session, Position(0), &LaneFilter::All, ReadLimit::default()).await {
                Ok(page) => assert_eq!(page.entries.first().map(|entry| entry.position), Some(claim)),
                Err(ReadError::Unavailable(_)) => return,
                Err(error) => panic!("{error}"),
            }
            // The same for what is known to the end.
            match node.nats.read(session, claim, &LaneFilter::All, ReadLimit::default()).await {
                Ok(_) => {}
                Err(ReadError::Unavailable(_)) => return,
                Err(error) => panic!("{error}"),
            }
        }
    };
    timeout(PATIENCE, read).await.unwrap();
}

/// Each server answers from its own copy, which may be behind: whatever was acknowledged is read all the same.
#[tokio::test]
async fn what_one_node_was_acknowledged_every_node_reads_at_once() {
    let cluster = NatsCluster::start(&Options::default());
    let mut nodes = Vec::new();
    for server in &cluster.servers {
        nodes.push(Node::replicated(&server.url()).await);
    }
    let (session, claim) = nodes[0].claimed().await;
    let mut before = claim;
    for n in 0..100_u32 {
        let position = nodes[0].append(session, claim, &n.to_le_bytes()).await.unwrap();
        let lanes = LaneFilter::Only(vec![Lane::Control, Lane::Document]);
        let filter = if n % 2 == 0 { &LaneFilter::All } else { &lanes };
        for node in &nodes {
            let page = node.nats.read(session, before, filter, ReadLimit::default()).await.unwrap();
            assert_eq!(page.entries.iter().filter_map(number).collect::<Vec<_>>(), [n]);
            assert!(page.through >= position);
        }
        before = position;
    }
}
