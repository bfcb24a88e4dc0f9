//! A supervisor starts again what died, and knows when to give up.

use outlive_e2e::clock::{PATIENCE, within};
use outlive_e2e::process::{self, Signal};
use outlive_e2e::session::runtime_state;
use outlive_e2e::{Session, World};
use serde_json::json;

// A14: what dies again and again is started again after growing waits, and then no more, with a reason.
#[test]
fn a_crash_loop_ends() {
    let world = World::new();
    let _daemon = world.daemon();
    let mut spec = world.kernel_spec();
    spec["launch"]["program"]["argv"] = json!(["/bin/sh", "-c", "exit 1"]);
    spec["restart"] = json!({"restart": "permanent", "restarts_max": 2, "period_ms": 60_000, "backoff_ms": 100, "backoff_ms_max": 150});
    let session = Session::create(&world.api(), &spec);
    let view = session.wait_runtime("gave_up");
    let reason = view["runtime"]["state"]["reason"].as_str().unwrap_or_default();
    assert!(!reason.is_empty(), "the reason is visible: {view}");
    assert_eq!(view["runtime"]["incarnation"], 3, "one start and two more");
    let reports = session.reports();
    assert_eq!(reports.len(), 3, "{reports:#?}");
    let waits: Vec<_> = reports.iter().map(|report| report["next"]["after_ms"].as_u64()).collect();
    assert_eq!(waits, [Some(100), Some(150), None], "the wait grows to its maximum");
    assert_eq!(reports[2]["next"]["kind"], "give_up");
    world.assert_nothing_supervised();
}

// A14: a life that was long enough makes the count begin anew.
#[test]
fn healthy_time_resets_the_count() {
    let world = World::new();
    let _daemon = world.daemon();
    let mut spec = world.kernel_spec();
    spec["restart"] = json!({"restart": "permanent", "restarts_max": 1, "period_ms": 1_000, "backoff_ms": 10, "backoff_ms_max": 20});
    let session = Session::create(&world.api(), &spec);
    for life in 1..=3 {
        session.wait_until("the next life is ready", within(PATIENCE), |view| {
            runtime_state(view) == "idle" && view["runtime"]["incarnation"] == life
        });
        // Healthy for longer than the period.
        assert_eq!(session.run("import time; time.sleep(1.5)").ended(), "succeeded");
        process::signal(session.pid(), Signal::KILL);
    }
    session.wait_until("a fourth life", within(PATIENCE), |view| {
        runtime_state(view) == "idle" && view["runtime"]["incarnation"] == 4
    });
}
