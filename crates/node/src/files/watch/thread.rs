//! The one thread that watches: it does all that blocks. It asks the kernel to watch directories, looks at the files
//! of those that the kernel does not watch, and now and then asks again and looks whether the watched directories are
//! still the ones that their paths lead to.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use outlive_core::limits::{FILE_POLL_MS, FILE_WATCH_RETRY_MS};
use outlive_document::file::{self, FileMeta};
use tokio::time::Instant;

use super::board::{Board, Directory, Held, Identity, Watched};
use super::hint::Slot;
use super::kernel::{Kernel, MakeKernel, Refusal};
use crate::files::path;

/// How often the thread does what nobody asks it for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Periods {
    /// Looks at files.
    pub look: Duration,
    /// Tries to have them watched by the kernel again.
    pub retry: Duration,
}

impl Default for Periods {
    fn default() -> Self {
        Self { look: Duration::from_millis(FILE_POLL_MS), retry: Duration::from_millis(FILE_WATCH_RETRY_MS) }
    }
}

pub(super) struct Thread {
    board: Arc<Board>,
    make: MakeKernel,
    kernel: Option<Box<dyn Kernel>>,
    periods: Periods,
    next_look: Instant,
    next_retry: Instant,
    /// The directory and the last look of each watch.
    known: HashMap<u64, Known>,
    /// What the log was told.
    said: Option<String>,
}

struct Known {
    directory: PathBuf,
    look: Option<FileMeta>,
}

impl Thread {
    pub fn new(board: Arc<Board>, make: MakeKernel, periods: Periods) -> Self {
        let now = Instant::now();
        let (next_look, next_retry) = (now + periods.look, now + periods.retry);
        Self { board, make, kernel: None, periods, next_look, next_retry, known: HashMap::new(), said: None }
    }

    pub fn run(mut self) {
        loop {
            let orders = self.board.wait(self.deadline());
            if orders.end {
                return;
            }
            let gone: HashSet<_> = orders.gone.iter().map(|slot| slot.id).collect();
            for slot in &orders.gone {
                self.finish(slot);
            }
            for (path, slot) in orders.new.into_iter().filter(|(_, slot)| !gone.contains(&slot.id)) {
                self.begin(&path, slot);
            }
            for path in &orders.lost {
                self.lost(path);
            }
            let now = Instant::now();
            if now >= self.next_retry {
                self.next_retry = now + self.periods.retry;
                self.retry();
            }
            if now >= self.next_look {
                self.next_look = now + self.periods.look;
                self.look();
            }
            self.say();
        }
    }

    /// When there is something to do without an order.
    fn deadline(&self) -> Option<Instant> {
        let inner = self.board.lock();
        let by_looks = |directory: &Directory| matches!(directory.held, Held::ByLooks(_));
        if inner.directories.values().any(by_looks) {
            Some(self.next_look.min(self.next_retry))
        } else {
            (!inner.directories.is_empty()).then_some(self.next_retry)
        }
    }

    fn begin(&mut self, path: &Path, slot: Arc<Slot>) {
        // What cannot be resolved now may come back under this very path.
        let path = path::resolve(path).unwrap_or_else(|_| path.to_owned());
        let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
        let watched = Watched { path: path.clone(), slot: Arc::clone(&slot) };
        let is_new = {
            let mut inner = self.board.lock();
            let is_new = !inner.directories.contains_key(&directory);
            let new = Directory { held: Held::ByLooks(Refusal::Missing), files: Vec::new() };
            inner.directories.entry(directory.clone()).or_insert(new).files.push(watched);
            is_new
        };
        if is_new {
            self.arm(&directory);
        }
        self.known.insert(slot.id, Known { directory, look: file::look(&path).ok().flatten() });
        slot.changed();
    }

    fn finish(&mut self, slot: &Slot) {
        let Some(known) = self.known.remove(&slot.id) else { return };
        let last = self.board.lock().remove(&known.directory, slot);
        if let (Some(Held::ByKernel(_)), Some(kernel)) = (last, &mut self.kernel) {
            kernel.unwatch(&known.directory);
        }
    }

    /// Has a directory watched by the kernel, if it can be. Says whether it is.
    fn arm(&mut self, directory: &Path) -> bool {
        let held = match self.ask(directory) {
            Ok(identity) => Held::ByKernel(identity),
            Err(refusal) => Held::ByLooks(refusal),
        };
        let broken = held == Held::ByLooks(Refusal::Broken);
        let armed = matches!(held, Held::ByKernel(_));
        let mut inner = self.board.lock();
        if broken {
            self.kernel = None;
            inner.directories.values_mut().for_each(|other| other.held = held.clone());
        } else if let Some(there) = inner.directories.get_mut(directory) {
            there.held = held;
        }
        armed
    }

    fn ask(&mut self, directory: &Path) -> Result<Identity, Refusal> {
        let identity = identity(directory).ok_or(Refusal::Missing)?;
        let held = Held::ByKernel(identity);
        let twin = |(path, other): (&PathBuf, &Directory)| {
            (path != directory && other.held == held).then(|| path.clone())
        };
        if let Some(twin) = self.board.lock().directories.iter().find_map(twin) {
            // The kernel has one watch for one directory, and tells of it by one path.
            return Err(Refusal::Cannot(format!("{} is watched as {}", directory.display(), twin.display())));
        }
        if self.kernel.is_none() {
            let board = Arc::clone(&self.board);
            self.kernel = Some((self.make)(Arc::new(move |heard| board.hear(heard)))?);
        }
        let kernel = self.kernel.as_mut().ok_or(Refusal::Broken)?;
        // A watch may be left on what had this path before.
        kernel.unwatch(directory);
        kernel.watch(directory).map(|()| identity)
    }

    /// What had this path was moved or removed, with all the directories below it.
    fn lost(&mut self, path: &Path) {
        let below: Vec<_> = self.board.lock().below(path).cloned().collect();
        for directory in below {
            // Something else may have come in its place.
            self.arm(&directory);
            self.tell(&directory);
        }
    }

    /// All files of a directory shall be looked at.
    fn tell(&self, directory: &Path) {
        if let Some(there) = self.board.lock().directories.get(directory) {
            there.files.iter().for_each(|file| file.slot.changed());
        }
    }

    fn retry(&mut self) {
        let all: Vec<_> = {
            let inner = self.board.lock();
            inner.directories.iter().map(|(path, there)| (path.clone(), there.held.clone())).collect()
        };
        for (directory, held) in all {
            let stands = matches!(held, Held::ByKernel(known) if identity(&directory) == Some(known));
            if !stands && (self.arm(&directory) || matches!(held, Held::ByKernel(_))) {
                self.tell(&directory);
            }
        }
    }

    /// Looks at the files that the kernel does not watch.
    fn look(&mut self) {
        let all: Vec<_> = {
            let inner = self.board.lock();
            let by_looks = |(path, there): (&PathBuf, &Directory)| match &there.held {
                Held::ByKernel(_) => None,
                Held::ByLooks(refusal) => {
                    Some((path.clone(), *refusal == Refusal::Missing, there.files.clone()))
                }
            };
            inner.directories.iter().filter_map(by_looks).collect()
        };
        for (directory, missing, files) in all {
            // A directory that is back is watched at once.
            if missing && self.arm(&directory) {
                self.tell(&directory);
            }
            for file in files {
                self.look_at(&file);
            }
        }
    }

    fn look_at(&mut self, file: &Watched) {
        let Some(known) = self.known.get_mut(&file.slot.id) else { return };
        let now = file::look(&file.path).ok().flatten();
        let before = std::mem::replace(&mut known.look, now);
        if before == now {
            return;
        }
        // The inode alone might be that of a new file.
        let moved = before.filter(|_| now.is_none()).and_then(|before| {
            let there = file::find_inode(&known.directory, before.inode)?;
            file::look(&there).ok().flatten()?.is_renamed(&before).then_some(there)
        });
        match moved {
            Some(to) => file.slot.renamed(&to),
            None => file.slot.changed(),
        }
    }

    /// Says once in the log that the kernel cannot watch, and once that it can again.
    fn say(&mut self) {
        let why = self.board.state().why;
        match (&self.said, &why) {
            (None, Some(why)) => {
                tracing::warn!(why, "files are looked at every 2 s instead of being watched")
            }
            (Some(_), None) => tracing::info!("files are watched by the kernel again"),
            _ => {}
        }
        self.said = why;
    }
}

fn identity(directory: &Path) -> Option<Identity> {
    let metadata = fs::metadata(directory).ok().filter(fs::Metadata::is_dir)?;
    Some((metadata.dev(), metadata.ino()))
}
