//! Groups of runners and their tasks, as clients see them.

use std::collections::BTreeSet;

use outlive_core::group::Strategy;
use outlive_core::id::RunId;
use outlive_core::runtime::runner::{Phase, Progress};
use outlive_core::runtime::{LaunchSpec, RestartPolicy};
use outlive_core::session::spec::{AfterLoss, HangPolicy};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ReportSummary, RuntimeView};

/// A group as it is to be (`PUT /v1/runners/{name}`).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GroupConfig {
    /// Its members, 1 to 64.
    pub members: Vec<MemberConfig>,
    /// What the death of one means for the others.
    #[serde(default)]
    pub strategy: Strategy,
    /// When a member is started again.
    pub restart: RestartPolicy,
    /// What is done with a member that hangs.
    #[serde(default)]
    pub on_hang: HangPolicy,
    /// Whether members are started again that were lost with their node, or given away with it; without it, `temporary` ones
    /// are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<AfterLoss>")]
    pub on_node_loss: Option<AfterLoss>,
    /// How long a task may wait while no member is ready, in milliseconds, unless it says otherwise.
    #[serde(default)]
    pub wait_ms: Option<u64>,
    /// How long a cancelled task may take to end, in milliseconds.
    #[serde(default)]
    pub cancel_grace_ms: Option<u64>,
}

/// A member as it is to be.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MemberConfig {
    /// What people call it, unique in its group, for instance `llm-0`.
    pub name: String,
    /// How it is started; its program is of kind `runner`.
    pub launch: LaunchSpec,
}

/// What a group is, beside what every session is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GroupView {
    /// Its name.
    pub name: String,
    /// What the death of one member means for the others.
    pub strategy: Strategy,
    /// Its members.
    pub members: Vec<MemberView>,
    /// How many tasks are running.
    pub running: u32,
}

/// A member as clients see it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MemberView {
    /// Its name.
    pub name: String,
    /// Its process.
    pub runtime: RuntimeView,
    /// Whether it is up, or will be without anybody's help.
    #[serde(default)]
    pub comes: bool,
    /// How far it is.
    pub phase: Phase,
    /// How much of that is done.
    #[serde(default)]
    pub progress: Progress,
    /// The tasks that it has handlers for; empty until it has said so.
    pub tasks: BTreeSet<String>,
    /// What else it can serve.
    pub capabilities: BTreeSet<String>,
    /// How many tasks it takes at a time.
    pub concurrency: u32,
    /// The tasks that it has.
    pub running: Vec<RunId>,
    /// Its last failure.
    #[serde(default)]
    pub last_report: Option<ReportSummary>,
}

/// Which members (`POST /v1/runners/{name}/start`, `/stop`, `/restart`).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Members {
    /// One member by name; all when it is not given.
    pub member: Option<String>,
    /// For `stop`: SIGKILL at once instead of asking first.
    pub force: bool,
}

/// A task for a group (`POST /v1/runners/{name}/tasks`).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SubmitTask {
    /// The caller's id for it; asking again with the same id gives the same task.
    #[serde(default)]
    pub id: Option<RunId>,
    /// The handler's name.
    pub task: String,
    /// Its input: for a Python handler an object becomes keyword arguments.
    #[serde(default)]
    pub input: serde_json::Value,
    /// The idempotency key of the work, given to the runner with each attempt; the id when it is not given. Asking again
    /// with a key that the group remembers gives the same task.
    #[serde(default)]
    pub key: Option<String>,
    /// Whether it may be begun again by another runner when its own dies.
    #[serde(default)]
    pub idempotent: bool,
    /// How long it may wait while no member is ready, in milliseconds; 0: fail at once.
    #[serde(default)]
    pub wait_ms: Option<u64>,
    /// How long one attempt may run, in milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// What a run of a group is, beside what every run is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TaskView {
    /// The handler's name.
    pub task: String,
    /// The idempotency key.
    pub key: String,
    /// Whether it may be begun again.
    pub idempotent: bool,
    /// The member that has it, or had it last.
    pub member: Option<String>,
}
