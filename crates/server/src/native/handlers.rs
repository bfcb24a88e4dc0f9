//! One function a route: from the request's parts to a call of the node and its answer.

use std::str::FromStr;
use std::sync::LazyLock;

use axum::body::Body;
use axum::http::{HeaderMap, Response};
use futures_util::StreamExt as _;
use outlive_core::diagnosis::FailureReport;
use outlive_core::id::{Cursor, Position};
use outlive_node::api::{AttachRun, AttachSession, Events, From};
use outlive_protocol::http::{
    Close, CreateSession, DoctorView, EditNotebook, Edited, Input, NewSession, NotebookView, OpenSession,
    Opened, Problem, Restart, RunView, SaveSession, SessionView, SetTrust, Stop, StreamEvent, SubmitRuns,
};
use serde_json::Value;

use super::answer::{Accepted, Bytes, Created, Done, EventStream, Found, Metrics, Upgraded};
use super::request::{
    AttachQuery, AttachRunQuery, BlobPath, Call, CellPath, Json, JsonOrDefault, ListQuery, NoBody,
    NotebookQuery, Nothing, RunPath, SessionPath,
};
use super::{App, blob as blob_file, openapi as openapi_file};
use crate::problem;
use crate::websocket;
use crate::websocket::handshake::Handshake;

type Simple = Call<Nothing, Nothing, NoBody>;
type OfSession = Call<SessionPath, Nothing, NoBody>;
type OfRun = Call<RunPath, Nothing, NoBody>;
type Answered<T> = Result<T, Problem>;

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

pub(super) async fn attach(
    app: App,
    mut call: Call<SessionPath, AttachQuery, NoBody>,
) -> Answered<EventStream> {
    let AttachQuery { after, interactive, follow, outputs } = call.query;
    let from = place(&call.headers, after, |text: &str| match text {
        "head" => Ok(From::Head),
        _ => text.parse().map(|position| From::After(Position(position))).map_err(|_| {
            format!("A session's cursor is a log position, for instance 42, or `head`; this is {text:?}.")
        }),
    })?;
    let from = from.unwrap_or(From::After(Position(0)));
    let handshake = Handshake::asked(&call.headers, &mut call.extensions)?;
    let events = app.api.attach(call.path.id, AttachSession { from, interactive, follow, outputs }).await?;
    Ok(EventStream(respond(&app, handshake, events)))
}

/// Events, in the way that the client asks for them.
pub(super) fn respond(app: &App, handshake: Option<Handshake>, events: Events) -> Response<Body> {
    let farewell = app.streams.farewell.clone();
    let events = events.map(move |mut delivered| {
        if let StreamEvent::Problem { problem } = &mut delivered.event {
            farewell.direct(problem);
        }
        delivered
    });
    let events = events.boxed();
    let Some(handshake) = handshake else { return app.streams.respond(events) };
    let patience = app.patience.clone();
    handshake.grant(websocket::events::config(), patience.clone(), |socket| {
        websocket::events::converse(socket, events, patience)
    })
}

pub(super) async fn document(app: App, mut call: OfSession) -> Answered<Upgraded> {
    let handshake = Handshake::asked(&call.headers, &mut call.extensions)?;
    let handshake = handshake.ok_or_else(problem::upgrade_required)?;
    let peer = app.api.document(call.path.id).await?;
    let patience = app.patience.clone();
    Ok(Upgraded(handshake.grant(websocket::document::config(), patience.clone(), |socket| {
        websocket::document::converse(socket, peer, patience)
    })))
}

pub(super) async fn new_session(
    app: App,
    call: Call<Nothing, Nothing, JsonOrDefault<NewSession>>,
) -> Answered<Created<Opened>> {
    app.api.new_session(call.body.0).await.map(Created)
}

pub(super) async fn open(
    app: App,
    call: Call<Nothing, Nothing, JsonOrDefault<OpenSession>>,
) -> Answered<Found<Opened>> {
    app.api.open(call.body.0).await.map(Found)
}

pub(super) async fn save(
    app: App,
    call: Call<SessionPath, Nothing, JsonOrDefault<SaveSession>>,
) -> Answered<Found<Opened>> {
    app.api.save(call.path.id, call.body.0).await.map(Found)
}

pub(super) async fn close(
    app: App,
    call: Call<SessionPath, Nothing, JsonOrDefault<Close>>,
) -> Answered<Accepted<SessionView>> {
    app.api.close(call.path.id, call.body.0).await.map(Accepted)
}

pub(super) async fn rest(
    app: App,
    call: Call<SessionPath, Nothing, JsonOrDefault<Stop>>,
) -> Answered<Accepted<SessionView>> {
    app.api.rest(call.path.id, call.body.0).await.map(Accepted)
}

pub(super) async fn trust(
    app: App,
    call: Call<SessionPath, Nothing, Json<SetTrust>>,
) -> Answered<Found<SessionView>> {
    app.api.trust(call.path.id, call.body.0.trust).await.map(Found)
}

pub(super) async fn notebook(
    app: App,
    call: Call<SessionPath, NotebookQuery, NoBody>,
) -> Answered<Found<NotebookView>> {
    app.api.notebook(call.path.id, call.query.outputs).await.map(Found)
}

pub(super) async fn edit(
    app: App,
    call: Call<SessionPath, Nothing, Json<EditNotebook>>,
) -> Answered<Found<Edited>> {
    app.api.edit(call.path.id, call.body.0).await.map(Found)
}

pub(super) async fn cell_outputs(
    app: App,
    call: Call<CellPath, Nothing, NoBody>,
) -> Answered<Found<Vec<Value>>> {
    app.api.cell_outputs(call.path.id, call.path.cell).await.map(Found)
}

pub(super) async fn metrics(app: App, _: Simple) -> Answered<Metrics> {
    Ok(Metrics(app.api.metrics().await))
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
    mut call: Call<RunPath, AttachRunQuery, NoBody>,
) -> Answered<EventStream> {
    let AttachRunQuery { cursor, follow } = call.query;
    let cursor = place(&call.headers, cursor, |text: &str| {
        Cursor::from_str(text).map_err(|error| format!("{error}."))
    })?;
    let handshake = Handshake::asked(&call.headers, &mut call.extensions)?;
    let RunPath { id, run } = call.path;
    let how = AttachRun { cursor: cursor.unwrap_or_default(), follow, cancel: false };
    let events = app.api.attach_run(id, run, how).await?;
    Ok(EventStream(respond(&app, handshake, events)))
}

pub(super) async fn reports(app: App, call: OfSession) -> Answered<Found<Vec<FailureReport>>> {
    app.api.reports(call.path.id).await.map(Found)
}

pub(super) async fn blob(app: App, call: Call<BlobPath, Nothing, NoBody>) -> Answered<Bytes> {
    let BlobPath { id, sha256 } = call.path;
    let file = app.api.blob(id, sha256.as_str()).await?;
    blob_file::answer(sha256.as_str(), file).await.map(Bytes)
}

/// Where a reader goes on. The header goes first: a browser that reconnects sends it with the address of its first
/// request, whose cursor is old by then.
pub(super) fn place<T>(
    headers: &HeaderMap,
    query: Option<String>,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, Problem> {
    let header =
        headers.get("last-event-id").map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let text = header.or(query).filter(|text| !text.is_empty());
    text.map(|text| parse(&text).map_err(problem::bad_cursor)).transpose()
}
