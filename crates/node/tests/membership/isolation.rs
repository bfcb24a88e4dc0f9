//! What a node does that is cut off from the others, or whose store is silent.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use outlive_core::id::Position;
use outlive_core::limits::{CLUSTER_ISOLATION_MS, CLUSTER_STORE_MS};
use outlive_node::api::{Api as _, AttachSession, From};
use outlive_node::cluster::{OnIsolation, Standing};
use outlive_protocol::http::{NodeState, StreamEvent};

use crate::world::{Daemon, PATIENCE, Reach, World, pass};

fn is_isolated(standing: &Standing) -> bool {
    matches!(standing, Standing::Isolated { .. })
}

fn count(of: &std::sync::atomic::AtomicUsize) -> usize {
    of.load(Ordering::SeqCst)
}

fn attach() -> AttachSession {
    AttachSession { from: From::After(Position(0)), interactive: false, follow: true, outputs: true }
}

/// Waits for the problem that ends a stream.
async fn ends_with(mut events: outlive_node::api::Events) -> String {
    let ending = async {
        while let Some(delivered) = events.next().await {
            if let StreamEvent::Problem { problem } = delivered.event {
                return problem.code;
            }
        }
        "nothing".to_owned()
    };
    tokio::time::timeout(PATIENCE, ending).await.expect("the stream ends")
}

/// Row E4, for the outage of everybody: frozen within the time, and going on afterwards.
async fn is_frozen_and_goes_on(node: &Daemon, cut: impl FnOnce(), heal: impl FnOnce(), within: Duration) {
    let view = node.command(100).await;
    let events = node.node.attach(view.id, attach()).await.unwrap();
    let processes = &node.machine.processes;
    pass(1_000).await;
    assert!(count(&processes.beats) > 0 && count(&processes.frozen) == 0);
    let before = tokio::time::Instant::now();
    cut();
    node.standing(is_isolated).await;
    let took = before.elapsed();
    assert!(took <= within, "after {took:?}");
    assert!(count(&processes.frozen) > 0);
    assert_eq!(ends_with(events).await, "node-isolated");
    let refused = node.node.attach(view.id, attach()).await;
    match refused {
        Err(problem) => assert_eq!(problem.code, "node-isolated"),
        Ok(events) => assert_eq!(ends_with(events).await, "node-isolated"),
    }
    assert!(!node.node.node().ready, "it says so");
    let beats = count(&processes.beats);
    pass(5_000).await;
    assert_eq!(count(&processes.beats), beats, "shims may freeze too");
    assert!(processes.thawed.lock().unwrap().is_empty());
    heal();
    node.stands(Standing::Ready).await;
    assert_eq!(processes.thawed.lock().unwrap().len(), 1, "its process goes on");
    let view = node.node.session(view.id).await.unwrap();
    assert!(view.loaded, "it is still open here");
    assert!(node.node.attach(view.id, attach()).await.is_ok());
    assert_eq!(node.counter("outlive_cluster_isolated_total").await, 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_connection_what_runs_is_frozen_and_goes_on_when_it_is_still_ours() {
    for reach in [Reach::Down, Reach::Swallowed] {
        let world = World::new();
        let nodes = world.nodes(1).await;
        let within = Duration::from_millis(CLUSTER_ISOLATION_MS + 150);
        let (cut, heal) = (|| nodes[0].reaches(reach), || nodes[0].reaches(Reach::All));
        is_frozen_and_goes_on(&nodes[0], cut, heal, within).await;
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_silent_store_it_is_the_same() {
    let world = World::new();
    let nodes = world.nodes(1).await;
    let silent = &nodes[0].machine.store_is_silent;
    let within = Duration::from_millis(CLUSTER_ISOLATION_MS + CLUSTER_STORE_MS + 150);
    let (cut, heal) = (|| silent.store(true, Ordering::SeqCst), || silent.store(false, Ordering::SeqCst));
    is_frozen_and_goes_on(&nodes[0], cut, heal, within).await;
}

#[tokio::test(start_paused = true)]
async fn a_short_cut_freezes_nothing() {
    let world = World::new();
    let nodes = world.nodes(2).await;
    nodes[0].command(100).await;
    for _flap in 0..5 {
        nodes[0].reaches(Reach::Down);
        pass(CLUSTER_ISOLATION_MS / 2).await;
        nodes[0].reaches(Reach::All);
        pass(300).await;
    }
    assert_eq!(count(&nodes[0].machine.processes.frozen), 0);
    assert_eq!(nodes[0].counter("outlive_cluster_isolated_total").await, 0);
    assert!(nodes[0].counter("outlive_cluster_rearmed_total").await >= 5);
}

/// Row E4: what another node has taken meanwhile is killed, not thawed.
#[tokio::test(start_paused = true)]
async fn what_was_taken_over_meanwhile_is_given_up() {
    let world = World::new();
    let nodes = world.nodes(2).await;
    let view = nodes[0].command(100).await;
    pass(1_000).await;
    nodes[0].reaches(Reach::Down);
    nodes[1].loss().await;
    // The other node has claimed it, or will have in a moment.
    let claimed = async {
        loop {
            if nodes[1].node.session(view.id).await.is_ok_and(|view| view.loaded || view.closed_at.is_some())
            {
                return;
            }
            pass(10).await;
        }
    };
    tokio::time::timeout(PATIENCE, claimed).await.expect("it is taken over");
    nodes[0].standing(is_isolated).await;
    nodes[0].reaches(Reach::All);
    nodes[0].stands(Standing::Ready).await;
    let processes = &nodes[0].machine.processes;
    assert!(processes.thawed.lock().unwrap().is_empty(), "it is not ours any more");
    pass(1_000).await;
    let orders = processes.orders.lock().unwrap();
    let killed = orders.iter().any(|(_, order)| format!("{order:?}").contains("Disowned"));
    assert!(killed, "{orders:?}");
}

#[tokio::test(start_paused = true)]
async fn as_it_was_told_processes_are_stopped_or_left_alone() {
    for (policy, stops) in [(OnIsolation::Stop, true), (OnIsolation::Continue, false)] {
        let world = World::new();
        let mut plan = world.node(1);
        plan.on_isolation = policy;
        let node = plan.start().await.unwrap();
        node.stands(Standing::Ready).await;
        node.reaches(Reach::Down);
        node.standing(is_isolated).await;
        let processes = &node.machine.processes;
        assert_eq!((count(&processes.stopped) > 0, count(&processes.frozen)), (stops, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_drains_still_does_when_it_was_cut_off_meanwhile() {
    let world = World::new();
    let nodes = world.nodes(2).await;
    nodes[0].cluster().standing.send_replace(Standing::Draining);
    pass(500).await;
    nodes[0].reaches(Reach::Down);
    nodes[0].standing(is_isolated).await;
    nodes[0].reaches(Reach::All);
    nodes[0].stands(Standing::Draining).await;
    pass(1_000).await;
    let state = nodes[1].cluster().members.borrow().seen[&nodes[0].member].state;
    assert_eq!(state, NodeState::Draining, "the others see it, and give it nothing");
}
