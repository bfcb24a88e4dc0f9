//! What a session is for, and its policies.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{RuntimeId, SessionId};
use crate::runtime::{LaunchSpec, RestartPolicy};
use crate::time::WallTime;

/// What a session is for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Workload {
    /// A notebook.
    Notebook {
        /// The file that is read, absolute; `None` for a notebook that begins empty.
        #[serde(default)]
        source: Option<String>,
        /// The file that is written and claimed first, absolute; the same as `source` unless a copy was asked for;
        /// `None` while it is untitled. The session's present path is its state's.
        #[serde(default)]
        path: Option<String>,
        /// Go on after a cell that raised.
        #[serde(default)]
        allow_errors: bool,
        /// How long one cell may run, in milliseconds.
        #[serde(default)]
        cell_timeout_ms: Option<u64>,
    },
    /// One command: its life is the one run of the session.
    Command {
        /// How long it may run, in milliseconds.
        #[serde(default)]
        timeout_ms: Option<u64>,
    },
    /// A kernel without a notebook.
    Kernel,
}

/// What is done with a runtime that does not answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HangPolicy {
    /// Say so, and wait.
    #[default]
    Report,
    /// Say so, and interrupt what runs.
    Interrupt,
    /// Say so, stop it, settle its work as `hung`, and start it again.
    Restart,
}

/// What is done on another node when the one that it ran on was lost, or gave it away: the memory of a process does not
/// go along.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OnNodeLoss {
    /// What is run again.
    pub rerun: Rerun,
    /// Whether a kernel that was up is started again at once.
    pub kernel: AfterLoss,
}

/// What is run again by itself when the memory of a kernel is gone. Of a command: whether it is begun again though its
/// restart type is `temporary`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rerun {
    /// Nothing: it may not be safe to run something twice, and what waited may need what is gone.
    #[default]
    None,
    /// What was interrupted, from its beginning, and what waited behind it.
    Interrupted,
    /// Before these, all that the kernel had run to its end, in that order.
    All,
}

/// Whether a process that was lost with its node is started again at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AfterLoss {
    /// It is.
    #[default]
    Restart,
    /// Whoever needs it starts it.
    Leave,
}

/// Everything that a session was created with.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SessionSpec {
    /// Its id.
    pub id: SessionId,
    /// Its runtime's id.
    pub runtime: RuntimeId,
    /// What it is for.
    pub workload: Workload,
    /// How its runtime is started.
    pub launch: LaunchSpec,
    /// When its runtime is started again.
    pub restart: RestartPolicy,
    /// What is done with a runtime that hangs.
    pub on_hang: HangPolicy,
    /// What happens when the work is done.
    pub after_work: AfterWork,
    /// What goes on by itself on another node.
    #[serde(default)]
    pub on_node_loss: OnNodeLoss,
    /// When its runtime is started first.
    #[serde(default)]
    pub start: StartWhen,
    /// Where its runtime is started.
    #[serde(default)]
    pub place: Place,
    /// Whether what the notebook says may be installed and started without being asked for.
    #[serde(default)]
    pub trust: Trust,
    /// Parameters for the `parameters` cell.
    pub parameters: BTreeMap<String, serde_json::Value>,
    /// When it was created.
    pub created_at: WallTime,
}

/// When a runtime is started first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StartWhen {
    /// With the session, if the notebook is trusted.
    #[default]
    AtOnce,
    /// With the first run.
    FirstRun,
}

/// Where a runtime is started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// In the directory that the launch names.
    #[default]
    Fixed,
    /// In the notebook's directory as it is when the process is launched; the launch's while it is untitled. A
    /// process that runs is not moved when its notebook is.
    Notebook,
}

/// Whether a person has vouched for a notebook.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// It was made here, or somebody has said so.
    #[default]
    Trusted,
    /// It came from elsewhere: opening it starts nothing, and nothing is installed for it.
    Untrusted,
}

/// What happens when no work is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterWork {
    /// The runtime is stopped and the session closed.
    Close,
    /// Both stay.
    Keep,
}
