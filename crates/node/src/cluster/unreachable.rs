//! The file of a notebook that this node does not reach: it is on a volume of other nodes. A file of the same name may be
//! here, and is another one; it is neither looked at nor written.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use outlive_core::id::SessionId;
use outlive_document::file::{FileMeta, FileStamp, ReadError, WriteError};

use crate::seams::{ClaimError, FileHint, FileWatch, Files, PathClaim, WatchState};

/// Files of which none is here.
#[derive(Debug)]
pub(crate) struct Unreachable {
    /// Why.
    volume: String,
    /// Who has them.
    nodes: String,
}

impl Unreachable {
    /// Those of a volume that these nodes have, in words.
    pub(crate) fn new(volume: String, nodes: String) -> Arc<Self> {
        Arc::new(Self { volume, nodes })
    }

    /// What is said to whoever wants to save there.
    pub(crate) fn refusal(&self, path: &Path) -> ClaimError {
        ClaimError::VolumeNotHere {
            path: path.display().to_string(),
            volume: self.volume.clone(),
            nodes: self.nodes.clone(),
        }
    }

    fn error(&self, path: &Path) -> io::Error {
        io::Error::new(io::ErrorKind::Unsupported, self.refusal(path))
    }
}

/// Nothing happens to a file that is not here.
struct Nothing;

#[async_trait]
impl FileWatch for Nothing {
    async fn changed(&mut self) -> FileHint {
        std::future::pending().await
    }
}

#[async_trait]
impl Files for Unreachable {
    async fn resolve(&self, path: &Path) -> Result<PathBuf, ClaimError> {
        Err(self.refusal(path))
    }

    async fn claim(&self, path: &Path, _session: SessionId) -> Result<Box<dyn PathClaim>, ClaimError> {
        Err(self.refusal(path))
    }

    async fn read(&self, path: &Path) -> Result<(Vec<u8>, FileStamp), ReadError> {
        Err(ReadError::Io { path: path.to_owned(), source: self.error(path) })
    }

    async fn write(
        &self,
        path: &Path,
        _bytes: Vec<u8>,
        _expected: Option<FileStamp>,
    ) -> Result<FileStamp, WriteError> {
        Err(WriteError::Io { path: path.to_owned(), source: self.error(path) })
    }

    async fn stat(&self, path: &Path) -> io::Result<Option<FileMeta>> {
        Err(self.error(path))
    }

    async fn find_inode(&self, _directory: &Path, _inode: u64) -> Option<PathBuf> {
        None
    }

    fn watch(&self, _path: &Path) -> Box<dyn FileWatch> {
        Box::new(Nothing)
    }

    fn watching(&self) -> WatchState {
        WatchState::default()
    }

    fn claims(&self) -> usize {
        0
    }
}
