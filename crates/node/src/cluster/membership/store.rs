//! Whether the cluster's store answers: a row is read now and then, which costs less than a heartbeat.

use std::sync::Arc;
use std::time::Duration;

use outlive_core::failover::Member;
use outlive_core::limits::{CLUSTER_STORE_AGAIN_MS, CLUSTER_STORE_MS};
use outlive_core::time::Tick;
use outlive_protocol::node::NodeRow;
use tokio::task::JoinSet;

use super::name::NODES;
use crate::context::Context;
use crate::session::with_sources;

/// What came of a question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// The row of our name, which says that this member has it.
    Holder(Option<Member>),
    /// None that is of use.
    None,
}

/// The questions.
pub(super) struct Store {
    context: Arc<Context>,
    name: String,
    /// One at a time, and when it was asked.
    asking: JoinSet<(Tick, Answer)>,
    next: Tick,
    silent_since: Option<Tick>,
}

impl Store {
    pub(super) fn new(context: &Arc<Context>, name: &str) -> Self {
        let next = context.clock.now().tick;
        let (context, name) = (Arc::clone(context), name.to_owned());
        Self { context, name, asking: JoinSet::new(), next, silent_since: None }
    }

    /// Since when it has been silent.
    pub(super) const fn silent_since(&self) -> Option<Tick> {
        self.silent_since
    }

    /// Asks, if it is time to. Returns when it will be.
    pub(super) fn ask(&mut self, now: Tick) -> Option<Tick> {
        if !self.asking.is_empty() {
            return None;
        }
        if now < self.next {
            return Some(self.next);
        }
        let (context, name) = (Arc::clone(&self.context), self.name.clone());
        self.asking.spawn(async move {
            let late = now + Duration::from_millis(CLUSTER_STORE_MS);
            let answer = tokio::select! {
                biased;
                row = context.engine.get(NODES, &name) => match row {
                    Ok(row) => {
                        let row = row.and_then(|row| serde_json::from_slice::<NodeRow>(&row.value).ok());
                        Answer::Holder(row.map(|row| row.member))
                    }
                    Err(error) => {
                        tracing::debug!(error = with_sources(&error), "the store does not answer");
                        Answer::None
                    }
                },
                () = context.clock.until(late) => Answer::None,
            };
            (now, answer)
        });
        None
    }

    /// What came of the present question, and when it was asked; waits for ever while there is none. Cancel-safe.
    pub(super) async fn answer(&mut self) -> (Tick, Answer) {
        let Some(answered) = self.asking.join_next().await else { return std::future::pending().await };
        let now = self.context.clock.now().tick;
        let (asked, answer) = answered.unwrap_or((now, Answer::None));
        let again = match answer {
            Answer::Holder(_) => {
                self.silent_since = None;
                CLUSTER_STORE_MS
            }
            Answer::None => {
                self.silent_since.get_or_insert(asked);
                CLUSTER_STORE_AGAIN_MS
            }
        };
        self.next = now + Duration::from_millis(again);
        (asked, answer)
    }
}
