//! One function a route: from the request's parts to a call of the node and its answer.

use std::str::FromStr;
use std::sync::LazyLock;

use axum::http::HeaderMap;
use outlive_core::diagnosis::FailureReport;
use outlive_core::id::{Cursor, Position};
use outlive_node::api::{AttachRun, AttachSession, From};
use outlive_protocol::http::{
    CreateSession, DoctorView, Input, NodeView, Problem, Restart, RunView, SessionView, Stop, StopNode,
    SubmitRuns,
};
use serde_json::Value;

use super::answer::{Accepted, Begun, Bytes, Created, Done, EventStream, Found};
use super::request::{
    AttachQuery, AttachRunQuery, BlobPath, Call, Json, JsonOrDefault, ListQuery, NoBody, Nothing, RunPath,
    SessionPath,
};
use super::{App, blob as blob_file, openapi as openapi_file};
use crate::door::Guest;
use crate::problem;

type Simple = Call<Nothing, Nothing, NoBody>;
type OfSession = Call<SessionPath, Nothing, NoBody>;
type OfRun = Call<RunPath, Nothing, NoBody>;
type Answered<T> = Result<T, Problem>;

pub(super) async fn live(app: App, call: Simple) -> Answered<Found<NodeView>> {
    let mut node = app.api.node();
    if call.guest != Guest::Known {
        node.state_directory = String::new();
        node.pid = 0;
    }
    Ok(Found(node))
}

pub(super) async fn ready(app: App, _: Simple) -> Answered<Found<NodeView>> {
    let node = app.api.node();
    if node.ready { Ok(Found(node)) } else { Err(problem::not_ready()) }
}

pub(super) async fn node(app: App, _: Simple) -> Answered<Found<NodeView>> {
    Ok(Found(app.api.node()))
}

pub(super) async fn stop_node(app: App, call: Call<Nothing, Nothing, Json<StopNode>>) -> Answered<Begun> {
    app.api.shutdown(call.body.0).await?;
    Ok(Begun)
}

pub(super) async fn doctor(app: App, _: Simple) -> Answered<Found<DoctorView>> {
    Ok(Found(app.api.doctor().await))
}

pub(super) async fn openapi(_: App, _: Simple) -> Answered<Found<&'static Value>> {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(openapi_file::document);
    Ok(Found(&DOCUMENT))
}

pub(super) async fn sessions(
    app: App,
    call: Call<Nothing, ListQuery, NoBody>,
) -> Answered<Found<Vec<SessionView>>> {
    app.api.sessions(call.query.all).await.map(Found)
}

pub(super) async fn create(
    app: App,
    call: Call<Nothing, Nothing, Json<CreateSession>>,
) -> Answered<Created<SessionView>> {
    app.api.create(call.body.0).await.map(Created)
}

pub(super) async fn session(app: App, call: OfSession) -> Answered<Found<SessionView>> {
    app.api.session(call.path.id).await.map(Found)
}

pub(super) async fn forget(app: App, call: OfSession) -> Answered<Done> {
    app.api.forget(call.path.id).await.map(|()| Done)
}

pub(super) async fn attach(app: App, call: Call<SessionPath, AttachQuery, NoBody>) -> Answered<EventStream> {
    let AttachQuery { after, interactive, follow } = call.query;
    let after = place(&call.headers, after, |text: &str| match text.parse() {
        Ok(position) => Ok(Position(position)),
        Err(_) => Err(format!("A session's cursor is a log position, for instance 42; this is {text:?}.")),
    })?;
    let events = app
        .api
        .attach(call.path.id, AttachSession { from: From::After(after), interactive, follow, outputs: true })
        .await?;
    Ok(EventStream(app.streams.respond(events)))
}

pub(super) async fn interrupt(app: App, call: OfSession) -> Answered<Accepted<SessionView>> {
    app.api.interrupt(call.path.id).await.map(Accepted)
}

pub(super) async fn restart(
    app: App,
    call: Call<SessionPath, Nothing, JsonOrDefault<Restart>>,
) -> Answered<Accepted<SessionView>> {
    app.api.restart(call.path.id, call.body.0).await.map(Accepted)
}

pub(super) async fn stop(
    app: App,
    call: Call<SessionPath, Nothing, JsonOrDefault<Stop>>,
) -> Answered<Accepted<SessionView>> {
    app.api.stop(call.path.id, call.body.0).await.map(Accepted)
}

pub(super) async fn runs(app: App, call: OfSession) -> Answered<Found<Vec<RunView>>> {
    app.api.runs(call.path.id).await.map(Found)
}

pub(super) async fn submit(
    app: App,
    call: Call<SessionPath, Nothing, Json<SubmitRuns>>,
) -> Answered<Created<Vec<RunView>>> {
    app.api.submit(call.path.id, call.body.0).await.map(Created)
}

pub(super) async fn run(app: App, call: OfRun) -> Answered<Found<RunView>> {
    let RunPath { id, run } = call.path;
    let found = app.api.runs(id).await?.into_iter().find(|view| view.id == run);
    found.map(Found).ok_or_else(|| problem::no_such_run(id, run))
}

pub(super) async fn cancel(app: App, call: OfRun) -> Answered<Accepted<RunView>> {
    app.api.cancel(call.path.id, call.path.run).await.map(Accepted)
}

pub(super) async fn input(
    app: App,
    call: Call<RunPath, Nothing, Json<Input>>,
) -> Answered<Accepted<RunView>> {
    app.api.input(call.path.id, call.path.run, call.body.0.value).await.map(Accepted)
}

pub(super) async fn attach_run(
    app: App,
    call: Call<RunPath, AttachRunQuery, NoBody>,
) -> Answered<EventStream> {
    let AttachRunQuery { cursor, follow } = call.query;
    let cursor = place(&call.headers, cursor, |text: &str| {
        Cursor::from_str(text).map_err(|error| format!("{error}."))
    })?;
    let RunPath { id, run } = call.path;
    let events = app.api.attach_run(id, run, AttachRun { cursor, follow }).await?;
    Ok(EventStream(app.streams.respond(events)))
}

pub(super) async fn reports(app: App, call: OfSession) -> Answered<Found<Vec<FailureReport>>> {
    app.api.reports(call.path.id).await.map(Found)
}

pub(super) async fn blob(app: App, call: Call<BlobPath, Nothing, NoBody>) -> Answered<Bytes> {
    let BlobPath { id, sha256 } = call.path;
    let path = app.api.blob(id, sha256.as_str()).await?;
    blob_file::answer(sha256.as_str(), &path).await.map(Bytes)
}

/// Where a reader goes on. The header goes first: a browser that reconnects sends it with the address of its first
/// request, whose cursor is old by then.
fn place<T: Default>(
    headers: &HeaderMap,
    query: Option<String>,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, Problem> {
    let header =
        headers.get("last-event-id").map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    match header.or(query).filter(|text| !text.is_empty()) {
        None => Ok(T::default()),
        Some(text) => parse(&text).map_err(problem::bad_cursor),
    }
}
