//! Blobs that nothing names any more: which there are, and how they go.
//!
//! First the manifest is replaced by one that says so, if it is still the one that was listed: from then on the blob is not
//! there, and whoever puts it puts other pieces. Then its pieces go, then that manifest. What is left by a crash in between
//! is listed again.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use outlive_core::id::{Position, SessionId};
use outlive_store::blob::{check_name, modified, remove_listed};
use outlive_store::{BlobError, BlobStamp, Unavailable};

use crate::blobs::{Manifest, failed, is_contended, names_in};
use crate::nats::{Inner, blocking};

impl Inner {
    /// Those that were put so long ago; also those that are in the spool alone.
    pub(crate) async fn old_blobs(
        &self,
        session: SessionId,
        age: Duration,
    ) -> Result<BTreeMap<String, BlobStamp>, BlobError> {
        let mut all = self.spooled(session, age).await?;
        let stored = self.manifests(session).await;
        for (name, (manifest, at)) in
            stored.map_err(|error| error.into_unavailable("list a session's blobs"))?
        {
            if age.is_zero() || manifest.age() >= age {
                all.entry(name).or_default().stored = at.0;
            } else {
                all.remove(&name);
            }
        }
        if let Some(session) = self.sessions.get(session) {
            // Whoever names one of them puts it anew, and does not rely on what is known of it.
            session.writing().put.retain(|name| !all.contains_key(name));
        }
        Ok(all)
    }

    async fn spooled(
        &self,
        session: SessionId,
        age: Duration,
    ) -> Result<BTreeMap<String, BlobStamp>, Unavailable> {
        let spool = self.spool_of(session);
        let list = move || {
            let mut found = BTreeMap::new();
            for name in names_in(&spool).into_iter().filter(|name| check_name(name).is_ok()) {
                let Ok(metadata) = fs::metadata(spool.join(&name)) else { continue };
                let since = metadata.modified().ok().and_then(|at| at.elapsed().ok()).unwrap_or_default();
                if since >= age {
                    found.insert(name, BlobStamp { stored: 0, spooled: modified(&metadata) });
                }
            }
            found
        };
        blocking("list a session's blobs", list).await
    }

    /// Removes those that were not put again since they were listed.
    pub(crate) async fn remove_blobs(
        &self,
        session: SessionId,
        listed: &BTreeMap<String, BlobStamp>,
    ) -> Result<u64, BlobError> {
        listed.keys().try_for_each(|sha256| check_name(sha256))?;
        let mut freed = 0;
        for (sha256, stamp) in listed {
            let removed = self.remove_stored(session, sha256, Position(stamp.stored)).await?;
            let Some(stored) = removed else { continue };
            let (file, listed) = (self.spool_of(session).join(sha256), stamp.spooled);
            let spooled = blocking("remove a blob", move || remove_listed(&file, listed)).await?;
            let spooled = spooled.map_err(|source| Unavailable::new("remove a blob", source))?;
            freed += stored.max(spooled);
        }
        Ok(freed)
    }

    /// How many bytes a blob had that is not in the store any more; `None` when it was put again.
    async fn remove_stored(
        &self,
        session: SessionId,
        sha256: &str,
        listed: Position,
    ) -> Result<Option<u64>, BlobError> {
        let Some((manifest, at)) = self.manifest(session, sha256).await? else { return Ok(Some(0)) };
        if at != listed {
            return Ok(None);
        }
        let mut last = at;
        if !manifest.removed {
            let gone = Manifest { removed: true, ..manifest.clone() };
            last = match self.write_manifest(session, sha256, &gone, at).await {
                Ok(last) => last,
                Err(error) if is_contended(&error) => return Ok(None),
                Err(error) => return Err(failed("remove", sha256)(error)),
            };
        }
        let stream = self.layout.blob_stream();
        let pieces = self.layout.pieces(session, sha256, &manifest.upload);
        self.wire.purge(&stream, &pieces, None).await.map_err(failed("remove", sha256))?;
        let subject = self.layout.manifest(session, sha256);
        let purged = self.wire.purge(&stream, &subject, Some(last.next())).await;
        purged.map_err(failed("remove", sha256))?;
        Ok(Some(manifest.size))
    }
}
