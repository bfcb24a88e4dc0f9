//! What nodes make of each other: who is alive, who takes what over, and what a node does that is alone. Pure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{BootId, NodeId};

/// One start of a node: the same node in its next life is another member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Member {
    /// The node, kept in its state directory.
    pub node: NodeId,
    /// This start of it.
    pub boot: BootId,
}
