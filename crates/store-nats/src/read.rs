//! Reading a log: what is not in the tail comes page by page from any replica, and its end from the leader.
//!
//! A replica may lag. So a page that ends because the replica had no more is the end of the log only if
//! - it reaches the head that is known here (an own append, or what the server told), or
//! - the leader has no more either: it is asked, and gives what is missing.
//!
//! With one server there are no others to lag behind; it is asked a second time for a lane that it had nothing of,
//! because a server that is shutting down may say so too.
//!
//! A leader that was cut off from the other servers tells what it has until it knows, which takes some seconds: what was
//! acknowledged before, never less, but not what a new leader stores meanwhile. Appends do not depend on it, and it is
//! not believed that a log ends before what was heard of.
//!
//! Lanes are read each by itself, at slightly different moments, so nothing is taken of them behind what was the end of
//! the log before they were read.

use futures_util::future::try_join_all;
use outlive_core::id::{Position, SessionId};
use outlive_core::limits::NATS_LEADER_READS_MAX;
use outlive_store::{LaneFilter, Page, ReadError, ReadLimit};

use crate::api::{ApiError, Stored};
use crate::direct::Batch;
use crate::layout::Place;
use crate::nats::Inner;
use crate::record::{self, Read};
use crate::session::Session;
use crate::tail;

const READ: &str = "read a session's log";
/// With more lanes than this the whole log is read once instead of each lane by itself.
const LANES_MAX: usize = 16;

/// What was found behind some position.
struct Found {
    records: Vec<Read>,
    /// The log has been looked at up to here.
    through: Position,
}

impl Inner {
    pub(crate) async fn read(
        &self,
        id: SessionId,
        after: Position,
        lanes: &LaneFilter,
        limit: ReadLimit,
    ) -> Result<Page, ReadError> {
        let Some(session) = self.sessions.get(id) else {
            let found = self.found(&self.layout.place(id), after, Position::default(), lanes, limit).await?;
            return Ok(tail::page(&found.records, after, found.through, lanes, limit));
        };
        if let Some(page) = session.tail().page(after, lanes, limit) {
            return Ok(page);
        }
        if session.is_followed() && after >= session.tail().through() {
            return self.fetch(&session, after, lanes, limit).await;
        }
        let found = self.found(&session.place, after, session.known(), lanes, limit).await?;
        Ok(tail::page(&found.records, after, found.through, lanes, limit))
    }

    /// Fetches what is behind the tail, for this reader and those who come next.
    async fn fetch(
        &self,
        session: &Session,
        after: Position,
        lanes: &LaneFilter,
        limit: ReadLimit,
    ) -> Result<Page, ReadError> {
        let _turn = session.fetching.acquire().await.expect("it is never closed");
        // Whoever had its turn before may have fetched it.
        if let Some(page) = session.tail().page(after, lanes, limit) {
            return Ok(page);
        }
        let known = session.known();
        let found = self.found(&session.place, after, known, &LaneFilter::All, ReadLimit::default()).await?;
        session.advance(found.through);
        session.tail().extend(after, found.through, &found.records);
        Ok(tail::page(&found.records, after, found.through, lanes, limit))
    }

    /// Reads from the servers. `known` is a position up to which records are known to be stored.
    async fn found(
        &self,
        place: &Place,
        after: Position,
        known: Position,
        lanes: &LaneFilter,
        limit: ReadLimit,
    ) -> Result<Found, ReadError> {
        let unavailable = |error: ApiError| ReadError::from(error.into_unavailable(READ));
        let subjects = subjects(place, lanes);
        let _page = self.reads.acquire().await.expect("it is never closed");
        let mut end = None;
        if subjects.len() > 1 {
            let last = match known {
                known if known > after => known,
                _ => self.last_of(place).await.map_err(unavailable)?,
            };
            if last <= after {
                return Ok(Found { records: Vec::new(), through: after });
            }
            end = Some(last);
        }
        let batches = subjects
            .iter()
            .map(|subject| self.wire.batch(&place.stream, subject, after.next(), limit.records, limit.bytes));
        let mut batches = try_join_all(batches).await.map_err(unavailable)?;
        if !self.is_at_the_end(&batches, known) {
            if known > after {
                self.knows_the_end(place, known).await.map_err(unavailable)?;
            }
            self.complete(place, after, &subjects, &mut batches).await.map_err(unavailable)?;
        }
        found(place, after, end.unwrap_or(known), end, batches)
    }

    async fn last_of(&self, place: &Place) -> Result<Position, ApiError> {
        let last = self.wire.leader_last(&place.stream, &place.all()).await?;
        Ok(last.map_or(Position::default(), |last| last.position))
    }

    /// Whether these pages are known to be all there is, or enough without it.
    fn is_at_the_end(&self, batches: &[Batch], known: Position) -> bool {
        let last = batches.iter().filter_map(|batch| batch.messages.last()).map(|last| last.position).max();
        // One page comes from one replica: what it reaches it has in full.
        let reaches =
            batches.len() == 1 && last.is_some_and(|last| last >= known && known > Position::default());
        let goes_on = batches.iter().all(|batch| batch.more);
        let said = |batch: &Batch| !batch.messages.is_empty();
        reaches || goes_on || (self.replicas == 1 && batches.iter().all(said))
    }

    /// Whether there may be more of a lane than its page says.
    fn may_lack(&self, batch: &Batch) -> bool {
        !batch.more && (self.replicas > 1 || batch.messages.is_empty())
    }

    /// That the leader is not an old one: it has what was heard of.
    async fn knows_the_end(&self, place: &Place, known: Position) -> Result<(), ApiError> {
        let end = self.wire.leader_end(&place.stream).await?;
        if end < known {
            return Err(ApiError::Odd(format!(
                "its leader was cut off: it ends at {end}, and {known} is there"
            )));
        }
        Ok(())
    }

    /// Asks the leader for what the replicas that answered did not have yet, each lane by itself.
    async fn complete(
        &self,
        place: &Place,
        after: Position,
        subjects: &[String],
        batches: &mut [Batch],
    ) -> Result<(), ApiError> {
        let mut left = NATS_LEADER_READS_MAX;
        for (subject, batch) in subjects.iter().zip(batches).filter(|(_, batch)| self.may_lack(batch)) {
            let last = self.wire.leader_last(&place.stream, subject).await?;
            let Some(Stored { position: last, .. }) = last else {
                // A replica has not yet removed what the leader has.
                batch.messages.clear();
                continue;
            };
            loop {
                let through = batch.messages.last().map_or(after, |last| last.position);
                if through >= last {
                    break;
                }
                if left == 0 {
                    batch.more = true;
                    break;
                }
                left -= 1;
                match self.wire.leader_next(&place.stream, subject, through.next()).await? {
                    Some(next) => batch.messages.push(next),
                    None => break,
                }
            }
        }
        Ok(())
    }
}

/// One pattern for the whole log, or the subject of each lane.
fn subjects(place: &Place, lanes: &LaneFilter) -> Vec<String> {
    match lanes {
        LaneFilter::Only(lanes) if (1..=LANES_MAX).contains(&lanes.len()) => {
            let mut subjects: Vec<_> = lanes.iter().map(|lane| place.lane(*lane)).collect();
            subjects.sort_unstable();
            subjects.dedup();
            subjects
        }
        LaneFilter::Only(_) | LaneFilter::All => vec![place.all()],
    }
}

/// Puts the lanes together in the order of the log, as far as all of them are known.
fn found(
    place: &Place,
    after: Position,
    known: Position,
    end: Option<Position>,
    batches: Vec<Batch>,
) -> Result<Found, ReadError> {
    // A lane that goes on is known up to its last message; without one nothing is.
    let ends = batches.iter().filter(|batch| batch.more);
    let bound = ends.map(|batch| batch.messages.last().map_or(after, |last| last.position)).chain(end).min();
    let mut messages: Vec<_> = batches.into_iter().flat_map(|batch| batch.messages).collect();
    messages.retain(|message| bound.is_none_or(|bound| message.position <= bound));
    messages.sort_unstable_by_key(|message| message.position);
    let mut records = Vec::with_capacity(messages.len());
    let mut through = after;
    for message in &messages {
        records.extend(record::read(place, message, through)?);
        through = message.position;
    }
    Ok(Found { records, through: bound.unwrap_or_else(|| through.max(known)) })
}

#[cfg(test)]
mod tests {
    use outlive_core::log::record::ControlChange;
    use outlive_core::log::{Control, Lane, Record};
    use outlive_protocol::log::encode;

    use super::*;
    use crate::layout::Layout;

    fn batch(place: &Place, lane: Lane, positions: &[u64], more: bool) -> Batch {
        let change = ControlChange::Close { claim: Position(1) };
        let record = Record::Control(Control { prev: Position(1), change });
        let payload = record::payload(&encode(&record).unwrap());
        let message = |position: &u64| Stored {
            position: Position(*position),
            subject: place.lane(lane),
            headers: None,
            payload: payload.clone().into(),
        };
        Batch { messages: positions.iter().map(message).collect(), more }
    }

    fn merged(one: (&[u64], bool), two: (&[u64], bool)) -> (Vec<u64>, u64) {
        let layout = Layout { prefix: "p".to_owned(), shards: 1 };
        let place = layout.place("00000000-0000-0000-0000-000000000001".parse().unwrap());
        let batches =
            vec![batch(&place, Lane::Control, one.0, one.1), batch(&place, Lane::Journal, two.0, two.1)];
        let found = found(&place, Position(5), Position(30), Some(Position(30)), batches).unwrap();
        (found.records.iter().map(|read| read.entry.position.0).collect(), found.through.0)
    }

    #[test]
    fn lanes_come_in_the_order_of_the_log_as_far_as_both_are_known() {
        assert_eq!(merged((&[6, 9], false), (&[7, 8, 12], false)), (vec![6, 7, 8, 9, 12], 30));
        assert_eq!(merged((&[6, 20], false), (&[7, 8], true)), (vec![6, 7, 8], 8));
        assert_eq!(merged((&[6, 9], true), (&[7, 8], true)), (vec![6, 7, 8], 8));
        assert_eq!(merged((&[], false), (&[], false)), (vec![], 30));
    }
}
