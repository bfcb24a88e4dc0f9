//! Direct Get: reads that any replica of a stream answers, page by page, without a consumer (NATS' ADR-31).
//!
//! A page comes from one replica, and a replica applies what it stores in order: so a page is the log as it was at some
//! moment, never one with a hole. That moment may be in the past: whoever needs more asks the leader (`read`).

use async_nats::Message;
use outlive_core::id::Position;
use serde_json::json;

use crate::api::{ApiError, Stored};
use crate::wire::Wire;

/// What the server says with a stored message.
const SEQUENCE: &str = "Nats-Sequence";
const SUBJECT: &str = "Nats-Subject";
/// The message before it on the same page.
const LAST_SEQUENCE: &str = "Nats-Last-Sequence";
/// How many messages are left behind a page.
const NUM_PENDING: &str = "Nats-Num-Pending";
/// Ends a page.
const END_OF_BATCH: u16 = 204;
/// There is nothing.
const NOT_FOUND: u16 = 404;

/// A page of one subject, or of one pattern of subjects.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Batch {
    pub(crate) messages: Vec<Stored>,
    /// Whether the replica had more than was asked for.
    pub(crate) more: bool,
}

impl Wire {
    /// Up to so many messages of `subject` from a place on; it ends behind the message with which `bytes` are full.
    pub(crate) async fn batch(
        &self,
        stream: &str,
        subject: &str,
        from: Position,
        messages: usize,
        bytes: usize,
    ) -> Result<Batch, ApiError> {
        let request = json!({
            "seq": from.0.max(1), "next_by_subj": subject, "batch": messages, "max_bytes": bytes,
        });
        let payload = request.to_string().into();
        let mut answers =
            self.begin(format!("$JS.API.DIRECT.GET.{stream}"), None, payload, messages + 1).await?;
        let mut batch = Batch::default();
        loop {
            let message = answers.next().await?;
            match message.status.map(|status| status.as_u16()) {
                None => {}
                Some(END_OF_BATCH) => {
                    let left: u64 = header(&message, NUM_PENDING)?;
                    batch.more = left > 0;
                    return Ok(batch);
                }
                Some(NOT_FOUND) if batch.messages.is_empty() => return Ok(batch),
                Some(_) => return Err(refusal(&message)),
            }
            let before: u64 = header(&message, LAST_SEQUENCE)?;
            let last = batch.messages.last().map_or(0, |last| last.position.0);
            if before != last {
                return Err(ApiError::Odd(format!("a page with a hole between {last} and {before}")));
            }
            batch.messages.push(stored(message)?);
        }
    }

    /// The last message of a subject, which may be a pattern, as some replica has it.
    pub(crate) async fn direct_last(&self, stream: &str, subject: &str) -> Result<Option<Stored>, ApiError> {
        let payload = json!({ "last_by_subj": subject }).to_string().into();
        let message = self.call(format!("$JS.API.DIRECT.GET.{stream}"), None, payload).await?;
        match message.status.map(|status| status.as_u16()) {
            None => stored(message).map(Some),
            Some(NOT_FOUND) => Ok(None),
            Some(_) => Err(refusal(&message)),
        }
    }
}

fn refusal(message: &Message) -> ApiError {
    let status = message.status.map_or(0, |status| u64::from(status.as_u16()));
    let what = message.description.clone().unwrap_or_default().to_string();
    ApiError::Refused { code: 0, status, what }
}

fn header<T: std::str::FromStr>(message: &Message, name: &'static str) -> Result<T, ApiError> {
    let value = message.headers.as_ref().and_then(|headers| headers.get_last(name));
    let parsed = value.and_then(|value| value.as_str().parse().ok());
    parsed.ok_or_else(|| ApiError::Odd(format!("a message without {name}")))
}

fn stored(message: Message) -> Result<Stored, ApiError> {
    Ok(Stored {
        position: Position(header(&message, SEQUENCE)?),
        subject: header(&message, SUBJECT)?,
        headers: message.headers,
        payload: message.payload,
    })
}
