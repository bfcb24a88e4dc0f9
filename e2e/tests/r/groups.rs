//! What the death of one member means for the others, and when a group gives up.

use std::fs;
use std::path::Path;
use std::time::Duration;

use outlive_e2e::clock::{PATIENCE, within};
use outlive_e2e::process::Signal;
use outlive_e2e::runners::{is_ready, member, member_state, members};
use outlive_e2e::{Group, World, process, report};
use serde_json::{Value, json};

use crate::explained;

/// Members that first look whether an earlier process of their name is still there, and say so in a file.
fn careful_members(world: &World, count: usize, pids: &Path, then: &str) -> Vec<Value> {
    let start = format!(
        "me, now = os.environ['OUTLIVE_RUNNER_NAME'], str(os.getpid())\n\
         for name in os.listdir({pids:?}):\n    \
             if name.startswith(me + '.') and os.path.exists('/proc/' + name.split('.')[1]): open({pids:?} + '/overlap', 'a').write(me)\n\
         open(f'{}/{{me}}.{{now}}', 'w').close()\n{then}\nhello(); ready()",
        pids.display()
    );
    (0..count).map(|n| world.raw_member(&format!("m-{n}"), &start)).collect()
}

/// Checks that no process of a member was started before the one before it was reaped.
#[track_caller]
fn nobody_met_its_predecessor(pids: &Path) {
    let met = fs::read_to_string(pids.join("overlap")).unwrap_or_default();
    assert_eq!(met, "", "started while its predecessor was there");
}

/// The reports of a group's members, by their last.
fn last_reports(group: &Group, view: &Value) -> Vec<Value> {
    let reports = group.reports();
    let of = |member: &Value| {
        let id = &member["last_report"]["id"];
        reports
            .iter()
            .find(|report| &report["id"] == id)
            .cloned()
            .unwrap_or_else(|| panic!("no report: {member}"))
    };
    members(view).iter().map(of).collect()
}

// A2: one for one: only the one that died is started again, and nobody else notices.
#[test]
fn one_for_one() {
    let world = World::new();
    let _daemon = world.daemon();
    let pids = world.work().join("pids");
    fs::create_dir(&pids).unwrap();
    let group = Group::up(&world.api(), "g", &world.group_of(careful_members(&world, 3, &pids, "")));
    group.wait_ready();
    let before: Vec<i32> = (0..3).map(|place| group.process(place).pid).collect();
    let tasks: Vec<_> =
        (0..3).map(|_| group.submit("text(os.environ['OUTLIVE_RUNNER_NAME']); forever()")).collect();
    for task in &tasks {
        task.wait_said("m-");
    }
    group.signal(1, Signal::KILL);
    group.wait_incarnation(1, 2);
    for (place, pid) in before.into_iter().enumerate().filter(|(place, _)| *place != 1) {
        assert_eq!(group.process(place).pid, pid, "member {place} is left alone");
    }
    for task in &tasks {
        let view = task.view();
        if view["task"]["member"] == "m-1" {
            assert_eq!(report::code(&explained(&group, &task.outcome())), "signal");
        } else {
            assert_eq!(view["state"]["state"], "running", "{view}");
        }
    }
    assert_eq!(group.reports().len(), 1, "{:#?}", group.reports());
    nobody_met_its_predecessor(&pids);
}

// A2, A8: one for all: when a rank dies, the others are stopped and told whose death it was; all are started again together,
// not before the last of them is gone.
#[test]
fn one_for_all() {
    let world = World::new();
    let _daemon = world.daemon();
    let pids = world.work().join("pids");
    fs::create_dir(&pids).unwrap();
    // Rank 2 takes its time to end, and says when it has.
    let slow = format!(
        "import signal\nend, begun = {:?}, {:?}\n\
         def leave(*_):\n    time.sleep(1.5); open(end, 'a').write(f'{{time.time()}}\\n'); os._exit(0)\n\
         if me == 'm-2': signal.signal(signal.SIGTERM, leave); hears.discard('shutdown')\n\
         open(begun, 'a').write(f'{{time.time()}}\\n')",
        world.work().join("end"),
        world.work().join("begun"),
    );
    let mut config = world.group_of(careful_members(&world, 3, &pids, &slow));
    config["strategy"] = json!("one_for_all");
    let group = Group::up(&world.api(), "g", &config);
    group.wait_ready();
    let before: Vec<_> = (0..3).map(|place| group.process(place)).collect();
    let tasks: Vec<_> =
        (0..3).map(|_| group.submit("text(os.environ['OUTLIVE_RUNNER_NAME']); forever()")).collect();
    for task in &tasks {
        task.wait_said("m-");
    }
    group.signal(1, Signal::KILL);
    let view = group.wait_until("all are up again", within(PATIENCE), |view| {
        members(view).iter().all(|member| is_ready(member) && member["runtime"]["incarnation"] == 2)
    });
    for process in &before {
        assert!(process::wait_gone(process, within(Duration::ZERO)), "still there: {process:?}");
    }
    let time = |file: &str| -> Vec<f64> {
        let text = fs::read_to_string(world.work().join(file)).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    };
    let (ends, begins) = (time("end"), time("begun"));
    assert_eq!((ends.len(), begins.len()), (1, 6), "{ends:?} {begins:?}");
    assert!(
        begins[3..].iter().all(|begin| *begin > ends[0]),
        "together, after the last end: {ends:?} {begins:?}"
    );
    nobody_met_its_predecessor(&pids);

    let reports = last_reports(&group, &view);
    assert_eq!(report::code(&reports[1]), "signal", "{:#}", reports[1]);
    for place in [0, 2] {
        let report = &reports[place];
        assert_eq!(report::code(report), "group-sibling", "{report:#}");
        let name = report["evidence"]["sibling"]["name"].as_str().unwrap_or_default();
        assert!(name.starts_with("m-1 (pid "), "{report:#}");
        assert_eq!(report["evidence"]["sibling"]["cause"], "signal", "{report:#}");
        assert!(report::summary(report).contains("m-1"), "{report:#}");
    }
    for task in &tasks {
        let report = explained(&group, &task.outcome());
        let expected = if task.view()["task"]["member"] == "m-1" { "signal" } else { "group-sibling" };
        assert_eq!(report::code(&report), expected, "{report:#}");
    }
    assert_eq!(group.reports().len(), 3, "{:#?}", group.reports());
    assert_eq!(group.run("text('again')").said(), "again");
}

// A6: all ranks die at once: each death is reported once, and they are started again once.
#[test]
fn all_ranks_die_at_once() {
    let world = World::new();
    let _daemon = world.daemon();
    let mut config = world.group_config(4);
    config["strategy"] = json!("one_for_all");
    let group = Group::up(&world.api(), "g", &config);
    group.wait_ready();
    for round in 2..=3_u64 {
        let pids: Vec<i32> = (0..4).map(|place| group.process(place).pid).collect();
        pids.into_iter().for_each(|pid| process::signal(pid, Signal::KILL));
        group.wait_until("all are up again", within(PATIENCE), |view| {
            members(view).iter().all(|member| is_ready(member) && member["runtime"]["incarnation"] == round)
        });
        assert_eq!(group.run("text('again')").said(), "again");
    }
    let mut seen: Vec<String> = group.reports().iter().map(|report| report["process"].to_string()).collect();
    let all = seen.len();
    assert!((2..=8).contains(&all), "{:#?}", group.reports());
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), all, "a death with two reports: {:#?}", group.reports());
}

/// A group of one that ends with exit code 3 right after it said hello.
fn crashing(world: &World) -> Group {
    let start = "hello(); os.write(2, b'the flux is misaligned\\n'); os._exit(3)";
    let mut config = world.group_of(vec![world.raw_member("m-0", start)]);
    config["restart"]["backoff_ms"] = json!(100);
    Group::up(&world.api(), "g", &config)
}

// A14: a crash loop: ever longer waits, then it gives up and says why; what waited ends at once with that reason, and
// so does what comes later.
#[test]
fn a_crash_loop() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = crashing(&world);
    let mut events = group.session().events();
    let task = group.submit("text('never')");
    let mut waits: Vec<u64> = Vec::new();
    let view = events.wait_for("it gives up", within(PATIENCE), |event| {
        let view = &event.data["session"];
        let state = &view["group"]["members"][0]["runtime"]["state"];
        waits.extend(state["after_ms"].as_u64());
        event.name == "session" && state["state"] == "gave_up"
    });
    waits.dedup();
    assert_eq!(waits, [100, 200, 400]);
    let state = &view.data["session"]["group"]["members"][0]["runtime"]["state"];
    let reason = state["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.contains('3'), "the reason has figures: {reason}");
    let ended = task.outcome_by(within(Duration::from_secs(5)));
    assert_eq!(ended.ended(), "unserved", "{:?}", ended.outcome);
    let told = ended.outcome.expect("it ended")["reason"].to_string();
    let refused = group.submit_refused("text('never')", &json!({}));
    for text in [told, refused["detail"].to_string()] {
        assert!(text.contains("m-0") || text.contains("gave up") || text.contains("exit code 3"), "{text}");
    }
    assert_eq!(group.reports().len(), 4, "each death has its report: {:#?}", group.reports());
    assert_eq!(group.member(0)["runtime"]["incarnation"], 4);

    // By hand it is started again, and the count begins anew.
    group.wish("start", None);
    group.wait_until("it gives up again", within(PATIENCE), |view| {
        let member = member(view, 0);
        member_state(member) == "gave_up" && member["runtime"]["incarnation"] == 8
    });
}

// A14: so long up, and the count begins anew.
#[test]
fn healthy_time_resets_the_count() {
    let world = World::new();
    let _daemon = world.daemon();
    let mut config = world.group_config(1);
    config["restart"]["restarts_max"] = json!(1);
    config["restart"]["period_ms"] = json!(1_000);
    let group = Group::up(&world.api(), "g", &config);
    for life in 2..=4 {
        let ended = group.run("pause(1.2); os._exit(3)");
        assert_eq!(ended.ended(), "failed");
        group.wait_incarnation(0, life);
    }
    assert_eq!(group.run("os._exit(3)").ended(), "failed");
    group.wait_member(0, "gave_up");
}

// A14: one for all counts for the group: two ranks that die in turn use up one count.
#[test]
fn the_intensity_of_a_group() {
    let world = World::new();
    let _daemon = world.daemon();
    let mut config = world.group_config(2);
    config["strategy"] = json!("one_for_all");
    config["restart"]["restarts_max"] = json!(2);
    let group = Group::up(&world.api(), "g", &config);
    for round in 1..=2_u64 {
        group.wait_incarnation(0, round);
        group.wait_incarnation(1, round);
        group.signal(usize::from(round == 2), Signal::KILL);
    }
    group.wait_incarnation(0, 3);
    group.wait_incarnation(1, 3);
    let waiting = group.submit("text('running'); forever()");
    waiting.wait_said("running");
    group.signal(0, Signal::KILL);
    group.wait_until("both have given up", within(PATIENCE), |view| {
        members(view).iter().all(|member| member_state(member) == "gave_up")
    });
    assert_eq!(waiting.outcome().ended(), "failed");
    let refused = group.submit_refused("", &json!({}));
    assert!(!refused["detail"].to_string().is_empty(), "{refused}");
}

// With `transient` a clean end is an end; with tasks in flight it is not clean.
#[test]
fn transient() {
    let world = World::new();
    let _daemon = world.daemon();
    let mut config = world.group_config(1);
    config["restart"]["restart"] = json!("transient");
    let group = Group::up(&world.api(), "g", &config);
    group.wait_ready();
    let ended = group.run("text('a'); os._exit(0)");
    assert_eq!((ended.ended(), ended.cause()), ("failed", "exit-code"));
    // Its end is due only after the task's: nothing of it is in flight then.
    let group_again = group.run("threading.Timer(0.5, os._exit, [0]).start(); text('b')");
    assert_eq!(group_again.ended(), "succeeded", "{:?}", group_again.outcome);
    group.wait_member(0, "exited");
    assert_eq!(group.reports().len(), 1, "{:#?}", group.reports());
}
