//! The fenced append: one publish whose guard the server checks in the same step as it stores it.
//!
//! The guard is the last sequence of the session's *control* subject, whatever lane the record goes to. The server sees
//! to it that nothing else gets in between: on one server by its one writer for each stream, on several by their leader.
//!
//! **When the answer is lost** the record may be stored, or be on its way still and be stored later. The caller reads
//! the log and, when the record is not there, appends the same again. That second append carries the name of the first
//! (`Nats-Msg-Id`), so whichever comes to the server second changes nothing and is answered with the first one's place.

use async_nats::HeaderMap;
use bytes::Bytes;
use outlive_core::id::{Position, SessionId};
use outlive_core::limits::NATS_CROWDED_TRIES;
use outlive_core::log::{Lane, Record};
use outlive_protocol::log::encode;
use outlive_store::{AppendError, Guard, Unavailable};

use crate::api::{self, ApiError, code};
use crate::nats::Inner;
use crate::record;
use crate::session::{Doubt, Session};
use crate::wire::CallError;

const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
const EXPECTED_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
const NAME: &str = "Nats-Msg-Id";
/// What the log takes up with this record, in bytes, as its writer knows it.
pub(crate) const SIZE: &str = "Outlive-Size";
/// What a record takes up beside its body, in bytes, about: subject, headers, framing.
const OVERHEAD: u64 = 250;

impl Inner {
    pub(crate) async fn append(
        &self,
        id: SessionId,
        lane: Lane,
        guard: Guard,
        record: &Record,
    ) -> Result<Position, AppendError> {
        let expected = match guard {
            Guard::Claim(position) | Guard::Previous(position) => Some(position),
            Guard::None => None,
        };
        // Whether it holds is for the server to say; whether it fits the lane is said here, by a panic.
        guard.check(lane, expected.unwrap_or_default())?;
        let payload = Bytes::from(record::payload(&encode(record)?));
        self.put_named_blobs(id, record).await?;

        // Who only asks for something keeps nothing of a session.
        let session = match guard {
            Guard::None => self.sessions.look(id, &self.layout),
            Guard::Claim(_) | Guard::Previous(_) => self.sessions.enter(id, &self.layout),
        };
        let _turn = session.turn.acquire().await.expect("it is never closed");
        let size = self.size_with(&session, payload.len() as u64).await?;
        let name = session.name(lane, guard, &payload, || self.next_name());
        let mut headers = HeaderMap::new();
        headers.insert(NAME, name.as_str());
        headers.insert(SIZE, size.to_string());
        if let Some(expected) = expected {
            headers.insert(EXPECTED, expected.0.to_string());
            headers.insert(EXPECTED_SUBJECT, session.place.lane(Lane::Control));
        }
        let outcome = self.publish(&session, lane, expected, &headers, &payload).await;
        match &outcome {
            Ok(position) => {
                let mut writing = session.writing();
                writing.doubt = None;
                writing.size = Some(size);
                drop(writing);
                session.advance(*position);
            }
            // What is on its way still will be refused as well: the control lane never goes back.
            Err(AppendError::Conflict { last_control }) => {
                session.writing().doubt = None;
                session.advance(*last_control);
                if lane == Lane::Control && session.head.receiver_count() == 0 {
                    // Somebody else has it.
                    self.sessions.forget(id);
                }
            }
            Err(_) => {}
        }
        outcome
    }

    /// Publishes until it is stored or refused for good.
    async fn publish(
        &self,
        session: &Session,
        lane: Lane,
        expected: Option<Position>,
        headers: &HeaderMap,
        payload: &Bytes,
    ) -> Result<Position, AppendError> {
        let subject = session.place.lane(lane);
        for _ in 0..NATS_CROWDED_TRIES {
            let answer = self.wire.call(subject.clone(), Some(headers.clone()), payload.clone()).await;
            let answer = match answer {
                Ok(answer) => api::acknowledged(&answer),
                Err(CallError::Lost(why)) => {
                    tracing::debug!(session = %session.id, why, "the answer to an append was lost");
                    return Err(AppendError::Unknown);
                }
                Err(error @ (CallError::NotSent(_) | CallError::Nobody)) => Err(error.into()),
            };
            match answer {
                Ok(position) => return Ok(position),
                Err(ApiError::Odd(what)) => {
                    tracing::warn!(session = %session.id, what, "an append was answered in an unknown way");
                    return Err(AppendError::Unknown);
                }
                Err(ApiError::Refused { code: code::WRONG_LAST, what, .. })
                    if let Some(last_control) = last_named(&what) =>
                {
                    return Err(AppendError::Conflict { last_control });
                }
                // Another append of this session, of whoever, is being replicated: it is over in a moment.
                Err(ApiError::Refused {
                    code: code::CROWDED | code::REPEATED | code::WRONG_LAST, ..
                }) => {
                    let last_control = self.last_control(session).await?;
                    if expected.is_some_and(|expected| expected != last_control) {
                        return Err(AppendError::Conflict { last_control });
                    }
                }
                Err(error) => return Err(error.into_unavailable("append to a session's log").into()),
            }
        }
        let why = std::io::Error::other("other appends to this session are always in the way");
        Err(Unavailable::new("append to a session's log", why).into())
    }

    async fn last_control(&self, session: &Session) -> Result<Position, Unavailable> {
        let last = self.wire.leader_last(&session.place.stream, &session.place.lane(Lane::Control)).await;
        let last = last.map_err(|error| error.into_unavailable("read a session's log"))?;
        Ok(last.map_or(Position::default(), |last| last.position))
    }

    /// What the log takes up with so many bytes more. Asked of the store before the first append.
    async fn size_with(&self, session: &Session, bytes: u64) -> Result<u64, Unavailable> {
        let known = session.writing().size;
        let size = match known {
            Some(size) => size,
            None => {
                let size = self.stored_size(session.id).await?;
                session.writing().size = Some(size);
                size
            }
        };
        Ok(size + bytes + OVERHEAD)
    }

    /// What a log takes up, as its last record says.
    pub(crate) async fn stored_size(&self, id: SessionId) -> Result<u64, Unavailable> {
        let place = self.layout.place(id);
        let last = self.wire.direct_last(&place.stream, &place.all()).await;
        let last = last.map_err(|error| error.into_unavailable("measure a session's log"))?;
        Ok(last.and_then(|last| last.header(SIZE)?.parse().ok()).unwrap_or_default())
    }
}

impl Session {
    /// What an append is called: as before when it is the one whose answer was lost. From here on it is in doubt.
    fn name(&self, lane: Lane, guard: Guard, payload: &Bytes, new: impl FnOnce() -> String) -> String {
        let mut writing = self.writing();
        if let Some(doubt) = &writing.doubt
            && (doubt.lane, doubt.guard) == (lane, guard)
            && doubt.payload == *payload
        {
            return doubt.name.clone();
        }
        let name = new();
        writing.doubt = Some(Doubt { lane, guard, payload: payload.clone(), name: name.clone() });
        name
    }
}

/// `wrong last sequence: 17`
fn last_named(what: &str) -> Option<Position> {
    what.rsplit(": ").next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_last_control_record() {
        assert_eq!(last_named("wrong last sequence: 17"), Some(Position(17)));
        assert_eq!(last_named("wrong last sequence"), None);
    }
}
