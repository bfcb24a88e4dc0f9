//! What a group is made with.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{RunId, RuntimeId, SessionId};
use crate::runtime::{LaunchSpec, RestartPolicy};
use crate::session::spec::{AfterLoss, HangPolicy};
use crate::time::WallTime;

/// What the death of one member means for the others (the words are those of OTP's supervisors).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Nothing: only the one that died is started again. Each member has its own restart intensity.
    #[default]
    OneForOne,
    /// They are useless without it (the ranks of one model): all are stopped and started again together. The restart
    /// intensity is the group's.
    OneForAll,
}

/// Everything that a group was made with.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct GroupSpec {
    /// Its session.
    pub id: SessionId,
    /// Its name, unique among the groups that are up.
    pub name: String,
    /// Its members, at least one.
    pub members: Vec<MemberSpec>,
    /// What one death means for the others.
    pub strategy: Strategy,
    /// When a member is started again.
    pub restart: RestartPolicy,
    /// What is done with a member that hangs. Nothing of it is interrupted: `interrupt` is as `report`.
    pub on_hang: HangPolicy,
    /// Whether members are started again that were lost with their node, or given away with it; `None`: as their restart
    /// type says, `temporary` ones are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_node_loss: Option<AfterLoss>,
    /// How long a task may wait while no member is ready, in milliseconds, unless it says otherwise.
    pub wait_ms: u64,
    /// How long a cancelled task may take to end, in milliseconds.
    pub cancel_grace_ms: u64,
    /// When it was made.
    pub created_at: WallTime,
}

/// One member.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MemberSpec {
    /// Its runtime.
    pub runtime: RuntimeId,
    /// What people call it, for instance `llm-0`.
    pub name: String,
    /// How it is started; its program is a runner.
    pub launch: LaunchSpec,
}

/// A task as it is queued.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NewTask {
    /// Its run.
    pub id: RunId,
    /// The handler's name.
    pub task: String,
    /// Its input, at most [`crate::limits::TASK_INPUT_BYTES_MAX`] as JSON.
    pub input: serde_json::Value,
    /// The idempotency key of the work: the same for each attempt. A second task with the key of one that is known is
    /// that one.
    pub key: String,
    /// Whether it may be begun again by another runner when its own dies.
    #[serde(default)]
    pub idempotent: bool,
    /// How long it may wait while no member is ready, in milliseconds; 0: not at all.
    pub wait_ms: u64,
    /// How long one attempt may run, in milliseconds.
    #[serde(default)]
    pub limit_ms: Option<u64>,
}
