//! The tools as MCP's library serves them.

use std::sync::Arc;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, Implementation, ListToolsResult, PaginatedRequestParams,
    ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};

use crate::host::Host;
use crate::tool::Call;
use crate::tools;

/// What a model is told before it sees the tools.
const INSTRUCTIONS: &str = "Outlive keeps notebooks and their kernels alive: what runs goes on when you disconnect, and \
is there when you come back. A session is one notebook with its kernel and has an id that never changes. `open` or `new` \
gives you a session; `read` its cells, `edit` them, `run` them by id, `save` the notebook. A run has an id too: when \
`run` answers before its end, ask `outputs` for what came since. When a kernel has died, `explain` says why.";

/// Serves the tools to one client.
#[derive(Clone)]
pub struct Server {
    host: Arc<dyn Host>,
}

impl Server {
    /// Tools that act on this daemon.
    pub fn new(host: Arc<dyn Host>) -> Self {
        Self { host }
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let mut info = ServerConfig::new(ServerCapabilities::builder().enable_tools().build());
        info.server_info = Implementation::new("outlive", env!("CARGO_PKG_VERSION"));
        info.instructions = Some(INSTRUCTIONS.to_owned());
        info
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let all = tools::all().iter().map(|entry| entry.tool.clone()).collect();
        Ok(ListToolsResult::with_all_items(all))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(entry) = tools::all().iter().find(|entry| entry.tool.name == request.name) else {
            return Err(ErrorData::invalid_params(format!("there is no tool {:?}", request.name), None));
        };
        let call = Call::new(Arc::clone(&self.host), context);
        Ok(entry.call(call, request.arguments.unwrap_or_default()).await.into())
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        tools::all().iter().find(|entry| entry.tool.name == name).map(|entry| entry.tool.clone())
    }
}
