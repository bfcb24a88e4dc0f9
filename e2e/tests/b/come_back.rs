//! Clients leave and come back; the output does not depend on who watches.

use std::fs;

use outlive_e2e::clock::{PATIENCE, eventually, within};
use outlive_e2e::{Session, Transcript, World, notebook};

fn numbers(n: u32) -> String {
    (0..n).map(|i| format!("{i}\n")).collect()
}

// B4: nobody is attached for the whole run; whoever comes then has all of it, in order, once.
#[test]
fn nobody_attached_for_the_whole_run() {
    let world = World::new();
    let _daemon = world.daemon();
    let session = world.kernel();
    let done = world.work().join("done");
    let code = format!("for i in range(5000): print(i, flush=True)\nopen({done:?}, 'w').close()");
    let run = session.submit(&code);
    eventually("the cell is done", within(PATIENCE), || fs::metadata(&done).ok());
    for _ in 0..2 {
        let seen = session.outcome(&run, within(PATIENCE));
        assert_eq!((seen.ended(), seen.stdout()), ("succeeded", numbers(5000)));
    }
}

// B4: a client that leaves in mid-run comes back by its cursor, as itself or as somebody else.
#[test]
fn a_client_leaves_and_comes_back() {
    let world = World::new();
    let _daemon = world.daemon();
    let session = world.kernel();
    let run =
        session.submit("import time\nfor i in range(600):\n    print(i, flush=True); time.sleep(0.002)");
    let mut seen = Transcript::default();
    let mut ended = false;
    for visit in 1..=4 {
        let mut events = session.attach(&run, seen.cursor.as_deref());
        while !ended && seen.chunks.len() < visit * 100 {
            ended = seen.push(&events.next(within(PATIENCE)).expect("the run goes on"));
        }
    }
    if !ended {
        assert!(seen.follow(&mut session.attach(&run, seen.cursor.as_deref()), within(PATIENCE)));
    }
    assert_eq!((seen.ended(), seen.stdout()), ("succeeded", numbers(600)));
    assert_eq!(session.outcome(&run, within(PATIENCE)).stdout(), numbers(600), "and for a newcomer");
}

// B4: the same on the command line: a detached notebook, watched by nobody, is complete in its file.
#[test]
fn a_detached_notebook() {
    let world = World::new();
    let path = world.notebook("detached.ipynb", &["for i in range(1000): print(i)", "print('last')"]);
    let started = world.run(&["run", "--detach", &path.to_string_lossy()]);
    started.assert_code(0);
    let session = Session::existing(&world.api(), started.stdout.trim());
    let view = session.wait_closed();
    assert_eq!(view["state"], "succeeded", "{view}");
    let saved = notebook::read(&path);
    assert_eq!(notebook::stream(&saved, 0, "stdout"), numbers(1000));
    assert_eq!(notebook::stream(&saved, 1, "stdout"), "last\n");
    let logs = world.run(&["logs", &session.id]);
    logs.assert_code(0);
    assert!(logs.stdout.contains("999\nlast\n"), "{logs}");
}
