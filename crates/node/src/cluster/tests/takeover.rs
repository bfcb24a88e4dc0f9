//! What a lost node had goes on elsewhere, once.

use std::time::Duration;

use outlive_core::log::Lane;
use outlive_core::runtime::{RestartPolicy, StopStep, StopWhy};
use outlive_protocol::http::SessionState;
use outlive_store::faulty::{Fault, Operation};

use super::world::{GRACE, World, id};
use crate::api::{Api, Groups};

// E1, E6
#[tokio::test(start_paused = true)]
async fn a_command_of_a_lost_node_goes_on_on_one_other_and_its_node_writes_nothing_more() {
    let world = World::new();
    let nodes = world.nodes(3).await;
    let (session, run) = nodes[0].command(1, RestartPolicy::permanent()).await;
    nodes[0].kill();
    let taken = tokio::time::Instant::now();
    let claim = super::takeover::any_owner(&world, session, 1).await;
    assert!(taken.elapsed() < Duration::from_secs(2), "{:?}", taken.elapsed());
    let heir = nodes.iter().find(|one| one.context().who.node == claim.node).unwrap();
    let (process, attempt) = heir.machine.given(run).await;
    assert_eq!(attempt.0, 2);
    let others: usize = nodes[1..].iter().map(|one| one.machine.launched()).sum();
    assert_eq!(others, 1, "it runs once");
    heir.machine.text(process, run, "again");
    heir.machine.finish(process, run);
    heir.machine.dies(process, outlive_core::runtime::ExitStatus::Code { code: 0 }, None);
    let ended = heir.until(session, |view| view.closed_at.is_some()).await;
    assert_eq!(ended.state, SessionState::Succeeded);
    assert_eq!(world.controls(session).await, 3, "two claims and the end");
}

/// Waits until a node other than this one has the session.
pub async fn any_owner(
    world: &World,
    session: outlive_core::id::SessionId,
    but: usize,
) -> outlive_core::log::fold::Claim {
    use outlive_store::Engine as _;
    let mut head = world.store.head(session).await.unwrap();
    let found = async {
        loop {
            head.mark_unchanged();
            if let Some(claim) = world.owner(session).await.filter(|claim| claim.node != id(but)) {
                return claim;
            }
            head.changed().await.unwrap();
        }
    };
    tokio::time::timeout(super::world::PATIENCE, found).await.expect("somebody takes it over")
}
