//! What every engine promises of tables and blobs.

use std::io::{Read, Write};

use futures_util::future::join_all;
use outlive_core::id::Revision;
use outlive_core::limits::TABLE_VALUE_BYTES_MAX;
use outlive_core::log::BlobRef;

use super::records::session;
use crate::engine::Engine;
use crate::error::{BlobError, TableError};
use crate::table::{Change, Row};

const NONE: Revision = Revision(0);

pub(super) async fn rows_change_by_compare_and_swap(engine: &impl Engine) {
    assert_eq!(engine.get("paths", "a").await.expect("readable"), None);
    let first = engine.put_if("paths", "a", NONE, b"one").await.expect("there is none yet");
    let refused = engine.put_if("paths", "a", NONE, b"two").await;
    assert!(matches!(refused, Err(TableError::Conflict { current }) if current == first), "{refused:?}");
    let second = engine.put_if("paths", "a", first, b"two").await.expect("the revision fits");
    assert!(second > first);
    let refused = engine.delete_if("paths", "a", first).await;
    assert!(matches!(refused, Err(TableError::Conflict { current }) if current == second), "{refused:?}");
    let row = Row { key: "a".into(), revision: second, value: b"two".to_vec() };
    assert_eq!(engine.get("paths", "a").await.expect("readable"), Some(row));
    engine.delete_if("paths", "a", second).await.expect("the revision fits");
    assert_eq!(engine.get("paths", "a").await.expect("readable"), None);
    for expected in [NONE, second] {
        let refused = engine.delete_if("paths", "a", expected).await;
        assert!(matches!(refused, Err(TableError::Conflict { current: NONE })), "{refused:?}");
    }
}

pub(super) async fn a_deleted_row_never_has_an_old_revision(engine: &impl Engine) {
    let first = engine.put_if("t", "k", NONE, b"1").await.expect("there is none yet");
    engine.delete_if("t", "k", first).await.expect("the revision fits");
    let second = engine.put_if("t", "k", NONE, b"2").await.expect("there is none again");
    assert!(second > first, "whoever held the first row cannot change the second");
    let refused = engine.put_if("t", "k", first, b"3").await;
    assert!(matches!(refused, Err(TableError::Conflict { .. })));
}

pub(super) async fn a_scan_is_one_table_in_order(engine: &impl Engine) {
    for (table, key) in
        [("t", "b/2"), ("t", "b/1"), ("t", "b"), ("t", "a"), ("t", "c"), ("tt", "b/3"), ("s", "b/4")]
    {
        engine.put_if(table, key, NONE, key.as_bytes()).await.expect("there is none yet");
    }
    let keys = |rows: Vec<Row>| rows.into_iter().map(|row| row.key).collect::<Vec<_>>();
    assert_eq!(keys(engine.scan("t", "b/").await.expect("readable")), ["b/1", "b/2"]);
    assert_eq!(keys(engine.scan("t", "").await.expect("readable")), ["a", "b", "b/1", "b/2", "c"]);
    assert_eq!(keys(engine.scan("none", "").await.expect("readable")), Vec::<String>::new());
}

pub(super) async fn a_value_over_the_limit_is_refused(engine: &impl Engine) {
    let refused = engine.put_if("t", "k", NONE, &vec![0; TABLE_VALUE_BYTES_MAX + 1]).await;
    assert!(matches!(refused, Err(TableError::TooLarge { .. })), "{refused:?}");
    assert_eq!(engine.get("t", "k").await.expect("readable"), None);
    engine.put_if("t", "k", NONE, &vec![0; TABLE_VALUE_BYTES_MAX]).await.expect("the largest value fits");
}

pub(super) async fn a_watch_misses_nothing(engine: &impl Engine) {
    let first = engine.put_if("t", "p/1", NONE, b"1").await.expect("there is none yet");
    engine.put_if("t", "q/1", NONE, b"1").await.expect("there is none yet");
    let mut watch = engine.watch("t", "p/").await.expect("it can be watched");
    let second = engine.put_if("t", "p/2", NONE, b"2").await.expect("there is none yet");
    engine.put_if("t", "q/2", NONE, b"2").await.expect("there is none yet");
    engine.put_if("u", "p/3", NONE, b"3").await.expect("there is none yet");
    engine.delete_if("t", "p/1", first).await.expect("the revision fits");
    let put = |key: &str, revision, value: &[u8]| {
        Change::Put(Row { key: key.into(), revision, value: value.to_vec() })
    };
    assert_eq!(watch.next().await, Some(put("p/1", first, b"1")));
    assert_eq!(watch.next().await, Some(Change::Current));
    assert_eq!(watch.next().await, Some(put("p/2", second, b"2")));
    let Some(Change::Deleted { key, revision }) = watch.next().await else { panic!("a deletion is told") };
    assert!(key == "p/1" && revision > second);
}

pub(super) async fn one_of_many_writers_of_a_row_wins(engine: &impl Engine) {
    let outcomes = join_all((0..20).map(|_| engine.put_if("t", "k", NONE, b"mine"))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
}

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
