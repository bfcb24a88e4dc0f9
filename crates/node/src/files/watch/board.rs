//! What is watched: directories with their files. Shared by the watching thread, which changes it, the kernel's
//! listener, which finds in it whom to tell, and whoever begins or ends a watch.
//!
//! Invariant: its lock is never held while the kernel or the disk is asked for something, because the listener needs
//! it while the kernel's answer is on its way.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use tokio::time::Instant;

use super::hint::Slot;
use super::kernel::{Heard, Refusal};
use crate::seams::WatchState;

/// Which directory this really is: its device and inode.
pub(super) type Identity = (u64, u64);

/// What is watched and what is to be done about it.
#[derive(Debug, Default)]
pub(super) struct Board {
    inner: Mutex<Inner>,
    bell: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    /// By path, so that all that is below a path stands together.
    pub directories: BTreeMap<PathBuf, Directory>,
    orders: Orders,
    next: u64,
}

/// What the watching thread has to do.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// Watches that begin.
    pub new: Vec<(PathBuf, Arc<Slot>)>,
    /// Watches that end.
    pub gone: Vec<Arc<Slot>>,
    /// Directories that were moved or removed, with all below them.
    pub lost: BTreeSet<PathBuf>,
    /// The thread shall end.
    pub end: bool,
}

/// A directory and those of its files that are watched.
#[derive(Debug)]
pub(super) struct Directory {
    pub held: Held,
    pub files: Vec<Watched>,
}

/// How a directory is watched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Held {
    /// By the kernel.
    ByKernel(Identity),
    /// By looking at its files now and then, for this reason.
    ByLooks(Refusal),
}

#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub path: PathBuf,
    pub slot: Arc<Slot>,
}

impl Board {
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it holds the board")
    }

    /// A watch begins.
    pub fn register(&self, path: &Path) -> Arc<Slot> {
        let mut inner = self.lock();
        inner.next += 1;
        let slot = Arc::new(Slot::new(inner.next));
        inner.orders.new.push((path.to_owned(), Arc::clone(&slot)));
        drop(inner);
        self.bell.notify_one();
        slot
    }

    /// A watch ends.
    pub fn forget(&self, slot: &Arc<Slot>) {
        self.lock().orders.gone.push(Arc::clone(slot));
        self.bell.notify_one();
    }

    /// The thread shall end.
    pub fn end(&self) {
        self.lock().orders.end = true;
        self.bell.notify_one();
    }

    /// Waits for orders, at most until `deadline`.
    pub fn wait(&self, deadline: Option<Instant>) -> Orders {
        let mut inner = self.lock();
        loop {
            if !inner.orders.is_empty() {
                return std::mem::take(&mut inner.orders);
            }
            inner = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => self.bell.wait(inner).expect("nothing panics while it holds the board"),
                Some(left) if left.is_zero() => return Orders::default(),
                Some(left) => {
                    self.bell.wait_timeout(inner, left).expect("nothing panics while it holds the board").0
                }
            };
        }
    }

    /// Tells those whom it concerns.
    pub fn hear(&self, heard: &Heard) {
        let mut inner = self.lock();
        match heard {
            Heard::Touched(path) => inner.at(path).for_each(|file| file.slot.changed()),
            Heard::Gone(path) => {
                inner.at(path).for_each(|file| file.slot.changed());
                inner.files().for_each(|file| file.slot.left(path));
                if inner.below(path).next().is_some() {
                    inner.orders.lost.insert(path.clone());
                    self.bell.notify_one();
                }
            }
            Heard::Renamed { from, to } => {
                inner.files().for_each(|file| file.slot.followed(from, to));
                inner.at(from).for_each(|file| file.slot.renamed(to));
            }
            Heard::Missed => inner.files().for_each(|file| file.slot.missed()),
        }
    }

    pub fn state(&self) -> WatchState {
        let inner = self.lock();
        let mut state = WatchState { watches: inner.orders.new.len(), ..WatchState::default() };
        for directory in inner.directories.values() {
            state.watches += directory.files.len();
            if let Held::ByLooks(refusal) = &directory.held {
                state.polled += directory.files.len();
                state.why = state.why.or_else(|| refusal.why());
            }
        }
        state
    }
}

impl Inner {
    fn files(&self) -> impl Iterator<Item = &Watched> {
        self.directories.values().flat_map(|directory| &directory.files)
    }

    /// The watches on this file.
    fn at(&self, path: &Path) -> impl Iterator<Item = &Watched> {
        let directory = path.parent().and_then(|directory| self.directories.get(directory));
        directory.into_iter().flat_map(|directory| &directory.files).filter(move |file| file.path == path)
    }

    /// The watched directories at and below this path.
    pub fn below(&self, path: &Path) -> impl Iterator<Item = &PathBuf> {
        self.directories
            .range::<Path, _>((Bound::Included(path), Bound::Unbounded))
            .map(|(directory, _)| directory)
            .take_while(move |directory| directory.starts_with(path))
    }

    /// Removes the watch on a file of this directory. Says how the directory was held, if that was its last.
    pub fn remove(&mut self, directory: &Path, slot: &Slot) -> Option<Held> {
        let there = self.directories.get_mut(directory)?;
        there.files.retain(|file| file.slot.id != slot.id);
        if there.files.is_empty() {
            self.directories.remove(directory).map(|removed| removed.held)
        } else {
            None
        }
    }
}

impl Orders {
    fn is_empty(&self) -> bool {
        self.new.is_empty() && self.gone.is_empty() && self.lost.is_empty() && !self.end
    }
}
