//! The head of a log, live, while somebody holds it.
//!
//! The server tells of each stored message, at most once and without its content. A notice that is lost does no harm: the
//! next one, or the next look, says more. Looks are taken when the following begins, when something may have been missed
//! (reconnected, the subscription overflowed, a stream has a new leader), and ever more rarely while nothing comes.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, Subscriber};
use futures_util::StreamExt;
use outlive_core::id::{Position, SessionId};
use outlive_core::limits::{NATS_LOOK_MS, NATS_LOOK_MS_MAX};
use outlive_core::log::Lane;
use outlive_store::{ReadError, Unavailable};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::api::ApiError;
use crate::nats::Inner;
use crate::session::{Session, Sessions};
use crate::wire::Wire;

/// What the server says with a notice.
const SEQUENCE: &str = "Nats-Sequence";

impl Inner {
    pub(crate) async fn head(&self, id: SessionId) -> Result<watch::Receiver<Position>, ReadError> {
        let (session, receiver, begins) = self.sessions.hold(id, &self.layout);
        let failed = |error: ApiError| error.into_unavailable("follow a session's log");
        if begins && let Err(error) = self.begin(&session).await {
            self.sessions.forget(id);
            return Err(error.into());
        }
        // Before the first look nothing is known; afterwards it is one more look, so that the answer is not old.
        let last = self.wire.last_position(&session, self.replicas).await.map_err(failed)?;
        session.advance(last.unwrap_or_default());
        Ok(receiver)
    }

    async fn begin(&self, session: &Arc<Session>) -> Result<(), Unavailable> {
        let subject = self.layout.live_session(session.id);
        let notices = self.wire.client().subscribe(subject).await;
        let notices = notices
            .map_err(|error| Unavailable::new("follow a session's log", std::io::Error::other(error)))?;
        let follower = Follower {
            wire: self.wire.clone(),
            sessions: Arc::clone(&self.sessions),
            session: Arc::clone(session),
            missed: self.missed.subscribe(),
            replicas: self.replicas,
        };
        self.tasks.spawn(follower.run(notices));
        Ok(())
    }
}

impl Wire {
    /// The last position of a log.
    pub(crate) async fn last_position(
        &self,
        session: &Session,
        replicas: u8,
    ) -> Result<Option<Position>, ApiError> {
        let (stream, all) = (&session.place.stream, session.place.all());
        let last = match replicas {
            1 => self.direct_last(stream, &all).await?,
            _ => self.leader_last(stream, &all).await?,
        };
        Ok(last.map(|last| last.position))
    }
}

/// The task that follows one log.
struct Follower {
    wire: Wire,
    sessions: Arc<Sessions>,
    session: Arc<Session>,
    missed: watch::Receiver<u64>,
    replicas: u8,
}

impl Follower {
    async fn run(mut self, mut notices: Subscriber) {
        let mut wait = Duration::from_millis(NATS_LOOK_MS);
        let ended = self.session.ended.clone();
        loop {
            let look = tokio::select! {
                biased;
                () = ended.cancelled() => return,
                notice = notices.next() => {
                    let Some(notice) = notice else { return };
                    self.take(&notice);
                    wait = Duration::from_millis(NATS_LOOK_MS);
                    if self.session.head.receiver_count() == 0 && self.sessions.forget_unused(&self.session) {
                        return;
                    }
                    false
                }
                changed = self.missed.changed() => {
                    if changed.is_err() { return }
                    wait = Duration::from_millis(NATS_LOOK_MS);
                    true
                }
                () = sleep_until(Instant::now() + wait) => {
                    wait = (wait * 2).min(Duration::from_millis(NATS_LOOK_MS_MAX));
                    true
                }
            };
            if look {
                if self.sessions.forget_unused(&self.session) {
                    return;
                }
                self.look().await;
            }
        }
    }

    fn take(&self, notice: &Message) {
        let sequence = notice.headers.as_ref().and_then(|headers| headers.get_last(SEQUENCE));
        if let Some(position) = sequence.and_then(|sequence| sequence.as_str().parse().ok()) {
            self.session.advance(Position(position));
        }
    }

    /// Asks whether there is anything behind the head; usually there is nothing, which is a small answer.
    async fn look(&self) {
        match self.looked().await {
            Ok(Some(last)) => self.session.advance(last),
            Ok(None) => drop(self.sessions.forget(self.session.id)),
            // The next look comes; who reads is told himself.
            Err(error) => tracing::debug!(session = %self.session.id, %error, "a look at a log failed"),
        }
    }

    /// The head; nothing when the session was removed.
    async fn looked(&self) -> Result<Option<Position>, ApiError> {
        let place = &self.session.place;
        let known = self.session.known();
        let behind = self.wire.batch(&place.stream, &place.all(), known.next(), 1, 1).await?;
        if !behind.messages.is_empty() {
            return self.wire.last_position(&self.session, self.replicas).await;
        }
        let control = place.lane(Lane::Control);
        let is_there = known == Position::default()
            || !self.wire.batch(&place.stream, &control, Position(1), 1, 1).await?.messages.is_empty()
            // A replica may not have it yet.
            || self.wire.leader_last(&place.stream, &control).await?.is_some();
        Ok(is_there.then_some(known))
    }
}
