//! Several nodes: what those who watch feel of a fault, what the nodes cost while nothing happens, and what the store
//! costs that they share. A peer is there only for the last: of a kernel, a runner or a run nobody else says on another
//! machine what Outlive says.
//!
//! | file | holds |
//! |---|---|
//! | [`rows`] | what is asked |
//! | [`faults`] | an owner that is killed, frozen, cut off, drained in the middle of a task |
//! | [`quiet`] | nodes that are idle, and nodes on a machine that is busy with something else |
//! | [`idle`] | a daemon with thousands of runs that say nothing |
//! | [`append`] | one append, beside one publish |

pub mod append;
mod faults;
pub mod idle;
mod quiet;
pub mod rows;

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Result, anyhow, bail, ensure};
use outlive_e2e::cluster::Cluster;
use outlive_e2e::http::Api;
use outlive_e2e::runners::{Group, Task};
use serde_json::{Value, json};

use crate::Contestant;
use crate::runners;

/// Three nodes on one NATS, made for each question.
pub struct Nodes;

impl Contestant for Nodes {
    fn ask(&mut self, request: &Value) -> Result<Value> {
        // What the harness finds wrong it panics about: an answer too, and no end of the other rows.
        catch_unwind(AssertUnwindSafe(|| answer(request)))
            .unwrap_or_else(|_| Err(anyhow!("something was not as it should be: see above")))
    }
}

fn answer(request: &Value) -> Result<Value> {
    let number = |name: &str| request[name].as_u64().unwrap_or(1);
    match request["measure"].as_str().unwrap_or_default() {
        "fault" => faults::measure(request["fault"].as_str().unwrap_or_default(), number("n")),
        "burst" => burst(number("n"), request["at"].as_u64().unwrap_or(0)),
        "heartbeats" => quiet::heartbeats(number("seconds")),
        "busy" => quiet::busy(number("minutes")),
        "idle_runs" => idle::on_a_node(number("n")),
        other => bail!("no measure {other:?}"),
    }
}

/// Chunks through the first node, to a client of the first node or another one.
fn burst(n: u64, at: u64) -> Result<Value> {
    let cluster = Cluster::of(3);
    let group = group(&cluster, 0, "bench", 1)?;
    let path = |task: &Task| format!("/v1/runners/bench/tasks/{}/attach?follow=true", task.id);
    // Also the way to the other node is warm then.
    let (place, began) = (usize::try_from(at)?, &mut 0);
    let mut chunks = 0;
    let mut last = 0;
    for (name, input) in [("once", json!({})), ("burst", json!({"n": n}))] {
        *began = runners::nanoseconds();
        let task = submit(&group, name, &input)?;
        chunks = 0;
        runners::watch(&cluster.members[place].world.api(), &path(&task), |event| {
            chunks += runners::texts(event).count() as u64;
            last = runners::monotonic(event);
        })?;
    }
    Ok(json!({"seconds": runners::seconds(*began, last), "chunks": chunks}))
}

/// A group of one such runner that takes so many tasks at a time, brought up on a node.
fn group(cluster: &Cluster, place: usize, name: &str, concurrency: u32) -> Result<Group> {
    let config = configured(cluster.group_config(place, 1), concurrency)?;
    Ok(up(&cluster.members[place].world.api(), name, &config))
}

/// The same of our own runner, whom nobody takes for stalled.
fn configured(mut config: Value, concurrency: u32) -> Result<Value> {
    let argv = [runners::program()?.display().to_string(), concurrency.to_string()];
    let off = json!({"load_ms": null, "first_chunk_ms": null, "between_chunks_ms": null});
    for member in config["members"].as_array_mut().into_iter().flatten() {
        member["launch"]["program"]["argv"] = json!(argv);
        member["launch"]["program"]["watch"] = off.clone();
    }
    Ok(config)
}

fn up(api: &Api, name: &str, config: &Value) -> Group {
    let group = Group::up(api, name, config);
    group.wait_ready();
    group
}

fn submit(group: &Group, task: &str, input: &Value) -> Result<Task> {
    let body = json!({"task": task, "input": input, "idempotent": true});
    let view = group.session().api().post(&group.path("/tasks"), &body);
    ensure!(view["id"].is_string(), "no task: {view}");
    Ok(group.task(view["id"].as_str().unwrap_or_default()))
}

/// All values of a counter or gauge with these labels, added up.
fn metric(api: &Api, name: &str, labels: &str) -> u64 {
    let answer = api.request("GET", "/metrics", None);
    added(&String::from_utf8_lossy(&answer.body), name, labels)
}

fn added(text: &str, name: &str, labels: &str) -> u64 {
    let lines = text.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(labels))
    });
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_all_its_values_and_no_other_metric() {
        let text = "# HELP a Something.\na{x=\"1\"} 2\na{x=\"2\"} 3\na_total 7\n";
        assert_eq!(
            (added(text, "a", ""), added(text, "a", "x=\"2\""), added(text, "a_total", "")),
            (5, 3, 7)
        );
    }
}
