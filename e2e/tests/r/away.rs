//! The daemon is killed, and comes back: runners and their tasks do not notice.

use std::fs;
use std::path::Path;
use std::time::Duration;

use outlive_e2e::clock::{PATIENCE, eventually, within};
use outlive_e2e::process::{self, Signal};
use outlive_e2e::{Transcript, World, report};
use serde_json::json;

use crate::explained;

/// How often a task has said something, by its own account.
fn sent(side: &Path) -> u64 {
    let files = fs::read_dir(side).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|file| file.len() / 2).sum()
}

fn numbers(n: u32) -> String {
    (0..n).map(|i| format!("1:{i}\n")).collect()
}

// D1: SIGKILL in mid-task with three runners: the tasks go on; all output is there once, also what was said meanwhile;
// what is queued is served afterwards.
#[test]
fn killed_in_mid_task_with_three_runners() {
    const CHUNKS: u32 = 2_000;
    let world = World::new();
    let mut daemon = world.daemon();
    let start = "hello(concurrency=1); ready()\nmemory = 'of this process'";
    let members = (0..3).map(|n| world.raw_member(&format!("m-{n}"), start)).collect();
    let group = outlive_e2e::Group::up(&world.api(), "g", &world.group_of(members));
    group.wait_ready();
    let pids: Vec<i32> = (0..3).map(|place| group.process(place).pid).collect();
    let mut watched = Vec::new();
    for nth in 0..3 {
        let side = world.work().join(format!("side-{nth}"));
        fs::create_dir(&side).unwrap();
        let task = group.submit(&format!("count(task, {CHUNKS}, 0.004, {side:?})"));
        let events = task.attach(None);
        watched.push((task, events, Transcript::default(), side));
    }
    let queued = group.submit("text(memory)");
    for cut in 1..=2 {
        for (_, events, seen, _) in &mut watched {
            while seen.chunks.len() < cut * 30 {
                assert!(!seen.push(&events.next(within(PATIENCE)).expect("the task goes on")));
            }
        }
        daemon.kill();
        for (.., side) in &watched {
            let before = sent(side);
            eventually("the task goes on", within(PATIENCE), || (sent(side) > before + 20).then_some(()));
        }
        daemon = world.daemon();
        for (task, events, seen, _) in &mut watched {
            *events = task.attach(seen.cursor.as_deref());
        }
    }
    for (task, mut events, mut seen, _) in watched {
        assert!(seen.follow(&mut events, within(PATIENCE)), "the stream ended before the task");
        assert_eq!((seen.ended(), seen.said()), ("succeeded", numbers(CHUNKS)));
        assert_eq!(seen.of_kind("gap").count(), 0, "nothing is said to be lost");
        assert_eq!(task.outcome().said(), numbers(CHUNKS), "and for a newcomer");
    }
    assert_eq!(queued.outcome().said(), "of this process");
    assert_eq!((0..3).map(|place| group.process(place).pid).collect::<Vec<_>>(), pids, "the same processes");
    assert!(group.reports().is_empty(), "{:#?}", group.reports());
    group.down();
    world.assert_nothing_supervised();
    drop(daemon);
}

// D1: while a runner loads, and while one is queued behind it: both go on with the next daemon.
#[test]
fn killed_while_a_runner_loads() {
    let world = World::new();
    let daemon = world.daemon();
    let gate = world.work().join("gate");
    let start = format!(
        "hello(); state('loading', done=1, total=2)\nwhile not os.path.exists({gate:?}): time.sleep(0.01)\nready()"
    );
    let group =
        outlive_e2e::Group::up(&world.api(), "g", &world.group_of(vec![world.raw_member("m-0", &start)]));
    let task = group.submit("text('served')");
    group.wait_until("it loads", within(PATIENCE), |view| view["group"]["members"][0]["phase"] == "loading");
    let pid = group.process(0).pid;
    daemon.kill();
    let _daemon = world.daemon();
    assert_eq!(group.member(0)["phase"], "loading");
    fs::write(&gate, "").unwrap();
    assert_eq!(task.outcome().said(), "served");
    assert_eq!(group.process(0).pid, pid);
}

// D3: runners die while the daemon is away, one in a task, one in a task that may be begun again: the reports are there
// afterwards, and each task goes its way.
#[test]
fn deaths_while_the_daemon_is_away() {
    let world = World::new();
    let daemon = world.daemon();
    let group = world.runners(2);
    let gate = world.work().join("gate");
    let code = format!(
        "if task.attempt > 1:\n    text('again')\nelse:\n    text('before')\n    \
         while not os.path.exists({gate:?}): time.sleep(0.01)\n    text('last'); os.write(2, b'these are my last words\\n'); os._exit(9)"
    );
    let plain = group.submit(&code);
    plain.wait_said("before");
    let again = group.submit_with(&code, &json!({"idempotent": true}));
    again.wait_said("before");
    let runners = [group.process(0), group.process(1)];
    daemon.kill();
    fs::write(&gate, "").unwrap();
    for runner in &runners {
        assert!(process::wait_gone(runner, within(PATIENCE)), "it dies by itself");
    }
    let _daemon = world.daemon();
    let ended = plain.outcome();
    assert_eq!(ended.said(), "beforelast");
    let report = explained(&group, &ended);
    assert_eq!(report::code(&report), "exit-code");
    assert_eq!(report["status"]["code"], 9);
    assert!(report.to_string().contains("these are my last words"), "{report:#}");
    let ended = again.outcome();
    assert_eq!((ended.ended(), ended.said().as_str()), ("succeeded", "again"));
    assert_eq!(group.reports().len(), 2, "{:#?}", group.reports());
}

// D3: daemon and shim are both killed while a task runs: the runner does not live on unsupervised, and is reported.
#[test]
fn daemon_and_shim_are_both_killed() {
    let world = World::new();
    let daemon = world.daemon();
    let group = world.runners(1);
    let task = group.submit("text('running'); forever()");
    task.wait_said("running");
    let runner = group.process(0);
    daemon.kill();
    process::signal(runner.parent, Signal::KILL);
    let _daemon = world.daemon();
    assert_eq!(report::code(&explained(&group, &task.outcome())), "shim-lost");
    assert!(process::wait_gone(&runner, within(PATIENCE)), "left behind: {runner:?}");
    group.wait_incarnation(0, 2);
}

// D4: a task says more than memory and spool hold while no daemon is there: it waits, and nothing is lost.
#[test]
fn a_task_waits_while_nobody_takes_its_output() {
    const CHUNKS: u64 = 500;
    const CHUNK: usize = 20_000;
    let mut world = World::new();
    world.set("OUTLIVE_SHIM_MEMORY_BYTES", "1000000");
    world.set("OUTLIVE_SPOOL_BYTES", "1000000");
    let daemon = world.daemon();
    let group = world.runners(1);
    let side = world.work().join("side");
    fs::create_dir(&side).unwrap();
    let task = group.submit(&format!(
        "text('begins')\nfile = os.open({:?}, os.O_CREAT | os.O_WRONLY)\nfor i in range({CHUNKS}):\n    \
         text(f'{{i}} ' + 'x' * {CHUNK}); os.write(file, b'ba')\n    pause(0.001)",
        side.join("sent")
    ));
    task.wait_said("begins");
    daemon.kill();
    let (mut seen, mut since) = (sent(&side), outlive_e2e::clock::now());
    let waits = eventually("the task waits", within(PATIENCE), || {
        let now = sent(&side);
        if now != seen {
            (seen, since) = (now, outlive_e2e::clock::now());
        }
        (outlive_e2e::clock::now() - since > Duration::from_secs(1)).then_some(seen)
    });
    assert!(waits < CHUNKS, "ten megabytes do not fit into two");
    let _daemon = world.daemon();
    let ended = task.outcome();
    let said = ended.said();
    let said: Vec<&str> = said.trim_start_matches("begins").split(' ').collect();
    assert_eq!(ended.ended(), "succeeded", "{:?}", ended.outcome);
    assert_eq!(said.len() as u64, CHUNKS + 1);
    assert_eq!(said[0], "0");
    for (place, piece) in said.iter().enumerate().skip(1).take(usize::try_from(CHUNKS).expect("few") - 1) {
        let number = piece.trim_start_matches('x');
        assert_eq!((number, piece.len() - number.len()), (place.to_string().as_str(), CHUNK));
    }
    assert_eq!(ended.of_kind("gap").count(), 0, "a runner can be made to wait: nothing is lost");
}

// D2: the daemon is asked to end and to leave runners running: the next one has them, and their tasks.
#[test]
fn ended_and_runners_kept() {
    let world = World::new();
    let daemon = world.daemon();
    let group = world.runners(2);
    let task = group.submit("count(task, 300, 0.01)");
    let (mut seen, _) = task.wait_said("1:10\n");
    let pids = [group.process(0).pid, group.process(1).pid];
    world.api().post("/v1/node/stop", &json!({"keep_runtimes": true}));
    daemon.ended();
    let _daemon = world.daemon();
    assert!(seen.follow(&mut task.attach(seen.cursor.clone().as_deref()), within(PATIENCE)));
    assert_eq!((seen.ended(), seen.said()), ("succeeded", numbers(300)));
    assert_eq!([group.process(0).pid, group.process(1).pid], pids);
    assert_eq!(group.run("text('alive')").said(), "alive");
}

// A9: the daemon is asked to end with all that it has: runners are asked to end, tasks are cancelled, nothing is left, and
// nobody calls it a crash.
#[test]
fn ended_with_its_runners() {
    let world = World::new();
    let daemon = world.daemon();
    let group = world.runners(2);
    let (running, again) = (
        group.submit("text('running'); forever()"),
        group.submit_with("text('running'); forever()", &json!({"idempotent": true})),
    );
    running.wait_said("running");
    again.wait_said("running");
    world.api().post("/v1/node/stop", &json!({"keep_runtimes": false}));
    daemon.ended();
    world.assert_nothing_left();

    let _daemon = world.daemon();
    assert_eq!(world.api().get("/v1/runners"), json!([]), "it was ended, not left");
    for task in [&running, &again] {
        let ended = group.session().outcome(&task.id, within(PATIENCE));
        assert_eq!((ended.ended(), ended.said().as_str()), ("cancelled", "running"));
    }
    for report in group.reports() {
        assert_eq!(report::code(&report), "killed-by-operator", "{report:#}");
    }
}
