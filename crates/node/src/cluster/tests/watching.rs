//! What clients see on every node while a session changes its owner.

use futures_util::StreamExt as _;
use outlive_core::id::{Cursor, Generation, Position, RunId, SessionId};
use outlive_core::runtime::{ExitStatus, RestartPolicy};
use outlive_protocol::http::{RunState, SessionView, StreamEvent};

use super::world::{One, PATIENCE, World, id, member};
use crate::api::{Api, AttachRun, AttachSession, Delivered, Events, From};

async fn watch(one: &One, session: SessionId, run: RunId) -> Events {
    let how = AttachRun { cursor: Cursor::default(), follow: true, cancel: false };
    one.node.attach_run(session, run, how).await.unwrap()
}

async fn next(events: &mut Events) -> Delivered {
    tokio::time::timeout(PATIENCE, events.next()).await.expect("something comes").expect("the stream goes on")
}

/// What it is told up to the text, or up to the end: texts, and the names of what else it is told.
async fn read(events: &mut Events, upto: Option<&str>) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        let Delivered { event, .. } = next(events).await;
        let (name, is_last) =
            (event.name(), matches!(event, StreamEvent::End { .. } | StreamEvent::Problem { .. }));
        match event {
            StreamEvent::Output { chunks, .. } => {
                told.extend(chunks.into_iter().filter_map(|chunk| chunk.text))
            }
            StreamEvent::Run { .. } => {}
            _ => told.push(name.to_owned()),
        }
        if is_last || (upto.is_some() && told.last().map(String::as_str) == upto) {
            return told;
        }
    }
}

// E1
#[tokio::test(start_paused = true)]
async fn a_run_is_watched_on_every_node_through_the_death_of_its_own() {
    let world = World::new();
    let nodes = world.nodes(3).await;
    let (session, run) = nodes[0].command(1, RestartPolicy::permanent()).await;
    let (process, _) = nodes[0].machine.given(run).await;
    let mut streams = Vec::new();
    for one in &nodes[1..] {
        one.until_listed(session, |listed| listed.owner == Some(member(1, 1))).await;
        streams.push(watch(one, session, run).await);
    }
    nodes[0].machine.text(process, run, "first");
    for events in &mut streams {
        assert_eq!(read(events, Some("first")).await, ["first"]);
    }
    nodes[0].kill();
    let claim = world.until_owner(session, |claim| claim.node != id(1)).await;
    let heir = nodes.iter().find(|one| one.context().who.node == claim.node).unwrap();
    let (process, _) = heir.machine.given(run).await;
    heir.machine.text(process, run, "second");
    for events in &mut streams {
        assert_eq!(read(events, Some("second")).await, ["second"], "behind what it had said before");
    }
    heir.machine.finish(process, run);
    heir.machine.dies(process, ExitStatus::Code { code: 0 }, None);
    for events in &mut streams {
        assert_eq!(read(events, None).await.last().unwrap(), "end");
    }
    for one in &nodes[1..] {
        let late = read(&mut watch(one, session, run).await, None).await;
        assert_eq!(late, ["first", "second", "end"], "who comes late");
    }
}

#[tokio::test(start_paused = true)]
async fn while_nobody_has_a_session_its_log_tells_of_it() {
    let world = World::new();
    let nodes = world.nodes(2).await;
    let (session, run, process) = nodes[0].busy_notebook().await;
    nodes[0].machine.text(process, run, "first");
    nodes[1].until_listed(session, |listed| listed.owner == Some(member(1, 1)) && listed.has_kernel).await;
    let mut events = watch(&nodes[1], session, run).await;
    assert_eq!(read(&mut events, Some("first")).await, ["first"]);
    let elsewhere = nodes[1].node.session(session).await.unwrap_err();
    assert_eq!(elsewhere.elsewhere.unwrap().node, id(1), "who has it knows more");
    assert_eq!(nodes[1].node.runs(session).await.unwrap_err().code, "elsewhere");
    let mut lost = nodes[1].cluster().lost.subscribe();
    nodes[0].kill();
    lost.recv().await.unwrap();
    // Its kernel may be back in a moment, so that nobody takes it yet.
    let view = nodes[1].node.session(session).await.unwrap();
    assert_eq!((view.current, view.runs.running), (Some(run), 1));
    assert_eq!(nodes[1].node.runs(session).await.unwrap()[0].state, RunState::Running);
    assert!(nodes[1].node.reports(session).await.unwrap().is_empty());
    let mut late = watch(&nodes[1], session, run).await;
    assert_eq!(read(&mut late, Some("first")).await, ["first"]);
    world.until_owner(session, |claim| claim.node == id(2)).await;
    for events in [&mut events, &mut late] {
        assert_eq!(read(events, None).await.last().unwrap(), "end", "it is settled as lost with its node");
    }
}

/// The views that it is told until one was so and a place behind this one was told, and that place.
async fn views(
    events: &mut Events,
    behind: Position,
    is_so: impl Fn(&SessionView) -> bool,
) -> (Vec<Generation>, Position) {
    let (mut generations, mut place, mut was_so) = (Vec::new(), Position(0), false);
    while !was_so || place <= behind {
        let Delivered { cursor, event } = next(events).await;
        if let Some(cursor) = cursor {
            let position: Position = Position(cursor.parse().unwrap());
            assert!(position >= place, "places rise");
            place = position;
        }
        if let StreamEvent::Session { session } = event {
            generations.push(session.generation);
            was_so |= is_so(&session);
        }
    }
    (generations, place)
}

// P6
#[tokio::test(start_paused = true)]
async fn a_sessions_state_goes_on_rising_under_every_owner() {
    let world = World::new();
    let nodes = world.nodes(2).await;
    let how = |from| AttachSession { from, interactive: false, follow: true, outputs: false };
    let (session, run, process) = nodes[0].busy_notebook().await;
    let mut events = nodes[0].node.attach(session, how(From::Head)).await.unwrap();
    nodes[0].machine.text(process, run, "first");
    nodes[0].machine.finish(process, run);
    let (before, place) = views(&mut events, Position(0), |view| view.runs.succeeded == 1).await;
    nodes[1].until_listed(session, |listed| listed.owner == Some(member(1, 1))).await;
    let refused = nodes[1].node.attach(session, how(From::After(place))).await.err().unwrap();
    assert_eq!((refused.code.as_str(), refused.elsewhere.unwrap().node), ("elsewhere", id(1)));
    nodes[0].kill();
    world.until_owner(session, |claim| claim.node == id(2)).await;
    nodes[1].until(session, |_| true).await;
    let mut events = nodes[1].node.attach(session, how(From::After(place))).await.unwrap();
    let (after, later) = views(&mut events, place, |view| view.runs.succeeded == 1).await;
    assert!(later > place, "what happened since then is behind it");
    let all: Vec<_> = before.iter().chain(&after).collect();
    assert!(all.is_sorted() && after[0] > before[before.len() - 1], "{all:?}");
}
