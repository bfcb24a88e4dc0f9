//! The daemon is replaced by another version of itself.

use std::fs;
use std::path::{Path, PathBuf};

use outlive_e2e::clock::{PATIENCE, within};
use outlive_e2e::process;
use outlive_e2e::world::binary;
use outlive_e2e::{Daemon, Running, Session, Transcript, World};

use crate::away::{counting, numbers, read_some};

/// The built binary under another path.
fn install(world: &World, version: &str) -> PathBuf {
    let folder = world.root().join(version);
    fs::create_dir(&folder).expect("the world's own directory");
    let path = folder.join("outlive");
    fs::copy(binary(), &path).expect("there is room for a copy");
    path
}

fn daemon(world: &World, program: &Path) -> Daemon {
    let mut serve = world.command(program);
    serve.arg("serve");
    Daemon::wait_ready(Running::start(&mut serve), &world.api())
}

// D2: stop --keep-runtimes, then a new binary: kernels and commands are alive with their memory, all output is there
// once, also what was printed meanwhile; clients come back by their cursors; what is started now is the new version's.
#[test]
fn a_new_binary_takes_over() {
    const LINES: u32 = 1_200;
    let world = World::new();
    let old = install(&world, "old");
    let first = daemon(&world, &old);
    let kernel = world.kernel();
    kernel.run("memory = 'of before the upgrade'");
    let file = world.work().join("progress");
    let run = counting(&kernel, LINES, &file);
    let python = world.python();
    let print = format!("import time\nfor i in range({LINES}):\n    print(i, flush=True); time.sleep(0.005)");
    let command =
        Session::create(&world.api(), &world.command_spec(&[&python.to_string_lossy(), "-c", &print]));
    let job = command.runs().remove(0);
    let mut seen = [Transcript::default(), Transcript::default()];
    let mut watched = [kernel.attach(&run, None), command.attach(&job, None)];
    for (seen, events) in seen.iter_mut().zip(&mut watched) {
        read_some(seen, events, 30);
    }
    let pids = [kernel.pid(), command.pid()];

    let mut stop = world.command(&old);
    let stopped = Running::start(stop.args(["daemon", "stop", "--keep-runtimes"])).finish(within(PATIENCE));
    stopped.assert_code(0);
    assert!(stopped.stderr.contains("goes on") || stopped.stdout.contains("goes on"), "{stopped}");
    let ended = first.ended();
    ended.assert_code(0);
    for pid in pids {
        assert!(process::find(pid).is_some_and(|process| process.state != 'Z'), "{pid} runs on");
    }
    fs::remove_dir_all(world.root().join("old")).expect("nothing needs the old binary any more");

    let new = install(&world, "new");
    let _second = daemon(&world, &new);
    let sessions = [(&kernel, &run), (&command, &job)];
    for ((session, run), mut seen) in sessions.into_iter().zip(seen) {
        let mut events = session.attach(run, seen.cursor.as_deref());
        assert!(seen.follow(&mut events, within(PATIENCE)), "the stream ended before the run");
        assert_eq!((seen.ended(), seen.stdout()), ("succeeded", numbers(LINES)));
        assert_eq!(session.outcome(run, within(PATIENCE)).stdout(), numbers(LINES), "and for a newcomer");
        assert!(session.reports().is_empty(), "{:#?}", session.reports());
    }
    assert_eq!(kernel.pid(), pids[0], "the same process");
    assert_eq!(kernel.run("print(memory)").stdout(), "of before the upgrade\n");

    kernel.post("/restart", &serde_json::json!({}));
    kernel.wait_until("another process", within(PATIENCE), |view| {
        outlive_e2e::session::runtime_state(view) == "idle" && view["runtime"]["pid"] != pids[0]
    });
    let shim = process::find(kernel.pid()).expect("it is idle").parent;
    let program = fs::read_link(format!("/proc/{shim}/exe")).expect("its shim runs");
    assert_eq!(program, new, "what is started after the upgrade is the new version's");
}
