//! Where a notebook really is, and whose it is.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use outlive_core::id::SessionId;
use outlive_node::files::{LocalFiles, notebook_path};
use outlive_node::seams::{ClaimError, Files};
use tempfile::TempDir;
use uuid::Uuid;

fn session() -> SessionId {
    SessionId::from_uuid(Uuid::now_v7())
}

/// A folder for claims, and a directory as the system itself calls it.
fn desk() -> (TempDir, LocalFiles, PathBuf) {
    let place = TempDir::new().unwrap();
    let real = place.path().canonicalize().unwrap().join("real");
    fs::create_dir(&real).unwrap();
    let files = LocalFiles::new(place.path().join("claims"));
    (place, files, real)
}

// C8: the suffix is appended, and what is no name of a notebook is refused by name.
#[test]
fn a_notebook_has_its_suffix_and_is_no_id() {
    let path = |given: &str| notebook_path(Path::new(given)).map(|path| path.to_str().unwrap().to_owned());
    assert_eq!(path("/a/b").unwrap(), "/a/b.ipynb");
    assert_eq!(path("/a/b.ipynb").unwrap(), "/a/b.ipynb");
    assert_eq!(path("b.v2").unwrap(), "b.v2.ipynb");
    assert_eq!(path("/a/../b c.txt").unwrap(), "/a/../b c.txt.ipynb");
    let id = session().to_string();
    for given in [id.clone(), format!("/a/{id}"), format!("/a/{id}.ipynb")] {
        match path(&given) {
            Err(ClaimError::UseTheId { path }) => assert_eq!(path, id),
            other => panic!("{given}: {other:?}"),
        }
    }
    let long = "x".repeat(250);
    for (given, reason) in [
        ("", "its name is empty"),
        ("/a/.ipynb", "its name is empty"),
        ("/", "it is a directory"),
        ("/a/b.ipynb/", "it is a directory"),
        ("/a/.", "it is a directory"),
        ("..", "it is a directory"),
        ("/a/b\0c", "it contains a NUL"),
        (&*long, "its name is longer than 255 bytes"),
    ] {
        match path(given) {
            Err(ClaimError::BadPath { why, .. }) => assert_eq!(why, reason, "{given:?}"),
            other => panic!("{given:?}: {other:?}"),
        }
    }
}

// C2: each spelling leads to the one path, whether the file exists or not.
#[tokio::test]
async fn all_spellings_of_a_file_are_one_path() {
    let (place, files, real) = desk();
    fs::create_dir(real.join("below")).unwrap();
    symlink(real.join("below"), place.path().join("down")).unwrap();
    symlink("real", place.path().join("link")).unwrap();
    symlink("link/../real/n.ipynb", place.path().join("far.ipynb")).unwrap();
    symlink(place.path().join("far.ipynb"), real.join("farther.ipynb")).unwrap();
    let wanted = real.join("n.ipynb");
    for exists in [false, true] {
        if exists {
            fs::write(&wanted, "{}").unwrap();
        }
        for spelling in [
            "real/n.ipynb",
            "real/./n.ipynb",
            "link/n.ipynb",
            "link//n.ipynb",
            "link/below/../n.ipynb",
            // The directory above the real one, not above the link.
            "down/../n.ipynb",
            "far.ipynb",
            "real/farther.ipynb",
        ] {
            assert_eq!(files.resolve(&place.path().join(spelling)).await.unwrap(), wanted, "{spelling}");
        }
    }
}

// C3, C8: what cannot be resolved is refused with a reason and never used as it is.
#[tokio::test]
async fn a_path_that_leads_nowhere_is_refused() {
    let (place, files, real) = desk();
    assert!(matches!(files.resolve(Path::new("n.ipynb")).await, Err(ClaimError::Relative { .. })));

    fs::write(real.join("file"), "").unwrap();
    symlink("gone/n.ipynb", real.join("nowhere.ipynb")).unwrap();
    for (spelling, missing) in
        [("gone/n.ipynb", "gone"), ("gone/../n.ipynb", "gone/.."), ("nowhere.ipynb", "gone")]
    {
        let error = files.resolve(&real.join(spelling)).await.unwrap_err();
        let said = error.to_string();
        match error {
            ClaimError::MissingDirectory { directory, .. } => {
                assert_eq!(Path::new(&directory), real.join(missing), "{spelling}");
            }
            other => panic!("{spelling}: {other:?}"),
        }
        assert!(said.contains(spelling) && said.contains("there is no directory"), "{said}");
    }

    // Where a file stands, `mkdir` does not help.
    for spelling in ["file/n.ipynb", "file/below/n.ipynb"] {
        match files.resolve(&real.join(spelling)).await {
            Err(ClaimError::NoDirectory { file, .. }) => assert_eq!(Path::new(&file), real.join("file")),
            other => panic!("{spelling}: {other:?}"),
        }
    }

    symlink("turn.ipynb", real.join("turn.ipynb")).unwrap();
    assert!(matches!(files.resolve(&real.join("turn.ipynb")).await, Err(ClaimError::Unresolvable { .. })));
    symlink(OsStr::from_bytes(b"\xff.ipynb"), real.join("latin.ipynb")).unwrap();
    symlink("../real/", real.join("folder.ipynb")).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(real.join("socket.ipynb")).unwrap();
    for (spelling, reason) in [
        ("latin.ipynb", "it is no valid UTF-8"),
        ("folder.ipynb", "it is a directory"),
        ("../real", "it is a directory"),
        ("socket.ipynb", "it is a pipe, a socket or a device"),
        (&*"x".repeat(256), "its name is longer than 255 bytes"),
    ] {
        match files.resolve(&real.join(spelling)).await {
            Err(ClaimError::BadPath { why, path }) => {
                assert_eq!((why, Path::new(&path)), (reason, &*real.join(spelling)));
            }
            other => panic!("{spelling}: {other:?}"),
        }
        assert!(files.claim(&real.join(spelling), session()).await.is_err(), "{spelling}");
    }
    drop(socket);
    assert!(!place.path().join("claims").exists(), "nothing was claimed");
}

// C2: of those that race for a path in different spellings, one has it; the others are told who, and write nothing.
#[test]
fn one_of_many_that_race_for_a_path_has_it() {
    for round in 0..100 {
        let (place, files, real) = desk();
        symlink("real", place.path().join("link")).unwrap();
        symlink("link/n.ipynb", place.path().join("dangling.ipynb")).unwrap();
        let wanted = real.join("n.ipynb");
        if round % 2 == 0 {
            fs::write(&wanted, "old").unwrap();
        }
        let spellings = ["real/n.ipynb", "link/n.ipynb", "link/../real/n.ipynb", "dangling.ipynb"];
        let start = std::sync::Barrier::new(spellings.len());
        let ends: Vec<_> = std::thread::scope(|scope| {
            let racer = |spelling: &'static str| {
                let (files, start, path) = (files.clone(), &start, place.path().join(spelling));
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    let id = session();
                    start.wait();
                    runtime.block_on(async {
                        let claim = files.claim(&path, id).await?;
                        let stamp = files.read(claim.path()).await.ok().map(|(_, stamp)| stamp);
                        files.write(claim.path(), id.to_string().into_bytes(), stamp).await.unwrap();
                        Ok::<_, ClaimError>((id, claim))
                    })
                })
            };
            let racers: Vec<_> = spellings.into_iter().map(racer).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        let winner = ends.iter().find_map(|end| end.as_ref().ok()).expect("one has it");
        for loser in ends.iter().filter_map(|end| end.as_ref().err()) {
            match loser {
                ClaimError::Held { path, session, pid } => {
                    let holder = (Path::new(path), *session, *pid);
                    assert_eq!(holder, (winner.1.path(), winner.0, std::process::id()));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 1);
        assert_eq!(winner.1.path(), wanted);
        assert_eq!(fs::read_to_string(&wanted).unwrap(), winner.0.to_string());
        drop(ends);
        assert_eq!(fs::read_dir(place.path().join("claims")).unwrap().count(), 0);
        let names: Vec<_> = fs::read_dir(&real).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["n.ipynb"], "one file, and nothing beside it");
    }
}

/// The path that the other daemon of the next test claims, and its folder of claims.
const OTHER: &str = "OUTLIVE_TEST_OTHER_DAEMON";

// C2, D5: a path that another daemon of this machine has is refused by name; what a dead one left is no obstacle.
#[test]
fn another_daemon_of_this_machine_has_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    if let Ok(place) = std::env::var(OTHER) {
        let place = Path::new(&place);
        let id = session();
        let files = LocalFiles::new(place.join("claims"));
        let claim = runtime.block_on(files.claim(&place.join("real/n.ipynb"), id)).unwrap();
        println!("claimed {id}");
        // Until it is killed.
        std::io::stdin().read_line(&mut String::new()).unwrap();
        drop(claim);
        return;
    }
    let (place, files, real) = desk();
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "another_daemon_of_this_machine_has_it", "--nocapture"])
        .env(OTHER, place.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(other.stdout.take().unwrap()).lines().map(Result::unwrap);
    let claimed = lines.find_map(|line| line.strip_prefix("claimed ").map(str::to_owned)).unwrap();
    let path = real.join("n.ipynb");
    let refused = runtime.block_on(files.claim(&path, session())).unwrap_err();
    assert!(refused.to_string().contains(&claimed), "{refused}");
    match refused {
        ClaimError::Held { path: held, session, pid } => {
            assert_eq!((Path::new(&held), session.to_string(), pid), (&*path, claimed, other.id()));
        }
        other => panic!("{other:?}"),
    }
    fs::write(&path, "{}").unwrap();
    fs::write(real.join(format!(".n.ipynb.outlive-tmp-{}-7", other.id())), "half").unwrap();
    other.kill().unwrap();
    other.wait().unwrap();
    let claims = || fs::read_dir(place.path().join("claims")).unwrap().count();
    assert_eq!(claims(), 1, "it could not remove its lock file");
    let claim = runtime.block_on(files.claim(&path, session())).unwrap();
    let names: Vec<_> = fs::read_dir(&real).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["n.ipynb"], "what it was writing when it died is removed with its claim");
    drop(claim);
    assert_eq!(claims(), 0);
}

/// A directory that makes no difference between `A` and `a`.
const FOLDING: &str = "OUTLIVE_TEST_FOLDING";

// C2: where case makes no difference there is one path and one claim, also for a file that does not exist yet.
#[test]
#[ignore = "needs /dev/fuse and the Debian package ntfs-3g; run it with --run-ignored all where they are"]
fn names_that_differ_by_case() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    if let Ok(directory) = std::env::var(FOLDING) {
        return runtime.block_on(where_case_makes_no_difference(Path::new(&directory)));
    }
    let (place, files, real) = desk();
    fs::write(real.join("n.ipynb"), "").unwrap();
    // One file with two names is not one name.
    fs::hard_link(real.join("n.ipynb"), real.join("N.IPYNB")).unwrap();
    for name in ["n.ipynb", "N.IPYNB", "new.ipynb", "NEW.ipynb"] {
        assert_eq!(runtime.block_on(files.resolve(&real.join(name))).unwrap(), real.join(name));
    }
    fs::remove_file(real.join("N.IPYNB")).unwrap();
    let both =
        ["new.ipynb", "NEW.ipynb"].map(|name| runtime.block_on(files.claim(&real.join(name), session())));
    assert!(both.iter().all(Result::is_ok), "{both:?}");

    // A directory that cannot be made is no reason to pass.
    let who: &[&str] = if rustix::process::getuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
    let script = "set -e
        PATH=$PATH:/usr/sbin:/sbin
        truncate -s 16M $D/image
        mkntfs -q -F $D/image
        mkdir $D/folding
        lowntfs-3g -o ignore_case $D/image $D/folding
        \"$0\" --exact names_that_differ_by_case --include-ignored --nocapture
        umount $D/folding";
    let done = Command::new("unshare")
        .args(who)
        .args(["--mount", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .env("D", place.path())
        .env(FOLDING, place.path().join("folding"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
}

async fn where_case_makes_no_difference(directory: &Path) {
    let files = LocalFiles::new(directory.parent().unwrap().join("claims-folding"));
    let new = files.claim(&directory.join("New.ipynb"), session()).await.unwrap();
    let refused = files.claim(&directory.join("nEW.ipynb"), session()).await;
    assert!(matches!(refused, Err(ClaimError::Held { .. })), "in an empty directory: {refused:?}");
    files.write(new.path(), b"{}".to_vec(), None).await.unwrap();
    let named = files.resolve(&directory.join("nEW.ipynb")).await.unwrap();
    let listed = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    assert!(listed.into_iter().any(|entry| entry == named), "as the directory lists it: {named:?}");
    let refused = files.claim(&directory.join("NEW.IPYNB"), session()).await;
    assert!(matches!(refused, Err(ClaimError::Held { .. })), "now that it exists: {refused:?}");

    fs::create_dir(directory.join("folder")).unwrap();
    let below = files.resolve(&directory.join("FOLDER/X.ipynb")).await.unwrap();
    assert_eq!(below, directory.join("folder/X.ipynb"), "the directory by its real name too");
    let second = files.claim(&directory.join("Folder/x.ipynb"), session()).await.unwrap();
    let refused = files.claim(&below, session()).await;
    assert!(matches!(refused, Err(ClaimError::Held { .. })), "in a new directory: {refused:?}");
    drop(second);
}
