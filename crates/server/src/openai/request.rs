//! The body of `POST /v1/chat/completions`. What is wrong with it is told by the name of the field.

use axum::body::Body;
use axum::http::HeaderMap;
use outlive_protocol::http::{ChatRequest, ChatWishes, Problem, SubmitTask};
use schemars::SchemaGenerator;
use serde_json::{Map, Value};

use crate::native::request::{self, Json, RequestBody};
use crate::problem;

/// The task that a runner with the capability serves; both have this name.
pub(super) const CHAT: &str = "chat";
/// The field with what is ours; the runner does not see it.
const OURS: &str = "outlive";
/// As in the draft of the IETF; the key in the body goes first.
const KEY_HEADER: &str = "idempotency-key";

/// A request for a chat completion.
pub(crate) struct Chat {
    /// The group.
    pub model: String,
    /// What is ours.
    pub wishes: ChatWishes,
    /// How to answer.
    pub form: Form,
    /// What the runner gets.
    input: Map<String, Value>,
}

/// How an answer is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// In one JSON.
    Whole,
    /// As it comes.
    Streamed {
        /// With a last chunk that tells the usage.
        usage: bool,
    },
}

impl Chat {
    /// The task.
    pub(super) fn task(&self) -> SubmitTask {
        SubmitTask {
            id: None,
            task: CHAT.to_owned(),
            input: Value::Object(self.input.clone()),
            key: self.wishes.key.clone(),
            idempotent: self.wishes.idempotent,
            wait_ms: self.wishes.wait_ms,
            timeout_ms: self.wishes.timeout_ms,
        }
    }
}

impl RequestBody for Chat {
    async fn read(headers: &HeaderMap, body: Body) -> Result<Self, Problem> {
        request::check_media_type(headers)?;
        let bytes = request::collect(body).await?;
        let request: ChatRequest = request::parse(&bytes)?;
        let mut input: Map<String, Value> = request::parse(&bytes)?;
        input.remove(OURS);
        let form = form(&request)?;
        let mut wishes = request.outlive.unwrap_or_default();
        if wishes.key.is_none() {
            wishes.key = headers.get(KEY_HEADER).and_then(|key| key.to_str().ok()).map(str::to_owned);
        }
        Ok(Self { model: request.model, wishes, form, input })
    }

    fn document(generator: &mut SchemaGenerator) -> Option<Value> {
        Json::<ChatRequest>::document(generator)
    }
}

/// Checks what does not show in the types.
fn form(request: &ChatRequest) -> Result<Form, Problem> {
    let wrong = |field: &str, detail: &str| Err(problem::bad_field(field, detail));
    if request.messages.is_empty() {
        return wrong("messages", "`messages` is empty: a conversation has at least one message.");
    }
    if request.n.is_some_and(|n| n != 1) {
        return wrong("n", "`n` is not 1: a task has one answer. Ask several times instead.");
    }
    if !request.stream.unwrap_or(false) {
        return match request.stream_options {
            None => Ok(Form::Whole),
            Some(_) => wrong("stream_options", "`stream_options` is only for `stream: true`."),
        };
    }
    let usage = request.stream_options.as_ref().and_then(|options| options.include_usage);
    Ok(Form::Streamed { usage: usage.unwrap_or(false) })
}
