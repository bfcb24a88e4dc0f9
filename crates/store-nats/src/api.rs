//! JetStream's interface of JSON requests: streams, and reads that only a stream's leader answers.

use async_nats::Message;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use outlive_core::id::Position;
use outlive_store::Unavailable;
use serde_json::{Value, json};

use crate::wire::{CallError, Wire};

/// JetStream's own numbers for why it refuses something.
pub(crate) mod code {
    /// A message that does not exist.
    pub(crate) const NO_MESSAGE: u64 = 10_037;
    /// JetStream is not there for this account.
    pub(crate) const NOT_ENABLED_FOR_ACCOUNT: u64 = 10_039;
    /// JetStream is not there.
    pub(crate) const NOT_ENABLED: u64 = 10_076;
    /// A stream that does not exist.
    pub(crate) const NO_STREAM: u64 = 10_059;
    /// A stream of that name with another configuration.
    pub(crate) const NAME_IN_USE: u64 = 10_058;
    /// Another stream has one of the subjects.
    pub(crate) const OVERLAP: u64 = 10_065;
    /// A guard did not hold; its text says where the subject is.
    pub(crate) const WRONG_LAST: u64 = 10_071;
    /// Another guarded append is in flight.
    pub(crate) const CROWDED: u64 = 10_164;
    /// The same append is in flight.
    pub(crate) const REPEATED: u64 = 10_158;
    /// Too few servers for the replicas.
    pub(crate) const NO_PEERS: u64 = 10_005;
    /// Replicas without a cluster.
    pub(crate) const NOT_CLUSTERED: u64 = 10_074;
    /// A message could not be stored, most often because its stream, or its disk, is full.
    pub(crate) const STORE_FAILED: u64 = 10_077;
    /// No room left for a stream.
    pub(crate) const NO_RESOURCES: [u64; 4] = [10_023, 10_028, 10_047, 10_002];
}

/// Why a request of JetStream had no result.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// No answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// It answered that it does not do it. Nothing was changed.
    #[error("JetStream refuses: {what} ({code})")]
    Refused {
        /// One of [`code`], or another.
        code: u64,
        /// As an HTTP status; 503 passes.
        status: u64,
        /// What it said.
        what: String,
    },
    /// It answered something else than was expected.
    #[error("NATS answers something unknown: {0}")]
    Odd(String),
}

impl ApiError {
    pub(crate) fn is(&self, wanted: u64) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == wanted)
    }

    pub(crate) fn into_unavailable(self, what: &str) -> Unavailable {
        let remedy = match &self {
            Self::Call(_) => "see whether the NATS servers run and can be reached",
            Self::Refused { code, .. }
                if code::NO_RESOURCES.contains(code) || *code == code::STORE_FAILED =>
            {
                "free some of NATS' store or raise its limits"
            }
            Self::Refused { .. } | Self::Odd(_) => "see the NATS server's log",
        };
        Unavailable::new(what, std::io::Error::other(self)).with_remedy(remedy)
    }
}

/// A stored message.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Stored {
    pub(crate) position: Position,
    pub(crate) subject: String,
    /// What its writer said with it.
    pub(crate) headers: Option<async_nats::HeaderMap>,
    pub(crate) payload: Bytes,
}

impl Stored {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.as_ref()?.get_last(name).map(async_nats::HeaderValue::as_str)
    }
}

/// What an acknowledgement of a publish says.
pub(crate) fn acknowledged(message: &Message) -> Result<Position, ApiError> {
    let answer = checked(message)?;
    answer["seq"].as_u64().map(Position).ok_or_else(|| ApiError::Odd(answer.to_string()))
}

/// The JSON of an answer, unless it is a refusal.
fn checked(message: &Message) -> Result<Value, ApiError> {
    let answer: Value = serde_json::from_slice(&message.payload)
        .map_err(|error| ApiError::Odd(format!("{error} in {:?}", message.description)))?;
    let error = &answer["error"];
    if error.is_null() {
        return Ok(answer);
    }
    Err(ApiError::Refused {
        code: error["err_code"].as_u64().unwrap_or_default(),
        status: error["code"].as_u64().unwrap_or_default(),
        what: error["description"].as_str().unwrap_or("without a reason").to_owned(),
    })
}

impl Wire {
    /// `$JS.API.` and what follows.
    pub(crate) async fn api(&self, operation: &str, request: &Value) -> Result<Value, ApiError> {
        let payload = if request.is_null() { Bytes::new() } else { request.to_string().into() };
        checked(&self.call(format!("$JS.API.{operation}"), None, payload).await?)
    }

    /// The last message of a subject, which may be a pattern, as the stream's leader has it: never an old one.
    pub(crate) async fn leader_last(&self, stream: &str, subject: &str) -> Result<Option<Stored>, ApiError> {
        self.leader_get(stream, &json!({ "last_by_subj": subject })).await
    }

    /// The first message of a subject from a place on, as the stream's leader has it.
    pub(crate) async fn leader_next(
        &self,
        stream: &str,
        subject: &str,
        from: Position,
    ) -> Result<Option<Stored>, ApiError> {
        self.leader_get(stream, &json!({ "seq": from.0, "next_by_subj": subject })).await
    }

    /// The last place in a stream, as its leader has it. It never goes back.
    pub(crate) async fn leader_end(&self, stream: &str) -> Result<Position, ApiError> {
        let answer = self.api(&format!("STREAM.INFO.{stream}"), &json!({})).await?;
        let last = answer["state"]["last_seq"].as_u64();
        last.map(Position).ok_or_else(|| ApiError::Odd("a stream without its last place".to_owned()))
    }

    async fn leader_get(&self, stream: &str, request: &Value) -> Result<Option<Stored>, ApiError> {
        let answer = match self.api(&format!("STREAM.MSG.GET.{stream}"), request).await {
            Err(error) if error.is(code::NO_MESSAGE) => return Ok(None),
            other => other?,
        };
        let message = &answer["message"];
        let odd = || ApiError::Odd("a message without its place or subject".to_owned());
        let bytes = |field: &str| match message[field].as_str() {
            Some(text) => STANDARD.decode(text).map_err(|error| ApiError::Odd(error.to_string())),
            None => Ok(Vec::new()),
        };
        let headers = bytes("hdrs")?;
        Ok(Some(Stored {
            position: Position(message["seq"].as_u64().ok_or_else(odd)?),
            subject: message["subject"].as_str().ok_or_else(odd)?.to_owned(),
            headers: (!headers.is_empty()).then(|| parse_headers(&headers)),
            payload: bytes("data")?.into(),
        }))
    }

    /// Removes the messages of a subject, which may be a pattern, before a place. Returns how many.
    pub(crate) async fn purge(
        &self,
        stream: &str,
        subject: &str,
        before: Option<Position>,
    ) -> Result<u64, ApiError> {
        let request = match before {
            Some(before) => json!({ "filter": subject, "seq": before.0 }),
            None => json!({ "filter": subject }),
        };
        let answer = self.api(&format!("STREAM.PURGE.{stream}"), &request).await?;
        Ok(answer["purged"].as_u64().unwrap_or_default())
    }
}

/// `NATS/1.0\r\nName: value\r\n…`, as they are stored.
fn parse_headers(bytes: &[u8]) -> async_nats::HeaderMap {
    let mut headers = async_nats::HeaderMap::new();
    let text = String::from_utf8_lossy(bytes);
    for (name, value) in text.split("\r\n").skip(1).filter_map(|line| line.split_once(':')) {
        headers.append(name, value.trim());
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_headers_are_read() {
        let headers = parse_headers(b"NATS/1.0\r\nOutlive-Size: 7\r\nA:b:c\r\n\r\n");
        let get = |name: &str| headers.get_last(name).map(ToString::to_string);
        assert_eq!((get("Outlive-Size"), get("A")), (Some("7".to_owned()), Some("b:c".to_owned())));
    }
}
