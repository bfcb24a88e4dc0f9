//! A node is cut off from NATS, and from nothing else.

use std::fs;
use std::time::Duration;

use outlive_e2e::clock::{PATIENCE, eventually, within};
use outlive_e2e::cluster::{Cluster, Cut};
use outlive_e2e::process;
use serde_json::json;

use crate::{exact, nothing_left, output};

/// Cuts the owner off, waits for the takeover, heals it.
fn cut_and_heal(how: Cut) {
    let cluster = Cluster::of(3);
    let group = cluster.runners(0, "g", 1);
    let side = cluster.volume();
    let code = format!("count(task, 600, 0.01, side={side:?}, every=10)");
    let task = group.submit_with(&code, &json!({"idempotent": true}));
    let path = output(&group, &task);
    let watchers = cluster.watch_everywhere(&path, 6);
    watchers[0].wait_said("1:100\n");
    cluster.members[0].cut(how);
    // Those of the cut-off node too: it ends their streams, and they go elsewhere.
    for watcher in &watchers {
        watcher.wait_said("\n2:");
    }
    let runners = cluster.members[0].world.supervised();
    eventually("the cut-off node's runtimes are frozen", within(PATIENCE), || {
        let file = side.join(format!("{}.1", task.id));
        let before = fs::read(&file).ok()?.len();
        std::thread::sleep(Duration::from_millis(300));
        (fs::read(&file).ok()?.len() == before).then_some(())
    });
    let live = cluster.members[0].world.api().request("GET", "/v1/live", None);
    let ready = cluster.members[0].world.api().request("GET", "/v1/ready", None);
    assert_eq!((live.status, ready.status), (200, 503), "{}", ready.json());
    assert_eq!(ready.json()["code"], "isolated");
    cluster.members[0].mend();
    nothing_left(&cluster, 0);
    assert!(
        runners.iter().all(|runner| process::find(runner.pid).is_none_or(|now| now.start != runner.start))
    );
    assert_eq!(exact(&cluster, watchers, &path, 600), 2);
    cluster.wait_whole(3);
    let again = cluster.runners(0, "again", 1);
    assert_eq!(again.run("text('a clean node')").said(), "a clean node");
}

// E4: connections are closed and refused.
#[test]
fn a_node_whose_connections_are_refused() {
    cut_and_heal(Cut::Closed);
}

// E4: nothing passes and nobody is told.
#[test]
fn a_node_whose_cable_is_pulled() {
    cut_and_heal(Cut::Silent);
}

// E4: everybody is cut off for a while, so nobody takes anything over: the owner freezes what runs, finds that it is
// still its own, and goes on with the same process.
#[test]
fn everybody_is_cut_off_and_nothing_is_lost() {
    let cluster = Cluster::of(3);
    let group = cluster.runners(0, "g", 1);
    let task = crate::counts(&group, 400);
    let path = output(&group, &task);
    let watchers = cluster.watch_everywhere(&path, 7);
    watchers[0].wait_said("1:100\n");
    let runner = group.process(0);
    for member in &cluster.members {
        member.cut(Cut::Closed);
    }
    eventually("the owner knows that it is cut off", within(PATIENCE), || {
        let ready = cluster.members[0].world.api().request("GET", "/v1/ready", None);
        (ready.json()["code"] == "isolated").then_some(())
    });
    for member in &cluster.members {
        member.mend();
    }
    assert_eq!(exact(&cluster, watchers, &path, 400), 1, "one attempt");
    cluster.wait_whole(3);
    assert_eq!(cluster.owner(&group.session().id), 0);
    assert_eq!(group.process(0).start, runner.start, "the same process");
}
