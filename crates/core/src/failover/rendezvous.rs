//! Rendezvous hashing: an order of nodes for a key that all nodes agree on, without talking. When a node goes, the order
//! of the others stays.
//!
//! The numbers are part of the agreement: nodes of different versions give the same (golden in `tests/failover.rs`).

use std::cmp::Reverse;

use uuid::Uuid;

use crate::id::NodeId;

/// How much a node is meant for a key; the highest comes first.
#[must_use]
pub fn weight(key: &Uuid, node: NodeId) -> u64 {
    let bytes = key.as_bytes().iter().chain(node.as_uuid().as_bytes());
    // FNV-1a, then the finalizer of SplitMix64: FNV alone leaves the high bits of similar ids alike.
    let mut hash = bytes.fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3)
    });
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^ (hash >> 31)
}

/// The nodes, those first that are meant most for the key.
#[must_use]
pub fn order(key: &Uuid, nodes: impl IntoIterator<Item = NodeId>) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> = nodes.into_iter().collect();
    nodes.sort_by_cached_key(|node| Reverse((weight(key, *node), *node)));
    nodes
}

/// Whether fewer than `first` of the nodes are meant more for the key than this one.
#[must_use]
pub fn is_among(key: &Uuid, node: NodeId, nodes: impl IntoIterator<Item = NodeId>, first: usize) -> bool {
    let own = (weight(key, node), node);
    nodes.into_iter().filter(|other| (weight(key, *other), *other) > own).take(first).count() < first
}
