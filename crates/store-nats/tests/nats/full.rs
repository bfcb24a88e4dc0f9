//! The store is full: said so, nothing half stored, and it goes on when there is room.

use outlive_core::id::{Position, Revision};
use outlive_store::{AppendError, BlobError, Engine, TableError};
use outlive_store_nats::testing::{JetStream, NatsServer, Options};

use crate::world::Node;

#[tokio::test]
async fn a_full_store_says_so_and_takes_more_when_there_is_room() {
    let options = Options { jetstream: JetStream::Bounded(8 << 20), ..Options::default() };
    let server = NatsServer::start(&options);
    let node = Node::on(&server.url()).await;
    let (other, _) = node.claimed().await;
    let (session, claim) = node.claimed().await;
    let mut stored = 1;
    let error = loop {
        match node.append(session, claim, &[7; 500_000]).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 100, "the bound is reached");
    };
    let AppendError::Unavailable(unavailable) = &error else { panic!("{error:?}") };
    assert!(unavailable.to_string().contains("raise its limits"), "{unavailable}: {:?}", unavailable.source);
    assert_eq!(node.all(session, Position(0)).await.len(), stored, "the refused one is not there");
    let blob = node.nats.put_blob_bytes(session, &[1; 2 << 20], "text/plain").await;
    assert!(matches!(blob, Err(BlobError::Unavailable(_))), "{blob:?}");
    let row = node.nats.put_if("t", "k", Revision(0), &[0; 60_000]).await;
    assert!(matches!(row, Ok(_) | Err(TableError::Unavailable(_))), "{row:?}");
    node.nats.drop_session(session).await.unwrap();
    assert_eq!(node.nats.sessions().await.unwrap(), [other]);
    let (session, claim) = node.claimed().await;
    node.append(session, claim, &[7; 500_000]).await.unwrap();
}
