//! The server as its clients meet it: real sockets, a fake node behind it.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod blobs;
mod chat;
mod chat_failures;
mod client;
mod cluster;
mod document;
mod fake;
mod group;
mod impostor;
mod load;
mod openai_client;
mod proxy;
mod proxy_faults;
mod refusals;
mod requests;
mod runners;
mod shutdown;
mod streams;
mod waiting;
mod websockets;
