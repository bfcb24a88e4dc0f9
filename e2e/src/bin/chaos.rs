//! `cargo xtask chaos`: kills something in mid-print, round after round, and checks what is left of the work.
//!
//! | killed | what must be true |
//! |---|---|
//! | kernel | the run fails with cause `signal`; its output is what was printed, once; one report; nothing is left |
//! | shim | the run fails with cause `shim-lost`; its output is a beginning of what was printed; the kernel is gone |
//! | daemon | the run goes on; a client that comes back by its cursor has all of the output, once |
//! | CLI | the run goes on; its output is complete, once |
//!
//! Usage: `chaos ROUNDS SEED`. The same seed kills the same things at the same outputs.
#![expect(clippy::print_stdout, reason = "it tells what it does")]

use std::time::Duration;

use outlive_e2e::clock::{PATIENCE, eventually, within};
use outlive_e2e::process::{self, Signal};
use outlive_e2e::random::Random;
use outlive_e2e::{Daemon, Session, Transcript, World};
use serde_json::json;

/// How much a run prints.
const LINES: u64 = 400;

/// What is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Kernel,
    Shim,
    Daemon,
    Cli,
}

fn main() {
    let mut arguments =
        std::env::args().skip(1).map(|text| text.parse::<u64>().expect("usage: chaos ROUNDS SEED"));
    let rounds = arguments.next().unwrap_or(8);
    let mut random = Random::new(arguments.next().unwrap_or(1));
    let world = World::new();
    let mut daemon = world.daemon();
    for round in 0..rounds {
        let victim = [Victim::Kernel, Victim::Shim, Victim::Daemon, Victim::Cli]
            [usize::try_from(round % 4).expect("< 4")];
        let after = random.below(LINES / 2) + 1;
        println!("round {round}: {victim:?} after {after} chunks");
        daemon = play(&world, daemon, victim, after);
        world.assert_nothing_supervised();
    }
    println!("{}", daemon.terminate());
    world.assert_nothing_left();
    println!("{rounds} passed, 0 failed");
}

fn play(world: &World, daemon: Daemon, victim: Victim, after: u64) -> Daemon {
    let code = format!("import time\nfor i in range({LINES}):\n    print(i, flush=True); time.sleep(0.002)");
    if matches!(victim, Victim::Cli) {
        kill_cli(world, &code, after);
        return daemon;
    }
    let session = world.kernel();
    let kernel = process::find(session.pid()).expect("a kernel that is ready has a process");
    let run = session.submit(&code);
    let mut seen = Transcript::default();
    let mut events = session.attach(&run, None);
    let seen_at_kill = read_some(&mut seen, &mut events, after);
    let mut daemon = Some(daemon);
    match victim {
        Victim::Kernel => process::signal(kernel.pid, Signal::KILL),
        Victim::Shim => process::signal(kernel.parent, Signal::KILL),
        Victim::Daemon => {
            daemon.take().expect("it runs").kill();
            daemon = Some(world.daemon());
            events = session.attach(&run, seen.cursor.as_deref());
        }
        Victim::Cli => unreachable!("has its own play"),
    }
    assert!(seen.follow(&mut events, within(PATIENCE)), "the stream ended before the run");
    check(victim, &seen, &seen_at_kill);
    if !matches!(victim, Victim::Daemon) {
        assert!(process::wait_gone(&kernel, within(PATIENCE)), "the kernel is left: {kernel:?}");
        assert_eq!(session.reports().len(), 1, "one death has one report: {:#?}", session.reports());
    }
    end(&session);
    daemon.expect("it was started again")
}

/// Reads so many chunks and gives the text of all that were there by then.
fn read_some(seen: &mut Transcript, events: &mut outlive_e2e::Events, chunks: u64) -> String {
    while (seen.of_kind("stdout").count() as u64) < chunks {
        let event =
            events.next(within(PATIENCE)).unwrap_or_else(|silence| panic!("{silence:?} in mid-print"));
        assert!(!seen.push(&event), "the run ended before {chunks} chunks");
    }
    seen.stdout()
}

fn check(victim: Victim, seen: &Transcript, seen_at_kill: &str) {
    let text = seen.stdout();
    let all = expected();
    assert!(text.starts_with(seen_at_kill), "what was seen before is gone");
    assert!(all.starts_with(&text), "the output is not what was printed: {text:?}");
    match victim {
        Victim::Kernel => assert_eq!((seen.ended(), seen.cause()), ("failed", "signal")),
        Victim::Shim => assert_eq!((seen.ended(), seen.cause()), ("failed", "shim-lost")),
        Victim::Daemon | Victim::Cli => {
            assert_eq!(seen.ended(), "succeeded", "{:?}", seen.outcome);
            assert_eq!(text, all, "the output is not complete");
        }
    }
}

fn expected() -> String {
    (0..LINES).map(|i| format!("{i}\n")).collect()
}

/// The client of a notebook run is killed; the run is watched through the API to its end.
fn kill_cli(world: &World, code: &str, after: u64) {
    let path = world.notebook("chaos.ipynb", &[code]);
    let known = sessions(world);
    let client = world.spawn(&["run", &path.to_string_lossy()]);
    let session = eventually("the client made a session", within(PATIENCE), || {
        sessions(world).into_iter().find(|id| !known.contains(id))
    });
    let session = Session::existing(&world.api(), session);
    let run = eventually("the client queued the cell", within(PATIENCE), || {
        Some(world.api().get(&session.path("/runs"))[0]["id"].as_str()?.to_owned())
    });
    let mut seen = Transcript::default();
    let mut events = session.attach(&run, None);
    let seen_at_kill = read_some(&mut seen, &mut events, after);
    client.signal(Signal::KILL);
    drop(client);
    assert!(seen.follow(&mut events, within(PATIENCE)), "the stream ended before the run");
    check(Victim::Cli, &seen, &seen_at_kill);
    session.wait_until("closed", within(PATIENCE), |view| !view["closed_at"].is_null());
}

fn sessions(world: &World) -> Vec<String> {
    let list = world.api().get("/v1/sessions?all=true");
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(|view| view["id"].as_str().map(ToOwned::to_owned))
        .collect()
}

fn end(session: &Session) {
    session.post("/stop", &json!({"force": true}));
    session.wait_until("closed", within(Duration::from_secs(30)), |view| !view["closed_at"].is_null());
}
