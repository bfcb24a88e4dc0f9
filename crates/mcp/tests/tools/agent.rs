//! An agent: MCP's own client, over a pair of pipes or over HTTP.

use std::sync::Arc;
use std::time::Duration;

use outlive_mcp::Caller;
use outlive_node::api::Api;
use outlive_server::{Bounds, Listeners, bind_unix, serve_with};
use rmcp::model::CallToolRequestParams;
use rmcp::service::RunningService;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::{RoleClient, ServiceExt as _};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::memory::Memory;

/// Beyond any wait of a healthy test.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Where the agent over pipes is.
pub const DIRECTORY: &str = "/home/ada/work";

pub struct Agent {
    pub client: RunningService<RoleClient, ()>,
    pub transport: &'static str,
    shutdown: CancellationToken,
    serving: JoinSet<()>,
    _folder: Option<TempDir>,
}

/// What a tool answered.
#[derive(Debug)]
pub struct Answer {
    pub structured: Value,
    pub text: String,
    pub images: Vec<String>,
    pub is_error: bool,
}

/// One agent a transport.
pub async fn both(memory: &Arc<Memory>) -> [Agent; 2] {
    [Agent::over_pipes(memory).await, Agent::over_http(memory).await]
}

impl Agent {
    pub async fn over_pipes(memory: &Arc<Memory>) -> Self {
        let api = Arc::clone(memory) as Arc<dyn Api>;
        let caller = Caller { directory: Some(DIRECTORY.into()), variables: None };
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let (read, write) = tokio::io::split(theirs);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            outlive_mcp::stdio(outlive_mcp::in_process(api, caller), read, write).await.unwrap();
        });
        let client = ().serve(ours).await.unwrap();
        Self { client, transport: "pipes", shutdown: CancellationToken::new(), serving, _folder: None }
    }

    pub async fn over_http(memory: &Arc<Memory>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("run/daemon.sock");
        let api = Arc::clone(memory) as Arc<dyn Api>;
        let shutdown = CancellationToken::new();
        let listeners = Listeners { unix: bind_unix(&socket).unwrap(), tcp: None };
        let mcp = outlive_mcp::router(Arc::clone(&api), shutdown.clone());
        let mut serving = JoinSet::new();
        serving.spawn(serve_with(api, mcp, listeners, Bounds::default(), shutdown.clone()));
        let transport =
            StreamableHttpClientTransport::from_unix_socket(socket.to_str().unwrap(), "http://localhost/mcp");
        let client = ().serve(transport).await.unwrap();
        Self { client, transport: "http", shutdown, serving, _folder: Some(folder) }
    }

    pub async fn call(&self, tool: &'static str, arguments: Value) -> Answer {
        let Value::Object(arguments) = arguments else { panic!("arguments are an object") };
        let request = CallToolRequestParams::new(tool).with_arguments(arguments);
        let answered = tokio::time::timeout(PATIENCE, self.client.call_tool(request)).await;
        let result = answered.expect("an answer in time").unwrap();
        let texts = result.content.iter().filter_map(|block| block.as_text()).map(|text| text.text.as_str());
        let text = texts.collect();
        let images = result.content.iter().filter_map(|block| block.as_image());
        Answer {
            text,
            images: images.map(|image| image.data.clone()).collect(),
            structured: result.structured_content.unwrap(),
            is_error: result.is_error.unwrap_or(false),
        }
    }

    /// The agent goes, and nothing of it is left.
    pub async fn leave(mut self) {
        self.client.cancel().await.unwrap();
        self.shutdown.cancel();
        let ended = async { while self.serving.join_next().await.is_some_and(|ended| ended.is_ok()) {} };
        tokio::time::timeout(PATIENCE, ended).await.expect("the server ends with its client");
    }
}
