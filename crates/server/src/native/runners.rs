//! Groups of runners and their tasks. A task is a run of its group's session, so that its output is attached to as that
//! of every run.

use std::str::FromStr as _;

use outlive_core::id::Cursor;
use outlive_node::api::{AttachRun, MemberWish, Up};
use outlive_protocol::http::{
    GroupConfig, Members, Problem, RunState, RunView, SessionView, Stop, SubmitTask,
};

use super::App;
use super::answer::{Accepted, Created, EventStream, Found, MadeOrFound, UnderWayOrOver};
use super::handlers::{place, respond};
use super::request::{AttachTaskQuery, Call, GroupPath, Json, JsonOrDefault, NoBody, Nothing, TaskPath};
use crate::problem;
use crate::websocket::handshake::Handshake;

type Simple = Call<Nothing, Nothing, NoBody>;
type OfGroup = Call<GroupPath, Nothing, NoBody>;
type OfMembers = Call<GroupPath, Nothing, JsonOrDefault<Members>>;
type OfTask = Call<TaskPath, Nothing, NoBody>;
type Answered<T> = Result<T, Problem>;

pub(super) async fn groups(app: App, _: Simple) -> Answered<Found<Vec<SessionView>>> {
    app.api.groups().await.map(Found)
}

pub(super) async fn group(app: App, call: OfGroup) -> Answered<Found<SessionView>> {
    app.api.group(&call.path.name).await.map(Found)
}

pub(super) async fn up(
    app: App,
    call: Call<GroupPath, Nothing, Json<GroupConfig>>,
) -> Answered<MadeOrFound<SessionView>> {
    let (view, up) = app.api.up(&call.path.name, call.body.0).await?;
    Ok(match up {
        Up::Made => MadeOrFound::Made(view),
        Up::Already => MadeOrFound::Found(view),
    })
}

pub(super) async fn down(
    app: App,
    call: Call<GroupPath, Nothing, JsonOrDefault<Stop>>,
) -> Answered<Accepted<SessionView>> {
    app.api.down(&call.path.name, call.body.0).await.map(Accepted)
}

pub(super) async fn start(app: App, call: OfMembers) -> Answered<Accepted<SessionView>> {
    app.api.members(&call.path.name, MemberWish::Start, call.body.0).await.map(Accepted)
}

pub(super) async fn stop(app: App, call: OfMembers) -> Answered<Accepted<SessionView>> {
    app.api.members(&call.path.name, MemberWish::Stop, call.body.0).await.map(Accepted)
}

pub(super) async fn restart(app: App, call: OfMembers) -> Answered<Accepted<SessionView>> {
    app.api.members(&call.path.name, MemberWish::Restart, call.body.0).await.map(Accepted)
}

pub(super) async fn tasks(app: App, call: OfGroup) -> Answered<Found<Vec<RunView>>> {
    let group = app.api.group(&call.path.name).await?;
    app.api.runs(group.id).await.map(Found)
}

pub(super) async fn submit(
    app: App,
    call: Call<GroupPath, Nothing, Json<SubmitTask>>,
) -> Answered<Created<RunView>> {
    app.api.submit_task(&call.path.name, call.body.0).await.map(Created)
}

pub(super) async fn task(app: App, call: OfTask) -> Answered<Found<RunView>> {
    let TaskPath { name, run } = call.path;
    let group = app.api.group(&name).await?;
    let found = app.api.runs(group.id).await?.into_iter().find(|view| view.id == run);
    found.map(Found).ok_or_else(|| problem::no_such_task(&name, run))
}

pub(super) async fn cancel(app: App, call: OfTask) -> Answered<UnderWayOrOver<RunView>> {
    let view = app.api.cancel_task(&call.path.name, call.path.run).await?;
    Ok(match view.state {
        RunState::Ended { .. } => UnderWayOrOver::Over(view),
        RunState::Queued | RunState::Running | RunState::Unknown => UnderWayOrOver::UnderWay(view),
    })
}

pub(super) async fn attach(
    app: App,
    mut call: Call<TaskPath, AttachTaskQuery, NoBody>,
) -> Answered<EventStream> {
    let AttachTaskQuery { cursor, follow, cancel } = call.query;
    let cursor = place(&call.headers, cursor, |text: &str| {
        Cursor::from_str(text).map_err(|error| format!("{error}."))
    })?;
    let handshake = Handshake::asked(&call.headers, &mut call.extensions)?;
    let group = app.api.group(&call.path.name).await?;
    let how = AttachRun { cursor: cursor.unwrap_or_default(), follow, cancel };
    let events = app.api.attach_run(group.id, call.path.run, how).await?;
    Ok(EventStream(respond(&app, handshake, events)))
}
