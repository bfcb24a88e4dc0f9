//! The memory of sessions that have left is given back to the machine.

use std::sync::Arc;

use outlive_core::limits::GIVE_BACK_PERIOD_MS;
use outlive_process::memory;

use crate::context::Context;

/// Looks now and then whether sessions have left memory since, until the node ends.
pub(super) async fn give_back_now_and_then(context: Arc<Context>) {
    let mut before = 0;
    while context.pause(GIVE_BACK_PERIOD_MS).await {
        let left = context.metrics.sessions_left();
        if std::mem::replace(&mut before, left) != left {
            crate::aside::run(memory::give_back).await;
        }
    }
}
