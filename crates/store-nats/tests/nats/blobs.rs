//! Blobs: from a shim's folder to every node, whole or not at all.

use std::io::Read;
use std::time::Duration;

use outlive_core::id::{Attempt, Position, RunId, Seq};
use outlive_core::log::{BlobRef, Chunk, ChunkKind, Fenced, FencedBody, Lane, Payload, Record, RunRecord};
use outlive_core::time::WallTime;
use outlive_store::{BlobError, Durability, Engine, Guard, blob};
use outlive_store_nats::testing::{NatsServer, Options};
use uuid::Uuid;

use crate::world::Node;

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n % 251) as u8).collect()
}

async fn read(node: &Node, session: outlive_core::id::SessionId, sha256: &str) -> Result<Vec<u8>, BlobError> {
    let mut content = Vec::new();
    node.nats.get_blob(session, sha256).await?.read_to_end(&mut content).unwrap();
    Ok(content)
}

/// What a shim has put into the session's folder is everywhere as soon as a record names it.
#[tokio::test]
async fn a_blob_is_in_the_store_before_the_record_that_names_it() {
    let server = NatsServer::start(&Options::default());
    let (owner, other) = (Node::on(&server.url()).await, Node::on(&server.url()).await);
    let (session, claim) = owner.claimed().await;
    let content = content(3 << 20);
    let named = blob::reference(&content, "image/png");
    let folder = owner.nats.blob_directory(session).await.unwrap().unwrap();
    tokio::fs::write(folder.join(&named.sha256), &content).await.unwrap();
    let missing = read(&other, session, &named.sha256).await;
    assert!(matches!(missing, Err(BlobError::Missing { .. })), "{missing:?}");

    let chunk =
        Chunk { kind: ChunkKind::DisplayData, at: WallTime(1), payload: Payload::Blob(named.clone()) };
    let data = RunRecord::Data { attempt: Attempt(1), first: Seq(1), chunks: vec![chunk] };
    let record = Record::Fenced(Fenced { claim, source: None, body: FencedBody::Run(data) });
    let lane = Lane::Run(RunId::from_uuid(Uuid::new_v4()));
    owner.nats.append(session, lane, Guard::Claim(claim), &record, Durability::Written).await.unwrap();
    assert_eq!(read(&other, session, &named.sha256).await.unwrap(), content);
    assert_eq!(other.nats.usage(session).await.unwrap().blob_bytes, 3 << 20);

    // The machine's copy goes with the session's end here; the store's stays.
    owner.nats.close_session(session).await;
    assert!(!owner.spool.path().join(session.to_string()).exists());
    assert_eq!(read(&owner, session, &named.sha256).await.unwrap(), content);
    owner.nats.drop_session(session).await.unwrap();
    let gone = read(&owner, session, &named.sha256).await;
    assert!(matches!(gone, Err(BlobError::Missing { .. })), "{gone:?}");
}

/// A blob that is not what the record says is refused, and so is the record.
#[tokio::test]
async fn a_record_that_names_a_damaged_blob_is_not_stored() {
    let server = NatsServer::start(&Options::default());
    let node = Node::on(&server.url()).await;
    let (session, claim) = node.claimed().await;
    let folder = node.nats.blob_directory(session).await.unwrap().unwrap();
    let named = blob::reference(b"whole", "text/plain");
    tokio::fs::write(folder.join(&named.sha256), b"half!").await.unwrap();
    let checkpoint = RunRecord::Checkpoint { attempt: Attempt(1), seq: Seq(1), blob: Some(named.clone()) };
    let record = Record::Fenced(Fenced { claim, source: None, body: FencedBody::Run(checkpoint) });
    let lane = Lane::Run(RunId::from_uuid(Uuid::new_v4()));
    let refused = node.nats.append(session, lane, Guard::Claim(claim), &record, Durability::Written).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(node.all(session, Position(0)).await.len(), 1);
    assert_eq!(node.nats.usage(session).await.unwrap().blob_bytes, 0);
}

#[tokio::test]
async fn two_who_put_one_blob_put_it_once() {
    let server = NatsServer::start(&Options::default());
    let (one, two) = (Node::on(&server.url()).await, Node::on(&server.url()).await);
    let (session, _) = one.claimed().await;
    let content = content(2 << 20);
    let (a, b) = tokio::join!(
        one.nats.put_blob_bytes(session, &content, "a/b"),
        two.nats.put_blob_bytes(session, &content, "a/b")
    );
    let BlobRef { sha256, size, .. } = a.unwrap();
    assert_eq!(b.unwrap().sha256, sha256);
    assert_eq!(one.nats.usage(session).await.unwrap().blob_bytes, size);
    assert_eq!(read(&two, session, &sha256).await.unwrap(), content);
}

/// A node that stood still between its look and its removal removes nothing that another has put since. What it stored of
/// a removal before it died is finished by the next.
#[tokio::test]
async fn a_removal_is_of_what_was_listed_and_can_be_finished_by_another() {
    let server = NatsServer::start(&Options::default());
    let (slow, owner) = (Node::on(&server.url()).await, Node::on(&server.url()).await);
    let (session, _) = owner.claimed().await;
    let content = content(2 << 20);
    let blob = owner.nats.put_blob_bytes(session, &content, "a/b").await.unwrap();
    let seen = slow.nats.old_blobs(session, Duration::ZERO).await.unwrap();
    owner.nats.put_blob_bytes(session, &content, "a/b").await.unwrap();
    assert_eq!(slow.nats.remove_blobs(session, &seen).await.unwrap(), 0);
    assert_eq!(read(&slow, session, &blob.sha256).await.unwrap(), content);

    // As by a node that dies behind its first step: the manifest says that the blob is gone, its pieces are there.
    let subject = format!("{}.b.{session}.{}", owner.settings.prefix, blob.sha256);
    let jetstream = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let stream = format!("{}-BLO", owner.settings.prefix.to_uppercase());
    let last = jetstream.get_stream(&stream).await.unwrap().get_last_raw_message_by_subject(&subject).await;
    let mut manifest: serde_json::Value = serde_json::from_slice(&last.unwrap().payload).unwrap();
    manifest["removed"] = true.into();
    jetstream.publish(subject, manifest.to_string().into()).await.unwrap().await.unwrap();
    let missing = read(&slow, session, &blob.sha256).await;
    assert!(matches!(missing, Err(BlobError::Missing { .. })), "{missing:?}");
    assert_eq!(slow.nats.usage(session).await.unwrap().blob_bytes, 0);
    let half = slow.nats.old_blobs(session, Duration::ZERO).await.unwrap();
    slow.nats.remove_blobs(session, &half).await.unwrap();
    let mut blobs = jetstream.get_stream(&stream).await.unwrap();
    assert_eq!(blobs.info().await.unwrap().state.messages, 0, "nothing is left of it");
    owner.nats.put_blob_bytes(session, &content, "a/b").await.unwrap();
    assert_eq!(read(&slow, session, &blob.sha256).await.unwrap(), content);
}
