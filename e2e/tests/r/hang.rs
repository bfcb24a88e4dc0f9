//! A runner that does not answer is not a dead one; one that makes no progress is told apart by its phase.

use std::time::Duration;

use outlive_e2e::clock::{PATIENCE, within};
use outlive_e2e::process::{self, Signal};
use outlive_e2e::runners::{member, member_state};
use outlive_e2e::{Group, World, report};
use serde_json::{Value, json};

use crate::explained;

/// The latest moment at which a runner that stopped answering must be shown so.
const SHOWN_WITHIN: Duration = Duration::from_secs(8);

fn numbers(n: u32) -> String {
    (0..n).map(|i| format!("1:{i}\n")).collect()
}

// A4: stopped with a task streaming, it is shown unresponsive; continued, it goes on and nothing is lost.
#[test]
fn stopped_and_continued() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(1);
    let task = group.submit("count(task, 300, 0.01)");
    task.wait_said("1:3\n");
    group.signal(0, Signal::STOP);
    let view = group.wait_until("unresponsive", within(SHOWN_WITHIN), |view| {
        member_state(member(view, 0)) == "unresponsive"
    });
    let state = &member(&view, 0)["runtime"]["state"];
    let detail = state["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("stopped by a signal"), "a stopped process is told from a busy one: {state}");
    // It takes no new work meanwhile.
    let waiting = group.submit("text('waited')");
    assert_eq!(waiting.view()["state"]["state"], "queued");
    group.signal(0, Signal::CONT);
    let ended = task.outcome();
    assert_eq!((ended.ended(), ended.said()), ("succeeded", numbers(300)));
    assert_eq!(waiting.outcome().said(), "waited");
    assert!(group.reports().is_empty(), "{:#?}", group.reports());
    assert_eq!(group.member(0)["runtime"]["incarnation"], 1);
}

// A4: with the policy `restart` it is killed, its tasks are settled as hung, and the next life serves.
#[test]
fn stopped_for_good_under_the_policy_restart() {
    let world = World::new();
    let _daemon = world.daemon();
    let mut config = world.group_config(1);
    config["on_hang"] = json!("restart");
    let group = Group::up(&world.api(), "g", &config);
    let tasks = [group.submit("text('running'); forever()"), group.submit("text('running'); forever()")];
    for task in &tasks {
        task.wait_said("running");
    }
    let hung = group.process(0);
    process::signal(hung.pid, Signal::STOP);
    for task in &tasks {
        assert_eq!(report::code(&explained(&group, &task.outcome())), "hung");
    }
    assert!(process::wait_gone(&hung, within(PATIENCE)), "left behind: {hung:?}");
    group.wait_incarnation(0, 2);
    assert_eq!(group.run("text('again')").said(), "again");
}

// A5: a task that holds the interpreter's lock, and one that sleeps, both for longer than any heartbeat budget, are never
// reported dead.
#[test]
fn busy_in_native_code_and_asleep() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(2);
    // `sum` over a range never gives the lock away; `sleep` gives it away at once.
    let spinning = "began = time.monotonic()\n\
                    while time.monotonic() - began < 12: sum(range(400_000_000))\ntext('spun')";
    let mut events = group.session().events();
    let tasks = [group.submit(spinning), group.submit("time.sleep(12); text('slept')")];
    let ended = tasks.map(|task| task.outcome_by(within(PATIENCE * 2)));
    assert_eq!(ended.each_ref().map(|ended| ended.said()), ["spun", "slept"]);
    // What happened until now stands before this task's end.
    let marker = group.submit("text('marker')");
    events.wait_for("the marker's end", within(PATIENCE), |event| {
        assert_ne!(event.name, "report", "{}", event.data);
        for place in 0..2_usize {
            let state = event.data["session"]["group"]["members"].get(place).map_or("", member_state);
            let allowed = ["", "idle", "busy", "unresponsive"];
            assert!(allowed.contains(&state), "member {place} is {state:?}");
        }
        let run = &event.data["run"];
        event.name == "run" && run["id"] == marker.id.as_str() && run["state"]["state"] == "ended"
    });
    for place in 0..2 {
        assert_eq!(group.member(place)["runtime"]["incarnation"], 1);
    }
}

/// A group of one whose watchdogs are so short.
fn watched(world: &World, start: &str, watch: &Value) -> Group {
    let mut config = world.group_of(vec![world.raw_member("m-0", start)]);
    config["members"][0]["launch"]["program"]["watch"] = watch.clone();
    config["restart"]["restarts_max"] = json!(1);
    Group::up(&world.api(), "g", &config)
}

/// Checks that a stall is named by its phase.
#[track_caller]
fn stalled(report: &Value, phase: &str) {
    assert_eq!(report::code(report), "stalled", "{report:#}");
    assert!(report::summary(report).contains(phase), "{phase:?} is named: {}", report::summary(report));
}

// A4: a runner that answers pings and loads for ever is stalled in loading; each progress counts.
#[test]
fn stalled_in_loading() {
    let world = World::new();
    let _daemon = world.daemon();
    let watch = json!({"load_ms": 1000, "first_chunk_ms": null, "between_chunks_ms": null});
    let slow = "hello()\nfor i in range(12): state('loading', done=i, total=12); time.sleep(0.2)\nready()";
    let group = watched(&world, slow, &watch);
    group.wait_ready();
    assert!(group.reports().is_empty(), "2.4 s with progress are no stall: {:#?}", group.reports());
    group.down();

    let group = watched(&world, "hello(); state('loading', done=1, total=2)", &watch);
    let report = group.first_report();
    stalled(&report, "load");
    group.wait_member(0, "gave_up");
}

// A4: a task without a first chunk, and one that falls silent, are stalled; the task is told which.
#[test]
fn stalled_in_a_task() {
    let world = World::new();
    let _daemon = world.daemon();
    let watch = json!({"load_ms": null, "first_chunk_ms": 1000, "between_chunks_ms": 2000});
    let group = watched(&world, "hello(); ready()", &watch);
    let ended = group.run("pause(0.5); text('first'); pause(1.5); text('second')");
    assert_eq!((ended.ended(), ended.said().as_str()), ("succeeded", "firstsecond"));
    let ended = group.run("forever()");
    stalled(&explained(&group, &ended), "first");
    group.wait_incarnation(0, 2);
    let ended = group.run("text('first'); forever()");
    assert_eq!(ended.said(), "first");
    stalled(&explained(&group, &ended), "between");
}
