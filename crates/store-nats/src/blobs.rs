//! Blobs: pieces, then a manifest that names them. What has no manifest is not there.
//!
//! Each change of a manifest names the one before it, so that puts and removals ([`crate::removal`]) of one blob happen one
//! after the other: to put what is there writes its manifest again.
//!
//! A shim puts a blob into the spool, a folder of this machine; it goes to NATS before the first record that names it is
//! appended ([`Inner::put_named_blobs`]), so a record never names what other nodes cannot read. It stays in the spool until
//! the session is closed here.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use async_nats::HeaderMap;
use bytes::Bytes;
use outlive_core::id::{Position, SessionId};
use outlive_core::limits::{NATS_PIECE_BYTES, NATS_PIECES_MAX, NATS_PUT_KNOWN_MAX, NATS_PUT_TRIES_MAX};
use outlive_core::log::{BlobRef, Fenced, FencedBody, Payload, Record, RunRecord};
use outlive_store::blob::{Seen, check_name, check_size, reference};
use outlive_store::{AppendError, BlobError, Unavailable};
use serde::{Deserialize, Serialize};

use crate::api::{self, ApiError, code};
use crate::nats::{Inner, blocking};
use crate::wire::{Answers, CallError};

const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";

/// What a blob is made of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Bytes.
    pub(crate) size: u64,
    /// Under which name its pieces are.
    pub(crate) upload: String,
    /// How many.
    pub(crate) pieces: u64,
    /// When it was put last, in seconds since 1970, by its writer's clock. Earlier versions did not say.
    #[serde(default = "present")]
    pub(crate) put_at: u64,
    /// It is being removed: the blob is not there any more, its pieces may be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) removed: bool,
}

impl Manifest {
    pub(crate) fn parse(stored: &api::Stored) -> Result<Self, ApiError> {
        serde_json::from_slice(&stored.payload)
            .map_err(|error| ApiError::Odd(format!("a blob's manifest: {error}")))
    }

    /// How long ago it was put; nothing if that is yet to come.
    pub(crate) fn age(&self) -> Duration {
        Duration::from_secs(present().saturating_sub(self.put_at))
    }
}

fn present() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "compared with what other nodes have written")]
    let now = SystemTime::now();
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Whether a blob was there to be put anew.
enum Renewed {
    Yes,
    /// This is the last that was written of it.
    NotThere(Position),
}

pub(crate) fn failed(what: &str, sha256: &str) -> impl Fn(ApiError) -> BlobError {
    let what = format!("{what} blob {sha256}");
    move |error| error.into_unavailable(&what).into()
}

impl Inner {
    pub(crate) fn spool_of(&self, session: SessionId) -> PathBuf {
        self.spool.join(session.to_string())
    }

    /// The folder in which a shim puts its blobs.
    pub(crate) async fn blob_directory(&self, session: SessionId) -> Result<PathBuf, BlobError> {
        let directory = self.spool_of(session);
        let made =
            blocking("make a blob directory", move || private_directory(&directory).map(|()| directory));
        Ok(made.await?.map_err(|source| Unavailable::new("make a blob directory", source))?)
    }

    /// Puts what a record names and is in the spool. It must be in the store before the record is.
    pub(crate) async fn put_named_blobs(
        &self,
        session: SessionId,
        record: &Record,
    ) -> Result<(), AppendError> {
        for named in named(record) {
            let is_known = |known: &crate::session::Session| known.writing().put.contains(&named.sha256);
            if self.sessions.get(session).is_some_and(|session| is_known(&session)) {
                continue;
            }
            let file = self.spool_of(session).join(&named.sha256);
            if !tokio::fs::try_exists(&file).await.unwrap_or(false) {
                // Put by whoever had the session before, or by a call.
                continue;
            }
            match self.put_blob(session, named, &file).await {
                Ok(()) => {}
                Err(BlobError::Unavailable(error)) => return Err(error.into()),
                Err(error) => {
                    let what = format!("put blob {}, which a record names,", named.sha256);
                    return Err(Unavailable::new(what, io::Error::other(error)).into());
                }
            }
        }
        Ok(())
    }

    /// Puts the content of a file, or what is there anew.
    pub(crate) async fn put_blob(
        &self,
        session: SessionId,
        blob: &BlobRef,
        file: &Path,
    ) -> Result<(), BlobError> {
        let path = file.to_owned();
        let file = blocking("read a blob", move || File::open(path)).await?;
        let file = file.map_err(|source| unreadable(blob, source))?;
        self.put_content(session, blob, Pieces(Box::new(file))).await
    }

    /// Puts bytes as a blob, or what is there anew.
    pub(crate) async fn put_blob_bytes(
        &self,
        session: SessionId,
        bytes: &[u8],
        mime: &str,
    ) -> Result<BlobRef, BlobError> {
        let blob = reference(bytes, mime);
        self.put_content(session, &blob, Pieces(Box::new(io::Cursor::new(bytes.to_vec())))).await?;
        Ok(blob)
    }

    async fn put_content(
        &self,
        session: SessionId,
        blob: &BlobRef,
        content: Pieces,
    ) -> Result<(), BlobError> {
        check_name(&blob.sha256)?;
        let Renewed::NotThere(before) = self.renew(session, blob).await? else { return Ok(()) };
        let upload = self.next_name().replace('.', "-");
        let kept = match self.put_pieces(session, blob, content, &upload).await {
            Ok(manifest) => self.put_manifest(session, blob, &manifest, before).await,
            Err(error) => Err((Manifested::No, error)),
        };
        if let Ok(Manifested::No) | Err((Manifested::No, _)) = kept {
            // Nobody names these pieces. What cannot be removed now goes with the session.
            let pieces = self.layout.pieces(session, &blob.sha256, &upload);
            if let Err(error) = self.wire.purge(&self.layout.blob_stream(), &pieces, None).await {
                tracing::debug!(%session, %error, "pieces of a blob are left");
            }
        }
        if kept.map_err(|(_, error)| error)? == Manifested::No
            && let Renewed::NotThere(_) = self.renew(session, blob).await?
        {
            return Err(contended(blob).into());
        }
        self.remember_put(session, blob);
        Ok(())
    }

    /// Writes the manifest of a blob again if it is there: whoever has listed the blob before removes it no more.
    async fn renew(&self, session: SessionId, blob: &BlobRef) -> Result<Renewed, BlobError> {
        for _ in 0..NATS_PUT_TRIES_MAX {
            let Some((mut there, before)) = self.manifest(session, &blob.sha256).await? else {
                return Ok(Renewed::NotThere(Position::default()));
            };
            if there.removed {
                return Ok(Renewed::NotThere(before));
            }
            check_size(blob, there.size)?;
            there.put_at = present();
            match self.write_manifest(session, &blob.sha256, &there, before).await {
                Ok(now) => {
                    self.remember_put(session, blob);
                    // The last one counts; those before it take up room and nothing else.
                    let subject = self.layout.manifest(session, &blob.sha256);
                    let _ = self.wire.purge(&self.layout.blob_stream(), &subject, Some(now)).await;
                    return Ok(Renewed::Yes);
                }
                // Somebody else puts it, or removes it.
                Err(error) if is_contended(&error) => {}
                Err(error) => return Err(failed("put", &blob.sha256)(error)),
            }
        }
        Err(contended(blob).into())
    }

    /// Writes a manifest behind the one that was the last.
    pub(crate) async fn write_manifest(
        &self,
        session: SessionId,
        sha256: &str,
        manifest: &Manifest,
        before: Position,
    ) -> Result<Position, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(EXPECTED, before.0.to_string());
        let payload = serde_json::to_vec(manifest).expect("it is text and numbers");
        let subject = self.layout.manifest(session, sha256);
        stored(self.wire.begin(subject, Some(headers), payload.into(), 1).await?).await
    }

    /// So that it is not asked about again, and leaves the spool when the session is closed.
    fn remember_put(&self, session: SessionId, blob: &BlobRef) {
        if let Some(session) = self.sessions.get(session) {
            let put = &mut session.writing().put;
            if put.len() >= NATS_PUT_KNOWN_MAX {
                put.clear();
            }
            put.insert(blob.sha256.clone());
        }
    }

    async fn put_pieces(
        &self,
        session: SessionId,
        blob: &BlobRef,
        mut content: Pieces,
        upload: &str,
    ) -> Result<Manifest, BlobError> {
        let subject = self.layout.pieces(session, &blob.sha256, upload);
        let (mut seen, mut count) = (Seen::default(), 0);
        let mut on_their_way = VecDeque::with_capacity(NATS_PIECES_MAX);
        loop {
            let (piece, rest) = blocking("read a blob", move || (content.next(), content)).await?;
            content = rest;
            let Some(piece) = piece.map_err(|source| unreadable(blob, source))? else { break };
            seen.take(&piece);
            count += 1;
            if on_their_way.len() == NATS_PIECES_MAX
                && let Some(first) = on_their_way.pop_front()
            {
                stored(first).await.map_err(failed("put", &blob.sha256))?;
            }
            // Sent in order here, so that they are stored in order.
            let sent = self.wire.begin(subject.clone(), None, piece, 1).await;
            on_their_way.push_back(sent.map_err(|error| failed("put", &blob.sha256)(error.into()))?);
        }
        for answers in on_their_way {
            stored(answers).await.map_err(failed("put", &blob.sha256))?;
        }
        seen.check(blob)?;
        let upload = upload.to_owned();
        Ok(Manifest { size: blob.size, upload, pieces: count, put_at: present(), removed: false })
    }

    /// From here on the blob is there. Says whether it is made of these pieces: without an answer it may be, so they stay.
    async fn put_manifest(
        &self,
        session: SessionId,
        blob: &BlobRef,
        manifest: &Manifest,
        mut before: Position,
    ) -> Result<Manifested, (Manifested, BlobError)> {
        for _ in 0..NATS_PUT_TRIES_MAX {
            let error = match self.write_manifest(session, &blob.sha256, manifest, before).await {
                Ok(_) => return Ok(Manifested::Yes),
                Err(error) => error,
            };
            let certain = match &error {
                ApiError::Refused { .. } | ApiError::Call(CallError::NotSent(_) | CallError::Nobody) => {
                    Manifested::No
                }
                ApiError::Call(CallError::Lost(_)) | ApiError::Odd(_) => Manifested::Maybe,
            };
            let there = match self.manifest(session, &blob.sha256).await {
                Ok(Some((there, _))) if there.upload == manifest.upload => return Ok(Manifested::Yes),
                // Somebody else has put the same.
                Ok(Some((there, _))) if !there.removed => return Ok(Manifested::No),
                Ok(there) => there,
                Err(_) => return Err((certain, failed("put", &blob.sha256)(error))),
            };
            if !is_contended(&error) {
                return Err((certain, failed("put", &blob.sha256)(error)));
            }
            // What stood there was removed meanwhile.
            before = there.map(|(_, at)| at).unwrap_or_default();
        }
        Err((Manifested::No, contended(blob).into()))
    }

    /// What was written last of a blob, and where.
    pub(crate) async fn manifest(
        &self,
        session: SessionId,
        sha256: &str,
    ) -> Result<Option<(Manifest, Position)>, BlobError> {
        let (stream, subject) = (self.layout.blob_stream(), self.layout.manifest(session, sha256));
        let stored = self.wire.leader_last(&stream, &subject).await.map_err(failed("find", sha256))?;
        let parse = |stored: api::Stored| Ok((Manifest::parse(&stored)?, stored.position));
        stored.map(parse).transpose().map_err(failed("read", sha256))
    }

    /// What was written last of each blob of a session, and where.
    pub(crate) async fn manifests(
        &self,
        session: SessionId,
    ) -> Result<BTreeMap<String, (Manifest, Position)>, ApiError> {
        let mut all = BTreeMap::new();
        let add = |stored: api::Stored| {
            let name = stored.subject.rsplit('.').next().unwrap_or_default().to_owned();
            all.insert(name, (Manifest::parse(&stored)?, stored.position));
            Ok(())
        };
        let subject = self.layout.session_manifests(session);
        self.whole(&self.layout.blob_stream(), &subject, add).await?;
        Ok(all)
    }

    /// Opens a blob: from the spool, or fetched for this.
    pub(crate) async fn get_blob(&self, session: SessionId, sha256: &str) -> Result<File, BlobError> {
        check_name(sha256)?;
        if let Some(file) = in_spool(self.spool_of(session).join(sha256)).await? {
            return Ok(file);
        }
        let missing = || BlobError::Missing { sha256: sha256.to_owned() };
        let there = self.manifest(session, sha256).await?.filter(|(manifest, _)| !manifest.removed);
        let (manifest, _) = there.ok_or_else(missing)?;
        let blob = BlobRef { sha256: sha256.to_owned(), size: manifest.size, mime: String::new() };
        let mut fetched = Fetched::begin(self.spool.clone(), blob).await?;
        let subject = self.layout.pieces(session, sha256, &manifest.upload);
        let stream = self.layout.blob_stream();
        let took = self.whole(&stream, &subject, |stored| {
            fetched.take(&stored.payload).map_err(|error| ApiError::Odd(error.to_string()))
        });
        took.await.map_err(failed("fetch", sha256))?;
        fetched.finish()
    }

    /// What a session's blobs take up, in bytes.
    pub(crate) async fn blob_bytes(&self, session: SessionId) -> Result<u64, Unavailable> {
        let all = self.manifests(session).await;
        let all = all.map_err(|error| error.into_unavailable("measure a session's blobs"))?;
        Ok(all.values().filter(|(manifest, _)| !manifest.removed).map(|(manifest, _)| manifest.size).sum())
    }

    /// Removes all blobs of a session, here and there.
    pub(crate) async fn drop_blobs(&self, session: SessionId) -> Result<(), Unavailable> {
        let what = format!("remove the blobs of session {session}");
        let subjects = self.layout.session_blobs(session);
        let purged = self.wire.purge(&self.layout.blob_stream(), &subjects, None).await;
        purged.map_err(|error| error.into_unavailable(&what))?;
        let spool = self.spool_of(session);
        blocking(&what, move || match fs::remove_dir_all(spool) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        })
        .await?
        .map_err(|source| Unavailable::new(what, source))
    }

    /// Removes from this machine what is in the store.
    pub(crate) async fn clear_spool(&self, session: SessionId, put: &HashSet<String>) {
        let spool = self.spool_of(session);
        let folder = spool.clone();
        let list = move || names_in(&folder);
        let mut stored = Vec::new();
        for name in blocking("clear the spool", list).await.unwrap_or_default() {
            let is_stored = put.contains(&name)
                || (check_name(&name).is_ok()
                    && matches!(self.manifest(session, &name).await, Ok(Some((there, _))) if !there.removed));
            if is_stored {
                stored.push(name);
            }
        }
        let clear = move || {
            for name in stored {
                // What stays takes up room and nothing else.
                let _ = fs::remove_file(spool.join(name));
            }
            let _ = fs::remove_dir(spool);
        };
        let _ = blocking("clear the spool", clear).await;
    }
}

/// What a shim has put there, or somebody has fetched.
async fn in_spool(path: PathBuf) -> Result<Option<File>, BlobError> {
    Ok(blocking("read a blob", move || File::open(path).ok()).await?)
}

/// Waits until the message is stored that this is the answer to.
async fn stored(mut answers: Answers) -> Result<Position, ApiError> {
    api::acknowledged(&answers.next().await?)
}

/// Whether somebody else has written a manifest first, or does now.
pub(crate) fn is_contended(error: &ApiError) -> bool {
    error.is(code::WRONG_LAST) || error.is(code::CROWDED)
}

/// Others put and remove it all the time.
fn contended(blob: &BlobRef) -> Unavailable {
    let why = "it is put and removed by others at the same time";
    Unavailable::new(format!("put blob {}", blob.sha256), io::Error::other(why))
}

/// Whether a manifest names certain pieces.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manifested {
    Yes,
    No,
    Maybe,
}

/// The blobs that a record names.
fn named(record: &Record) -> Vec<&BlobRef> {
    let Record::Fenced(Fenced { body, .. }) = record else { return Vec::new() };
    match body {
        FencedBody::Run(RunRecord::Data { chunks, .. }) | FencedBody::Runtime { chunks, .. } => {
            chunks.iter().filter_map(|chunk| blob(&chunk.payload)).collect()
        }
        FencedBody::Run(RunRecord::Checkpoint { blob, .. }) => blob.iter().collect(),
        FencedBody::Journal(_)
        | FencedBody::Document(_)
        | FencedBody::Run(RunRecord::Open { .. } | RunRecord::Note { .. } | RunRecord::End { .. }) => {
            Vec::new()
        }
    }
}

fn blob(payload: &Payload) -> Option<&BlobRef> {
    match payload {
        Payload::Blob(blob) => Some(blob),
        Payload::Inline(_) => None,
    }
}

/// The names of what is in a folder; none when it is not there.
pub(crate) fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn private_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn unreadable(blob: &BlobRef, source: io::Error) -> Unavailable {
    Unavailable::new(format!("read blob {}", blob.sha256), source)
}

/// Content, piece by piece.
struct Pieces(Box<dyn Read + Send>);

impl Pieces {
    /// The next piece; every one but the last is full.
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut piece = Vec::with_capacity(NATS_PIECE_BYTES);
        (&mut self.0).take(NATS_PIECE_BYTES as u64).read_to_end(&mut piece)?;
        Ok((!piece.is_empty()).then(|| piece.into()))
    }
}

/// A blob on its way here, in a file without a name.
struct Fetched {
    blob: BlobRef,
    file: File,
    seen: Seen,
}

impl Fetched {
    async fn begin(spool: PathBuf, blob: BlobRef) -> Result<Self, BlobError> {
        let make = move || {
            private_directory(&spool)?;
            tempfile::tempfile_in(spool)
        };
        let file = blocking("fetch a blob", make).await?;
        let file = file.map_err(|source| Unavailable::new("fetch a blob", source))?;
        Ok(Self { blob, file, seen: Seen::default() })
    }

    /// Half a megabyte at most, into the page cache.
    fn take(&mut self, piece: &[u8]) -> io::Result<()> {
        self.seen.take(piece);
        self.file.write_all(piece)
    }

    fn finish(mut self) -> Result<File, BlobError> {
        self.seen.check(&self.blob)?;
        self.file.rewind().map_err(|source| unreadable(&self.blob, source))?;
        Ok(self.file)
    }
}
