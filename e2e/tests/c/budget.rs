//! A daemon that may keep one session in memory, and has more.

use std::fs;

use outlive_e2e::clock::{PATIENCE, eventually, within};
use outlive_e2e::session::runtime_state;
use outlive_e2e::{Session, World};
use serde_json::{Value, json};

fn narrow() -> World {
    let mut world = World::new();
    world.set("OUTLIVE_MAX_SESSIONS", "1");
    world
}

/// A notebook with a kernel that has run this.
fn idle(world: &World, code: &str) -> Session {
    let session = world.untitled();
    assert_eq!(session.run(code).ended(), "succeeded");
    session
}

/// Looks at the session until this is so. Whoever watches it would keep its kernel from going first.
#[track_caller]
fn until(session: &Session, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    eventually(what, within(PATIENCE), || Some(session.view()).filter(|view| is_so(view)))
}

#[track_caller]
fn until_announced(session: &Session) -> Value {
    until(session, "it is announced", |view| !view["rests_at"].is_null())
}

#[track_caller]
fn until_down(session: &Session) {
    let view = until(session, "its kernel rests", |view| runtime_state(view) == "down");
    assert_eq!(view["last_report"], Value::Null, "that is no failure: {view}");
    assert!(session.reports().is_empty(), "{:#?}", session.reports());
}

// A9: what was idle longest is announced before it goes, ends as a kernel should, and is no crash; whoever runs something
// meanwhile keeps theirs.
#[test]
fn the_kernel_that_was_idle_longest_is_announced_and_ends_cleanly() {
    let world = narrow();
    let _daemon = world.daemon();
    let said = world.work().join("said");
    let farewell =
        format!("import atexit, pathlib; atexit.register(pathlib.Path({said:?}).write_text, 'goodbye')");
    let first = idle(&world, &farewell);
    let second = idle(&world, "kept = 'in memory'");
    let announced = until_announced(&first);
    assert_eq!(runtime_state(&announced), "idle", "it is announced before: {announced}");
    assert!(!said.exists());
    until_down(&first);
    assert_eq!(fs::read_to_string(&said).unwrap(), "goodbye");

    let third = idle(&world, "1");
    until_announced(&second);
    assert_eq!(second.run("print(kept)").stdout(), "in memory\n");
    until_announced(&third);
    until_down(&third);
    assert_eq!(second.run("print(kept)").stdout(), "in memory\n", "it was used, so it stayed");
    assert_eq!(first.run("print(1)").stdout(), "1\n", "the next run starts another kernel");
}

// A9: one that does not go when it is asked is told by SIGTERM, then killed, and each step can be seen.
#[test]
fn a_kernel_that_does_not_go_is_killed_step_by_step() {
    let world = narrow();
    let _daemon = world.daemon();
    let stays = "import atexit, signal, time\n\
                 signal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
                 atexit.register(time.sleep, 1_000)";
    let first = idle(&world, stays);
    let pid = first.pid();
    let _second = idle(&world, "1");
    for step in ["ask", "term"] {
        until(&first, step, |view| {
            let state = &view["runtime"]["state"];
            (&state["why"], &state["step"]) == (&json!("eviction"), &json!(step))
        });
    }
    until_down(&first);
    assert!(outlive_e2e::process::find(pid).is_none(), "the process is gone");
}
