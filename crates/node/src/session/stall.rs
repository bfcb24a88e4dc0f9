//! Whether the store takes what a session writes: its journal says so, and whoever asks the session is told instead of
//! waiting for as long as a disk is full.

use std::sync::Mutex;

use outlive_core::limits::STORE_STALL_TRIES;

/// Shared by a session's journal and its handle.
#[derive(Debug, Default)]
pub struct Stall(Mutex<Option<Refusals>>);

#[derive(Debug)]
struct Refusals {
    count: u32,
    /// The last one.
    why: String,
}

impl Stall {
    /// The store has refused a record, which is tried again.
    pub fn refused(&self, why: String) {
        let mut refusals = self.lock();
        let count = refusals.as_ref().map_or(1, |refusals| refusals.count.saturating_add(1));
        *refusals = Some(Refusals { count, why });
    }

    /// The store takes records.
    pub fn taken(&self) {
        *self.lock() = None;
    }

    /// Why the session does not go on, if that has lasted.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        let lasts = |refusals: &&Refusals| refusals.count >= STORE_STALL_TRIES;
        self.lock().as_ref().filter(lasts).map(|refusals| refusals.why.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Refusals>> {
        self.0.lock().expect("nothing panics while it holds the refusals")
    }
}
