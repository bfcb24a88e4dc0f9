//! The store as one life of a node reaches it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::hash::Hash;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{Either, select};
use outlive_core::id::{Position, Revision, SessionId};
use outlive_core::log::{BlobRef, Entry, Lane, Record};
use outlive_store::{
    AppendError, BlobError, BlobStamp, Change, Dropped, Durability, Engine, Guard, LaneFilter, Page,
    ReadError, ReadLimit, Row, TableError, TableEvent, TableWatch, Unavailable, Usage,
};
use tokio::sync::{broadcast, oneshot, watch};

use super::words::{said, short};
use super::{ANSWER, CHANGES, Stored, at_once};
use crate::schedule::{Life, Place};
use crate::world::{Moment, World};

/// Why there is no answer.
enum Failed {
    /// Nothing was done.
    Refused,
    /// It may have been done.
    Unknown,
}

/// What becomes of a question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Good,
    LostAnswer,
    LostQuestion,
    Late,
    Refused,
}

/// The store as one life of a node reaches it.
pub struct Reached {
    world: Arc<World>,
    life: Life,
    blobs: PathBuf,
}

impl Reached {
    /// The store, for this life of a node.
    #[must_use]
    pub fn new(world: Arc<World>, life: Life, blobs: PathBuf) -> Self {
        let (changes, _) = broadcast::channel(CHANGES);
        world.store.lock().changes.insert(life, changes);
        Self { world, life, blobs }
    }

    fn fate(&self, what: &str, key: impl Hash, writes: bool) -> Fate {
        let faults = self.world.store.lock().faults.clone();
        let mut random = self.world.seed.draw((self.life.node, what, "fate", key));
        let all = [
            (faults.unavailable, Fate::Refused),
            (if writes { faults.lost_answer } else { 0 }, Fate::LostAnswer),
            (if writes { faults.lost_question } else { 0 }, Fate::LostQuestion),
            (if writes { faults.late } else { 0 }, Fate::Late),
        ];
        all.into_iter().find(|(often, _)| random.happens(*often)).map_or(Fate::Good, |(_, fate)| fate)
    }

    /// Asks the store to do something, which is done there and then.
    async fn ask<T: Send + 'static>(
        &self,
        what: &'static str,
        key: impl Hash + Clone,
        fate: Fate,
        work: impl FnOnce(&Arc<World>) -> T + Send + 'static,
    ) -> Result<T, Failed> {
        self.ask_of(None, what, key, fate, work).await
    }

    /// As [`Self::ask`]; of one session, everything arrives in the order in which it was asked.
    async fn ask_of<T: Send + 'static>(
        &self,
        session: Option<SessionId>,
        what: &'static str,
        key: impl Hash,
        fate: Fate,
        work: impl FnOnce(&Arc<World>) -> T + Send + 'static,
    ) -> Result<T, Failed> {
        let world = &self.world;
        let mut random = world.seed.draw((self.life.node, what, key));
        let slow = world.store.lock().faults.slow_us.max(400);
        let (there, back) = (random.micros(30..slow), random.micros(30..slow));
        let (here, node) = (Place::Node(self.life), self.life.node);
        if fate == Fate::Refused || !world.wire.is_connected(node) {
            world.schedule.sleep(there, here).await;
            return Err(Failed::Refused);
        }
        let (answer, mut answered) = oneshot::channel();
        let question = Question { world: Arc::clone(world), life: self.life, back, answer: Some(answer) };
        if fate != Fate::LostQuestion && world.wire.goes_out(node) {
            let later = if fate == Fate::Late { random.millis(1..1_500) } else { Duration::ZERO };
            let wait = self.behind_others(session, there + later);
            arrive(question, wait, fate == Fate::Good, work);
        }
        let patience = if fate == Fate::Good { ANSWER } else { random.millis(1..400) };
        let over = world.schedule.sleep(patience, here);
        match select(&mut answered, over).await {
            Either::Left((Ok(answer), _)) => Ok(answer),
            Either::Left((Err(_), over)) => {
                over.await;
                Err(Failed::Unknown)
            }
            Either::Right(((), _)) => Err(Failed::Unknown),
        }
    }

    fn behind_others(&self, session: Option<SessionId>, wait: Duration) -> Duration {
        let Some(session) = session else { return wait };
        let (mut inner, now) = (self.world.store.lock(), self.world.schedule.now());
        let last = inner.asked.entry((self.life, session)).or_default();
        *last = (now + wait).max(*last + Duration::from_nanos(1));
        last.since(now)
    }

    async fn read_as<T: Send + 'static>(
        &self,
        what: &'static str,
        key: impl Hash + Clone,
        work: impl FnOnce(&Arc<World>) -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let fate = self.fate(what, key.clone(), false);
        self.ask(what, key, fate, work).await.map_err(|_| unavailable(what))
    }

    fn acknowledged(&self, session: SessionId, position: Position) {
        let mut inner = self.world.store.lock();
        if let Some(stored) = inner.stored.get_mut(&(session, position)) {
            stored.is_acknowledged = true;
        }
    }
}

struct Question<T> {
    world: Arc<World>,
    life: Life,
    back: Duration,
    answer: Option<oneshot::Sender<T>>,
}

fn arrive<T: Send + 'static>(
    mut question: Question<T>,
    wait: Duration,
    is_answered: bool,
    work: impl FnOnce(&Arc<World>) -> T + Send + 'static,
) {
    let schedule = question.world.schedule.clone();
    schedule.clone().after(wait, Place::World, move || {
        let silent = question.world.store.lock().silent_until;
        if silent > schedule.now() {
            let rest = silent.since(schedule.now()) + Duration::from_micros(50);
            return arrive(question, rest, is_answered, work);
        }
        // The store of a node that is alone ends with it.
        let world = &question.world;
        if world.setup.nodes == 1 && world.life(question.life.node) != Some(question.life) {
            return;
        }
        let result = work(world);
        let Some(answer) = question.answer.take().filter(|_| is_answered) else { return };
        let (world, life) = (Arc::clone(&question.world), question.life);
        schedule.after(question.back, Place::Node(life), move || {
            if world.wire.comes_in(life.node) {
                drop(answer.send(result));
            }
        });
    });
}

fn unavailable(what: &str) -> Unavailable {
    Unavailable::new(what, io::Error::other("the made-up store does not answer"))
}

/// Puts a blob where shims and notebooks look for it as a file.
fn keep(folder: &Path, blob: &BlobRef, bytes: &[u8]) -> Result<(), Unavailable> {
    fs::write(folder.join(&blob.sha256), bytes).map_err(|error| Unavailable::new("write a blob", error))
}

/// Stores a record, in the store itself.
fn store(
    world: &Arc<World>,
    life: Life,
    (session, lane, guard): (SessionId, Lane, Guard),
    record: &Record,
    durability: Durability,
) -> Result<Position, AppendError> {
    let appended = at_once(world.store.truth.append(session, lane, guard, record, durability));
    match &appended {
        Ok(position) => {
            let at = world.schedule.now();
            let stored = Stored { at, by: life, lane, is_acknowledged: false, durability };
            world.store.lock().stored.insert((session, *position), stored);
            world.tell(
                Some(life.node),
                format_args!("stored {} {position} {}", short(session), said(lane, record)),
            );
            world.store.announce(world, session);
        }
        Err(error) => world.tell(
            Some(life.node),
            format_args!("refused {} {}: {error}", short(session), said(lane, record)),
        ),
    }
    appended
}

#[async_trait]
impl Engine for Reached {
    async fn append(
        &self,
        session: SessionId,
        lane: Lane,
        guard: Guard,
        record: &Record,
        durability: Durability,
    ) -> Result<Position, AppendError> {
        let fate = self.fate("append", session, true);
        let mut random = self.world.seed.draw((self.life.node, "admit", session));
        let faults = self.world.store.lock().faults.clone();
        let twice = lane != Lane::Control && random.happens(faults.twice);
        let admitted = lane == Lane::Control && random.happens(faults.double_admitted);
        let (life, copy) = (self.life, record.clone());
        let work = move |world: &Arc<World>| {
            let put = |guard| store(world, life, (session, lane, guard), &copy, durability);
            match put(guard) {
                Err(AppendError::Conflict { last_control }) if admitted => put(Guard::Previous(last_control)),
                Ok(position) => {
                    if twice {
                        drop(put(guard));
                    }
                    Ok(position)
                }
                other => other,
            }
        };
        let appended = match self.ask_of(Some(session), "append", session, fate, work).await {
            Ok(appended) => appended,
            Err(Failed::Refused) => Err(unavailable("append").into()),
            Err(Failed::Unknown) => Err(AppendError::Unknown),
        };
        if let Ok(position) = appended {
            self.acknowledged(session, position);
        }
        appended
    }

    async fn read(
        &self,
        session: SessionId,
        after: Position,
        lanes: &LaneFilter,
        limit: ReadLimit,
    ) -> Result<Page, ReadError> {
        let lanes = lanes.clone();
        let lagging = self.world.store.lock().faults.lagging;
        let mut random = self.world.seed.draw((self.life.node, "lag", session));
        let lag = random.happens(lagging).then(|| random.millis(1..600));
        self.read_as("read", session, move |world| {
            let mut page = at_once(world.store.truth.read(session, after, &lanes, limit))?;
            if let Some(lag) = lag {
                let inner = world.store.lock();
                let since = world.schedule.now() - lag;
                let is_new = |entry: &Entry| {
                    inner.stored.get(&(session, entry.position)).is_some_and(|stored| stored.at > since)
                };
                // There is more, and who reads on gets it: only an answer that is empty says that this is all.
                if let Some(n) = page.entries.iter().position(is_new).filter(|n| *n > 0) {
                    page.entries.truncate(n);
                    page.through = page.entries.last().map_or(after, |entry| entry.position);
                }
            }
            Ok(page)
        })
        .await
        .map_err(ReadError::from)?
    }

    async fn head(&self, session: SessionId) -> Result<watch::Receiver<Position>, ReadError> {
        let position = self
            .read_as("head", session, move |world| {
                at_once(world.store.truth.head(session)).map(|head| *head.borrow())
            })
            .await??;
        let mut inner = self.world.store.lock();
        let head = inner.heads.entry((self.life, session)).or_insert_with(|| watch::Sender::new(position));
        let receiver = head.subscribe();
        drop(inner);
        self.world.store.announce_to(&self.world, self.life, session);
        Ok(receiver)
    }

    async fn sessions(&self) -> Result<Vec<SessionId>, ReadError> {
        Ok(self.read_as("sessions", (), |world| world.store.sessions()).await?)
    }

    async fn dropped(&self, _session: SessionId) -> Result<Vec<Dropped>, ReadError> {
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
        let lanes = lanes.clone();
        self.read_as("trim", session, move |world| {
            let mut inner = world.store.lock();
            inner.stored.retain(|(of, position), stored| {
                *of != session || *position >= before || !lanes.contains(&stored.lane)
            });
            drop(inner);
            at_once(world.store.truth.trim(session, &lanes, before))
        })
        .await?
    }

    async fn drop_session(&self, session: SessionId) -> Result<(), Unavailable> {
        let life = self.life;
        self.read_as("drop", session, move |world| {
            world.tell(Some(life.node), format_args!("dropped {}", short(session)));
            let mut inner = world.store.lock();
            inner.stored.retain(|(of, _), _| *of != session);
            inner.heads.retain(|(_, of), _| *of != session);
            drop(inner);
            at_once(world.store.truth.drop_session(session))
        })
        .await?
    }

    async fn close_session(&self, session: SessionId) {
        self.world.store.lock().heads.remove(&(self.life, session));
    }

    async fn usage(&self, session: SessionId) -> Result<Usage, ReadError> {
        self.read_as("usage", session, move |world| at_once(world.store.truth.usage(session))).await?
    }

    async fn get(&self, table: &str, key: &str) -> Result<Option<Row>, TableError> {
        let (table, key) = (table.to_owned(), key.to_owned());
        let about = (table.clone(), key.clone());
        self.read_as("get", about, move |world| at_once(world.store.truth.get(&table, &key))).await?
    }

    async fn put_if(
        &self,
        table: &str,
        key: &str,
        expected: Revision,
        value: &[u8],
    ) -> Result<Revision, TableError> {
        let (table, key, value) = (table.to_owned(), key.to_owned(), value.to_vec());
        let change = move |world: &Arc<World>, table: &str, key: &str| {
            let revision = at_once(world.store.truth.put_if(table, key, expected, &value))?;
            Ok((revision, Change::Put(Row { key: key.to_owned(), revision, value })))
        };
        self.change(table, key, change).await
    }

    async fn delete_if(&self, table: &str, key: &str, expected: Revision) -> Result<(), TableError> {
        let change = move |world: &Arc<World>, table: &str, key: &str| {
            at_once(world.store.truth.delete_if(table, key, expected))?;
            // The deletion has a revision of its own, and no row tells which.
            let revision = world.store.lock().revision.next();
            Ok((revision, Change::Deleted { key: key.to_owned(), revision }))
        };
        self.change(table.to_owned(), key.to_owned(), change).await.map(|_| ())
    }

    async fn scan(&self, table: &str, prefix: &str) -> Result<Vec<Row>, TableError> {
        let (table, prefix) = (table.to_owned(), prefix.to_owned());
        let about = table.clone();
        self.read_as("scan", about, move |world| at_once(world.store.truth.scan(&table, &prefix))).await?
    }

    async fn watch(&self, table: &str, prefix: &str) -> Result<TableWatch, TableError> {
        let live = self.world.store.lock().changes.get(&self.life).map(broadcast::Sender::subscribe);
        let live = live.ok_or_else(|| unavailable("watch"))?;
        let (of, under) = (table.to_owned(), prefix.to_owned());
        let (rows, snapshot) = self
            .read_as("watch", of.clone(), move |world| {
                (at_once(world.store.truth.scan(&of, &under)), world.store.lock().revision)
            })
            .await?;
        let rows = rows?;
        Ok(TableWatch::new(table, prefix, rows, snapshot, live))
    }

    async fn blob_directory(&self, _session: SessionId) -> Result<Option<PathBuf>, BlobError> {
        Ok(Some(self.blobs.clone()))
    }

    async fn put_blob(&self, session: SessionId, blob: &BlobRef, file: &Path) -> Result<(), BlobError> {
        self.world.store.truth.put_blob(session, blob, file).await
    }

    async fn put_blob_bytes(
        &self,
        session: SessionId,
        bytes: &[u8],
        mime: &str,
    ) -> Result<BlobRef, BlobError> {
        let (bytes, mime) = (bytes.to_vec(), mime.to_owned());
        let folder = self.blobs.clone();
        self.read_as("blob", session, move |world| {
            let blob = at_once(world.store.truth.put_blob_bytes(session, &bytes, &mime))?;
            keep(&folder, &blob, &bytes)?;
            Ok(blob)
        })
        .await?
    }

    async fn get_blob(&self, session: SessionId, sha256: &str) -> Result<File, BlobError> {
        let sha256 = sha256.to_owned();
        self.read_as("get blob", session, move |world| at_once(world.store.truth.get_blob(session, &sha256)))
            .await?
    }

    async fn old_blobs(
        &self,
        session: SessionId,
        age: Duration,
    ) -> Result<BTreeMap<String, BlobStamp>, BlobError> {
        self.read_as("old blobs", session, move |world| at_once(world.store.truth.old_blobs(session, age)))
            .await?
    }

    async fn remove_blobs(
        &self,
        session: SessionId,
        listed: &BTreeMap<String, BlobStamp>,
    ) -> Result<u64, BlobError> {
        let listed = listed.clone();
        let remove = move |world: &Arc<World>| at_once(world.store.truth.remove_blobs(session, &listed));
        self.read_as("remove blobs", session, remove).await?
    }

    async fn flush(&self) -> Result<(), Unavailable> {
        self.world.spring(Moment::Leaving);
        self.read_as("flush", (), |_| ()).await
    }
}

impl Reached {
    async fn change(
        &self,
        table: String,
        key: String,
        change: impl FnOnce(&Arc<World>, &str, &str) -> Result<(Revision, Change), TableError> + Send + 'static,
    ) -> Result<Revision, TableError> {
        let about = (table.clone(), key.clone());
        let (fate, life) = (self.fate("put", about.clone(), true), self.life);
        let work = move |world: &Arc<World>| {
            let changed = change(world, &table, &key);
            let (revision, change) = match changed {
                Ok(changed) => changed,
                Err(error) => {
                    world.tell(Some(life.node), format_args!("row {table}/{} refused: {error}", short(&key)));
                    return Err(error);
                }
            };
            world.tell(Some(life.node), format_args!("row {table}/{} {revision}", short(&key)));
            world.store.lock().revision = revision;
            world.store.tell(world, &TableEvent { table, change });
            Ok(revision)
        };
        match self.ask("put", about, fate, work).await {
            Ok(changed) => changed,
            Err(Failed::Refused) => Err(unavailable("write a table").into()),
            Err(Failed::Unknown) => Err(TableError::Unknown),
        }
    }
}
