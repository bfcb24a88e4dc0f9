//! The engine on NATS JetStream, which several nodes share.

#[cfg(feature = "testing")]
pub mod testing;
