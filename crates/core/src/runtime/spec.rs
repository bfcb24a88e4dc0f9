//! How a process is started.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::runner::{Speaks, Watchdogs};

/// How a kernel is interrupted (kernelspec field `interrupt_mode`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InterruptMode {
    /// SIGINT to the process group.
    #[default]
    Signal,
    /// An `interrupt_request` on the control channel.
    Message,
}

/// How daemon and kernel reach each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Loopback TCP ports.
    #[default]
    Tcp,
    /// Unix sockets in the process's private directory.
    Ipc,
}

/// What is started.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Program {
    /// A Jupyter kernel.
    Kernel {
        /// The kernelspec's name, for instance `python3`.
        name: String,
        /// What people call it.
        display_name: String,
        /// The language that it runs.
        language: String,
        /// The command; `{connection_file}` and `{resource_dir}` are filled in by the shim.
        argv: Vec<String>,
        /// The kernelspec's folder, when it has one.
        resource_dir: Option<String>,
        /// How it is interrupted.
        interrupt_mode: InterruptMode,
        /// How it is reached.
        transport: Transport,
    },
    /// The kernel that the session's notebook wants: found, or made, when it is launched.
    OfNotebook {
        /// The kernelspec's name, when one was asked for.
        #[serde(default)]
        kernel: Option<String>,
        /// The notebook's `kernelspec`, `language_info` and `outlive` metadata. The session fills it in at each
        /// launch; what a client gives is not looked at.
        #[serde(default)]
        metadata: serde_json::Value,
    },
    /// Any program; its work is its life.
    Command {
        /// The command; the first word is looked up in the launch's PATH.
        argv: Vec<String>,
    },
    /// A long-lived program that serves tasks.
    Runner {
        /// What people call it, for instance `llm-0`.
        name: String,
        /// The command; the first word is looked up in the launch's PATH.
        argv: Vec<String>,
        /// Whether it has a channel.
        #[serde(default)]
        speaks: Speaks,
        /// How long it may make no progress.
        #[serde(default)]
        watch: Watchdogs,
    },
}

impl Program {
    /// The command line, before placeholders are filled in.
    #[must_use]
    pub fn argv(&self) -> &[String] {
        match self {
            Self::Kernel { argv, .. } | Self::Command { argv } | Self::Runner { argv, .. } => argv,
            Self::OfNotebook { .. } => &[],
        }
    }

    /// Whether it is a Jupyter kernel.
    #[must_use]
    pub const fn is_kernel(&self) -> bool {
        matches!(self, Self::Kernel { .. } | Self::OfNotebook { .. })
    }
}

/// Everything that a launch needs. Holds the environment, hence secrets: its `Debug` does not show them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LaunchSpec {
    /// What to start.
    pub program: Program,
    /// Absolute working directory.
    pub cwd: String,
    /// The whole environment of the process (nothing is inherited from the daemon).
    pub env: BTreeMap<String, String>,
    /// Memory limit in bytes, set on the process's cgroup where one can be made, else as RLIMIT_AS.
    #[serde(default)]
    pub memory_bytes_max: Option<u64>,
    /// How long the process may take to become ready.
    pub ready_timeout_ms: u64,
}

impl fmt::Debug for LaunchSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaunchSpec")
            .field("program", &self.program)
            .field("cwd", &self.cwd)
            .field("env", &format_args!("{} variables", self.env.len()))
            .field("memory_bytes_max", &self.memory_bytes_max)
            .finish_non_exhaustive()
    }
}
