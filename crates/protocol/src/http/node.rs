//! One daemon, as clients and other nodes see it.

use outlive_core::id::{BootId, NodeId};
use outlive_core::time::WallTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The node to ask instead.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Elsewhere {
    /// Which.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Where its API is; none: it cannot be reached from another machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// One daemon.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct NodeView {
    /// Its id, kept in the state directory.
    pub node: NodeId,
    /// This start of it.
    pub boot: BootId,
    /// Its version, as `outlive --version` prints it.
    pub version: String,
    /// The API's version; a client of another one refuses to go on.
    pub api: u32,
    /// The daemon's pid.
    pub pid: u32,
    /// Its state directory.
    pub state_directory: String,
    /// When it started.
    pub started_at: WallTime,
    /// Whether it takes work: recovery is over.
    pub ready: bool,
}

/// Version of the API that this build speaks.
pub const API_VERSION: u32 = 1;

/// How to stop a daemon.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct StopNode {
    /// Leave kernels and commands running: the next daemon adopts them.
    pub keep_runtimes: bool,
}
