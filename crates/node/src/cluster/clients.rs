//! What clients of this node are told of itself and the others: whether it takes work, where else they can go, and that
//! nothing more is to be expected of a node.

use std::ops::Bound;
use std::sync::atomic::Ordering;

use outlive_core::id::NodeId;
use outlive_protocol::http::{Elsewhere, NodeState, Problem};
use tokio::sync::broadcast::error::RecvError;

use super::{Cluster, Members, Standing, Why};
use crate::problem;

impl Cluster {
    /// Whether this node takes work; else why not.
    ///
    /// # Errors
    /// `joining`, `isolated`, `draining`.
    pub fn ready(&self) -> Result<(), Problem> {
        match *self.standing.borrow() {
            Standing::Ready => Ok(()),
            Standing::Joining => Err(problem::joining(
                "the node does not hear its own heartbeats yet, or does not watch the other nodes yet",
            )),
            Standing::Reuniting => {
                Err(problem::joining("the node was cut off, and finds out what is still its own"))
            }
            Standing::Isolated { .. } => Err(problem::isolated()),
            Standing::Draining => Err(problem::draining()),
        }
    }

    /// Whether it hears its own heartbeats. One that does not falls silent for its watchers long before it closes them: by
    /// then another node may have gone on with what they watch.
    pub fn is_in_touch(&self) -> bool {
        !self.out_of_touch.load(Ordering::Relaxed)
    }

    /// A living node that clients of this one can go to: the next one in the order of ids, so that the clients of
    /// several nodes that end do not all go to the same.
    pub fn neighbour(&self) -> Option<Elsewhere> {
        let members = self.members.borrow();
        let behind = members.seen.range((Bound::Excluded(self.me), Bound::Unbounded));
        let before = members.seen.range(..self.me);
        let (member, seen) =
            behind.chain(before).find(|(_, seen)| seen.state == NodeState::Alive && seen.url.is_some())?;
        Some(Elsewhere { node: member.node, name: seen.name.clone(), url: seen.url.clone() })
    }

    /// Comes back when the node's present life is lost, or its next one is here. A node that is not known is not lost:
    /// its first heartbeat may still be on its way.
    pub async fn until_lost(&self, node: NodeId) {
        // Subscribed before the look: a loss in between is told.
        let mut lost = self.lost.subscribe();
        while !is_lost(&self.members.borrow(), node) {
            match lost.recv().await {
                Ok(lost) if lost.member.node == node && lost.why != Why::Left => return,
                // Whoever lagged looks again.
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return std::future::pending().await,
            }
        }
    }
}

/// Whether a node was there and no life of it is.
fn is_lost(members: &Members, node: NodeId) -> bool {
    let dead = |state| state == NodeState::Dead;
    members.of(node).is_none()
        && members.seen.iter().any(|(member, seen)| member.node == node && dead(seen.state))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use outlive_core::failover::Member;
    use outlive_core::id::BootId;
    use outlive_core::time::{Tick, WallTime};
    use outlive_store::MemoryTransport;
    use uuid::Uuid;

    use super::*;
    use crate::cluster::{Lost, OnIsolation, Seen, Settings};

    fn member(number: u128) -> Member {
        let id = Uuid::from_u128(number);
        Member { node: NodeId::from_uuid(id), boot: BootId::from_uuid(id) }
    }

    fn seen(number: u128, state: NodeState) -> (Member, Seen) {
        let seen = Seen {
            name: format!("n{number}"),
            url: Some(format!("http://10.0.0.{number}:8787")),
            version: String::new(),
            state,
            since: WallTime(1),
            heard: None,
            clock_skew_ms: 0,
        };
        (member(number), seen)
    }

    fn cluster(me: u128, others: &[(u128, NodeState)]) -> Cluster {
        let settings = Settings {
            name: format!("n{me}"),
            url: None,
            transport: Arc::new(MemoryTransport::default()),
            heart: None,
            kernel_grace: Duration::ZERO,
            on_isolation: OnIsolation::default(),
            volumes: BTreeMap::new(),
            is_wide: false,
        };
        let cluster = Cluster::new(member(me), settings);
        tell(&cluster, others);
        cluster
    }

    fn tell(cluster: &Cluster, others: &[(u128, NodeState)]) {
        let seen = others.iter().map(|(number, state)| seen(*number, *state)).collect();
        cluster.members.send_replace(Arc::new(Members { seen, guard: None }));
    }

    #[test]
    fn each_standing_has_its_own_reason() {
        let cluster = cluster(1, &[]);
        let told = |standing| {
            cluster.standing.send_replace(standing);
            cluster.ready().err().map(|problem| (problem.status, problem.code, problem.hint.is_some()))
        };
        let refused = |code: &str| Some((503, code.to_owned(), true));
        assert_eq!(told(Standing::Joining), refused("joining"));
        assert_eq!(told(Standing::Ready), None);
        assert_eq!(told(Standing::Isolated { since: Tick::default() }), refused("isolated"));
        assert_eq!(told(Standing::Reuniting), refused("joining"));
        assert_eq!(told(Standing::Draining), refused("draining"));
    }

    #[test]
    fn clients_are_sent_to_the_next_that_is_well() {
        use NodeState::{Alive, Dead, Draining, Suspected};
        let next = |me, others: &[_]| cluster(me, others).neighbour().map(|there| there.name);
        assert_eq!(next(2, &[(1, Alive), (2, Alive), (3, Alive)]).as_deref(), Some("n3"));
        assert_eq!(next(3, &[(1, Alive), (2, Alive), (3, Alive)]).as_deref(), Some("n1"), "around");
        assert_eq!(next(1, &[(1, Alive), (2, Draining), (3, Suspected), (4, Alive)]).as_deref(), Some("n4"));
        assert_eq!(next(1, &[(1, Alive), (2, Dead)]), None);
    }

    #[tokio::test]
    async fn a_loss_is_told_and_a_farewell_is_not() {
        let cluster = cluster(1, &[(1, NodeState::Alive), (2, NodeState::Alive)]);
        let notice = |number, why| Lost {
            member: member(number),
            name: format!("n{number}"),
            why,
            heard: None,
            at: Tick::default(),
        };
        let mut told = std::pin::pin!(cluster.until_lost(member(2).node));
        assert!(futures_util::poll!(told.as_mut()).is_pending());
        cluster.lost.send(notice(3, Why::Silent)).unwrap();
        cluster.lost.send(notice(2, Why::Left)).unwrap();
        assert!(futures_util::poll!(told.as_mut()).is_pending(), "another node, and a farewell");
        cluster.lost.send(notice(2, Why::Reborn)).unwrap();
        assert!(futures_util::poll!(told.as_mut()).is_ready());
        tell(&cluster, &[(1, NodeState::Alive), (2, NodeState::Dead)]);
        let mut late = std::pin::pin!(cluster.until_lost(member(2).node));
        assert!(futures_util::poll!(late.as_mut()).is_ready(), "who asks late is told too");
        let mut unknown = std::pin::pin!(cluster.until_lost(member(9).node));
        assert!(futures_util::poll!(unknown.as_mut()).is_pending(), "nobody has heard it yet");
    }
}
