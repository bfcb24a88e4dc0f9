//! Who takes over, when many would, when the taker dies, when the name is the same.

use outlive_e2e::clock::{PATIENCE, eventually, within};
use outlive_e2e::cluster::{Cluster, Habit, Watcher};
use serde_json::json;

use crate::{counts, exact, output};

/// The epoch of a session's claim, as a node says.
fn takeovers(cluster: &Cluster, place: usize, session: &str) -> Vec<serde_json::Value> {
    let all = cluster.members[place].world.api().get(&format!("/v1/sessions/{session}/takeovers"));
    all.as_array().cloned().unwrap_or_default()
}

// E6: five nodes would take over and one does: one claim, one process.
#[test]
fn of_many_claimants_one_takes_over() {
    let mut cluster = Cluster::of(6);
    let group = cluster.runners(0, "g", 1);
    let task = counts(&group, 300);
    let path = output(&group, &task);
    let watchers: Vec<_> = (1..4)
        .map(|n| Watcher::begin(format!("who stays at n{}", n + 1), cluster.places(n), &path, Habit::Stays))
        .collect();
    watchers[0].wait_said("1:100\n");
    cluster.members[0].lose();
    assert_eq!(exact(&cluster, watchers, &path, 300), 2);
    let owner = cluster.owner(&group.session().id);
    let told = takeovers(&cluster, owner, &group.session().id);
    assert_eq!(told.len(), 1, "{told:#?}");
    assert_eq!(
        (told[0]["from_name"].as_str(), told[0]["to_name"].as_str()),
        (Some("n1"), Some(&*cluster.members[owner].name))
    );
}

// E6: whoever takes over dies at once, before or behind its first record: the next one finishes the job.
#[test]
fn the_taker_dies_too() {
    let mut cluster = Cluster::of(4);
    let group = cluster.runners(0, "g", 1);
    let task = counts(&group, 300);
    let path = output(&group, &task);
    let last = cluster.members.len() - 1;
    let watchers: Vec<_> = (0..=last)
        .map(|n| Watcher::begin(format!("who begins at n{}", n + 1), cluster.places(n), &path, Habit::Stays))
        .collect();
    watchers[0].wait_said("1:50\n");
    cluster.members[0].lose();
    let taker = cluster.moved_from(&group.session().id, 0);
    cluster.members[taker].lose();
    let next = eventually("a third node has it", within(PATIENCE), || {
        let owner = cluster.moved_from(&group.session().id, taker);
        (owner != 0).then_some(owner)
    });
    assert!(cluster.members[next].daemon.is_some());
    let attempts = exact(&cluster, watchers, &path, 300);
    assert!((2..=3).contains(&attempts), "{attempts} attempts in the output");
}

// E7: the same node again with a new boot is never taken for the old one: what it had is somebody else's or its own
// anew, and the old claim is void.
#[test]
fn the_same_node_with_a_new_boot() {
    let mut cluster = Cluster::of(2);
    let group = cluster.runners(0, "g", 1);
    let task = counts(&group, 300);
    let path = output(&group, &task);
    let watchers = cluster.watch_everywhere(&path, 10);
    watchers[1].wait_said("1:50\n");
    cluster.members[0].lose();
    cluster.members[0].begin();
    let attempts = exact(&cluster, watchers, &path, 300);
    assert_eq!(attempts, 2);
    cluster.wait_whole(2);
    let names: Vec<_> = cluster.members[1]
        .nodes()
        .iter()
        .filter(|node| node["name"] == "n1")
        .map(|node| node["state"].clone())
        .collect();
    assert_eq!(names.iter().filter(|state| **state == json!("alive")).count(), 1, "{names:?}");
}

// E8: a cancel while nobody owns the session, or while somebody takes it over, is not forgotten.
#[test]
fn a_cancel_during_the_takeover() {
    let mut cluster = Cluster::of(3);
    for round in 0..3 {
        if cluster.members[0].daemon.is_none() {
            cluster.members[0].begin();
            cluster.wait_whole(3);
        }
        let name = format!("g{round}");
        let group = cluster.runners(0, &name, 1);
        let task = counts(&group, 3_000);
        let path = output(&group, &task);
        let watcher = Watcher::begin("who stays", cluster.places(1), &path, Habit::Stays);
        watcher.wait_said("1:20\n");
        cluster.members[0].lose();
        std::thread::sleep(std::time::Duration::from_millis(200 * round));
        let cancel = format!("/v1/sessions/{}/runs/{}", group.session().id, task.id);
        eventually("somebody takes the cancel", within(PATIENCE), || {
            let answer = cluster.members[1].world.api().request("DELETE", &cancel, None);
            [200, 202].contains(&answer.status).then_some(())
        });
        let seen = watcher.end().transcript;
        assert_eq!(seen.ended(), "cancelled", "{:?}", seen.outcome);
    }
}

// E8: the owner is killed around the last chunk and the end of the task, ten times: one end, all output.
#[test]
fn killed_around_the_end() {
    let mut cluster = Cluster::of(3);
    for round in 0..6 {
        if cluster.members[0].daemon.is_none() {
            cluster.members[0].begin();
            cluster.wait_whole(3);
        }
        let group = cluster.runners(0, &format!("g{round}"), 1);
        let task = counts(&group, 30);
        let path = output(&group, &task);
        let watchers = vec![Watcher::begin("who stays", cluster.places(1), &path, Habit::Stays)];
        watchers[0].wait_said(&format!("1:{}\n", 27 + round % 3));
        cluster.members[0].lose();
        exact(&cluster, watchers, &path, 30);
    }
}

// E9: every node is replaced, one after the other, during one long task.
#[test]
fn a_rolling_restart() {
    let mut cluster = Cluster::of(3);
    let group = cluster.runners(0, "g", 1);
    let task = group.submit_with("count(task, 1500, 0.01, every=1)", &json!({"idempotent": true}));
    let path = output(&group, &task);
    let watchers = cluster.watch_everywhere(&path, 11);
    for n in 0..3 {
        let so_far = watchers[0].so_far().transcript.chunks.len();
        eventually("it goes on", within(PATIENCE), || {
            (watchers[0].so_far().transcript.chunks.len() > so_far + 50).then_some(())
        });
        cluster.members[n].terminate().assert_code(0);
        cluster.members[n].begin();
        cluster.wait_whole(3);
    }
    let attempts = exact(&cluster, watchers, &path, 1_500);
    // One for each move.
    assert!((2..=4).contains(&attempts), "{attempts}");
}
