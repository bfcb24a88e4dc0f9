//! Groups: their names, their configuration, their members, their end.

use futures_util::StreamExt as _;
use outlive_core::id::{Cursor, Position};
use outlive_core::runtime::runner::{Phase, Progress};
use outlive_core::runtime::{ExitStatus, Program};
use outlive_core::session::RunOutcome;
use outlive_node::api::{Api, AttachSession, Delivered, From, Groups, MemberWish, Up};
use outlive_protocol::http::{
    GroupConfig, Members, Restart, RuntimeState, SessionState, Stop, StopNode, StreamEvent, SubmitRuns,
};
use outlive_protocol::shim::StateNotice;
use serde_json::json;

use super::world::{PATIENCE, World, config, group, member, task};

#[tokio::test]
async fn of_those_who_bring_a_name_up_at_once_one_makes_it() {
    let world = World::new();
    let daemon = world.daemon().await;
    let ups = (0..8).map(|_| daemon.node.up("g", config(&["a"])));
    let ups = futures_util::future::join_all(ups).await;
    let ups: Vec<_> = ups.into_iter().map(Result::unwrap).collect();
    assert_eq!(ups.iter().filter(|(_, up)| *up == Up::Made).count(), 1);
    assert!(ups.iter().all(|(view, _)| view.id == ups[0].0.id), "all have the same");
    assert_eq!(world.runners.launched(), 1);
    assert_eq!(daemon.node.groups().await.unwrap().len(), 1);
}

#[tokio::test]
async fn another_configuration_is_refused_with_what_differs_and_no_secret() {
    let world = World::new();
    let daemon = world.daemon().await;
    let mut first = config(&["a", "b"]);
    first.members[0].launch.env.insert("TOKEN".to_owned(), "secret-1".to_owned());
    let (made, _) = daemon.node.up("g", first.clone()).await.unwrap();
    let filled = GroupConfig { wait_ms: Some(300_000), ..first.clone() };
    assert_eq!(daemon.node.up("g", filled).await.unwrap().1, Up::Already, "what was left out is filled in");
    let mut other = GroupConfig { wait_ms: Some(7), ..first.clone() };
    other.members[0].launch.env.insert("TOKEN".to_owned(), "secret-2".to_owned());
    other.members[1].launch.cwd = "/tmp".to_owned();
    let refused = daemon.node.up("g", other).await.unwrap_err();
    assert_eq!((refused.code.as_str(), refused.status), ("group-is-up", 409));
    assert_eq!(refused.facts["different"], "wait_ms, a: env TOKEN, b: cwd");
    assert_eq!(refused.facts["session"], made.id.to_string());
    assert!(refused.hint.as_ref().unwrap().contains("outlive down g"), "{refused:?}");
    assert!(!format!("{refused:?}").contains("secret"), "{refused:?}");
    let fewer = daemon.node.up("g", config(&["a"])).await.unwrap_err();
    assert_eq!(fewer.facts["different"], "members");
}

#[tokio::test]
async fn what_cannot_be_a_group_is_refused_before_anything_is_started() {
    let world = World::new();
    let daemon = world.daemon().await;
    let with = |change: &dyn Fn(&mut GroupConfig)| {
        let mut config = config(&["a", "b"]);
        change(&mut config);
        config
    };
    let no_runner = Program::Command { argv: vec!["true".to_owned()] };
    let wrong = [
        ("G", with(&|_| {}), "\"G\" cannot be a group's name"),
        ("g", with(&|config| config.members.clear()), "has no members"),
        ("g", with(&|config| config.members = vec![member("a"); 65]), "65 members; at most 64"),
        ("g", with(&|config| config.members[1].name = "a".to_owned()), "called \"a\""),
        ("g", with(&|config| config.members[1].name = "b c".to_owned()), "\"b c\" cannot be"),
        ("g", with(&|config| config.members[1].launch.cwd = "here".to_owned()), "must be absolute"),
        ("g", with(&|config| config.members[1].launch.program = no_runner.clone()), "kind `runner`"),
    ];
    for (name, config, what) in wrong {
        let refused = daemon.node.up(name, config).await.unwrap_err();
        assert_eq!((refused.code.as_str(), refused.status), ("bad-group", 422));
        assert!(refused.detail.contains(what), "{what}: {}", refused.detail);
    }
    assert_eq!(world.runners.launched(), 0);
    assert_eq!(daemon.node.sessions(true).await.unwrap().len(), 0, "nothing is left of any of them");
}

#[tokio::test]
async fn a_group_that_went_down_can_be_read_and_its_name_is_free() {
    let world = World::new();
    let daemon = world.daemon().await;
    let view = daemon.up(&["a"]).await;
    let done = daemon.submit(task("echo", json!(["kept"]))).await;
    daemon.read(&done).await;
    let running = daemon.submit(task("hold", json!({}))).await;
    world.runners.given(running.id, 1).await;
    let going = daemon.node.down("g", Stop::default()).await.unwrap();
    let gone = daemon.until_session(going, |view| view.closed_at.is_some()).await;
    assert_eq!((gone.id, gone.state), (view.id, SessionState::Stopped));
    // Somebody who brings it up while it goes down waits for that.
    let (again, up) = daemon.node.up("g", config(&["a"])).await.unwrap();
    assert!(up == Up::Made && again.id != view.id);
    assert_eq!(daemon.read(&done).await.texts(), ["kept"]);
    let told = daemon.read(&running).await;
    assert!(matches!(told.outcome, Some(RunOutcome::Cancelled { .. })), "{told:?}");
    assert_eq!(daemon.node.runs(view.id).await.unwrap().len(), 2);
    daemon.node.reports(view.id).await.unwrap();
    let how =
        AttachSession { from: From::After(Position(0)), interactive: false, follow: false, outputs: true };
    let events: Vec<_> = daemon.node.attach(view.id, how).await.unwrap().collect().await;
    let said = |is: &dyn Fn(&StreamEvent) -> bool| events.iter().filter(|told| is(&told.event)).count();
    let texts = events.iter().filter_map(|told| match &told.event {
        StreamEvent::Output { chunks, .. } => Some(chunks.iter().filter_map(|chunk| chunk.text.as_deref())),
        _ => None,
    });
    assert_eq!(texts.flatten().collect::<Vec<_>>(), ["kept"]);
    assert!(said(&|event| matches!(event, StreamEvent::Run { .. })) >= 5, "queued, begun, ended");
    assert!(matches!(events.last(), Some(Delivered { event: StreamEvent::End { .. }, .. })), "{events:#?}");
    daemon.node.forget(view.id).await.unwrap();
    assert_eq!(daemon.node.session(view.id).await.unwrap_err().code, "no-such-session");
}

#[tokio::test]
async fn members_are_stopped_started_and_restarted_by_name() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.up(&["a", "b"]).await;
    let ask = |what, name: &str| {
        Groups::members(&*daemon.node, "g", what, Members { member: Some(name.to_owned()), force: false })
    };
    ask(MemberWish::Stop, "a").await.unwrap();
    let view = daemon.until(|view| group(view).members[0].runtime.pid.is_none()).await;
    assert_eq!(group(&view).members[1].phase, Phase::Ready, "the other goes on");
    assert_eq!(view.runtime.name, "a", "the one that is worst off stands for all");
    ask(MemberWish::Start, "a").await.unwrap();
    daemon.until(|view| group(view).members[0].runtime.state == RuntimeState::Idle).await;
    ask(MemberWish::Restart, "b").await.unwrap();
    daemon
        .until(|view| {
            let b = &group(view).members[1].runtime;
            b.state == RuntimeState::Idle && b.incarnation.0 == 2
        })
        .await;
    assert_eq!(
        daemon.node.reports(daemon.node.group("g").await.unwrap().id).await.unwrap().len(),
        0,
        "no failure"
    );
    let unknown = ask(MemberWish::Stop, "z").await.unwrap_err();
    assert_eq!(unknown.code, "no-such-member");
    assert_eq!(unknown.hint.as_deref(), Some("it has a, b"));
}

#[tokio::test]
async fn what_groups_do_not_do_is_refused_with_what_they_do() {
    let world = World::new();
    let daemon = world.daemon().await;
    let id = daemon.up(&["a"]).await.id;
    let code = |problem: outlive_protocol::http::Problem| {
        assert!(problem.hint.as_ref().unwrap().contains("outlive task submit g"), "{problem:?}");
        problem.code
    };
    assert_eq!(code(daemon.node.interrupt(id).await.unwrap_err()), "runners-only");
    let work = SubmitRuns::Code { code: "1".to_owned() };
    assert_eq!(code(daemon.node.submit(id, work).await.unwrap_err()), "runners-only");
    assert_eq!(code(daemon.node.notebook(id, true).await.unwrap_err()), "runners-only");
    assert_eq!(code(daemon.node.restart(id, Restart { run_all: true }).await.unwrap_err()), "runners-only");
    daemon.node.restart(id, Restart { run_all: false }).await.unwrap();
    daemon.until(|view| group(view).members[0].runtime.incarnation.0 == 2).await;
    Api::stop(&*daemon.node, id, Stop::default()).await.unwrap();
}

#[tokio::test]
async fn how_far_a_runner_has_loaded_is_shown() {
    let world = World::new();
    world.runners.silent();
    let daemon = world.daemon().await;
    daemon.node.up("g", config(&["a"])).await.unwrap();
    daemon.until(|view| group(view).members[0].runtime.pid.is_some()).await;
    let process = world.runners.alive()["a"];
    for done in [1.0, 2.0] {
        let progress = Progress { done: Some(done), total: Some(4.0), message: None };
        let entered = StateNotice::Entered { phase: Phase::Loading, progress: progress.clone() };
        world.runners.state(process, entered);
        let view = daemon.until(|view| group(view).members[0].progress == progress).await;
        assert_eq!(group(&view).members[0].phase, Phase::Loading);
    }
    world.runners.dies(process, ExitStatus::Code { code: 1 }, None);
    daemon.until(|view| matches!(group(view).members[0].runtime.state, RuntimeState::Backoff { .. })).await;
    daemon.clock.advance(60_000);
    let view = daemon.until(|view| group(view).members[0].runtime.incarnation.0 == 2).await;
    assert_eq!(group(&view).members[0].progress, Progress::default(), "its successor begins anew");
}

#[tokio::test]
async fn runners_know_their_rank_unless_they_were_told_another() {
    let world = World::new();
    let daemon = world.daemon().await;
    let mut config = config(&["a", "b"]);
    config.members[1].launch.env.insert("OUTLIVE_RUNNER_RANK".to_owned(), "7".to_owned());
    daemon.node.up("g", config).await.unwrap();
    daemon.until(|view| group(view).members.iter().all(|member| member.phase == Phase::Ready)).await;
    let env = |name: &str| world.runners.order(world.runners.alive()[name]).spec.env;
    assert_eq!(
        (env("a")["OUTLIVE_RUNNER_RANK"].as_str(), env("a")["OUTLIVE_RUNNER_COUNT"].as_str()),
        ("0", "2")
    );
    assert_eq!(env("b")["OUTLIVE_RUNNER_RANK"], "7");
}

#[tokio::test]
async fn a_shim_that_reads_nothing_holds_up_nobody_else() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.up(&["a", "b"]).await;
    let held = daemon.submit(task("hold", json!({}))).await;
    let (a, _) = world.runners.given(held.id, 1).await;
    world.runners.stick(a);
    let mut events = daemon.attach(&held, Cursor::default()).await;
    let mut told = super::world::Told::default();
    // Each is acknowledged; more than a link holds.
    for n in 0..200 {
        world.runners.text(a, held.id, &n.to_string());
        while told.texts().len() <= n {
            assert!(told.next(&mut events).await);
        }
    }
    let other = daemon.submit(task("echo", json!(["served"]))).await;
    assert_eq!(daemon.read(&other).await.texts(), ["served"]);
}

#[tokio::test]
async fn the_daemons_end_takes_its_runners_along_only_when_it_is_told_to() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.up(&["a"]).await;
    let process = world.runners.alive()["a"];
    daemon.node.shutdown(StopNode { keep_runtimes: true }).await.unwrap();
    tokio::time::timeout(PATIENCE, daemon.node.stop()).await.unwrap();
    assert_eq!(world.runners.alive().get("a"), Some(&process));
    drop(daemon);
    let next = world.daemon().await;
    assert_eq!(
        group(&next.node.group("g").await.unwrap()).members[0].runtime.incarnation,
        process.incarnation
    );
    let shutdown = next.node.shutdown(StopNode { keep_runtimes: false });
    tokio::time::timeout(PATIENCE, shutdown).await.unwrap().unwrap();
    assert_eq!(world.runners.alive().len(), 0);
    assert_eq!(next.node.groups().await.unwrap().len(), 0);
}
