//! A runner dies with tasks in flight: each is told once, with the cause.

use std::time::Duration;

use outlive_e2e::clock::within;
use outlive_e2e::process::{self, Signal};
use outlive_e2e::{Group, World, report};
use serde_json::{Value, json};

use crate::explained;

/// What a task says before it waits for its end.
const RUNNING: &str = "text('running'); forever()";

// A2: a signal from outside is named, to each task that was in flight.
#[test]
fn a_runner_that_is_killed_from_outside() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(1);
    for (life, (signal, name)) in
        [(Signal::KILL, "SIGKILL"), (Signal::TERM, "SIGTERM")].into_iter().enumerate()
    {
        let tasks = [group.submit(RUNNING), group.submit(RUNNING)];
        for task in &tasks {
            task.wait_said("running");
        }
        group.signal(0, signal);
        let reports = tasks.map(|task| {
            let ended = task.outcome();
            assert_eq!(ended.said(), "running");
            explained(&group, &ended)
        });
        assert_eq!(reports[0]["id"], reports[1]["id"], "one death, one report");
        if signal == Signal::KILL {
            assert_eq!(report::code(&reports[0]), "signal", "{:#}", reports[0]);
        }
        assert!(reports[0].to_string().contains(name), "{name} is named: {:#}", reports[0]);
        group.wait_incarnation(0, life as u64 + 2);
    }
    assert_eq!(group.run("text('again')").said(), "again", "the group serves on");
}

// A2: a crash in native code shows what faulthandler said.
#[test]
fn a_native_crash_shows_its_last_words() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(1);
    let crashes =
        [("faulthandler._sigsegv()", "SIGSEGV", "Segmentation fault"), ("os.abort()", "SIGABRT", "Aborted")];
    for (code, signal, words) in crashes {
        let report = explained(&group, &group.run(code));
        assert_eq!(report::code(&report), "native-crash", "{report:#}");
        assert!(report.to_string().contains(signal), "{signal} is named: {report:#}");
        assert!(report::evidence(&report).contains(words), "{words:?} is shown: {report:#}");
    }
}

// A3: a memory limit that is hit is said to be one, with its figures.
#[test]
fn a_runner_over_its_memory_limit() {
    let world = World::new();
    let _daemon = world.daemon();
    let mut config = world.group_config(1);
    config["members"][0]["launch"]["memory_bytes_max"] = json!(256 << 20);
    let group = Group::up(&world.api(), "g", &config);
    // Where the limit makes an allocation fail instead, the runner ends for it.
    let ended = group.run(
        "hoard = []\ntry:\n    while True: hoard.append(bytearray(10_000_000))\n\
         except MemoryError as error:\n    hoard.clear(); last_words(error); os._exit(1)",
    );
    let report = explained(&group, &ended);
    assert_eq!(report::code(&report), "out-of-memory", "{report:#}");
    assert!(report::summary(&report).contains("256"), "the limit is told: {}", report::summary(&report));
}

// A6: a runner is killed, a restart is asked for and its shim is killed, all at once: one report, one end of each task,
// and the next life is left alone.
#[test]
fn many_detectors_of_one_death() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(1);
    for round in 1..=3 {
        let (running, queued) = (group.submit(RUNNING), group.submit("text('second')"));
        running.wait_said("running");
        let runner = group.process(0);
        process::signal(runner.pid, Signal::KILL);
        group.wish("restart", None);
        process::signal(runner.parent, Signal::KILL);
        // The transcript checks that each ends once.
        assert_ne!(running.outcome().ended(), "succeeded");
        assert!(!queued.outcome().ended().is_empty());
        group.wait_incarnation(0, round + 1);
        assert_eq!(group.run("text('new')").said(), "new", "the next life works");
        let incarnation = |report: &Value| report["process"]["incarnation"].clone();
        let mut dead: Vec<Value> = group.reports().iter().map(incarnation).collect();
        let all = dead.len();
        dead.dedup();
        assert_eq!(dead.len(), all, "a death with two reports: {:#?}", group.reports());
    }
}

// A10: exit code 0 in mid-task is a failure of that task, and said so.
#[test]
fn exit_code_0_in_mid_task() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(1);
    let ended = group.run("text('half'); os._exit(0)");
    assert_eq!(ended.said(), "half");
    let report = explained(&group, &ended);
    assert_eq!(report::code(&report), "exit-code", "{report:#}");
    assert_eq!(report["status"], json!({"kind": "code", "code": 0}));
    assert!(report::summary(&report).contains('0'), "{}", report::summary(&report));
}

// A10: it says `end` and exits with 0, and has a task: the same.
#[test]
fn a_polite_exit_in_mid_task() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(1);
    let ended = group.run("text('half'); send('end'); os._exit(0)");
    assert_eq!(ended.said(), "half");
    assert_eq!(report::code(&explained(&group, &ended)), "exit-code");
}

// A15: without its shim a runner is not left alone, its tasks are told what happened, and it is started again.
#[test]
fn the_shim_is_killed() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(2);
    let started = group.run(
        "import subprocess\n\
         child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])\n\
         text(f'{child.pid} {os.getpid()}')",
    );
    let pids = started.said();
    let mut pids = pids.split(' ').map(|pid| pid.parse::<i32>().expect("the task said pids"));
    let child = process::find(pids.next().expect("the first")).expect("it was started a moment ago");
    let runner = process::find(pids.next().expect("the second")).expect("it lives");
    let place = usize::from(group.process(1).pid == runner.pid);
    let other = group.process(1 - place);
    // One for each: the least loaded first.
    let tasks = [group.submit(RUNNING), group.submit(RUNNING)];
    for task in &tasks {
        task.wait_said("running");
    }
    process::signal(runner.parent, Signal::KILL);
    let view = group.wait_incarnation(place, 2);
    assert_eq!(view["last_report"]["code"], "shim-lost", "{view}");
    for left in [&runner, &child] {
        assert!(process::wait_gone(left, within(Duration::from_secs(10))), "left behind: {left:?}");
    }
    let ended: Vec<_> = tasks.iter().filter(|task| task.view()["state"]["state"] == "ended").collect();
    assert_eq!(ended.len(), 1, "the other member's task goes on");
    assert_eq!(report::code(&explained(&group, &ended[0].outcome())), "shim-lost");
    assert_eq!(group.process(1 - place).pid, other.pid, "the other member is left alone");
    assert_eq!(group.run("text('again')").said(), "again");
}
