//! The three routes.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use outlive_core::id::{Cursor, RunId};
use outlive_core::limits::SSE_COMMENT_MS;
use outlive_node::api::AttachRun;
use outlive_protocol::http::{ChatChunk, ChatCompletion, ChatModel, ChatModels, Problem};
use schemars::{JsonSchema, SchemaGenerator};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::fault::Fault;
use super::request::{Chat, Form};
use super::turn::{Heard, Turn};
use super::{models, told, whole};
use crate::native::App;
use crate::native::answer::{Answer, Found, json_response};
use crate::native::request::{Call, Fields, NoBody, Nothing};
use crate::problem;
use crate::stream::MEDIA_TYPE;

/// The task behind an answer: with it a client attaches to the output again.
pub(crate) const RUN_HEADER: HeaderName = HeaderName::from_static("outlive-run");
/// The same, where OpenAI's clients look for it.
const REQUEST_HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// `/models/{model}`
#[derive(Deserialize, JsonSchema)]
pub(crate) struct ModelPath {
    /// The group.
    pub model: String,
}

impl Fields for ModelPath {}

/// A chat completion, whole or in pieces.
pub(crate) struct Chatted(Response<Body>);

impl Answer for Chatted {
    const STATUS: StatusCode = StatusCode::OK;
    const DESCRIPTION: &'static str = "The answer; with `stream` as Server-Sent Events that end with `data: [DONE]`. \
        A task that fails in mid-stream is told by an event whose data has an `error`. The header `Outlive-Run` names the \
        task";

    fn content(generator: &mut SchemaGenerator) -> Option<Value> {
        Some(json!({
            "application/json": { "schema": generator.subschema_for::<ChatCompletion>() },
            MEDIA_TYPE: { "schema": generator.subschema_for::<ChatChunk>() },
        }))
    }

    fn into_response(self) -> Response<Body> {
        self.0
    }
}

pub(crate) async fn models(
    app: App,
    _: Call<Nothing, Nothing, NoBody>,
) -> Result<Found<ChatModels>, Problem> {
    let data = models::list(&*app.api).await?;
    Ok(Found(ChatModels { object: "list".to_owned(), data }))
}

pub(crate) async fn model(
    app: App,
    call: Call<ModelPath, Nothing, NoBody>,
) -> Result<Found<ChatModel>, Problem> {
    models::one(&*app.api, &call.path.model).await.map(Found)
}

pub(crate) async fn chat(app: App, call: Call<Nothing, Nothing, Chat>) -> Result<Chatted, Problem> {
    let chat = call.body;
    models::check(&*app.api, &chat.model).await?;
    let run = app.api.submit_task(&chat.model, chat.task()).await?;
    let id = run.id;
    let cancel = chat.wishes.cancel_on_disconnect;
    let how = AttachRun { cursor: Cursor::default(), follow: true, cancel };
    let events = app.api.attach_run(run.session, id, how).await;
    let events = events.map_err(|problem| problem::queued_elsewhere(id, problem))?;
    let turn = Turn::new(app.api.clone(), run, chat.model, events, cancel);
    let answered = tokio::select! {
        biased;
        problem = app.streams.farewell.said() => Fault::cut(&problem).response(),
        answered = answer(&app, turn, chat.form) => answered,
    };
    Ok(Chatted(named(answered, id)))
}

async fn answer(app: &App, mut turn: Turn, form: Form) -> Response<Body> {
    match form {
        Form::Whole => match whole::collect(&mut turn).await {
            Ok(completion) => json_response(StatusCode::OK, &completion),
            Err(fault) => fault.response(),
        },
        Form::Streamed { usage } => {
            // What is known before the first comment is due is told by the status, the rest in the stream.
            match timeout(Duration::from_millis(SSE_COMMENT_MS), turn.next()).await {
                Ok(Heard::Over(Err(fault))) => fault.response(),
                first => app.streams.carry(told::lines(turn, first.ok(), usage), told::cut),
            }
        }
    }
}

fn named(mut response: Response<Body>, run: RunId) -> Response<Body> {
    let name = HeaderValue::from_str(&run.to_string()).expect("an id is ASCII");
    response.headers_mut().insert(REQUEST_HEADER, name.clone());
    response.headers_mut().insert(RUN_HEADER, name);
    response
}
