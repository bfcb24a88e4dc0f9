//! [`Nats`] as an [`Engine`]: each call to the part that does it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use outlive_core::id::{Position, Revision, SessionId};
use outlive_core::log::{BlobRef, Lane, Record};
use outlive_store::{
    AppendError, BlobError, BlobStamp, Dropped, Durability, Engine, Guard, LaneFilter, Page, ReadError,
    ReadLimit, Row, TableError, TableWatch, Unavailable, Usage,
};
use serde_json::json;
use tokio::sync::watch;

use crate::api::ApiError;
use crate::layout;
use crate::nats::{Inner, Nats};

#[async_trait]
impl Engine for Nats {
    async fn append(
        &self,
        session: SessionId,
        lane: Lane,
        guard: Guard,
        record: &Record,
        // See the type: it is the server's to say.
        _durability: Durability,
    ) -> Result<Position, AppendError> {
        self.inner.append(session, lane, guard, record).await
    }

    async fn read(
        &self,
        session: SessionId,
        after: Position,
        lanes: &LaneFilter,
        limit: ReadLimit,
    ) -> Result<Page, ReadError> {
        self.inner.read(session, after, lanes, limit).await
    }

    async fn head(&self, session: SessionId) -> Result<watch::Receiver<Position>, ReadError> {
        self.inner.head(session).await
    }

    async fn sessions(&self) -> Result<Vec<SessionId>, ReadError> {
        Ok(self.inner.list().await.map_err(|error| error.into_unavailable("list the sessions"))?)
    }

    async fn dropped(&self, _session: SessionId) -> Result<Vec<Dropped>, ReadError> {
        // JetStream recovers whole messages or none; there is nothing in between to tell of.
        Ok(Vec::new())
    }

    async fn all_dropped(&self) -> Result<Vec<(SessionId, Dropped)>, ReadError> {
        Ok(Vec::new())
    }

    async fn trim(
        &self,
        session: SessionId,
        lanes: &BTreeSet<Lane>,
        before: Position,
    ) -> Result<u64, ReadError> {
        let trimmed = self.inner.trim(session, lanes, before).await;
        Ok(trimmed.map_err(|error| error.into_unavailable("trim a session's log"))?)
    }

    async fn drop_session(&self, session: SessionId) -> Result<(), Unavailable> {
        let place = self.inner.layout.place(session);
        let purged = self.inner.wire.purge(&place.stream, &place.all(), None).await;
        purged.map_err(|error| error.into_unavailable(&format!("remove session {session}")))?;
        self.inner.sessions.forget(session);
        self.inner.drop_blobs(session).await
    }

    async fn close_session(&self, session: SessionId) {
        let closed = self.inner.sessions.forget(session);
        let put = closed.map(|closed| std::mem::take(&mut closed.writing().put)).unwrap_or_default();
        self.inner.clear_spool(session, &put).await;
    }

    /// The log's size is what its writers have counted: about right, and it takes one look.
    async fn usage(&self, session: SessionId) -> Result<Usage, ReadError> {
        let counted = self.inner.sessions.get(session).and_then(|session| session.writing().size);
        let log_bytes = match counted {
            Some(size) => size,
            None => self.inner.stored_size(session).await?,
        };
        Ok(Usage { log_bytes, blob_bytes: self.inner.blob_bytes(session).await? })
    }

    async fn get(&self, table: &str, key: &str) -> Result<Option<Row>, TableError> {
        self.inner.get(table, key).await
    }

    async fn put_if(
        &self,
        table: &str,
        key: &str,
        expected: Revision,
        value: &[u8],
    ) -> Result<Revision, TableError> {
        self.inner.put_if(table, key, expected, value).await
    }

    async fn delete_if(&self, table: &str, key: &str, expected: Revision) -> Result<(), TableError> {
        self.inner.delete_if(table, key, expected).await
    }

    async fn scan(&self, table: &str, prefix: &str) -> Result<Vec<Row>, TableError> {
        self.inner.scan(table, prefix).await
    }

    async fn watch(&self, table: &str, prefix: &str) -> Result<TableWatch, TableError> {
        self.inner.watch(table, prefix).await
    }

    async fn blob_directory(&self, session: SessionId) -> Result<Option<PathBuf>, BlobError> {
        self.inner.blob_directory(session).await.map(Some)
    }

    async fn put_blob(&self, session: SessionId, blob: &BlobRef, file: &Path) -> Result<(), BlobError> {
        self.inner.put_blob(session, blob, file).await
    }

    async fn put_blob_bytes(
        &self,
        session: SessionId,
        bytes: &[u8],
        mime: &str,
    ) -> Result<BlobRef, BlobError> {
        self.inner.put_blob_bytes(session, bytes, mime).await
    }

    async fn get_blob(&self, session: SessionId, sha256: &str) -> Result<File, BlobError> {
        self.inner.get_blob(session, sha256).await
    }

    async fn old_blobs(
        &self,
        session: SessionId,
        age: Duration,
    ) -> Result<BTreeMap<String, BlobStamp>, BlobError> {
        self.inner.old_blobs(session, age).await
    }

    async fn remove_blobs(
        &self,
        session: SessionId,
        listed: &BTreeMap<String, BlobStamp>,
    ) -> Result<u64, BlobError> {
        self.inner.remove_blobs(session, listed).await
    }

    async fn flush(&self) -> Result<(), Unavailable> {
        // What is acknowledged is in the servers' files.
        Ok(())
    }
}

impl Inner {
    /// Every session that has a control lane, in order.
    async fn list(&self) -> Result<Vec<SessionId>, ApiError> {
        let mut found = BTreeSet::new();
        for (k, stream) in self.layout.session_streams() {
            let mut offset = 0;
            loop {
                let request = json!({ "subjects_filter": self.layout.shard_controls(k), "offset": offset });
                let answer = self.wire.api(&format!("STREAM.INFO.{stream}"), &request).await?;
                let Some(subjects) = answer["state"]["subjects"].as_object() else { break };
                found.extend(subjects.keys().filter_map(|subject| layout::session_of(subject)));
                offset += subjects.len() as u64;
                if subjects.is_empty() || offset >= answer["total"].as_u64().unwrap_or_default() {
                    break;
                }
            }
        }
        Ok(found.into_iter().collect())
    }

    /// How much went is seen by the stream, in which others write as well: about right.
    async fn trim(
        &self,
        session: SessionId,
        lanes: &BTreeSet<Lane>,
        before: Position,
    ) -> Result<u64, ApiError> {
        let place = self.layout.place(session);
        let size = async || {
            let info = self.wire.api(&format!("STREAM.INFO.{}", place.stream), &json!(null)).await?;
            Ok::<_, ApiError>(info["state"]["bytes"].as_u64().unwrap_or_default())
        };
        let lanes: Vec<_> = lanes.iter().filter(|lane| **lane != Lane::Control).collect();
        if lanes.is_empty() {
            return Ok(0);
        }
        let full = size().await?;
        for lane in lanes {
            self.wire.purge(&place.stream, &place.lane(*lane), Some(before)).await?;
        }
        let freed = full.saturating_sub(size().await?);
        if let Some(session) = self.sessions.get(session) {
            let mut writing = session.writing();
            writing.size = writing.size.map(|size| size.saturating_sub(freed));
            drop(writing);
            session.tail().clear();
        }
        Ok(freed)
    }
}
