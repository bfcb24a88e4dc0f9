//! A node stands still and wakes up when its work is somebody else's.

use std::fs;
use std::time::Duration;

use outlive_e2e::clock::{PATIENCE, eventually, within};
use outlive_e2e::cluster::Cluster;
use serde_json::json;

use crate::{exact, nothing_left, output};

// E3: SIGSTOP past the takeover, then SIGCONT: what the old owner had is stopped and it writes nothing; the watchers,
// also those of the frozen node, have every chunk once.
#[test]
fn a_frozen_node_wakes_up_and_owns_nothing() {
    let cluster = Cluster::of(3);
    let group = cluster.runners(0, "g", 1);
    let side = cluster.volume();
    let code = format!("count(task, 500, 0.01, side={side:?}, every=10)");
    let task = group.submit_with(&code, &json!({"idempotent": true}));
    let path = output(&group, &task);
    let watchers = cluster.watch_everywhere(&path, 4);
    watchers[1].wait_said("1:100\n");
    cluster.members[0].freeze();
    for watcher in &watchers {
        watcher.wait_said("\n2:");
    }
    let new = eventually("somebody else owns it", within(PATIENCE), || {
        let view = cluster.members[1].world.api().get(&format!("/v1/sessions/{}", group.session().id));
        view["node"].as_str().filter(|name| *name != "n1").map(str::to_owned)
    });
    cluster.members[0].thaw();
    nothing_left(&cluster, 0);
    let file = side.join(format!("{}.1", task.id));
    let steps = fs::read(&file).expect("what the first attempt did").len();
    assert_eq!(exact(&cluster, watchers, &path, 500), 2);
    assert_eq!(
        fs::read(&file).expect("what the first attempt did").len(),
        steps,
        "the old owner's process is gone"
    );
    // A clean node again: it is seen, and serves the session that another owns.
    cluster.wait_whole(3);
    let view = cluster.members[0].world.api().get(&format!("/v1/sessions/{}", group.session().id));
    assert_eq!(view["node"], new.as_str());
}

// E3: a short stop is no death: nobody takes anything over, and nothing is lost.
#[test]
fn a_short_stop_is_no_death() {
    let cluster = Cluster::of(3);
    let group = cluster.runners(0, "g", 1);
    let task = crate::counts(&group, 200);
    let path = output(&group, &task);
    let watchers = cluster.watch_everywhere(&path, 5);
    for n in [20, 60, 100] {
        watchers[1].wait_said(&format!("1:{n}\n"));
        cluster.members[0].freeze();
        std::thread::sleep(Duration::from_millis(150));
        cluster.members[0].thaw();
    }
    assert_eq!(exact(&cluster, watchers, &path, 200), 1, "one attempt");
    assert_eq!(cluster.owner(&group.session().id), 0);
}
