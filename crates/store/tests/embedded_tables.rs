//! The tables of the engine in a directory: full disks (C9) and damaged files (D6).

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use outlive_core::id::Revision;
use outlive_core::limits::{TABLE_VALUE_BYTES_MAX, TABLES_ASIDE_MAX};
use outlive_store::{Embedded, Engine, TableError};
use tempfile::TempDir;

const NONE: Revision = Revision(0);

/// A store with so many rows, and where its table file is.
async fn with_rows(rows: u32) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    for n in 0..rows {
        engine.put_if("t", &format!("key {n}"), NONE, &[n as u8; 2_000]).await.unwrap();
    }
    let tables = directory.path().join("tables.redb");
    (directory, tables)
}

fn aside(directory: &Path) -> Vec<PathBuf> {
    let is_aside = |path: &PathBuf| path.to_string_lossy().contains(".damaged-");
    let mut found: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).filter(is_aside).collect();
    found.sort();
    found
}

// D6
#[tokio::test]
async fn a_damaged_table_file_is_put_aside_and_said_and_empty_tables_begin() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 7] = [
        ("garbage", |file| file.fill(0x5a)),
        ("cut to its half", |file| file.truncate(file.len() / 2)),
        ("cut within its first page", |file| file.truncate(100)),
        ("a byte of its magic number", |file| file[5] ^= 1),
        ("a whole page", |file| {
            let at = file.windows(6).rposition(|bytes| bytes == b"key 77").unwrap() & !0xfff;
            file[at..at + 0x1000].fill(0xff);
        }),
        ("its first page", |file| file[..0x1000].fill(0)),
        ("a letter in a row", |file| {
            let at = file.windows(6).rposition(|bytes| bytes == b"key 77").unwrap();
            file[at + 1] ^= 1;
        }),
    ];
    for (what, damage) in damages {
        let (directory, tables) = with_rows(100).await;
        let mut file = fs::read(&tables).unwrap();
        damage(&mut file);
        fs::write(&tables, &file).unwrap();
        let engine = Embedded::open(directory.path()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(engine.scan("t", "").await.unwrap().is_empty(), "{what}");
        let state = engine.tables().await;
        assert_eq!(state.put_aside, aside(directory.path()), "{what}");
        let [kept] = &state.put_aside[..] else { panic!("{what}: {state:?}") };
        let kept = fs::read(kept).unwrap();
        let behind = 0x1000.min(file.len())..file.len();
        // In its first page redb notes that the file was opened.
        assert!(kept.get(behind.clone()) == Some(&file[behind]), "{what}: what was there is kept");
        assert_eq!(state.refused, None, "{what}");
        engine.put_if("t", "new", NONE, b"1").await.unwrap();
        drop(engine);
        let engine = Embedded::open(directory.path()).unwrap();
        assert_eq!(engine.scan("t", "").await.unwrap().len(), 1, "{what}: the new file is well");
        assert_eq!(
            engine.tables().await.put_aside.len(),
            1,
            "{what}: it is said as long as the file is there"
        );
    }
}

// D6
#[tokio::test]
async fn damage_at_any_byte_never_ends_the_engine_and_never_shows_what_was_not_put() {
    let (directory, tables) = with_rows(40).await;
    let whole = fs::read(&tables).unwrap();
    let used: Vec<_> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    for at in used.iter().step_by(used.len() / 60) {
        let mut file = whole.clone();
        file[*at] ^= 0x10;
        fs::write(&tables, &file).unwrap();
        let engine = Embedded::open(directory.path()).unwrap_or_else(|error| panic!("byte {at}: {error}"));
        for row in engine.scan("t", "").await.unwrap() {
            let n: u32 = row.key.strip_prefix("key ").unwrap().parse().unwrap();
            assert_eq!(row.value, [n as u8; 2_000], "byte {at}: {}", row.key);
        }
        engine.put_if("u", "k", NONE, b"1").await.unwrap_or_else(|error| panic!("byte {at}: {error}"));
    }
    assert!(aside(directory.path()).len() <= TABLES_ASIDE_MAX, "they do not pile up");
}

#[tokio::test]
async fn an_empty_table_file_and_none_are_empty_tables() {
    let (directory, tables) = with_rows(3).await;
    fs::write(&tables, b"").unwrap();
    assert!(Embedded::open(directory.path()).unwrap().scan("t", "").await.unwrap().is_empty());
    fs::remove_file(&tables).unwrap();
    assert!(Embedded::open(directory.path()).unwrap().scan("t", "").await.unwrap().is_empty());
}

/// Runs a test of this file alone, in a mount namespace where `directory` is a tmpfs of this size.
fn on_small_disk(size: &str, test: &str) {
    let directory = tempfile::tempdir().unwrap();
    let script = format!(
        "mount -t tmpfs -o size={size} tmpfs \"$1\" && exec \"$2\" --exact {test} --ignored --nocapture"
    );
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script, "sh"])
        .arg(directory.path())
        .arg(std::env::current_exe().unwrap())
        .env("OUTLIVE_TEST_DISK", directory.path())
        .output()
        .unwrap();
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

fn disk() -> PathBuf {
    PathBuf::from(std::env::var_os("OUTLIVE_TEST_DISK").unwrap())
}

/// Writes until the disk is full.
fn fill(disk: &Path) -> PathBuf {
    use std::io::Write as _;
    let ballast = disk.join("ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    for size in [1 << 20, 1 << 12] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
    ballast
}

/// Puts rows until one is refused. How many were acknowledged.
async fn put_until_refused(engine: &Embedded) -> (u32, TableError) {
    let mut put = 0;
    loop {
        match engine.put_if("t", &format!("{put}"), NONE, &vec![put as u8; TABLE_VALUE_BYTES_MAX]).await {
            Ok(_) => put += 1,
            Err(error) => return (put, error),
        }
    }
}

/// Waits until the tables are written again, as whoever has to write a row does.
async fn until_written(engine: &Embedded, key: &str) {
    loop {
        match engine.put_if("after", key, NONE, b"1").await {
            Ok(_) => return,
            Err(TableError::Unavailable(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

// C9 (the store's part)
#[test]
fn tables_on_a_full_disk_refuse_and_go_on_by_themselves() {
    on_small_disk("16m", "tables_on_a_full_disk");
}

#[tokio::test]
#[ignore = "needs a small disk: run by tables_on_a_full_disk_refuse_and_go_on_by_themselves"]
async fn tables_on_a_full_disk() {
    let disk = disk();
    let engine = Embedded::open(&disk.join("store")).unwrap();
    let ballast = fill(&disk);
    let (put, error) = put_until_refused(&engine).await;
    assert!(matches!(error, TableError::Unknown | TableError::Unavailable(_)), "{error}");
    let refused = engine.tables().await;
    assert!(refused.refused.is_some() && refused.failed > 0, "{refused:?}");
    for _ in 0..3 {
        let rows = engine.scan("t", "").await.expect("what is there can be read");
        assert!((put..=put + 1).contains(&(rows.len() as u32)), "{} of {put}", rows.len());
        assert!(engine.put_if("t", "more", NONE, &vec![7; TABLE_VALUE_BYTES_MAX]).await.is_err());
    }
    fs::remove_file(&ballast).unwrap();
    until_written(&engine, "1").await;
    let state = engine.tables().await;
    assert_eq!((state.refused, state.put_aside.len()), (None, 0), "a full disk damages nothing");
    assert!(engine.scan("t", "").await.unwrap().len() as u32 >= put, "what was acknowledged is there");
}

// C9 (the store's part)
#[test]
fn an_engine_that_is_opened_on_a_full_disk_is_there_when_there_is_room() {
    on_small_disk("16m", "opened_on_a_full_disk");
}

#[tokio::test]
#[ignore = "needs a small disk: run by an_engine_that_is_opened_on_a_full_disk_is_there_when_there_is_room"]
async fn opened_on_a_full_disk() {
    let disk = disk();
    // One that has rows, and one that begins now.
    let (used, new) = (disk.join("used"), disk.join("new"));
    let put = {
        let engine = Embedded::open(&used).unwrap();
        let ballast = fill(&disk);
        let (put, _) = put_until_refused(&engine).await;
        drop(engine);
        fs::create_dir_all(new.join("sessions")).unwrap();
        fs::remove_file(ballast).unwrap();
        put
    };
    let ballast = fill(&disk);
    let [used, new] = [used, new].map(|store| Embedded::open(&store).expect("a daemon starts"));
    assert!(new.tables().await.refused.is_some(), "nothing can be noted, and that is said");
    assert!(matches!(new.get("t", "k").await, Err(TableError::Unavailable(_))));
    fs::remove_file(ballast).unwrap();
    until_written(&used, "1").await;
    until_written(&new, "1").await;
    assert!(used.scan("t", "").await.unwrap().len() as u32 >= put, "what was acknowledged is there");
    for engine in [used, new] {
        let state = engine.tables().await;
        assert_eq!((state.refused, state.put_aside.len()), (None, 0), "a full disk damages nothing");
    }
}
