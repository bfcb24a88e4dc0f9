//! Sockets: bound once, accepted from without spinning, each connection a task that is owned and joined.

pub mod accept;
pub mod bind;
mod stall;
