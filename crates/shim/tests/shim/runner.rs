//! A real runner under a real shim: tasks and what comes of them, its phases, its death with all that is known.

use std::time::Duration;

use crate::support::{Daemon, Setup, Shim, new_run, seen};
use outlive_core::diagnosis::evidence::Phase as Life;
use outlive_core::id::{Attempt, RunId, Src};
use outlive_core::log::ChunkKind;
use outlive_core::runtime::runner::{Phase, Speaks, Watchdogs};
use outlive_core::runtime::{ExitStatus, Program, StopStep, StopWhy};
use outlive_core::session::{CancelWhy, RunOutcome};
use outlive_process::ProcStat;
use outlive_protocol::shim::{Notice, StateNotice, ToShim};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

pub async fn ready(begins: &str) -> (Shim, Daemon) {
    ready_with(Setup::runner(begins)).await
}

pub async fn ready_with(setup: Setup) -> (Shim, Daemon) {
    let shim = setup.start();
    let mut daemon = shim.connect(Src(0)).await;
    daemon.ready().await;
    (shim, daemon)
}

pub fn pid(shim: &Shim) -> Pid {
    let identity = outlive_shim::identity::read(shim.launch.directory.as_ref()).unwrap();
    Pid::from_raw(identity.pid.unwrap()).unwrap()
}

pub fn text(daemon: &Daemon, run: RunId) -> String {
    daemon
        .output(run)
        .into_iter()
        .filter(|(kind, _)| *kind == ChunkKind::Text)
        .map(|(_, text)| text)
        .collect()
}

#[tokio::test]
async fn a_runner_greets_and_serves_tasks() {
    let (_shim, mut daemon) = ready("ok").await;
    let greeting = daemon.states().into_iter().find_map(|state| match state {
        StateNotice::Greeted { greeting } => Some(greeting.clone()),
        _ => None,
    });
    let greeting = greeting.expect("it greets before it is ready");
    assert!(greeting.tasks.contains("echo") && greeting.capabilities.contains("chat"));
    assert_eq!((greeting.concurrency, greeting.sdk.as_deref()), (4, Some("bare")));

    let run = daemon.task("echo", json!({"é": [1, 2.5, null]})).await;
    assert_eq!(daemon.finished(run).await, RunOutcome::Succeeded);
    assert_eq!(
        daemon.output(run),
        [
            (ChunkKind::Text, "you said ".to_owned()),
            (ChunkKind::Json, r#"{"\u00e9": [1, 2.5, null]}"#.to_owned()),
            (ChunkKind::Result, format!("\"key-{run}\"")),
        ]
    );
    // An input that does not fit into a line comes as bytes.
    let run = daemon.task("length", json!("x".repeat(200_000))).await;
    assert_eq!(daemon.finished(run).await, RunOutcome::Succeeded);
    assert_eq!(daemon.output(run), [(ChunkKind::Result, "200000".to_owned())]);
}

#[tokio::test]
async fn every_kind_of_output_in_its_order_and_large_ones_in_blobs() {
    // B3
    let (shim, mut daemon) = ready("ok").await;
    let run = daemon.task("all_kinds", json!(null)).await;
    let mut checkpoints = Vec::new();
    let outcome = daemon
        .until(|state| match state {
            StateNotice::Checkpointed { run: of, attempt, blob } => {
                assert_eq!((*of, *attempt), (run, Attempt(1)));
                let saved = std::fs::read(shim.blobs().join(&blob.sha256)).unwrap();
                assert_eq!(saved.len() as u64, blob.size);
                checkpoints.push((saved, blob.mime.clone()));
                None
            }
            StateNotice::RunFinished { outcome, .. } => Some(outcome.clone()),
            _ => None,
        })
        .await;
    assert_eq!(outcome, RunOutcome::Succeeded);
    let output = daemon.output(run);
    let shown: Vec<(ChunkKind, &str)> =
        output.iter().map(|(kind, text)| (kind.clone(), text.as_str())).collect();
    assert_eq!(
        shown,
        [
            (ChunkKind::Progress, r#"{"done":1.0,"total":2.0,"message":"half"}"#),
            (ChunkKind::Json, "null"),
            (ChunkKind::Bytes, "\u{fffd}\0\n\n"),
            (ChunkKind::DisplayData, r#"{"data":{"image/png":"iVBORw=="},"metadata":{}}"#),
            (ChunkKind::Bytes, "400000 bytes of application/octet-stream"),
            (ChunkKind::Text, "after the large one"),
            (ChunkKind::Result, r#"{"n": 123456789012345678901234567890}"#),
        ]
    );
    assert_eq!(
        checkpoints,
        [
            (br#"{"step": 1}"#.to_vec(), "application/json".to_owned()),
            (vec![b'y'; 300_000], "application/octet-stream".to_owned()),
        ]
    );
    // A checkpoint stands behind the output that it covers.
    let place =
        |wanted: &dyn Fn(&Notice) -> bool| daemon.records.iter().position(|r| wanted(&r.notice)).unwrap();
    let covered = place(&|notice| match notice {
        Notice::Output { chunks, .. } => chunks.iter().any(|chunk| chunk.kind == ChunkKind::Text),
        Notice::State(_) => false,
    });
    assert!(covered < place(&|notice| matches!(notice, Notice::State(StateNotice::Checkpointed { .. }))));
}

#[tokio::test]
async fn a_hundred_thousand_chunks_come_once_and_in_order() {
    // B3
    const CHUNKS: usize = 100_000;
    let (_shim, mut daemon) = ready("ok").await;
    let run = daemon.task("counts", json!(CHUNKS)).await;
    assert_eq!(daemon.finished(run).await, RunOutcome::Succeeded);
    let expected: String = (0..CHUNKS).map(|n| format!("{n}\n")).collect();
    assert!(text(&daemon, run) == expected);
    assert_eq!(daemon.output(run).len(), CHUNKS + 1, "each is a chunk of its own");
    let records = daemon.records.len();
    assert!(records < CHUNKS / 4, "and many share a record: {records}");
}

#[tokio::test]
async fn what_a_task_raises_is_told_with_its_causes_and_the_runner_lives_on() {
    // A11
    let (_shim, mut daemon) = ready("ok").await;
    let run = daemon.task("raises", json!(null)).await;
    let RunOutcome::Raised { ename, evalue } = daemon.finished(run).await else { panic!("it raises") };
    assert_eq!((ename.as_str(), evalue.as_str()), ("ValueError", "bad input"));
    let [(ChunkKind::Error, error)] = &daemon.output(run)[..] else { panic!("one error chunk") };
    let error: Value = serde_json::from_str(error).unwrap();
    assert_eq!(error["ename"], "ValueError");
    assert_eq!(error["traceback"], json!(["Traceback", "  line"]));
    assert_eq!(error["causes"][0]["ename"], "KeyError");
    let run = daemon.task("counts", json!(1)).await;
    assert_eq!(daemon.finished(run).await, RunOutcome::Succeeded);
}

#[tokio::test]
async fn what_it_raises_before_it_is_ready_is_in_the_report() {
    // A11
    for (begins, kind, phase) in
        [("raises", "ModuleNotFoundError", "connecting"), ("raises_while_loading", "OSError", "loading")]
    {
        let shim = Setup::runner(begins).start();
        let mut daemon = shim.connect(Src(0)).await;
        let report = daemon.exited().await;
        assert_eq!(report.status, ExitStatus::Code { code: 1 });
        assert_eq!((report.evidence.phase, report.evidence.stop), (Life::Launching, None));
        let words = report.evidence.last_words.expect("it said why");
        assert_eq!((words.exception_type.as_str(), words.phase.as_str()), (kind, phase));
        assert!(words.repr.starts_with(kind) && words.task.is_none());
        assert_eq!(report.evidence.violation, None);
        assert!(report.evidence.stderr_tail.contains("started"), "and standard error is its own");
    }
}

#[tokio::test]
async fn last_words_name_the_task() {
    // A11
    let (_shim, mut daemon) = ready("ok").await;
    daemon.task("last_words", json!(null)).await;
    let words = daemon.exited().await.evidence.last_words.expect("it said why");
    assert_eq!((words.message.as_str(), words.phase.as_str()), ("no more", "running"));
    assert_eq!(words.task.as_deref(), Some("last_words"));
}

#[tokio::test]
async fn all_that_it_said_before_a_kill_stands_before_its_end() {
    // A2: a thousand chunks, one of them large, and a word on standard error, then SIGKILL.
    let (_shim, mut daemon) = ready("ok").await;
    let run = daemon.task("dies", json!(null)).await;
    let report = daemon.exited().await;
    assert!(matches!(report.status, ExitStatus::Signal { number: 9, .. }));
    assert_eq!(report.evidence.phase, Life::Busy);
    assert!(report.evidence.stderr_tail.contains("late words"));
    let expected: String = (0..1_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(text(&daemon, run), expected + "last");
    let large = (ChunkKind::Bytes, "400000 bytes of application/octet-stream".to_owned());
    assert_eq!(daemon.output(run)[1_000], large);
    assert_eq!(report.evidence.channel_closed_ms, None, "its end closes the channel too");
    daemon.drained().await;
}

#[tokio::test]
async fn a_native_crash_is_its_signal() {
    // A2
    let (_shim, mut daemon) = ready("ok").await;
    let run = daemon.task("aborts", json!(null)).await;
    assert!(matches!(daemon.exited().await.status, ExitStatus::Signal { number: 11, .. }));
    assert_eq!(text(&daemon, run), "before");
}

#[tokio::test]
async fn an_exit_in_mid_work_is_told_as_that() {
    // A10
    let (_shim, mut daemon) = ready("ok").await;
    let run = daemon.task("exits", json!(null)).await;
    let report = daemon.exited().await;
    assert_eq!((report.status, report.evidence.phase), (ExitStatus::Code { code: 0 }, Life::Busy));
    assert_eq!((report.evidence.stop, text(&daemon, run).as_str()), (None, "half"));
    let ended = daemon.states().into_iter().any(|state| matches!(state, StateNotice::RunFinished { .. }));
    assert!(!ended, "the end of the process is not the runner's terminal");
}

#[tokio::test]
async fn a_child_that_holds_the_channel_delays_nothing_and_goes() {
    // A8
    let (_shim, mut daemon) = ready("ok").await;
    daemon.task("leaves_a_child", json!(null)).await;
    assert_eq!(daemon.exited().await.status, ExitStatus::Code { code: 3 });
    daemon.drained().await;
}

#[tokio::test]
async fn a_stopped_runner_is_unresponsive_and_comes_back() {
    // A4
    let (shim, mut daemon) = ready("ok").await;
    let run = daemon.task("waits", json!(null)).await;
    kill_process(pid(&shim), Signal::STOP).unwrap();
    let hang = daemon
        .until(|state| match state {
            StateNotice::Unresponsive { hang } => Some(hang.clone()),
            _ => None,
        })
        .await;
    assert!(hang.silent_ms < 8_000 && hang.state == Some('T'), "{hang:?}");
    kill_process(pid(&shim), Signal::CONT).unwrap();
    daemon.until(|state| matches!(state, StateNotice::Responsive).then_some(())).await;
    daemon.say(&ToShim::CancelTask { run, attempt: Attempt(1) }).await;
    assert_eq!(daemon.finished(run).await, RunOutcome::Cancelled { why: CancelWhy::User });
    assert_eq!(text(&daemon, run), "waiting");
}

#[tokio::test]
async fn one_that_holds_its_lock_is_at_most_unresponsive() {
    // A5
    let (_shim, mut daemon) = ready("ok").await;
    let run = daemon.task("holds_the_lock", json!(null)).await;
    assert_eq!(daemon.finished(run).await, RunOutcome::Succeeded);
    let said: Vec<&StateNotice> = daemon.states();
    let hangs = said.iter().filter(|state| matches!(state, StateNotice::Unresponsive { .. })).count();
    assert_eq!(hangs, 1, "{said:?}");
    assert!(!said.iter().any(|state| matches!(state, StateNotice::Exited { .. })));
}

#[tokio::test]
async fn it_is_asked_to_stop_and_does() {
    // A9
    let (shim, mut daemon) = ready("ok").await;
    daemon.stop(StopStep::Ask).await;
    let report = daemon.exited().await;
    assert_eq!(report.status, ExitStatus::Code { code: 0 });
    let stop = report.evidence.stop.unwrap();
    assert_eq!((stop.why, stop.step, report.evidence.phase), (StopWhy::User, StopStep::Ask, Life::Stopping));
    assert!(report.evidence.stderr_tail.contains("shutting down"), "its own clean-up runs");
    daemon.drained().await;
    daemon.say(&ToShim::Goodbye).await;
    shim.ended().await;
}

#[tokio::test]
async fn one_that_ignores_everything_is_killed_step_by_step() {
    // A8, A9
    let mut setup = Setup::runner("ignores_shutdown");
    (setup.launch.ladder.ask_ms, setup.launch.ladder.term_ms) = (200, 200);
    let (_shim, mut daemon) = ready_with(setup).await;
    daemon.stop(StopStep::Ask).await;
    assert!(matches!(daemon.exited().await.status, ExitStatus::Signal { number: 9, .. }));
    assert_eq!(daemon.steps(), [StopStep::Ask, StopStep::Term, StopStep::Kill]);
}

#[tokio::test]
async fn a_cancel_is_told_once_and_a_task_is_given_once() {
    let (_shim, mut daemon) = ready("ok").await;
    let run = daemon.task("waits", json!(null)).await;
    daemon.task_again(run, Attempt(1), "waits", json!(null)).await;
    for _ in 0..2 {
        daemon.say(&ToShim::CancelTask { run, attempt: Attempt(1) }).await;
    }
    assert_eq!(daemon.finished(run).await, RunOutcome::Cancelled { why: CancelWhy::User });
    daemon.say(&ToShim::CancelTask { run, attempt: Attempt(1) }).await;
    daemon.task_again(run, Attempt(1), "waits", json!(null)).await;
    // Another attempt is another task; when it is done nothing of the above was done twice.
    daemon.task_again(run, Attempt(2), "counts", json!(1)).await;
    assert_eq!(daemon.finished(run).await, RunOutcome::Succeeded);
    assert_eq!(text(&daemon, run), "waiting0\n");
    let given_up = daemon.task("gives_up", json!(null)).await;
    let outcome = daemon.finished(given_up).await;
    assert!(
        matches!(outcome, RunOutcome::Raised { ename, .. } if ename == "Cancelled"),
        "nobody had told it to"
    );
}

#[tokio::test]
async fn loading_is_told_as_fast_as_people_read() {
    let (_shim, daemon) = ready("loads").await;
    let told: Vec<Phase> = daemon
        .states()
        .into_iter()
        .filter_map(|state| match state {
            StateNotice::Entered { phase, .. } => Some(*phase),
            _ => None,
        })
        .collect();
    assert!(told.contains(&Phase::Loading) && told.contains(&Phase::WarmingUp));
    assert!(told.len() < 100, "{} times for a thousand", told.len());
}

#[tokio::test]
async fn a_daemon_that_dies_in_mid_task_loses_and_doubles_nothing() {
    // D1, B4
    const CHUNKS: usize = 20_000;
    let mut setup = Setup::runner("ok");
    setup.launch.memory_bytes_max = 20_000;
    let (shim, mut daemon) = ready_with(setup).await;
    let run = daemon.task("counts", json!(CHUNKS)).await;
    let mut all = String::new();
    let mut deaths = 0;
    loop {
        let record = daemon.record().await;
        let stored = record.src;
        if let Notice::State(StateNotice::RunFinished { outcome, .. }) = record.notice {
            assert_eq!(outcome, RunOutcome::Succeeded);
            break;
        }
        if record.src.0 % 5 == 3 && deaths < 20 {
            deaths += 1;
            all.push_str(&text(&daemon, run));
            drop(daemon);
            daemon = shim.connect(stored).await;
        }
    }
    all.push_str(&text(&daemon, run));
    let expected: String = (0..CHUNKS).map(|n| format!("{n}\n")).collect();
    assert!(deaths > 3 && all == expected, "{deaths} deaths, {} of {} bytes", all.len(), expected.len());
}

#[tokio::test]
async fn a_runner_waits_when_nobody_takes_its_output_and_is_not_accused() {
    // D4
    const CHUNKS: usize = 200_000;
    let mut setup = Setup::runner("ok").watch(|watch| watch.between_chunks_ms = Some(2_500));
    (setup.launch.memory_bytes_max, setup.launch.spool_bytes_max) = (100_000, 200_000);
    let (shim, mut daemon) = ready_with(setup).await;
    let run = daemon.task("counts", json!(CHUNKS)).await;
    while text(&daemon, run).is_empty() {
        daemon.record().await;
    }
    let (stored, mut all) = (daemon.last, text(&daemon, run));
    drop(daemon);
    seen("back-pressure", || {
        let threads = std::fs::read_dir(format!("/proc/{}/task", pid(&shim).as_raw_pid())).unwrap();
        threads.flatten().any(|thread| {
            std::fs::read_to_string(thread.path().join("wchan")).is_ok_and(|place| place.contains("pipe_w"))
        })
    })
    .await;
    // Longer than a watchdog and the heartbeat would wait.
    let mut wait = tokio::time::interval(Duration::from_millis(4_000));
    wait.tick().await;
    wait.tick().await;
    let mut daemon = shim.connect(stored).await;
    assert_eq!(daemon.finished(run).await, RunOutcome::Succeeded);
    all.push_str(&text(&daemon, run));
    let expected: String = (0..CHUNKS).map(|n| format!("{n}\n")).collect();
    assert!(all == expected, "{} of {} bytes", all.len(), expected.len());
    let accused = |state: &&&StateNotice| {
        matches!(
            state,
            StateNotice::Unresponsive { .. } | StateNotice::Stalled { .. } | StateNotice::Gap { .. }
        )
    };
    assert_eq!(daemon.states().iter().find(accused), None);
}

#[tokio::test]
async fn the_runner_goes_with_its_shim() {
    // A15
    let (shim, _daemon) = ready("ok").await;
    let cgroups = outlive_shim::identity::read(shim.launch.directory.as_ref()).unwrap().cgroups;
    let runner = pid(&shim).as_raw_pid();
    shim.process.signal(Signal::KILL).unwrap();
    // What the daemon does then; the runner itself sees the end of its channel, and this one ends by that.
    outlive_process::sweep(shim.launch.process, &cgroups).await;
    seen("its end", || ProcStat::read(runner).map_or(true, |stat| stat.has_ended())).await;
}

#[tokio::test]
async fn one_that_speaks_nothing_is_ready_and_supervised() {
    let script =
        "ls /proc/self/fd | wc -l; echo ${OUTLIVE_RUNNER-none} $OUTLIVE_RUNNER_NAME; exec sleep 1000";
    let mut setup = Setup::runner_of(&["sh", "-c", script], Watchdogs::default());
    if let Program::Runner { speaks, .. } = &mut setup.launch.spec.program {
        *speaks = Speaks::Nothing;
    }
    let (shim, mut daemon) = ready_with(setup).await;
    daemon.until_text("none test-0").await;
    assert!(daemon.text(ChunkKind::Stdout).starts_with("4\n"), "it has no channel");
    kill_process(pid(&shim), Signal::SEGV).unwrap();
    let report = daemon.exited().await;
    assert!(matches!(report.status, ExitStatus::Signal { number: 11, .. }));
    assert_eq!(report.evidence.phase, Life::Busy, "its life is its work");
}

#[tokio::test]
async fn the_smallest_runner_is_a_shell_script() {
    let script = r#"
        printf '%s\n' '{"type":"hello","version":1,"tasks":["t"]}' '{"type":"state","state":"ready"}' >&4
        while read -r line <&3; do
            case $line in
            *'"type":"ping"'*) printf '%s\n' "$line" | sed 's/ping/pong/' >&4 ;;
            *'"type":"task"'*)
                id=${line#*'"id":"'}; id=${id%%'"'*}
                printf '{"type":"result","id":"%s","attempt":1,"value":7}\n' "$id" >&4 ;;
            *'"type":"shutdown"'*) printf '{"type":"end"}\n' >&4; exit 0 ;;
            esac
        done"#;
    let (_shim, mut daemon) = ready_with(Setup::runner_of(&["sh", "-c", script], Watchdogs::default())).await;
    let run = daemon.task("t", json!(null)).await;
    assert_eq!(daemon.finished(run).await, RunOutcome::Succeeded);
    assert_eq!(daemon.output(run), [(ChunkKind::Result, "7".to_owned())]);
    daemon.stop(StopStep::Ask).await;
    assert_eq!(daemon.exited().await.status, ExitStatus::Code { code: 0 });
}

#[tokio::test]
async fn a_shim_of_a_runner_is_small() {
    // As for commands: a second one stands for the daemon, which is the same program.
    let (_other, _daemon) = ready("ok").await;
    let (shim, mut daemon) = ready("ok").await;
    let run = daemon.task("counts", json!(10_000)).await;
    assert_eq!(daemon.finished(run).await, RunOutcome::Succeeded);
    let run = new_run();
    daemon.task_again(run, Attempt(1), "all_kinds", json!(null)).await;
    assert_eq!(daemon.finished(run).await, RunOutcome::Succeeded);
    let private = shim.private_bytes();
    assert!(private < 4 << 20, "{private} bytes");
}

#[tokio::test]
async fn several_tasks_at_a_time_keep_their_own_order() {
    const CHUNKS: usize = 5_000;
    let (_shim, mut daemon) = ready("ok").await;
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(daemon.task("counts", json!(CHUNKS)).await);
    }
    let mut left = open.clone();
    while !left.is_empty() {
        let ended = daemon
            .until(|state| match state {
                StateNotice::RunFinished { run, .. } => Some(*run),
                _ => None,
            })
            .await;
        left.retain(|run| *run != ended);
        // Everything of it stands before its end.
        let expected: String = (0..CHUNKS).map(|n| format!("{n}\n")).collect();
        assert!(text(&daemon, ended) == expected);
    }
}
