//! Who is idle leaves memory, and comes back as it was.

use std::fs;

use outlive_e2e::clock::{PATIENCE, eventually, within};
use outlive_e2e::{Peer, Session, World, notebook};
use serde_json::{Value, json};

/// A daemon that does not wait long.
fn impatient() -> World {
    let mut world = World::new();
    world.set("OUTLIVE_IDLE_TIMEOUT_S", "1");
    world
}

/// Waits until the session has left memory. Looking at it is no reason for it to stay.
#[track_caller]
fn wait_evicted(session: &Session) -> Value {
    eventually("it is evicted", within(PATIENCE), || {
        let view = session.view();
        (view["loaded"] == false).then_some(view)
    })
}

fn open_by_id(session: &Session) -> Value {
    session.api().post("/v1/sessions/open", &json!({"id": session.id}))
}

// C7: an untitled session with edits in no file leaves memory, and comes back by its id with every edit.
#[test]
fn an_untitled_session_comes_back_by_its_id() {
    let world = impatient();
    let _daemon = world.daemon();
    let session = world.untitled();
    let mut peer = Peer::join(&session);
    peer.add_cell("typed", "x = 'in no file'");
    let mut other = Peer::join(&session);
    other.wait_until("the edit", within(PATIENCE), |cells| cells.last().unwrap()["id"] == "typed");
    peer.leave();
    other.leave();
    let view = wait_evicted(&session);
    assert_eq!((&view["untitled"], &view["saved"]["state"]), (&json!(true), &json!("untitled")));

    let opened = open_by_id(&session);
    assert_eq!((&opened["session_id"], &opened["path"]), (&json!(session.id), &Value::Null));
    assert_eq!(session.sources().last().unwrap(), "x = 'in no file'");
    // A peer that was away while it was evicted brings what it did meanwhile.
    peer.type_into("typed", 0, "# away\n");
    peer.rejoin(&session);
    other.rejoin(&session);
    other.wait_until("what was done meanwhile", within(PATIENCE), |cells| {
        cells.last().unwrap()["source"] == "# away\nx = 'in no file'"
    });
}

// C7, A9: a notebook whose kernel rests comes back with outputs, runs and history; the next run starts its kernel; an
// eviction is no failure.
#[test]
fn a_notebook_comes_back_with_its_outputs_and_history() {
    let world = impatient();
    let _daemon = world.daemon();
    let path = world.notebook("a.ipynb", &["print('kept')", "import os, signal"]);
    let session = Session::open(&world.api(), &path);
    let run = session.submit_cells(&["cell-0"]).remove(0);
    assert_eq!(session.outcome(&run, within(PATIENCE)).stdout(), "kept\n");
    let first = session.pid();
    session.post("/rest", &json!({}));
    let view = wait_evicted(&session);
    assert_eq!(view["runtime"]["state"]["state"], "down", "{view}");
    assert_eq!(notebook::stream(&notebook::read(&path), 0, "stdout"), "kept\n", "flushed");

    assert_eq!(
        session.outcome(&run, within(PATIENCE)).stdout(),
        "kept\n",
        "results by run id after eviction"
    );
    assert_eq!(Session::open(&world.api(), &path).id, session.id, "by path it is the same session");
    let outputs = session.notebook()["cells"][0]["outputs"].clone();
    assert_eq!(notebook::text(&outputs[0]["text"]), "kept\n", "{outputs}");
    assert!(session.reports().is_empty(), "{:#?}", session.reports());
    assert_eq!(session.run_cell("cell-0").stdout(), "kept\n");
    assert_ne!(session.pid(), first);
}

// C7: work that runs is never evicted, nor is a live kernel: its memory is there after many idle times.
#[test]
fn work_and_live_kernels_stay() {
    let world = impatient();
    let _daemon = world.daemon();
    let session = world.untitled();
    let cell = session.add_cell("import time; time.sleep(4); kept = 'in memory'");
    let run = session.submit_cells(&[&cell]).remove(0);
    // Others come and go meanwhile: their evictions are the clock of this test.
    for _ in 0..4 {
        let other = world.untitled();
        wait_evicted(&other);
        assert_eq!(session.view()["loaded"], true);
    }
    assert_eq!(session.outcome(&run, within(PATIENCE)).ended(), "succeeded");
    let other = world.untitled();
    wait_evicted(&other);
    assert_eq!(session.view()["loaded"], true, "an idle kernel keeps it");
    assert_eq!(session.run("print(kept)").stdout(), "in memory\n");
}

// C7: the timer was set before the rename: the session is evicted all the same, the file has the last edit, and it comes
// back at its new path.
#[test]
fn a_renamed_notebook_is_evicted() {
    let world = impatient();
    let _daemon = world.daemon();
    let before = world.notebook("before.ipynb", &["x = 1"]);
    let session = Session::open(&world.api(), &before);
    session.set_source("cell-0", "x = 2");
    let after = world.work().join("after.ipynb");
    session.save(&json!({"path": after, "how": "save_as"}));
    session.set_source("cell-0", "x = 3");
    wait_evicted(&session);
    assert_eq!(notebook::text(&notebook::read(&after)["cells"][0]["source"]), "x = 3", "flushed");
    assert_eq!(notebook::text(&notebook::read(&before)["cells"][0]["source"]), "x = 1", "not the old file");
    assert_eq!(Session::open(&world.api(), &after).id, session.id);
    assert_ne!(Session::open(&world.api(), &before).id, session.id);
}

// C7: a notebook whose file must not be written is evicted too, and comes back with its edits and its conflict.
#[test]
fn a_conflict_survives_an_eviction() {
    let world = impatient();
    let _daemon = world.daemon();
    let path = world.notebook("a.ipynb", &["x = 1"]);
    let session = Session::open(&world.api(), &path);
    fs::write(&path, "no notebook").unwrap();
    session.wait_saved("conflict");
    session.set_source("cell-0", "x = 'in no file'");
    wait_evicted(&session);
    assert_eq!(fs::read_to_string(&path).unwrap(), "no notebook");
    open_by_id(&session);
    assert_eq!(session.sources(), ["x = 'in no file'"]);
    let view = session.wait_saved("conflict");
    assert_eq!(view["saved"]["conflict"], "not_a_notebook", "{view}");
}

// C7: what another program does to the file of an evicted notebook is seen when it comes back.
#[test]
fn a_file_that_changes_meanwhile_is_merged() {
    let world = impatient();
    let _daemon = world.daemon();
    let path = world.notebook("a.ipynb", &["one = 1", "two = 2"]);
    let session = Session::open(&world.api(), &path);
    session.set_source("cell-0", "one = 'ours'");
    wait_evicted(&session);
    let mut file = notebook::read(&path);
    file["cells"][1]["source"] = json!("two = 'theirs'");
    fs::write(&path, file.to_string()).unwrap();
    assert_eq!(Session::open(&world.api(), &path).id, session.id);
    eventually("both edits are there", within(PATIENCE), || {
        (session.sources() == ["one = 'ours'", "two = 'theirs'"]).then_some(())
    });
}

// C7: peers come back at every moment around the eviction, again and again: each edit is there in the end.
#[test]
fn a_peer_that_returns_during_an_eviction_sees_every_edit() {
    let world = impatient();
    let _daemon = world.daemon();
    let path = world.notebook("a.ipynb", &["x = 0"]);
    let session = Session::open(&world.api(), &path);
    let mut peer = Peer::join(&session);
    let mut evicted = 0;
    for n in 0..12_u64 {
        peer.add_cell(&format!("typed-{n}"), &format!("n = {n}"));
        // Whoever answers this has taken the edit.
        let body = json!({"kind": "cell_ids", "cells": ["missing"], "required": peer.state_vector()});
        assert_eq!(session.api().refused(&session.path("/runs"), &body)["code"], "no-such-cell");
        peer.leave();
        // From well before to well after the timer.
        std::thread::sleep(std::time::Duration::from_millis(940 + 15 * n));
        evicted += u32::from(session.view()["loaded"] == false);
        peer.rejoin(&session);
        let ids: Vec<_> = peer.cells().iter().skip(1).map(|cell| cell["id"].clone()).collect();
        let all: Vec<_> = (0..=n).map(|n| json!(format!("typed-{n}"))).collect();
        assert_eq!(ids, all, "after {n} returns");
    }
    assert_eq!(session.sources().len(), 13);
    println!("evicted {evicted} of 12 times when it was looked at");
}
