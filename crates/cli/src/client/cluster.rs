//! The calls about the nodes of a cluster.

use hyper::Method;
use outlive_core::id::SessionId;
use outlive_protocol::http::{ClusterView, Drain, Drained, TakeoverView};

use super::{CallError, Client, STOP_TIMEOUT, parsed};

impl Client {
    /// The nodes of the cluster as this one sees them; none when it is alone.
    pub async fn cluster(&self) -> Result<ClusterView, CallError> {
        self.get("/v1/nodes").await
    }

    /// Makes the node give everything away that it owns. It answers when that is done.
    pub async fn drain(&self, how: Drain) -> Result<Drained, CallError> {
        let path = "/v1/node/drain";
        let bytes = self.exchange(Method::POST, path, Some(&how), STOP_TIMEOUT).await?;
        parsed(path, &bytes)
    }

    /// How a session has changed its nodes, oldest first.
    pub async fn takeovers(&self, id: SessionId) -> Result<Vec<TakeoverView>, CallError> {
        self.get(&format!("/v1/sessions/{id}/takeovers")).await
    }
}
