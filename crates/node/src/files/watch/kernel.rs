//! The kernel's part of watching: one inotify instance, which watches directories and says what it heard.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{Config, Event, RecommendedWatcher, RecursiveMode, Watcher};
use rustix::io::Errno;

/// Watches directories.
pub(super) trait Kernel: Send {
    /// Watches the entries of a directory, from now on.
    fn watch(&mut self, directory: &Path) -> Result<(), Refusal>;
    /// Does not watch it any more; nothing when it did not.
    fn unwatch(&mut self, directory: &Path);
}

/// Hears what happens. Called on a thread of the kernel's part.
pub(super) type Ear = Arc<dyn Fn(&Heard) + Send + Sync>;
/// Makes the kernel's part.
pub(super) type MakeKernel = Box<dyn FnMut(Ear) -> Result<Box<dyn Kernel>, Refusal> + Send>;

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Heard {
    /// Something at this path was made, changed or put there.
    Touched(PathBuf),
    /// What had this path was removed, or has another one.
    Gone(PathBuf),
    /// What was `from` is `to` now.
    Renamed { from: PathBuf, to: PathBuf },
    /// More than the kernel could remember.
    Missed,
}

/// Why the kernel does not watch a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// There is no such directory at present.
    Missing,
    /// It cannot, for this reason.
    Cannot(String),
    /// The kernel's part does not work any more; all its watches are gone.
    Broken,
}

impl Refusal {
    /// What an operator should know; a missing directory is nothing of the machine's.
    pub fn why(&self) -> Option<String> {
        match self {
            Self::Missing => None,
            Self::Cannot(why) => Some(why.clone()),
            Self::Broken => {
                Some("the thread that listens to inotify could not be started or has ended".to_owned())
            }
        }
    }
}

/// inotify.
struct Inotify(Option<RecommendedWatcher>);

/// Makes an inotify instance.
pub(super) fn inotify(ear: Ear) -> Result<Box<dyn Kernel>, Refusal> {
    let listener = move |event: notify::Result<Event>| match event {
        Ok(event) => heard(event).iter().for_each(|heard| ear(heard)),
        Err(error) => {
            tracing::warn!(%error, "a change of a file may have been missed");
            ear(&Heard::Missed);
        }
    };
    let watcher = RecommendedWatcher::new(listener, Config::default()).map_err(|error| refusal(&error))?;
    Ok(Box::new(Inotify(Some(watcher))))
}

impl Inotify {
    /// The crate panics when its thread is gone or could not be started.
    fn ask(
        &mut self,
        ask: impl FnOnce(&mut RecommendedWatcher) -> notify::Result<()>,
    ) -> Result<(), Refusal> {
        let Some(watcher) = &mut self.0 else { return Err(Refusal::Broken) };
        match catch_unwind(AssertUnwindSafe(|| ask(watcher))) {
            Ok(answer) => answer.map_err(|error| refusal(&error)),
            Err(_) => {
                // To drop it would panic again.
                std::mem::forget(self.0.take());
                Err(Refusal::Broken)
            }
        }
    }
}

impl Kernel for Inotify {
    fn watch(&mut self, directory: &Path) -> Result<(), Refusal> {
        self.ask(|watcher| watcher.watch(directory, RecursiveMode::NonRecursive))
    }

    fn unwatch(&mut self, directory: &Path) {
        // It does not know a directory that was removed.
        let _ = self.ask(|watcher| watcher.unwatch(directory));
    }
}

fn refusal(error: &notify::Error) -> Refusal {
    match &error.kind {
        notify::ErrorKind::PathNotFound => Refusal::Missing,
        notify::ErrorKind::MaxFilesWatch => {
            Refusal::Cannot("inotify has no watch left (fs.inotify.max_user_watches)".to_owned())
        }
        notify::ErrorKind::Io(error) => match Errno::from_io_error(error) {
            Some(Errno::NOENT | Errno::NOTDIR) => Refusal::Missing,
            Some(Errno::MFILE) => Refusal::Cannot(
                "no inotify instance or file descriptor is left (fs.inotify.max_user_instances, ulimit -n)"
                    .to_owned(),
            ),
            _ => Refusal::Cannot(format!("inotify: {error}")),
        },
        _ => Refusal::Cannot(format!("inotify: {error}")),
    }
}

/// What an event says. Reads of files are heard too, and say nothing.
fn heard(event: Event) -> Vec<Heard> {
    if event.need_rescan() {
        return vec![Heard::Missed];
    }
    let mut paths = event.paths.into_iter();
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => paths.map(Heard::Touched).collect(),
        EventKind::Access(_) => Vec::new(),
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => {
            paths.map(Heard::Gone).collect()
        }
        // Each of its two halves was heard before it.
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => match (paths.next(), paths.next()) {
            (Some(from), Some(to)) => vec![Heard::Renamed { from, to }],
            _ => Vec::new(),
        },
        EventKind::Create(_) | EventKind::Modify(_) | EventKind::Any | EventKind::Other => {
            paths.map(Heard::Touched).collect()
        }
    }
}
