//! What a watch has heard and not told yet. A burst is told once: when it pauses, or soon after its first change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use outlive_core::limits::{FILE_HINT_MS_MAX, FILE_QUIET_MS};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::board::Board;
use crate::seams::{FileHint, FileWatch};

/// Where the hints for one watch wait.
#[derive(Debug)]
pub(super) struct Slot {
    /// Which watch it is.
    pub id: u64,
    heard: Mutex<Option<Heard>>,
    told: Notify,
}

/// Not told yet.
#[derive(Debug)]
struct Heard {
    what: What,
    first: Instant,
    last: Instant,
}

#[derive(Debug)]
enum What {
    Changed,
    /// It has this name now.
    At(PathBuf),
    /// It had this name, and has left that too.
    Left(PathBuf),
    /// Whatever is heard besides: something was missed.
    Missed,
}

impl Slot {
    pub const fn new(id: u64) -> Self {
        Self { id, heard: Mutex::new(None), told: Notify::const_new() }
    }

    fn heard(&self) -> MutexGuard<'_, Option<Heard>> {
        self.heard.lock().expect("nothing panics while it holds what was heard")
    }

    /// Something happened at the file's own path.
    pub fn changed(&self) {
        self.hear(|_| What::Changed);
    }

    /// Something happened that nobody saw.
    pub fn missed(&self) {
        self.hear(|_| What::Missed);
    }

    /// The file has another name.
    pub fn renamed(&self, to: &Path) {
        self.hear(|_| What::At(to.to_owned()));
    }

    /// `from` has left; the file may have had that name for a moment.
    pub fn left(&self, from: &Path) {
        if self.is_at(from) {
            self.hear(|_| What::Left(from.to_owned()));
        }
    }

    /// `from` is called `to` now; the file may have been that.
    pub fn followed(&self, from: &Path, to: &Path) {
        if self.is_at(from) {
            self.renamed(to);
        }
    }

    fn is_at(&self, path: &Path) -> bool {
        matches!(&*self.heard(), Some(Heard { what: What::At(at) | What::Left(at), .. }) if at == path)
    }

    fn hear(&self, what: impl FnOnce(Option<&What>) -> What) {
        let now = Instant::now();
        let mut heard = self.heard();
        let before = heard.take();
        let first = before.as_ref().map_or(now, |before| before.first);
        let what = match before.map(|before| before.what) {
            Some(What::Missed) => What::Missed,
            before => what(before.as_ref()),
        };
        *heard = Some(Heard { what, first, last: now });
        drop(heard);
        self.told.notify_one();
    }

    /// The hint if it is ripe, else when it will be; `None` when there is none.
    fn take(&self) -> Option<Result<FileHint, Instant>> {
        let mut heard = self.heard();
        let ripe = heard.as_ref().map(|heard| {
            (heard.last + Duration::from_millis(FILE_QUIET_MS))
                .min(heard.first + Duration::from_millis(FILE_HINT_MS_MAX))
        })?;
        if Instant::now() < ripe {
            return Some(Err(ripe));
        }
        heard.take().map(|heard| {
            Ok(match heard.what {
                What::Changed | What::Left(_) => FileHint::Changed,
                What::At(path) => FileHint::Renamed(path),
                What::Missed => FileHint::Rescan,
            })
        })
    }
}

/// A watched file.
#[derive(Debug)]
pub(super) struct LocalWatch {
    pub slot: Arc<Slot>,
    pub board: Arc<Board>,
}

#[async_trait]
impl FileWatch for LocalWatch {
    async fn changed(&mut self) -> FileHint {
        loop {
            match self.slot.take() {
                Some(Ok(hint)) => return hint,
                Some(Err(ripe)) => sleep_until(ripe).await,
                None => self.slot.told.notified().await,
            }
        }
    }
}

impl Drop for LocalWatch {
    fn drop(&mut self) {
        self.board.forget(&self.slot);
    }
}
