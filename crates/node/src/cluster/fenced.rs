//! Processes that are not ours any more: they are killed at once, since they may be frozen, and their shims go.

use std::sync::Arc;

use outlive_core::runtime::{StopStep, StopWhy};
use outlive_protocol::shim::ToShim;

use crate::context::Context;
use crate::seams::{FromLink, Link};

/// What the shim of such a process is told.
const REASON: &str = "another node owns its session now";

/// Kills the process behind a link, and hears its shim out, which nobody else will.
pub(crate) fn kill(context: &Arc<Context>, link: Link) {
    let stop = context.stop.clone();
    context.tasks.spawn(async move {
        let Link { to, mut from, .. } = link;
        let killing = async move {
            let orders = [
                ToShim::Stop { why: StopWhy::Disowned, from: StopStep::Kill },
                ToShim::Refuse { reason: REASON.to_owned() },
            ];
            for order in orders {
                if to.send(order).await.is_err() {
                    return;
                }
            }
            // Kept until the shim has gone: a link that is dropped is one that is released.
            std::future::pending::<()>().await;
        };
        let hearing = async {
            while let Some(said) = from.recv().await {
                if matches!(said, FromLink::Gone { .. }) {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = killing => {}
            () = hearing => {}
        }
    });
}
