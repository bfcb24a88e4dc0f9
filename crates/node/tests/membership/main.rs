//! Nodes in one process over one store in memory: who is there, who is lost, and what a node does that is cut off.
//! Time is virtual.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

mod isolation;
mod liveness;
mod names;
mod world;
