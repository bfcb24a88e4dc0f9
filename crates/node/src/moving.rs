//! Sessions on their way from one store to another: a daemon that was alone becomes one of several.
//!
//! A log is copied record by record, in its order. Positions are the store's own, so each that stands in a record (the
//! claim under which it was written, the control record before it, how far a snapshot goes) is put as the new store has
//! it; nothing else changes. What was copied before an interruption is compared and not written again, so that the last
//! pass of every copy is a comparison of the whole: the same records, and of each the same verdict of the fold.

use outlive_core::failover::Member;
use outlive_core::id::{Position, Revision, SessionId};
use outlive_core::log::fold::{Claim, Effect, Fold, Ownership, Verdict};
use outlive_core::log::record::{Control, ControlChange};
use outlive_core::log::{BlobRef, Entry, Fenced, FencedBody, Lane, Record};
use outlive_store::{
    AppendError, BlobError, Durability, Engine, Guard, LaneFilter, ReadError, ReadLimit, TableError,
};

use crate::context::{Indexed, Presence, SESSIONS};
use crate::session::notebook_record::DocumentRecord;

/// Tables that are copied as they are: who has vouched for what, and which group has which name.
const AS_THEY_ARE: [&str; 2] = ["trust", "runners"];
/// How often a copy goes on after the new store's answer was lost, without one record more in between.
const TRIES: u32 = 20;

/// Why a session was not moved. What was copied stays, and another try goes on behind it.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// A log cannot be read.
    #[error("its log cannot be read in the {which} store")]
    Read {
        /// `old` or `new`.
        which: &'static str,
        /// Why.
        source: ReadError,
    },
    /// The new store does not take a record.
    #[error("record {number} cannot be written to the new store")]
    Append {
        /// Which, from 1.
        number: u64,
        /// Why.
        source: AppendError,
    },
    /// A blob cannot be copied.
    #[error("the blob {sha256} cannot be copied")]
    Blob {
        /// Which.
        sha256: String,
        /// Why.
        source: BlobError,
    },
    /// A row cannot be copied.
    #[error("a row of the table {table} cannot be copied")]
    Table {
        /// Which table.
        table: &'static str,
        /// Why.
        source: TableError,
    },
    /// The same id holds something else in the new store.
    #[error(
        "record {number} is another one in the new store: a different session has this id, or it has gone on in both"
    )]
    Different {
        /// Which, from 1.
        number: u64,
    },
    /// The copy does not mean what the original means: a defect of ours.
    #[error(
        "record {number} means something else in the new store (a bug); nothing of the old store was changed"
    )]
    Meaning {
        /// Which, from 1.
        number: u64,
    },
    /// The log holds something that this version cannot write.
    #[error(
        "record {number} is of a kind that this version does not know: move it with the version that wrote it"
    )]
    UnknownKind {
        /// Which, from 1.
        number: u64,
    },
    /// The folder of blobs cannot be looked at.
    #[error("its blobs cannot be listed")]
    Listing(#[source] std::io::Error),
}

/// What moving a session has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Moved {
    /// Records in its log.
    pub records: u64,
    /// Of those, written now.
    pub written: u64,
    /// Blobs beside it.
    pub blobs: u64,
    /// Whether it was not there already.
    pub is_new: bool,
}

/// Copies a session, whole, and then its row, with which the new store's nodes see it. One that was open stays its
/// daemon's: when that daemon is a node, it takes up what runs; every other is free for any node.
///
/// # Errors
/// [`MoveError`].
pub async fn session(from: &dyn Engine, to: &dyn Engine, id: SessionId) -> Result<Moved, MoveError> {
    // The row is written last: what has one is there, and may have gone on since.
    let there = to.get(SESSIONS, &id.to_string()).await;
    if there.map_err(|source| MoveError::Table { table: SESSIONS, source })?.is_some() {
        return Ok(Moved { is_new: false, ..Moved::default() });
    }
    let blobs = blobs(from, to, id).await?;
    let (mut tries, mut written, mut reached) = (0, 0, 0);
    let copy = loop {
        let mut copy = Copy::default();
        match copy.run(from, to, id).await {
            Ok(0) => break copy,
            // All of it is there: it is compared once more, as the new store reads it.
            Ok(now) => written += now,
            Err(MoveError::Append { source: AppendError::Unknown | AppendError::Unavailable(_), .. })
                if tries < TRIES =>
            {
                tries = if copy.number > reached { 0 } else { tries + 1 };
                reached = reached.max(copy.number);
                written += copy.written;
            }
            Err(error) => return Err(error),
        }
    };
    row(from, to, id, &copy).await?;
    Ok(Moved { records: copy.number, written, blobs, is_new: true })
}

/// Copies what belongs to no session. What the new store has already stays.
///
/// # Errors
/// [`MoveError::Table`].
pub async fn tables(from: &dyn Engine, to: &dyn Engine) -> Result<u64, MoveError> {
    let mut rows = 0;
    for table in AS_THEY_ARE {
        let failed = |source| MoveError::Table { table, source };
        for row in from.scan(table, "").await.map_err(failed)? {
            rows += put(to, table, &row.key, &row.value).await?;
        }
    }
    Ok(rows)
}

/// Writes a row that is not there; how many were written.
async fn put(to: &dyn Engine, table: &'static str, key: &str, value: &[u8]) -> Result<u64, MoveError> {
    let mut tries = 0;
    loop {
        match to.put_if(table, key, Revision::default(), value).await {
            Ok(_) => return Ok(1),
            Err(TableError::Conflict { .. }) => return Ok(0),
            Err(TableError::Unknown) if tries < TRIES => tries += 1,
            Err(source) => return Err(MoveError::Table { table, source }),
        }
    }
}

async fn row(from: &dyn Engine, to: &dyn Engine, id: SessionId, copy: &Copy) -> Result<(), MoveError> {
    let failed = |source| MoveError::Table { table: SESSIONS, source };
    let row = from.get(SESSIONS, &id.to_string()).await.map_err(failed)?;
    let Some((row, mut indexed)) = row.and_then(|row| {
        let indexed = serde_json::from_slice::<Indexed>(&row.value).ok()?;
        Some((row, indexed))
    }) else {
        // Without a row nobody sees it, as before.
        return copy.release(to, id).await;
    };
    indexed.view.position = copy.at(indexed.view.position);
    indexed.view.loaded = false;
    match copy.folds.1.claim() {
        Some(claim) if indexed.presence == Presence::Open => {
            indexed.owner = Some(Member { node: claim.node, boot: claim.boot });
            indexed.epoch = claim.epoch;
            // The row of a daemon that is alone does not say whether its kernel lives.
            indexed.has_kernel = matches!(indexed.view.kind.as_str(), "notebook" | "kernel");
        }
        Some(_) | None => copy.release(to, id).await?,
    }
    let value = serde_json::to_vec(&indexed).expect("rows have string keys");
    put(to, SESSIONS, &row.key, &value).await.map(drop)
}

/// Copies the blobs before the log that names them.
async fn blobs(from: &dyn Engine, to: &dyn Engine, id: SessionId) -> Result<u64, MoveError> {
    let directory = from
        .blob_directory(id)
        .await
        .map_err(|source| MoveError::Blob { sha256: "(all)".to_owned(), source })?;
    let Some(directory) = directory else { return Ok(0) };
    let mut count = 0;
    let mut entries = tokio::fs::read_dir(&directory).await.map_err(MoveError::Listing)?;
    while let Some(entry) = entries.next_entry().await.map_err(MoveError::Listing)? {
        let path = entry.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        // What a shim was still writing has another name.
        if name.len() != 64 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            continue;
        }
        let size = entry.metadata().await.map_err(MoveError::Listing)?.len();
        let blob = BlobRef { sha256: name, size, mime: String::new() };
        let put = to.put_blob(id, &blob, &path).await;
        put.map_err(|source| MoveError::Blob { sha256: blob.sha256, source })?;
        count += 1;
    }
    Ok(count)
}

/// One pass over a log and its copy.
#[derive(Default)]
struct Copy {
    /// Records that were seen, and those of them that were written.
    number: u64,
    written: u64,
    /// Where each record stands in both, in order.
    places: Vec<(Position, Position)>,
    folds: (Fold, Fold),
    /// The last control record in the new store.
    control: Position,
}

impl Copy {
    /// Compares what is there and writes the rest; how many records were written.
    async fn run(&mut self, from: &dyn Engine, to: &dyn Engine, id: SessionId) -> Result<u64, MoveError> {
        let mut old = Reader::new(from, id, "old");
        // What is there, up to where it ends; what is written behind that is not read again.
        let mut new = Some(Reader::new(to, id, "new"));
        while let Some(entry) = old.next().await? {
            self.number += 1;
            let number = self.number;
            if matches!(entry.record, Record::Unknown { .. }) {
                return Err(MoveError::UnknownKind { number });
            }
            let record = self.translated(&entry.record);
            let there = match &mut new {
                Some(reader) => reader.next().await?,
                None => None,
            };
            let position = match there {
                Some(there) if there.lane == entry.lane && there.record == record => there.position,
                Some(_) => return Err(MoveError::Different { number }),
                None => {
                    new = None;
                    let guard = match entry.lane {
                        Lane::Control => Guard::Previous(self.control),
                        Lane::Requests => Guard::None,
                        Lane::Journal | Lane::Document | Lane::Run(_) | Lane::Runtime => {
                            Guard::Claim(self.control)
                        }
                    };
                    let appended = to.append(id, entry.lane, guard, &record, Durability::Written).await;
                    let position = appended.map_err(|source| MoveError::Append { number, source })?;
                    self.written += 1;
                    position
                }
            };
            self.take(entry, position, record)?;
        }
        Ok(self.written)
    }

    /// Both folds must say the same of the record.
    fn take(&mut self, entry: Entry, position: Position, record: Record) -> Result<(), MoveError> {
        self.places.push((entry.position, position));
        if entry.lane == Lane::Control {
            self.control = position;
        }
        let copy = Entry { position, lane: entry.lane, record };
        let (old, new) = (self.folds.0.push(&entry), self.folds.1.push(&copy));
        if self.meant(old) == new { Ok(()) } else { Err(MoveError::Meaning { number: self.number }) }
    }

    /// A verdict of the old store as the new one must give it.
    fn meant(&self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Counted(Effect::Claimed(claim)) => {
                Verdict::Counted(Effect::Claimed(Claim { position: self.exactly(claim.position), ..claim }))
            }
            other => other,
        }
    }

    /// Where a record stands in the new store; 0, where none stands, if there is no such record.
    fn exactly(&self, old: Position) -> Position {
        let found = self.places.binary_search_by_key(&old, |(old, _)| *old);
        found.map_or(Position(0), |place| self.places[place].1)
    }

    /// How far the new store is where the old one is at `old`.
    fn at(&self, old: Position) -> Position {
        let behind = self.places.partition_point(|(place, _)| *place <= old);
        behind.checked_sub(1).map_or(Position(0), |last| self.places[last].1)
    }

    /// A record as it stands in the new store.
    fn translated(&self, record: &Record) -> Record {
        match record {
            Record::Control(Control { prev, change }) => {
                let change = match change {
                    claim @ ControlChange::Claim { .. } => claim.clone(),
                    ControlChange::Release { claim, to } => {
                        ControlChange::Release { claim: self.exactly(*claim), to: *to }
                    }
                    ControlChange::Close { claim } => ControlChange::Close { claim: self.exactly(*claim) },
                };
                Record::Control(Control { prev: self.exactly(*prev), change })
            }
            Record::Fenced(fenced) => {
                let body = match &fenced.body {
                    FencedBody::Document(bytes) => FencedBody::Document(self.document(bytes)),
                    body => body.clone(),
                };
                Record::Fenced(Fenced { claim: self.exactly(fenced.claim), source: fenced.source, body })
            }
            other @ (Record::Request(_) | Record::Unknown { .. }) => other.clone(),
        }
    }

    /// A record of the document lane: a snapshot says up to where it goes.
    fn document(&self, bytes: &[u8]) -> Vec<u8> {
        match DocumentRecord::decode(bytes) {
            Some(DocumentRecord::Snapshot(mut snapshot)) if snapshot.through > Position(0) => {
                snapshot.through = self.at(snapshot.through);
                DocumentRecord::Snapshot(snapshot).encode()
            }
            _ => bytes.to_vec(),
        }
    }

    /// Gives the session to anybody: its claims are of a daemon that may never be a node of the cluster.
    async fn release(&self, to: &dyn Engine, id: SessionId) -> Result<(), MoveError> {
        let Ownership::Claimed(claim) = self.folds.1.ownership() else { return Ok(()) };
        let release = Control {
            prev: self.folds.1.control_prev(),
            change: ControlChange::Release { claim: claim.position, to: None },
        };
        let guard = Guard::Previous(self.folds.1.control_guard());
        let record = Record::Control(release);
        let mut tries = 0;
        loop {
            match to.append(id, Lane::Control, guard, &record, Durability::Synced).await {
                // It was given away before, and may have been taken.
                Ok(_) | Err(AppendError::Conflict { .. }) => return Ok(()),
                Err(AppendError::Unknown | AppendError::Unavailable(_)) if tries < TRIES => tries += 1,
                Err(source) => return Err(MoveError::Append { number: self.number + 1, source }),
            }
        }
    }
}

/// A log from its beginning, page by page.
struct Reader<'a> {
    engine: &'a dyn Engine,
    id: SessionId,
    which: &'static str,
    through: Position,
    page: std::vec::IntoIter<Entry>,
}

impl<'a> Reader<'a> {
    fn new(engine: &'a dyn Engine, id: SessionId, which: &'static str) -> Self {
        Self { engine, id, which, through: Position(0), page: Vec::new().into_iter() }
    }

    async fn next(&mut self) -> Result<Option<Entry>, MoveError> {
        loop {
            if let Some(entry) = self.page.next() {
                return Ok(Some(entry));
            }
            let read = self.engine.read(self.id, self.through, &LaneFilter::All, ReadLimit::default()).await;
            let page = read.map_err(|source| MoveError::Read { which: self.which, source })?;
            if page.through <= self.through {
                return Ok(None);
            }
            self.through = page.through;
            self.page = page.entries.into_iter();
        }
    }
}

#[cfg(test)]
mod tests;
