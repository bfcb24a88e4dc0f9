//! A launch fails at each of its steps: a typed cause with the program's own words, and nothing is left.

use std::fs;

use outlive_e2e::clock::{PATIENCE, within};
use outlive_e2e::{Daemon, Group, World, report};
use serde_json::{Value, json};

/// A world with a daemon.
fn world() -> (World, Daemon) {
    let world = World::new();
    let daemon = world.daemon();
    (world, daemon)
}

/// Brings up a group of this one member, which is never started again.
fn start(world: &World, member: Value) -> Group {
    let mut config = world.group_of(vec![member]);
    config["restart"]["restart"] = json!("temporary");
    config["members"][0]["launch"]["ready_timeout_ms"] = json!(3_000);
    config["members"][0]["launch"]["program"]["watch"] = json!({"load_ms": 1_500});
    Group::up(&world.api(), "g", &config)
}

/// Launches, and checks that a task that waits gets the reason, that the next is refused at once with the same, and that
/// nothing is left. Gives the report.
#[track_caller]
fn fail(world: &World, member: Value) -> Value {
    let group = start(world, member);
    let body = json!({"task": "python", "input": {"code": ""}});
    let response = world.api().request("POST", &group.path("/tasks"), Some(&body));
    let report = group.first_report();
    assert_eq!(group.reports().len(), 1, "{:#?}", group.reports());
    if response.status == 201 {
        let id = response.json()["id"].as_str().expect("a run has an id").to_owned();
        let ended = group.task(&id).outcome();
        assert_eq!(ended.ended(), "unserved", "{:?}", ended.outcome);
    }
    let refused = group.submit_refused("", &json!({}));
    assert!(refused["detail"].to_string().contains(report::summary(&report)), "{refused} {report:#}");
    world.assert_nothing_supervised();
    let left: Vec<_> =
        fs::read_dir(world.state().join("processes")).into_iter().flatten().flatten().collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    group.down();
    report
}

// A7: no such interpreter; a file that may not be executed; a directory that is not there.
#[test]
fn a_program_that_cannot_be_executed() {
    let (world, _daemon) = world();
    let report = fail(&world, world.member("m-0", &["/nonexistent/python", "model.py"]));
    assert_eq!(report::code(&report), "missing-interpreter", "{report:#}");
    assert!(report.to_string().contains("/nonexistent/python"), "it is named: {report:#}");

    let plain = world.work().join("plain");
    fs::write(&plain, "#!/bin/sh\nexit 0\n").unwrap();
    let plain = plain.to_string_lossy().into_owned();
    let report = fail(&world, world.member("m-0", &[&plain]));
    assert_eq!(report::code(&report), "missing-interpreter", "{report:#}");
    assert!(report.to_string().contains(&plain), "it is named: {report:#}");

    let mut member = world.raw_member("m-0", "hello(); ready()");
    member["launch"]["cwd"] = json!(world.work().join("nowhere"));
    let report = fail(&world, member);
    assert!(report.to_string().contains("nowhere"), "it is named: {report:#}");
}

// A7: a module that it imports is missing; it exits before it has said anything, and before it is ready.
#[test]
fn it_exits_before_it_is_ready() {
    let (world, _daemon) = world();
    let report = fail(&world, world.raw_member("m-0", "import flux_capacitor"));
    assert_eq!(report::code(&report), "missing-module", "{report:#}");
    assert!(report::evidence(&report).contains("flux_capacitor"), "{report:#}");
    for start in ["", "hello()\n", "hello(); state('loading', done=1, total=3)\n"] {
        let start = format!("{start}print('the flux is misaligned', file=sys.stderr); sys.exit(7)");
        let report = fail(&world, world.raw_member("m-0", &start));
        assert_eq!(report["status"], json!({"kind": "code", "code": 7}), "{start}");
        assert!(report.to_string().contains("the flux is misaligned"), "{start}: {report:#}");
    }
}

// A7: it lives and never says a word, or greets and is never ready.
#[test]
fn it_never_becomes_ready() {
    let (world, _daemon) = world();
    for start in ["", "hello()"] {
        let report = fail(&world, world.raw_member("m-0", start));
        assert!(["never-ready", "stalled"].contains(&report::code(&report)), "{start:?}: {report:#}");
    }
}

// A7: its port is taken.
#[test]
fn a_port_is_taken() {
    let (world, _daemon) = world();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let start = format!("import socket; socket.socket().bind(('127.0.0.1', {port})); hello(); ready()");
    let report = fail(&world, world.raw_member("m-0", &start));
    assert_eq!(report::code(&report), "address-in-use", "{report:#}");
}

// A7: ended, or its only task cancelled, while it is launched: settled, not a crash, and nothing is left.
#[test]
fn ended_while_it_is_launched() {
    let (world, _daemon) = world();
    let loading = "hello(); state('loading'); time.sleep(1000)";
    let mut member = world.raw_member("m-0", loading);
    member["launch"]["program"]["watch"] = json!({});
    let config = world.group_of(vec![member]);
    let group = Group::up(&world.api(), "g", &config);
    let task = group.submit("text('never')");
    group.wait_until("it loads", within(PATIENCE), |view| view["group"]["members"][0]["phase"] == "loading");
    group.down();
    // Its name is free; what it did is under its session.
    let ended = group.session().outcome(&task.id, within(PATIENCE));
    assert_eq!(ended.ended(), "cancelled", "{:?}", ended.outcome);
    assert!(group.reports().is_empty(), "a wish is no crash: {:#?}", group.reports());
    world.assert_nothing_supervised();

    let group = Group::up(&world.api(), "g", &config);
    let task = group.submit("text('never')");
    group.wait_until("it loads", within(PATIENCE), |view| view["group"]["members"][0]["phase"] == "loading");
    task.cancel();
    assert_eq!(task.outcome().ended(), "cancelled");
    assert_eq!(group.member(0)["phase"], "loading", "and it loads on");
    group.down();
    world.assert_nothing_supervised();
}

// A7: restarted while it is launched: the second life is the one that counts.
#[test]
fn restarted_while_it_is_launched() {
    let (world, _daemon) = world();
    let once = world.work().join("once");
    let start = format!(
        "hello()\nif not os.path.exists({once:?}): open({once:?}, 'w').close(); state('loading'); time.sleep(1000)\nready()"
    );
    let group = Group::up(&world.api(), "g", &world.group_of(vec![world.raw_member("m-0", &start)]));
    let task = group.submit("text('second')");
    group.wait_until("it loads", within(PATIENCE), |view| view["group"]["members"][0]["phase"] == "loading");
    group.wish("restart", None);
    group.wait_incarnation(0, 2);
    assert_eq!(task.outcome().said(), "second", "a task that no runner had waits on");
    assert!(group.reports().is_empty(), "{:#?}", group.reports());
}
