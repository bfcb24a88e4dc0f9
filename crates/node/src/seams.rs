//! The seams through which alone a node reaches the world: `Engine` (in `outlive-store`), [`Runtimes`], [`Files`],
//! [`Bus`] and [`Clock`]. A simulation replaces all of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use outlive_core::id::{BootId, NodeId, ProcessKey, SessionId, Src};
use outlive_core::log::Entry;
use outlive_core::runtime::{ExitReport, LaunchSpec};
use outlive_core::session::spec::Trust;
use outlive_core::time::{Now, Tick};
use outlive_document::file::{FileMeta, FileStamp, ReadError, WriteError};
use outlive_protocol::http::Problem;
use outlive_protocol::shim::{Numbered, ShimIdentity, ToShim, Welcome};
use outlive_store::LaneFilter;
use tokio::sync::{mpsc, watch};

use crate::bus::{Held, Severed, Tail};

/// Time.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// The present.
    fn now(&self) -> Now;
    /// Returns when `tick` has come. Cancel-safe.
    async fn until(&self, tick: Tick);
}

/// A process's shim, from the daemon's side. Dropping it lets the shim go on by itself.
#[derive(Debug)]
pub struct Link {
    /// The process that the shim holds.
    pub process: ProcessKey,
    /// To the shim.
    pub to: mpsc::Sender<ToShim>,
    /// From the shim.
    pub from: mpsc::Receiver<FromLink>,
}

/// What comes over a link.
#[derive(Debug)]
pub enum FromLink {
    /// The shim has proved itself, for the first time or after a broken connection.
    Welcome(Box<Welcome>),
    /// A record, in order, none twice on one connection.
    Record(Numbered),
    /// The last message: the shim is gone and so is everything that it held.
    Gone {
        /// The end of the process as it looks without its shim; `None` when the shim had said all itself.
        report: Option<Box<ExitReport>>,
    },
}

/// What a launch needs beside its specification.
#[derive(Clone, Debug)]
pub struct LaunchOrder {
    /// The session it is for.
    pub session: SessionId,
    /// The process to start.
    pub process: ProcessKey,
    /// How.
    pub spec: LaunchSpec,
    /// The session's folder of blobs.
    pub blobs: String,
    /// Whether something may be installed for it.
    pub trust: Trust,
}

/// A shim that was found at start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundShim {
    /// Who it says it is; proved again when it is adopted.
    pub identity: ShimIdentity,
    /// Whether the machine has been restarted since it was launched, so that neither it nor its process can live.
    pub of_earlier_boot: bool,
}

/// The processes of this machine.
pub trait Runtimes: Send + Sync + 'static {
    /// Starts a shim with its process. Never fails: a launch that does not succeed says so over the link, and
    /// leaves nothing behind.
    fn launch(&self, order: LaunchOrder) -> Link;
    /// Takes up a shim that an earlier daemon started; everything up to `acked` is stored already.
    fn adopt(&self, found: &FoundShim, acked: Src) -> Link;
    /// The shims that an earlier daemon left.
    fn found(&self) -> Vec<FoundShim>;
    /// Tells a shim that nobody knows it: it stops its process and ends.
    fn refuse(&self, found: &FoundShim, reason: &str);
    /// Freezes every process that is linked here; frozen ones stay so. Goes to the shims directly and never waits:
    /// sessions' tasks may be waiting for a store that does not answer.
    fn freeze_all(&self) {}
    /// Ends every process that is linked here, in the same way.
    fn stop_all(&self) {}
    /// Lets every process of a session go on where it was frozen, by us or by its shim's own guard; one that was not is
    /// left alone.
    fn thaw(&self, session: SessionId) {
        let _nothing_is_frozen = session;
    }
    /// Tells every shim that its daemon is there and is one of the cluster: its own guard stays quiet.
    fn beat_all(&self) {}
}

/// A path that this daemon holds for a session. Given back when it is dropped.
#[async_trait]
pub trait PathClaim: Send + Sync + std::fmt::Debug {
    /// The path as [`Files::resolve`] gave it.
    fn path(&self) -> &Path;
    /// What has become of it since: directories are moved and replaced, also by links, and lock files removed.
    async fn standing(&self) -> Standing {
        Standing::Stands
    }
}

/// What a claim is worth.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Nobody else has what its path leads to, if it leads anywhere.
    Stands,
    /// Its path leads to something that it is not on: it must be taken anew.
    Lapsed,
    /// Its path is, or goes through, a link by now, which leads here.
    Elsewhere(PathBuf),
}

/// Why a path cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Somebody holds it.
    #[error("{path} is in use by session {session}")]
    Held {
        /// The path as the holder has it.
        path: String,
        /// The holder.
        session: SessionId,
        /// The holder's daemon, by pid.
        pid: u32,
    },
    /// A path that depends on where somebody stands: only who asks knows where that is.
    #[error("{path:?} is relative; give an absolute path")]
    Relative {
        /// The path.
        path: String,
    },
    /// A session's id where a path belongs: nobody wants a file of that name.
    #[error("{path:?} is a session's id and not a path; open the session by its id")]
    UseTheId {
        /// The id, as it was given.
        path: String,
    },
    /// It is or names what no notebook can be.
    #[error("{path:?} cannot be a notebook: {why}")]
    BadPath {
        /// The path.
        path: String,
        /// Why.
        why: &'static str,
    },
    /// Its directory is missing; directories are not made for a notebook.
    #[error("{path:?} cannot be there: there is no directory {directory:?}")]
    MissingDirectory {
        /// The path.
        path: String,
        /// The directory that would hold it.
        directory: String,
    },
    /// Where its directory would be is something else.
    #[error("{path:?} cannot be there: {file:?} is no directory")]
    NoDirectory {
        /// The path.
        path: String,
        /// What stands there instead of a directory.
        file: String,
    },
    /// It was a file of its own, and is or goes through a link by now.
    #[error(
        "{path} leads to {to} by now, which is another notebook's file; nothing is written through a link that was not there before"
    )]
    Elsewhere {
        /// The path.
        path: String,
        /// Where it leads.
        to: String,
    },
    /// It cannot be written, now or later.
    #[error("{path} cannot be written")]
    NotWritable {
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is on a volume that this node does not reach.
    #[error("{path} is on volume {volume}, which this node does not have")]
    VolumeNotHere {
        /// The path, as a node has it that does.
        path: String,
        /// The volume.
        volume: String,
        /// Who has it, in words.
        nodes: String,
    },
    /// The path cannot be resolved.
    #[error("{path} cannot be resolved")]
    Unresolvable {
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The claim cannot be recorded.
    #[error("a claim for {path} cannot be recorded")]
    Io {
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What may have become of a watched file. Only a hint: who is told looks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FileHint {
    /// It may have been changed, removed, made or put in its place.
    Changed,
    /// It has another name now, and nothing has its own.
    Renamed(PathBuf),
    /// Something may have been missed.
    Rescan,
}

/// A file that is watched until this is dropped.
#[async_trait]
pub trait FileWatch: Send {
    /// The next hint. Cancel-safe: what was not returned is returned by the next call.
    ///
    /// The first comes without a cause, once the watch stands: what happened before that is found by looking.
    /// A burst of changes is told once, when it pauses, and in any case soon after its first.
    async fn changed(&mut self) -> FileHint;
}

/// How well files are watched.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct WatchState {
    /// How many files are watched.
    pub watches: usize,
    /// How many of them by looking at them now and then, because the kernel does not tell.
    pub polled: usize,
    /// What the kernel lacks.
    pub why: Option<String>,
}

/// The files of this machine.
#[async_trait]
pub trait Files: Send + Sync + 'static {
    /// Where a notebook really is or will be: absolute, without links and detours, the same for each of its spellings.
    /// `path` must be absolute; what it names need not exist yet, but its directory must.
    async fn resolve(&self, path: &Path) -> Result<PathBuf, ClaimError>;
    /// Claims a path for a session, against every daemon of this machine and user. Resolves it, and removes what
    /// writers of it that died have left.
    async fn claim(&self, path: &Path, session: SessionId) -> Result<Box<dyn PathClaim>, ClaimError>;
    /// Reads a file whole.
    async fn read(&self, path: &Path) -> Result<(Vec<u8>, FileStamp), ReadError>;
    /// Replaces a file atomically, if it is still what `expected` says (`None`: nothing is there).
    async fn write(
        &self,
        path: &Path,
        bytes: Vec<u8>,
        expected: Option<FileStamp>,
    ) -> Result<FileStamp, WriteError>;
    /// Looks at a file without reading it; `None` when there is none.
    async fn stat(&self, path: &Path) -> std::io::Result<Option<FileMeta>>;
    /// The file of this directory with that inode number: perhaps the one that was renamed. The number of a deleted
    /// file is given to another one soon, so whoever asks compares more than that.
    async fn find_inode(&self, directory: &Path, inode: u64) -> Option<PathBuf>;
    /// Watches a file, whether it exists or not. Never fails: where the kernel cannot watch, it is looked at now and
    /// then.
    fn watch(&self, path: &Path) -> Box<dyn FileWatch>;
    /// How well files are watched at this moment.
    fn watching(&self) -> WatchState;
    /// How many claims are held.
    fn claims(&self) -> usize;
}

/// Publish and subscribe: the live tails of sessions.
pub trait Bus: Send + Sync + 'static {
    /// Tells everybody who watches the session. Entries are acknowledged by the engine before.
    fn publish(&self, session: SessionId, entry: Arc<Entry>);
    /// What is published of these lanes from now on. Who falls behind is told how far, and reads from the log.
    fn subscribe(&self, session: SessionId, lanes: LaneFilter) -> Tail;
    /// The task that published is gone.
    fn close(&self, session: SessionId);
    /// What is published from now on does not follow on what was: subscribers read the log again.
    fn moved(&self, session: SessionId);
    /// Nothing of the session can be heard, for this reason.
    fn fail(&self, session: SessionId, why: Problem);
    /// This node is the one that writes the session, and publishes what it writes, until what is returned is dropped.
    fn own(&self, _session: SessionId) -> Held {
        Box::new(())
    }
    /// Whether somebody hears sessions of other nodes through this one: then the engine's hold on it is not let go.
    fn is_followed(&self, _session: SessionId) -> bool {
        false
    }
    /// Nobody may watch anything from now on, for this reason.
    fn sever(&self, why: Problem);
    /// Everybody may watch again.
    fn mend(&self);
    /// Whether nobody may watch, live.
    fn severed(&self) -> watch::Receiver<Severed>;
}

/// Who a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// This start of it.
    pub boot: BootId,
}
