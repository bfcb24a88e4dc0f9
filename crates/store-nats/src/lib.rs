//! The engine on NATS JetStream, which several nodes share.
