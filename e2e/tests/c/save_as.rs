//! A notebook moves: by its users' wish, or with its file; or it cannot.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use outlive_e2e::clock::{PATIENCE, eventually, within};
use outlive_e2e::{Session, World, notebook};
use serde_json::{Value, json};

fn first_source(path: &Path) -> String {
    notebook::text(&notebook::read(path)["cells"][0]["source"])
}

/// Another program gives a file's first cell another source.
fn edit_outside(path: &Path, source: &str) {
    let mut file = notebook::read(path);
    file["cells"][0]["source"] = json!(source);
    fs::write(path, file.to_string()).unwrap();
}

// C3: after save-as the watcher follows, the old path is free at once, and what happens to the old file does not reach
// the session.
#[test]
fn save_as_moves_the_session_and_leaves_the_old_file() {
    let world = World::new();
    let _daemon = world.daemon();
    let old = world.notebook("old.ipynb", &["print('as it was')"]);
    let session = Session::open(&world.api(), &old);
    session.set_source("cell-0", "print('edited')");
    session.save(&json!({}));
    let mut watcher = session.events();

    let new = world.work().join("new.ipynb");
    let saved = session.save(&json!({"path": new, "how": "save_as"}));
    assert_eq!(saved["path"], json!(new));
    let told = watcher.wait_for("the new path", within(PATIENCE), |event| event.name == "path_changed");
    assert_eq!((&told.data["path"], &told.data["why"]), (&json!(new), &json!("saved_as")));
    assert_eq!(
        (first_source(&old), first_source(&new)),
        ("print('edited')".into(), "print('edited')".into())
    );

    let other = Session::open(&world.api(), &old);
    assert_ne!(other.id, session.id, "the old path is free");
    other.set_source("cell-0", "print('the old one, by its new session')");
    other.save(&json!({}));
    other.close(false);
    edit_outside(&old, "print('the old one, by another program')");
    edit_outside(&new, "print('the new one, by another program')");
    eventually("the new file's edit reaches the session", within(PATIENCE), || {
        (session.sources() == ["print('the new one, by another program')"]).then_some(())
    });
    session.add_cell("last = 1");
    session.save(&json!({}));
    assert_eq!(first_source(&old), "print('the old one, by another program')");
    assert_eq!(notebook::read(&new)["cells"].as_array().unwrap().len(), 2);
}

// C3: a copy leaves the session where it is, and the copy free.
#[test]
fn a_copy_moves_nothing() {
    let world = World::new();
    let _daemon = world.daemon();
    let path = world.notebook("original.ipynb", &["x = 1"]);
    let session = Session::open(&world.api(), &path);
    let copy = world.work().join("copy.ipynb");
    let answer = session.save(&json!({"path": copy, "how": "copy"}));
    assert_eq!(answer["path"], json!(copy), "for a copy, the copy's file");
    assert_eq!(answer["session"]["path"], json!(path));
    assert_eq!(first_source(&copy), "x = 1");
    assert_ne!(Session::open(&world.api(), &copy).id, session.id);
}

// C3: the file is renamed underneath: the session goes along, tells so, and the old name does not come back.
#[test]
fn a_rename_underneath_is_followed() {
    let world = World::new();
    let _daemon = world.daemon();
    let before = world.notebook("before.ipynb", &["x = 1"]);
    let session = Session::open(&world.api(), &before);
    session.set_source("cell-0", "x = 2");
    session.save(&json!({}));
    let mut watcher = session.events();
    let after = world.work().join("after.ipynb");
    fs::rename(&before, &after).unwrap();
    let told = watcher.wait_for("the new path", within(PATIENCE), |event| event.name == "path_changed");
    assert_eq!((&told.data["path"], &told.data["why"]), (&json!(after), &json!("renamed")));
    session.set_source("cell-0", "x = 3");
    assert_eq!(session.save(&json!({}))["path"], json!(after));
    assert_eq!(first_source(&after), "x = 3");
    assert!(!before.exists(), "the old name is gone for good");
    assert_eq!(Session::open(&world.api(), &after).id, session.id);
    let problem = world.api().refused("/v1/sessions/open", &json!({"path": before}));
    assert_eq!(problem["code"], "no-such-file", "{problem}");
}

// C3: a link is the file that it points to: one session, and the link stays a link.
#[test]
fn a_link_is_its_file() {
    let world = World::new();
    let _daemon = world.daemon();
    let path = world.notebook("real.ipynb", &["x = 1"]);
    let link = world.work().join("link.ipynb");
    symlink(&path, &link).unwrap();
    let session = Session::open(&world.api(), &link);
    assert_eq!(session.view()["path"], json!(path));
    session.set_source("cell-0", "x = 2");
    session.save(&json!({}));
    assert!(link.symlink_metadata().unwrap().is_symlink(), "the link is no file now");
    assert_eq!(first_source(&path), "x = 2");
    assert_eq!(Session::open(&world.api(), &path).id, session.id);
}

/// A save that fails: the session stays what it was, nothing is left at the target, and it can be saved elsewhere.
#[track_caller]
fn fails(session: &Session, target: &Path, seen: &Path, codes: &[&str]) -> Value {
    let before = session.view();
    let folder = seen.parent().unwrap();
    let list = || {
        let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.collect::<Vec<_>>()
    };
    let (names, sources) = (list(), session.sources());
    let problem = session.save_refused(&json!({"path": target, "how": "save_as"}));
    assert!(codes.contains(&problem["code"].as_str().unwrap()), "{codes:?}: {problem}");
    let said = problem["detail"].as_str().unwrap();
    assert!(said.contains(&*target.parent().unwrap().to_string_lossy()), "it names the place: {problem}");
    assert!(problem["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "it says what to do: {problem}");
    let after = session.view();
    assert_eq!((&after["path"], &after["untitled"]), (&before["path"], &before["untitled"]));
    assert_eq!(list(), names, "nothing is left at the target");
    assert_eq!(session.sources(), sources, "nothing is lost");
    problem
}

// C3: a missing parent, a read-only filesystem, a full disk: typed, the claim is given back, the old file intact.
#[test]
fn a_save_that_cannot_be_done_changes_nothing() {
    let world = World::new();
    for folder in ["readonly", "full"] {
        fs::create_dir(world.work().join(folder)).unwrap();
    }
    let (readonly, full) = (world.work().join("readonly"), world.work().join("full"));
    let mounts = format!(
        "mount --bind {0} {0}; mount -o remount,bind,ro {0}; mount -t tmpfs -o size=64k tmpfs {1}",
        readonly.display(),
        full.display()
    );
    let daemon = world.daemon_behind(&mounts);
    let path = world.notebook("kept.ipynb", &["x = 1"]);
    let titled = Session::open(&world.api(), &path);
    let untitled = world.untitled();
    for session in [&titled, &untitled] {
        session.add_cell(&format!("large = '{}'", "x".repeat(200_000)));
    }
    titled.save(&json!({}));
    let bytes = fs::read(&path).unwrap();
    for session in [&titled, &untitled] {
        let missing = world.work().join("missing/a.ipynb");
        fails(session, &missing, &missing, &["no-such-directory"]);
        let target = readonly.join("a.ipynb");
        fails(session, &target, &world.seen_by(&daemon, &target), &["read-only", "not-writable"]);
        let target = full.join("a.ipynb");
        fails(session, &target, &world.seen_by(&daemon, &target), &["disk-full"]);
    }
    assert_eq!(fs::read(&path).unwrap(), bytes, "the old file is intact");
    // The claims were given back: what could not be saved there once is free for another try.
    fs::create_dir(world.work().join("missing")).unwrap();
    let target = world.work().join("missing/a.ipynb");
    assert_eq!(titled.save(&json!({"path": target, "how": "save_as"}))["path"], json!(target));
    let target = world.work().join("elsewhere.ipynb");
    assert_eq!(untitled.save(&json!({"path": target}))["path"], json!(target));
}

// C3: a disk that is full under an open notebook: said, nothing lost, and written when there is room again.
#[test]
fn a_disk_that_fills_up_under_an_open_notebook() {
    let world = World::new();
    let full = world.work().join("full");
    fs::create_dir(&full).unwrap();
    let daemon = world.daemon_behind(&format!("mount -t tmpfs -o size=256k tmpfs {}", full.display()));
    let path = full.join("a.ipynb");
    let seen = world.seen_by(&daemon, &path);
    let session = world.untitled();
    let cell = session.add_cell("small = 1");
    session.save(&json!({"path": path}));
    let ballast = seen.with_file_name("ballast");
    // Filled to the last byte: writing ends with the error that is wanted.
    let _full = fs::write(&ballast, vec![0; 1 << 20]);
    let bytes = fs::read(&seen).unwrap();
    session.set_source(&cell, &format!("large = '{}'", "x".repeat(30_000)));
    let problem = session.save_refused(&json!({}));
    assert_eq!(problem["code"], "disk-full", "{problem}");
    assert_eq!(fs::read(&seen).unwrap(), bytes, "the old file is intact");
    let view = session.wait_saved("failing");
    assert!(view["saved"]["why"].as_str().is_some_and(|why| !why.is_empty()), "{view}");
    fs::remove_file(&ballast).unwrap();
    session.save(&json!({}));
    session.wait_saved("saved");
    assert!(notebook::read(&seen).to_string().contains(&"x".repeat(30_000)));
}
