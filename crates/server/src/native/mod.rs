//! The native API, `/v1`.
//!
//! `table` lists every route once; `route` makes of each entry a handler and a part of the OpenAPI document, both from
//! the same Rust types; `request` takes requests apart, `answer` puts answers together, `handlers` calls the node.

pub(crate) mod answer;
pub(crate) mod blob;
mod handlers;
pub(crate) mod nodes;
mod openapi;
pub(crate) mod request;
pub(crate) mod route;
mod runners;
mod table;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Response, Uri};
use outlive_node::api::Api;

use crate::problem;
use crate::stream::Streams;
use crate::websocket::socket::Patience;

pub use openapi::document as openapi_document;

/// What every handler has.
#[derive(Clone)]
pub(crate) struct App {
    pub api: Arc<dyn Api>,
    pub streams: Streams,
    pub patience: Patience,
    pub body_deadline: Duration,
}

/// The router of every route in the table.
pub(crate) fn router(app: App) -> Router {
    table::routes()
        .into_iter()
        .fold(Router::new(), |router, route| router.route(route.path, route.handler))
        .fallback(no_such_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app)
}

async fn no_such_route(method: Method, uri: Uri) -> Response<Body> {
    problem::response(uri.path(), &problem::no_such_route(method.as_str(), uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Response<Body> {
    problem::response(uri.path(), &problem::wrong_method(method.as_str(), uri.path()))
}
