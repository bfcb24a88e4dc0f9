//! Two living nodes never have one name.

use std::time::Duration;

use outlive_core::limits::{CLUSTER_NAME_SILENCES, CLUSTER_SUSPECT_MS};
use outlive_node::StartError;
use outlive_node::cluster::Standing;

use crate::world::{World, pass};

#[tokio::test(start_paused = true)]
async fn the_name_of_a_living_node_is_refused_and_that_node_is_left_alone() {
    let world = World::new();
    let nodes = world.nodes(2).await;
    let Err(error) = world.node(3).named("node-1").start().await else { panic!("it has started") };
    let said = error.to_string();
    assert!(matches!(error, StartError::NameTaken { node, .. } if node == nodes[0].member.node), "{said}");
    for needed in ["\"node-1\"", "http://node-1:8787", "pid", "give this one another name"] {
        assert!(said.contains(needed), "{said}");
    }
    pass(5_000).await;
    assert_eq!(*nodes[0].cluster().standing.borrow(), Standing::Ready);
    assert!(nodes[1].losses().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_a_state_directory_is_refused_while_the_original_lives() {
    let world = World::new();
    let nodes = world.nodes(2).await;
    let copy = world.node(1).start().await;
    assert!(matches!(copy, Err(StartError::NameTaken { .. })));
    pass(5_000).await;
    assert!(nodes[1].losses().is_empty(), "it never beat");
}

#[tokio::test(start_paused = true)]
async fn of_two_that_start_at_once_with_one_name_exactly_one_does() {
    let world = World::new();
    let (one, two) = tokio::join!(world.node(1).named("same").start(), world.node(2).named("same").start());
    assert_eq!(u32::from(one.is_ok()) + u32::from(two.is_ok()), 1);
}

#[tokio::test(start_paused = true)]
async fn the_name_of_a_dead_node_is_free_after_a_silence() {
    let world = World::new();
    let mut nodes = world.nodes(2).await;
    nodes.pop().unwrap().killed().await;
    let before = tokio::time::Instant::now();
    let next = world.node(7).named("node-2").start().await.unwrap();
    let silence = Duration::from_millis(CLUSTER_SUSPECT_MS) * CLUSTER_NAME_SILENCES;
    let took = before.elapsed();
    assert!(took >= silence && took < silence + Duration::from_millis(500), "{took:?}");
    next.stands(Standing::Ready).await;
    nodes[0].loss().await;
    nodes[0].sees(2).await;
}
