//! An agent: MCP's own client, over a pair of pipes or over HTTP, also of a node that asks another one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use outlive_mcp::Caller;
use outlive_node::api::Api;
use outlive_server::{Bounds, Front, Listeners, TcpPolicy, Token, bind_tcp, bind_unix, serve_front};
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
    /// The node that has what the agent's own has not.
    owner: Option<Owner>,
}

/// A node that others ask.
pub struct Owner {
    pub url: String,
    serving: JoinSet<()>,
    shutdown: CancellationToken,
    _folder: TempDir,
}

/// What a tool answered.
#[derive(Debug)]
pub struct Answer {
    pub structured: Value,
    pub text: String,
    pub images: Vec<String>,
    pub is_error: bool,
}

/// One agent a transport, and one whose node asks another one.
pub async fn every(memory: &Arc<Memory>) -> [Agent; 3] {
    [Agent::over_pipes(memory).await, Agent::over_http(memory).await, Agent::of_another_node(memory).await]
}

const CLUSTER_TOKEN: &str = "ffeeddccbbaa99887766554433221100";

fn in_cluster(memory: &Arc<Memory>, shutdown: &CancellationToken) -> Front {
    let api = Arc::clone(memory) as Arc<dyn Api>;
    let front = Front::waiting(api.node(), "a test");
    front.join(api.node().node, CLUSTER_TOKEN).unwrap();
    let mcp = outlive_mcp::router_among(Arc::clone(&api), front.others(Arc::clone(&api)), shutdown.clone());
    front.open(api, mcp);
    front
}

impl Owner {
    pub async fn new(memory: &Arc<Memory>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let shutdown = CancellationToken::new();
        let token = Token::new("00112233445566778899aabbccddeeff").unwrap();
        let policy = TcpPolicy { token, hosts: Vec::new(), origins: Vec::new() };
        let tcp = bind_tcp("127.0.0.1:0".parse().unwrap(), policy).await.unwrap();
        let url = format!("http://{}", tcp.address());
        let unix = bind_unix(&folder.path().join("run/daemon.sock")).unwrap();
        let listeners = Listeners { unix, tcp: Some(tcp) };
        let front = in_cluster(memory, &shutdown);
        let mut serving = JoinSet::new();
        serving.spawn(serve_front(front, listeners, Bounds::default(), shutdown.clone()));
        Self { url, serving, shutdown, _folder: folder }
    }

    /// As a process that is killed.
    pub async fn kill(mut self) {
        self.serving.shutdown().await;
    }
}

impl Agent {
    pub async fn over_pipes(memory: &Arc<Memory>) -> Self {
        Self::in_directory(Arc::clone(memory) as Arc<dyn Api>, Path::new(DIRECTORY)).await
    }

    /// An agent over pipes who works in a directory.
    pub async fn in_directory(api: Arc<dyn Api>, directory: &Path) -> Self {
        let caller = Caller { directory: Some(directory.to_owned()), variables: None };
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let (read, write) = tokio::io::split(theirs);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            outlive_mcp::stdio(outlive_mcp::in_process(api, caller), read, write).await.unwrap();
        });
        let client = ().serve(ours).await.unwrap();
        let shutdown = CancellationToken::new();
        Self { client, transport: "pipes", shutdown, serving, _folder: None, owner: None }
    }

    pub async fn over_http(memory: &Arc<Memory>) -> Self {
        let shutdown = CancellationToken::new();
        let api = Arc::clone(memory) as Arc<dyn Api>;
        let mcp = outlive_mcp::router(Arc::clone(&api), shutdown.clone());
        Self::of(Front::new(api, mcp), shutdown).await
    }

    /// An agent of a node that has nothing itself: the other one has what is in this memory.
    pub async fn of_another_node(memory: &Arc<Memory>) -> Self {
        let owner = Owner::new(memory).await;
        let mut agent = Self::of_node(&Memory::elsewhere(owner.url.clone())).await;
        agent.owner = Some(owner);
        agent
    }

    /// An agent of one of several nodes.
    pub async fn of_node(memory: &Arc<Memory>) -> Self {
        let shutdown = CancellationToken::new();
        Self::of(in_cluster(memory, &shutdown), shutdown).await
    }

    async fn of(front: Front, shutdown: CancellationToken) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("run/daemon.sock");
        let listeners = Listeners { unix: bind_unix(&socket).unwrap(), tcp: None };
        let mut serving = JoinSet::new();
        serving.spawn(serve_front(front, listeners, Bounds::default(), shutdown.clone()));
        let transport =
            StreamableHttpClientTransport::from_unix_socket(socket.to_str().unwrap(), "http://localhost/mcp");
        let client = ().serve(transport).await.unwrap();
        Self { client, transport: "http", shutdown, serving, _folder: Some(folder), owner: None }
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
    pub async fn leave(self) {
        self.client.cancel().await.unwrap();
        self.shutdown.cancel();
        let mut all = vec![self.serving];
        if let Some(owner) = self.owner {
            owner.shutdown.cancel();
            all.push(owner.serving);
        }
        for mut serving in all {
            let ended = async { while serving.join_next().await.is_some_and(|ended| ended.is_ok()) {} };
            tokio::time::timeout(PATIENCE, ended).await.expect("the server ends with its client");
        }
    }
}
