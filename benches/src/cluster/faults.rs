//! Something happens to the owner of a task, and three people watch it, one at each node.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use outlive_e2e::clock::now;
use outlive_e2e::cluster::scene::stall;
use outlive_e2e::cluster::{Account, Cluster, Cut, Habit, Watcher, agree, counted};
use outlive_e2e::random::Random;
use serde_json::{Value, json};

use super::{group, submit};

/// Between two steps of the task, in microseconds.
const PERIOD_US: u64 = 10_000;
/// How long an owner stands still or is cut off: longer than it takes until it is given up and freezes what it has.
const AWAY: Duration = Duration::from_secs(3);

/// What happens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// SIGKILL, of everything on its machine.
    Killed,
    /// SIGSTOP, and SIGCONT when it has been given up.
    Frozen,
    /// Nothing passes between it and NATS, and nobody is told.
    Silent,
    /// Its connections to NATS are closed, and refused.
    Closed,
    /// SIGTERM.
    Drained,
}

impl Fault {
    /// Whether the same owner is back after a while.
    fn passes(self) -> bool {
        matches!(self, Self::Frozen | Self::Silent | Self::Closed)
    }
}

/// What was felt, in seconds without output.
#[derive(Default)]
struct Felt {
    /// By watchers at the other nodes.
    elsewhere: Vec<f64>,
    /// By those at the struck one, who go elsewhere when it has been silent for a second.
    there: Vec<f64>,
    /// By those who wait for the struck one, from when it is whole again.
    behind: Vec<f64>,
    /// How often the task was moved more than once.
    again: u64,
}

/// Plays a fault so many times, in turn on each of three nodes.
///
/// # Errors
/// There is no such fault.
pub fn measure(fault: &str, n: u64) -> Result<Value> {
    let fault = match fault {
        "killed" => Fault::Killed,
        "frozen" => Fault::Frozen,
        "silent" => Fault::Silent,
        "closed" => Fault::Closed,
        "drained" => Fault::Drained,
        other => bail!("no fault {other:?}"),
    };
    let mut cluster = Cluster::of(3);
    let (mut felt, mut random) = (Felt::default(), Random::new(n));
    for round in 0..n {
        play(&mut cluster, fault, usize::try_from(round)? % 3, &format!("g{round}"), &mut random, &mut felt)?;
    }
    Ok(json!({"elsewhere": felt.elsewhere, "there": felt.there, "behind": felt.behind, "again": felt.again}))
}

fn play(
    cluster: &mut Cluster,
    fault: Fault,
    struck: usize,
    name: &str,
    random: &mut Random,
    felt: &mut Felt,
) -> Result<()> {
    let group = group(cluster, struck, name, 1)?;
    let n = if fault.passes() { 600 } else { 250 };
    let every = if fault == Fault::Drained { 1 } else { 10 };
    let task = submit(&group, "count", &json!({"n": n, "period_us": PERIOD_US, "every": every}))?;
    let path = format!("/v1/sessions/{}/runs/{}/attach?follow=true", group.session().id, task.id);
    let watch =
        |n: usize, places| Watcher::begin(format!("who begins at n{}", n + 1), places, &path, Habit::Stays);
    let watchers: Vec<_> = (0..3).map(|n| watch(n, cluster.places(n))).collect();
    let waiting = fault.passes().then(|| watch(struck, vec![cluster.members[struck].world.api()]));
    let after = 20 + random.below(20);
    for watcher in watchers.iter().chain(&waiting) {
        watcher.wait_said(&format!(":{after}\n"));
    }
    // At no particular moment between two heartbeats.
    sleep(Duration::from_millis(random.below(100)));
    let began = now();
    strike(cluster, fault, struck);
    watchers[(struck + 1) % 3].wait_said("\n2:");
    let whole = fault.passes().then(|| come_back(cluster, fault, struck, began));

    let seen: Vec<Account> = watchers.into_iter().map(Watcher::end).collect();
    let waited = waiting.map(Watcher::end);
    let said = agree(seen.iter().chain(&waited), &seen[struck].transcript);
    felt.again += u64::from(counted(&said, n) > 2);
    for (place, account) in seen.iter().enumerate() {
        let list = if place == struck { &mut felt.there } else { &mut felt.elsewhere };
        list.extend(stall(account, began).map(|stall| stall.as_secs_f64()));
    }
    if let (Some(whole), Some(waited)) = (whole, &waited) {
        felt.behind.extend(waited.first_after(whole).map(|at| at.duration_since(whole).as_secs_f64()));
    }
    if cluster.members[struck].daemon.is_none() {
        cluster.members[struck].begin();
    }
    cluster.wait_whole(3);
    cluster.group_at(struck, name).down();
    Ok(())
}

fn strike(cluster: &mut Cluster, fault: Fault, struck: usize) {
    let member = &mut cluster.members[struck];
    match fault {
        Fault::Killed => member.lose(),
        Fault::Frozen => member.freeze(),
        Fault::Silent => member.cut(Cut::Silent),
        Fault::Closed => member.cut(Cut::Closed),
        Fault::Drained => drop(member.terminate()),
    }
}

/// The struck owner is as before, a while after it was struck; gives when.
fn come_back(cluster: &Cluster, fault: Fault, struck: usize, began: Instant) -> Instant {
    sleep(AWAY.saturating_sub(began.elapsed()));
    let whole = now();
    let member = &cluster.members[struck];
    if fault == Fault::Frozen {
        member.thaw()
    } else {
        member.mend()
    }
    whole
}
