//! Stops: they finish, they leave nothing, and they are no crashes.

use std::time::Duration;

use outlive_e2e::clock::{PATIENCE, within};
use outlive_e2e::process;
use outlive_e2e::{Session, World, report};
use serde_json::json;

/// Starts a child that ignores TERM, holds the standard output open and, with `session`, has left the group.
fn stubborn_child(session: bool) -> String {
    let flag = if session { "True" } else { "False" };
    format!(
        "import subprocess, sys\n\
         code = 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(1000)'\n\
         child = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, start_new_session={flag})\n\
         child.stdout.readline()\n\
         holder = subprocess.Popen([sys.executable, '-c', code], stdout=sys.__stdout__, start_new_session={flag})\n\
         print(child.pid, holder.pid)"
    )
}

#[track_caller]
fn pids(text: &str) -> Vec<process::Process> {
    let pids = text.split_whitespace().map(|word| word.parse().expect("the cell printed pids"));
    pids.map(|pid| process::find(pid).expect("it was started a moment ago")).collect()
}

// A8: children that ignore TERM, in the kernel's group or not, are gone after a stop.
#[test]
fn stubborn_children_go_with_their_kernel() {
    let world = World::new();
    let _daemon = world.daemon();
    for own_session in [false, true] {
        let session = world.kernel();
        let children = pids(&session.run(&stubborn_child(own_session)).stdout());
        assert_eq!(children.len(), 2);
        session.stop();
        for child in &children {
            assert!(process::wait_gone(child, within(Duration::from_secs(10))), "left behind: {child:?}");
        }
        world.assert_nothing_supervised();
    }
}

// A8: a child that holds the kernel's output open does not delay the report of its death.
#[test]
fn a_held_pipe_does_not_delay_the_report() {
    let world = World::new();
    let _daemon = world.daemon();
    let session = world.kernel();
    let children = pids(&session.run(&stubborn_child(true)).stdout());
    let mut events = session.events();
    session.submit("import os; os._exit(5)");
    events.wait_for("the report", within(Duration::from_secs(5)), |event| event.name == "report");
    for child in &children {
        assert!(process::wait_gone(child, within(Duration::from_secs(10))), "left behind: {child:?}");
    }
}

// A9: a stop that the user asked for runs atexit handlers and is no crash.
#[test]
fn a_stop_runs_atexit_handlers_and_is_no_crash() {
    let world = World::new();
    let _daemon = world.daemon();
    let session = world.kernel();
    let left = world.work().join("left");
    let code = format!("import atexit; atexit.register(lambda: open({left:?}, 'w').write('bye'))");
    assert_eq!(session.run(&code).ended(), "succeeded");
    let view = session.stop();
    assert_ne!(view["state"], "failed", "{view}");
    assert_eq!(std::fs::read_to_string(&left).unwrap_or_default(), "bye");
    assert!(session.reports().is_empty(), "{:#?}", session.reports());
    world.assert_nothing_supervised();
}

// A9: what does not end by itself is told so harder, and each step is visible.
#[test]
fn a_stop_escalates_visibly() {
    let world = World::new();
    let _daemon = world.daemon();
    // Says when its handler stands, then ignores every wish.
    let code = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
                signal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('deaf', flush=True)\nwhile True: time.sleep(1000)";
    let python = world.python().to_string_lossy().into_owned();
    let session = Session::create(&world.api(), &world.command_spec(&[&python, "-c", code]));
    let run = session.runs()[0].clone();
    session.attach(&run, None).wait_for("it is deaf", within(PATIENCE), |event| event.name == "output");
    let mut events = session.events();
    session.post("/stop", &json!({}));
    let mut steps: Vec<String> = Vec::new();
    loop {
        let event = events.next(within(PATIENCE)).expect("the stop comes to an end");
        let state = &event.data["session"]["runtime"]["state"];
        if state["state"] == "stopping" {
            steps.push(state["step"].as_str().unwrap_or_default().to_owned());
        }
        if event.name == "session" && !event.data["session"]["closed_at"].is_null() {
            assert_eq!(event.data["session"]["state"], "stopped");
            break;
        }
    }
    steps.dedup();
    assert!(steps.ends_with(&["term".to_owned(), "kill".to_owned()]), "each step is visible: {steps:?}");
    for report in session.reports() {
        assert_eq!(report::code(&report), "killed-by-operator", "killed by us is no crash: {report:#}");
    }
    world.assert_nothing_supervised();
}
