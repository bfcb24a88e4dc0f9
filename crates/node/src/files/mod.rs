//! The files of this machine: where they really are, notebooks read and replaced whole, claims on their paths, and
//! watches over them. The only place that touches the disk for a session's notebook.

mod claim;
mod path;
mod watch;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use outlive_core::id::SessionId;
use outlive_document::file::{self, Expected, FileMeta, FileStamp, ReadError, WriteError};

pub use path::{notebook_at, notebook_path};

use crate::seams::{ClaimError, FileWatch, Files, PathClaim, WatchState};
use claim::Claims;
use watch::Watching;

/// Real files. Claims are lock files in a folder that all daemons of one user share. All clones share one watcher.
#[derive(Clone, Debug)]
pub struct LocalFiles {
    claims: Arc<Claims>,
    watching: Arc<Watching>,
}

impl LocalFiles {
    /// Files with claims in this folder; it is made when it is needed, as is the watcher.
    #[must_use]
    pub fn new(claims: PathBuf) -> Self {
        Self::beside_earlier(claims, None)
    }

    /// The same, where daemons of version 0.1 may have claims in `earlier`.
    #[must_use]
    pub fn beside_earlier(claims: PathBuf, earlier: Option<PathBuf>) -> Self {
        Self { claims: Arc::new(Claims::new(claims, earlier)), watching: Arc::default() }
    }
}

/// Runs what blocks where blocking is allowed. Its panics are ours.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[async_trait]
impl Files for LocalFiles {
    async fn resolve(&self, path: &Path) -> Result<PathBuf, ClaimError> {
        let path = path.to_owned();
        blocking(move || path::resolve(&path)).await
    }

    async fn claim(&self, path: &Path, session: SessionId) -> Result<Box<dyn PathClaim>, ClaimError> {
        let (claims, path) = (Arc::clone(&self.claims), path.to_owned());
        Ok(Box::new(blocking(move || claims.take(&path, session)).await?))
    }

    async fn read(&self, path: &Path) -> Result<(Vec<u8>, FileStamp), ReadError> {
        let path = path.to_owned();
        blocking(move || file::read(&path)).await
    }

    async fn write(
        &self,
        path: &Path,
        bytes: Vec<u8>,
        expected: Option<FileStamp>,
    ) -> Result<FileStamp, WriteError> {
        let path = path.to_owned();
        blocking(move || {
            let expected = expected.as_ref().map_or(Expected::Absent, Expected::Unchanged);
            file::write_atomic(&path, &bytes, expected)
        })
        .await
    }

    async fn stat(&self, path: &Path) -> io::Result<Option<FileMeta>> {
        let path = path.to_owned();
        blocking(move || file::look(&path)).await
    }

    async fn find_inode(&self, directory: &Path, inode: u64) -> Option<PathBuf> {
        let directory = directory.to_owned();
        blocking(move || file::find_inode(&directory, inode)).await
    }

    fn watch(&self, path: &Path) -> Box<dyn FileWatch> {
        self.watching.watch(path)
    }

    fn watching(&self) -> WatchState {
        self.watching.state()
    }

    fn claims(&self) -> usize {
        self.claims.count()
    }
}
