//! The contract of every engine. One suite, [`crate::conformance`], holds all of them to it.
//!
//! **Log.** Each session has one log with one total order over all its lanes. Positions rise strictly and may skip.
//! One record is one stored message: all of it or nothing. A guard is checked in the same atomic step as the append:
//!
//! | lane | guard | holds iff |
//! |---|---|---|
//! | control | [`Guard::Previous`] | the last control record stands there (0: there is none) |
//! | requests | [`Guard::None`] | always |
//! | every other | [`Guard::Claim`] | the last control record stands there |
//!
//! "Last" is the last that is *stored*, whether or not it counts: an owner takes its guard from
//! [`outlive_core::log::fold::Fold::control_guard`]. What counts is decided by the fold, above.
//!
//! A reader sees acknowledged records only, in log order, and a writer sees what was acknowledged to it. There is no
//! clock, lease or election here: those live above, once.
//!
//! **Errors.** `Conflict`, `TooLarge`, `Unavailable`: nothing was stored. `Unknown`: may be stored, re-read before a
//! retry. An append whose future is dropped is `Unknown` too.
//!
//! **Tables.** Rows with revisions and compare-and-swap; always durable when acknowledged.
//!
//! **Blobs.** Large payloads beside a session's log, named by their SHA-256; they go with their session, or when nothing
//! names them any more. Whoever removes some has listed them *before* it looked at what is named: to put a blob that is
//! there already puts it anew, so that it is not the one that was listed and stays. A node that stood still between the
//! two removes nothing that another has named since.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use outlive_core::id::{Position, Revision, SessionId};
use outlive_core::limits::{READ_BYTES_MAX, READ_RECORDS_MAX};
use outlive_core::log::{BlobRef, Entry, Lane, Record};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::error::{AppendError, BlobError, ReadError, TableError, Unavailable};
use crate::table::{Row, TableWatch};

/// On what an append depends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Guard {
    /// Fenced lanes: the last control record is this Claim.
    Claim(Position),
    /// Control lane: compare-and-swap on the last control record; 0 for the first.
    Previous(Position),
    /// Requests: nothing.
    None,
}

impl Guard {
    /// Whether the guard holds.
    ///
    /// # Errors
    /// [`AppendError::Conflict`].
    ///
    /// # Panics
    /// When the guard does not belong to the lane: a bug of the caller, who could write unfenced otherwise.
    pub fn check(self, lane: Lane, last_control: Position) -> Result<(), AppendError> {
        let expected = match (self, lane) {
            (Self::Previous(position), Lane::Control)
            | (Self::Claim(position), Lane::Journal | Lane::Document | Lane::Run(_) | Lane::Runtime) => {
                position
            }
            (Self::None, Lane::Requests) => return Ok(()),
            (guard, lane) => panic!("{guard:?} does not guard {lane:?}"),
        };
        if expected == last_control { Ok(()) } else { Err(AppendError::Conflict { last_control }) }
    }
}

/// What an acknowledgement means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// It survives the death of any process; a loss of power within `FSYNC_MS` may take it.
    Written,
    /// It survives a loss of power.
    Synced,
}

/// Which lanes a reader wants.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum LaneFilter {
    /// Every lane.
    #[default]
    All,
    /// These lanes. A reader of one run also wants `Control`, without which it cannot fold.
    Only(Vec<Lane>),
}

impl LaneFilter {
    /// Whether records of this lane are wanted.
    #[must_use]
    pub fn wants(&self, lane: Lane) -> bool {
        match self {
            Self::All => true,
            Self::Only(lanes) => lanes.contains(&lane),
        }
    }
}

/// How much one read returns at most; at least one record, if there is any.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadLimit {
    /// Records.
    pub records: usize,
    /// Bytes of the records' encoded bodies.
    pub bytes: usize,
}

impl Default for ReadLimit {
    fn default() -> Self {
        Self { records: READ_RECORDS_MAX, bytes: READ_BYTES_MAX }
    }
}

/// What a read returns.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Page {
    /// Records in log order.
    pub entries: Vec<Entry>,
    /// The log has been looked at up to here: read on from it. Equal to `after` when there was nothing new.
    pub through: Position,
}

/// What a session takes up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Its log, in bytes.
    pub log_bytes: u64,
    /// Its blobs, in bytes.
    pub blob_bytes: u64,
}

/// What the recovery of a damaged log had to leave out. Never silent: it is kept with the session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Dropped {
    /// The last good record before the damage.
    pub last_good: Position,
    /// How many bytes were dropped.
    pub bytes: u64,
    /// How many whole records were found in them; they cannot count without what is missing before them.
    pub records: u64,
    /// What was found, for people.
    pub what: String,
    /// Files in the session's folder that hold what was dropped; none for a record that was never whole.
    pub aside: Vec<String>,
}

/// How the tables are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TablesState {
    /// Why no row can be written now.
    pub refused: Option<String>,
    /// How many writes have failed since the engine was opened.
    pub failed: u64,
    /// Files of tables that were damaged and put aside; what they held is known from the logs alone.
    pub put_aside: Vec<PathBuf>,
}

/// Which put of a blob is meant: another one after each put, also of what was there already. Only its engine knows more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct BlobStamp {
    /// In the store.
    pub stored: u64,
    /// In the folder of this machine, where that is another place.
    pub spooled: u64,
}

/// Where logs, tables and blobs are kept. See the module's page for the contract.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Appends one record. Returns when readers can see it and `durability` holds.
    ///
    /// # Errors
    /// See [`AppendError`]; only after `Unknown` may the record be stored.
    ///
    /// # Panics
    /// When `guard` does not belong to `lane`.
    async fn append(
        &self,
        session: SessionId,
        lane: Lane,
        guard: Guard,
        record: &Record,
        durability: Durability,
    ) -> Result<Position, AppendError>;

    /// Acknowledged records behind `after`, in log order. A session that nobody has written to is empty.
    ///
    /// # Errors
    /// [`ReadError`]; never an empty success instead.
    async fn read(
        &self,
        session: SessionId,
        after: Position,
        lanes: &LaneFilter,
        limit: ReadLimit,
    ) -> Result<Page, ReadError>;

    /// The last position that can be read, live. Closed when the session is dropped or closed here.
    ///
    /// # Errors
    /// [`ReadError`].
    async fn head(&self, session: SessionId) -> Result<watch::Receiver<Position>, ReadError>;

    /// Every session that has a log, in order of their ids.
    ///
    /// # Errors
    /// [`ReadError`].
    async fn sessions(&self) -> Result<Vec<SessionId>, ReadError>;

    /// What had to be left out when this session's log was recovered, ever; oldest first. Recovers nothing itself.
    ///
    /// # Errors
    /// [`ReadError`].
    async fn dropped(&self, session: SessionId) -> Result<Vec<Dropped>, ReadError>;

    /// [`Self::dropped`] of all sessions, in order of their ids, without looking into any log.
    ///
    /// # Errors
    /// [`ReadError`].
    async fn all_dropped(&self) -> Result<Vec<(SessionId, Dropped)>, ReadError>;

    /// May remove records of these lanes before `before`; never of the control lane, which the fold needs whole. Of the
    /// document lane, more than twice `TRIM_BYTES_MIN` that can go does go. Returns how many bytes were freed.
    ///
    /// # Errors
    /// [`ReadError`]; the log is as before then.
    async fn trim(
        &self,
        session: SessionId,
        lanes: &BTreeSet<Lane>,
        before: Position,
    ) -> Result<u64, ReadError>;

    /// Removes a session's log and blobs, at once.
    ///
    /// # Errors
    /// [`Unavailable`]; something of it may be left then.
    async fn drop_session(&self, session: SessionId) -> Result<(), Unavailable>;

    /// Forgets what is held in memory or open for a session; all of it stays stored. For evicted sessions.
    async fn close_session(&self, session: SessionId);

    /// What a session takes up.
    ///
    /// # Errors
    /// [`ReadError`].
    async fn usage(&self, session: SessionId) -> Result<Usage, ReadError>;

    /// A row.
    ///
    /// # Errors
    /// [`TableError::Unavailable`].
    async fn get(&self, table: &str, key: &str) -> Result<Option<Row>, TableError>;

    /// Writes a row iff it is at revision `expected` (0: iff there is none). Returns its new revision.
    ///
    /// # Errors
    /// [`TableError`].
    async fn put_if(
        &self,
        table: &str,
        key: &str,
        expected: Revision,
        value: &[u8],
    ) -> Result<Revision, TableError>;

    /// Deletes a row iff it is at revision `expected`.
    ///
    /// # Errors
    /// [`TableError`].
    async fn delete_if(&self, table: &str, key: &str, expected: Revision) -> Result<(), TableError>;

    /// The rows whose keys begin with `prefix`, in order of their keys.
    ///
    /// # Errors
    /// [`TableError::Unavailable`].
    async fn scan(&self, table: &str, prefix: &str) -> Result<Vec<Row>, TableError>;

    /// As [`Self::scan`], then every change. Nothing falls between the two.
    ///
    /// # Errors
    /// [`TableError::Unavailable`].
    async fn watch(&self, table: &str, prefix: &str) -> Result<TableWatch, TableError>;

    /// How the tables are. Where the last write failed, another is tried, which changes nothing.
    async fn tables(&self) -> TablesState {
        TablesState::default()
    }

    /// The folder in which a shim may put a session's blobs itself (temporary name, fsync, rename to the SHA-256; one
    /// that is there gets a new time of modification); made if it is not there. `None`: this engine takes them by [`Self::put_blob`] alone.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`].
    async fn blob_directory(&self, session: SessionId) -> Result<Option<PathBuf>, BlobError>;

    /// Puts the content of `file` as this blob. One that is there already is put anew: it is not old any more. Durable
    /// when it returns.
    ///
    /// # Errors
    /// [`BlobError::Mismatch`] when size or hash is not what `blob` says.
    async fn put_blob(&self, session: SessionId, blob: &BlobRef, file: &Path) -> Result<(), BlobError>;

    /// Puts these bytes as a blob of this MIME type. Durable when it returns: a record may name it then.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`].
    async fn put_blob_bytes(
        &self,
        session: SessionId,
        bytes: &[u8],
        mime: &str,
    ) -> Result<BlobRef, BlobError>;

    /// Opens a blob for reading from its start.
    ///
    /// # Errors
    /// [`BlobError::Missing`].
    async fn get_blob(&self, session: SessionId, sha256: &str) -> Result<File, BlobError>;

    /// The blobs that were put longer than this ago, by a clock that may be minutes off; all of them if it is nothing.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`].
    async fn old_blobs(
        &self,
        session: SessionId,
        age: Duration,
    ) -> Result<BTreeMap<String, BlobStamp>, BlobError>;

    /// Removes these blobs, but for those that were put again since they were listed. One that is not there is none.
    /// Returns how many bytes were freed.
    ///
    /// # Errors
    /// [`BlobError`]; some of them may be left then.
    async fn remove_blobs(
        &self,
        session: SessionId,
        listed: &BTreeMap<String, BlobStamp>,
    ) -> Result<u64, BlobError>;

    /// Everything acknowledged so far is durable when this returns.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn flush(&self) -> Result<(), Unavailable>;
}
