//! A task that lost its runner: begun again if it may be, from where it was saved; failed otherwise.

use outlive_e2e::clock::{PATIENCE, within};
use outlive_e2e::process::Signal;
use outlive_e2e::{Group, Transcript, World, report};
use serde_json::json;

use crate::explained;

/// Says numbers, saves its state after every tenth, and waits after the 25th in its first attempt.
const COUNTS: &str =
    "if task.attempt == 1:\n    count(task, 25, every=10); forever()\ncount(task, 40, every=10)";

/// Numbers as `count` says them.
fn numbers(attempt: u32, range: std::ops::Range<u32>) -> String {
    range.map(|i| format!("{attempt}:{i}\n")).collect()
}

// E10: an idempotent task goes on with another runner from what it saved last; watchers are told what to forget, and a
// newcomer sees the same.
#[test]
fn from_its_last_checkpoint() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(2);
    let task = group.submit_with(COUNTS, &json!({"idempotent": true}));
    let (mut seen, mut events) = task.wait_said("1:24\n");
    let member = task.view()["task"]["member"].clone();
    let place = usize::from(member == "m-1");
    group.signal(place, Signal::KILL);
    assert!(seen.follow(&mut events, within(PATIENCE)));
    let expected = numbers(1, 0..20) + &numbers(2, 20..40);
    assert_eq!((seen.ended(), seen.said(), seen.resets), ("succeeded", expected.clone(), 1));
    let late = task.outcome();
    assert_eq!((late.ended(), late.said()), ("succeeded", expected), "and for a newcomer");
    assert_eq!(task.view()["attempt"], 2);
    let report = group.first_report();
    assert_eq!(report::code(&report), "signal");
    assert!(
        report["interrupted"].as_array().is_some_and(|runs| runs.contains(&json!(task.id))),
        "{report:#}"
    );
}

// A reader that comes back with a cursor of the lost attempt is told what to forget.
#[test]
fn a_cursor_of_the_lost_attempt() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(2);
    let task = group.submit_with(COUNTS, &json!({"idempotent": true}));
    let (mut seen, events) = task.wait_said("1:24\n");
    drop(events);
    group.signal(usize::from(task.view()["task"]["member"] == "m-1"), Signal::KILL);
    assert_eq!(task.outcome().ended(), "succeeded");
    assert!(seen.follow(&mut task.attach(seen.cursor.clone().as_deref()), within(PATIENCE)));
    assert_eq!((seen.said(), seen.resets), (numbers(1, 0..20) + &numbers(2, 20..40), 1));
}

// An idempotent task that saved nothing begins at the beginning, with the same key.
#[test]
fn from_the_start() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(1);
    let code = "text(f'{task.attempt} {task.key} {task.saved}')\nif task.attempt == 1: os._exit(1)";
    let task = group.submit_with(code, &json!({"idempotent": true, "key": "k-7"}));
    let ended = task.outcome();
    assert_eq!((ended.ended(), ended.said().as_str()), ("succeeded", "2 k-7 None"));
}

// A state in raw bytes, larger than a line, comes back as it was.
#[test]
fn a_large_state() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(1);
    let code = "if task.attempt == 1:\n    \
                text('kept'); task.send('checkpoint', json.dumps({'next': 'x' * 3_000_000}).encode()); os._exit(1)\n\
                text(f\" {task.seq} {len(task.saved['next'])}\")";
    let ended = group.submit_with(code, &json!({"idempotent": true})).outcome();
    assert_eq!((ended.ended(), ended.said().as_str()), ("succeeded", "kept 1 3000000"));
}

// A task that is not idempotent is not begun again: what it did cannot be undone.
#[test]
fn not_unless_it_may_be() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(2);
    let side = world.work().join("side");
    let task = group.submit(&format!("open({side:?}, 'a').write('done'); text('once'); os._exit(1)"));
    let ended = task.outcome();
    assert_eq!(ended.said(), "once");
    explained(&group, &ended);
    group.wait_ready();
    assert_eq!(group.run("text('alive')").said(), "alive");
    assert_eq!(std::fs::read_to_string(&side).unwrap_or_default(), "done", "done once");
    assert_eq!(task.view()["attempt"], 1);
}

// A task that ends every runner that takes it is not given to yet another one for ever.
#[test]
fn a_poisonous_task() {
    let world = World::new();
    let _daemon = world.daemon();
    let mut config = world.group_config(2);
    config["restart"]["restarts_max"] = json!(50);
    config["restart"]["backoff_ms"] = json!(1);
    let group = Group::up(&world.api(), "g", &config);
    let task = group.submit_with("text(f'try {task.attempt}'); os._exit(13)", &json!({"idempotent": true}));
    let ended = task.outcome();
    let report = explained(&group, &ended);
    assert_eq!(report["status"]["code"], 13, "{report:#}");
    let attempts = task.view()["attempt"].as_u64().unwrap_or_default();
    assert!((2..=10).contains(&attempts), "{attempts} attempts");
    assert_eq!(ended.said(), format!("try {attempts}"), "what counts is the last attempt's");
    group.wait_ready();
    assert_eq!(group.run("text('alive')").said(), "alive");
}

// A cancel that comes while a task waits for its next runner ends it for good.
#[test]
fn cancelled_between_two_attempts() {
    let world = World::new();
    let _daemon = world.daemon();
    let mut config = world.group_config(1);
    config["restart"]["backoff_ms"] = json!(3_000);
    config["restart"]["backoff_ms_max"] = json!(3_000);
    let group = Group::up(&world.api(), "g", &config);
    let task = group.submit_with(COUNTS, &json!({"idempotent": true}));
    let (mut seen, mut events) = task.wait_said("1:24\n");
    group.signal(0, Signal::KILL);
    group.wait_member(0, "backoff");
    task.cancel();
    assert!(seen.follow(&mut events, within(PATIENCE)));
    assert_eq!(seen.ended(), "cancelled");
    group.wait_incarnation(0, 2);
    assert_eq!(task.outcome().ended(), "cancelled", "and it stays so");
    let mut late = Transcript::default();
    late.follow(&mut task.attach(None), within(PATIENCE));
    assert_eq!(late.said(), seen.said(), "who was there and who comes later see the same");
}
