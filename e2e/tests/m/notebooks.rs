//! What an agent does in a day.

use outlive_e2e::clock::{PATIENCE, within};
use outlive_e2e::process::{self, Signal};
use outlive_e2e::{World, notebook};
use serde_json::json;

use crate::pipes::{Agent, text};

#[test]
fn from_a_new_notebook_to_the_explanation_of_a_crash() {
    let world = World::new();
    let mut agent = Agent::start(&world);

    // No daemon ran: the first call starts one.
    let made = agent.call("new", &json!({}))["structuredContent"].clone();
    assert_eq!(made["untitled"], true);
    let session = made["session"].clone();

    // Behind the empty cell that a new notebook has.
    let edits = json!([
        {"edit": "insert", "kind": "code", "id": "count", "source": "for n in range(3): print('line', n)"},
        {"edit": "insert", "kind": "code", "id": "value", "source": "import os\nos.getcwd()"},
        {"edit": "insert", "kind": "code", "id": "wrong", "source": "1/0"},
    ]);
    let edited = agent.call("edit", &json!({"session": session, "edits": edits}));
    assert_eq!(edited["structuredContent"]["cells"], json!(["count", "value", "wrong"]));

    let ran =
        agent.call("run", &json!({"session": session, "cells": ["count", "value", "wrong"], "wait_s": 60}));
    let runs = &ran["structuredContent"]["runs"];
    assert_eq!(ran["structuredContent"]["complete"], true, "{}", text(&ran));
    assert_eq!(runs[0]["outputs"][0]["text"], "line 0\nline 1\nline 2\n");
    assert_eq!(
        runs[1]["outputs"][0]["text"],
        format!("'{}'", world.work().display()),
        "the agent's directory"
    );
    assert_eq!(
        (&runs[2]["state"], &runs[2]["why"]),
        (&json!("raised"), &json!("ZeroDivisionError: division by zero"))
    );
    assert!(!text(&ran).contains('\u{1b}'), "a model needs no colours: {}", text(&ran));

    // Again by the run's id, and by the cell.
    let again = agent.call("outputs", &json!({"session": session, "run": runs[0]["run"]}));
    assert_eq!(again["structuredContent"]["run"]["outputs"], runs[0]["outputs"]);
    let shown = agent.call("outputs", &json!({"session": session, "cell": "count"}));
    assert_eq!(shown["structuredContent"]["cell"], runs[0]["outputs"]);
    let read = agent.call("read", &json!({"session": session, "outputs": true}));
    assert!(text(&read).contains("line 2") && text(&read).contains("ZeroDivisionError"), "{}", text(&read));

    let saved = agent.call("save", &json!({"session": session, "path": "report"}));
    let path = world.work().join("report.ipynb");
    assert_eq!(saved["structuredContent"]["path"], json!(path));
    assert_eq!(saved["structuredContent"]["session"], session);
    assert_eq!(notebook::stream(&notebook::read(&path), 1, "stdout"), "line 0\nline 1\nline 2\n");

    // Another session wants the same file.
    let other = agent.call("new", &json!({}))["structuredContent"]["session"].clone();
    let refused =
        agent.try_call("save", &json!({"session": other, "path": "report.ipynb", "overwrite": true}));
    assert_eq!(refused["isError"], true);
    assert_eq!(refused["structuredContent"]["code"], "path-already-open");
    let sentence = format!(
        "cannot save: {} is open in session {}; close it or choose another path",
        path.display(),
        session.as_str().unwrap()
    );
    assert_eq!(text(&refused), sentence);

    let died = agent.call(
        "run",
        &json!({"session": session, "code": "import os; os.kill(os.getpid(), 11)", "wait_s": 60}),
    );
    assert_eq!(died["structuredContent"]["runs"][0]["state"], "failed", "{}", text(&died));
    let explained = agent.call("explain", &json!({"session": session}));
    let cause = &explained["structuredContent"]["failures"][0]["causes"][0];
    assert_eq!(cause["code"], "native-crash", "{}", text(&explained));
    assert!(text(&explained).contains("What to do"), "{}", text(&explained));
    let remedy = cause["remedy"].as_str().unwrap();
    assert!(!remedy.is_empty());

    let closed = agent.call("close", &json!({"session": session}));
    assert_eq!(closed["structuredContent"]["session"], session);
    let listed = agent.call("sessions", &json!({}));
    let open = listed["structuredContent"]["sessions"].as_array().unwrap();
    assert_eq!(open.iter().map(|open| open["session"].clone()).collect::<Vec<_>>(), [other]);
    agent.leave();
}

#[test]
fn a_run_that_takes_longer_is_there_for_the_next_agent_and_after_the_daemons_death() {
    let world = World::new();
    let path = world.notebook("long.ipynb", &["import time\nprint('begun', flush=True)\nwhile not __import__('os').path.exists('go'): time.sleep(0.05)\nprint('done')"]);
    let mut first = Agent::start(&world);
    let session = first.call("open", &json!({"path": "long.ipynb"}))["structuredContent"]["session"].clone();
    let ran = first.call("run", &json!({"session": session, "all": true, "wait_s": 1}));
    assert_eq!(ran["structuredContent"]["complete"], false, "{}", text(&ran));
    let run = ran["structuredContent"]["runs"][0]["run"].clone();
    assert!(text(&ran).contains("still running"), "{}", text(&ran));
    first.leave();

    let daemon = process::find(world.daemon_pid()).expect("the daemon runs");
    process::signal(daemon.pid, Signal::KILL);
    // A question to one that is just dying may lose its answer; that is said, and is not what is tested.
    assert!(process::wait_gone(&daemon, within(PATIENCE)));
    let mut second = Agent::start(&world);
    let same = second.call("open", &json!({"path": path}));
    assert_eq!(same["structuredContent"]["session"], session);
    std::fs::write(world.work().join("go"), "").unwrap();
    let shown = second.call("outputs", &json!({"session": session, "run": run, "wait_s": 60}));
    let run = &shown["structuredContent"]["run"];
    assert_eq!(run["state"], "succeeded", "{}", text(&shown));
    assert_eq!(run["outputs"][0]["text"], "begun\ndone\n");
    second.leave();
}
