//! Thousands of runs that are begun, not ended, and say nothing.
//!
//! A run is a task of a runner that takes a thousand at a time: as many processes as runs would measure the processes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use outlive_e2e::clock::{eventually, now, within};
use outlive_e2e::cluster::{Cluster, Member};
use outlive_e2e::http::Api;
use outlive_e2e::{Daemon, World, process};
use serde_json::{Value, json};

use super::{configured, group, metric, up};

/// How many runs each group has.
const OF_A_GROUP: u64 = 1_000;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// With a node on NATS, which is killed and started again.
///
/// # Errors
/// The runs are not taken.
pub fn on_a_node(n: u64) -> Result<Value> {
    let mut cluster = Cluster::of(1);
    let empty = memory(cluster.members[0].daemon())?;
    for name in names(n) {
        let _group = group(&cluster, 0, &name, 1_024)?;
    }
    let api = cluster.members[0].world.api();
    submit(&api, n)?;
    let full = memory(cluster.members[0].daemon())?;
    drop(cluster.members[0].kill());
    let began = now();
    cluster.members[0].begin();
    let ready = began.elapsed();
    known(&api, n);
    let Member { daemon, .. } = &cluster.members[0];
    let again = memory(daemon.as_ref().context("it was started")?)?;
    Ok(figures([empty, full, again], ready, began.elapsed()))
}

/// With a daemon alone, which is killed and started again.
///
/// # Errors
/// The runs are not taken.
pub fn alone(n: u64) -> Result<Value> {
    let world = World::new();
    let daemon = world.daemon();
    let (api, empty) = (world.api(), memory(&daemon)?);
    let config = configured(world.group_config(1), 1_024)?;
    for name in names(n) {
        let _group = up(&api, &name, &config);
    }
    submit(&api, n)?;
    let full = memory(&daemon)?;
    drop(daemon.kill());
    let began = now();
    let daemon = world.daemon();
    let ready = began.elapsed();
    known(&api, n);
    Ok(figures([empty, full, memory(&daemon)?], ready, began.elapsed()))
}

fn figures([empty, full, again]: [u64; 3], ready: Duration, known: Duration) -> Value {
    json!({
        "empty_bytes": empty, "memory_bytes": full, "again_bytes": again,
        "ready": ready.as_secs_f64(), "known": known.as_secs_f64(),
    })
}

fn memory(daemon: &Daemon) -> Result<u64> {
    process::memory_bytes(daemon.pid()).context("the daemon says nothing of its memory")
}

fn names(n: u64) -> impl Iterator<Item = String> {
    (0..n.div_ceil(OF_A_GROUP)).map(|n| format!("idle-{n}"))
}

fn submit(api: &Api, n: u64) -> Result<()> {
    let mut connection = api.connect()?;
    let body = json!({"task": "hold", "input": {}, "idempotent": true});
    for turn in 0..n {
        let path = format!("/v1/runners/idle-{}/tasks", turn / OF_A_GROUP);
        let answer = connection.request("POST", &path, Some(&body))?;
        ensure!(answer.status < 300, "{} {}", answer.status, answer.json());
    }
    known(api, n);
    Ok(())
}

/// Waits until all runs are known to be under way.
fn known(api: &Api, n: u64) {
    eventually("all runs are known", within(PATIENCE), || {
        (metric(api, "outlive_tasks", "state=\"running\"") == n).then_some(())
    });
}
