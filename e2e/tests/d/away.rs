//! The daemon is killed, and comes back: what it supervises does not notice.

use std::fs;

use outlive_e2e::clock::{PATIENCE, eventually, within};
use outlive_e2e::process::{self, Signal};
use outlive_e2e::{Events, Session, Transcript, World, report};

/// Prints numbers and says in a file how far it is.
pub fn counting(session: &Session, n: u32, progress: &std::path::Path) -> String {
    session.submit(&format!(
        "import time\nfor i in range({n}):\n    print(i, flush=True)\n    \
         open({progress:?}, 'w').write(str(i)); time.sleep(0.005)"
    ))
}

pub fn progress(path: &std::path::Path) -> u32 {
    fs::read_to_string(path).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

pub fn numbers(n: u32) -> String {
    (0..n).map(|i| format!("{i}\n")).collect()
}

/// Reads until so many chunks are there.
#[track_caller]
pub fn read_some(seen: &mut Transcript, events: &mut Events, chunks: usize) {
    while seen.chunks.len() < chunks {
        assert!(!seen.push(&events.next(within(PATIENCE)).expect("the run goes on")));
    }
}

// D1: SIGKILL in mid-print with three kernels: they live on with their memory; all output is there once, also what was
// printed meanwhile; clients come back by their cursors.
#[test]
fn killed_in_mid_print_with_three_kernels() {
    // Ten seconds: longer than two restarts of the daemon take.
    const LINES: u32 = 2_000;
    let world = World::new();
    let mut daemon = world.daemon();
    let mut watched = Vec::new();
    for nth in 0..3 {
        let session = world.kernel();
        session.run(&format!("memory = 'of kernel {nth}'"));
        let file = world.work().join(format!("progress-{nth}"));
        let run = counting(&session, LINES, &file);
        let events = session.attach(&run, None);
        let pid = session.pid();
        watched.push((session, run, events, Transcript::default(), file, pid));
    }
    for cut in 1..=2 {
        for (_, _, events, seen, ..) in &mut watched {
            read_some(seen, events, cut * 30);
        }
        daemon.kill();
        // Printed while nobody takes it.
        for (.., file, _) in &watched {
            let before = progress(file);
            eventually("the kernel prints on", within(PATIENCE), || {
                (progress(file) > before + 20).then_some(())
            });
        }
        daemon = world.daemon();
        for (session, run, events, seen, ..) in &mut watched {
            *events = session.attach(run, seen.cursor.as_deref());
        }
    }
    for (nth, (session, run, mut events, mut seen, _, pid)) in watched.into_iter().enumerate() {
        assert!(seen.follow(&mut events, within(PATIENCE)), "the stream ended before the run");
        assert_eq!((seen.ended(), seen.stdout()), ("succeeded", numbers(LINES)));
        assert_eq!(seen.of_kind("gap").count(), 0, "nothing is said to be lost");
        assert_eq!(session.outcome(&run, within(PATIENCE)).stdout(), numbers(LINES), "and for a newcomer");
        assert_eq!(session.pid(), pid, "the same process");
        assert_eq!(session.run("print(memory)").stdout(), format!("of kernel {nth}\n"));
        assert!(session.reports().is_empty(), "{:#?}", session.reports());
    }
}

// D1: the command line's client reconnects by itself and shows every line once.
#[test]
fn the_command_line_reconnects() {
    let world = World::new();
    let daemon = world.daemon();
    let file = world.work().join("progress");
    let cell = format!(
        "import time\nfor i in range(300):\n    print('number', i, flush=True)\n    \
         open({file:?}, 'w').write(str(i)); time.sleep(0.005)"
    );
    let path = world.notebook("survives.ipynb", &[&cell]);
    let mut client = world.spawn(&["run", &path.to_string_lossy()]);
    client.wait_for("number 20", within(PATIENCE));
    daemon.kill();
    let before = progress(&file);
    eventually("the kernel prints on", within(PATIENCE), || (progress(&file) > before + 20).then_some(()));
    // Whether the client starts one itself or finds this one, there is one daemon in the end.
    let finished = client.finish(within(PATIENCE));
    finished.assert_code(0);
    let shown: Vec<&str> = finished.stdout.lines().filter(|line| line.contains("number ")).collect();
    let expected: Vec<String> = (0..300).map(|i| format!("number {i}")).collect();
    assert_eq!(shown.len(), expected.len(), "{finished}");
    assert!(shown.iter().zip(&expected).all(|(line, number)| line.ends_with(number.as_str())), "{finished}");
}

// D3: a kernel dies while the daemon is away: the report is there afterwards, with exit status and last words.
#[test]
fn a_death_while_the_daemon_is_away() {
    let world = World::new();
    let daemon = world.daemon();
    let session = world.kernel();
    let gate = world.work().join("gate");
    let run = session.submit(&format!(
        "import os, sys, time\nprint('before', flush=True)\nwhile not os.path.exists({gate:?}): time.sleep(0.01)\n\
         # ipykernel sends descriptor 2 to the client, and keeps the real one.\n\
         os.write(sys.stderr._original_stdstream_copy, b'these are my last words\\n')\nos._exit(9)"
    ));
    let (mut seen, mut events) = (Transcript::default(), session.attach(&run, None));
    // Said to us, so that the kernel does not take it along when it ends without a goodbye.
    while !seen.stdout().contains("before") {
        assert!(!seen.push(&events.next(within(PATIENCE)).expect("the run goes on")));
    }
    let kernel = process::find(session.pid()).expect("it is busy");
    daemon.kill();
    fs::write(&gate, "").unwrap();
    assert!(process::wait_gone(&kernel, within(PATIENCE)), "it dies by itself");

    let _daemon = world.daemon();
    let ended = session.outcome(&run, within(PATIENCE));
    assert_eq!((ended.ended(), ended.cause()), ("failed", "exit-code"));
    assert_eq!(ended.stdout(), "before\n");
    let reports = session.reports();
    assert_eq!(reports.len(), 1, "{reports:#?}");
    assert_eq!(report::code(&reports[0]), "exit-code");
    assert_eq!(reports[0]["status"]["code"], 9);
    assert!(reports[0].to_string().contains("these are my last words"), "{:#}", reports[0]);
}

// D3: daemon and shim are both killed while work runs: the kernel does not live on unsupervised, and is reported.
#[test]
fn daemon_and_shim_are_both_killed() {
    let world = World::new();
    let daemon = world.daemon();
    let session = world.kernel();
    let run = session.submit("import time; time.sleep(1000)");
    session.wait_runtime("busy");
    let kernel = process::find(session.pid()).expect("it is busy");
    daemon.kill();
    process::signal(kernel.parent, Signal::KILL);

    let _daemon = world.daemon();
    let ended = session.outcome(&run, within(PATIENCE));
    assert_eq!((ended.ended(), ended.cause()), ("failed", "shim-lost"), "{:?}", ended.outcome);
    assert!(process::wait_gone(&kernel, within(PATIENCE)), "left behind: {kernel:?}");
}
