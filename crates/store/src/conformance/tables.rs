//! What every engine promises of tables.

use futures_util::future::join_all;
use outlive_core::id::Revision;
use outlive_core::limits::TABLE_VALUE_BYTES_MAX;

use crate::engine::Engine;
use crate::error::TableError;
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
