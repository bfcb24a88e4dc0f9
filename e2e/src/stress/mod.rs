//! Many tasks over a few runners that are killed all the time: each task ends once, with all that its runner has said, and
//! nothing is left behind.
//!
//! A task says numbers and keeps its own account in a file, a byte before and a byte after each, so that it is known
//! what it has said for sure and what it may have said, whatever ended its process ([`account`]).

mod account;
mod left;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::clock::{Deadline, PATIENCE, within};
use crate::events::Silence;
use crate::process::{self, Signal};
use crate::random::Random;
use crate::runners::{Group, members};
use crate::{Daemon, World};
use account::Account;
use left::Held;

/// How many tasks a runner takes at a time.
const CONCURRENCY: usize = 2;
/// How many numbers a task says.
const CHUNKS: usize = 100;
/// After how many it saves its state, if it may be begun again.
const CHECKPOINT_EVERY: usize = 10;

/// How much, how long, and which.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// About how long all tasks take together, with nobody killed.
    pub time: Duration,
    /// How many tasks.
    pub tasks: usize,
    /// How many runners.
    pub runners: usize,
    /// How often one of them is killed, until the last task has ended.
    pub kill_period: Duration,
    /// The same seed kills the same runners in the same order.
    pub seed: u64,
}

/// Does it, and says what came of it.
///
/// # Panics
/// When a task ends twice or never, when a chunk is lost or doubled, or when anything is left behind.
#[must_use]
pub fn run(plan: Plan) -> String {
    let world = World::new();
    let daemon = world.daemon();
    // What is there after the first group was there is what may be there.
    world.runners(plan.runners).down();
    let first = Held::by(&world, &daemon);
    let group = Group::up(&world.api(), "g", &config(&world, plan));
    group.wait_ready();
    let side = world.work().join("side");
    fs::create_dir(&side).expect("the world's files can be written");

    let accounts: Vec<Account> = (0..plan.tasks).map(|nth| submit(&group, plan, &side, nth)).collect();
    let deadline = within(plan.time * 4 + PATIENCE);
    let over = AtomicBool::new(false);
    let kills = std::thread::scope(|scope| {
        let killing = scope.spawn(|| kill_now_and_then(&group, plan, &over));
        let ends = scope.spawn(|| ends_of_all(&group, plan.tasks, deadline));
        let watching: Vec<_> =
            accounts.iter().map(|account| scope.spawn(|| account.is_kept(deadline))).collect();
        // All of them come to their end before a panic of one is ours.
        let watched: Vec<_> = watching.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::Relaxed);
        let kills = killing.join();
        watched
            .into_iter()
            .for_each(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        ends.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        kills.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    one_report_a_death(&group, kills);
    let ended = accounts.iter().fold(BTreeMap::<String, usize>::new(), |mut ended, account| {
        *ended.entry(account.task.view()["state"]["outcome"]["kind"].to_string()).or_default() += 1;
        ended
    });
    nothing_is_left(&world, daemon, &group, &first);
    format!("{} tasks, {kills} kills, ended: {ended:?}", plan.tasks)
}

/// Runners that are started again as often as they are killed.
fn config(world: &World, plan: Plan) -> Value {
    let start = format!("hello(concurrency={CONCURRENCY}); ready()");
    let members = (0..plan.runners).map(|nth| world.raw_member(&format!("m-{nth}"), &start)).collect();
    let mut config = world.group_of(members);
    config["restart"]["restarts_max"] = json!(1_000_000);
    config["restart"]["backoff_ms"] = json!(1);
    config["restart"]["backoff_ms_max"] = json!(10);
    config
}

/// Submits one; every second may be begun again.
fn submit(group: &Group, plan: Plan, side: &PathBuf, nth: usize) -> Account {
    let slots = plan.runners * CONCURRENCY;
    let pause = plan.time.as_secs_f64() * slots as f64 / plan.tasks as f64 / CHUNKS as f64;
    let idempotent = nth.is_multiple_of(2);
    let every = if idempotent { CHECKPOINT_EVERY.to_string() } else { "None".to_owned() };
    let code = format!("count(task, {CHUNKS}, {pause}, {side:?}, {every})");
    let task = group.submit_with(&code, &json!({"idempotent": idempotent}));
    Account { task, side: side.clone(), chunks: CHUNKS, idempotent }
}

/// Kills a runner, then waits, until all is over. Gives how many it has killed.
fn kill_now_and_then(group: &Group, plan: Plan, over: &AtomicBool) -> usize {
    let mut random = Random::new(plan.seed);
    let mut kills = 0;
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(plan.kill_period);
        let view = group.view();
        let place = usize::try_from(random.below(plan.runners as u64)).expect("an index");
        // One that is just being started again has no process; it is somebody else's turn next time.
        let pid = members(&view)[place]["runtime"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        if let Some(runner) = pid.and_then(process::find).filter(|found| found.command.contains("raw.py")) {
            process::signal(runner.pid, Signal::KILL);
            kills += 1;
        }
    }
    kills
}

/// Reads the group's own stream until every task has ended: each ends once and stays as it ended.
fn ends_of_all(group: &Group, tasks: usize, deadline: Deadline) {
    let mut events = group.session().api().events(&group.session().path("/attach?outputs=false"), None);
    let mut ended: BTreeMap<String, Value> = BTreeMap::new();
    while ended.len() < tasks {
        let event = match events.next(deadline) {
            Ok(event) => event,
            Err(Silence::TimeOver) => panic!("{} of {tasks} tasks have ended", ended.len()),
            Err(Silence::Ended) => panic!("the group's stream has ended before its tasks"),
        };
        if event.name != "run" {
            continue;
        }
        let run = &event.data["run"];
        let id = run["id"].as_str().expect("a run has an id").to_owned();
        match ended.get(&id) {
            Some(before) => assert_eq!(before, &run["state"], "{id} has ended before"),
            None if run["state"]["state"] == "ended" => drop(ended.insert(id, run["state"].clone())),
            None => {}
        }
    }
}

fn one_report_a_death(group: &Group, kills: usize) {
    let reports = group.reports();
    assert!(reports.len() <= kills, "{} reports of {kills} deaths", reports.len());
    let mut processes: Vec<String> = reports.iter().map(|report| report["process"].to_string()).collect();
    processes.sort();
    processes.dedup();
    assert_eq!(processes.len(), reports.len(), "a death with two reports");
}

fn nothing_is_left(world: &World, daemon: Daemon, group: &Group, first: &Held) {
    let runtimes: Vec<String> = members(&group.view())
        .iter()
        .filter_map(|member| member["runtime"]["id"].as_str().map(ToOwned::to_owned))
        .collect();
    group.down();
    world.assert_nothing_supervised();
    left::directories(world, &runtimes);
    first.no_more_now(world, &daemon);
    daemon.terminate();
    world.assert_nothing_left();
}
