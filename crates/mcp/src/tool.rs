//! One tool: its schemas, and the way from a call to its answer. What MCP's library is called stands here and in
//! `server`, and nowhere else.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use outlive_protocol::http::{Problem, plainly};
use rmcp::model::{
    CallToolResult, ContentBlock, JsonObject, ProgressNotificationParam, Tool, ToolAnnotations,
};
use rmcp::service::RequestContext;
use rmcp::{Peer, RoleServer};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::host::Host;
use crate::outputs::Image;
use crate::words::in_tools;

/// Who calls a tool.
#[derive(Clone)]
pub struct Call {
    /// The daemon.
    pub host: Arc<dyn Host>,
    /// The caller does not want to know any more.
    pub cancelled: CancellationToken,
    /// The way to tell the caller that it goes on, where that is wanted.
    pub progress: Option<Progress>,
}

impl Call {
    /// A call as the library hands it over.
    pub fn new(host: Arc<dyn Host>, context: RequestContext<RoleServer>) -> Self {
        let token = context.meta.get_progress_token();
        let progress = token.map(|token| Progress { token, peer: context.peer });
        Self { host, cancelled: context.ct, progress }
    }
}

/// Tells a caller that it goes on.
#[derive(Clone)]
pub struct Progress {
    token: rmcp::model::ProgressToken,
    peer: Peer<RoleServer>,
}

impl Progress {
    /// Says so. `done` has to rise.
    pub async fn tell(&self, done: f64, message: String) {
        let told = ProgressNotificationParam::new(self.token.clone(), done).with_message(message);
        // Who has left does not want to know.
        drop(self.peer.notify_progress(told).await);
    }
}

/// What a tool answers: the same twice, for programs and for readers.
#[derive(Debug)]
pub struct Reply<A> {
    /// For programs.
    pub answer: A,
    /// For readers.
    pub text: String,
    /// Images, behind the text.
    pub images: Vec<Image>,
}

impl<A> Reply<A> {
    /// An answer without images.
    pub const fn new(answer: A, text: String) -> Self {
        Self { answer, text, images: Vec::new() }
    }
}

/// What a tool does to the world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Nothing.
    Reads,
    /// Something that adds, or that can be undone.
    Adds,
    /// Something that cannot be undone, or runs code.
    Changes,
}

/// What a model is told of a tool.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Its name.
    pub name: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// When to use it and what comes back.
    pub text: &'static str,
    /// What it does, as it stands behind `cannot`.
    pub verb: &'static str,
    /// What it does to the world.
    pub effect: Effect,
}

type Handler = Box<dyn Fn(Call, JsonObject) -> BoxFuture<'static, CallToolResult> + Send + Sync>;

/// One tool.
pub struct Entry {
    /// As clients see it.
    pub tool: Tool,
    call: Handler,
}

impl Entry {
    /// A tool made of a function.
    pub fn new<P, A, F, R>(about: About, handler: F) -> Self
    where
        P: DeserializeOwned + JsonSchema + Send,
        A: Serialize + JsonSchema,
        F: Fn(Call, P) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Result<Reply<A>, Problem>> + Send + 'static,
    {
        let effect = ToolAnnotations::with_title(about.title)
            .read_only(about.effect == Effect::Reads)
            .destructive(about.effect == Effect::Changes)
            .open_world(about.name == "run");
        let tool = Tool::new(about.name, about.text, schema::<P>())
            .with_title(about.title)
            .with_raw_output_schema(Arc::new(answer_schema::<A>()))
            .with_annotations(effect);
        let call: Handler = Box::new(move |call, arguments| {
            let handler = handler.clone();
            Box::pin(async move {
                let answered = match parse(arguments) {
                    Ok(arguments) => handler(call, arguments).await,
                    Err(problem) => Err(problem),
                };
                answered.map_or_else(|problem| refused(about.verb, problem), told)
            })
        });
        Self { tool, call }
    }

    /// Calls it.
    pub fn call(&self, call: Call, arguments: JsonObject) -> BoxFuture<'static, CallToolResult> {
        (self.call)(call, arguments)
    }
}

/// What a handler takes. A refusal names the argument, and which one of a list.
fn parse<P: DeserializeOwned>(arguments: JsonObject) -> Result<P, Problem> {
    serde_path_to_error::deserialize(Value::Object(arguments)).map_err(|error| {
        let path = error.path().to_string();
        // A part of the path that the parser does not know is a question mark; the root is a dot.
        let place = path.trim_end_matches('?').trim_end_matches('.');
        let what = plainly(place, error.inner());
        bad_arguments(if place.is_empty() { what } else { format!("`{place}`: {what}") })
    })
}

/// Arguments that are not what the tool's schema says.
pub fn bad_arguments(detail: impl Into<String>) -> Problem {
    Problem::new(422, "bad-arguments", "The arguments cannot be used", detail)
        .hint("the tool's input schema says what it takes")
}

/// An error as programs get it, with `isError`.
#[derive(Serialize, JsonSchema)]
struct Refusal {
    /// Stable, in kebab-case, for instance `path-already-open`.
    code: String,
    /// What happened, to what.
    detail: String,
    /// What to do.
    hint: Option<String>,
    /// Facts by name, for instance the `session` that holds a path.
    facts: BTreeMap<String, String>,
}

fn told<A: Serialize>(reply: Reply<A>) -> CallToolResult {
    let mut content = vec![ContentBlock::text(reply.text)];
    content.extend(reply.images.into_iter().map(|image| ContentBlock::image(image.base64, image.mime)));
    let mut result = CallToolResult::success(content);
    result.structured_content =
        Some(serde_json::to_value(reply.answer).expect("answers have string keys and finite numbers"));
    result
}

fn refused(verb: &str, problem: Problem) -> CallToolResult {
    let mut text = in_tools(&problem.sentence(verb));
    let hint = problem.hint.as_deref().map(in_tools);
    // The sentence of a collision says what to do already.
    if let Some(hint) = hint.as_ref().filter(|_| problem.code != "path-already-open") {
        text.push_str(&format!("\nWhat to do: {hint}"));
    }
    let Problem { code, detail, facts, .. } = problem;
    let mut result = CallToolResult::error(vec![ContentBlock::text(text)]);
    let refusal = Refusal { code, detail, hint, facts };
    result.structured_content = Some(serde_json::to_value(refusal).expect("texts"));
    result
}

/// A schema in one piece: not every client follows references.
fn generator() -> SchemaGenerator {
    SchemaSettings::draft2020_12()
        .with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        })
        .into_generator()
}

fn schema<T: JsonSchema>() -> JsonObject {
    let mut schema = generator().into_root_schema_for::<T>();
    // Both are ours, for readers of the code.
    schema.remove("title");
    schema.remove("description");
    let Value::Object(schema) = schema.to_value() else { unreachable!("a struct's schema is an object") };
    schema
}

/// An answer, or a refusal: clients check both against it.
fn answer_schema<A: JsonSchema>() -> JsonObject {
    let (answer, refusal) = (schema::<A>(), schema::<Refusal>());
    let Value::Object(schema) = json!({ "type": "object", "anyOf": [answer, refusal] }) else {
        unreachable!("an object was written here")
    };
    schema
}
