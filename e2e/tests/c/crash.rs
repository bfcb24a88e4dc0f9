//! The daemon is killed while a notebook is saved.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use outlive_e2e::clock::now;
use outlive_e2e::{Session, World, notebook};
use serde_json::json;

/// Every notebook below a folder.
fn notebooks(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(notebooks(&path));
        } else if path.extension().is_some_and(|ending| ending == "ipynb") {
            found.insert(path);
        }
    }
    found
}

fn sources_in(path: &Path) -> Vec<String> {
    let file = notebook::read(path);
    file["cells"].as_array().unwrap().iter().map(|cell| notebook::text(&cell["source"])).collect()
}

/// What is true after a crash: one session; it is at the new path and the file is whole, or where it was before.
#[track_caller]
fn one_truth(session: &Session, before: Option<&Path>, target: &Path, sources: &[String]) {
    let view = session.view();
    let path = view["path"].as_str().map(Path::new);
    assert_eq!(view["untitled"], path.is_none(), "{view}");
    if path == Some(target) {
        assert_eq!(sources_in(target), sources, "the file is whole");
        assert_eq!(Session::open(session.api(), target).id, session.id, "the path is this session's");
    } else {
        assert_eq!(path, before, "{view}");
        assert!(!target.exists(), "a file that no session knows: {view}");
        // Nobody holds the path: the save is asked for again.
        session.save(&json!({"path": target, "how": "save_as"}));
        assert_eq!(sources_in(target), sources);
    }
}

/// An untitled notebook that takes a while to be written.
fn large(world: &World, n: u32) -> Session {
    let session = world.untitled();
    for cell in 0..20 {
        session.add_cell(&format!("try_{n} = 'cell {cell} {}'", "x".repeat(5_000)));
    }
    session
}

fn how_long_a_save_takes(world: &World) -> Duration {
    let session = large(world, 0);
    let path = world.root().join("elsewhere.ipynb");
    let begun = now();
    session.save(&json!({"path": path}));
    let took = now() - begun;
    session.close(false);
    took
}

// C4: killed at twenty moments of a first save and of a save-as: afterwards there is one consistent truth, no second
// session and no file that nobody asked for.
#[test]
fn killed_while_saving() {
    let world = World::new();
    let mut daemon = Some(world.daemon());
    let mut expected = BTreeSet::new();
    let mut moved = 0;
    let long_save = how_long_a_save_takes(&world);
    for n in 0_u32..20 {
        let session = large(&world, n);
        let sources = session.sources();
        let first = world.work().join(format!("first-{n}.ipynb"));
        let before = (n % 2 == 1).then_some(first.as_path());
        let target = world.work().join(format!("target-{n}.ipynb"));
        if before.is_some() {
            session.save(&json!({"path": first}));
            expected.insert(first.clone());
        }
        let body = json!({"path": target, "how": "save_as"});
        let answer = thread::scope(|scope| {
            let (api, path) = (session.api().clone(), session.path("/save"));
            let save = scope.spawn(move || api.try_request("POST", &path, Some(&body)));
            // Moments from before the claim to after the answer; which one is hit is the system's affair.
            thread::sleep(long_save * n / 15);
            daemon.take().expect("there is one").kill();
            save.join().unwrap()
        });
        daemon = Some(world.daemon());
        let answered = answer.is_ok_and(|answer| answer.status == 200);
        let early = session.view();
        assert_eq!(session.sources(), sources, "nothing is lost");
        let view = session.view();
        assert_eq!(early["path"], view["path"], "what is said first is settled already");
        moved += usize::from(view["path"] == json!(target));
        assert!(!answered || view["path"] == json!(target), "what was answered is so: {view}");
        one_truth(&session, before, &target, &sources);
        expected.insert(target);
        assert_eq!(world.api().get("/v1/sessions").as_array().unwrap().len(), 1, "no second session");
        assert_eq!(notebooks(&world.work()), expected, "no file that nobody asked for");
        session.close(false);
    }
    println!("{moved} of 20 had moved");
}

// C4: after a promotion, a close and a restart nothing brings an untitled copy or a second session back.
#[test]
fn nothing_comes_back_after_a_promotion() {
    let world = World::new();
    let daemon = world.daemon();
    let session = world.untitled();
    let cell = session.add_cell("print('once')");
    assert_eq!(session.run_cell(&cell).stdout(), "once\n");
    let path = world.work().join("a.ipynb");
    session.save(&json!({"path": path}));
    daemon.kill();
    let daemon = world.daemon();
    let view = session.view();
    assert_eq!((&view["untitled"], &view["path"]), (&json!(false), &json!(path)));
    assert_eq!(session.run_cell(&cell).stdout(), "once\n", "its kernel is there");
    session.close(false);
    daemon.kill();
    let _daemon = world.daemon();
    assert_eq!(world.api().get("/v1/sessions"), json!([]));
    assert_eq!(notebooks(world.root()), BTreeSet::from([path.clone()]));
    let opened = Session::open(&world.api(), &path);
    assert_ne!(opened.id, session.id, "it was closed");
    let all = world.api().get("/v1/sessions?all=true");
    assert_eq!(all.as_array().unwrap().len(), 2, "{all}");
}
