//! A kernel dies in mid-work: everybody is told once, with the cause, and all work is settled.

use std::time::Duration;

use outlive_e2e::clock::{PATIENCE, within};
use outlive_e2e::process::{self, Signal};
use outlive_e2e::session::runtime_state;
use outlive_e2e::{Session, World, notebook, report};
use serde_json::{Value, json};

/// Every word that a client may be shown for a runtime.
const STATES: [&str; 9] =
    ["down", "launching", "idle", "busy", "unresponsive", "stopping", "exited", "backoff", "gave_up"];

/// The first report that a session shows.
#[track_caller]
fn first_report(session: &Session) -> Value {
    session.events().wait_for("a view with a report", within(PATIENCE), |event| {
        event.name == "report" || !event.data["session"]["last_report"].is_null()
    });
    session.reports().first().cloned().expect("the view names a report")
}

// A1: every peer is told, the cause is the exit code, what was queued is settled, and a restart works.
#[test]
fn a_cell_that_exits() {
    let world = World::new();
    let _daemon = world.daemon();
    let session = world.kernel();
    let mut peers = [session.events(), session.events()];
    let dying = session.submit("import os; os._exit(1)");
    let queued = [session.submit("print('never')"), session.submit("print('never either')")];

    for peer in &mut peers {
        let mut dead = false;
        peer.wait_for("the news that all work is settled", within(PATIENCE), |event| {
            let state = runtime_state(&event.data["session"]);
            assert!(event.name != "session" || STATES.contains(&state), "{state:?} is no state");
            event.name == "report"
        });
        // From here on the state may never say that the kernel is there.
        peer.wait_for("a view without work", within(PATIENCE), |event| {
            let view = &event.data["session"];
            dead |= ["exited", "gave_up"].contains(&runtime_state(view));
            assert_ne!(runtime_state(view), "idle", "dead is never idle: {view}");
            dead && view["runs"]["queued"] == 0 && view["runs"]["running"] == 0
        });
    }

    let ended = session.outcome(&dying, within(PATIENCE));
    assert_eq!((ended.ended(), ended.cause()), ("failed", "exit-code"));
    for run in &queued {
        let ended = session.outcome(run, within(PATIENCE));
        assert!(
            ["failed", "cancelled"].contains(&ended.ended()),
            "queued work is settled: {:?}",
            ended.outcome
        );
        assert_eq!(ended.stdout(), "");
    }
    let reports = session.reports();
    assert_eq!(reports.len(), 1, "{reports:#?}");
    assert_eq!(report::code(&reports[0]), "exit-code");
    assert_eq!(reports[0]["status"], json!({"kind": "code", "code": 1}));
    assert!(
        reports[0]["interrupted"].as_array().is_some_and(|runs| runs.contains(&json!(dying))),
        "{}",
        reports[0]
    );

    session.post("/restart", &json!({}));
    session.wait_runtime("idle");
    assert_eq!(session.run("print(6 * 7)").stdout(), "42\n");
}

// A1: the same for a notebook on the command line: the exit code, the words, and the cell in the file.
#[test]
fn a_cell_that_exits_under_the_command_line() {
    let world = World::new();
    let path = world.notebook("dies.ipynb", &["print('before')", "import os; os._exit(1)", "print('never')"]);
    let finished = world.run(&["run", &path.to_string_lossy()]);
    finished.assert_code(3);
    assert!(finished.stderr.contains("exit code 1"), "the cause is told: {finished}");
    let saved = notebook::read(&path);
    assert_eq!(notebook::stream(&saved, 0, "stdout"), "before\n");
    assert!(!notebook::errors(&saved, 1).is_empty(), "the cell shows what happened: {saved:#}");
    assert_eq!(notebook::stream(&saved, 2, "stdout"), "");
}

// A2: a signal from outside is named.
#[test]
fn a_kernel_that_is_killed_from_outside() {
    let world = World::new();
    let _daemon = world.daemon();
    for (signal, name) in [(Signal::KILL, "SIGKILL"), (Signal::TERM, "SIGTERM")] {
        let session = world.kernel();
        let run = session.submit("import time; print('running', flush=True); time.sleep(1000)");
        session.attach(&run, None).wait_for("output", within(PATIENCE), |event| event.name == "output");
        process::signal(session.pid(), signal);
        let ended = session.outcome(&run, within(PATIENCE));
        assert_eq!(ended.ended(), "failed");
        let report = first_report(&session);
        if signal == Signal::KILL {
            assert_eq!(report::code(&report), "signal", "{report:#}");
        }
        assert!(report.to_string().contains(name), "{name} is named: {report:#}");
        session.stop();
    }
}

// A2: a crash in native code shows what faulthandler or abort said.
#[test]
fn a_native_crash_shows_its_last_words() {
    let world = World::new();
    let _daemon = world.daemon();
    let crashes = [
        ("import faulthandler; faulthandler._sigsegv()", "SIGSEGV", "Segmentation fault"),
        ("import os; os.abort()", "SIGABRT", "Aborted"),
    ];
    for (code, signal, words) in crashes {
        let session = world.kernel();
        let ended = session.run(code);
        assert_eq!(ended.ended(), "failed");
        let report = first_report(&session);
        assert_eq!(report::code(&report), "native-crash", "{report:#}");
        assert!(report.to_string().contains(signal), "{signal} is named: {report:#}");
        assert!(report::evidence(&report).contains(words), "{words:?} is shown: {report:#}");
        session.stop();
    }
}

// A3: a memory limit that is hit is said to be one, with its figures.
#[test]
fn a_kernel_over_its_memory_limit() {
    let world = World::new();
    let _daemon = world.daemon();
    let mut spec = world.kernel_spec();
    spec["launch"]["memory_bytes_max"] = json!(512 << 20);
    let session = Session::create(&world.api(), &spec);
    session.wait_runtime("idle");
    let ended = session.run("hoard = []\nwhile True: hoard.append(bytearray(10_000_000))");
    assert_eq!((ended.ended(), ended.cause()), ("failed", "out-of-memory"), "{:?}", ended.outcome);
    let report = first_report(&session);
    assert_eq!(report::code(&report), "out-of-memory");
    assert!(report::summary(&report).contains("512"), "the limit is told: {}", report::summary(&report));
}

// A6: the kernel is killed, a restart is asked for and its shim ends, all at once: one report, one end of each run,
// and the next life is left alone.
#[test]
fn many_detectors_of_one_death() {
    let world = World::new();
    let _daemon = world.daemon();
    let session = world.kernel();
    for round in 1..=3 {
        let running = session.submit("import time; time.sleep(1000)");
        session.wait_runtime("busy");
        let queued = session.submit("print('queued')");
        let kernel = process::find(session.pid()).expect("it is busy");
        process::signal(kernel.pid, Signal::KILL);
        session.post("/restart", &json!({}));
        process::signal(kernel.pid, Signal::KILL);
        let ended = session.outcome(&running, within(PATIENCE));
        assert!(!ended.ended().is_empty() && ended.ended() != "succeeded");
        // Settled with the old life or run by the new one, but ended once (the transcript checks that).
        session.outcome(&queued, within(PATIENCE));
        session.wait_until("the next life is ready", within(PATIENCE), |view| {
            runtime_state(view) == "idle" && view["runtime"]["incarnation"] == round + 1
        });
        assert_eq!(session.run("print('new')").stdout(), "new\n", "the next life works");
        let incarnation = |report: &Value| report["process"]["incarnation"].clone();
        let mut dead: Vec<Value> = session.reports().iter().map(incarnation).collect();
        let all = dead.len();
        dead.dedup();
        assert_eq!(dead.len(), all, "a death with two reports: {:#?}", session.reports());
    }
}

// A10: exit code 0 in mid-work is a failure of that work, and said so.
#[test]
fn exit_code_0_in_mid_work() {
    let world = World::new();
    let _daemon = world.daemon();
    let session = world.kernel();
    let ended = session.run("import os; os._exit(0)");
    assert_eq!((ended.ended(), ended.cause()), ("failed", "exit-code"));
    let report = first_report(&session);
    assert_eq!(report["status"], json!({"kind": "code", "code": 0}));
    assert!(report::summary(&report).contains('0'), "{}", report::summary(&report));
}

// A15: without its shim a kernel is not left alone, the session says what happened, and a restart works.
#[test]
fn the_shim_is_killed() {
    let world = World::new();
    let _daemon = world.daemon();
    let session = world.kernel();
    let started = session.run(
        "import subprocess, sys\n\
         child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])\n\
         print(child.pid)",
    );
    let child: i32 = started.stdout().trim().parse().expect("the cell printed a pid");
    let kernel = process::find(session.pid()).expect("it is ready");
    let child = process::find(child).expect("it was started a moment ago");
    let running = session.submit("import time; time.sleep(1000)");
    session.wait_runtime("busy");

    process::signal(kernel.parent, Signal::KILL);
    let ended = session.outcome(&running, within(PATIENCE));
    assert_eq!((ended.ended(), ended.cause()), ("failed", "shim-lost"));
    for left in [&kernel, &child] {
        assert!(process::wait_gone(left, within(Duration::from_secs(10))), "left behind: {left:?}");
    }
    session.post("/restart", &json!({}));
    session.wait_runtime("idle");
    assert_eq!(session.run("print('again')").stdout(), "again\n");
}
