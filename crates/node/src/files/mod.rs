//! The files of this machine: notebooks read and replaced whole, and claims on their paths.

mod claim;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use outlive_core::id::SessionId;
use outlive_document::file::{self, Expected, FileStamp, ReadError, WriteError};

use crate::seams::{ClaimError, Files, PathClaim};

/// Real files. Claims are lock files in `claims`, which all daemons of one user share.
#[derive(Clone, Debug)]
pub struct LocalFiles {
    claims: PathBuf,
}

impl LocalFiles {
    /// Files with claims in this folder; it is made when it is needed.
    #[must_use]
    pub const fn new(claims: PathBuf) -> Self {
        Self { claims }
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
    async fn claim(&self, path: &Path, session: SessionId) -> Result<Box<dyn PathClaim>, ClaimError> {
        let (claims, path) = (self.claims.clone(), path.to_owned());
        blocking(move || claim::take(&claims, &path, session)).await.map(|claim| Box::new(claim) as _)
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
}
