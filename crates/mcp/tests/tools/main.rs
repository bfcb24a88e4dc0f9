//! The tools, by MCP's own client over both transports, against a daemon that lives in memory, and against a real node.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

mod agent;
mod files;
mod manifest;
mod memory;
mod node;
mod work;
