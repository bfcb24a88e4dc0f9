//! Whether the daemon's work goes on. Heartbeats that a thread of their own sends would say "I am here" for ever of a
//! daemon that does nothing any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use outlive_core::limits::{CLUSTER_BEAT_MS, CLUSTER_ISOLATION_MS};
use outlive_core::time::Tick;

use crate::context::Context;

/// When the daemon's own runtime last had time for anything.
pub(super) struct Pulse {
    at: Option<Arc<AtomicU64>>,
    stands_still: bool,
}

impl Pulse {
    /// Where heartbeats are work among the other work, they stop with it.
    pub(super) const fn among_the_rest() -> Self {
        Self { at: None, stands_still: false }
    }

    /// Of the runtime that this is called on, until the node stops.
    pub(super) fn of_this_runtime(context: &Arc<Context>) -> Self {
        let at = Arc::new(AtomicU64::new(context.clock.now().tick.0));
        let (beating, beaten) = (Arc::clone(context), Arc::clone(&at));
        let beat = async move {
            loop {
                let now = beating.clock.now().tick;
                beaten.store(now.0, Ordering::Relaxed);
                beating.clock.until(now + Duration::from_millis(CLUSTER_BEAT_MS)).await;
            }
        };
        context.tasks.spawn(context.stop.clone().run_until_cancelled_owned(beat));
        Self { at: Some(at), stands_still: false }
    }

    /// Whether the work goes on: it may stand still for as long as a node may go on that is cut off.
    pub(super) fn goes_on(&mut self, now: Tick) -> bool {
        let Some(at) = &self.at else { return true };
        let still = now.since(Tick(at.load(Ordering::Relaxed)));
        let stands_still = still > Duration::from_millis(CLUSTER_ISOLATION_MS);
        match (std::mem::replace(&mut self.stands_still, stands_still), stands_still) {
            (false, true) => {
                let still_ms = still.as_millis();
                tracing::error!(still_ms, "the daemon does nothing any more: its heartbeats are held back");
            }
            (true, false) => tracing::warn!("the daemon works again"),
            (false, false) | (true, true) => {}
        }
        !stands_still
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_is_busy_for_a_moment_is_there_and_one_that_does_nothing_is_not() {
        let begun = Tick::default() + Duration::from_secs(60);
        let at = Arc::new(AtomicU64::new(begun.0));
        let mut pulse = Pulse { at: Some(Arc::clone(&at)), stands_still: false };
        let longest = Duration::from_millis(CLUSTER_ISOLATION_MS);
        assert!(pulse.goes_on(begun + longest));
        let late = begun + longest + Duration::from_millis(1);
        assert!(!pulse.goes_on(late));
        at.store(late.0, Ordering::Relaxed);
        assert!(pulse.goes_on(late));
        // Two threads read the clock, each when it can.
        assert!(pulse.goes_on(late - Duration::from_millis(1)));
        assert!(Pulse::among_the_rest().goes_on(begun + Duration::from_secs(3_600)));
    }
}
