//! The file on disk is the old one or the new one, never half of one, and never somebody else's work lost.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use outlive_document::file::{
    Expected, FileStamp, ReadError, WriteError, clean_up, find_inode, look, read, write_atomic,
};
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
    assert!(matches!(
        write_atomic(&path, b"x", Expected::Unchanged(&stamp)),
        Err(WriteError::Changed { now: Some(_), .. })
    ));
    let (theirs, now) = read(&path).unwrap();
    assert_eq!(theirs, b"theirs");
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

// C5: an edit in place whose writer sets the old time again, as `rsync --inplace -t` does, is an edit all the same.
#[test]
fn an_edit_that_keeps_size_and_time_is_no_less_a_conflict() {
    let (_directory, path) = desk();
    let stamp = write_atomic(&path, b"ours", Expected::Absent).unwrap();
    assert_eq!(look(&path).unwrap(), Some(stamp.meta()), "our own write, with the rename that ended it");
    let before = fs::metadata(&path).unwrap();
    // The clock of a file system may stand still for some milliseconds.
    for edit in [b"your", b"hers"].into_iter().cycle() {
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, edit, 0).unwrap();
        file.set_modified(before.modified().unwrap()).unwrap();
        if file.metadata().unwrap().ctime_nsec() != before.ctime_nsec() {
            break;
        }
    }
    let now = fs::metadata(&path).unwrap();
    assert_eq!(
        (now.ino(), now.len(), now.modified().unwrap()),
        (before.ino(), before.len(), before.modified().unwrap())
    );
    let theirs = fs::read(&path).unwrap();
    assert_ne!(look(&path).unwrap(), Some(stamp.meta()), "whoever looks is told to read");
    assert!(matches!(
        write_atomic(&path, b"lost", Expected::Unchanged(&stamp)),
        Err(WriteError::Changed { now: Some(_), .. })
    ));
    assert_eq!(fs::read(&path).unwrap(), theirs);
}

// A stamp of an earlier version: only the content can tell.
#[test]
fn a_stamp_without_a_ctime_is_compared_by_its_content() {
    let (_directory, path) = desk();
    let mut old = write_atomic(&path, b"ours", Expected::Absent).unwrap();
    old.ctime_ns = None;
    assert_ne!(look(&path).unwrap(), Some(old.meta()), "it is read once");
    write_atomic(&path, b"next", Expected::Unchanged(&old)).unwrap();
    fs::write(&path, b"your").unwrap();
    old = FileStamp { ctime_ns: None, ..read(&path).unwrap().1 };
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, b"hers").unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    assert!(write_atomic(&path, b"lost", Expected::Unchanged(&old)).is_err());
}

// C9: what stands in the notebook's place may be anything, of any size: it is not read to find that out.
#[test]
fn a_write_over_something_huge_is_refused_at_once() {
    let (_directory, path) = desk();
    let stamp = write_atomic(&path, b"ours", Expected::Absent).unwrap();
    // A hole: a terabyte that takes no space, and an hour to read.
    fs::File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    for expected in [Expected::Unchanged(&stamp), Expected::Absent] {
        assert!(matches!(
            write_atomic(&path, b"new", expected),
            Err(WriteError::Changed { now: Some(now), .. }) if now.size == 1 << 40
        ));
    }
    let as_long = FileStamp { size: 1 << 40, ..stamp };
    assert!(write_atomic(&path, b"new", Expected::Unchanged(&as_long)).is_err());
    assert_eq!(fs::metadata(&path).unwrap().len(), 1 << 40);
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
    let left = |number: u32| directory.path().join(format!(".note.ipynb.outlive-tmp-{number}-0"));
    // In a container that was started again the writer that died had our pid.
    fs::write(left(std::process::id()), b"half").unwrap();
    fs::write(left(1), b"being written").unwrap();
    let writer = fs::File::open(left(1)).unwrap();
    writer.lock().unwrap();
    fs::write(directory.path().join(".other.ipynb.outlive-tmp-1-0"), b"").unwrap();
    read(&path).unwrap();
    assert!(!left(std::process::id()).exists());
    assert!(left(1).exists(), "a living writer's");
    drop(writer);
    fs::remove_file(&path).unwrap();
    clean_up(&path);
    assert_eq!(names(directory.path()), [".other.ipynb.outlive-tmp-1-0"], "also where the notebook is gone");
}

#[test]
fn what_a_dead_process_of_our_pid_left_is_no_obstacle_to_a_save() {
    let (directory, path) = desk();
    for number in 0..50 {
        let left = format!(".note.ipynb.outlive-tmp-{}-{number}", std::process::id());
        fs::write(directory.path().join(left), b"half").unwrap();
    }
    write_atomic(&path, b"whole", Expected::Absent).unwrap();
    assert_eq!(read(&path).unwrap().0, b"whole");
    assert_eq!(names(directory.path()), ["note.ipynb"]);
}

#[test]
fn a_look_tells_a_change_and_an_inode_finds_the_new_name() {
    let (directory, path) = desk();
    assert_eq!(look(&path).unwrap(), None);
    let stamp = write_atomic(&path, b"one", Expected::Absent).unwrap();
    assert_eq!(look(&path).unwrap(), Some(stamp.meta()));
    let moved = directory.path().join("moved.ipynb");
    fs::rename(&path, &moved).unwrap();
    assert_eq!(look(&path).unwrap(), None);
    assert_eq!(find_inode(directory.path(), stamp.inode), Some(moved.clone()));
    fs::write(&moved, b"other").unwrap();
    assert_ne!(look(&moved).unwrap(), Some(stamp.meta()));
    let elsewhere = TempDir::new_in(directory.path()).unwrap();
    assert_eq!(find_inode(elsewhere.path(), stamp.inode), None);
    assert_eq!(look(&moved.join("below-a-file")).unwrap(), None);
}

/// The notebook that the process of the next test saves, over and over.
const SAVING: &str = "OUTLIVE_TEST_SAVING";

/// How the notebook begins that is saved.
const HEAD: &str = r#"{"cells":[],"nbformat":4,"nbformat_minor":5,"metadata":{"text":""#;

/// About 30 MB of notebook; each line says which version it is of.
fn large(version: u64) -> Vec<u8> {
    let line = format!("{version:8}").repeat(128).into_bytes();
    let mut bytes = HEAD.as_bytes().to_vec();
    for _ in 0..30_000 {
        bytes.extend_from_slice(&line);
    }
    bytes.extend_from_slice(br#""}}"#);
    bytes
}

// C4: killed a hundred times at whatever moment of a save of 30 MB, the file is one whole version, and nothing is
// left beside it once it has been opened again.
#[test]
fn killed_a_hundred_times_while_it_saves() {
    if let Ok(path) = std::env::var(SAVING) {
        return save_for_ever(Path::new(&path));
    }
    let (directory, path) = desk();
    fs::write(&path, large(0)).unwrap();
    let (mut versions, mut left) = (BTreeSet::new(), 0);
    for round in 0..100 {
        let mut saver = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed_a_hundred_times_while_it_saves", "--nocapture"])
            .env(SAVING, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(saver.stdout.take().unwrap()).lines().map(Result::unwrap);
        // Two of three as far into a save as the temporary file tells, up to its fsync; the others when it is done.
        if round % 3 < 2 {
            lines.find(|line| line == "saving").expect("it saves for ever");
            let bytes = large(0).len() as u64 * (round * 37 % 100 + 1) / 100;
            while written_so_far(directory.path()) < bytes {
                std::thread::yield_now();
            }
        } else {
            lines.find(|line| line == "saved").expect("it saves for ever");
        }
        saver.kill().unwrap();
        saver.wait().unwrap();
        left += names(directory.path()).len() - 1;
        let bytes = fs::read(&path).unwrap();
        let version = String::from_utf8_lossy(&bytes[HEAD.len()..HEAD.len() + 8]).trim().parse().unwrap();
        assert!(bytes == large(version), "torn in round {round}");
        versions.insert(version);
        clean_up(&path);
        assert_eq!(names(directory.path()), ["note.ipynb"], "in round {round}");
    }
    assert!(left > 30, "most were killed in mid-save: {left}");
    assert!(versions.len() > 30, "and some after it: {versions:?}");
}

/// How many bytes are in the temporary file of a save; 0 when there is none.
fn written_so_far(directory: &Path) -> u64 {
    let temporary =
        fs::read_dir(directory).unwrap().flatten().find(|entry| entry.file_name() != "note.ipynb");
    temporary.and_then(|entry| entry.metadata().ok()).map_or(0, |metadata| metadata.len())
}

#[expect(clippy::print_stdout, reason = "it says to the test where it is")]
fn save_for_ever(path: &Path) {
    let nanos = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    for version in u64::try_from(nanos / 1_000_000 % 10_000_000).unwrap().. {
        let bytes = large(version);
        println!("saving");
        write_atomic(path, &bytes, Expected::Anything).unwrap();
        println!("saved");
    }
}

// C3: a directory and a file that its owner has made read-only, as somebody who is not root meets them.
#[test]
fn without_permission() {
    if let Ok(directory) = std::env::var(INSIDE) {
        return in_directories_without_permission(Path::new(&directory));
    }
    let directory = TempDir::new().unwrap();
    let frozen = directory.path().join("frozen");
    fs::create_dir(&frozen).unwrap();
    for path in [frozen.join("note.ipynb"), directory.path().join("mine.ipynb")] {
        fs::write(&path, b"old").unwrap();
    }
    fs::set_permissions(directory.path().join("mine.ipynb"), fs::Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(&frozen, fs::Permissions::from_mode(0o555)).unwrap();
    // A user namespace without a mapping takes even root's privileges, and leaves it the owner.
    let done = Command::new("unshare")
        .arg("--user")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "without_permission", "--nocapture"])
        .env(INSIDE, directory.path())
        .output()
        .expect("unshare (util-linux) is needed");
    let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    fs::set_permissions(&frozen, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(done.status.success(), "{said}");
}

fn in_directories_without_permission(directory: &Path) {
    let frozen = directory.join("frozen/note.ipynb");
    for path in [&frozen, &directory.join("mine.ipynb"), &directory.join("frozen/new.ipynb")] {
        let error = write_atomic(path, b"new", Expected::Anything).unwrap_err();
        assert!(matches!(error, WriteError::NoPermission(_)), "{path:?}: {error:?}");
        assert!(error.to_string().contains("save it under another path"), "{error}");
    }
    assert_eq!(fs::read(&frozen).unwrap(), b"old");
    assert_eq!(fs::read(directory.join("mine.ipynb")).unwrap(), b"old");
    assert_eq!(names(directory), ["frozen", "mine.ipynb"], "no temporary file is left");
    assert_eq!(names(&directory.join("frozen")), ["note.ipynb"]);
}

/// The directory that a test's second half finds inside of a namespace where the faults are real.
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
