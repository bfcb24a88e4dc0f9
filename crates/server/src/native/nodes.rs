//! This node, the others, and how sessions went from one to the next.

use axum::body::Body;
use axum::http::Response;
use outlive_protocol::http::{ClusterView, Drain, Drained, NodeView, Problem, StopNode, TakeoverView};

use super::App;
use super::answer::{Answer as _, Begun, Found};
use super::request::{Call, Json, JsonOrDefault, NoBody, Nothing, SessionPath};
use crate::door::Guest;
use crate::problem;

type Simple = Call<Nothing, Nothing, NoBody>;
type Answered<T> = Result<T, Problem>;

pub(super) async fn live(app: App, call: Simple) -> Answered<Found<NodeView>> {
    Ok(Found(shown(app.api.node(), call.guest)))
}

pub(super) async fn ready(app: App, _: Simple) -> Answered<Found<NodeView>> {
    app.api.ready().await?;
    Ok(Found(app.api.node()))
}

pub(super) async fn node(app: App, _: Simple) -> Answered<Found<NodeView>> {
    Ok(Found(app.api.node()))
}

pub(super) async fn stop(app: App, call: Call<Nothing, Nothing, Json<StopNode>>) -> Answered<Begun> {
    app.api.shutdown(call.body.0).await?;
    Ok(Begun)
}

pub(super) async fn drain(
    app: App,
    call: Call<Nothing, Nothing, JsonOrDefault<Drain>>,
) -> Answered<Found<Drained>> {
    app.api.drain(call.body.0).await.map(Found)
}

pub(super) async fn nodes(app: App, _: Simple) -> Answered<Found<ClusterView>> {
    Ok(Found(app.api.cluster().await))
}

pub(super) async fn takeovers(
    app: App,
    call: Call<SessionPath, Nothing, NoBody>,
) -> Answered<Found<Vec<TakeoverView>>> {
    app.api.takeovers(call.path.id).await.map(Found)
}

/// What is answered as long as there is no node: who waits, and for what.
pub(crate) fn waiting(path: &str, guest: Guest, who: Option<&NodeView>, why: &str) -> Response<Body> {
    match (path, who) {
        ("/v1/live" | "/v1/node", Some(who)) => Found(shown(who.clone(), guest)).into_response(),
        _ => problem::response(path, &problem::joining(why)),
    }
}

/// A stranger is told that somebody is there.
fn shown(mut node: NodeView, guest: Guest) -> NodeView {
    if guest != Guest::Known {
        node.state_directory = String::new();
        node.pid = 0;
    }
    node
}
