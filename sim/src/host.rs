//! An executor for one node: it runs until nothing is left to do, and knows no time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use tokio::runtime::{Builder, Handle, Runtime};

/// The tasks of one node. They end where they are when this is dropped, as by SIGKILL.
#[derive(Debug)]
pub struct Host {
    runtime: Runtime,
    idle: Arc<Idle>,
}

/// Whether the executor has found nothing to do.
#[derive(Debug, Default)]
struct Idle {
    is_idle: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

impl Host {
    /// Without tasks.
    ///
    /// # Panics
    /// When there is no memory for it.
    #[must_use]
    pub fn new() -> Self {
        let idle = Arc::<Idle>::default();
        let parked = Arc::clone(&idle);
        let runtime = Builder::new_current_thread()
            .on_thread_park(move || {
                parked.is_idle.store(true, Ordering::Relaxed);
                if let Some(waiting) = parked.waiting.lock().expect("nothing panics here").take() {
                    waiting.wake();
                }
            })
            .build()
            .expect("an executor without drivers needs nothing of the system");
        Self { runtime, idle }
    }

    /// Where tasks of this node are spawned.
    #[must_use]
    pub fn tasks(&self) -> &Handle {
        self.runtime.handle()
    }

    /// Runs all tasks until each of them waits.
    pub fn run(&self) {
        self.idle.is_idle.store(false, Ordering::Relaxed);
        self.runtime.block_on(std::future::poll_fn(|context| {
            if self.idle.is_idle.load(Ordering::Relaxed) {
                return Poll::Ready(());
            }
            *self.idle.waiting.lock().expect("nothing panics here") = Some(context.waker().clone());
            Poll::Pending
        }));
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn it_runs_until_every_task_waits() {
        let (host, other) = (Host::new(), Host::new());
        let (to, mut from) = mpsc::unbounded_channel();
        let (back, mut heard) = mpsc::unbounded_channel();
        other.tasks().spawn(async move {
            while let Some(n) = from.recv().await {
                tokio::task::yield_now().await;
                if back.send(n + 1).is_err() {
                    return;
                }
            }
        });
        host.tasks().spawn(async move {
            for n in 0..100 {
                tokio::task::yield_now().await;
                to.send(n).unwrap();
            }
            std::future::pending::<()>().await;
        });
        other.run();
        assert!(heard.try_recv().is_err(), "nobody has said anything yet");
        host.run();
        assert!(heard.try_recv().is_err(), "what one says, the other hears when it runs");
        other.run();
        assert_eq!(std::iter::from_fn(|| heard.try_recv().ok()).collect::<Vec<_>>(), Vec::from_iter(1..=100));
        drop(host);
        other.run();
        assert!(heard.is_closed(), "its end is the end of its tasks");
    }
}
