//! What a server stands in front of: a node that may come later, and the cluster that it may be one of.

use std::sync::{Arc, Mutex, OnceLock};

use axum::Router;
use outlive_core::id::NodeId;
use outlive_node::api::{Api, Others};
use outlive_protocol::http::NodeView;

use crate::door::token::{Token, TokenError};
use crate::proxy::errands::Errands;
use crate::proxy::wire::Wire;

/// The node behind a server, which may come later than the server: a daemon that waits for its cluster's store is there
/// for whoever asks what it waits for.
#[derive(Clone)]
pub struct Front(Arc<Inner>);

struct Inner {
    /// Who it is, as long as there is no node that says so.
    waiting: Option<NodeView>,
    /// What it waits for.
    why: Mutex<String>,
    node: OnceLock<Open>,
    cluster: OnceLock<Neighbours>,
}

/// A node that is there.
#[derive(Clone)]
pub(crate) struct Open {
    pub api: Arc<dyn Api>,
    /// The routes of other surfaces.
    pub beside: Router,
}

/// What a node of a cluster shares with the others.
pub(crate) struct Neighbours {
    /// By which they know each other.
    pub token: Token,
    pub wire: Wire,
}

impl Front {
    /// A node that is there and alone. `beside` holds the routes of other surfaces: they stand behind the same door, and
    /// end by themselves when the server does.
    #[must_use]
    pub fn new(api: Arc<dyn Api>, beside: Router) -> Self {
        let front = Self::with(None, String::new());
        front.open(api, beside);
        front
    }

    /// A node that is still to come. Until [`Self::open`], `/v1/live` and `/v1/node` say who it is, and everything else is
    /// refused as `joining` with the reason.
    #[must_use]
    pub fn waiting(who: NodeView, why: impl Into<String>) -> Self {
        Self::with(Some(NodeView { ready: false, ..who }), why.into())
    }

    fn with(waiting: Option<NodeView>, why: String) -> Self {
        let why = Mutex::new(why);
        Self(Arc::new(Inner { waiting, why, node: OnceLock::new(), cluster: OnceLock::new() }))
    }

    /// Says what it waits for now.
    pub fn wait_for(&self, why: impl Into<String>) {
        *self.0.why.lock().expect("nothing panics while it holds a reason") = why.into();
    }

    /// Makes it one of a cluster: whoever shows the cluster's token comes in by TCP, and what another node has is asked
    /// of that node. Before [`Self::open`]; a second time changes nothing.
    ///
    /// # Errors
    /// [`TokenError`]: the token cannot be used.
    pub fn join(&self, node: NodeId, token: &str) -> Result<(), TokenError> {
        let neighbours = Neighbours { token: Token::new(token)?, wire: Wire::new(node, token)? };
        // The first one counts.
        let _ = self.0.cluster.set(neighbours);
        Ok(())
    }

    /// The node is there: it is asked from now on. A second time changes nothing.
    pub fn open(&self, api: Arc<dyn Api>, beside: Router) {
        // The first one counts.
        let _ = self.0.node.set(Open { api, beside });
    }

    /// The way to the other nodes, for surfaces that call `api` themselves; `None` for a node that is alone.
    #[must_use]
    pub fn others(&self, api: Arc<dyn Api>) -> Option<Arc<dyn Others>> {
        let wire = self.0.cluster.get()?.wire.clone();
        Some(Arc::new(Errands::new(wire, api)))
    }

    pub(crate) fn node(&self) -> Option<&Open> {
        self.0.node.get()
    }

    pub(crate) fn neighbours(&self) -> Option<&Neighbours> {
        self.0.cluster.get()
    }

    /// Who waits, and for what.
    pub(crate) fn waits(&self) -> (Option<&NodeView>, String) {
        let why = self.0.why.lock().expect("nothing panics while it holds a reason").clone();
        (self.0.waiting.as_ref(), why)
    }
}

impl std::fmt::Debug for Front {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Front").field("is_open", &self.node().is_some()).finish_non_exhaustive()
    }
}
