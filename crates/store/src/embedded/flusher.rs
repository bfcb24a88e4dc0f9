//! Group commit: one thread that makes what was written durable.
//!
//! It sleeps until something is written, then until `FSYNC_MS` have passed or somebody waits, then syncs every log
//! that has something to sync. What is written meanwhile waits for the next round, so the more is written at once,
//! the more each fsync covers. A thread of its own, because fsync blocks, for seconds when a disk is ill.

use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use outlive_core::limits::FSYNC_MS;
use tokio::sync::oneshot;

use super::log::{Flush, SessionLog};
use crate::error::Unavailable;

/// The owner of the thread. Dropping it syncs what is left and waits for the thread.
#[derive(Debug)]
pub(super) struct Flusher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    logs: Vec<Arc<SessionLog>>,
    barriers: Vec<oneshot::Sender<Result<(), Unavailable>>>,
    pace: Pace,
}

/// How long the next round may wait.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
enum Pace {
    /// `FSYNC_MS`.
    #[default]
    Relaxed,
    /// Somebody waits.
    Now,
    /// This is the last round.
    Last,
}

impl Flusher {
    pub(super) fn start() -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let thread = std::thread::Builder::new().name("outlive-fsync".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.run()
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Tells the thread of an append.
    pub(super) fn note(&self, log: &Arc<SessionLog>, flush: Flush) {
        if flush == Flush::Known {
            return;
        }
        let mut queue = self.shared.lock();
        if !queue.logs.iter().any(|queued| Arc::ptr_eq(queued, log)) {
            queue.logs.push(Arc::clone(log));
        }
        if flush == Flush::Now {
            queue.pace = queue.pace.max(Pace::Now);
        }
        self.shared.wake.notify_one();
    }

    /// Answers when everything that was written before is durable.
    pub(super) fn barrier(&self) -> oneshot::Receiver<Result<(), Unavailable>> {
        let (done, wait) = oneshot::channel();
        let mut queue = self.shared.lock();
        queue.barriers.push(done);
        queue.pace = queue.pace.max(Pace::Now);
        self.shared.wake.notify_one();
        wait
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.shared.lock().pace = Pace::Last;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed; there is nobody to tell it to here.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no holder of the queue's lock panics")
    }

    fn run(&self) {
        loop {
            let queue = self.lock();
            let idle = |queue: &mut Queue| queue.logs.is_empty() && queue.pace == Pace::Relaxed;
            let queue = self.wake.wait_while(queue, idle).expect("no holder of the queue's lock panics");
            let relaxed = |queue: &mut Queue| queue.pace == Pace::Relaxed;
            let (mut queue, _) = self
                .wake
                .wait_timeout_while(queue, Duration::from_millis(FSYNC_MS), relaxed)
                .expect("no holder of the queue's lock panics");
            let round = mem::take(&mut *queue);
            drop(queue);
            let mut failure = None;
            for log in &round.logs {
                failure = log.sync().err().or(failure);
            }
            for barrier in round.barriers {
                let again = failure.as_ref().map(|f| Unavailable::new(f.what.clone(), f.source.kind()));
                // Whoever waited may have gone.
                let _ = barrier.send(again.map_or(Ok(()), Err));
            }
            if round.pace == Pace::Last {
                return;
            }
        }
    }
}
