//! Who is alive, what a node does that is cut off, and the order that nodes agree on (rows E1–E7 stand on these).

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

mod isolation;
mod liveness;
mod plan;
mod rendezvous;
mod world;
