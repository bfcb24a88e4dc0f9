//! Tasks and what their readers see.

use outlive_core::id::{Attempt, Cursor, RunId, Seq};
use outlive_core::log::ChunkKind;
use outlive_core::runtime::ExitStatus;
use outlive_core::session::RunOutcome;
use outlive_core::session::outcome::CancelWhy;
use outlive_node::api::{Api, AttachRun, Groups};
use outlive_protocol::http::{RunState, SubmitTask};
use serde_json::json;
use uuid::Uuid;

use super::world::{PATIENCE, Told, World, group, task};

#[tokio::test]
async fn a_task_is_served_and_told_to_whoever_comes() {
    // B4: nobody is attached while it runs.
    let world = World::new();
    let daemon = world.daemon().await;
    let view = daemon.up(&["a"]).await;
    assert_eq!((view.kind.as_str(), view.title.as_str()), ("runners", "g"));
    let run = daemon.submit(task("echo", json!(["one", "two"]))).await;
    let told = daemon.read(&run).await;
    assert_eq!(told.texts(), ["one", "two"]);
    assert_eq!(told.chunks.last(), Some(&(ChunkKind::Result, "2".to_owned())));
    assert_eq!(told.outcome, Some(RunOutcome::Succeeded));
    let again = daemon.read(&run).await;
    assert_eq!(again.chunks, told.chunks, "a late reader sees the same");
    let from = Cursor { attempt: Attempt(1), seq: Seq(1) };
    let mut rest = Told::default();
    rest.chunks.push((ChunkKind::Text, "one".to_owned()));
    let mut events = daemon.attach(&run, from).await;
    while rest.next(&mut events).await {}
    assert_eq!(rest.chunks, told.chunks, "by cursor it goes on");
    let runs = daemon.node.runs(run.session).await.unwrap();
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0].state, RunState::Ended { outcome: RunOutcome::Succeeded });
    let asked = runs[0].task.as_ref().unwrap();
    assert_eq!((asked.task.as_str(), asked.member.as_deref()), ("echo", Some("a")));
    assert_eq!(runs[0].source, r#"echo ["one","two"]"#);
    let metrics = daemon.node.metrics().await;
    assert!(metrics.contains("outlive_tasks_total{outcome=\"succeeded\"} 1"), "{metrics}");
}

#[tokio::test]
async fn the_same_id_or_key_again_is_the_same_task() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.up(&["a"]).await;
    let id = RunId::from_uuid(Uuid::now_v7());
    let first = daemon
        .submit(SubmitTask { id: Some(id), key: Some("k".to_owned()), ..task("echo", json!(["x"])) })
        .await;
    assert_eq!(first.id, id);
    assert_eq!(daemon.read(&first).await.texts(), ["x"]);
    let by_id = daemon.submit(SubmitTask { id: Some(id), ..task("echo", json!(["x"])) }).await;
    let keyed = |task| SubmitTask { key: Some("k".to_owned()), ..task };
    let by_key = daemon.submit(keyed(task("echo", json!(["x"])))).await;
    assert_eq!((by_id.id, by_key.id), (id, id));
    for (other, why) in
        [(task("echo", json!(["y"])), "another input"), (task("hold", json!(["x"])), "\"echo\"")]
    {
        let refused = daemon.node.submit_task("g", keyed(other)).await.unwrap_err();
        assert_eq!(refused.code, "key-of-another-task", "its output would be a wrong answer");
        assert!(refused.detail.contains(why) && refused.detail.contains("\"k\""), "{refused}");
    }
    assert_eq!(daemon.node.runs(first.session).await.unwrap().len(), 1, "it was done once");
}

#[tokio::test]
async fn a_death_is_told_to_its_tasks_before_their_end_and_each_ends_once() {
    // A10 A12
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.up(&["a"]).await;
    let runs = [daemon.submit(task("hold", json!({}))).await, daemon.submit(task("hold", json!({}))).await];
    let (process, _) = world.runners.given(runs[0].id, 1).await;
    world.runners.given(runs[1].id, 1).await;
    world.runners.text(process, runs[0].id, "last");
    world.runners.dies(process, ExitStatus::Code { code: 0 }, None);
    let mut reports = Vec::new();
    for run in &runs {
        let told = daemon.read(run).await;
        let Some(RunOutcome::Failed { report, .. }) = told.outcome else { panic!("{told:?}") };
        let (kind, content) = told.chunks.last().unwrap();
        assert_eq!(*kind, ChunkKind::Error, "exit 0 with work in flight is a failure: {told:?}");
        assert!(content.contains(&report.to_string()), "{content}");
        assert_eq!(told.reports, 1);
        reports.push(report);
    }
    assert_eq!(daemon.read(&runs[0]).await.texts(), ["last"], "nothing sent before the end is lost");
    assert_eq!(reports[0], reports[1], "one death, one report");
    let all = daemon.node.reports(runs[0].session).await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].interrupted.len(), 2);
    daemon.clock.advance(60_000);
    let view = daemon.until(|view| group(view).members[0].runtime.incarnation.0 == 2).await;
    assert_eq!(view.runs.failed, 2);
    let run = daemon.submit(task("echo", json!(["again"]))).await;
    assert_eq!(daemon.read(&run).await.texts(), ["again"], "its successor serves");
}

#[tokio::test]
async fn an_idempotent_task_goes_on_elsewhere_from_its_checkpoint() {
    // B3 B5
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.up(&["a", "b"]).await;
    let run = daemon.submit(SubmitTask { idempotent: true, ..task("hold", json!({ "n": 1 })) }).await;
    let (first, order) = world.runners.given(run.id, 1).await;
    assert_eq!(order.checkpoint, None);
    let mut events = daemon.attach(&run, Cursor::default()).await;
    let mut told = Told::default();
    for text in ["1", "2"] {
        world.runners.text(first, run.id, text);
    }
    world.runners.checkpoint(first, run.id, 3);
    world.runners.text(first, run.id, "lost");
    while told.texts().len() < 3 {
        assert!(told.next(&mut events).await);
    }
    world.runners.dies(first, ExitStatus::Signal { number: 9, core_dumped: false }, None);
    let (second, order) = world.runners.given(run.id, 2).await;
    assert_ne!(first.runtime, second.runtime, "another one has it");
    let saved = order.checkpoint.unwrap();
    assert_eq!(saved.seq, Seq(2));
    assert!(saved.file.ends_with(&"5".repeat(64)) && saved.file.starts_with(world.path().to_str().unwrap()));
    assert_eq!(order.key, run.task.as_ref().unwrap().key, "the work is the same");
    world.runners.text(second, run.id, "3");
    // What the first still says is not the task's any more.
    world.runners.text(first, run.id, "late");
    world.runners.finish(second, run.id, RunOutcome::Succeeded);
    let rest = async { while told.next(&mut events).await {} };
    tokio::time::timeout(PATIENCE, rest).await.unwrap();
    assert_eq!(told.texts(), ["1", "2", "3"]);
    assert_eq!((told.resets.as_slice(), &told.outcome), ([2].as_slice(), &Some(RunOutcome::Succeeded)));
    let late = daemon.read(&run).await;
    assert_eq!((late.chunks, late.resets), (told.chunks, vec![]), "a late reader sees the final text once");
}

#[tokio::test]
async fn a_cancelled_task_ends_once_whether_it_waits_runs_or_does_not_listen() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.up(&["a"]).await;
    let held = daemon.submit(task("hold", json!({}))).await;
    let deaf = daemon.submit(task("deaf", json!({}))).await;
    let queued = daemon.submit(task("hold", json!({}))).await;
    let (process, _) = world.runners.given(deaf.id, 1).await;
    world.runners.given(held.id, 1).await;
    let cancelled = RunOutcome::Cancelled { why: CancelWhy::User };
    for run in [&queued, &held] {
        daemon.node.cancel_task("g", run.id).await.unwrap();
        assert_eq!(daemon.read(run).await.outcome.as_ref(), Some(&cancelled));
        // Again: it has ended, and that is all there is to say.
        let again = daemon.node.cancel_task("g", run.id).await.unwrap();
        assert_eq!(again.state, RunState::Ended { outcome: cancelled.clone() });
    }
    daemon.node.cancel_task("g", deaf.id).await.unwrap();
    daemon.clock.advance(60_000);
    assert_eq!(daemon.read(&deaf).await.outcome, Some(cancelled));
    // Nobody else has a task there, so the one that does not listen is stopped, and another one comes.
    daemon.clock.advance(60_000);
    daemon.until(|view| group(view).members[0].runtime.incarnation > process.incarnation).await;
    let unknown = RunId::from_uuid(Uuid::now_v7());
    assert_eq!(daemon.node.cancel_task("g", unknown).await.unwrap_err().code, "no-such-run");
}

#[tokio::test]
async fn a_reader_that_goes_away_cancels_its_task_only_if_it_wished_so() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.up(&["a"]).await;
    let (stays, goes) =
        (daemon.submit(task("hold", json!({}))).await, daemon.submit(task("hold", json!({}))).await);
    let (process, _) = world.runners.given(stays.id, 1).await;
    world.runners.given(goes.id, 1).await;
    for (run, cancel) in [(&stays, false), (&goes, true)] {
        let how = AttachRun { cursor: Cursor::default(), follow: true, cancel };
        let mut events = daemon.node.attach_run(run.session, run.id, how).await.unwrap();
        assert!(Told::default().next(&mut events).await);
    }
    assert_eq!(daemon.read(&goes).await.outcome, Some(RunOutcome::Cancelled { why: CancelWhy::User }));
    world.runners.finish(process, stays.id, RunOutcome::Succeeded);
    assert_eq!(daemon.read(&stays).await.outcome, Some(RunOutcome::Succeeded));
}

#[tokio::test]
async fn a_task_that_cannot_be_served_is_refused_with_what_to_do() {
    let world = World::new();
    let daemon = world.daemon().await;
    let nowhere = daemon.node.submit_task("g", task("echo", json!([]))).await.unwrap_err();
    assert_eq!((nowhere.code.as_str(), nowhere.status), ("no-such-group", 404));
    daemon.up(&["a"]).await;
    let unknown = daemon.node.submit_task("g", task("sing", json!({}))).await.unwrap_err();
    assert_eq!((unknown.code.as_str(), unknown.status), ("unknown-task", 422));
    assert!(unknown.detail.contains("deaf, echo, fatal, flaky, hold"), "{unknown:?}");
    let large = json!("x".repeat(600 << 10));
    let large = daemon.node.submit_task("g", task("echo", large)).await.unwrap_err();
    assert_eq!((large.code.as_str(), large.status), ("task-too-large", 413));
    assert!(large.hint.unwrap().contains("file"));
    for (key, what) in [("", "empty"), ("k".repeat(2_000).as_str(), "2000 bytes")] {
        let keyed = SubmitTask { key: Some(key.to_owned()), ..task("echo", json!([])) };
        let refused = daemon.node.submit_task("g", keyed).await.unwrap_err();
        assert_eq!((refused.code.as_str(), refused.status), ("bad-task-key", 422));
        assert!(refused.detail.contains(what), "{refused:?}");
    }
    let nameless = daemon.node.submit_task("g", task("", json!([]))).await.unwrap_err();
    assert_eq!((nameless.code.as_str(), nameless.status), ("bad-task-name", 422));
    daemon.node.members("g", outlive_node::api::MemberWish::Stop, Default::default()).await.unwrap();
    daemon.until(|view| group(view).members[0].runtime.pid.is_none()).await;
    let at_once = SubmitTask { wait_ms: Some(0), ..task("echo", json!([])) };
    let nobody = daemon.node.submit_task("g", at_once).await.unwrap_err();
    assert_eq!((nobody.code.as_str(), nobody.status), ("nobody-ready", 503));
    assert!(nobody.detail.contains("a was stopped"), "{nobody:?}");
}

#[tokio::test]
async fn a_task_waits_for_a_runner_within_its_bound() {
    let world = World::new();
    world.runners.silent();
    let daemon = world.daemon().await;
    daemon.node.up("g", super::world::config(&["a"])).await.unwrap();
    let short = daemon.submit(SubmitTask { wait_ms: Some(1_000), ..task("echo", json!(["x"])) }).await;
    let long = daemon.submit(SubmitTask { wait_ms: Some(60_000), ..task("echo", json!(["y"])) }).await;
    daemon.until(|view| group(view).members[0].runtime.pid.is_some()).await;
    daemon.clock.advance(2_000);
    let Some(RunOutcome::Unserved { reason }) = daemon.read(&short).await.outcome else {
        panic!("it was not")
    };
    assert!(reason.contains("within 1 s"), "{reason}");
    world.runners.ready(world.runners.alive()["a"], 1);
    assert_eq!(daemon.read(&long).await.texts(), ["y"]);
}
