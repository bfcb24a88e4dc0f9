//! Every serialized type, versioned: frames, shim messages, log records, what nodes tell each other, the HTTP API.

pub mod frame;
pub mod http;
pub mod log;
pub mod node;
pub mod replay;
pub mod runner;
pub mod shim;
pub mod shim_codec;
