//! An untitled notebook gets a path and stays what it is.

use std::fs;

use outlive_e2e::clock::{PATIENCE, eventually, within};
use outlive_e2e::{Event, Peer, Session, World, notebook};
use serde_json::{Value, json};

/// A cell that prints, and then waits until the file is there.
fn waiting_for(gate: &std::path::Path) -> String {
    format!(
        "import os, time\nprint('begun', flush=True)\n\
         while not os.path.exists({gate:?}): time.sleep(0.01)\nprint('done')"
    )
}

// C1: with a busy kernel, a queue, two watchers and a live peer: same id, kernel and queue; everybody is told the path
// once; `new`, `save` and `open` answer with one id; from then on the file is saved by itself, and edits of it by other
// programs are merged.
#[test]
fn an_untitled_session_with_a_busy_kernel_is_saved() {
    let world = World::new();
    let _daemon = world.daemon();
    let session = world.untitled();
    let view = session.view();
    assert_eq!((view["untitled"].as_bool(), &view["path"]), (Some(true), &Value::Null), "{view}");
    assert_eq!(view["saved"]["state"], "untitled");

    let gate = world.work().join("gate");
    let busy = session.add_cell(&waiting_for(&gate));
    let second = session.add_cell("print('second')");
    let runs = session.submit_cells(&[&busy, &second]);
    let before = session.wait_until("busy", within(PATIENCE), |view| view["current"] == runs[0].as_str());
    let mut watchers = [session.events(), session.events()];
    let mut peer = Peer::join(&session);

    let target = world.work().join("Chosen name");
    let saved = session.save(&json!({"path": target}));
    let path = world.work().join("Chosen name.ipynb");
    assert_eq!(saved["path"], json!(path), "the ending is appended");
    assert!(!target.exists(), "nothing is at the name without the ending");

    for watcher in &mut watchers {
        let is_untitled =
            |event: &Event| event.name == "session" && event.data["session"]["untitled"] == true;
        let mut untitled_before = false;
        let told = watcher.wait_for("the new path", within(PATIENCE), |event| {
            untitled_before |= is_untitled(event);
            event.name == "path_changed"
        });
        assert!(untitled_before, "each stream begins with the untitled session");
        let (id, why) = (&told.data["session"], &told.data["why"]);
        assert_eq!((id, &told.data["path"], why), (&json!(session.id), &json!(path), &json!("saved")));
        let next = watcher.wait_for("the state after it", within(PATIENCE), |event| event.name == "session");
        assert!(!is_untitled(&next), "{}", next.data);
        assert_eq!(next.data["session"]["path"], json!(path));
    }

    let after = session.view();
    for same in ["/id", "/runtime/id", "/runtime/pid", "/runtime/incarnation", "/current", "/queue"] {
        assert_eq!(before.pointer(same), after.pointer(same), "{same}");
    }
    let opened = world.api().post("/v1/sessions/open", &json!({"path": path}));
    assert_eq!(opened["session_id"], session.id, "one session: {opened}");
    assert_eq!(opened["path"], json!(path));

    fs::write(&gate, "").unwrap();
    for run in &runs {
        assert_eq!(session.outcome(run, within(PATIENCE)).ended(), "succeeded");
    }
    // Nobody asks for it: it is saved by itself.
    eventually("the outputs are in the file", within(PATIENCE), || {
        let file = notebook::read(&path);
        let cells = file["cells"].as_array()?.len();
        let printed = |at| notebook::stream(&file, at, "stdout");
        (printed(cells - 2) == "begun\ndone\n" && printed(cells - 1) == "second\n").then_some(())
    });
    session.wait_saved("saved");

    let mut file = notebook::read(&path);
    let last = file["cells"].as_array().unwrap().len() - 1;
    file["cells"][last]["source"] = json!("print('edited outside')");
    fs::write(&path, file.to_string()).unwrap();
    peer.wait_until("the edit of another program", within(PATIENCE), |cells| {
        cells[last]["source"] == "print('edited outside')"
    });
    assert_eq!(session.run_cell(&second).stdout(), "edited outside\n");
}

// C1: whoever asks again with the same id, for instance since the answer was lost, gets the same session.
#[test]
fn new_with_an_id_of_the_callers_is_one_session() {
    let world = World::new();
    let _daemon = world.daemon();
    let id = "0197f2aa-0000-7000-8000-00000000c0de";
    let mut spec = world.untitled_spec();
    spec["id"] = json!(id);
    let first = Session::untitled(&world.api(), &spec);
    let cell = first.add_cell("kept = 1");
    let second = Session::untitled(&world.api(), &spec);
    assert_eq!((first.id.as_str(), second.id.as_str()), (id, id));
    assert!(second.notebook()["cells"].as_array().unwrap().iter().any(|found| found["id"] == cell));
    assert_eq!(world.api().get("/v1/sessions").as_array().unwrap().len(), 1);
}

// C1: an untitled notebook is in the store before anybody is answered: it survives the daemon, with its edits.
#[test]
fn an_untitled_notebook_survives_the_daemon() {
    let world = World::new();
    let daemon = world.daemon();
    let session = world.untitled();
    let cell = session.add_cell("x = 'typed, and in no file'");
    let mut peer = Peer::join(&session);
    peer.type_into(&cell, 0, "# 😀\n");
    let text = "# 😀\nx = 'typed, and in no file'";
    let mut other = Peer::join(&session);
    other
        .wait_until("what the peer typed", within(PATIENCE), |cells| cells.last().unwrap()["source"] == text);
    daemon.kill();

    let _daemon = world.daemon();
    assert_eq!(session.sources().last().map(String::as_str), Some(text));
    assert_eq!(session.view()["untitled"], true);
    // Both come back with what they have, and what they did meanwhile.
    peer.leave();
    peer.type_into(&cell, 0, "# meanwhile\n");
    peer.rejoin(&session);
    other.rejoin(&session);
    let text = format!("# meanwhile\n{text}");
    for peer in [&mut peer, &mut other] {
        peer.wait_until("all edits", within(PATIENCE), |cells| cells.last().unwrap()["source"] == text);
    }
    assert_eq!(session.sources().last(), Some(&text));
}

// C1: a cell is run with what its asker saw, also when that is still on its way.
#[test]
fn a_cell_is_run_with_the_source_that_its_asker_saw() {
    let world = World::new();
    let _daemon = world.daemon();
    let session = world.untitled();
    let cell = session.add_cell("print('old')");
    let mut peer = Peer::join(&session);
    for n in 0..20 {
        let source = format!("print('seen {n}')");
        peer.set_source(&cell, &source);
        let body = json!({"kind": "cell_ids", "cells": [cell], "required": peer.state_vector()});
        let runs = session.post("/runs", &body);
        let run = runs[0]["id"].as_str().unwrap();
        assert_eq!(session.outcome(run, within(PATIENCE)).stdout(), format!("seen {n}\n"));
        assert_eq!(session.run_view(run)["source"], source, "it is kept with the run");
    }
    // What never comes is not run with something else.
    peer.leave();
    peer.set_source(&cell, "print('never sent')");
    let body = json!({"kind": "cell_ids", "cells": [cell], "required": peer.state_vector()});
    let problem = world.api().refused(&session.path("/runs"), &body);
    assert_eq!(problem["code"], "document-behind", "{problem}");
}

// C1: a cell that is asked for twice while it waits is one run; one that runs is queued again.
#[test]
fn a_waiting_cell_is_one_run() {
    let world = World::new();
    let _daemon = world.daemon();
    let session = world.untitled();
    let gate = world.work().join("gate");
    let busy = session.add_cell(&waiting_for(&gate));
    let waits = session.add_cell("print('first wording')");
    let first = session.submit_cells(&[&busy, &waits]);
    session.wait_until("busy", within(PATIENCE), |view| view["current"] == first[0].as_str());
    session.set_source(&waits, "print('second wording')");
    let again = session.submit_cells(&[&waits]);
    assert_eq!(again, [first[1].clone()], "it waits already");
    let another = session.submit_cells(&[&busy]);
    assert_ne!(another[0], first[0], "it runs: this is another run");
    assert_eq!(session.runs().len(), 3);
    fs::write(&gate, "").unwrap();
    assert_eq!(session.outcome(&first[1], within(PATIENCE)).stdout(), "second wording\n");
    assert_eq!(session.outcome(&another[0], within(PATIENCE)).ended(), "succeeded");
}

// C1: what waits goes with what is interrupted, and what raises takes along what waits; the kernel stays.
#[test]
fn an_interrupt_and_an_exception_clear_the_queue() {
    let world = World::new();
    let _daemon = world.daemon();
    let session = world.untitled();
    let sleeps = session.add_cell("import time\nprint('in the cell', flush=True)\ntime.sleep(1000)");
    let raises = session.add_cell("1 / 0");
    let (after, last) = (session.add_cell("print('after')"), session.add_cell("print('last')"));
    let mut runs = session.submit_cells(&[&sleeps]);
    runs.extend(session.submit_cells(&[&after]));
    runs.extend(session.submit_cells(&[&last]));
    // In the user's code: before it, the kernel may be interrupted in its own.
    session.attach(&runs[0], None).wait_for("its print", within(PATIENCE), |event| {
        event.name == "output" && event.data.to_string().contains("in the cell")
    });
    session.post("/interrupt", &json!({}));
    let ended = |run: &str| session.outcome(run, within(PATIENCE)).outcome.unwrap();
    assert_eq!(ended(&runs[0])["ename"], "KeyboardInterrupt");
    for run in &runs[1..] {
        assert_eq!(ended(run), json!({"kind": "cancelled", "why": "interrupted"}));
    }
    let pid = session.pid();

    let gate = world.work().join("gate");
    session.set_source(&sleeps, &waiting_for(&gate));
    let mut runs = session.submit_cells(&[&sleeps]);
    runs.extend(session.submit_cells(&[&raises]));
    runs.extend(session.submit_cells(&[&after, &last]));
    fs::write(&gate, "").unwrap();
    assert_eq!(ended(&runs[1])["ename"], "ZeroDivisionError");
    for run in &runs[2..] {
        assert_eq!(ended(run), json!({"kind": "cancelled", "why": "earlier_failure"}));
    }
    assert_eq!(session.run_cell(&last).stdout(), "last\n");
    assert_eq!(session.pid(), pid);
}

// C1: a kernel's directory is the notebook's when the kernel is started; saving moves no running kernel.
#[test]
fn a_running_kernel_stays_where_it_is() {
    let world = World::new();
    let _daemon = world.daemon();
    let session = world.untitled();
    let folder = world.work().join("elsewhere");
    fs::create_dir(&folder).unwrap();
    let cell = session.add_cell("import os; print(os.getcwd())");
    let here = format!("{}\n", world.work().display());
    assert_eq!(session.run_cell(&cell).stdout(), here);
    session.save(&json!({"path": folder.join("a.ipynb")}));
    assert_eq!(session.run_cell(&cell).stdout(), here);
    assert_eq!(session.view()["base"], json!(folder), "what it is relative to is its file's directory");
    session.post("/restart", &json!({}));
    assert_eq!(session.run_cell(&cell).stdout(), format!("{}\n", folder.display()));
}
