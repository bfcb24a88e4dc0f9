//! The memory of sessions that have left is given back to the machine.

use std::sync::Arc;
use std::time::Duration;

use outlive_core::limits::GIVE_BACK_PERIOD_MS;
use outlive_process::memory;

use crate::context::Context;

/// Looks now and then whether sessions have left memory since, until the node ends.
pub(super) async fn give_back_now_and_then(context: Arc<Context>) {
    let mut before = 0;
    loop {
        let next = context.clock.now().tick + Duration::from_millis(GIVE_BACK_PERIOD_MS);
        tokio::select! {
            biased;
            () = context.stop.cancelled() => return,
            () = context.clock.until(next) => {}
        }
        let left = context.metrics.sessions_left();
        if std::mem::replace(&mut before, left) != left {
            crate::aside::run(memory::give_back).await;
        }
    }
}
