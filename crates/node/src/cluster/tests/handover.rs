//! Sessions that are given away, lie dormant, or are made by two at once.

use std::time::Duration;

use outlive_core::diagnosis::{CauseCode, FailureReport};
use outlive_core::id::SessionId;
use outlive_core::log::fold::Ownership;
use outlive_core::runtime::{RestartPolicy, StopWhy};
use outlive_protocol::http::{Drain, OpenSession, SubmitRuns};
use tokio::time::Instant;

use super::world::{One, World, id};
use crate::api::{Api, Groups};
use crate::cluster::Standing;
use crate::context::Presence;
use crate::node::retain::is_meant_here;
use crate::session::open::control;

// A9, E2
#[tokio::test(start_paused = true)]
async fn a_node_that_drains_gives_everything_to_the_others_and_says_goodbye() {
    let world = World::new();
    let nodes = world.nodes(3).await;
    let group = nodes[0].up("g").await.unwrap().id;
    let task = nodes[0].hold("g", true).await.unwrap();
    nodes[0].machine.given(task).await;
    let (command, run) = nodes[0].command(1, RestartPolicy::permanent()).await;
    let (notebook, _, kernel) = nodes[0].busy_notebook().await;
    for session in [group, command, notebook] {
        nodes[1].until_listed(session, |listed| listed.owner.is_some()).await;
    }
    let begun = Instant::now();
    let drained = nodes[0].node.drain(Drain::default()).await.unwrap();
    assert_eq!(drained.kept, [""; 0]);
    let mut all = vec![group, command, notebook];
    all.sort_unstable();
    assert_eq!((drained.released, drained.taken), (all.clone(), all.clone()));
    assert!(begun.elapsed() <= Duration::from_millis(300), "{:?}", begun.elapsed());
    assert_eq!(*nodes[0].cluster().standing.borrow(), Standing::Draining);
    assert!(nodes[0].machine.alive().is_empty(), "nothing runs there any more");
    assert!(nodes[0].machine.stops(kernel).iter().all(|(why, _)| *why == StopWhy::Drain));
    for session in all {
        let claim = world.until_owner(session, |claim| claim.node != id(1)).await;
        let heir = nodes.iter().find(|one| one.context().who.node == claim.node).unwrap();
        let view = heir.until(session, |_| true).await;
        let reports = heir.node.reports(session).await.unwrap();
        let crashed = |report: &FailureReport| report.cause().code != CauseCode::KilledByOperator;
        assert!(!reports.iter().any(crashed), "a drain is no crash: {view:?}");
        let takeovers = heir.node.takeovers(session).await.unwrap();
        assert_eq!(takeovers.last().map(|takeover| takeover.why.as_str()), Some("drained"));
        assert_eq!(world.controls(session).await, 3, "claim, release, claim");
    }
    let again = [&nodes[1], &nodes[2]];
    let given = |run| async move {
        tokio::select! {
            given = again[0].machine.given(run) => given,
            given = again[1].machine.given(run) => given,
        }
    };
    assert_eq!((given(task).await.1.0, given(run).await.1.0), (2, 2));
    for one in again {
        one.until_members(2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_without_others_keeps_what_it_has_and_says_so() {
    let world = World::new();
    let nodes = world.nodes(1).await;
    let (session, _) = nodes[0].command(1, RestartPolicy::permanent()).await;
    let drained = nodes[0].node.drain(Drain::default()).await.unwrap();
    assert_eq!((drained.released.len(), drained.kept.len()), (0, 1));
    assert!(drained.kept[0].contains(&session.to_string()) && drained.kept[0].contains("no other node"));
    assert_eq!(nodes[0].machine.alive().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_drains_sends_whatever_is_new_to_another() {
    let world = World::new();
    let nodes = world.nodes(2).await;
    nodes[0].cluster().standing.send_replace(Standing::Draining);
    let refused = nodes[0].up("g").await.unwrap_err();
    assert_eq!(refused.elsewhere.map(|there| there.node), Some(id(2)));
    let refused = nodes[0].node.new_session(Default::default()).await.unwrap_err();
    assert_eq!(refused.code, "elsewhere");
}

#[tokio::test(start_paused = true)]
async fn an_ended_session_is_forgotten_by_one_node_and_by_another_when_that_is_gone() {
    let world = World::new();
    let nodes = world.nodes(3).await;
    let session = SessionId::from_uuid(uuid::Uuid::from_u128(7));
    let meant = |one: &&One| is_meant_here(one.context(), session);
    let first: Vec<&One> = nodes.iter().filter(meant).collect();
    let [first] = first[..] else { panic!("exactly one forgets it") };
    first.kill();
    let left: Vec<&One> = nodes.iter().filter(|one| one.context().who != first.context().who).collect();
    for one in &left {
        one.until_members(2).await;
    }
    assert_eq!(left.into_iter().filter(meant).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn whatever_lies_dormant_is_woken_by_any_node() {
    let world = World::new();
    let nodes = world.nodes(2).await;
    let session = nodes[0].notebook().await;
    nodes[1].until_listed(session, |listed| listed.presence == Presence::Dormant).await;
    nodes[0].until_gone(session).await;
    let released = control(&world.store, session).await.unwrap().fold.ownership();
    assert_eq!(released, Ownership::Released { to: None });
    let open = OpenSession { id: Some(session), ..OpenSession::default() };
    let opened = nodes[1].node.open(open.clone()).await.unwrap();
    assert_eq!(opened.session.node.as_deref(), Some("n2"));
    nodes[0].until_listed(session, |listed| listed.owner.is_some_and(|owner| owner.node == id(2))).await;
    let asked = nodes[0].node.open(open).await.unwrap_err();
    assert_eq!(asked.elsewhere.map(|there| there.node), Some(id(2)));
    let runs = nodes[1].node.submit(session, SubmitRuns::Code { code: "1".to_owned() }).await.unwrap();
    nodes[1].machine.given(runs[0].id).await;
}

#[tokio::test(start_paused = true)]
async fn of_two_who_bring_up_a_group_of_one_name_one_does() {
    let world = World::new();
    let nodes = world.nodes(2).await;
    let (one, other) = tokio::join!(nodes[0].up("g"), nodes[1].up("g"));
    let (made, refused) = match (one, other) {
        (Ok(made), Err(refused)) | (Err(refused), Ok(made)) => (made, refused),
        both => panic!("{both:?}"),
    };
    assert_eq!(refused.code, "elsewhere");
    let owner = world.owner(made.id).await.unwrap();
    assert_eq!(refused.elsewhere.map(|there| there.node), Some(owner.node));
    assert_eq!(nodes.iter().map(|one| one.machine.launched()).sum::<usize>(), 1);
    let listed = nodes[0].node.groups().await.unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
}

#[tokio::test(start_paused = true)]
async fn of_two_who_make_a_session_of_one_id_one_does_and_nothing_of_it_is_lost() {
    let world = World::new();
    let nodes = world.nodes(2).await;
    let make = |one: usize| {
        let request: outlive_protocol::http::NewSession =
            serde_json::from_value(serde_json::json!({ "id": uuid::Uuid::from_u128(7) })).unwrap();
        let node = std::sync::Arc::clone(&nodes[one].node);
        async move { node.new_session(request).await }
    };
    let (one, other) = tokio::join!(make(0), make(1));
    let (made, refused) = match (one, other) {
        (Ok(made), Err(refused)) | (Err(refused), Ok(made)) => (made, refused),
        both => panic!("{both:?}"),
    };
    assert!(matches!(refused.code.as_str(), "elsewhere" | "session-moving"), "{refused:?}");
    let owner = world.owner(made.session_id).await.unwrap();
    let here = nodes.iter().find(|one| one.context().who.node == owner.node).unwrap();
    let view = here.until(made.session_id, |view| view.untitled).await;
    assert_eq!(view.id, made.session_id);
    nodes[0].until_listed(made.session_id, |listed| listed.owner.is_some()).await;
    assert_eq!(world.controls(made.session_id).await, 1);
}
