//! Work that takes long, and would hold up the tasks of its thread.
//!
//! A simulation runs everything on one thread, in an order that a seed gives: there it is done at once.

use std::cell::Cell;

thread_local! {
    static AT_ONCE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread does such work itself from now on.
pub fn at_once(yes: bool) {
    AT_ONCE.set(yes);
}

/// Does it on a thread of its own. A panic there is one here.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    if AT_ONCE.get() {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
