//! Notebooks for agents, over the Model Context Protocol.
//!
//! ```text
//! client ── stdio ──► outlive mcp ── HTTP over the daemon's socket ──┐
//! client ── streamable HTTP, /mcp behind the server's door ──────────┴──► Host ◄── tools ◄── server
//! ```
//! Over HTTP the host is `in_process`, which asks another node where that one has what a tool is about.
//! The tools act on a [`Host`] and know neither transport. What is said about a tool and what it does stand together in
//! `tools`; `docs/mcp-tools.json` is generated from them. Every answer is bounded and says what it leaves out.

mod host;
mod in_process;
mod outputs;
mod server;
mod tool;
mod tools;
mod wait;
mod words;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use outlive_core::limits::{MCP_PROGRESS_MS, MCP_REQUEST_BYTES_MAX};
use outlive_node::api::{Api, Others};
use rmcp::ServiceExt as _;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

pub use host::{Caller, Host};
use in_process::InProcess;
use server::Server;

/// Where MCP is served over HTTP.
pub const PATH: &str = "/mcp";

/// The daemon that this code runs in, for a caller who is somewhere.
#[must_use]
pub fn in_process(api: Arc<dyn Api>, caller: Caller) -> Arc<dyn Host> {
    Arc::new(InProcess { api, others: None, caller })
}

/// The tools over streamable HTTP, on [`PATH`]. Who may come in is asked before, by the server that this is merged into.
///
/// Nothing is kept between two requests: a client needs no session with the daemon, and loses none when the daemon is
/// replaced.
pub fn router(api: Arc<dyn Api>, shutdown: CancellationToken) -> Router {
    router_among(api, None, shutdown)
}

/// As [`router`], for one of several nodes: what another one has is asked of it, through `others`.
pub fn router_among(
    api: Arc<dyn Api>,
    others: Option<Arc<dyn Others>>,
    shutdown: CancellationToken,
) -> Router {
    let server = Server::new(Arc::new(InProcess { api, others, caller: Caller::default() }));
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_sse_keep_alive(Some(Duration::from_millis(MCP_PROGRESS_MS)))
        .with_max_request_body_bytes(MCP_REQUEST_BYTES_MAX)
        // The server's door has looked at both already, and knows more names.
        .disable_allowed_hosts()
        .disable_allowed_origins()
        .with_cancellation_token(shutdown);
    let service = StreamableHttpService::new(
        move || Ok(server.clone()),
        Arc::new(NeverSessionManager::default()),
        config,
    );
    Router::new().route_service(PATH, service)
}

/// Why a client over a pair of pipes was not served to its end.
#[derive(Debug, thiserror::Error)]
pub enum StdioError {
    /// It is no MCP client, or it left before it had said hello.
    #[error("the client did not begin as MCP asks: {0}")]
    Begin(String),
    /// A defect of ours.
    #[error("the tools' task ended early: {0}")]
    Broken(#[from] tokio::task::JoinError),
}

/// Serves one client over a pair of pipes until it closes them.
///
/// # Errors
/// The client does not speak MCP.
pub async fn stdio<R, W>(host: Arc<dyn Host>, read: R, write: W) -> Result<(), StdioError>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let serving = Server::new(host).serve((read, write)).await;
    serving.map_err(|error| StdioError::Begin(error.to_string()))?.waiting().await?;
    Ok(())
}

/// The tools with their schemas; `docs/mcp-tools.json` is a copy of it.
#[must_use]
pub fn manifest() -> Value {
    let tools: Vec<_> = tools::all().iter().map(|entry| &entry.tool).collect();
    json!({ "tools": tools })
}
