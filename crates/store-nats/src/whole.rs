//! All messages of a pattern of subjects: pages from any replica, then from the leader what that one did not have yet.

use outlive_core::id::Position;
use outlive_core::limits::{READ_BYTES_MAX, READ_RECORDS_MAX};

use crate::api::{ApiError, Stored};
use crate::nats::Inner;

impl Inner {
    /// Gives each message to `take`, in order. Returns the place of the last.
    pub(crate) async fn whole(
        &self,
        stream: &str,
        subject: &str,
        mut take: impl FnMut(Stored) -> Result<(), ApiError> + Send,
    ) -> Result<Position, ApiError> {
        let _page = self.reads.acquire().await.expect("it is never closed");
        let mut last = Position::default();
        loop {
            let from = last.next();
            let batch = self.wire.batch(stream, subject, from, READ_RECORDS_MAX, READ_BYTES_MAX).await?;
            let goes_on = batch.more && !batch.messages.is_empty();
            for stored in batch.messages {
                last = stored.position;
                take(stored)?;
            }
            if !goes_on {
                break;
            }
        }
        // One server has no replica that lags; that it has nothing at all it is asked twice.
        if self.replicas > 1 || last == Position::default() {
            let end = self.wire.leader_last(stream, subject).await?.map(|end| end.position);
            while end.is_some_and(|end| last < end) {
                let Some(next) = self.wire.leader_next(stream, subject, last.next()).await? else { break };
                last = next.position;
                take(next)?;
            }
        }
        Ok(last)
    }
}
