//! What those are told who are in the middle of something when the server ends.

use std::sync::Arc;

use outlive_node::api::Api;
use outlive_protocol::http::Problem;
use tokio_util::sync::CancellationToken;

use crate::problem;

/// The end of the server.
#[derive(Clone)]
pub(crate) struct Farewell {
    shutdown: CancellationToken,
    api: Arc<dyn Api>,
}

impl Farewell {
    pub(crate) fn new(shutdown: CancellationToken, api: Arc<dyn Api>) -> Self {
        Self { shutdown, api }
    }

    /// Waits for the end; then the last word, with where to go. Cancel-safe.
    pub(crate) async fn said(&self) -> Problem {
        self.shutdown.cancelled().await;
        let mut problem = problem::shutting_down();
        self.direct(&mut problem);
        problem
    }

    /// Whether its reader may be told that somebody is there. A node that is cut off keeps silent: whoever takes silence
    /// for death finds another that knows more.
    pub(crate) fn is_there(&self) -> bool {
        self.api.is_in_touch()
    }

    /// Waits for the end. Cancel-safe.
    pub(crate) async fn begun(&self) {
        self.shutdown.cancelled().await;
    }

    /// Says where its reader can go in a problem that ends a stream.
    pub(crate) fn direct(&self, problem: &mut Problem) {
        let is_departure = matches!(problem.code.as_str(), "shutting-down" | "draining" | "node-isolated");
        if is_departure && problem.elsewhere.is_none() {
            problem.elsewhere = self.api.neighbour().map(Box::new);
        }
    }
}
