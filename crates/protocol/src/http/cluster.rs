//! Several nodes, as clients see them.

use outlive_core::failover::Member;
use outlive_core::id::{Epoch, NodeId, SessionId};
use outlive_core::time::WallTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a node stands with the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It has started, and does not hear its own heartbeats or does not watch the others yet.
    Joining,
    /// It is heard.
    Alive,
    /// It has not been heard for longer than it should be.
    Suspected,
    /// It is cut off from the cluster's store: its runtimes are frozen or about to be. A node says so of itself alone.
    Isolated,
    /// It hands its work over.
    Draining,
    /// It was lost; what it had is taken over.
    Dead,
    /// It went by itself.
    Left,
}

/// A node of a cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ClusterNode {
    /// Which node, in which life.
    #[serde(flatten)]
    pub member: Member,
    /// Its name, which no other living node of the cluster has.
    pub name: String,
    /// Where its API is reached, for instance `http://10.0.0.1:8787`; none: by this machine alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// How it stands.
    pub state: NodeState,
    /// Since when, by the clock of the node that was asked.
    pub since: WallTime,
    /// Its version.
    pub version: String,
    /// The sessions that it owns.
    pub sessions: u64,
    /// Its clock less ours, in milliseconds, when it was heard last.
    pub clock_skew_ms: i64,
    /// Whether this is the node that was asked.
    pub is_me: bool,
}

/// The nodes of a cluster, as one of them sees them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct ClusterView {
    /// By name. Empty: this daemon is alone.
    pub nodes: Vec<ClusterNode>,
    /// Why nobody is suspected now, though somebody may be silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<String>,
    /// The latest takeovers that this node knows of, newest first.
    pub takeovers: Vec<TakeoverView>,
}

/// What happened when a session changed its owner.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TakeoverView {
    /// The session.
    pub session: SessionId,
    /// Its title: path, name or id.
    pub title: String,
    /// Who had it.
    pub from: NodeId,
    /// The name of that node.
    pub from_name: String,
    /// Who has it.
    pub to: NodeId,
    /// The name of that node.
    pub to_name: String,
    /// The claim of the new owner.
    pub epoch: Epoch,
    /// Why: `silent`, `disconnected`, `left`, `drained`.
    pub why: String,
    /// When the old owner was heard last, by the new owner's clock.
    pub last_heard: Option<WallTime>,
    /// When its loss was noticed.
    pub noticed_at: WallTime,
    /// When the claim was written.
    pub claimed_at: WallTime,
    /// When it went on.
    pub resumed_at: WallTime,
    /// What was resumed, one line each, for people.
    pub resumed: Vec<String>,
}

/// How to drain a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Drain {
    /// How long a running cell of a notebook may still take before its kernel is stopped, in milliseconds.
    #[serde(default)]
    pub cell_grace_ms: u64,
    /// End the daemon afterwards.
    #[serde(default)]
    pub stop: bool,
}

/// What draining a node has come to.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Drained {
    /// The sessions that were given away.
    pub released: Vec<SessionId>,
    /// Those that another node has taken already.
    pub taken: Vec<SessionId>,
    /// Those that could not be given away, and why.
    pub kept: Vec<String>,
}
