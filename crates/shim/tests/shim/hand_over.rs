//! What goes on elsewhere, and what is known there already.

use crate::runner::{ready, text};
use crate::support::{Daemon, Setup, new_run};
use outlive_core::id::{Attempt, RunId, Src};
use outlive_core::log::ChunkKind;
use outlive_core::runtime::runner::Replay;
use outlive_core::runtime::{ExitStatus, StopStep, StopWhy};
use outlive_core::session::{CancelWhy, RunOutcome};
use outlive_protocol::replay::Said;
use outlive_protocol::shim::ToShim;
use serde_json::json;

/// What `counts` has said of these.
fn counted(numbers: impl IntoIterator<Item = u32>) -> Replay {
    let mut said = Said::default();
    for n in numbers {
        said.add_content(&ChunkKind::Text, format!("{n}\n").as_bytes());
    }
    said.replay()
}

async fn counts_again(daemon: &mut Daemon, to: u32, replay: Replay) -> (RunId, RunOutcome) {
    let run = new_run();
    daemon.task_replayed(run, Attempt(2), ("counts", json!(to)), Some(replay)).await;
    let outcome = daemon.finished(run).await;
    (run, outcome)
}

#[tokio::test]
async fn what_a_task_says_again_is_dropped_and_what_is_new_is_told() {
    // E10
    let (_shim, mut daemon) = ready("ready").await;
    let (run, outcome) = counts_again(&mut daemon, 6, counted(0..3)).await;
    assert_eq!((outcome, text(&daemon, run)), (RunOutcome::Succeeded, "3\n4\n5\n".to_owned()));
    let (run, outcome) = counts_again(&mut daemon, 3, counted(0..3)).await;
    assert_eq!(
        (outcome, daemon.output(run)),
        (RunOutcome::Succeeded, vec![(ChunkKind::Result, "3".to_owned())])
    );
    let mut all = Said::default();
    for (kind, content) in [(ChunkKind::Text, "0\n"), (ChunkKind::Result, "1")] {
        all.add_content(&kind, content.as_bytes());
    }
    let (run, outcome) = counts_again(&mut daemon, 1, all.replay()).await;
    assert_eq!(
        (outcome, daemon.output(run)),
        (RunOutcome::Succeeded, Vec::new()),
        "only its end was not known"
    );
}

#[tokio::test]
async fn a_task_that_says_something_else_or_less_is_never_taken_for_a_replay() {
    // E10
    let (_shim, mut daemon) = ready("ready").await;
    for (to, replay, how) in [
        (6, counted([0, 1, 7]), "something else"),
        (2, counted(0..5), "3 of 5"),
        (4, Replay { chunks: 5, sha256: "unknown".to_owned() }, "something else"),
    ] {
        let (run, outcome) = counts_again(&mut daemon, to, replay).await;
        let RunOutcome::Raised { ename, evalue } = outcome else { panic!("{outcome:?}") };
        assert_eq!(ename, "ReplayMismatch");
        assert!(evalue.contains(how), "{evalue}");
        assert!(daemon.violated().await.0.contains(how));
        let told: Vec<_> = daemon.output(run).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(told, [ChunkKind::Error], "nothing of it is shown beside what is known");
    }
    let run = daemon.task("echo", json!("fine")).await;
    assert_eq!(daemon.finished(run).await, RunOutcome::Succeeded, "the runner goes on");
}

#[tokio::test]
async fn a_drained_runner_hands_its_tasks_over_and_one_that_is_only_stopped_must_not() {
    // E2
    let (_shim, mut daemon) = ready("ready").await;
    let run = daemon.task("never_ends", json!(null)).await;
    daemon.say(&ToShim::Stop { why: StopWhy::Drain, from: StopStep::Ask }).await;
    assert_eq!(daemon.finished(run).await, RunOutcome::Cancelled { why: CancelWhy::Stopped });
    assert_eq!(daemon.exited().await.status, ExitStatus::Code { code: 0 });

    let (_shim, mut daemon) = ready("always_stops").await;
    let run = daemon.task("never_ends", json!(null)).await;
    daemon.stop(StopStep::Ask).await;
    let RunOutcome::Raised { ename, .. } = daemon.finished(run).await else { panic!("it gave it up") };
    assert_eq!(ename, "Stopped");
}

#[tokio::test]
async fn a_command_knows_its_session_run_and_attempt_and_a_runner_its_session() {
    // E8: whoever it asks for something outside can tell one run from another, and not one attempt from the next.
    let mut setup =
        Setup::command(&["sh", "-c", "echo $OUTLIVE_SESSION_ID $OUTLIVE_RUN_ID $OUTLIVE_ATTEMPT"]);
    setup.launch.spec.env.insert("OUTLIVE_RUN_ID".to_owned(), "of another".to_owned());
    let shim = setup.start();
    let mut daemon = shim.connect(Src(0)).await;
    let run = new_run();
    let (attempt, code) = (Attempt(3), String::new());
    daemon.say(&ToShim::Execute { run, attempt, code, allow_stdin: false, silent: false }).await;
    daemon.exited().await;
    assert_eq!(daemon.text(ChunkKind::Stdout), format!("{} {run} 3\n", shim.launch.session));
    let (shim, _daemon) = ready("ready").await;
    let identity = outlive_shim::identity::read(shim.launch.directory.as_ref()).unwrap();
    let env = std::fs::read(format!("/proc/{}/environ", identity.pid.unwrap())).unwrap();
    let wanted = format!("OUTLIVE_SESSION_ID={}", shim.launch.session);
    assert!(env.split(|byte| *byte == 0).any(|pair| pair == wanted.as_bytes()));
}
