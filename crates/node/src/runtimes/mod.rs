//! The processes of this machine, each behind its shim.
//!
//! ```text
//! launch ─► prepare (directory, launch.json, bound socket) ─► start the shim ─► serve ─► Gone
//!               └─ each step that fails: what was made is removed, Gone says why
//! adopt  ─────────────────────────────────────────────────────────────────────► serve ─► Gone
//!
//! serve: connect ─► Hello ─► Welcome ─► records in, orders out ─► connection ends ─┬─► shim lives: connect again
//!                      └─► what no shim of ours says: kill it, sweep, Gone        └─► shim gone: sweep, Gone
//! ```
//!
//! The shim's end is watched from the moment it exists; the socket is never the detector.

mod directory;
mod hold;
mod link;
mod lost;
mod resolve;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use outlive_core::diagnosis::Evidence;
use outlive_core::id::{ProcessKey, SessionId, Src};
use outlive_core::limits::{SHIM_GUARD_MS, SHIM_WINDOW_RECORDS_MAX};
use outlive_core::runtime::stop::StopLadder;
use outlive_process::{detached, is_same_process, machine_boot_id};
use outlive_protocol::shim::{self, ShimLaunch, ToShim};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::budget::Keep;
use crate::seams::{Clock, FoundShim, FromLink, Identity, LaunchOrder, Link, Runtimes};
use directory::Directory;
use hold::Holds;
use resolve::Resolved;

/// How many orders to one shim wait. They are small and rare; a full queue means a shim that does not read.
const ORDERS_MAX: usize = 1_024;

/// Real processes.
pub struct LocalRuntimes {
    inner: Arc<Inner>,
    tasks: TaskTracker,
}

pub(crate) struct Inner {
    /// The folder of all processes' directories.
    pub(crate) processes: PathBuf,
    /// Our own binary: it is the shim too.
    pub(crate) program: PathBuf,
    pub(crate) who: Identity,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ladder: StopLadder,
    pub(crate) keep: Keep,
    /// The folder in which Python environments are made.
    pub(crate) cache: PathBuf,
    /// How long a daemon of a cluster leaves a kernel to its shim without a word; `None` for a node that is alone.
    pub(crate) kernel_guard: Option<Duration>,
    holds: Holds,
}

impl LocalRuntimes {
    /// Processes whose directories stand in `processes`, with `program` as the shim. Its tasks are `tasks`'.
    pub fn new(
        processes: PathBuf,
        program: PathBuf,
        who: Identity,
        clock: Arc<dyn Clock>,
        tasks: TaskTracker,
    ) -> Self {
        let (ladder, keep) = (StopLadder::default(), Keep::default());
        let cache = processes.join("cache");
        let (kernel_guard, holds) = (None, Holds::default());
        let inner = Inner { processes, program, who, clock, ladder, keep, cache, kernel_guard, holds };
        Self { inner: Arc::new(inner), tasks }
    }

    /// The same with so much room for output that nobody takes, and Python environments made in `cache`.
    #[must_use]
    pub fn keeping(self, keep: Keep, cache: PathBuf) -> Self {
        self.with(|inner| (inner.keep, inner.cache) = (keep, cache))
    }

    /// The same on a node of a cluster: a shim that hears nothing of its daemon freezes its process, a kernel after this
    /// time, which is that for which other nodes leave it alone.
    #[must_use]
    pub fn guarded(self, kernel_grace: Duration) -> Self {
        self.with(|inner| inner.kernel_guard = Some(kernel_grace))
    }

    fn with(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::get_mut(&mut self.inner).expect("nothing is launched while it is made"));
        self
    }
}

struct Ends {
    to: mpsc::Receiver<ToShim>,
    from: mpsc::Sender<FromLink>,
}

fn link(process: ProcessKey) -> (Link, Ends) {
    let (to, orders) = mpsc::channel(ORDERS_MAX);
    let (records, from) = mpsc::channel(SHIM_WINDOW_RECORDS_MAX);
    (Link { process, to, from }, Ends { to: orders, from: records })
}

impl Runtimes for LocalRuntimes {
    fn launch(&self, order: LaunchOrder) -> Link {
        let (link, ends) = link(order.process);
        self.tasks.spawn(launch(Arc::clone(&self.inner), order, ends));
        link
    }

    fn adopt(&self, found: &FoundShim, acked: Src) -> Link {
        let (link, ends) = link(found.identity.process);
        let (inner, found) = (Arc::clone(&self.inner), found.clone());
        self.tasks.spawn(async move { adopt(inner, found, acked, ends).await });
        link
    }

    fn found(&self) -> Vec<FoundShim> {
        let boot = machine_boot_id().unwrap_or_default();
        directory::identities(&self.inner.processes)
            .into_iter()
            .map(|identity| FoundShim { of_earlier_boot: identity.machine_boot != boot, identity })
            .collect()
    }

    fn refuse(&self, found: &FoundShim, reason: &str) {
        let (inner, found, reason) = (Arc::clone(&self.inner), found.clone(), reason.to_owned());
        self.tasks.spawn(async move { refuse(inner, found, reason).await });
    }

    fn freeze_all(&self) {
        self.inner.holds.freeze_all();
    }

    fn stop_all(&self) {
        self.inner.holds.stop_all();
    }

    fn thaw(&self, session: SessionId) {
        self.inner.holds.thaw(session);
    }

    fn beat_all(&self) {
        self.inner.holds.beat_all(self.inner.clock.now().tick);
    }
}

async fn launch(inner: Arc<Inner>, mut order: LaunchOrder, mut ends: Ends) {
    let started_at = inner.clock.now().wall;
    let (session, process) = (order.session, order.process);
    let not_started = match resolve::resolve(&order, &inner.cache, &mut ends.to).await {
        Resolved::Ready(spec) => {
            order.spec = *spec;
            None
        }
        Resolved::Failed(evidence) => Some(Evidence { launch: Some(*evidence), ..Evidence::default() }),
        Resolved::Stopped(stop) => Some(Evidence { stop: Some(stop), ..Evidence::default() }),
        Resolved::Abandoned => return,
    };
    if let Some(evidence) = not_started {
        let report = lost::ended_before(&inner, process, started_at, evidence);
        let _heard = ends.from.send(FromLink::Gone { report: Some(Box::new(report)) }).await;
        return;
    }
    match start(&inner, order) {
        Ok((directory, shim)) => {
            link::serve(&inner, session, process, &directory, Some(shim), Src(0), ends).await;
        }
        Err(evidence) => {
            let report = lost::never_started(&inner, process, started_at, *evidence);
            let _heard = ends.from.send(FromLink::Gone { report: Some(Box::new(report)) }).await;
        }
    }
}

/// Every step that fails removes what was made before it.
fn start(
    inner: &Inner,
    order: LaunchOrder,
) -> Result<(Directory, outlive_process::Process), Box<outlive_core::diagnosis::evidence::LaunchEvidence>> {
    let directory = Directory::make(&inner.processes, order.process)?;
    let guard_ms = inner.kernel_guard.map(|kernel_grace| match order.spec.program.is_kernel() {
        true => u64::try_from(kernel_grace.as_millis()).unwrap_or(u64::MAX),
        false => SHIM_GUARD_MS,
    });
    let launch = ShimLaunch {
        version: shim::VERSION,
        session: order.session,
        process: order.process,
        node: inner.who.node,
        spec: order.spec,
        directory: directory.path().display().to_string(),
        blobs: order.blobs,
        ladder: inner.ladder,
        memory_bytes_max: inner.keep.memory_bytes(),
        spool_bytes_max: inner.keep.spool_bytes(),
        guard_ms,
    };
    let started = directory.write_launch(&launch).and_then(|()| directory.bind()).and_then(|listener| {
        let log = directory.open_log()?;
        let path = directory.path().display().to_string();
        detached::spawn(&inner.program, &["shim", &path], Some(listener.into()), log)
            .map_err(|error| directory::evidence("starting the shim", &inner.program, &error))
    });
    match started {
        Ok(shim) => Ok((directory, shim)),
        Err(evidence) => {
            directory.remove();
            Err(evidence)
        }
    }
}

async fn adopt(inner: Arc<Inner>, found: FoundShim, acked: Src, ends: Ends) {
    let FoundShim { identity, .. } = &found;
    let directory = match Directory::open(&inner.processes, identity.process) {
        Ok(directory) => directory,
        Err(error) => {
            tracing::warn!(process = %identity.process, %error, "a process's directory cannot be opened");
            let report = lost::shim_lost(&inner, &found.identity, found.of_earlier_boot, None, None).await;
            let _heard = ends.from.send(FromLink::Gone { report: Some(Box::new(report)) }).await;
            return;
        }
    };
    let shim = outlive_process::Process::open_same(identity.shim_pid, identity.shim_start).ok();
    if found.of_earlier_boot || shim.is_none() {
        let report = lost::shim_lost(&inner, identity, found.of_earlier_boot, None, None).await;
        directory.remove();
        let _heard = ends.from.send(FromLink::Gone { report: Some(Box::new(report)) }).await;
        return;
    }
    link::serve(&inner, identity.session, identity.process, &directory, shim, acked, ends).await;
}

async fn refuse(inner: Arc<Inner>, found: FoundShim, reason: String) {
    let FoundShim { identity, of_earlier_boot } = &found;
    let alive = !of_earlier_boot && is_same_process(identity.shim_pid, identity.shim_start);
    let directory = Directory::open(&inner.processes, identity.process);
    match (alive, directory) {
        (true, Ok(directory)) => {
            if let Err(error) = link::refuse(&inner, &directory, identity, &reason).await {
                // A shim whose directory is gone behaves as one that was refused.
                tracing::warn!(process = %identity.process, %error, "an unknown shim is not reached; its directory is removed");
                directory.remove();
            }
        }
        (_, directory) => {
            let _report = lost::shim_lost(&inner, identity, *of_earlier_boot, None, None).await;
            if let Ok(directory) = directory {
                directory.remove();
            }
        }
    }
}
