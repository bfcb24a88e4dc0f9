//! Agents: `outlive mcp` over its standard input and output, and `/mcp` over HTTP, with real kernels. MCP is spoken by
//! hand here (the library's own client is in `crates/mcp/tests`), so that both are checked against something else.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

mod notebooks;
mod pipes;
mod transports;
