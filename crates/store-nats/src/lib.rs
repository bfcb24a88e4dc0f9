//! The engine on NATS JetStream, which several nodes share.
//!
//! | module | is |
//! |---|---|
//! | [`settings`] | what it is told |
//! | `connect`, `access`, `streams`, [`error`] | the way to a usable engine, and why there is none |
//! | `wire`, `api`, `direct` | requests over the connection; JetStream's JSON; pages without a consumer |
//! | `layout`, `record`, `row` | where everything is, and its bytes |
//! | `append` | the fenced append |
//! | `read`, `tail`, `whole` | reading, from memory, from any replica, from the leader |
//! | `follow`, `session` | heads of logs, live; what is held in memory of a session |
//! | `tables`, `feed` | rows by compare-and-swap; their changes, live |
//! | `blobs` | large payloads |
//! | [`transport`] | what nodes tell each other at once |
//! | `testing` | servers for tests (feature `testing`) |
//!
//! Nothing here uses a consumer of the server's: one that lost its leader was seen to fall silent without an error.

mod access;
mod api;
mod append;
mod blobs;
mod connect;
mod direct;
mod engine;
pub mod error;
mod feed;
mod follow;
mod layout;
mod nats;
mod read;
mod record;
mod removal;
mod row;
mod session;
pub mod settings;
mod streams;
mod tables;
mod tail;
#[cfg(feature = "testing")]
pub mod testing;
pub mod transport;
mod whole;
mod wire;

pub use error::ConnectError;
pub use nats::Nats;
pub use settings::{Credentials, Settings};
pub use transport::NatsTransport;
