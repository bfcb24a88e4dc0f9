//! A launch fails at each of its steps: a typed cause with the program's own words, and nothing is left.

use std::fs;

use outlive_e2e::clock::{PATIENCE, within};
use outlive_e2e::{Session, World, report};
use serde_json::{Value, json};

/// A session whose notebook's one cell is queued from the start, with this command instead of ipykernel.
fn start(world: &World, argv: &[&str], ready_timeout_ms: u64) -> Session {
    let path = world.notebook("launch.ipynb", &["print('never')"]);
    let mut spec = world.notebook_spec(&path);
    spec["launch"]["program"]["argv"] = json!(argv);
    spec["launch"]["ready_timeout_ms"] = json!(ready_timeout_ms);
    Session::create(&world.api(), &spec)
}

/// Launches, and checks that the queued run gets the cause and that nothing is left. Gives the report.
#[track_caller]
fn fail(world: &World, argv: &[&str], ready_timeout_ms: u64) -> Value {
    let session = start(world, argv, ready_timeout_ms);
    let run = session.runs().first().cloned().expect("the notebook has one cell");
    let ended = session.outcome(&run, within(PATIENCE));
    assert_eq!(ended.ended(), "failed", "{:?}", ended.outcome);
    let reports = session.reports();
    assert_eq!(reports.len(), 1, "{reports:#?}");
    assert_eq!(ended.cause(), report::code(&reports[0]), "the run is told the same cause");
    world.assert_nothing_supervised();
    if session.view()["closed_at"].is_null() {
        session.stop();
    }
    reports[0].clone()
}

/// A world with a daemon, and its Python's path.
fn world() -> (World, outlive_e2e::Daemon, String) {
    let world = World::new();
    let daemon = world.daemon();
    let python = world.python().to_string_lossy().into_owned();
    (world, daemon, python)
}

// A7: no such interpreter; a file that may not be executed.
#[test]
fn an_interpreter_that_cannot_be_executed() {
    let (world, _daemon, _) = world();
    let report = fail(&world, &["/nonexistent/python", "-f", "{connection_file}"], 60_000);
    assert_eq!(report::code(&report), "missing-interpreter", "{report:#}");
    assert!(report.to_string().contains("/nonexistent/python"), "it is named: {report:#}");

    let plain = world.work().join("plain");
    fs::write(&plain, "#!/bin/sh\nexit 0\n").unwrap();
    let plain = plain.to_string_lossy().into_owned();
    let report = fail(&world, &[&plain, "-f", "{connection_file}"], 60_000);
    assert_eq!(report::code(&report), "missing-interpreter", "{report:#}");
    assert!(report.to_string().contains(&plain), "it is named: {report:#}");
}

// A7: a Python without ipykernel.
#[test]
fn ipykernel_is_missing() {
    let (world, _daemon, python) = world();
    let report =
        fail(&world, &[&python, "-I", "-S", "-m", "ipykernel_launcher", "-f", "{connection_file}"], 60_000);
    assert_eq!(report::code(&report), "missing-module", "{report:#}");
    assert!(report::evidence(&report).contains("ipykernel_launcher"), "{report:#}");
}

// A7: it exits before it is ready; its last words are told.
#[test]
fn it_exits_before_it_is_ready() {
    let (world, _daemon, python) = world();
    let code = "import sys; print('the flux is misaligned', file=sys.stderr); sys.exit(7)";
    let report = fail(&world, &[&python, "-c", code], 60_000);
    assert_eq!(report["status"], json!({"kind": "code", "code": 7}));
    assert!(report.to_string().contains("the flux is misaligned"), "{report:#}");
}

// A7: it lives and never answers.
#[test]
fn it_never_answers() {
    let (world, _daemon, python) = world();
    let report = fail(&world, &[&python, "-c", "import time; time.sleep(1000)"], 1_500);
    assert_eq!(report::code(&report), "never-ready", "{report:#}");
}

/// A kernel that answers kernel_info in a way of its own: with a wrong key, or with an error.
const ODD_KERNEL: &str = r#"
import json, sys, zmq
from jupyter_client.session import Session
info = json.load(open(sys.argv[2]))
context = zmq.Context()
def bind(kind, name):
    socket = context.socket(kind)
    address = "%s://%s" % (info["transport"], info["ip"])
    socket.bind("%s%s%s" % (address, ":" if info["transport"] == "tcp" else "-", info[name + "_port"]))
    return socket
shell, control, iopub = bind(zmq.ROUTER, "shell"), bind(zmq.ROUTER, "control"), bind(zmq.PUB, "iopub")
stdin, heartbeat = bind(zmq.ROUTER, "stdin"), bind(zmq.REP, "hb")
mine = Session(key=b"wrong" if sys.argv[1] == "key" else info["key"].encode())
theirs = Session(key=info["key"].encode())
while True:
    for socket in zmq.select([shell, control], [], [])[0]:
        try:
            identities, message = theirs.recv(socket, zmq.NOBLOCK)
        except Exception:
            continue
        if message and message["msg_type"] == "kernel_info_request":
            content = {"status": "error", "ename": "Odd", "evalue": "no info today", "traceback": []}
            if sys.argv[1] == "key":
                content = {"status": "ok", "protocol_version": "5.3", "implementation": "odd",
                           "implementation_version": "1", "banner": "", "language_info": {"name": "python"}}
            mine.send(socket, "kernel_info_reply", content, parent=message, ident=identities)
"#;

// A7: kernel_info is answered with a wrong key, or with an error: the kernel is not ready, and does not become so.
#[test]
fn kernel_info_is_answered_wrongly() {
    let (world, _daemon, python) = world();
    let script = world.work().join("odd.py");
    fs::write(&script, ODD_KERNEL).unwrap();
    let script = script.to_string_lossy().into_owned();
    for how in ["key", "error"] {
        let report = fail(&world, &[&python, &script, how, "{connection_file}"], 5_000);
        assert!(["never-ready", "launch-failed"].contains(&report::code(&report)), "{how}: {report:#}");
    }
}

// A7: the kernel's port is taken before it can bind it.
#[test]
fn a_port_is_taken() {
    let (world, _daemon, python) = world();
    let code = "import json, os, socket, sys\n\
                info = json.load(open(sys.argv[1]))\n\
                taken = socket.socket(); taken.bind((info['ip'], info['shell_port'])); taken.listen()\n\
                os.set_inheritable(taken.fileno(), True)\n\
                os.execv(sys.executable, [sys.executable, '-m', 'ipykernel_launcher', '-f', sys.argv[1]])";
    let report = fail(&world, &[&python, "-c", code, "{connection_file}"], 60_000);
    assert_eq!(report::code(&report), "address-in-use", "{report:#}");
}

// A7: stopped, or its only run cancelled, while it is launched: settled, not a crash, and nothing is left.
#[test]
fn stopped_while_it_is_launched() {
    let (world, _daemon, python) = world();
    let session = start(&world, &[&python, "-c", "import time; time.sleep(1000)"], 60_000);
    let run = session.runs()[0].clone();
    session.wait_runtime("launching");
    session.stop();
    let ended = session.outcome(&run, within(PATIENCE));
    assert_eq!(ended.ended(), "cancelled", "{:?}", ended.outcome);
    assert!(session.reports().is_empty(), "a stop that was asked for is no crash: {:#?}", session.reports());
    world.assert_nothing_supervised();

    let session = start(&world, &[&python, "-c", "import time; time.sleep(1000)"], 60_000);
    let run = session.runs()[0].clone();
    session.wait_runtime("launching");
    world.api().delete(&session.path(&format!("/runs/{run}")));
    assert_eq!(session.outcome(&run, within(PATIENCE)).ended(), "cancelled");
    session.stop();
    world.assert_nothing_supervised();
}

// A7: restarted while it is launched: the second life is the one that counts.
#[test]
fn restarted_while_it_is_launched() {
    let (world, _daemon, python) = world();
    let once = world.work().join("once").to_string_lossy().into_owned();
    let code = "import os, sys, time\n\
                if not os.path.exists(sys.argv[1]): open(sys.argv[1], 'w'); time.sleep(1000)\n\
                os.execv(sys.executable, [sys.executable, '-m', 'ipykernel_launcher', '-f', sys.argv[2]])";
    let session = start(&world, &[&python, "-c", code, &once, "{connection_file}"], 60_000);
    session.wait_until("the first life has a process", within(PATIENCE), |view| {
        !view["runtime"]["pid"].is_null()
    });
    outlive_e2e::clock::eventually("the first life runs", within(PATIENCE), || fs::metadata(&once).ok());
    session.post("/restart", &json!({}));
    session.wait_until("the second life is ready", within(PATIENCE), |view| {
        outlive_e2e::session::runtime_state(view) == "idle" && view["runtime"]["incarnation"] == 2
    });
    assert_eq!(session.run("print('second')").stdout(), "second\n");
}
