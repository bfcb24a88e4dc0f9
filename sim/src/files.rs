//! Disks in memory: one that all machines share, and one of each machine. Other programs change, rename and delete what
//! is there, and make that it cannot be written.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use outlive_core::id::SessionId;
use outlive_core::time::Tick;
use outlive_document::file::{FileMeta, FileStamp, ReadError, WriteError};
use outlive_node::seams::{ClaimError, FileHint, FileWatch, Files, PathClaim, WatchState};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::schedule::{Life, Place};
use crate::world::{Moment, World};

/// The directory that all machines share.
pub const SHARED: &str = "/shared";

/// All disks.
#[derive(Default)]
pub struct Disks(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    files: BTreeMap<Key, Content>,
    inodes: u64,
    /// Who has a path, on one machine.
    claims: BTreeMap<(usize, PathBuf), (Life, SessionId)>,
    changes: watch::Sender<u64>,
    /// What cannot be written, and how.
    stuck: BTreeMap<Key, Stuck>,
    /// When another program has done something to a path last.
    meddled: BTreeMap<Key, Tick>,
}

/// Why a file cannot be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stuck {
    /// Nobody may.
    ReadOnly,
    /// There is no room.
    Full,
}

/// A file: of this machine, or of all.
type Key = (Option<usize>, PathBuf);

#[derive(Clone)]
struct Content {
    bytes: Vec<u8>,
    stamp: FileStamp,
}

impl Inner {
    /// The file of this directory with that inode number.
    fn named(&self, node: usize, directory: &Path, inode: u64) -> Option<PathBuf> {
        let is_it = |(at, content): &(&Key, &Content)| {
            at.0.is_none_or(|of| of == node)
                && at.1.parent() == Some(directory)
                && content.stamp.inode == inode
        };
        self.files.iter().find(is_it).map(|((_, path), _)| path.clone())
    }
}

fn key(node: usize, path: &Path) -> Key {
    ((!path.starts_with(SHARED)).then_some(node), path.to_owned())
}

impl Disks {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nothing panics while it holds the disks")
    }

    /// Puts a file there, as another program would.
    pub fn put(&self, world: &World, node: usize, path: &Path, bytes: Vec<u8>) -> FileStamp {
        let mut inner = self.lock();
        inner.inodes += 1;
        let hash = Sha256::digest(&bytes).into();
        let mtime_ns = i64::try_from(world.schedule.now().0).expect("it is not that late");
        let stamp =
            FileStamp { inode: inner.inodes, size: bytes.len() as u64, mtime_ns, ctime_ns: None, hash };
        inner.files.insert(key(node, path), Content { bytes, stamp: stamp.clone() });
        inner.changes.send_modify(|n| *n += 1);
        stamp
    }

    /// Another program makes something else of a file, in one step: of what is there (`None`: nothing) what `change`
    /// says. `None` leaves it.
    pub fn change(
        &self,
        world: &World,
        node: usize,
        path: &Path,
        change: impl FnOnce(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> bool {
        let Some(bytes) = change(self.read(node, path).as_deref()) else { return false };
        let size = bytes.len();
        let before = self.lock().files.get(&key(node, path)).map(|content| content.stamp.inode);
        self.put(world, node, path, bytes);
        let mut inner = self.lock();
        inner.meddled.insert(key(node, path), world.schedule.now());
        // Some programs write into the file that is there, others put another in its place.
        let is_in_place = world.seed.draw(("in place", path)).happens(300);
        if let (Some(inode), Some(content), true) =
            (before, inner.files.get_mut(&key(node, path)), is_in_place)
        {
            content.stamp.inode = inode;
        }
        drop(inner);
        world.tell(None, format_args!("another program writes {} ({size} bytes)", path.display()));
        true
    }

    /// Another program gives a file another name in its directory, which nothing has.
    pub fn rename(&self, world: &World, node: usize, from: &Path, to: &Path) {
        let mut inner = self.lock();
        let Some(content) = inner.files.remove(&key(node, from)) else { return };
        inner.files.insert(key(node, to), content);
        for path in [from, to] {
            inner.meddled.insert(key(node, path), world.schedule.now());
        }
        inner.changes.send_modify(|n| *n += 1);
        world.tell(None, format_args!("another program renames {} to {}", from.display(), to.display()));
    }

    /// Another program deletes a file; what was in it.
    pub fn delete(&self, world: &World, node: usize, path: &Path) -> Option<Vec<u8>> {
        let mut inner = self.lock();
        let content = inner.files.remove(&key(node, path))?;
        inner.meddled.insert(key(node, path), world.schedule.now());
        inner.changes.send_modify(|n| *n += 1);
        world.tell(None, format_args!("another program deletes {}", path.display()));
        Some(content.bytes)
    }

    /// From now on a path cannot be written, or can.
    pub fn stick(&self, world: &World, node: usize, path: &Path, how: Option<Stuck>) {
        let mut inner = self.lock();
        match how {
            Some(how) => drop(inner.stuck.insert(key(node, path), how)),
            None => drop(inner.stuck.remove(&key(node, path))),
        }
        world.tell(None, format_args!("{} cannot be written: {how:?}", path.display()));
    }

    /// Whether a path cannot be written.
    pub fn is_stuck(&self, node: usize, path: &Path) -> bool {
        self.lock().stuck.contains_key(&key(node, path))
    }

    /// Whether another program has done something to a path since then.
    pub fn is_meddled(&self, node: usize, path: &Path, since: Tick) -> bool {
        self.lock().meddled.get(&key(node, path)).is_some_and(|at| *at >= since)
    }

    /// Every file on the shared disk.
    pub fn shared(&self) -> Vec<PathBuf> {
        self.lock().files.keys().filter(|(node, _)| node.is_none()).map(|(_, path)| path.clone()).collect()
    }

    /// What is in a file.
    pub fn read(&self, node: usize, path: &Path) -> Option<Vec<u8>> {
        self.lock().files.get(&key(node, path)).map(|content| content.bytes.clone())
    }

    /// A life is over: its locks are open.
    pub fn forget(&self, life: Life) {
        self.lock().claims.retain(|_, (of, _)| *of != life);
    }

    /// How many paths are held.
    pub fn held(&self) -> usize {
        self.lock().claims.len()
    }
}

/// The files of one machine, for one life of its node.
pub struct Reached {
    world: Arc<World>,
    life: Life,
}

impl Reached {
    /// The files, for this life of a node.
    #[must_use]
    pub fn new(world: Arc<World>, life: Life) -> Self {
        Self { world, life }
    }

    async fn wait(&self, what: &'static str, path: &Path) {
        let wait = self.world.seed.draw((self.life.node, what, path)).micros(20..2_000);
        self.world.schedule.sleep(wait, Place::Node(self.life)).await;
    }
}

/// A path that is held.
struct Held {
    world: Arc<World>,
    life: Life,
    path: PathBuf,
    session: SessionId,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("path", &self.path).finish_non_exhaustive()
    }
}

impl PathClaim for Held {
    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut inner = self.world.disks.lock();
        let at = (self.life.node, self.path.clone());
        if inner.claims.get(&at) == Some(&(self.life, self.session)) {
            inner.claims.remove(&at);
        }
    }
}

#[async_trait]
impl Files for Reached {
    async fn resolve(&self, path: &Path) -> Result<PathBuf, ClaimError> {
        if !path.is_absolute() {
            return Err(ClaimError::Relative { path: path.display().to_string() });
        }
        if path.components().any(|part| matches!(part, Component::ParentDir)) {
            return Err(ClaimError::BadPath { path: path.display().to_string(), why: "it goes up" });
        }
        Ok(path.to_owned())
    }

    async fn claim(&self, path: &Path, session: SessionId) -> Result<Box<dyn PathClaim>, ClaimError> {
        self.wait("claim", path).await;
        let mut inner = self.world.disks.lock();
        if inner.stuck.get(&key(self.life.node, path)) == Some(&Stuck::ReadOnly) {
            let source = io::ErrorKind::PermissionDenied.into();
            return Err(ClaimError::NotWritable { path: path.display().to_string(), source });
        }
        let at = (self.life.node, path.to_owned());
        if let Some((_, by)) = inner.claims.get(&at) {
            return Err(ClaimError::Held { path: path.display().to_string(), session: *by, pid: 1 });
        }
        inner.claims.insert(at, (self.life, session));
        drop(inner);
        Ok(Box::new(Held { world: Arc::clone(&self.world), life: self.life, path: path.to_owned(), session }))
    }

    async fn read(&self, path: &Path) -> Result<(Vec<u8>, FileStamp), ReadError> {
        self.wait("read", path).await;
        let inner = self.world.disks.lock();
        let content = inner.files.get(&key(self.life.node, path));
        let content = content.ok_or_else(|| ReadError::NotFound(path.to_owned()))?;
        Ok((content.bytes.clone(), content.stamp.clone()))
    }

    async fn write(
        &self,
        path: &Path,
        bytes: Vec<u8>,
        expected: Option<FileStamp>,
    ) -> Result<FileStamp, WriteError> {
        self.wait("write", path).await;
        self.world.spring(Moment::Writing);
        let (found, stuck) = {
            let (inner, at) = (self.world.disks.lock(), key(self.life.node, path));
            (inner.files.get(&at).map(|content| content.stamp.clone()), inner.stuck.get(&at).copied())
        };
        match stuck {
            Some(Stuck::ReadOnly) => return Err(WriteError::NoPermission(path.to_owned())),
            Some(Stuck::Full) => return Err(WriteError::DiskFull(path.to_owned())),
            None => {}
        }
        if found != expected {
            return Err(WriteError::Changed { path: path.to_owned(), now: found.map(|found| found.meta()) });
        }
        let size = bytes.len();
        let stamp = self.world.disks.put(&self.world, self.life.node, path, bytes);
        self.world.tell(Some(self.life.node), format_args!("wrote {} ({size} bytes)", path.display()));
        self.wait("written", path).await;
        Ok(stamp)
    }

    async fn stat(&self, path: &Path) -> io::Result<Option<FileMeta>> {
        self.wait("stat", path).await;
        let inner = self.world.disks.lock();
        Ok(inner.files.get(&key(self.life.node, path)).map(|content| content.stamp.meta()))
    }

    async fn find_inode(&self, directory: &Path, inode: u64) -> Option<PathBuf> {
        self.wait("find", directory).await;
        self.world.disks.lock().named(self.life.node, directory, inode)
    }

    fn watch(&self, path: &Path) -> Box<dyn FileWatch> {
        let changes = self.world.disks.lock().changes.subscribe();
        let (world, life) = (Arc::clone(&self.world), self.life);
        Box::new(Watched { world, life, path: path.to_owned(), changes, seen: None })
    }

    fn watching(&self) -> WatchState {
        WatchState::default()
    }

    fn claims(&self) -> usize {
        self.world.disks.lock().claims.keys().filter(|(node, _)| *node == self.life.node).count()
    }
}

/// A file that is looked at now and then, as on a network's disk.
struct Watched {
    world: Arc<World>,
    life: Life,
    path: PathBuf,
    changes: watch::Receiver<u64>,
    /// What was told last; `None` at first.
    seen: Option<Option<FileMeta>>,
}

impl Watched {
    /// What has happened to a file that is not what it was: where its name has gone, if the disk tells.
    fn hint(&self, before: Option<FileMeta>, now: Option<&FileMeta>) -> FileHint {
        let is_told = self.world.seed.draw((self.life.node, "hint", &self.path)).happens(500);
        let (Some(before), None, true, Some(directory)) = (before, now, is_told, self.path.parent()) else {
            return FileHint::Changed;
        };
        let named = self.world.disks.lock().named(self.life.node, directory, before.inode);
        named.map_or(FileHint::Changed, FileHint::Renamed)
    }
}

#[async_trait]
impl FileWatch for Watched {
    async fn changed(&mut self) -> FileHint {
        loop {
            let meta = {
                self.changes.mark_unchanged();
                let inner = self.world.disks.lock();
                inner.files.get(&key(self.life.node, &self.path)).map(|content| content.stamp.meta())
            };
            if self.seen.as_ref() != Some(&meta) {
                let before = self.seen.take().flatten();
                let hint = self.hint(before, meta.as_ref());
                self.seen = Some(meta);
                return hint;
            }
            // Looking costs no events while nothing on any disk changes.
            drop(self.changes.changed().await);
            let wait = self.world.seed.draw((self.life.node, "look", &self.path)).millis(20..400);
            self.world.schedule.sleep(wait.max(Duration::from_millis(1)), Place::Node(self.life)).await;
        }
    }
}
