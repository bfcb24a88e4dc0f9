//! The live tails of sessions within one daemon.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use outlive_core::id::SessionId;
use outlive_core::limits::WATCH_RECORDS_MAX;
use outlive_core::log::Entry;
use tokio::sync::broadcast;

use crate::seams::Bus;

/// Publish and subscribe in memory.
#[derive(Default, Debug)]
pub struct LocalBus {
    topics: Mutex<HashMap<SessionId, broadcast::Sender<Arc<Entry>>>>,
}

impl LocalBus {
    fn topics(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, broadcast::Sender<Arc<Entry>>>> {
        self.topics.lock().expect("nothing panics while it holds the topics")
    }
}

impl Bus for LocalBus {
    fn publish(&self, session: SessionId, entry: Arc<Entry>) {
        if let Some(topic) = self.topics().get(&session) {
            // An error says that nobody watches.
            let _watched = topic.send(entry);
        }
    }

    fn subscribe(&self, session: SessionId) -> broadcast::Receiver<Arc<Entry>> {
        self.topics().entry(session).or_insert_with(|| broadcast::channel(WATCH_RECORDS_MAX).0).subscribe()
    }

    fn close(&self, session: SessionId) {
        self.topics().remove(&session);
    }
}
