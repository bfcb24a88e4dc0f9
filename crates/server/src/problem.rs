//! Every refusal that the server itself makes. What the node refuses comes as a `Problem` already.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Response, StatusCode};
use outlive_core::id::{RunId, SessionId};
use outlive_core::limits::{JSON_DEPTH_MAX, REQUEST_BYTES_MAX};
use outlive_protocol::http::{API_VERSION, Problem};

use crate::openai;
use crate::proxy::Away;

/// The code of a refusal that names the node to ask instead.
const ELSEWHERE: &str = "elsewhere";

/// The media type of every refusal (RFC 9457).
pub const MEDIA_TYPE: &str = "application/problem+json";

/// The fact that names the field of a body that does not fit.
pub(crate) const FIELD: &str = "field";

/// A problem as an answer to a request for `path`, in the words of the surface that was asked.
pub(crate) fn response(path: &str, problem: &Problem) -> Response<Body> {
    let mut response = if openai::speaks(path) {
        openai::refusal::response(problem)
    } else {
        with_headers(problem.status, MEDIA_TYPE, json(problem))
    };
    if problem.code == ELSEWHERE {
        response.extensions_mut().insert(Away(problem.clone()));
    }
    response
}

/// The output of a task that was queued cannot be read: the request is not one that another node may be given instead.
pub(crate) fn queued_elsewhere(run: RunId, problem: Problem) -> Problem {
    if problem.code != ELSEWHERE {
        return problem;
    }
    Problem::new(
        503,
        "owner-lost",
        "The group went to another node",
        format!("Task {run} is queued, and its group has just gone to another node."),
    )
    .hint("Attach to the task to read its output: GET /v1/runners/{name}/tasks/{run}/attach.")
}

/// A refusal with its status, and the headers that HTTP asks for with it.
pub(crate) fn with_headers(status: u16, media_type: &'static str, body: Vec<u8>) -> Response<Body> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"outlive\""));
    }
    if status == StatusCode::UPGRADE_REQUIRED {
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

pub(crate) fn json(problem: &Problem) -> Vec<u8> {
    serde_json::to_vec(problem).expect("a problem holds strings and numbers only")
}

pub(crate) fn no_token() -> Problem {
    Problem::new(401, "no-token", "A token is needed", "This address asks for a token, and the request has none.")
        .hint("Send the header `Authorization: Bearer TOKEN`; the token is in the file `token` in the daemon's state directory.")
}

pub(crate) fn wrong_token() -> Problem {
    Problem::new(401, "wrong-token", "The token is wrong", "The request's token is not this daemon's.")
        .hint("The token is in the file `token` in the daemon's state directory; look whether the client talks to the daemon you mean.")
}

pub(crate) fn wrong_user(uid: Option<u32>, owner: u32) -> Problem {
    let who = uid.map_or_else(|| "an unknown user".to_owned(), |uid| format!("user {uid}"));
    Problem::new(
        403,
        "wrong-user",
        "This daemon belongs to another user",
        format!("The client runs as {who}, the daemon as user {owner}; only that user and root may use its socket."),
    )
    .hint("Run the command as the daemon's user, or use its TCP address with a token.")
}

pub(crate) fn no_host() -> Problem {
    Problem::new(
        400,
        "no-host",
        "The Host header is missing",
        "The request does not say once which host it is for.",
    )
    .hint("Send exactly one `Host` header, as HTTP/1.1 asks.")
}

pub(crate) fn foreign_host(host: &str) -> Problem {
    Problem::new(
        403,
        "foreign-host",
        "The Host header names another host",
        format!("The request is for {host:?}, which is no name of this server (a page may be using DNS rebinding)."),
    )
    .hint("Use localhost or the address it listens on, or add the name to the server's allowed hosts.")
    .fact("host", host)
}

pub(crate) fn cross_origin(origin: &str) -> Problem {
    Problem::new(
        403,
        "cross-origin",
        "The request comes from another origin",
        format!("A page of {origin:?} made this request, and that origin is not allowed here."),
    )
    .hint("Add the origin to the server's allowed origins if you trust that page.")
    .fact("origin", origin)
}

pub(crate) fn version_mismatch(theirs: &str) -> Problem {
    Problem::new(
        400,
        "version-mismatch",
        "Client and daemon speak different versions of the API",
        format!("The client speaks version {theirs:?} of the API, the daemon version {API_VERSION}."),
    )
    .hint("Use the same version of outlive on both sides; a restart of the daemon with --keep-runtimes leaves kernels alone.")
    .fact("api", API_VERSION.to_string())
}

pub(crate) fn no_such_route(method: &str, path: &str) -> Problem {
    Problem::new(
        404,
        "no-such-route",
        "There is no such route",
        format!("Nothing is served at {method} {path}."),
    )
    .hint("GET /v1/openapi.json lists every route.")
}

pub(crate) fn wrong_method(method: &str, path: &str) -> Problem {
    Problem::new(
        405,
        "wrong-method",
        "This route has no such method",
        format!("{path} does not answer {method}."),
    )
    .hint("The header `Allow` says which methods it answers.")
}

pub(crate) fn wrong_media_type(found: Option<&str>) -> Problem {
    let found = found.map_or_else(|| "no Content-Type".to_owned(), |found| format!("Content-Type {found:?}"));
    Problem::new(415, "wrong-media-type", "The body must be JSON", format!("The body was sent with {found}."))
        .hint("Send `Content-Type: application/json`.")
}

pub(crate) fn bad_json(detail: String) -> Problem {
    Problem::new(400, "bad-json", "The body does not fit", detail)
        .hint("GET /v1/openapi.json shows what each route takes.")
}

pub(crate) fn bad_field(field: &str, detail: &str) -> Problem {
    bad_json(detail.to_owned()).fact(FIELD, field)
}

pub(crate) fn no_such_model(name: &str, models: &[String]) -> Problem {
    let known = match models {
        [] => "no group that can chat is up".to_owned(),
        models => format!("these can chat: {}", models.join(", ")),
    };
    // OpenAI's own code for this: clients know it.
    Problem::new(
        404,
        "model_not_found",
        "There is no such model",
        format!("There is no model {name:?}; {known}."),
    )
    .hint("A model is a group of runners with the capability `chat`: `outlive up FILE.toml` brings one up.")
    .fact(FIELD, "model")
}

pub(crate) fn not_a_chat_model(name: &str) -> Problem {
    Problem::new(
        400,
        "not-a-chat-model",
        "The group cannot chat",
        format!("The runners of {name:?} do not declare the capability `chat`."),
    )
    .hint("GET /v1/models lists those that do; POST /v1/runners/{name}/tasks gives a task to any group.")
    .fact(FIELD, "model")
}

pub(crate) fn json_too_deep() -> Problem {
    Problem::new(
        400,
        "json-too-deep",
        "The body is nested too deeply",
        format!("The body nests more than {JSON_DEPTH_MAX} arrays or objects."),
    )
    .hint("Flatten it, or send deep values as text.")
}

pub(crate) fn body_too_large(found: Option<u64>) -> Problem {
    let found = found.map_or_else(|| "more than that".to_owned(), |found| format!("{found}"));
    Problem::new(
        413,
        "body-too-large",
        "The body is too large",
        format!("A body may have {REQUEST_BYTES_MAX} bytes; this one has {found}."),
    )
    .hint("Send less at once; large data belongs in a file that the program reads.")
}

pub(crate) fn body_too_slow(after_ms: u128) -> Problem {
    Problem::new(
        408,
        "body-too-slow",
        "The body did not come",
        format!("The body was not complete after {after_ms} ms."),
    )
    .hint("Send it again; look at the network if this repeats.")
}

pub(crate) fn body_cut() -> Problem {
    Problem::new(400, "body-cut", "The body was cut off", "The connection ended before the body did.")
        .hint("Send the request again.")
}

pub(crate) fn bad_path(detail: String) -> Problem {
    Problem::new(400, "bad-path", "A part of the path is not valid", detail)
        .hint("Ids are UUIDs as the API gave them; a blob's name is its SHA-256.")
}

pub(crate) fn bad_query(detail: String) -> Problem {
    Problem::new(400, "bad-query", "The query does not fit", detail)
        .hint("GET /v1/openapi.json shows the parameters of each route.")
}

pub(crate) fn bad_cursor(detail: String) -> Problem {
    Problem::new(400, "bad-cursor", "The cursor is not valid", detail).hint(
        "Come back with the `id` of the last event you have, or without a cursor to begin from the start.",
    )
}

pub(crate) fn blob_unreadable(sha256: &str, error: &std::io::Error) -> Problem {
    Problem::new(500, "blob-unreadable", "A blob cannot be read", format!("Blob {sha256}: {error}."))
        .hint("Look at the daemon's log and at the state directory's disk.")
}

pub(crate) fn joining(why: &str) -> Problem {
    Problem::new(503, "joining", "The node is joining its cluster", why)
        .hint("Try again in a moment, or ask another node.")
}

pub(crate) fn slow_reader(after_ms: u128) -> Problem {
    Problem::new(
        503,
        "slow-reader",
        "The stream was not read",
        format!(
            "The client took nothing of this stream for {after_ms} ms, so it was ended. Nothing is lost."
        ),
    )
    .hint("Attach again with the `id` of the last event you have.")
}

pub(crate) fn slow_peer(after_ms: u128) -> Problem {
    Problem::new(
        503,
        "slow-peer",
        "The peer did not read",
        format!("The client took nothing of what it was sent for {after_ms} ms, so it was let go. The notebook has all its edits that had come."),
    )
    .hint("Connect again: what each side lacks is exchanged first.")
}

pub(crate) fn silent_peer(after_ms: u128) -> Problem {
    Problem::new(
        408,
        "silent-peer",
        "The peer was silent",
        format!("Nothing came from the client for {after_ms} ms, not even answers to pings."),
    )
    .hint("Connect again; look at the network if this repeats.")
}

pub(crate) fn upgrade_required() -> Problem {
    Problem::new(
        426,
        "upgrade-required",
        "This route is a WebSocket",
        "The request does not ask for a WebSocket, and nothing else is served here.",
    )
    .hint("Connect with a WebSocket client, for instance y-websocket's provider; GET …/notebook has the notebook as JSON.")
}

pub(crate) fn websocket_version() -> Problem {
    Problem::new(
        426,
        "websocket-version",
        "This version of WebSocket is not spoken",
        "The request's header Sec-WebSocket-Version is not 13.",
    )
    .hint("Use a client that speaks WebSocket as RFC 6455 has it.")
}

pub(crate) fn bad_handshake(detail: &str) -> Problem {
    Problem::new(400, "bad-handshake", "The request for a WebSocket is not valid", detail)
        .hint("Use a WebSocket client; a proxy between may have removed headers.")
}

pub(crate) fn message_too_large(found: usize, max: usize) -> Problem {
    Problem::new(
        413,
        "message-too-large",
        "The message is too large",
        format!("A message here may have {max} bytes; this one has {found}."),
    )
    .hint("Send less at once; a large change can be sent as several updates.")
}

pub(crate) fn bad_frame(error: &dyn std::fmt::Display) -> Problem {
    Problem::new(
        400,
        "bad-frame",
        "This is no WebSocket",
        format!("What came is no frame of a WebSocket: {error}."),
    )
    .hint("Use a WebSocket client that speaks RFC 6455; a proxy between may damage what passes.")
}

pub(crate) fn text_frame() -> Problem {
    Problem::new(
        400,
        "text-frame",
        "Text is not understood here",
        "A text frame came where only binary frames of the y-sync and awareness protocols belong.",
    )
    .hint("Send binary frames as y-websocket does; for JSON there is POST …/notebook.")
}

pub(crate) fn shutting_down() -> Problem {
    Problem::new(
        503,
        "shutting-down",
        "The daemon is shutting down",
        "The daemon ends; what runs may go on without it.",
    )
    .hint("Attach again with the `id` of the last event you have, once a daemon is there.")
}

pub(crate) fn too_many_connections(max: usize) -> Problem {
    Problem::new(
        503,
        "too-many-connections",
        "Too many connections",
        format!("The daemon serves {max} connections at a time on this address, and all are in use."),
    )
    .hint("Close clients that are not needed and try again.")
}

pub(crate) fn out_of_descriptors() -> Problem {
    Problem::new(
        503,
        "out-of-descriptors",
        "The daemon is out of file descriptors",
        "The daemon cannot open another connection: its limit of open files, or the system's, is reached.",
    )
    .hint("Raise the limit (`ulimit -n`, or LimitNOFILE of the service), or close sessions and clients.")
}

pub(crate) fn bug(detail: &str) -> Problem {
    Problem::new(500, "bug", "A defect of Outlive", detail)
        .hint("The daemon's log has more; please report it with the command that led here.")
}

pub(crate) fn no_such_task(group: &str, run: RunId) -> Problem {
    Problem::new(404, "no-such-task", "There is no such task", format!("Group {group:?} has no task {run}."))
        .hint(
            "GET /v1/runners/{name}/tasks lists the tasks of a group; one that ended long ago is forgotten.",
        )
}

pub(crate) fn no_such_run(session: SessionId, run: RunId) -> Problem {
    Problem::new(404, "no-such-run", "There is no such run", format!("Session {session} has no run {run}."))
        .hint("GET /v1/sessions/{id}/runs lists the runs of a session.")
}
