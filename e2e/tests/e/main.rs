//! Row E: a node dies, freezes, is cut off or drained; three nodes on a real NATS.

mod claim;
mod clocks;
mod cut;
mod door;
mod drain;
mod example;
mod frozen;
mod full;
mod lost;
mod notebook;
mod path;
mod resumed;
mod store;

use outlive_e2e::clock::{PATIENCE, within};
use outlive_e2e::cluster::{Account, Cluster, Watcher, agree, counted};
use outlive_e2e::{Group, Task};
use serde_json::json;

/// A task that says so many steps, 10 ms apart, and saves its state after every tenth.
fn counts(group: &Group, steps: u64) -> Task {
    group.submit_with(&format!("count(task, {steps}, 0.01, every=10)"), &json!({"idempotent": true}))
}

/// Where any node shows a task's output: the log, whoever owns it.
fn output(group: &Group, task: &Task) -> String {
    format!("/v1/sessions/{}/runs/{}/attach?follow=true", group.session().id, task.id)
}

/// Checks that all have seen the steps of a task, each once; gives how many attempts that took.
#[track_caller]
fn exact(cluster: &Cluster, watchers: Vec<Watcher>, path: &str, steps: u64) -> usize {
    let seen: Vec<Account> = watchers.into_iter().map(Watcher::end).collect();
    let alive = cluster.members.iter().position(|member| member.daemon.is_some()).expect("somebody lives");
    let late = Watcher::begin("a newcomer", cluster.places(alive), path, outlive_e2e::cluster::Habit::Stays);
    let fold = late.end().transcript;
    let said = agree(&seen, &fold);
    assert_eq!(fold.ended(), "succeeded", "{:?}", fold.outcome);
    counted(&said, steps)
}

/// Waits until nobody of a group's old owner is left on a node.
#[track_caller]
fn nothing_left(cluster: &Cluster, place: usize) {
    let deadline = within(PATIENCE);
    while let Some(process) = cluster.members[place].world.supervised().first() {
        assert!(outlive_e2e::process::wait_gone(process, deadline), "left behind: {process:?}");
    }
}
