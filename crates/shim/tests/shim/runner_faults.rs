//! What a runner can do wrong: each has its name, costs bounded memory, and touches nobody else. Nothing is stopped for
//! it here: that is the daemon's to decide.

use crate::runner::{pid, ready, ready_with, text};
use crate::support::{Daemon, Setup, Shim, seen};
use outlive_core::diagnosis::evidence::StallEvidence;
use outlive_core::id::{Attempt, RunId, Src};
use outlive_core::limits::VIOLATIONS_TOLD_MAX;
use outlive_core::log::ChunkKind;
use outlive_core::runtime::{ExitReport, ExitStatus, StopStep, StopWhy};
use outlive_core::session::RunOutcome;
use outlive_protocol::shim::{Notice, StateNotice, ToShim};
use serde_json::json;

/// Ends it as the daemon would.
async fn ended_for(daemon: &mut Daemon, why: StopWhy) -> ExitReport {
    daemon.say(&ToShim::Stop { why, from: StopStep::Term }).await;
    let report = daemon.exited().await;
    assert_eq!(report.evidence.stop.as_ref().map(|stop| stop.why), Some(why));
    report
}

#[tokio::test]
async fn what_cannot_be_a_frame_is_named_and_ends_the_conversation() {
    // B1, on receive: each while another task is open, whose output stands.
    for (task, wanted) in [
        ("garbage", "not a frame"),
        ("bad_utf8", "not UTF-8"),
        ("long_line", "more than 65536 bytes"),
        ("lying_length", "not followed by a newline"),
        ("too_many_bytes", "over the limit of 16777216"),
    ] {
        let (shim, mut daemon) = ready("ok").await;
        let other = daemon.task("waits", json!(null)).await;
        while text(&daemon, other) != "waiting" {
            daemon.record().await;
        }
        daemon.task(task, json!(null)).await;
        let (what, is_fatal) = daemon.violated().await;
        assert!(what.contains(wanted) && is_fatal, "{task}: {what}");
        assert!(what.len() < 300, "{task}: {what}");
        assert!(shim.private_bytes() < 24 << 20, "{task}: {} bytes", shim.private_bytes());
        let report = ended_for(&mut daemon, StopWhy::Violation).await;
        assert_eq!(report.evidence.violation, Some(what), "{task}");
        assert!(report.evidence.hang.is_none(), "{task}: one that is not heard is not accused");
        assert_eq!(text(&daemon, other), "waiting");
    }
}

#[tokio::test]
async fn a_conversation_begins_with_a_hello_of_a_version_that_is_spoken() {
    // B1
    for (begins, wanted) in [("no_hello", "first frame is `state`"), ("of_another_version", "version 9")] {
        let shim = Setup::runner(begins).start();
        let mut daemon = shim.connect(Src(0)).await;
        let (what, is_fatal) = daemon.violated().await;
        assert!(what.contains(wanted) && is_fatal, "{what}");
        let report = ended_for(&mut daemon, StopWhy::Violation).await;
        assert_eq!(report.evidence.violation, Some(what));
    }
}

#[tokio::test]
async fn what_is_about_no_task_is_dropped_and_told() {
    let (_shim, mut daemon) = ready("ok").await;
    for (task, wanted) in [
        (
            "of_a_stranger",
            "`chunk` of task 00000000-0000-4000-8000-000000000000 (1), which it was never given",
        ),
        ("ends_twice", "which has ended"),
        ("empty_chunk", "none of"),
        ("bad_result", "no JSON"),
    ] {
        let run = daemon.task(task, json!(null)).await;
        let (what, is_fatal) = daemon.violated().await;
        assert!(what.contains(wanted) && !is_fatal, "{task}: {what}");
        let open = daemon.task("counts", json!(1)).await;
        assert_eq!(daemon.finished(open).await, RunOutcome::Succeeded, "the others go on");
        let ends: Vec<&StateNotice> = daemon
            .states()
            .into_iter()
            .filter(|state| matches!(state, StateNotice::RunFinished { run: ended, .. } if *ended == run))
            .collect();
        assert_eq!(ends.len(), 1, "{task}: one terminal");
        assert!(!daemon.output(run).iter().any(|(_, text)| text == "and more"), "nothing after its terminal");
    }
    let report = ended_for(&mut daemon, StopWhy::User).await;
    assert_eq!(report.evidence.violation, None, "that is not why it ends");
}

#[tokio::test]
async fn complaints_have_an_end() {
    let (_shim, mut daemon) = ready("ok").await;
    let run = daemon.task("complains", json!(null)).await;
    assert_eq!(daemon.finished(run).await, RunOutcome::Succeeded);
    let told =
        daemon.states().into_iter().filter(|state| matches!(state, StateNotice::Violated { .. })).count();
    assert_eq!(told, VIOLATIONS_TOLD_MAX as usize);
}

#[tokio::test]
async fn a_channel_that_is_closed_without_end_is_told_when_the_process_lives_on() {
    let (_shim, mut daemon) = ready("ok").await;
    daemon.task("closes", json!(null)).await;
    let (what, is_fatal) = daemon.violated().await;
    assert!(what.contains("closed its channel") && is_fatal, "{what}");
    let report = ended_for(&mut daemon, StopWhy::Violation).await;
    assert!(report.evidence.channel_closed_ms.is_some_and(|lived| lived >= 1_000), "{:?}", report.evidence);
    assert_eq!((report.evidence.violation, report.evidence.hang), (None, None));
}

#[tokio::test]
async fn one_that_says_end_and_lives_on_is_told() {
    let (_shim, mut daemon) = ready("ok").await;
    daemon.task("says_end", json!(null)).await;
    let (what, is_fatal) = daemon.violated().await;
    assert!(what.contains("said `end` and lives on") && is_fatal, "{what}");
}

#[tokio::test]
async fn a_task_over_the_limits_ends_and_the_runner_does_not_notice() {
    // B1, on send
    let (_shim, mut daemon) = ready("ok").await;
    let order = daemon.task(&"n".repeat(100_000), json!(null)).await;
    let outcome = daemon.finished(order).await;
    assert!(matches!(&outcome, RunOutcome::Raised { ename, .. } if ename == "FrameTooLarge"), "{outcome:?}");
    let [(ChunkKind::Error, error)] = &daemon.output(order)[..] else { panic!("with an error chunk") };
    assert!(error.contains("over the limit of 65536 bytes"), "{error}");
    let run = daemon.task("counts", json!(1)).await;
    assert_eq!(daemon.finished(run).await, RunOutcome::Succeeded);
}

#[tokio::test]
async fn a_runner_that_does_not_read_is_given_no_more_than_fits() {
    let script = r#"printf '%s\n' '{"type":"hello","version":1,"tasks":["t"]}' '{"type":"state","state":"ready"}' >&4
                    exec sleep 1000"#;
    let (shim, mut daemon) = ready_with(Setup::runner_of(&["sh", "-c", script], Default::default())).await;
    let mut refused = None;
    for _ in 0..60 {
        refused = Some(daemon.task("t", json!("x".repeat(400_000))).await);
    }
    let outcome = daemon.finished(refused.unwrap()).await;
    assert!(matches!(&outcome, RunOutcome::Raised { ename, .. } if ename == "RunnerBusy"), "{outcome:?}");
    assert!(shim.private_bytes() < 40 << 20, "{} bytes", shim.private_bytes());
}

async fn stall_of(shim_and_daemon: (Shim, Daemon)) -> (StallEvidence, Option<RunId>, ExitReport) {
    let (_shim, mut daemon) = shim_and_daemon;
    let (stall, run) = daemon
        .until(|state| match state {
            StateNotice::Stalled { stall, run } => Some((stall.clone(), *run)),
            _ => None,
        })
        .await;
    let report = ended_for(&mut daemon, StopWhy::Stalled).await;
    let stalls =
        daemon.states().into_iter().filter(|state| matches!(state, StateNotice::Stalled { .. })).count();
    assert_eq!(stalls, 1, "a stall is told once");
    (stall, run, report)
}

#[tokio::test]
async fn a_runner_that_does_not_get_ready_stalls() {
    for begins in ["silent", "stops_loading"] {
        let shim = Setup::runner(begins).watch(|watch| watch.load_ms = Some(400)).start();
        let daemon = shim.connect(Src(0)).await;
        let (stall, run, report) = stall_of((shim, daemon)).await;
        assert_eq!((stall.phase.as_str(), stall.limit_ms, run), ("load", 400, None));
        assert_eq!(report.evidence.stall, Some(stall));
    }
}

#[tokio::test]
async fn a_task_without_progress_stalls_in_its_phase() {
    for (task, phase) in
        [("stands_still", "first chunk"), ("never_ends", "between chunks"), ("half_a_frame", "first chunk")]
    {
        let setup = Setup::runner("ok").watch(|watch| {
            (watch.first_chunk_ms, watch.between_chunks_ms) = (Some(500), Some(500));
        });
        let (shim, mut daemon) = ready_with(setup).await;
        let given = daemon.task(task, json!(null)).await;
        let (stall, run, report) = stall_of((shim, daemon)).await;
        assert_eq!((stall.phase.as_str(), run), (phase, Some(given)), "{task}");
        assert!(stall.silent_ms >= 500 && report.evidence.stall.is_some());
    }
}

#[tokio::test]
async fn progress_ends_a_stall() {
    let setup = Setup::runner("ok").watch(|watch| watch.between_chunks_ms = Some(300));
    let (_shim, mut daemon) = ready_with(setup).await;
    let run = daemon.task("waits", json!(null)).await;
    daemon.until(|state| matches!(state, StateNotice::Stalled { .. }).then_some(())).await;
    daemon.say(&ToShim::CancelTask { run, attempt: Attempt(1) }).await;
    daemon.finished(run).await;
    let report = ended_for(&mut daemon, StopWhy::User).await;
    assert_eq!(report.evidence.stall, None);
}

#[tokio::test]
async fn a_flood_on_standard_error_does_not_hold_tasks_up() {
    // A13: 100 MB beside two hundred chunks; neither waits for the other, and the tail is kept.
    const PIECES: usize = 1_600;
    let (shim, mut daemon) = ready("ok").await;
    let run = daemon.task("floods_stderr", json!(PIECES)).await;
    let (mut flood, mut of_nobody) = (0, true);
    loop {
        match daemon.record().await.notice {
            Notice::Output { run, chunks } => {
                for chunk in chunks.iter().filter(|chunk| chunk.kind == ChunkKind::Stderr) {
                    flood += chunk.payload.size();
                    of_nobody &= run.is_none();
                }
            }
            Notice::State(StateNotice::RunFinished { outcome, .. }) => {
                assert_eq!(outcome, RunOutcome::Succeeded);
                break;
            }
            Notice::State(_) => {}
        }
        daemon.records.retain(|record| {
            !matches!(&record.notice, Notice::Output { chunks, .. } if chunks[0].kind == ChunkKind::Stderr)
        });
    }
    assert_eq!(daemon.output(run).len(), 201);
    assert!(of_nobody, "what stands on standard error belongs to no task");
    assert!(shim.private_bytes() < 24 << 20, "{} bytes", shim.private_bytes());
    let report = ended_for(&mut daemon, StopWhy::User).await;
    assert!(flood > 90_000_000 && report.evidence.stderr_bytes >= flood, "{flood} bytes");
    assert!(report.evidence.stderr_tail.ends_with("eee"));
}

#[tokio::test]
async fn one_that_writes_garbage_for_ever_is_stopped_by_a_wish_and_by_nothing_else() {
    // 100,000 lines are far more than the pipe holds: it waits, and does not die of a closed pipe meanwhile.
    let script = r#"i=0; while [ $i -lt 100000 ]; do echo garbage >&4; i=$((i+1)); done; echo done"#;
    let shim = Setup::runner_of(&["sh", "-c", script], Default::default()).start();
    let mut daemon = shim.connect(Src(0)).await;
    let (what, _) = daemon.violated().await;
    assert!(what.contains("garbage"), "{what}");
    seen("that it waits", || {
        let pid = pid(&shim).as_raw_pid();
        std::fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok_and(|place| place.contains("pipe_w"))
    })
    .await;
    let report = ended_for(&mut daemon, StopWhy::Violation).await;
    assert!(matches!(report.status, ExitStatus::Signal { number: 15, .. }), "{:?}", report.status);
    assert_eq!(daemon.text(ChunkKind::Stdout), "");
}
