//! `cargo xtask soak`: many short runs, after which the daemon holds what it held before: files, memory, processes.
//!
//! Usage: `soak RUNS`. A run is a command and, every tenth time, a kernel with one cell.
#![expect(clippy::print_stdout, reason = "it tells what it does")]

use outlive_e2e::clock::{PATIENCE, within};
use outlive_e2e::{Session, World, process};
use serde_json::json;

/// Runs before the first look: caches and pools are filled.
const WARM_UP: u64 = 20;
/// Files that a daemon may have open more than at the first look: connections that it is about to close.
const FILES_MORE: usize = 8;
/// Memory that a daemon may hold more than at the first look, in bytes: views of ended sessions are kept.
const BYTES_MORE: u64 = 16 << 20;

fn main() {
    let runs = std::env::args().nth(1).map_or(200, |text| text.parse().expect("usage: soak RUNS"));
    let world = World::new();
    let daemon = world.daemon();
    let look = || {
        (process::open_files(daemon.pid()), process::memory_bytes(daemon.pid()).expect("the daemon lives"))
    };
    (0..WARM_UP).for_each(|nth| one(&world, nth));
    world.assert_nothing_supervised();
    let (files, bytes) = look();
    for nth in 0..runs {
        one(&world, nth);
        if nth % 50 == 49 {
            world.assert_nothing_supervised();
            let (files_now, bytes_now) = look();
            println!("{} runs: {files_now} files, {} KiB", nth + 1, bytes_now / 1024);
            assert!(files_now <= files + FILES_MORE, "{files} files became {files_now}");
            assert!(bytes_now <= bytes + BYTES_MORE, "{bytes} bytes became {bytes_now}");
        }
    }
    daemon.terminate();
    world.assert_nothing_left();
    println!("{runs} passed, 0 failed");
}

fn one(world: &World, nth: u64) {
    if nth.is_multiple_of(10) {
        let session = world.kernel();
        assert_eq!(session.run("print(6 * 7)").stdout(), "42\n");
        session.post("/stop", &json!({}));
        closed(&session);
    } else {
        let mut spec = world.command_spec(&["/bin/echo", "hello"]);
        spec["keep"] = json!(false);
        let session = Session::create(&world.api(), &spec);
        let run = world.api().get(&session.path("/runs"))[0]["id"]
            .as_str()
            .expect("a command is one run")
            .to_owned();
        assert_eq!(session.outcome(&run, within(PATIENCE)).stdout(), "hello\n");
        closed(&session);
    }
}

fn closed(session: &Session) {
    session.wait_until("closed", within(PATIENCE), |view| !view["closed_at"].is_null());
}
