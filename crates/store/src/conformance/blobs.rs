//! What every engine promises of blobs.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use futures_util::future::join;
use outlive_core::id::SessionId;
use outlive_core::log::BlobRef;

use super::records::session;
use crate::engine::{BlobStamp, Engine};
use crate::error::BlobError;

/// Long enough that nothing here is so old.
const HOUR: Duration = Duration::from_secs(3_600);

pub(super) async fn blobs_are_what_their_names_say(engine: &impl Engine) {
    let session = session();
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(b"abc").expect("room for three bytes");
    // The example of FIPS 180-2.
    let name = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let blob = BlobRef { sha256: name.into(), size: 3, mime: "text/plain".into() };
    let missing = engine.get_blob(session, name).await;
    assert!(matches!(missing, Err(BlobError::Missing { .. })), "{missing:?}");
    for wrong in
        [BlobRef { size: 4, ..blob.clone() }, BlobRef { sha256: name.replace('b', "c"), ..blob.clone() }]
    {
        let refused = engine.put_blob(session, &wrong, file.path()).await;
        assert!(matches!(refused, Err(BlobError::Mismatch { .. })), "{refused:?}");
        assert!(engine.get_blob(session, &wrong.sha256).await.is_err(), "nothing was put");
    }
    for bad in ["../../secret", "", "BA7816BF"] {
        let refused = engine.get_blob(session, bad).await;
        assert!(matches!(refused, Err(BlobError::BadName { .. })), "{refused:?}");
    }
    for _ in 0..2 {
        engine.put_blob(session, &blob, file.path()).await.expect("putting it twice is putting it once");
        let mut content = String::new();
        let mut found = engine.get_blob(session, name).await.expect("it is there");
        found.read_to_string(&mut content).expect("it can be read");
        assert_eq!(content, "abc");
    }
    assert_eq!(engine.usage(session).await.expect("a size").blob_bytes, 3);
    if let Some(directory) = engine.blob_directory(session).await.expect("a directory") {
        let other = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        tokio::fs::write(directory.join(other), b"").await.expect("a shim may write here");
        engine.get_blob(session, other).await.expect("what a shim put there is there");
    }
    engine.drop_session(session).await.expect("it can be dropped");
    let gone = engine.get_blob(session, name).await;
    assert!(matches!(gone, Err(BlobError::Missing { .. })), "{gone:?}");
}

pub(super) async fn bytes_become_a_blob_with_their_hash_as_its_name(engine: &impl Engine) {
    let session = session();
    for _ in 0..2 {
        let blob = engine.put_blob_bytes(session, b"abc", "text/plain").await.expect("there is room");
        let name = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(blob, BlobRef { sha256: name.into(), size: 3, mime: "text/plain".into() });
        let mut content = String::new();
        let mut found = engine.get_blob(session, name).await.expect("it is there");
        found.read_to_string(&mut content).expect("it can be read");
        assert_eq!(content, "abc");
    }
    assert_eq!(engine.usage(session).await.expect("a size").blob_bytes, 3, "twice is once");
}

/// Puts each of these as a blob; their names.
async fn put<const N: usize>(engine: &impl Engine, session: SessionId, contents: [&[u8]; N]) -> [String; N] {
    let mut names = [const { String::new() }; N];
    for (name, content) in names.iter_mut().zip(contents) {
        *name = engine.put_blob_bytes(session, content, "text/plain").await.expect("there is room").sha256;
    }
    names
}

async fn listed(engine: &impl Engine, session: SessionId) -> BTreeMap<String, BlobStamp> {
    engine.old_blobs(session, Duration::ZERO).await.expect("they can be listed")
}

async fn remove(engine: &impl Engine, session: SessionId, listed: &BTreeMap<String, BlobStamp>) -> u64 {
    engine.remove_blobs(session, listed).await.expect("they can be removed")
}

/// The content of a blob, if it is there.
async fn content(engine: &impl Engine, session: SessionId, sha256: &str) -> Option<Vec<u8>> {
    match engine.get_blob(session, sha256).await {
        Ok(mut found) => {
            let mut content = Vec::new();
            found.read_to_end(&mut content).expect("it can be read");
            Some(content)
        }
        Err(BlobError::Missing { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

pub(super) async fn blobs_that_were_listed_are_removed_and_no_others(engine: &impl Engine) {
    let (session, other) = (session(), SessionId::from_uuid(uuid::Uuid::from_u128(77)));
    assert_eq!(listed(engine, session).await, BTreeMap::new());
    let [a, b, c] = put(engine, session, [b"a", b"bb", b"ccc"]).await;
    put(engine, other, [b"a"]).await;
    let mut some = listed(engine, session).await;
    assert_eq!(some.keys().collect::<std::collections::BTreeSet<_>>(), [&a, &b, &c].into());
    some.remove(&c);
    assert_eq!(remove(engine, session, &some).await, 3);
    assert_eq!(content(engine, session, &a).await, None);
    assert_eq!(content(engine, session, &b).await, None);
    assert_eq!(content(engine, session, &c).await.as_deref(), Some(&b"ccc"[..]));
    assert_eq!(content(engine, other, &a).await.as_deref(), Some(&b"a"[..]), "another session's stays");
    assert_eq!(listed(engine, session).await.into_keys().collect::<Vec<_>>(), [c]);
    assert_eq!(engine.usage(session).await.expect("a size").blob_bytes, 3);

    assert_eq!(remove(engine, session, &some).await, 0, "what is not there is removed");
    let bad = BTreeMap::from([("../tables.redb".to_owned(), BlobStamp::default())]);
    let refused = engine.remove_blobs(session, &bad).await;
    assert!(matches!(refused, Err(BlobError::BadName { .. })), "{refused:?}");
    put(engine, session, [b"a"]).await;
    assert_eq!(content(engine, session, &a).await.as_deref(), Some(&b"a"[..]), "and can be put again");
    assert_eq!(engine.usage(session).await.expect("a size").blob_bytes, 4);
}

pub(super) async fn a_blob_that_is_put_again_is_another_than_was_listed(engine: &impl Engine) {
    let session = session();
    let [bytes, file, gone] = put(engine, session, [b"bytes", b"file", b"gone"]).await;
    let before = listed(engine, session).await;
    put(engine, session, [b"bytes"]).await;
    let mut copy = tempfile::NamedTempFile::new().expect("a temporary file");
    copy.write_all(b"file").expect("room for four bytes");
    let blob = BlobRef { sha256: file.clone(), size: 4, mime: "text/plain".into() };
    engine.put_blob(session, &blob, copy.path()).await.expect("there is room");
    assert_eq!(engine.usage(session).await.expect("a size").blob_bytes, 13, "twice is once");

    assert_eq!(remove(engine, session, &before).await, 4, "one of three was not put again");
    assert_eq!(content(engine, session, &gone).await, None);
    assert_eq!(content(engine, session, &bytes).await.as_deref(), Some(&b"bytes"[..]));
    assert_eq!(content(engine, session, &file).await.as_deref(), Some(&b"file"[..]));
    let now = listed(engine, session).await;
    assert_eq!(remove(engine, session, &now).await, 9);
    assert_eq!(engine.usage(session).await.expect("a size").blob_bytes, 0);
}

pub(super) async fn a_put_that_returned_is_not_undone_by_a_removal_beside_it(engine: &impl Engine) {
    let session = session();
    for round in 0..20 {
        let [name] = put(engine, session, [b"contended"]).await;
        let before = listed(engine, session).await;
        join(put(engine, session, [b"contended"]), remove(engine, session, &before)).await;
        let found = content(engine, session, &name).await;
        assert_eq!(found.as_deref(), Some(&b"contended"[..]), "round {round}");
        assert_eq!(engine.usage(session).await.expect("a size").blob_bytes, 9);
    }
}

pub(super) async fn what_was_put_just_now_is_not_old(engine: &impl Engine) {
    let session = session();
    put(engine, session, [b"young"]).await;
    assert_eq!(engine.old_blobs(session, HOUR).await.expect("they can be listed"), BTreeMap::new());
    assert_eq!(listed(engine, session).await.len(), 1);
}

pub(super) async fn a_shims_copy_goes_with_its_blob_unless_it_came_again(engine: &impl Engine) {
    let session = session();
    let Some(directory) = engine.blob_directory(session).await.expect("a directory") else { return };
    // As a shim does: under another name, then by rename.
    let place = |directory: &Path, name: &str| {
        let mut file = tempfile::NamedTempFile::new_in(directory).expect("a shim may write here");
        file.write_all(b"output").expect("room for six bytes");
        file.persist(directory.join(name)).expect("a shim may rename here");
    };
    let [name] = put(engine, session, [b"output"]).await;
    place(&directory, &name);
    let before = listed(engine, session).await;
    assert_eq!(remove(engine, session, &before).await, 6);
    assert!(!directory.join(&name).exists());
    assert_eq!(content(engine, session, &name).await, None);

    put(engine, session, [b"output"]).await;
    place(&directory, &name);
    let before = listed(engine, session).await;
    let file = tokio::fs::File::open(directory.join(&name)).await.expect("a shim may open it");
    let long_ago = std::time::SystemTime::UNIX_EPOCH + HOUR;
    file.into_std().await.set_modified(long_ago).expect("a shim may touch it");
    remove(engine, session, &before).await;
    assert_eq!(content(engine, session, &name).await.as_deref(), Some(&b"output"[..]));
}
