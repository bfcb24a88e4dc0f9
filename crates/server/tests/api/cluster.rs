//! The fake's place among other nodes: what it does not have itself, how it stands, and who is lost.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use outlive_core::failover::Member;
use outlive_core::id::{BootId, Epoch, NodeId, SessionId};
use outlive_core::time::WallTime;
use outlive_protocol::http::{ClusterNode, ClusterView, Elsewhere, NodeState, Problem, TakeoverView};
use tokio::sync::watch;
use uuid::Uuid;

use crate::fake::SESSION;

/// The other node that the fake knows.
pub const OTHER: Uuid = Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0009);

#[derive(Default)]
pub struct Cluster {
    /// What everything about sessions and groups is refused with.
    pub away: Mutex<Option<Problem>>,
    /// Why it takes no work.
    pub unready: Mutex<Option<Problem>>,
    /// Where its clients can go.
    pub neighbour: Mutex<Option<Elsewhere>>,
    /// Whether the other node is lost.
    pub lost: watch::Sender<bool>,
    /// Whether it is cut off.
    pub out_of_touch: AtomicBool,
}

impl Cluster {
    /// Lets another node have every session and group.
    pub fn elsewhere(&self, url: Option<&str>) {
        let mut problem = Problem::new(421, "elsewhere", "Another node has it", "It is open on node n2.")
            .hint("Ask that node.")
            .fact("session", SESSION.to_string());
        problem.elsewhere = Some(Box::new(other(url)));
        *self.away.lock().unwrap() = Some(problem);
    }

    pub fn check(&self) -> Result<(), Problem> {
        self.away.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    pub fn ready(&self) -> Result<(), Problem> {
        self.unready.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    pub fn neighbour(&self) -> Option<Elsewhere> {
        self.neighbour.lock().unwrap().clone()
    }

    pub async fn until_lost(&self, node: NodeId) {
        if *node.as_uuid() != OTHER {
            return std::future::pending().await;
        }
        self.lost.subscribe().wait_for(|is_lost| *is_lost).await.unwrap();
    }

    pub fn view(&self) -> ClusterView {
        let node = ClusterNode {
            member: Member { node: NodeId::from_uuid(OTHER), boot: BootId::from_uuid(OTHER) },
            name: "n2".to_owned(),
            url: None,
            state: NodeState::Alive,
            since: WallTime(1),
            version: "0.1.0".to_owned(),
            sessions: 3,
            clock_skew_ms: 0,
            is_me: false,
        };
        ClusterView { nodes: vec![node], guard: None, takeovers: vec![takeover()] }
    }
}

pub fn other(url: Option<&str>) -> Elsewhere {
    Elsewhere { node: NodeId::from_uuid(OTHER), name: "n2".to_owned(), url: url.map(str::to_owned) }
}

pub fn takeover() -> TakeoverView {
    TakeoverView {
        session: SessionId::from_uuid(SESSION),
        title: "train.ipynb".to_owned(),
        from: NodeId::from_uuid(OTHER),
        from_name: "n2".to_owned(),
        to: NodeId::from_uuid(SESSION),
        to_name: "n1".to_owned(),
        epoch: Epoch(2),
        why: "silent".to_owned(),
        last_heard: Some(WallTime(1)),
        noticed_at: WallTime(2),
        claimed_at: WallTime(3),
        resumed_at: WallTime(4),
        resumed: vec!["the notebook with its outputs".to_owned()],
    }
}
