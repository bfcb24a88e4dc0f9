//! Taking requests apart. Everything here comes from outside: each refusal names the place and what was found there.

use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequestParts as _, Query, RawPathParams, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Extensions, HeaderMap, request::Parts};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use outlive_core::id::{RunId, SessionId};
use outlive_core::limits::{JSON_DEPTH_MAX, REQUEST_BYTES_MAX};
use outlive_protocol::http::{Problem, plainly};
use schemars::{JsonSchema, SchemaGenerator};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use crate::door::Guest;
use crate::problem;

/// How much of a body that is too large is read and thrown away, as a multiple of the limit: a client that is told
/// `413` before it has sent everything often sees a broken connection instead.
const DISCARD_FACTOR: usize = 4;

/// A request, taken apart: `P` from its path, `Q` from its query, `B` from its body.
pub(crate) struct Call<P, Q, B> {
    pub path: P,
    pub query: Q,
    pub body: B,
    pub headers: HeaderMap,
    pub extensions: Extensions,
    pub guest: Guest,
}

impl<P: Fields, Q: Fields, B: RequestBody> Call<P, Q, B> {
    /// `template` is the route's path, `patience` how long the body may take.
    pub(super) async fn read(template: &str, patience: Duration, request: Request) -> Result<Self, Problem> {
        let (mut head, body) = request.into_parts();
        let path = path(template, &mut head).await?;
        let Query(query) =
            Query::try_from_uri(&head.uri).map_err(|rejection| problem::bad_query(rejection.body_text()))?;
        let guest = head.extensions.get().copied().unwrap_or(Guest::Unknown);
        let body = timeout(patience, B::read(&head.headers, body))
            .await
            .map_err(|_| problem::body_too_slow(patience.as_millis()))??;
        Ok(Self { path, query, body, headers: head.headers, extensions: head.extensions, guest })
    }
}

/// Fields of a path or a query.
pub(crate) trait Fields: DeserializeOwned + JsonSchema + Send + 'static {}

/// No fields.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Nothing {}

/// `/sessions/{id}`
#[derive(Deserialize, JsonSchema)]
pub(crate) struct SessionPath {
    /// The session.
    pub id: SessionId,
}

/// `/sessions/{id}/runs/{run}`
#[derive(Deserialize, JsonSchema)]
pub(crate) struct RunPath {
    /// The session.
    pub id: SessionId,
    /// The run.
    pub run: RunId,
}

/// `/runners/{name}`
#[derive(Deserialize, JsonSchema)]
pub(crate) struct GroupPath {
    /// The group.
    pub name: String,
}

/// `/runners/{name}/tasks/{run}`
#[derive(Deserialize, JsonSchema)]
pub(crate) struct TaskPath {
    /// The group.
    pub name: String,
    /// The task.
    pub run: RunId,
}

/// `/sessions/{id}/cells/{cell}`
#[derive(Deserialize, JsonSchema)]
pub(crate) struct CellPath {
    /// The session.
    pub id: SessionId,
    /// The cell's id.
    pub cell: String,
}

/// `/sessions/{id}/blobs/{sha256}`
#[derive(Deserialize, JsonSchema)]
pub(crate) struct BlobPath {
    /// The session.
    pub id: SessionId,
    /// The content's SHA-256.
    #[schemars(with = "String", regex(pattern = "^[0-9a-f]{64}$"))]
    pub sha256: Sha256Name,
}

/// 64 lower-case hexadecimal digits: a name that cannot be a path.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Sha256Name(String);

impl Sha256Name {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Sha256Name {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == 64 && text.bytes().all(is_digit) {
            Ok(Self(text))
        } else {
            Err("a blob is named by the 64 lower-case hexadecimal digits of its SHA-256")
        }
    }
}

/// `GET /sessions`
#[derive(Deserialize, JsonSchema)]
pub(crate) struct ListQuery {
    /// Closed sessions too.
    #[serde(default)]
    pub all: bool,
}

/// `GET /sessions/{id}/attach`
#[derive(Deserialize, JsonSchema)]
#[expect(clippy::struct_excessive_bools, reason = "each is a parameter of its own")]
pub(crate) struct AttachQuery {
    /// Everything after this log position (0: from the start), or `head`: what happens from now on. The header
    /// `Last-Event-ID` goes before it.
    pub after: Option<String>,
    /// Whether somebody is there who can answer a program's question.
    #[serde(default)]
    pub interactive: bool,
    /// Stay for what is still to come; else the stream ends at the present head.
    #[serde(default = "yes")]
    pub follow: bool,
    /// With the output of runs; without it, the session's state alone.
    #[serde(default = "yes")]
    pub outputs: bool,
}

/// `GET /sessions/{id}/notebook`
#[derive(Deserialize, JsonSchema)]
pub(crate) struct NotebookQuery {
    /// With the outputs of its cells.
    #[serde(default)]
    pub outputs: bool,
}

/// `GET /sessions/{id}/runs/{run}/attach`
#[derive(Deserialize, JsonSchema)]
pub(crate) struct AttachRunQuery {
    /// What the reader has, as ATTEMPT.SEQ (0.0: nothing). The header `Last-Event-ID` goes before it.
    pub cursor: Option<String>,
    /// Stay for what is still to come; else the stream ends at the present head.
    #[serde(default = "yes")]
    pub follow: bool,
}

/// `GET /runners/{name}/tasks/{run}/attach`
#[derive(Deserialize, JsonSchema)]
#[expect(clippy::struct_excessive_bools, reason = "each is a parameter of its own")]
pub(crate) struct AttachTaskQuery {
    /// What the reader has, as ATTEMPT.SEQ (0.0: nothing). The header `Last-Event-ID` goes before it.
    pub cursor: Option<String>,
    /// Stay for what is still to come; else the stream ends at the present head.
    #[serde(default = "yes")]
    pub follow: bool,
    /// Cancel the task when this client goes away before its end.
    #[serde(default)]
    pub cancel: bool,
}

const fn yes() -> bool {
    true
}

impl Fields for Nothing {}
impl Fields for SessionPath {}
impl Fields for RunPath {}
impl Fields for GroupPath {}
impl Fields for TaskPath {}
impl Fields for CellPath {}
impl Fields for BlobPath {}
impl Fields for ListQuery {}
impl Fields for AttachQuery {}
impl Fields for NotebookQuery {}
impl Fields for AttachRunQuery {}
impl Fields for AttachTaskQuery {}

async fn path<P: Fields>(template: &str, head: &mut Parts) -> Result<P, Problem> {
    let parts = RawPathParams::from_request_parts(head, &())
        .await
        .map_err(|rejection| problem::bad_path(rejection.body_text()))?;
    let parts: Map<String, Value> =
        parts.iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
    serde_path_to_error::deserialize(Value::Object(parts)).map_err(|error| {
        let field = error.path().to_string();
        problem::bad_path(format!("{{{field}}} in {template}: {}.", plainly(&field, error.inner())))
    })
}

/// The body of a request.
pub(crate) trait RequestBody: Sized + Send + 'static {
    /// Reads it, within the limits.
    fn read(headers: &HeaderMap, body: Body) -> impl Future<Output = Result<Self, Problem>> + Send;
    /// Its request body object, if it takes one.
    fn document(generator: &mut SchemaGenerator) -> Option<Value>;
}

/// No body is looked at.
pub(crate) struct NoBody;

/// A JSON body.
pub(crate) struct Json<T>(pub T);

/// A JSON body, or none for the defaults.
pub(crate) struct JsonOrDefault<T>(pub T);

impl RequestBody for NoBody {
    async fn read(_: &HeaderMap, _: Body) -> Result<Self, Problem> {
        Ok(Self)
    }

    fn document(_: &mut SchemaGenerator) -> Option<Value> {
        None
    }
}

impl<T: DeserializeOwned + JsonSchema + Send + 'static> RequestBody for Json<T> {
    async fn read(headers: &HeaderMap, body: Body) -> Result<Self, Problem> {
        check_media_type(headers)?;
        parse(&collect(body).await?).map(Self)
    }

    fn document(generator: &mut SchemaGenerator) -> Option<Value> {
        Some(document_json::<T>(generator, true))
    }
}

impl<T: DeserializeOwned + JsonSchema + Default + Send + 'static> RequestBody for JsonOrDefault<T> {
    async fn read(headers: &HeaderMap, body: Body) -> Result<Self, Problem> {
        let bytes = collect(body).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        check_media_type(headers)?;
        parse(&bytes).map(Self)
    }

    fn document(generator: &mut SchemaGenerator) -> Option<Value> {
        Some(document_json::<T>(generator, false))
    }
}

fn document_json<T: JsonSchema>(generator: &mut SchemaGenerator, required: bool) -> Value {
    let schema = generator.subschema_for::<T>();
    json!({ "required": required, "content": { "application/json": { "schema": schema } } })
}

/// A page of another origin can send a form or text without asking first, but not JSON.
pub(crate) fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let found = headers.get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let essence = found.as_deref().and_then(|value| value.split(';').next()).map(str::trim);
    if essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json")) {
        Ok(())
    } else {
        Err(problem::wrong_media_type(found.as_deref()))
    }
}

/// The whole body. What is kept never exceeds the limit, whatever the client says or sends.
pub(crate) async fn collect(mut body: Body) -> Result<Bytes, Problem> {
    let announced = body.size_hint().lower();
    let mut kept = BytesMut::new();
    let mut size = 0;
    let is_too_large = |size: usize| size > REQUEST_BYTES_MAX || announced > REQUEST_BYTES_MAX as u64;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| problem::body_cut())?.into_data() else { continue };
        size += data.len();
        if !is_too_large(size) {
            kept.extend_from_slice(&data);
        } else if size > REQUEST_BYTES_MAX * DISCARD_FACTOR {
            break;
        }
    }
    if is_too_large(size) {
        return Err(problem::body_too_large((announced > 0).then_some(announced)));
    }
    Ok(kept.freeze())
}

pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if is_too_deep(bytes) {
        return Err(problem::json_too_deep());
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    // A list would be taken for the fields in their order.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(problem::bad_json("A list came where an object belongs.".to_owned()));
    }
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        // The root's path is a dot, which says nothing.
        let field = Some(error.path().to_string()).filter(|path| path != ".");
        let place = field.as_ref().map_or_else(String::new, |field| format!("`{field}`: "));
        let what = plainly(field.as_deref().unwrap_or_default(), error.inner());
        let refused = problem::bad_json(format!("{place}{what}."));
        field.into_iter().fold(refused, |refused, field| refused.fact(problem::FIELD, field))
    })?;
    json.end().map_err(|error| problem::bad_json(format!("{error}.")))?;
    Ok(value)
}

/// Looks before anything is built. The parser has a limit of its own; this one is ours, with its own refusal.
fn is_too_deep(json: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth >= JSON_DEPTH_MAX {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    // B6
    #[test]
    fn depth_is_counted_outside_of_strings() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(!is_too_deep(deep(JSON_DEPTH_MAX - 1).as_bytes()));
        assert!(is_too_deep(deep(JSON_DEPTH_MAX).as_bytes()));
        assert!(
            serde_json::from_str::<Value>(&deep(JSON_DEPTH_MAX - 1)).is_ok(),
            "what we let in can be parsed"
        );
        assert!(!is_too_deep(format!("\"\\\"{}\"", "[".repeat(1_000)).as_bytes()));
        assert!(!is_too_deep("[],".repeat(1_000).as_bytes()));
    }

    #[test]
    fn a_blob_name_is_no_path() {
        assert!(Sha256Name::try_from("0a".repeat(32)).is_ok());
        for wrong in ["", "..", "0A", &"0A".repeat(32), &"/.".repeat(32), &"0a".repeat(33)] {
            assert!(Sha256Name::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
