//! OpenAI's bodies, as far as the chat adapter speaks them: the names are theirs (API reference, "Chat" and "Models").

use std::collections::BTreeSet;

use outlive_core::id::ReportId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What the adapter itself looks at in a request for a chat completion. The runner gets the body as it came, with all
/// other fields and without `outlive`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChatRequest {
    /// The group of runners, by name.
    pub model: String,
    /// The conversation, at least one message.
    pub messages: Vec<ChatMessage>,
    /// Whether the answer comes in pieces, as Server-Sent Events.
    #[serde(default)]
    pub stream: Option<bool>,
    /// How it comes in pieces.
    #[serde(default)]
    pub stream_options: Option<ChatStreamOptions>,
    /// How many answers: 1.
    #[serde(default)]
    pub n: Option<u64>,
    /// What Outlive offers beyond OpenAI's API (`extra_body` of their client).
    #[serde(default)]
    pub outlive: Option<ChatWishes>,
}

/// A message of a conversation; its content is the runner's.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChatMessage {
    /// Who says it: `system`, `user`, `assistant`, `tool`, …
    pub role: String,
}

/// How a streamed answer is told.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct ChatStreamOptions {
    /// Send a last chunk with the usage.
    #[serde(default)]
    pub include_usage: Option<bool>,
}

/// Wishes about the task behind a chat completion.
#[expect(clippy::struct_excessive_bools, reason = "two independent wishes of one request")]
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ChatWishes {
    /// The idempotency key: asking again with it joins the same task. The header `Idempotency-Key` does the same.
    pub key: Option<String>,
    /// Whether another runner may begin it again when its own dies.
    pub idempotent: bool,
    /// Cancel the task when this client goes away before its end.
    pub cancel_on_disconnect: bool,
    /// How long it may wait while no runner is ready, in milliseconds; 0: fail at once.
    pub wait_ms: Option<u64>,
    /// How long one attempt may run, in milliseconds.
    pub timeout_ms: Option<u64>,
}

/// A whole answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChatCompletion {
    /// `chatcmpl-` and the task's run id.
    pub id: String,
    /// `chat.completion`
    pub object: String,
    /// When it was asked for, in seconds since 1970.
    pub created: u64,
    /// The group.
    pub model: String,
    /// One answer.
    pub choices: Vec<ChatChoice>,
    /// The tokens used, as the runner says; absent when it says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Map<String, Value>>,
}

/// One answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChatChoice {
    /// 0
    pub index: u32,
    /// `role`, `content`, and what else the runner's deltas came to, for instance `tool_calls`.
    pub message: Map<String, Value>,
    /// Not told.
    pub logprobs: Option<Value>,
    /// Why it ended, for instance `stop` or `length`.
    pub finish_reason: String,
}

/// A piece of an answer: `data` of a Server-Sent Event.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChatChunk {
    /// The same in each chunk: `chatcmpl-` and the task's run id.
    pub id: String,
    /// `chat.completion.chunk`
    pub object: String,
    /// When it was asked for, in seconds since 1970.
    pub created: u64,
    /// The group.
    pub model: String,
    /// One piece; none in the chunk with the usage.
    pub choices: Vec<ChatChunkChoice>,
    /// When it was asked for: null, and in the last chunk the tokens used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Value>,
}

/// A piece of one answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChatChunkChoice {
    /// 0
    pub index: u32,
    /// What is new.
    pub delta: Map<String, Value>,
    /// Not told.
    pub logprobs: Option<Value>,
    /// Why it ended; null until the end.
    pub finish_reason: Option<String>,
}

/// The groups that can chat.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChatModels {
    /// `list`
    pub object: String,
    /// The groups.
    pub data: Vec<ChatModel>,
}

/// A group that can chat.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChatModel {
    /// Its name.
    pub id: String,
    /// `model`
    pub object: String,
    /// When the group was made, in seconds since 1970.
    pub created: u64,
    /// `outlive`
    pub owned_by: String,
    /// What its runners declare.
    pub capabilities: BTreeSet<String>,
}

/// A refusal, or the failure of a task, as OpenAI's clients read it. In a stream it is `data` of an event.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChatRefusal {
    /// What went wrong.
    pub error: ChatError,
}

/// What went wrong.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct ChatError {
    /// What happened, in one sentence.
    pub message: String,
    /// OpenAI's kind: `invalid_request_error`, `authentication_error`, `permission_error`, `rate_limit_error` or
    /// `server_error`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The field of the request that is wrong.
    pub param: Option<String>,
    /// Our code, or OpenAI's where there is one (`model_not_found`).
    pub code: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The cause, of a task that failed: a cause code, or `raised`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What shows it, of a task that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnostics: Option<ChatDiagnostics>,
}

/// What shows a cause.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct ChatDiagnostics {
    /// The lines that show it: the explanation of a death with its evidence, or the traceback of an exception.
    pub evidence: Vec<String>,
    /// The failure report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<ReportId>,
    /// The command that tells more.
    pub explain: String,
}
