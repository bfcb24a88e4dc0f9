//! A daemon that is killed before each of its appends in turn, and the one that comes after it: each task ends once, with
//! all its output and none of it twice, and every process has its end.

use outlive_core::id::{Cursor, RunId};
use outlive_core::log::ChunkKind;
use outlive_core::runtime::runner::Replay;
use outlive_core::runtime::{ExitStatus, RestartPolicy};
use outlive_core::session::RunOutcome;
use outlive_node::api::{Api, Groups};
use outlive_protocol::http::{GroupConfig, RunView, Stop, SubmitTask};
use outlive_protocol::replay::Said;
use serde_json::json;
use uuid::Uuid;

use super::world::{Daemon, Doom, Told, World, config, group, life, task};

/// More than any of these scenes takes.
const STEPS_MAX: usize = 200;

/// Plays a scene with a daemon that is killed before each of its appends in turn, and plays it to its end with the next
/// one. Returns how many appends there are.
fn at_each_step(
    begin: impl AsyncFn(&World, &Daemon),
    play: impl AsyncFn(&World, &Daemon),
    check: impl AsyncFn(&World, &Daemon),
) -> usize {
    for step in 0..STEPS_MAX {
        let world = World::new();
        let done = life(async {
            let doom = Doom::default();
            let daemon = world.doomed(doom.clone()).await;
            begin(&world, &daemon).await;
            doom.after(step);
            tokio::select! {
                biased;
                () = doom.over() => false,
                () = play(&world, &daemon) => true,
            }
        });
        life(async {
            let daemon = world.daemon().await;
            check(&world, &daemon).await;
        });
        // And once more, after a quiet life.
        life(async {
            let daemon = world.daemon().await;
            check(&world, &daemon).await;
        });
        if done {
            return step;
        }
    }
    panic!("the scene never ended");
}

/// Restarts at once and always.
fn tireless() -> GroupConfig {
    let restart = RestartPolicy { restarts_max: 1_000, backoff_ms: 0, ..RestartPolicy::permanent() };
    GroupConfig { restart, ..config(&["a", "b"]) }
}

fn id(n: u128) -> RunId {
    RunId::from_uuid(Uuid::from_u128(n))
}

async fn all_tasks(daemon: &Daemon) -> Vec<(RunView, Told)> {
    daemon.node.up("g", tireless()).await.unwrap();
    let tasks = [
        SubmitTask { id: Some(id(1)), idempotent: true, ..task("flaky", json!({})) },
        SubmitTask { id: Some(id(2)), ..task("echo", json!(["one", "two"])) },
        SubmitTask { id: Some(id(3)), ..task("fatal", json!({})) },
        SubmitTask { id: Some(id(4)), key: Some("k".to_owned()), ..task("echo", json!(["three"])) },
    ];
    let mut runs = Vec::new();
    for task in tasks {
        runs.push(daemon.submit(task).await);
    }
    let mut all = Vec::new();
    for run in runs {
        let told = daemon.read(&run).await;
        all.push((run, told));
    }
    all
}

fn are_right(all: &[(RunView, Told)]) {
    let (_, flaky) = &all[0];
    assert_eq!(
        (flaky.texts(), &flaky.outcome),
        (vec!["1", "2", "3"], &Some(RunOutcome::Succeeded)),
        "{flaky:?}"
    );
    let (_, two) = &all[1];
    assert_eq!((two.texts(), &two.outcome), (vec!["one", "two"], &Some(RunOutcome::Succeeded)), "{two:?}");
    let (_, fatal) = &all[2];
    let Some(RunOutcome::Failed { report, .. }) = &fatal.outcome else { panic!("{fatal:?}") };
    let errors: Vec<_> = fatal.chunks.iter().filter(|(kind, _)| *kind == ChunkKind::Error).collect();
    assert_eq!((fatal.texts(), errors.len()), (vec!["x"], 1), "{fatal:?}");
    assert!(
        errors[0].1.contains(&report.to_string()),
        "the error chunk and the end name one report: {fatal:?}"
    );
    let (_, last) = &all[3];
    assert_eq!((last.texts(), &last.outcome), (vec!["three"], &Some(RunOutcome::Succeeded)), "{last:?}");
}

#[test]
fn tasks_that_meet_deaths_end_once_whenever_the_daemon_dies() {
    // A12 B3 D1
    let steps = at_each_step(
        async |_, _| {},
        async |_, daemon| are_right(&all_tasks(daemon).await),
        async |world, daemon| {
            let all = all_tasks(daemon).await;
            are_right(&all);
            let runs = daemon.node.runs(all[0].0.session).await.unwrap();
            assert_eq!(runs.len(), 4, "asking again made no other task");
            let deaths = daemon.node.reports(all[0].0.session).await.unwrap();
            assert_eq!(deaths.len(), 2, "two died, each once: {deaths:#?}");
            daemon.until(|view| group(view).members.iter().all(|member| member.runtime.pid.is_some())).await;
            assert_eq!((world.runners.alive().len(), world.runners.launched()), (2, 4));
            let refused = world.runners.refused();
            assert!(refused <= 2, "only what had ended already: {refused}");
        },
    );
    assert!(steps > 40, "name, claim, launches, tasks, ends: {steps}");
}

#[test]
fn a_group_that_goes_down_is_gone_whenever_the_daemon_dies() {
    // D1
    let down = async |daemon: &Daemon| {
        let Ok(view) = daemon.node.down("g", Stop::default()).await else { return };
        daemon.until_session(view, |view| view.closed_at.is_some()).await;
    };
    let steps = at_each_step(
        async |world, daemon| {
            daemon.up(&["a", "b"]).await;
            daemon.submit(SubmitTask { id: Some(id(1)), ..task("hold", json!({})) }).await;
            let (process, _) = world.runners.given(id(1), 1).await;
            world.runners.text(process, id(1), "begun");
        },
        async |_, daemon| down(daemon).await,
        async |world, daemon| {
            down(daemon).await;
            assert_eq!(world.runners.alive().len(), 0, "nobody is left");
            let ended = &daemon.node.sessions(true).await.unwrap()[0];
            let run = &daemon.node.runs(ended.id).await.unwrap()[0];
            let told = daemon.read(run).await;
            assert_eq!(told.texts(), ["begun"]);
            assert!(matches!(told.outcome, Some(RunOutcome::Cancelled { .. })), "{told:?}");
            assert_eq!(daemon.node.group("g").await.unwrap_err().code, "no-such-group");
        },
    );
    assert!(steps > 5, "closing, stops, ends, close, name: {steps}");
}

#[test]
fn tasks_run_on_while_no_daemon_is_there_and_a_runner_that_was_lost_with_its_shim_is_said_to_be() {
    // D1 D3
    let world = World::new();
    let (run, a, b) = life(async {
        let daemon = world.daemon().await;
        daemon.up(&["a", "b"]).await;
        let run = daemon.submit(SubmitTask { id: Some(id(1)), ..task("hold", json!({})) }).await;
        let (a, _) = world.runners.given(run.id, 1).await;
        let b = *world.runners.alive().values().find(|process| **process != a).unwrap();
        let lost = daemon.submit(SubmitTask { id: Some(id(2)), ..task("hold", json!({})) }).await;
        assert_eq!(world.runners.given(lost.id, 1).await.0, b, "the one with less to do has it");
        daemon.node.stop().await;
        (run, a, b)
    });
    for text in ["while", "nobody"] {
        world.runners.text(a, run.id, text);
    }
    world.runners.finish(a, run.id, RunOutcome::Succeeded);
    world.runners.vanish(b);
    life(async {
        let daemon = world.daemon().await;
        let told = daemon.read(&run).await;
        assert_eq!((told.texts(), &told.outcome), (vec!["while", "nobody"], &Some(RunOutcome::Succeeded)));
        let lost = daemon.node.runs(run.session).await.unwrap().remove(1);
        let told = daemon.read(&lost).await;
        let Some(RunOutcome::Failed { code, .. }) = told.outcome else { panic!("{told:?}") };
        assert_eq!(code.as_str(), "shim-lost");
        daemon.clock.advance(60_000);
        let view = daemon.until(|view| group(view).members.iter().all(|m| m.runtime.pid.is_some())).await;
        let incarnations: Vec<_> = group(&view).members.iter().map(|m| m.runtime.incarnation.0).collect();
        assert_eq!(
            incarnations.iter().sum::<u64>(),
            3,
            "the one that lives was taken over: {incarnations:?}"
        );
        // It is still heard.
        world.runners.dies(a, ExitStatus::Code { code: 1 }, None);
        daemon
            .until(|view| view.last_report.as_ref().is_some_and(|report| report.code.as_str() != "shim-lost"))
            .await;
    });
}

/// What the next attempt of a task has to say again.
fn again(texts: &[&str]) -> Replay {
    let mut said = Said::default();
    texts.iter().for_each(|text| said.add_content(&ChunkKind::Text, text.as_bytes()));
    said.replay()
}

#[test]
fn a_task_that_is_replayed_exactly_goes_on_unseen_also_when_another_daemon_knows_only_the_log() {
    // E10
    let world = World::new();
    let texts = async |daemon: &Daemon, run: &RunView, count: usize| {
        let (mut told, mut events) = (Told::default(), daemon.attach(run, Cursor::default()).await);
        while told.texts().len() < count {
            assert!(told.next(&mut events).await);
        }
    };
    let (run, first) = life(async {
        let daemon = world.daemon().await;
        daemon.node.up("g", tireless()).await.unwrap();
        let run = daemon.submit(SubmitTask { idempotent: true, ..task("sample", json!({})) }).await;
        let (first, order) = world.runners.given(run.id, 1).await;
        assert_eq!(order.replay, None);
        world.runners.text(first, run.id, "kept");
        world.runners.checkpoint(first, run.id, 3);
        for text in ["1", "2"] {
            world.runners.text(first, run.id, text);
        }
        texts(&daemon, &run, 3).await;
        (run, first)
    });
    life(async {
        let daemon = world.daemon().await;
        world.runners.text(first, run.id, "3");
        texts(&daemon, &run, 4).await;
        world.runners.dies(first, ExitStatus::Signal { number: 9, core_dumped: false }, None);
        let (second, order) = world.runners.given(run.id, 2).await;
        assert_eq!(order.replay, Some(again(&["1", "2", "3"])), "what stands behind its checkpoint");
        world.runners.text(second, run.id, "4");
        texts(&daemon, &run, 5).await;
        world.runners.dies(second, ExitStatus::Signal { number: 9, core_dumped: false }, None);
        let (third, order) = world.runners.given(run.id, 3).await;
        assert_eq!(order.replay, Some(again(&["1", "2", "3", "4"])), "what both have said");
        world.runners.finish(third, run.id, RunOutcome::Succeeded);
        let told = daemon.read(&run).await;
        assert_eq!(told.texts(), ["kept", "1", "2", "3", "4"]);
        assert_eq!((told.resets.len(), told.chunks.len()), (0, 5), "nobody is told of a death");
    });
}
