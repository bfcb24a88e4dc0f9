//! What a node counts.

/// The counters of one node.
#[derive(Default, Debug)]
pub struct Metrics {}
