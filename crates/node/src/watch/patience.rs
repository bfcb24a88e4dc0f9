//! How long whoever reads a log waits for a store that does not answer.

use std::time::Duration;

use outlive_core::limits::{STORE_DOUBT_MS, STORE_RETRY_MS, WATCH_PATIENCE_MS};
use outlive_core::time::Tick;
use outlive_store::ReadError;

/// What one reader has borne already.
#[derive(Default, Debug)]
pub(crate) struct Patience {
    /// When the store did not answer for the first time since it last did.
    since: Option<Tick>,
    waits: u32,
}

impl Patience {
    /// The store answers.
    pub(crate) fn answered(&mut self) {
        *self = Self::default();
    }

    /// When the store is to be asked again: later each time, so that a thousand readers do not press on one that is
    /// just coming back.
    ///
    /// # Errors
    /// This error, when the store has been silent for too long, or when no wait can help.
    pub(crate) fn again_at(&mut self, now: Tick, error: ReadError) -> Result<Tick, ReadError> {
        let since = *self.since.get_or_insert(now);
        let is_over = now.since(since) >= Duration::from_millis(WATCH_PATIENCE_MS);
        if is_over || matches!(error, ReadError::Corrupt { .. }) {
            return Err(error);
        }
        let doubled = STORE_DOUBT_MS << self.waits.min(STORE_RETRY_MS.ilog2());
        self.waits += 1;
        Ok(now + Duration::from_millis(doubled.min(STORE_RETRY_MS)))
    }
}
