//! Nodes to which nothing happens.

use std::process::{Child, Command};
use std::thread::{self, sleep};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use outlive_e2e::clock::{now, within};
use outlive_e2e::cluster::{Cluster, Servers};
use outlive_e2e::events::Silence;
use outlive_e2e::process;
use outlive_e2e::transcript::Transcript;
use rustix::param::clock_ticks_per_second;
use serde_json::{Value, json};

use super::{group, metric, submit};

/// What the start of three nodes takes until nothing of it is left to be done.
const SETTLED: Duration = Duration::from_secs(5);

/// What three idle nodes take of the processor, and their server.
///
/// # Errors
/// None of them is there.
pub fn heartbeats(seconds: u64) -> Result<Value> {
    let cluster = Cluster::of(3);
    let daemons: Vec<i32> = cluster.members.iter().map(|member| member.daemon().pid()).collect();
    let server = match &cluster.servers {
        Servers::One(server) => server.pid().and_then(|pid| i32::try_from(pid).ok()),
        Servers::Three(_) => None,
    };
    // The processor's time is the measure: it passes while nobody asks.
    sleep(SETTLED);
    let began = (now(), used(&daemons), used(server.as_slice()));
    sleep(Duration::from_secs(seconds));
    let passed = began.0.elapsed().as_secs_f64() * clock_ticks_per_second() as f64;
    let share = |since: u64, until: u64| until.saturating_sub(since) as f64 / passed;
    ensure!(cluster.members.iter().all(|member| member.alive() == 3), "they do not see each other");
    Ok(json!({
        "cpu": share(began.1, used(&daemons)),
        "server_cpu": share(began.2, used(server.as_slice())),
        "memory_bytes": daemons.iter().filter_map(|pid| process::memory_bytes(*pid)).max(),
    }))
}

fn used(pids: &[i32]) -> u64 {
    pids.iter().filter_map(|pid| process::find(*pid)).map(|process| process.cpu_ticks).sum()
}

/// What three nodes take for a fault while every core is busy with something else, and a task goes on.
///
/// # Errors
/// The task cannot be watched, or went on elsewhere.
pub fn busy(minutes: u64) -> Result<Value> {
    let cluster = Cluster::of(3);
    let group = group(&cluster, 0, "bench", 1)?;
    let _spinning = Spinning::on_all_cores()?;
    let task = submit(&group, "count", &json!({"n": 100_000_000, "period_us": 50_000, "every": 100}))?;
    let path = format!("/v1/sessions/{}/runs/{}/attach?follow=true", group.session().id, task.id);
    let mut events = cluster.members[1].world.api().events(&path, None);
    let (over, mut seen) = (within(Duration::from_secs(60 * minutes)), Transcript::default());
    let (mut last, mut longest) = (now(), Duration::ZERO);
    while !over.is_over() {
        match events.next(over) {
            Ok(event) => {
                ensure!(!seen.push(&event), "the task has ended: {:?}", seen.outcome);
                if event.name == "output" {
                    longest = longest.max(event.at.duration_since(last));
                    last = event.at;
                }
            }
            Err(Silence::TimeOver) => {}
            Err(Silence::Ended) => break,
        }
    }
    ensure!(over.is_over(), "the stream of the other node ended");
    let count = |name: &str| -> u64 {
        cluster.members.iter().map(|member| metric(&member.world.api(), name, "")).sum()
    };
    Ok(json!({
        "dead": count("outlive_cluster_dead_total"),
        "takeovers": count("outlive_cluster_takeovers_begun_total"),
        "suspected": count("outlive_cluster_suspected_total"),
        "held": count("outlive_cluster_guard_held_total"),
        "isolated": count("outlive_cluster_isolated_total"),
        "silence": longest.as_secs_f64(),
    }))
}

/// Processes that do nothing as fast as they can, one for each core. Dropped, they end.
///
/// Each is in a session of its own, as kernels are: Linux shares the processor among sessions first (`sched_autogroup`),
/// and what is measured are nodes beside others that are busy, not nodes that are starved by their own.
struct Spinning(Vec<Child>);

impl Spinning {
    fn on_all_cores() -> Result<Self> {
        let cores = thread::available_parallelism().map_or(2, usize::from);
        let spin = || Command::new("setsid").args(["sh", "-c", "while :; do :; done"]).spawn();
        let mut spinning = Self(Vec::new());
        for _ in 0..cores {
            spinning.0.push(spin().context("cannot start a process that spins")?);
        }
        Ok(spinning)
    }
}

impl Drop for Spinning {
    fn drop(&mut self) {
        for process in &mut self.0 {
            // Nothing is left to do when it has ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
