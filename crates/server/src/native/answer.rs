//! Putting answers together; each kind knows its status and its schema.

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Response, StatusCode};
use outlive_protocol::http::StreamEvent;
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Value, json};

use crate::problem;
use crate::stream;

/// What a handler gives back when it does not refuse.
pub(crate) trait Answer: Send + 'static {
    const STATUS: StatusCode;
    const DESCRIPTION: &'static str;
    /// Another status with the same content, and when it is given.
    const OR: Option<(StatusCode, &'static str)> = None;
    /// The content object of its response, if it has a body.
    fn content(generator: &mut SchemaGenerator) -> Option<Value>;
    fn into_response(self) -> Response<Body>;
}

macro_rules! json_answers {
    ($($(#[$doc:meta])* $name:ident $status:ident $description:literal)*) => {
        $(
            $(#[$doc])*
            pub(crate) struct $name<T>(pub T);

            impl<T: Serialize + JsonSchema + Send + 'static> Answer for $name<T> {
                const STATUS: StatusCode = StatusCode::$status;
                const DESCRIPTION: &'static str = $description;

                fn content(generator: &mut SchemaGenerator) -> Option<Value> {
                    Some(json!({ "application/json": { "schema": generator.subschema_for::<T>() } }))
                }

                fn into_response(self) -> Response<Body> {
                    json_response(Self::STATUS, &self.0)
                }
            }
        )*
    };
}

json_answers! {
    /// 200 with JSON.
    Found OK "As asked"
    /// 201 with JSON.
    Created CREATED "Made"
    /// 202 with JSON.
    Accepted ACCEPTED "Under way; the state before its end"
}

macro_rules! one_of_two {
    ($($(#[$doc:meta])* $name:ident { $first:ident $status:ident $description:literal, $other:ident $or:ident $when:literal })*) => {
        $(
            $(#[$doc])*
            pub(crate) enum $name<T> {
                $first(T),
                $other(T),
            }

            impl<T: Serialize + JsonSchema + Send + 'static> Answer for $name<T> {
                const STATUS: StatusCode = StatusCode::$status;
                const DESCRIPTION: &'static str = $description;
                const OR: Option<(StatusCode, &'static str)> = Some((StatusCode::$or, $when));

                fn content(generator: &mut SchemaGenerator) -> Option<Value> {
                    Found::<T>::content(generator)
                }

                fn into_response(self) -> Response<Body> {
                    match self {
                        Self::$first(value) => json_response(StatusCode::$status, &value),
                        Self::$other(value) => json_response(StatusCode::$or, &value),
                    }
                }
            }
        )*
    };
}

one_of_two! {
    /// 201, or 200 for what was there.
    MadeOrFound { Made CREATED "Made", Found OK "It was there, as asked for" }
    /// 202, or 200 for what had ended.
    UnderWayOrOver { UnderWay ACCEPTED "Under way; the state before its end", Over OK "It had ended" }
}

/// 202 without a body.
pub(crate) struct Begun;

impl Answer for Begun {
    const STATUS: StatusCode = StatusCode::ACCEPTED;
    const DESCRIPTION: &'static str = "Under way";

    fn content(_: &mut SchemaGenerator) -> Option<Value> {
        None
    }

    fn into_response(self) -> Response<Body> {
        empty(Self::STATUS)
    }
}

/// 204.
pub(crate) struct Done;

impl Answer for Done {
    const STATUS: StatusCode = StatusCode::NO_CONTENT;
    const DESCRIPTION: &'static str = "Done";

    fn content(_: &mut SchemaGenerator) -> Option<Value> {
        None
    }

    fn into_response(self) -> Response<Body> {
        empty(Self::STATUS)
    }
}

/// Events until `end` or `problem`.
pub(crate) struct EventStream(pub Response<Body>);

impl Answer for EventStream {
    const STATUS: StatusCode = StatusCode::OK;
    const DESCRIPTION: &'static str = "Server-Sent Events. `data` is one line of this JSON, `event` its kind, `id` the cursor \
        to come back with. Comment lines come while it is quiet. The last event is `end` or `problem`. \
        A request for a WebSocket is answered with the same events as text frames, each this JSON with the cursor as `id`";

    fn content(generator: &mut SchemaGenerator) -> Option<Value> {
        Some(json!({ stream::MEDIA_TYPE: { "schema": generator.subschema_for::<StreamEvent>() } }))
    }

    fn into_response(self) -> Response<Body> {
        self.0
    }
}

/// A WebSocket.
pub(crate) struct Upgraded(pub Response<Body>);

impl Answer for Upgraded {
    const STATUS: StatusCode = StatusCode::SWITCHING_PROTOCOLS;
    const DESCRIPTION: &'static str = "A WebSocket: binary frames of the y-sync and awareness protocols, as y-websocket speaks them. \
        Text frames from the daemon are events as JSON: `gap` when the client fell behind, `problem` before the close";

    fn content(_: &mut SchemaGenerator) -> Option<Value> {
        None
    }

    fn into_response(self) -> Response<Body> {
        self.0
    }
}

/// Bytes of a file.
pub(crate) struct Bytes(pub Response<Body>);

impl Answer for Bytes {
    const STATUS: StatusCode = StatusCode::OK;
    const DESCRIPTION: &'static str = "The content";

    fn content(_: &mut SchemaGenerator) -> Option<Value> {
        Some(json!({ "application/octet-stream": {} }))
    }

    fn into_response(self) -> Response<Body> {
        self.0
    }
}

/// Counters for Prometheus.
pub(crate) struct Metrics(pub String);

impl Metrics {
    /// The version is that of Prometheus' text format.
    const MEDIA_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";
}

impl Answer for Metrics {
    const STATUS: StatusCode = StatusCode::OK;
    const DESCRIPTION: &'static str = "The counters";

    fn content(_: &mut SchemaGenerator) -> Option<Value> {
        Some(json!({ Self::MEDIA_TYPE: { "schema": { "type": "string" } } }))
    }

    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.0));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(Self::MEDIA_TYPE));
        response
    }
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

pub(crate) fn json_response(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let Ok(json) = serde_json::to_vec(value) else {
        let refused = problem::bug("An answer could not be written as JSON.");
        return problem::with_headers(refused.status, problem::MEDIA_TYPE, problem::json(&refused));
    };
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
