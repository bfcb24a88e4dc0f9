//! The engine on real NATS servers: what it promises, and what it says when it cannot.
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

mod access;
mod blobs;
mod conformance;
mod connect;
mod cuts;
mod fake;
mod fence;
mod follow;
mod full;
mod misconfigured;
mod proxy;
mod replicas;
mod servers;
mod speed;
mod transport;
mod world;
