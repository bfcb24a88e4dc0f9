//! What nodes make of each other: who is alive, who takes what over, and what a node does that is alone. Pure.

mod claim;
pub mod isolation;
pub mod liveness;
pub mod plan;
pub mod rendezvous;
pub mod takeover;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{BootId, NodeId};

pub use claim::{Claimable, Deposes, claimable};
pub use takeover::{TakenWhy, Takeover};

/// One start of a node: the same node in its next life is another member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Member {
    /// The node, kept in its state directory.
    pub node: NodeId,
    /// This start of it.
    pub boot: BootId,
}
