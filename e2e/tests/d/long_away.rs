//! The daemon is away for long: output fills the shim's memory, then its spool, then the program waits.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use outlive_e2e::clock::{PATIENCE, eventually, within};
use outlive_e2e::world::binary;
use outlive_e2e::{Session, Transcript, World};
use serde_json::json;

use crate::away::progress;

/// What a shim keeps in memory, and as much again on disk, in bytes: the least that it can be told.
const KEEP: u64 = 1_000_000;
/// Far more lines than all that waits between a program and the daemon: both of the above, a kernel's queue and what
/// the system keeps of pipes and sockets.
const LINES: u32 = 1_500;
/// As many numbers, on a line each.
const NUMBERS: u32 = 60_000;
/// The length of a line, in bytes.
const LINE: usize = 20_000;

fn world() -> World {
    let mut world = World::new();
    world.set("OUTLIVE_SHIM_MEMORY_BYTES", KEEP.to_string());
    world.set("OUTLIVE_SPOOL_BYTES", KEEP.to_string());
    world
}

/// What a session's process has spooled, in bytes.
fn spooled(world: &World, session: &Session) -> u64 {
    spooled_by(world, &runtime(session))
}

fn spooled_by(world: &World, runtime: &str) -> u64 {
    let files = |folder: &Path| -> Vec<PathBuf> {
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let processes = files(&world.state().join("processes"));
    let spools = processes.iter().filter(|path| name(path).starts_with(runtime)).flat_map(|path| files(path));
    spools
        .filter(|path| name(path).starts_with("spool-"))
        .filter_map(|path| fs::metadata(path).ok())
        .map(|file| file.len())
        .sum()
}

fn runtime(session: &Session) -> String {
    session.view()["runtime"]["id"].as_str().expect("a session has a runtime").to_owned()
}

/// Prints a numbered long line, the others when the gate is there, and says in a file how far it is.
fn program(file: &Path, gate: &Path) -> String {
    format!(
        "import os, time\nfor i in range({LINES}):\n    print(i, 'x' * {LINE}, flush=True)\n    \
         open({file:?}, 'w').write(str(i + 1))\n    while not os.path.exists({gate:?}): time.sleep(0.01)"
    )
}

/// Waits until the program prints no further: every look of a second sees it at one place.
fn wait_until_it_waits(file: &Path) -> u32 {
    let (mut seen, mut since) = (progress(file), outlive_e2e::clock::now());
    eventually("the program waits", within(PATIENCE), || {
        let now = progress(file);
        if now != seen {
            (seen, since) = (now, outlive_e2e::clock::now());
        }
        (outlive_e2e::clock::now() - since > Duration::from_secs(1)).then_some(seen)
    })
}

// D4: ipykernel and a command print more than memory and spool hold while no daemon is there: they wait, the spool does
// not grow over its limit, and nothing is lost.
#[test]
fn kernel_and_command_wait_and_lose_nothing() {
    let world = world();
    let daemon = world.daemon();
    let kernel = world.kernel();
    // The probe that asks the kernel to wait is answered before the first run is.
    kernel.run("pass");
    let [of_kernel, of_command] = ["kernel", "command"].map(|name| world.work().join(name));
    let gate = world.work().join("gate");
    let run = kernel.submit(&program(&of_kernel, &gate));
    let python = world.python();
    let spec = world.command_spec(&[&python.to_string_lossy(), "-c", &program(&of_command, &gate)]);
    let command = Session::create(&world.api(), &spec);
    let job = command.runs().remove(0);
    let runtimes = [runtime(&kernel), runtime(&command)];
    for file in [&of_kernel, &of_command] {
        eventually("it prints", within(PATIENCE), || (progress(file) > 0).then_some(()));
    }
    daemon.kill();
    fs::write(&gate, "").expect("the world's own directory");

    for (file, runtime) in [&of_kernel, &of_command].into_iter().zip(&runtimes) {
        let at = wait_until_it_waits(file);
        assert!(at < LINES, "it was not made to wait");
        let spooled = spooled_by(&world, runtime);
        // A file is removed when all of it was read, so what was written to it is more than what waits in it.
        assert!((KEEP / 2..KEEP + 17_000_000).contains(&spooled), "{spooled} bytes in the spool");
    }

    let _daemon = world.daemon();
    let expected: String = (0..LINES).map(|i| format!("{i} {}\n", "x".repeat(LINE))).collect();
    for (session, run) in [(&kernel, &run), (&command, &job)] {
        let whole = session.outcome(run, within(PATIENCE * 2));
        assert_eq!(whole.ended(), "succeeded");
        let text = whole.stdout();
        assert!(text == expected, "{} of {} bytes", text.len(), expected.len());
        assert_eq!(whole.of_kind("gap").count(), 0, "nothing is missing");
        eventually("the disk is given back", within(PATIENCE), || {
            (spooled(&world, session) == 0).then_some(())
        });
    }
    assert_eq!(kernel.run("print('as before')").stdout(), "as before\n");
}

// D4: a kernel that cannot be made to wait loses output when all is full, and every reader is told where.
#[test]
fn a_kernel_that_can_only_drop_is_told_of() {
    let world = world();
    let daemon = world.daemon();
    let mut spec = world.kernel_spec();
    let fake = binary().with_file_name("fake-kernel");
    assert!(fake.is_file(), "{} is missing: `cargo build --bins` makes it", fake.display());
    spec["launch"]["program"]["argv"] = json!([fake, "-f", "{connection_file}"]);
    let session = Session::create(&world.api(), &spec);
    session.wait_runtime("idle");
    let runtime = runtime(&session);
    let run = session.submit(&format!("flood {NUMBERS}\nprint the end"));
    let mut watched = session.attach(&run, None);
    let mut seen = Transcript::default();
    crate::away::read_some(&mut seen, &mut watched, 10);
    daemon.kill();
    eventually("the spool is full", within(PATIENCE), || {
        (spooled_by(&world, &runtime) >= KEEP).then_some(())
    });

    let _daemon = world.daemon();
    let mut events = session.attach(&run, seen.cursor.as_deref());
    assert!(seen.follow(&mut events, within(PATIENCE)), "the stream ended before the run");
    // Its status was read on, so the run ends although its output is not whole.
    assert_eq!(seen.ended(), "succeeded");
    let gaps: Vec<_> = seen.of_kind("gap").map(ToString::to_string).collect();
    assert!(!gaps.is_empty() && gaps.iter().all(|gap| gap.contains("cannot be made to wait")), "{gaps:?}");
    let text = seen.stdout();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() < NUMBERS as usize, "it lost nothing, so nothing was shown");
    let numbers: Vec<u32> = lines.iter().filter_map(|line| line.parse().ok()).collect();
    let holes = numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
    assert!(numbers.is_sorted() && holes <= gaps.len(), "{holes} holes, {} of them told", gaps.len());
    let newcomer = session.outcome(&run, within(PATIENCE));
    assert_eq!((newcomer.stdout(), newcomer.chunks.len()), (text, seen.chunks.len()), "and for a newcomer");
    assert!(session.run("print after").stdout().contains("after"), "it goes on");
}
