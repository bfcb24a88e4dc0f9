//! Many sessions come and go, and nothing of them stays.

use std::fs;
use std::path::Path;

use outlive_e2e::clock::{PATIENCE, eventually, within};
use outlive_e2e::{Peer, Session, World, process};
use serde_json::json;

/// What a daemon holds.
#[derive(PartialEq, Eq, Clone, Debug)]
struct Held {
    files: usize,
    threads: usize,
    claims: usize,
    processes: usize,
}

fn held(world: &World, daemon: i32) -> Held {
    let count = |path: &Path| fs::read_dir(path).map_or(0, Iterator::count);
    Held {
        files: process::open_files(daemon),
        threads: count(&Path::new("/proc").join(daemon.to_string()).join("task")),
        claims: count(&world.runtime().join("claims")),
        processes: world.supervised().len(),
    }
}

fn cycle(world: &World, n: usize, with_kernel: bool) {
    let session = world.untitled();
    let cell = session.add_cell(&format!("print('cycle {n}')"));
    let mut peer = Peer::join(&session);
    peer.type_into(&cell, 0, "# by a peer\n");
    if with_kernel {
        let body = json!({"kind": "cell_ids", "cells": [cell], "required": peer.state_vector()});
        let run = session.post("/runs", &body)[0]["id"].as_str().unwrap().to_owned();
        assert_eq!(session.outcome(&run, within(PATIENCE)).stdout(), format!("cycle {n}\n"));
    }
    let (first, second) =
        (world.work().join(format!("{n}.ipynb")), world.work().join(format!("{n}-as.ipynb")));
    session.save(&json!({"path": first}));
    session.save(&json!({"path": second, "how": "save_as"}));
    assert_ne!(Session::open(&world.api(), &first).close(false)["id"], session.id);
    session.close(false);
}

// C6: the same a thousand times over is in the soak; here enough to see what each cycle leaves.
#[test]
fn sessions_come_and_go_and_leave_nothing() {
    let world = World::new();
    let daemon = world.daemon();
    for n in 0..5 {
        cycle(&world, n, n < 2);
    }
    let before = held(&world, daemon.pid());
    for n in 5..60 {
        cycle(&world, n, n % 8 == 0);
    }
    assert_eq!(world.api().get("/v1/sessions"), json!([]));
    // Threads of the blocking pool and files of the last answers go a moment later.
    eventually("nothing is left of sixty sessions", within(PATIENCE), || {
        let after = held(&world, daemon.pid());
        let settled = after.files <= before.files
            && after.threads <= before.threads + 4
            && after.claims == 0
            && after.processes == 0;
        settled.then_some(())
    });
}

// C6: whoever is told that a session has ended finds its path free.
#[test]
fn a_path_is_free_when_its_session_is_closed() {
    let world = World::new();
    let _daemon = world.daemon();
    let path = world.notebook("a.ipynb", &["x = 1"]);
    let mut last = String::new();
    for _ in 0..50 {
        let session = Session::open(&world.api(), &path);
        assert_ne!(session.id, last, "it was closed");
        last.clone_from(&session.id);
        session.close(false);
        let session = world.untitled();
        session.save(&json!({"path": path, "overwrite": true}));
        session.close(false);
        let mut spec = world.notebook_spec(&path);
        spec["launch"]["program"]["argv"] = json!(["/missing/interpreter"]);
        spec["keep"] = json!(false);
        Session::create(&world.api(), &spec).wait_closed();
    }
}
