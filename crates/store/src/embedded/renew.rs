//! Making a log whole again after an fsync that failed.
//!
//! A failed fsync may have marked pages as clean that never came to the disk; a second one on the same file then says
//! that all is well. So the segments in doubt are read, as far as the kernel still has them, into new files. When those
//! are synced they take the old ones' places, and recovery decides what is really there, as after a crash.
//!
//! ```text
//! Open ─fsync fails─► Suspect ─► segments copied, synced, renamed ─► recovered ─► Open: who waited is acknowledged,
//!                       ▲  │                                                            or told `Unknown` if it is lost
//!                       │  └─ a copy fails: who waits is told `Unknown`
//!                       └───── tried again at the next append, and at a read that depends on it
//! ```

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::log::{Fsync, Life, SessionLog};
use super::{recover, segment};
use crate::error::{ReadError, Unavailable};

impl SessionLog {
    /// Whether an fsync failed and nothing can be appended.
    pub(super) fn is_suspect(&self) -> bool {
        matches!(self.lock().life, Life::Suspect)
    }

    /// Whether there are records of which nobody knows whether they are stored: a reader must not be told that there
    /// is nothing behind the head.
    pub(super) fn is_undetermined(&self) -> bool {
        let state = self.lock();
        matches!(state.life, Life::Suspect) && state.last > *self.head.borrow()
    }

    /// Makes a suspect log one that can be appended to. Blocks.
    pub(super) fn renew(&self) -> Result<(), Unavailable> {
        let _alone = self.renewing.lock().expect("no holder of this lock panics");
        let (numbers, directories) = {
            let state = self.lock();
            if !matches!(state.life, Life::Suspect) {
                return Ok(());
            }
            let numbers: Vec<_> = state.unsynced.files.iter().map(|(number, _)| *number).collect();
            (numbers, state.unsynced.directories.clone())
        };
        let copied = numbers
            .iter()
            .try_for_each(|number| rewrite(&self.directory.join(segment::file_name(*number)), &self.fsync))
            .and_then(|()| directories.iter().try_for_each(|directory| self.sync_directory(directory)))
            .and_then(|()| self.sync_directory(&self.directory))
            .map_err(|source| self.not_durable(source));
        let found = copied.and_then(|()| {
            recover::open(&self.directory, self.session).map_err(|error| match error {
                ReadError::Unavailable(unavailable) => unavailable,
                corrupt @ ReadError::Corrupt { .. } => self.not_durable(io::Error::other(corrupt)),
            })
        });
        let mut state = self.lock();
        match found {
            // Dropped or closed meanwhile: whoever opens it next recovers it.
            _ if matches!(state.life, Life::Gone) => state.fail_waiting(),
            Ok(found) => {
                tracing::info!(session = %self.session, last = %found.last, "the log is written anew");
                state.replace(found, &self.head);
            }
            Err(error) => {
                tracing::warn!(session = %self.session, %error, "the log cannot be written anew yet");
                state.fail_waiting();
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Puts a durable copy of a file into its place.
fn rewrite(path: &Path, fsync: &Fsync) -> io::Result<()> {
    let copy = path.with_extension("renew");
    let made = (|| {
        let mut to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&copy)?;
        io::copy(&mut File::open(path)?, &mut to)?;
        (fsync.0)(&to)?;
        fs::rename(&copy, path)
    })();
    if made.is_err() {
        let _not_made = fs::remove_file(&copy);
    }
    made
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU8, Ordering};

    use outlive_core::id::{BootId, Epoch, NodeId, Position, SessionId};
    use outlive_core::log::record::ControlChange;
    use outlive_core::log::{Control, Entry, Fenced, FencedBody, Lane, Record};
    use uuid::Uuid;

    use super::*;
    use crate::{AppendError, Durability, Embedded, Engine, Guard, LaneFilter, ReadLimit};

    /// What an fsync does.
    const WORKS: u8 = 0;
    /// It fails once, and nothing is lost.
    const FAILS_ONCE: u8 = 1;
    /// It fails, and nothing is lost.
    const FAILS: u8 = 2;
    /// It fails once, and the last bytes of the file are lost.
    const LOSES: u8 = 3;

    struct Disk {
        engine: Embedded,
        ill: Arc<AtomicU8>,
        directory: tempfile::TempDir,
    }

    fn session() -> SessionId {
        SessionId::from_uuid(Uuid::from_u128(7))
    }

    fn disk() -> Disk {
        let directory = tempfile::tempdir().unwrap();
        let ill = Arc::new(AtomicU8::new(WORKS));
        let of_fsync = Arc::clone(&ill);
        let fsync = Fsync(Arc::new(move |file: &File| {
            match of_fsync.load(Ordering::SeqCst) {
                WORKS => return file.sync_data(),
                FAILS => {}
                LOSES => {
                    of_fsync.store(WORKS, Ordering::SeqCst);
                    file.set_len(file.metadata()?.len() - 10)?;
                }
                _ => of_fsync.store(WORKS, Ordering::SeqCst),
            }
            Err(io::Error::from_raw_os_error(5))
        }));
        Disk { engine: Embedded::open_with(directory.path(), fsync).unwrap(), ill, directory }
    }

    impl Disk {
        fn becomes(&self, ill: u8) {
            self.ill.store(ill, Ordering::SeqCst);
        }

        async fn claim(&self, previous: Position, epoch: u64) -> Position {
            let (node, boot) = (NodeId::from_uuid(Uuid::from_u128(1)), BootId::from_uuid(Uuid::from_u128(2)));
            let change = ControlChange::Claim { epoch: Epoch(epoch), node, boot };
            let record = Record::Control(Control { prev: previous, change });
            let guard = Guard::Previous(previous);
            self.engine.append(session(), Lane::Control, guard, &record, Durability::Synced).await.unwrap()
        }

        async fn put(&self, at: Position, n: u8, durability: Durability) -> Result<Position, AppendError> {
            let record =
                Record::Fenced(Fenced { claim: at, source: None, body: FencedBody::Document(vec![n; 100]) });
            self.engine.append(session(), Lane::Document, Guard::Claim(at), &record, durability).await
        }

        async fn read(&self) -> Result<Vec<Entry>, ReadError> {
            let page =
                self.engine.read(session(), Position(0), &LaneFilter::All, ReadLimit::default()).await?;
            Ok(page.entries)
        }

        /// What the next process finds.
        async fn after_a_restart(self) -> Vec<Entry> {
            let Self { engine, directory, .. } = self;
            drop(engine);
            let engine = Embedded::open(directory.path()).unwrap();
            let page = engine.read(session(), Position(0), &LaneFilter::All, ReadLimit::default()).await;
            assert!(engine.dropped(session()).await.unwrap().is_empty());
            page.unwrap().entries
        }
    }

    #[tokio::test]
    async fn a_disk_that_is_ill_for_a_moment_is_not_noticed() {
        let disk = disk();
        let at = disk.claim(Position(0), 1).await;
        disk.becomes(FAILS_ONCE);
        disk.put(at, 1, Durability::Synced).await.expect("the segment was written anew");
        disk.put(at, 2, Durability::Written).await.unwrap();
        disk.becomes(FAILS_ONCE);
        disk.engine.flush().await.expect("and again");
        let written = disk.read().await.unwrap();
        assert_eq!(written.len(), 3);
        assert_eq!(disk.after_a_restart().await, written);
    }

    #[tokio::test]
    async fn after_a_failed_fsync_the_log_refuses_and_goes_on_when_the_disk_does() {
        let disk = disk();
        let at = disk.claim(Position(0), 1).await;
        disk.put(at, 1, Durability::Written).await.unwrap();
        disk.becomes(FAILS);
        let lost = disk.put(at, 2, Durability::Synced).await;
        assert!(matches!(lost, Err(AppendError::Unknown)), "{lost:?}");
        let refused = disk.put(at, 3, Durability::Written).await;
        assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
        let unsure = disk.read().await;
        assert!(
            matches!(unsure, Err(ReadError::Unavailable(_))),
            "never a page that may miss a record: {unsure:?}"
        );
        assert!(disk.engine.flush().await.is_err());
        disk.becomes(WORKS);
        let found = disk.read().await.unwrap();
        assert_eq!(found.len(), 3, "the truth about the one with the lost answer");
        disk.put(at, 3, Durability::Synced).await.expect("it goes on by itself");
        let written = disk.read().await.unwrap();
        assert_eq!((&written[..3], written.len()), (&found[..], 4));
        assert_eq!(disk.after_a_restart().await, written);
    }

    #[tokio::test]
    async fn what_was_only_waited_for_may_be_lost_and_is_told() {
        let disk = disk();
        let at = disk.claim(Position(0), 1).await;
        disk.put(at, 1, Durability::Written).await.unwrap();
        disk.engine.flush().await.unwrap();
        disk.becomes(LOSES);
        let lost = disk.put(at, 2, Durability::Synced).await;
        assert!(matches!(lost, Err(AppendError::Unknown)), "{lost:?}");
        assert_eq!(disk.read().await.unwrap().len(), 2, "it is not there");
        assert_eq!(disk.engine.dropped(session()).await.unwrap().len(), 1, "what was there of it is said");
        disk.put(at, 2, Durability::Synced).await.expect("it can be written again");
        assert_eq!(disk.read().await.unwrap().len(), 3);
    }

    #[tokio::test]
    async fn an_owner_that_believes_in_lost_records_writes_nothing_more() {
        let disk = disk();
        let at = disk.claim(Position(0), 1).await;
        // Acknowledged before the fsync that loses it.
        disk.becomes(LOSES);
        disk.put(at, 1, Durability::Written).await.unwrap();
        let _lost_or_healed = disk.engine.flush().await;
        let refused = disk.put(at, 2, Durability::Written).await;
        assert!(matches!(refused, Err(AppendError::Corrupt { .. })), "{refused:?}");
        assert_eq!(disk.read().await.unwrap().len(), 1);
        let at = disk.claim(at, 2).await;
        disk.put(at, 2, Durability::Synced).await.expect("whoever has read what is there goes on");
    }
}
