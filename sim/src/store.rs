//! The store that all nodes share, as each of them reaches it: over a network that loses questions and answers.
//!
//! The content is that of [`Memory`], which passes the suite of every engine. What is added is the way there and back:
//! a question arrives after a while, or never, or when nobody waits for it any more; so does its answer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::hash::Hash;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::{Either, select};
use outlive_core::id::{Position, Revision, SessionId};
use outlive_core::log::record::ControlChange;
use outlive_core::log::{BlobRef, Entry, FencedBody, Lane, Record, RunRecord};
use outlive_core::time::Tick;
use outlive_store::{
    AppendError, BlobError, Change, Dropped, Durability, Engine, Guard, LaneFilter, Memory, Page, ReadError,
    ReadLimit, Row, TableError, TableEvent, TableWatch, Unavailable, Usage,
};
use tokio::sync::{broadcast, oneshot, watch};

use crate::schedule::{Life, Place};
use crate::world::World;

/// How long a node waits for an answer.
const ANSWER: Duration = Duration::from_secs(2);
/// Changes of tables that a slow watcher may be behind.
const CHANGES: usize = 256;

/// What goes wrong with the store. Numbers are times in a thousand.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// It is done, and its answer is lost.
    pub lost_answer: u64,
    /// It is not done, and nobody can tell.
    pub lost_question: u64,
    /// Nobody can tell, and it is done later.
    pub late: u64,
    /// It is refused.
    pub unavailable: u64,
    /// A record is stored twice.
    pub twice: u64,
    /// A claim is stored although another one was quicker.
    pub double_admitted: u64,
    /// A reader is given what was there some time ago first, and is told late that there is more.
    pub lagging: u64,
    /// A change of a table is not told; that something is missing is.
    pub gap: u64,
    /// How long a question or an answer takes, in microseconds.
    pub slow_us: u64,
}

/// A record as it was stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// When.
    pub at: Tick,
    /// By whom.
    pub by: Life,
    /// Where it belongs.
    pub lane: Lane,
    /// Whether its writer knows that it is there.
    pub is_acknowledged: bool,
    /// What it must be: as durable as this.
    pub durability: Durability,
}

/// What stands in the store, and what the checks want to know of it.
#[derive(Default)]
pub struct Store {
    /// What is there.
    pub truth: Memory,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    faults: Faults,
    /// Until then it answers nothing.
    silent_until: Tick,
    /// Everything that was ever stored and not removed since by somebody who may.
    stored: BTreeMap<(SessionId, Position), Stored>,
    heads: BTreeMap<(Life, SessionId), watch::Sender<Position>>,
    changes: BTreeMap<Life, broadcast::Sender<TableEvent>>,
    /// Of the last change of any table.
    revision: Revision,
    /// Changes go to a node in their order.
    told: BTreeMap<Life, Tick>,
    /// What a node says of one session arrives in the order in which it was said.
    asked: BTreeMap<(Life, SessionId), Tick>,
    /// Behind these positions something was lost with the power.
    torn: BTreeMap<SessionId, Vec<Position>>,
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it holds the store")
    }

    /// From now on this goes wrong.
    pub fn suffer(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// What goes wrong now.
    pub fn faults(&self) -> Faults {
        self.lock().faults.clone()
    }

    /// It answers nothing until then: a leader is elected.
    pub fn fall_silent(&self, until: Tick) {
        let mut inner = self.lock();
        inner.silent_until = inner.silent_until.max(until);
    }

    /// All that was stored and not removed.
    pub fn stored(&self) -> BTreeMap<(SessionId, Position), Stored> {
        self.lock().stored.clone()
    }

    /// The whole log of a session.
    ///
    /// # Panics
    /// Never: it is in memory.
    pub fn log(&self, session: SessionId) -> Vec<Entry> {
        let limit = ReadLimit { records: usize::MAX, bytes: usize::MAX };
        at_once(self.truth.read(session, Position(0), &LaneFilter::All, limit))
            .expect("it is in memory")
            .entries
    }

    /// Every session that has a log.
    ///
    /// # Panics
    /// Never: it is in memory.
    pub fn sessions(&self) -> Vec<SessionId> {
        at_once(self.truth.sessions()).expect("it is in memory")
    }

    /// Every row of a table.
    ///
    /// # Panics
    /// Never: it is in memory.
    pub fn rows(&self, table: &str) -> Vec<Row> {
        at_once(self.truth.scan(table, "")).expect("it is in memory")
    }

    /// Whether something behind this position was lost with the power.
    pub fn is_torn(&self, session: SessionId) -> bool {
        self.lock().torn.contains_key(&session)
    }

    /// The power fails: of each log's end, what need not be durable may be lost. Acknowledged or not.
    pub fn lose_power(&self, world: &World) {
        let now = world.schedule.now();
        let window = Duration::from_millis(outlive_core::limits::FSYNC_MS);
        for session in self.sessions() {
            let mut inner = self.lock();
            let mut last = None;
            let mut records = 0;
            for ((_, position), stored) in
                inner.stored.range((session, Position(0))..=(session, Position(u64::MAX))).rev()
            {
                let is_durable = stored.durability == Durability::Synced && stored.is_acknowledged;
                if is_durable || stored.at + window < now || world.seed.draw(("torn", session)).happens(300) {
                    last = Some(*position);
                    break;
                }
                records += 1;
            }
            if records == 0 {
                continue;
            }
            let last = last.unwrap_or_default();
            let gone: Vec<_> = inner
                .stored
                .range((session, last.next())..=(session, Position(u64::MAX)))
                .map(|(key, _)| *key)
                .collect();
            for key in gone {
                inner.stored.remove(&key);
            }
            inner.torn.entry(session).or_default().push(last);
            drop(inner);
            self.truth.lose_behind(session, last);
            world.tell(None, format_args!("the power took {records} records of {session} behind {last}"));
        }
    }

    /// A life is over: nobody waits for heads and changes any more.
    pub fn forget(&self, life: Life) {
        let mut inner = self.lock();
        inner.heads.retain(|(of, _), _| *of != life);
        inner.asked.retain(|(of, _), _| *of != life);
        inner.changes.remove(&life);
    }

    /// A node can be reached again: it is told what is new.
    pub fn rearm(&self, world: &Arc<World>, life: Life) {
        let sessions: Vec<_> =
            self.lock().heads.keys().filter(|(of, _)| *of == life).map(|(_, session)| *session).collect();
        for session in sessions {
            self.announce_to(world, life, session);
        }
        self.tell_gap(world, life);
    }

    fn tell_gap(&self, world: &Arc<World>, life: Life) {
        for table in ["sessions", "nodes", "paths", "trust", "groups", "names"] {
            self.tell_change(world, life, TableEvent { table: table.to_owned(), change: Change::Gap });
        }
    }

    fn announce(&self, world: &Arc<World>, session: SessionId) {
        let lives: Vec<_> =
            self.lock().heads.keys().filter(|(_, of)| *of == session).map(|(life, _)| *life).collect();
        for life in lives {
            self.announce_to(world, life, session);
        }
    }

    fn announce_to(&self, world: &Arc<World>, life: Life, session: SessionId) {
        let mut random = world.seed.draw(("head", life, session));
        if !world.wire.reaches(life.node) {
            return;
        }
        let lags = random.happens(self.lock().faults.lagging);
        let wait = if lags { random.millis(1..600) } else { random.micros(50..800) };
        let (schedule, world) = (world.schedule.clone(), Arc::clone(world));
        schedule.after(wait, Place::Node(life), move || {
            let head = at_once(world.store.truth.head(session)).expect("it is in memory");
            let position = *head.borrow();
            if let Some(head) = world.store.lock().heads.get(&(life, session)) {
                head.send_if_modified(|before| {
                    let is_new = position > *before;
                    *before = position.max(*before);
                    is_new
                });
            }
        });
    }

    /// Tells all nodes of a change of a table.
    fn tell(&self, world: &Arc<World>, event: &TableEvent) {
        let lives: Vec<_> = self.lock().changes.keys().copied().collect();
        for life in lives {
            let gap = self.lock().faults.gap;
            if !world.wire.reaches(life.node) {
                continue;
            }
            if world.seed.draw(("change", life)).happens(gap) {
                self.tell_gap(world, life);
            } else {
                self.tell_change(world, life, event.clone());
            }
        }
    }

    fn tell_change(&self, world: &Arc<World>, life: Life, event: TableEvent) {
        let wait = world.seed.draw(("tell", life)).micros(100..3_000);
        let mut inner = self.lock();
        let Some(to) = inner.changes.get(&life).cloned() else { return };
        let last = inner.told.entry(life).or_default();
        let at = (*last + Duration::from_nanos(1)).max(world.schedule.now() + wait);
        *last = at;
        drop(inner);
        // Nobody may be watching.
        world.schedule.at(at, Place::Node(life), move || drop(to.send(event)));
    }
}

/// The result of something that never waits.
pub(crate) fn at_once<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("what is in memory is not waited for")
}

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
            // A row that is written when nobody waits for it any more is a known weakness: what was not made is listed then.
            (if what == "append" { faults.late } else { 0 }, Fate::Late),
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
        let result = work(&question.world);
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

/// The end of an id: its beginning is the same for all that one seed makes.
pub(crate) fn short(id: impl std::fmt::Display) -> String {
    let id = id.to_string();
    id[id.len().saturating_sub(4)..].to_owned()
}

/// A record in a few words.
fn said(lane: Lane, record: &Record) -> String {
    match record {
        Record::Control(control) => match &control.change {
            ControlChange::Claim { epoch, node, .. } => format!("Claim {epoch} by {}", short(node)),
            other => format!("{other:?}"),
        },
        Record::Fenced(fenced) => match (&fenced.body, lane) {
            (FencedBody::Journal(events), _) => {
                let names: Vec<String> =
                    events.iter().map(|event| name(&format!("{:?}", event.what))).collect();
                format!("journal {names:?}")
            }
            (FencedBody::Document(_), _) => "document".to_owned(),
            (FencedBody::Run(RunRecord::Data { attempt, first, chunks }), Lane::Run(run)) => {
                format!("run {} Data {attempt}.{first}+{}", short(run), chunks.len())
            }
            (FencedBody::Run(other), Lane::Run(run)) => {
                format!("run {} {}", short(run), clip(&format!("{other:?}")))
            }
            (other, _) => clip(&format!("{other:?}")),
        },
        other => clip(&format!("{other:?}")),
    }
}

fn name(text: &str) -> String {
    text.split(['(', ' ', '{']).next().unwrap_or_default().to_owned()
}

fn clip(text: &str) -> String {
    text.chars().take(120).collect()
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
        let page = self
            .read_as("read", session, move |world| {
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
            .map_err(ReadError::from)?;
        page
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
            std::fs::write(folder.join(&blob.sha256), &bytes)
                .map_err(|error| Unavailable::new("write a blob", error))?;
            Ok(blob)
        })
        .await?
    }

    async fn get_blob(&self, session: SessionId, sha256: &str) -> Result<File, BlobError> {
        let sha256 = sha256.to_owned();
        self.read_as("get blob", session, move |world| at_once(world.store.truth.get_blob(session, &sha256)))
            .await?
    }

    async fn flush(&self) -> Result<(), Unavailable> {
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
