//! Whether the store takes what a session writes: its journal says so. Whoever asks the session is told instead of
//! waiting for as long as a disk is full, and so is whoever watches it.

use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::{Stream, StreamExt, future, stream};
use outlive_core::limits::STORE_STALL_TRIES;
use outlive_protocol::http::StreamEvent;
use tokio::sync::watch;

use crate::api::{Delivered, Events};

/// Shared by a session's journal and its handle.
#[derive(Debug, Default)]
pub struct Stall {
    /// How often in a row a record was refused.
    refusals: AtomicU32,
    /// Why, once that has lasted.
    why: watch::Sender<Option<String>>,
}

impl Stall {
    /// The store has refused a record, which is tried again.
    pub fn refused(&self, why: String) {
        if self.refusals.fetch_add(1, Ordering::Relaxed) + 1 >= STORE_STALL_TRIES {
            self.tell(Some(why));
        }
    }

    /// The store takes records.
    pub fn taken(&self) {
        if self.refusals.swap(0, Ordering::Relaxed) > 0 {
            self.tell(None);
        }
    }

    fn tell(&self, why: Option<String>) {
        self.why.send_if_modified(|told| std::mem::replace(told, why) != *told);
    }

    /// Why the session does not go on, if that has lasted.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        self.why.borrow().clone()
    }

    /// Waits until the session does not go on; why. Cancel-safe.
    pub async fn stalls(&self) -> String {
        let mut why = self.why.subscribe();
        let found = why.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        found.expect("the sender is ours, and this is what was waited for")
    }

    /// Events, and among them that the session does not go on, and that it does again.
    #[must_use]
    pub fn told_among(&self, events: Events) -> Events {
        let changes = stream::unfold((self.why.subscribe(), None), |(mut why, told)| async move {
            let new = why.wait_for(|why| *why != told).await.ok()?.clone();
            let event = Delivered { cursor: None, event: StreamEvent::Stalled { why: new.clone() } };
            Some((event, (why, new)))
        });
        until_first_ends(events, changes)
    }
}

/// Both as they come, to the end of the first.
fn until_first_ends(first: Events, second: impl Stream<Item = Delivered> + Send + 'static) -> Events {
    let first = first.map(Some).chain(stream::once(future::ready(None)));
    let both = stream::select(first, second.map(Some));
    Box::pin(both.take_while(|event| future::ready(event.is_some())).filter_map(future::ready))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;
    use outlive_protocol::http::StreamEvent::{End, Gap, Stalled};
    use tokio::sync::mpsc;

    use super::*;

    fn delivered(event: StreamEvent) -> Delivered {
        Delivered { cursor: None, event }
    }

    #[tokio::test]
    async fn who_watches_is_told_once_that_it_waits_and_once_that_it_goes_on() {
        let stall = Arc::new(Stall::default());
        let (to, mut from) = mpsc::channel(4);
        let events = stream::poll_fn(move |context| from.poll_recv(context));
        let mut events = stall.told_among(Box::pin(events));
        for _ in 1..STORE_STALL_TRIES {
            stall.refused("full".to_owned());
        }
        to.send(delivered(Gap { skipped: 1 })).await.unwrap();
        assert_eq!(events.next().await.unwrap().event, Gap { skipped: 1 }, "it may pass in a moment");
        assert_eq!(stall.why(), None);
        for _ in 0..3 {
            stall.refused("full".to_owned());
        }
        assert_eq!(events.next().await.unwrap().event, Stalled { why: Some("full".to_owned()) });
        assert_eq!(stall.why().as_deref(), Some("full"));
        // Who comes later is told too.
        let mut late = stall.told_among(Box::pin(stream::pending()));
        assert_eq!(late.next().await.unwrap().event, Stalled { why: Some("full".to_owned()) });
        stall.taken();
        stall.taken();
        assert_eq!(events.next().await.unwrap().event, Stalled { why: None });
        to.send(delivered(End { outcome: None })).await.unwrap();
        assert_eq!(events.next().await.unwrap().event, End { outcome: None });
        drop(to);
        assert!(events.next().await.is_none(), "the end of the events is the end of it");
    }
    #[tokio::test]
    async fn who_asks_in_that_moment_is_told_and_who_asks_a_store_that_hiccups_is_not() {
        let stall = Stall::default();
        for _ in 0..2 {
            for _ in 1..STORE_STALL_TRIES {
                stall.refused("full".to_owned());
            }
            stall.taken();
        }
        assert_eq!(stall.stalls().now_or_never(), None);
        let asks = async {
            tokio::task::yield_now().await;
            for _ in 0..STORE_STALL_TRIES {
                stall.refused("full".to_owned());
            }
        };
        assert_eq!(tokio::join!(stall.stalls(), asks).0, "full");
    }
}
