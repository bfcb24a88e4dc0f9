//! A command under a real shim: its output once and in order, its end with all that is known, nothing left behind.

use std::path::Path;

use crate::support::{Setup, new_run, seen, soon};
use outlive_core::diagnosis::evidence::{LaunchStep, Phase};
use outlive_core::id::Src;
use outlive_core::log::ChunkKind;
use outlive_core::runtime::{ExitStatus, StopStep, StopWhy};
use outlive_process::{ProcStat, is_same_process};
use outlive_protocol::shim::{StateNotice, ToShim};

fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../process/fixtures").join(name).display().to_string()
}

#[tokio::test]
async fn a_command_runs_as_its_first_run_and_its_end_is_told() {
    // A1
    let shim = Setup::command(&["sh", "-c", "echo out; echo err >&2; exit 7"]).start();
    let mut daemon = shim.connect(Src(0)).await;
    assert_eq!(daemon.welcome.as_ref().unwrap().identity.pid, None, "it waits for its run");
    let run = new_run();
    daemon.execute(run, "").await;
    let report = daemon.exited().await;
    assert_eq!(report.status, ExitStatus::Code { code: 7 });
    assert_eq!((report.evidence.phase, report.evidence.stop), (Phase::Busy, None));
    assert_eq!(
        (report.evidence.stdout_tail.as_str(), report.evidence.stderr_tail.as_str()),
        ("out\n", "err\n")
    );
    assert!(report.evidence.disk.iter().any(|disk| disk.free_bytes > 0));
    assert_eq!(daemon.chunks(ChunkKind::Stdout), [(Some(run), b"out\n".to_vec())]);
    assert_eq!(daemon.chunks(ChunkKind::Stderr), [(Some(run), b"err\n".to_vec())]);
    let kinds: Vec<&StateNotice> = daemon.states();
    assert!(matches!(
        kinds[..],
        [
            StateNotice::Spawned { .. },
            StateNotice::Ready { .. },
            StateNotice::RunStarted { .. },
            StateNotice::Exited { .. }
        ]
    ));
    daemon.drained().await;
    daemon.say(&ToShim::Goodbye).await;
    shim.ended().await;
}

#[tokio::test]
async fn a_launch_that_fails_is_told_with_its_step() {
    // A7
    let shim = Setup::command(&["no-such-program-here"]).start();
    let mut daemon = shim.connect(Src(0)).await;
    daemon.execute(new_run(), "").await;
    let report = daemon.exited().await;
    assert_eq!((report.pid, report.status), (None, ExitStatus::Unknown));
    let launch = report.evidence.launch.unwrap();
    assert_eq!((launch.step, launch.errno), (LaunchStep::Exec, Some(2)));
    assert!(launch.message.contains("no-such-program-here"), "{launch:?}");
    daemon.drained().await;
    daemon.say(&ToShim::Goodbye).await;
    shim.ended().await;
}

#[tokio::test]
async fn a_held_pipe_does_not_delay_the_report_and_grandchildren_go() {
    // A8
    let shim = Setup::command(&[&fixture("leaves-children.sh"), "5"]).start();
    let mut daemon = shim.connect(Src(0)).await;
    daemon.execute(new_run(), "").await;
    let report = daemon.exited().await;
    assert_eq!(report.status, ExitStatus::Code { code: 5 });
    let out = daemon.text(ChunkKind::Stdout);
    assert!(out.contains("last words"), "{out}");
    let grandchild: i32 = out.lines().next().unwrap().trim().parse().unwrap();
    daemon.drained().await;
    assert!(
        ProcStat::read(grandchild).map_or(true, |stat| stat.has_ended()),
        "it is gone when Drained is told"
    );
}

#[tokio::test]
async fn the_ladder_is_climbed_and_is_no_crash() {
    // A8, A9
    let shim = Setup::command(&[&fixture("ignores-term.sh")]).start();
    let mut daemon = shim.connect(Src(0)).await;
    daemon.execute(new_run(), "").await;
    daemon.until_text("ready").await;
    daemon.stop(StopStep::Ask).await;
    let report = daemon.exited().await;
    assert!(matches!(report.status, ExitStatus::Signal { number: 9, .. }));
    let stop = report.evidence.stop.unwrap();
    assert_eq!(
        (stop.why, stop.step, report.evidence.phase),
        (StopWhy::User, StopStep::Kill, Phase::Stopping)
    );
    assert_eq!(daemon.steps(), [StopStep::Term, StopStep::Kill], "a command has no way to be asked");
    daemon.drained().await;
}

#[tokio::test]
async fn a_second_harder_stop_does_not_wait() {
    // A9
    let mut setup = Setup::command(&[&fixture("ignores-term.sh")]);
    setup.launch.ladder.term_ms = 3_600_000;
    let shim = setup.start();
    let mut daemon = shim.connect(Src(0)).await;
    daemon.execute(new_run(), "").await;
    daemon.until_text("ready").await;
    daemon.stop(StopStep::Term).await;
    daemon.stop(StopStep::Kill).await;
    assert!(matches!(daemon.exited().await.status, ExitStatus::Signal { number: 9, .. }));
}

#[tokio::test]
async fn a_flood_without_line_ends_is_complete_and_memory_is_bounded() {
    // A13, B3
    const BYTES: usize = 200 << 20;
    let shim = Setup::command(&[&fixture("floods-stderr.py"), &BYTES.to_string()]).start();
    let mut daemon = shim.connect(Src(0)).await;
    daemon.execute(new_run(), "").await;
    let mut received = 0;
    let mut peak = 0;
    let report = loop {
        let record = daemon.record().await;
        match record.notice {
            outlive_protocol::shim::Notice::Output { chunks, .. } => {
                received += chunks.iter().map(|chunk| chunk.payload.size()).sum::<u64>();
                peak = peak.max(shim.private_bytes());
                daemon.records.clear();
            }
            outlive_protocol::shim::Notice::State(StateNotice::Exited { report }) => break report,
            outlive_protocol::shim::Notice::State(_) => {}
        }
    };
    assert_eq!(received, BYTES as u64 + 7);
    assert!(report.evidence.stderr_tail.ends_with("the end"));
    assert_eq!(report.evidence.stderr_bytes, received);
    assert!(peak < 24 << 20, "{peak} bytes");
}

#[tokio::test]
async fn a_daemon_that_dies_in_mid_print_loses_and_doubles_nothing() {
    // D1
    let script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done";
    let mut setup = Setup::command(&["sh", "-c", script]);
    setup.launch.memory_bytes_max = 20_000;
    let shim = setup.start();
    let mut daemon = shim.connect(Src(0)).await;
    daemon.execute(new_run(), "").await;
    let mut text = String::new();
    let mut stored;
    let mut deaths = 0;
    loop {
        let record = daemon.record().await;
        stored = record.src;
        if let outlive_protocol::shim::Notice::State(StateNotice::Exited { .. }) = record.notice {
            break;
        }
        // Every few records the daemon dies with its acknowledgement unsent or unread, at odd places.
        if record.src.0 % 7 == 3 && deaths < 50 {
            deaths += 1;
            text.push_str(&daemon.text(ChunkKind::Stdout));
            drop(daemon);
            daemon = shim.connect(stored).await;
            daemon.acknowledges = deaths % 2 == 0;
        } else if !daemon.acknowledges {
            daemon.say(&ToShim::Ack { through: stored }).await;
        }
    }
    text.push_str(&daemon.text(ChunkKind::Stdout));
    let expected: String = (0..20_000).map(|i| format!("line {i}\n")).collect();
    assert!(deaths > 0 && text == expected, "{deaths} deaths, {} of {} bytes", text.len(), expected.len());
    assert!(stored > Src(0));
}

#[tokio::test]
async fn the_report_waits_for_a_daemon_that_is_away() {
    // D3
    let mut setup =
        Setup::command(&["sh", "-c", "echo started; cat go >/dev/null; echo dying >&2; kill -SEGV $$"]);
    setup.launch.spec.cwd = std::env::temp_dir().display().to_string();
    let go = tempfile::tempdir().unwrap();
    setup.launch.spec.cwd = go.path().display().to_string();
    let made = std::process::Command::new("mkfifo").arg(go.path().join("go")).status();
    assert!(made.unwrap().success());
    let shim = setup.start();
    let mut daemon = shim.connect(Src(0)).await;
    daemon.execute(new_run(), "").await;
    daemon.until_text("started").await;
    let stored = daemon.last;
    let pid = outlive_shim::identity::read(Path::new(&shim.launch.directory)).unwrap().pid.unwrap();
    let watched = outlive_process::Process::open(pid).unwrap();
    drop(daemon);
    // Opening the other end lets the command go on and die with nobody there.
    let pipe = go.path().join("go");
    tokio::task::spawn_blocking(move || std::fs::write(pipe, "").unwrap()).await.unwrap();
    soon("the command's death", watched.exited()).await.unwrap();

    let mut daemon = shim.connect(stored).await;
    let report = daemon.exited().await;
    assert!(matches!(report.status, ExitStatus::Signal { number: 11, .. }));
    assert!(report.evidence.stderr_tail.contains("dying"));
    daemon.drained().await;
    daemon.say(&ToShim::Goodbye).await;
    shim.ended().await;
}

#[tokio::test]
async fn a_command_waits_when_memory_and_spool_are_full() {
    // D4
    const LINES: usize = 400_000;
    let marker = tempfile::tempdir().unwrap();
    let done = marker.path().join("done");
    let script = format!("seq 1 {LINES}; touch {}", done.display());
    let mut setup = Setup::command(&["sh", "-c", &script]);
    (setup.launch.memory_bytes_max, setup.launch.spool_bytes_max) = (100_000, 200_000);
    let shim = setup.start();
    let mut daemon = shim.connect(Src(0)).await;
    let run = new_run();
    daemon.execute(run, "").await;
    daemon.started(run).await;
    daemon.until_text("1\n").await;
    let stored = daemon.last;
    let mut text = daemon.text(ChunkKind::Stdout);
    drop(daemon);
    // Nobody reads: the program must come to rest in write(2), with most of its 2.7 MB unwritten.
    let pid = outlive_shim::identity::read(Path::new(&shim.launch.directory)).unwrap().pid.unwrap();
    seen("back-pressure", || waits_to_write(pid)).await;
    assert!(!done.exists(), "it waits");

    let mut daemon = shim.connect(stored).await;
    let report = daemon.exited().await;
    assert!(report.status.is_success());
    text.push_str(&daemon.text(ChunkKind::Stdout));
    let expected: String = (1..=LINES).map(|i| format!("{i}\n")).collect();
    assert!(text == expected, "{} of {} bytes", text.len(), expected.len());
    assert!(daemon.states().iter().all(|state| !matches!(state, StateNotice::Gap { .. })));
}

/// Whether a child of this process waits in a write to a pipe.
fn waits_to_write(pid: i32) -> bool {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().any(|child| {
        std::fs::read_to_string(format!("/proc/{child}/wchan")).is_ok_and(|place| place.contains("pipe_w"))
    })
}

#[tokio::test]
async fn a_shim_that_nobody_knows_stops_its_process_and_goes() {
    // D5
    let shim = Setup::command(&["sleep", "1000"]).start();
    let mut daemon = shim.connect(Src(0)).await;
    let run = new_run();
    daemon.execute(run, "").await;
    daemon.started(run).await;
    let identity = outlive_shim::identity::read(Path::new(&shim.launch.directory)).unwrap();
    let (pid, start) = (identity.pid.unwrap(), identity.pid_start.unwrap());
    assert!(is_same_process(pid, start));
    daemon.say(&ToShim::Refuse { reason: "no such session".to_owned() }).await;
    shim.ended().await;
    assert!(!is_same_process(pid, start));
    for cgroup in identity.cgroups {
        assert!(!Path::new(&cgroup).exists(), "{cgroup}");
    }
}

#[tokio::test]
async fn a_shim_outlives_terminals_and_service_stops() {
    let shim = Setup::command(&["sh", "-c", "echo here; exec sleep 1000"]).start();
    let mut daemon = shim.connect(Src(0)).await;
    daemon.execute(new_run(), "").await;
    daemon.until_text("here").await;
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT, rustix::process::Signal::HUP]
    {
        shim.process.signal(signal).unwrap();
    }
    let again = shim.connect(daemon.last).await;
    assert!(again.welcome.unwrap().identity.pid.is_some());
}

#[tokio::test]
async fn a_shim_is_small() {
    // The daemon is the same program, and so a shim's code is in memory once for both. Alone, a shim would have the
    // program's pages that it has touched counted as its own; a second one stands for the daemon.
    let shims = [Setup::command(&["sleep", "1000"]).start(), Setup::command(&["sleep", "1000"]).start()];
    let mut daemons = Vec::new();
    for shim in &shims {
        let mut daemon = shim.connect(Src(0)).await;
        let run = new_run();
        daemon.execute(run, "").await;
        daemon.started(run).await;
        daemons.push(daemon);
    }
    let private = shims[0].private_bytes();
    assert!(private < 4 << 20, "{private} bytes");
}
