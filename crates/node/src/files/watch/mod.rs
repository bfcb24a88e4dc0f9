//! Watches over files. One inotify instance and one thread for all; both are made when the first watch begins.
//!
//! ```text
//!  watch() / drop ──► board ◄── kernel's listener        board   what is watched, whom to tell
//!                     │   ▲         ▲                    thread  asks the kernel, looks where it cannot
//!                     ▼   │         │                    slot    what one watch has heard and not told
//!                    thread ──► kernel (inotify)
//! ```
//!
//! A file's inode changes with each save, so its directory is watched. Directories that the kernel does not watch
//! (its limits are reached, the directory is missing) have their files looked at every two seconds.

mod board;
mod hint;
mod kernel;
#[cfg(test)]
mod tests;
mod thread;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use board::Board;
use hint::LocalWatch;
use kernel::MakeKernel;
use thread::{Periods, Thread};

use crate::seams::{FileWatch, WatchState};

/// All watches of a daemon. Owner of the thread: ends and joins it when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Watching {
    board: Arc<Board>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Watching {
    pub fn watch(&self, path: &Path) -> Box<dyn FileWatch> {
        self.start(|| Box::new(kernel::inotify), Periods::default());
        Box::new(LocalWatch { slot: self.board.register(path), board: Arc::clone(&self.board) })
    }

    fn start(&self, make: impl FnOnce() -> MakeKernel, periods: Periods) {
        let mut thread = self.thread.lock().expect("nothing panics while it holds the thread");
        if thread.is_none() {
            let work = Thread::new(Arc::clone(&self.board), make(), periods);
            match std::thread::Builder::new().name("outlive-files".to_owned()).spawn(|| work.run()) {
                Ok(started) => *thread = Some(started),
                // The next watch tries again, and then this one begins too.
                Err(error) => tracing::error!(%error, "no thread to watch files: changes are not noticed"),
            }
        }
    }

    pub fn state(&self) -> WatchState {
        let thread = self.thread.lock().expect("nothing panics while it holds the thread");
        let state = self.board.state();
        let dead = state.watches > 0 && thread.as_ref().is_none_or(JoinHandle::is_finished);
        let why = dead.then(|| "the thread that watches files does not run".to_owned()).or(state.why);
        WatchState { why, ..state }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.board.end();
        let thread = self.thread.get_mut().expect("nothing panics while it holds the thread").take();
        if let Some(Err(_panic)) = thread.map(JoinHandle::join) {
            tracing::error!("the thread that watched files had panicked: changes were not noticed");
        }
    }
}
