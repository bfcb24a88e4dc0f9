//! The file on disk is the old one or the new one, never half of one, and never somebody else's work lost.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use outlive_document::file::{Expected, ReadError, WriteError, read, write_atomic};
use tempfile::TempDir;

fn desk() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("note.ipynb");
    (directory, path)
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_is_made_read_and_replaced() {
    let (directory, path) = desk();
    let first = write_atomic(&path, b"one", Expected::Absent).unwrap();
    let (bytes, seen) = read(&path).unwrap();
    assert_eq!((bytes.as_slice(), &seen), (b"one".as_slice(), &first));
    let second = write_atomic(&path, b"two", Expected::Unchanged(&seen)).unwrap();
    assert_ne!(second.hash, first.hash);
    assert_eq!(read(&path).unwrap(), (b"two".to_vec(), second));
    assert_eq!(names(directory.path()), ["note.ipynb"]);
}

// C5: what another program wrote is not overwritten, and its deletion is no leave to write.
#[test]
fn a_change_by_others_is_a_typed_conflict() {
    let (directory, path) = desk();
    let stamp = write_atomic(&path, b"ours", Expected::Absent).unwrap();
    assert!(matches!(
        write_atomic(&path, b"new", Expected::Absent),
        Err(WriteError::Changed { now: Some(_), .. })
    ));

    fs::write(&path, b"theirs").unwrap();
    let Err(WriteError::Changed { now: Some(now), .. }) =
        write_atomic(&path, b"x", Expected::Unchanged(&stamp))
    else {
        panic!("a conflict was expected")
    };
    assert_eq!(fs::read(&path).unwrap(), b"theirs");
    write_atomic(&path, b"merged", Expected::Unchanged(&now)).unwrap();

    let (_, stamp) = read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let gone = write_atomic(&path, b"x", Expected::Unchanged(&stamp)).unwrap_err();
    assert!(matches!(gone, WriteError::Changed { now: None, .. }));
    assert!(gone.to_string().contains("removed by another program"), "{gone}");
    assert!(!path.exists());
    write_atomic(&path, b"decided", Expected::Anything).unwrap();
    assert_eq!(names(directory.path()), ["note.ipynb"]);
}

#[test]
fn a_touched_file_with_the_same_content_is_no_conflict() {
    let (_directory, path) = desk();
    let stamp = write_atomic(&path, b"same", Expected::Absent).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"same").unwrap();
    write_atomic(&path, b"next", Expected::Unchanged(&stamp)).unwrap();
}

// C3: a link stays a link, also to a directory elsewhere and to a target that is not there yet.
#[test]
fn a_link_is_written_through() {
    let (directory, path) = desk();
    let elsewhere = directory.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink("elsewhere/real.ipynb", &path).unwrap();
    let stamp = write_atomic(&path, b"through", Expected::Absent).unwrap();
    assert_eq!(fs::read(elsewhere.join("real.ipynb")).unwrap(), b"through");
    write_atomic(&path, b"again", Expected::Unchanged(&stamp)).unwrap();
    assert!(path.is_symlink());
    assert_eq!(names(&elsewhere), ["real.ipynb"], "the temporary file stood beside the target");

    let turn = directory.path().join("turn.ipynb");
    symlink(&turn, &turn).unwrap();
    assert!(matches!(write_atomic(&turn, b"x", Expected::Anything), Err(WriteError::Io { .. })));
}

#[test]
fn mode_and_owner_stay() {
    let (_directory, path) = desk();
    write_atomic(&path, b"1", Expected::Absent).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let owner = fs::metadata(&path).unwrap().uid();
    write_atomic(&path, b"2", Expected::Anything).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.mode() & 0o777, metadata.uid()), (0o640, owner));
}

// C8, C3: paths that cannot be notebooks are refused by name, and nothing is left.
#[test]
fn refusals_are_typed() {
    let (directory, path) = desk();
    let folder = directory.path().join("folder.ipynb");
    fs::create_dir(&folder).unwrap();
    assert!(matches!(
        write_atomic(&folder, b"x", Expected::Anything),
        Err(WriteError::NotAFile(_, "a directory"))
    ));
    assert!(matches!(read(&folder), Err(ReadError::NotAFile(_, "a directory"))));
    assert!(matches!(read(Path::new("/dev/zero")), Err(ReadError::NotAFile(..))));
    assert!(matches!(read(&path), Err(ReadError::NotFound(_))));
    let orphan = directory.path().join("missing/note.ipynb");
    assert!(matches!(write_atomic(&orphan, b"x", Expected::Absent), Err(WriteError::MissingDirectory(_))));
    let long = directory.path().join("x".repeat(300));
    assert!(matches!(write_atomic(&long, b"x", Expected::Absent), Err(WriteError::PathTooLong(_))));
    let longest = directory.path().join("y".repeat(255));
    write_atomic(&longest, b"x", Expected::Absent).expect("a name as long as the file system takes");
    assert_eq!(names(directory.path()).len(), 2);
}

#[test]
fn what_a_killed_writer_left_is_removed() {
    let (directory, path) = desk();
    write_atomic(&path, b"x", Expected::Absent).unwrap();
    let mut killed = Command::new("true").spawn().unwrap();
    let dead = killed.id();
    killed.wait().unwrap();
    let left = |pid: u32| directory.path().join(format!(".note.ipynb.outlive-tmp-{pid}-0"));
    fs::write(left(dead), b"half").unwrap();
    fs::write(left(std::process::id()), b"being written").unwrap();
    fs::write(directory.path().join(".other.ipynb.outlive-tmp-1-0"), b"").unwrap();
    read(&path).unwrap();
    assert!(!left(dead).exists());
    assert!(left(std::process::id()).exists(), "a living writer's");
    assert_eq!(names(directory.path()).len(), 3);
}

/// What the test below does inside of a mount namespace where the faults are real.
const INSIDE: &str = "OUTLIVE_TEST_FAULTY_FILE_SYSTEMS";

// C3: a full disk, a read-only file system and a directory without permission, as they really are.
#[test]
fn faulty_file_systems() {
    if let Ok(directory) = std::env::var(INSIDE) {
        return on_faulty_file_systems(Path::new(&directory));
    }
    let directory = TempDir::new().unwrap();
    let script = "set -e
        mkdir $D/small $D/frozen
        mount -t tmpfs -o size=64k none $D/small
        echo '{}' > $D/frozen/note.ipynb
        mount --bind $D/frozen $D/frozen
        mount -o remount,ro,bind $D/frozen
        exec \"$0\" --exact faulty_file_systems --nocapture";
    let done = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .env("D", directory.path())
        .env(INSIDE, directory.path())
        .output()
        .expect("unshare (util-linux) is needed");
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr)
    );
}

fn on_faulty_file_systems(directory: &Path) {
    let full = directory.join("small/note.ipynb");
    let stamp = write_atomic(&full, b"old", Expected::Absent).unwrap();
    let error = write_atomic(&full, &[b'x'; 1 << 20], Expected::Unchanged(&stamp)).unwrap_err();
    assert!(matches!(error, WriteError::DiskFull(_)), "{error:?}");
    assert_eq!(read(&full).unwrap(), (b"old".to_vec(), stamp));
    assert_eq!(names(&directory.join("small")), ["note.ipynb"], "no temporary file is left to fill the disk");

    let frozen = directory.join("frozen/note.ipynb");
    let error = write_atomic(&frozen, b"x", Expected::Anything).unwrap_err();
    assert!(matches!(error, WriteError::ReadOnly(_)), "{error:?}");
    assert_eq!(read(&frozen).unwrap().0, b"{}\n");
}

// A reader at any moment sees one whole version while a writer replaces them.
#[test]
fn readers_never_see_half_a_file() {
    let (_directory, path) = desk();
    let version = |byte: u8| vec![byte; 100_000];
    write_atomic(&path, &version(b'a'), Expected::Absent).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for byte in b'a'..=b'z' {
                write_atomic(&path, &version(byte), Expected::Anything).unwrap();
            }
        });
        while !writer.is_finished() {
            let bytes = fs::read(&path).unwrap();
            assert_eq!(bytes, version(bytes[0]));
        }
    });
}

// Two who both believe that nothing is there: one wins, the other is told, whatever the timing.
#[test]
fn two_makers_of_one_file() {
    for _ in 0..100 {
        let (directory, path) = desk();
        let results = std::thread::scope(|scope| {
            let make = |text: &'static [u8]| {
                let path = &path;
                scope.spawn(move || write_atomic(path, text, Expected::Absent).is_ok())
            };
            let (one, two) = (make(b"one"), make(b"two"));
            [one.join().unwrap(), two.join().unwrap()]
        });
        assert_ne!(results[0], results[1], "exactly one wins");
        let expected: &[u8] = if results[0] { b"one" } else { b"two" };
        assert_eq!(fs::read(&path).unwrap(), expected);
        assert_eq!(names(directory.path()), ["note.ipynb"]);
    }
}
