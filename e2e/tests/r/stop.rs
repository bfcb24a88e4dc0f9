//! Stops: they finish, they leave nothing, and they are no crashes.

use std::time::Duration;

use outlive_e2e::clock::{PATIENCE, within};
use outlive_e2e::process::{self, Process};
use outlive_e2e::runners::{member, member_state};
use outlive_e2e::{Group, World, report};
use serde_json::json;

/// Starts children that ignore TERM; the second holds all of the runner's descriptors open, those of the channel too.
const STUBBORN: &str = "import subprocess\n\
    code = 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(1000)'\n\
    own = task.input['own_session']\n\
    child = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, start_new_session=own)\n\
    child.stdout.readline()\n\
    holder = subprocess.Popen([sys.executable, '-c', code], start_new_session=own, close_fds=False)\n\
    text(f'{child.pid} {holder.pid}')";

#[track_caller]
fn stubborn_children(group: &Group, own_session: bool) -> Vec<Process> {
    let input = json!({"input": {"code": STUBBORN, "own_session": own_session}});
    let said = group.submit_with("", &input).outcome().said();
    let pids = said.split_whitespace().map(|word| word.parse().expect("the task said pids"));
    pids.map(|pid| process::find(pid).expect("it was started a moment ago")).collect()
}

#[track_caller]
fn all_gone(children: &[Process]) {
    assert_eq!(children.len(), 2);
    for child in children {
        assert!(process::wait_gone(child, within(Duration::from_secs(10))), "left behind: {child:?}");
    }
}

// A8: children that ignore TERM, in the runner's process group or not, are gone after a stop.
#[test]
fn stubborn_children_go_with_their_runner() {
    let world = World::new();
    let _daemon = world.daemon();
    for own_session in [false, true] {
        let group = world.runners(1);
        let children = stubborn_children(&group, own_session);
        group.down();
        all_gone(&children);
        world.assert_nothing_supervised();
    }
}

// A8: a child that holds the channel and the output open delays neither the report nor the task's end.
#[test]
fn held_pipes_do_not_delay_the_report() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(1);
    let children = stubborn_children(&group, true);
    let mut events = group.session().events();
    let task = group.submit("text('last'); os._exit(5)");
    events.wait_for("the report", within(Duration::from_secs(5)), |event| event.name == "report");
    let ended = task.outcome_by(within(Duration::from_secs(5)));
    assert_eq!((ended.cause(), ended.said().as_str()), ("exit-code", "last"));
    all_gone(&children);
}

// A9: a stop of one member that somebody asked for lets it end by itself and is no crash; its task is cancelled.
#[test]
fn a_stop_runs_atexit_handlers_and_is_no_crash() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(2);
    let left = world.work().join("left");
    let code = format!(
        "import atexit; atexit.register(lambda: open({left:?}, 'w').write('bye'))\ntext(os.getpid())"
    );
    let pid = group.run(&code.replace("os.getpid()", "str(os.getpid())")).said();
    let place = (0..2).find(|place| group.process(*place).pid.to_string() == pid).expect("one of them");
    let name = format!("m-{place}");
    group.wish("stop", Some(&name));
    group.wait_until("it is down", within(PATIENCE), |view| {
        ["exited", "down"].contains(&member_state(member(view, place)))
    });
    assert_eq!(std::fs::read_to_string(&left).unwrap_or_default(), "bye");
    assert!(group.reports().is_empty(), "{:#?}", group.reports());
    assert_eq!(group.run("text('served')").said(), "served", "by the other one");
    group.wish("start", Some(&name));
    group.wait_incarnation(place, 2);
    group.down();
    assert!(group.reports().is_empty(), "{:#?}", group.reports());
    world.assert_nothing_supervised();
}

// A9: what does not end by itself is told so harder, each step is visible, and nobody calls it a crash.
#[test]
fn a_stop_escalates_visibly() {
    let world = World::new();
    let _daemon = world.daemon();
    let deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nhears.discard('shutdown')\nhello(); ready()";
    let group = Group::up(&world.api(), "g", &world.group_of(vec![world.raw_member("m-0", deaf)]));
    group.wait_ready();
    let task = group.submit("text('running'); time.sleep(1000)");
    task.wait_said("running");
    let mut events = group.session().events();
    world.api().delete(&group.path(""));
    let mut steps: Vec<String> = Vec::new();
    events.wait_for("the end", within(PATIENCE), |event| {
        let view = &event.data["session"];
        let state = &view["group"]["members"][0]["runtime"]["state"];
        if state["state"] == "stopping" {
            steps.push(state["step"].as_str().unwrap_or_default().to_owned());
        }
        event.name == "session" && !view["closed_at"].is_null()
    });
    steps.dedup();
    assert_eq!(steps, ["ask", "term", "kill"], "each step is visible");
    let ended = group.session().outcome(&task.id, within(PATIENCE));
    assert_eq!(ended.ended(), "cancelled", "{:?}", ended.outcome);
    for report in group.reports() {
        assert_eq!(report::code(&report), "killed-by-operator", "killed by us is no crash: {report:#}");
    }
    world.assert_nothing_supervised();
}

// A9: a restart that somebody asked for is no crash; an idempotent task is done by the next life, another is cancelled.
#[test]
fn a_restart_that_was_asked_for() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(1);
    let code = "text(f'attempt {task.attempt}')\nif task.attempt == 1: forever()";
    let (plain, again) = (group.submit(code), group.submit_with(code, &json!({"idempotent": true})));
    for task in [&plain, &again] {
        task.wait_said("attempt 1");
    }
    group.wish("restart", None);
    assert_eq!(plain.outcome().ended(), "cancelled");
    let ended = again.outcome();
    assert_eq!((ended.ended(), ended.said().as_str()), ("succeeded", "attempt 2"));
    let reports = group.reports();
    assert!(reports.len() <= 1, "{reports:#?}");
    for report in &reports {
        assert_eq!(report::code(report), "killed-by-operator", "a wish is no crash: {report:#}");
    }
}
