//! Who is there, and who is lost.

use std::sync::atomic::Ordering;
use std::time::Duration;

use outlive_core::limits::CLUSTER_REUNION_MS;
use outlive_node::api::Api as _;
use outlive_node::cluster::{OnIsolation, Standing, Why};
use outlive_protocol::http::{DoctorLevel, NodeState};
use outlive_store::Topic;

use crate::world::{Reach, World, pass};

#[tokio::test(start_paused = true)]
async fn three_join_and_the_death_of_one_is_one_loss_at_each_other() {
    let world = World::new();
    let mut nodes = world.nodes(3).await;
    pass(1_000).await;
    let before = tokio::time::Instant::now();
    let dead = nodes.remove(0).killed().await;
    for node in &nodes {
        let lost = node.loss().await;
        assert_eq!((lost.member, lost.name.as_str(), lost.why), (dead, "node-1", Why::Silent));
        assert!(lost.heard.is_some());
    }
    assert!(before.elapsed() <= Duration::from_millis(400), "after {:?}", before.elapsed());
    pass(10_000).await;
    for node in &nodes {
        assert_eq!(node.losses(), []);
        assert_eq!(node.counter("outlive_cluster_dead_total").await, 1);
        assert_eq!(node.counter("outlive_cluster_suspected_total").await, 1);
        let view = node.node.cluster().await;
        let states: Vec<_> = view.nodes.iter().map(|node| (node.name.as_str(), node.state)).collect();
        let alive = NodeState::Alive;
        assert_eq!(states, [("node-1", NodeState::Dead), ("node-2", alive), ("node-3", alive)]);
        assert_eq!(view.nodes.iter().filter(|node| node.is_me).count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_service_says_of_a_connection_that_ended_only_accelerates() {
    let world = World::new();
    let mut nodes = world.nodes(3).await;
    let ended =
        |name: &str| format!(r#"{{"type":"x","client":{{"id":3,"name":"{name}","rtt":1}},"reason":"y"}}"#);
    world.says(Topic::Disconnects, &ended("node-2"));
    world.says(Topic::Disconnects, &ended("somebody else"));
    world.says(Topic::Disconnects, "not json");
    pass(2_000).await;
    assert!(nodes[0].losses().is_empty(), "it was asked, and answered");
    assert_eq!(nodes[0].counter("outlive_cluster_suspected_total").await, 1);
    let before = tokio::time::Instant::now();
    nodes.remove(2).killed().await;
    world.says(Topic::Disconnects, &ended("node-3"));
    let lost = nodes[0].loss().await;
    assert_eq!((lost.name.as_str(), lost.why), ("node-3", Why::Disconnected));
    assert!(before.elapsed() <= Duration::from_millis(230), "after {:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_is_told_at_once_and_frees_the_name() {
    let world = World::new();
    let mut nodes = world.nodes(3).await;
    let leaves = nodes.remove(2);
    let before = tokio::time::Instant::now();
    leaves.cluster().goodbye().await;
    let lost = nodes[0].loss().await;
    assert_eq!((lost.member, lost.why), (leaves.member, Why::Left));
    world.node(4).named("node-3").start().await.unwrap();
    assert!(before.elapsed() < Duration::from_millis(50), "nobody waits for anything");
    leaves.killed().await;
    pass(5_000).await;
    assert_eq!(nodes[0].losses(), [], "its silence says nothing more");
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_service_loses_nobody_and_a_later_death_is_noticed_in_time() {
    let world = World::new();
    let mut nodes = world.nodes(3).await;
    for _restart in 0..2 {
        nodes.iter().for_each(|node| node.reaches(Reach::Down));
        for node in &nodes {
            node.standing(|standing| matches!(standing, Standing::Isolated { .. })).await;
        }
        pass(3_000).await;
        for node in &nodes {
            node.reaches(Reach::All);
            pass(700).await;
        }
        for node in &nodes {
            node.stands(Standing::Ready).await;
        }
    }
    pass(CLUSTER_REUNION_MS).await;
    assert!(nodes.iter().all(|node| node.losses().is_empty()));
    let before = tokio::time::Instant::now();
    nodes.pop().unwrap().killed().await;
    nodes[0].loss().await;
    assert!(before.elapsed() <= Duration::from_millis(400), "after {:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn one_that_is_cut_off_is_lost_and_comes_back_as_itself() {
    for reach in [Reach::Swallowed, Reach::Down] {
        let world = World::new();
        let nodes = world.nodes(3).await;
        nodes[0].reaches(reach);
        for node in &nodes[1..] {
            assert_eq!(node.loss().await.member, nodes[0].member);
        }
        nodes[0].standing(|standing| matches!(standing, Standing::Isolated { .. })).await;
        pass(10_000).await;
        assert_eq!(nodes[0].losses(), [], "it cannot know about the others");
        nodes[0].reaches(Reach::All);
        nodes[0].stands(Standing::Ready).await;
        for node in &nodes {
            node.sees(3).await;
        }
        pass(CLUSTER_REUNION_MS + 1_000).await;
        assert!(nodes.iter().all(|node| node.losses().is_empty()));
    }
}

/// Row E7.
#[tokio::test(start_paused = true)]
async fn the_next_life_of_a_node_is_another_member() {
    let world = World::new();
    let mut nodes = world.nodes(3).await;
    let old = nodes.pop().unwrap().killed().await;
    let back = world.node(3).start().await.unwrap();
    assert_ne!(back.member, old);
    let lost = nodes[0].loss().await;
    assert_eq!(lost.member, old);
    nodes[0].sees(3).await;
    let members = nodes[0].cluster().members.borrow().clone();
    assert_eq!(members.of(old.node).unwrap().0, &back.member);
    pass(10_000).await;
    assert_eq!(nodes[0].losses(), []);
}

#[tokio::test(start_paused = true)]
async fn clocks_that_are_hours_apart_are_said_and_harm_nobody() {
    let world = World::new();
    let mut nodes = world.nodes(2).await;
    let mut plan = world.node(3);
    plan.ahead = Duration::from_secs(7_200);
    nodes.push(plan.start().await.unwrap());
    nodes[0].sees(3).await;
    pass(5_000).await;
    assert!(nodes.iter().all(|node| node.losses().is_empty()));
    let view = nodes[0].node.cluster().await;
    let skew = view.nodes.iter().find(|node| node.name == "node-3").unwrap().clock_skew_ms;
    assert!((skew - 7_200_000).abs() < 1_000, "{skew}");
    let doctor = nodes[0].node.doctor().await;
    let said = doctor.checks.iter().find(|check| check.name == "cluster").unwrap();
    assert_eq!(said.level, DoctorLevel::Warning);
    assert!(said.found.contains("the clock of node-3 is 7200 s ahead of ours"), "{}", said.found);
    nodes.pop().unwrap().killed().await;
    assert_eq!(nodes[0].loss().await.name, "node-3");
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_stood_still_loses_nobody() {
    let world = World::new();
    let nodes = world.nodes(3).await;
    // All of them at once, as when the host of all is paused: nothing runs, and then all is late.
    tokio::time::advance(Duration::from_secs(30)).await;
    pass(CLUSTER_REUNION_MS).await;
    for node in &nodes {
        assert_eq!(
            node.counter("outlive_cluster_isolated_total").await,
            1,
            "it looked what is still its own"
        );
        node.stands(Standing::Ready).await;
        assert_eq!(node.losses(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_costs_nothing_and_a_machine_that_slept_knows_it() {
    let world = World::new();
    let mut plan = world.node(1);
    plan.on_isolation = OnIsolation::Stop;
    let nodes = [plan.start().await.unwrap(), world.node(2).start().await.unwrap()];
    for node in &nodes {
        node.sees(2).await;
        node.stands(Standing::Ready).await;
    }
    let machine = &nodes[0].machine;
    machine.clock_set_s.store(5 * 3_600, Ordering::SeqCst);
    pass(CLUSTER_REUNION_MS).await;
    assert_eq!(nodes[0].counter("outlive_cluster_isolated_total").await, 0);
    assert_eq!(machine.processes.stopped.load(Ordering::SeqCst), 0, "what runs on it is not ended");
    machine.slept_s.store(3_600, Ordering::SeqCst);
    pass(CLUSTER_REUNION_MS).await;
    assert_eq!(nodes[0].counter("outlive_cluster_isolated_total").await, 1);
    assert!(machine.processes.stopped.load(Ordering::SeqCst) > 0, "others have had time to take it all");
    nodes[0].stands(Standing::Ready).await;
    assert!(nodes.iter().all(|node| node.losses().is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_node_waits_for_its_store_and_joins_when_it_answers() {
    let world = World::new();
    let machine = crate::world::Machine::default();
    machine.store_is_silent.store(true, std::sync::atomic::Ordering::SeqCst);
    let mut starting = Box::pin(world.node(1).with(machine.clone()));
    let early = tokio::time::timeout(Duration::from_secs(10), &mut starting).await;
    assert!(early.is_err(), "it does not join what it cannot read");
    machine.store_is_silent.store(false, std::sync::atomic::Ordering::SeqCst);
    let node = tokio::time::timeout(Duration::from_secs(7_200), starting).await.unwrap().unwrap();
    node.stands(Standing::Ready).await;
}
