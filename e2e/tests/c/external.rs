//! Other programs write the file of an open notebook.

use std::fs;
use std::path::Path;

use outlive_e2e::clock::{PATIENCE, eventually, within};
use outlive_e2e::{Peer, Session, World, notebook};
use serde_json::{Value, json};

fn rewrite(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut file = notebook::read(path);
    change(&mut file);
    // As editors do it: a new file takes the old one's place.
    let fresh = path.with_extension("new");
    fs::write(&fresh, file.to_string()).unwrap();
    fs::rename(&fresh, path).unwrap();
}

/// Waits until the session's sources are these.
#[track_caller]
fn becomes(session: &Session, sources: &[&str]) {
    eventually(&format!("{sources:?}"), within(PATIENCE), || (session.sources() == sources).then_some(()));
}

// C5: one cell is edited by another program while another cell runs: it is merged, a peer sees it, the running cell's
// outputs and those of the edited cell are there.
#[test]
fn an_edit_while_another_cell_runs_is_merged() {
    let world = World::new();
    let _daemon = world.daemon();
    let gate = world.work().join("gate");
    let runs = format!(
        "import os, time\nprint('begun', flush=True)\nwhile not os.path.exists({gate:?}): time.sleep(0.01)\nprint('done')"
    );
    let path = world.notebook("a.ipynb", &["print('one')", &runs, "three = 3"]);
    let session = Session::open(&world.api(), &path);
    assert_eq!(session.run_cell("cell-0").stdout(), "one\n");
    session.save(&json!({}));
    let mut peer = Peer::join(&session);
    let run = session.submit_cells(&["cell-1"]).remove(0);
    peer.wait_until("its output", within(PATIENCE), |cells| cells[1]["outputs"][0]["text"] == "begun\n");
    session.wait_saved("saved");
    session.set_source("cell-2", "three = 'ours'");
    rewrite(&path, |file| file["cells"][0]["source"] = json!("print('theirs')"));
    peer.wait_until("both edits", within(PATIENCE), |cells| {
        cells[0]["source"] == "print('theirs')" && cells[2]["source"] == "three = 'ours'"
    });
    fs::write(&gate, "").unwrap();
    assert_eq!(session.outcome(&run, within(PATIENCE)).stdout(), "begun\ndone\n");
    session.save(&json!({}));
    let file = notebook::read(&path);
    let outputs = [notebook::stream(&file, 0, "stdout"), notebook::stream(&file, 1, "stdout")];
    assert_eq!(outputs, ["one\n", "begun\ndone\n"], "outputs survive");
    assert_eq!(notebook::text(&file["cells"][0]["source"]), "print('theirs')");
    assert_eq!(notebook::text(&file["cells"][2]["source"]), "three = 'ours'");
}

// C5: the same cell on both sides: both are kept.
#[test]
fn the_same_cell_on_both_sides_keeps_both() {
    let world = World::new();
    let _daemon = world.daemon();
    let path = world.notebook("a.ipynb", &["base = 0", "other = 0"]);
    let session = Session::open(&world.api(), &path);
    session.set_source("cell-0", "ours = 1");
    rewrite(&path, |file| file["cells"][0]["source"] = json!("theirs = 2"));
    let both = |sources: &[String]| {
        ["ours = 1", "theirs = 2", "other = 0"]
            .iter()
            .all(|source| sources.iter().any(|found| found == source))
    };
    let sources =
        eventually("both are in the notebook, or the session says that it waits", within(PATIENCE), || {
            let sources = session.sources();
            (both(&sources) || session.view()["saved"]["state"] == "conflict").then_some(sources)
        });
    assert!(sources.contains(&"ours = 1".to_owned()), "{sources:#?}");
    if !both(&sources) {
        // A typed conflict: their file stays until somebody decides, and is kept beside then.
        assert_eq!(notebook::text(&notebook::read(&path)["cells"][0]["source"]), "theirs = 2");
        session.save(&json!({"overwrite": true}));
        let kept = fs::read_dir(world.work()).unwrap().flatten().map(|entry| entry.path());
        let kept =
            kept.filter(|file| *file != path && fs::read_to_string(file).unwrap().contains("theirs = 2"));
        assert_eq!(kept.count(), 1, "theirs is kept beside");
    }
}

// C5: another notebook takes the file's place.
#[test]
fn a_wholesale_replacement_is_taken() {
    let world = World::new();
    let _daemon = world.daemon();
    let path = world.notebook("a.ipynb", &["one = 1", "two = 2", "three = 3"]);
    let session = Session::open(&world.api(), &path);
    let mut peer = Peer::join(&session);
    let mut theirs = notebook::with_cells(&["another = 1", "notebook = 2"]);
    for (at, id) in ["new-a", "new-b"].iter().enumerate() {
        theirs["cells"][at]["id"] = json!(id);
    }
    fs::write(&path, theirs.to_string()).unwrap();
    peer.wait_until("the other notebook", within(PATIENCE), |cells| {
        let sources: Vec<_> = cells.iter().map(|cell| &cell["source"]).collect();
        sources == ["another = 1", "notebook = 2"]
    });
}

// C5: a file that is no whole notebook removes no cell, and is not written over by itself; when it is whole again the
// conflict ends.
#[test]
fn a_file_that_is_no_notebook_removes_no_cell() {
    let world = World::new();
    let _daemon = world.daemon();
    let path = world.notebook("a.ipynb", &["one = 1", "two = 2"]);
    let session = Session::open(&world.api(), &path);
    let whole = fs::read(&path).unwrap();
    let broken: [(&str, Vec<u8>); 4] = [
        ("empty", Vec::new()),
        ("cut off", whole[..whole.len() / 2].to_vec()),
        ("unparsable", b"<<<<<<< HEAD\n{]".to_vec()),
        ("something else", b"{\"a\": 1}".to_vec()),
    ];
    for (nth, (what, bytes)) in broken.into_iter().enumerate() {
        fs::write(&path, &bytes).unwrap();
        let view = session.wait_until(what, within(PATIENCE), |view| view["saved"]["state"] == "conflict");
        assert_eq!(view["saved"]["conflict"], "not_a_notebook", "{what}: {view}");
        let source = format!("two = 'edited {nth}'");
        session.set_source("cell-1", &source);
        assert_eq!(session.sources(), ["one = 1", &source], "{what}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "{what}: it is not written over");
        let mut theirs: Value = serde_json::from_slice(&whole).unwrap();
        theirs["cells"][0]["source"] = json!("one = 1");
        if nth > 0 {
            // As it was written last.
            theirs["cells"][1]["source"] = json!(format!("two = 'edited {}'", nth - 1));
        }
        fs::write(&path, theirs.to_string()).unwrap();
        session.wait_saved("saved");
        becomes(&session, &["one = 1", &source]);
        assert_eq!(notebook::text(&notebook::read(&path)["cells"][1]["source"]), source, "{what}");
    }
}

// C5: a file that is caught in mid-write is waited for.
#[test]
fn a_file_that_is_written_in_two_halves_is_taken_whole() {
    let world = World::new();
    let _daemon = world.daemon();
    let path = world.notebook("a.ipynb", &["one = 1", "two = 2"]);
    let session = Session::open(&world.api(), &path);
    let theirs = notebook::with_cells(&["one = 'theirs'", "two = 2", "three = 3"]).to_string();
    let (first, _) = theirs.split_at(theirs.len() / 2);
    fs::write(&path, first).unwrap();
    session.wait_until("it is seen", within(PATIENCE), |view| view["saved"]["state"] == "conflict");
    assert_eq!(session.sources(), ["one = 1", "two = 2"], "half a file removes nothing");
    fs::write(&path, &theirs).unwrap();
    becomes(&session, &["one = 'theirs'", "two = 2", "three = 3"]);
    session.wait_saved("saved");
}

// C5: a deleted file is not made again by itself; a save that is asked for writes it.
#[test]
fn a_deleted_file_stays_deleted_until_a_save_is_asked_for() {
    let world = World::new();
    let _daemon = world.daemon();
    let path = world.notebook("a.ipynb", &["print('one')"]);
    let session = Session::open(&world.api(), &path);
    assert_eq!(session.run_cell("cell-0").stdout(), "one\n");
    session.save(&json!({}));
    fs::remove_file(&path).unwrap();
    let view = session.wait_saved("conflict");
    assert_eq!(view["saved"]["conflict"], "deleted", "{view}");
    session.set_source("cell-0", "print('two')");
    assert_eq!(session.run_cell("cell-0").stdout(), "two\n", "the session works on");
    assert!(!path.exists(), "nobody asked for it");
    session.save(&json!({}));
    assert_eq!(notebook::stream(&notebook::read(&path), 0, "stdout"), "two\n");
    session.wait_saved("saved");
}

// C5: what the session writes itself is no edit of another program.
#[test]
fn own_writes_are_no_edits() {
    let world = World::new();
    let _daemon = world.daemon();
    let path = world.notebook("a.ipynb", &["print('one')"]);
    let session = Session::open(&world.api(), &path);
    let mut peer = Peer::join(&session);
    session.run_cell("cell-0");
    for n in 0..5 {
        peer.set_source("cell-0", &format!("print({n})"));
        // The peer's edit has come when its state is required and a run is begun with it.
        let body = json!({"kind": "cell_ids", "cells": ["cell-0"], "required": peer.state_vector()});
        let run = session.post("/runs", &body)[0]["id"].as_str().unwrap().to_owned();
        session.outcome(&run, within(PATIENCE));
        session.save(&json!({}));
    }
    // The next edit of another program is noticed after all of our own writes: had they been taken for edits, the
    // notebook would have changed by now.
    rewrite(&path, |file| file["cells"][0]["metadata"]["seen"] = json!(true));
    let cells = peer.wait_until("the edit of another program", within(PATIENCE), |cells| {
        cells[0]["metadata"]["seen"] == true
    });
    assert_eq!(cells.len(), 1, "{cells:#?}");
    assert_eq!(cells[0]["source"], "print(4)");
    assert_eq!(notebook::stream(&notebook::read(&path), 0, "stdout"), "4\n");
}
