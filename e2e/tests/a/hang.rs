//! A kernel that does not answer is not a dead one.

use std::fs;
use std::time::Duration;

use outlive_e2e::clock::{PATIENCE, eventually, within};
use outlive_e2e::events::Silence;
use outlive_e2e::process::{self, Signal};
use outlive_e2e::session::runtime_state;
use outlive_e2e::{Events, Session, World};
use serde_json::json;

/// The latest moment at which a kernel that stopped answering must be shown so.
const SHOWN_WITHIN: Duration = Duration::from_secs(8);

/// Reads what is there of the stream and gives the runtime's states and the events' names.
fn seen(events: &mut Events) -> (Vec<String>, Vec<String>) {
    let (mut states, mut names) = (Vec::new(), Vec::new());
    loop {
        // A comment comes four times a second on a quiet stream: what happened before stands before that.
        match events.next(within(Duration::from_secs(1))) {
            Ok(event) => {
                if event.name == "session" {
                    states.push(runtime_state(&event.data["session"]).to_owned());
                }
                names.push(event.name);
            }
            Err(Silence::TimeOver | Silence::Ended) => return (states, names),
        }
    }
}

// A4: stopped, it is shown unresponsive; continued, it is ready again and nothing is lost.
#[test]
fn stopped_and_continued() {
    let world = World::new();
    let _daemon = world.daemon();
    let session = world.kernel();
    let code = "import time\nfor i in range(300):\n    print(i, flush=True); time.sleep(0.01)";
    let run = session.submit(code);
    let queued = session.submit("print('still queued')");
    session.attach(&run, None).wait_for("output", within(PATIENCE), |event| event.name == "output");
    let pid = session.pid();
    process::signal(pid, Signal::STOP);
    let view = session
        .wait_until("unresponsive", within(SHOWN_WITHIN), |view| runtime_state(view) == "unresponsive");
    let detail = view["runtime"]["state"]["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("stopped by a signal"), "a stopped process is told from a busy one: {detail:?}");
    assert_eq!(view["runs"]["queued"], 1, "the queue is kept: {view}");

    process::signal(pid, Signal::CONT);
    session.wait_until("it answers again", within(PATIENCE), |view| {
        ["idle", "busy"].contains(&runtime_state(view))
    });
    let all: String = (0..300).map(|i| format!("{i}\n")).collect();
    let ended = session.outcome(&run, within(PATIENCE));
    assert_eq!((ended.ended(), ended.stdout()), ("succeeded", all));
    assert_eq!(session.outcome(&queued, within(PATIENCE)).stdout(), "still queued\n");
    assert!(session.reports().is_empty(), "{:#?}", session.reports());
}

// A4: with the policy `restart` it is killed, its work is settled as hung, and the next life is ready.
#[test]
fn stopped_for_good_under_the_policy_restart() {
    let world = World::new();
    let _daemon = world.daemon();
    let mut spec = world.kernel_spec();
    spec["on_hang"] = json!("restart");
    spec["restart"]["restart"] = json!("permanent");
    let session = Session::create(&world.api(), &spec);
    session.wait_runtime("idle");
    let running = session.submit("import time; time.sleep(1000)");
    session.wait_runtime("busy");
    let queued = session.submit("print('queued')");
    let hung = process::find(session.pid()).expect("it is busy");
    process::signal(hung.pid, Signal::STOP);

    for run in [running, queued] {
        let ended = session.outcome(&run, within(PATIENCE));
        assert_eq!((ended.ended(), ended.cause()), ("failed", "hung"), "{:?}", ended.outcome);
    }
    assert!(process::wait_gone(&hung, within(PATIENCE)), "left behind: {hung:?}");
    session.wait_until("the next life is ready", within(PATIENCE), |view| {
        runtime_state(view) == "idle" && view["runtime"]["incarnation"] == 2
    });
    assert_eq!(session.run("print('again')").stdout(), "again\n");
}

// A5: a cell that holds the interpreter's lock, and one that sleeps, both for longer than any heartbeat budget, are
// never reported dead.
#[test]
fn busy_in_native_code_and_asleep() {
    let world = World::new();
    let _daemon = world.daemon();
    // `sum` over a range never gives the lock away; `sleep` gives it away at once.
    let spinning = "import time\nbegan = time.monotonic()\n\
                    while time.monotonic() - began < 12: sum(range(400_000_000))\nprint('spun')";
    let sleeping = "import time; time.sleep(12); print('slept')";
    let cells = [(spinning, "spun\n"), (sleeping, "slept\n")];
    let mut started = Vec::new();
    for (code, text) in cells {
        let session = world.kernel();
        let events = session.events();
        let run = session.submit(code);
        started.push((session, events, run, text));
    }
    for (session, mut events, run, text) in started {
        let ended = session.outcome(&run, within(PATIENCE * 2));
        assert_eq!((ended.ended(), ended.stdout().as_str()), ("succeeded", text));
        // The run's end stands in the log: no death stands before it.
        let (states, names) = seen(&mut events);
        assert!(!names.iter().any(|name| name == "report"), "{names:?}");
        let allowed = ["idle", "busy", "unresponsive"];
        assert!(states.iter().all(|state| allowed.contains(&state.as_str())), "{states:?}");
        assert_eq!(session.view()["runtime"]["incarnation"], 1);
    }
}

// A16: a busy cell is interrupted.
#[test]
fn interrupt_of_a_busy_cell() {
    let world = World::new();
    let _daemon = world.daemon();
    let session = world.kernel();
    // Not flushed: the kernel's own thread sends the line later, when the cell spins for sure.
    let run = session.submit("print('spinning')\nwhile True: pass");
    session.attach(&run, None).wait_for("the cell spins", within(PATIENCE), |event| {
        event.data["chunks"].to_string().contains("spinning")
    });
    session.post("/interrupt", &json!({}));
    assert_interrupted(&session, &run);
    assert_eq!(session.run("print('alive')").stdout(), "alive\n");
}

/// Tests that overload the machine.
mod alone {
    use super::*;

    // A16: an interrupt does not wait behind a hundred megabytes of output.
    #[test]
    fn interrupt_is_not_stuck_behind_output() {
        let world = World::new();
        let _daemon = world.daemon();
        let session = world.kernel();
        let printed = world.work().join("printed");
        let run = session.submit(&format!(
            "line = 'x' * 99_999\nfor i in range(1000): print(line)\nopen({printed:?}, 'w').close()\nwhile True: pass"
        ));
        eventually("everything is printed", within(PATIENCE), || fs::metadata(&printed).ok());
        session.post("/interrupt", &json!({}));
        assert_interrupted(&session, &run);
        let bytes = session.outcome(&run, within(PATIENCE)).stdout().len();
        assert_eq!(bytes, 100_000_000, "and the output is complete");
    }
}

#[track_caller]
fn assert_interrupted(session: &Session, run: &str) {
    let ended = session.outcome(run, within(PATIENCE));
    assert_eq!(ended.ended(), "raised", "{:?}", ended.outcome);
    assert!(ended.outcome.as_ref().is_some_and(|outcome| outcome["ename"] == "KeyboardInterrupt"));
    assert!(ended.of_kind("error").count() > 0, "the traceback is shown");
}
