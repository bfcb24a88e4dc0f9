//! The server as its clients meet it: real sockets, a fake node behind it.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod blobs;
mod client;
mod document;
mod fake;
mod load;
mod refusals;
mod requests;
mod shutdown;
mod streams;
mod websockets;
