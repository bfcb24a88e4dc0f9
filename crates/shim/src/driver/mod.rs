//! The one task that owns everything of a shim: it takes one event at a time and acts on it.
//!
//! ```text
//! Waiting ──first Execute (command) / start (others)──► Supervising{Alive} ──pidfd──► Supervising{Draining} ──► Ended
//!    └─────────── Stop, Refuse, or a launch that fails ────────────────────────────────────────────────────────►
//! ```
//! Order of events: the exit, the daemon's wishes, deadlines, records to the daemon, and output last, so that no
//! amount of output delays an interrupt (A16). Output is read only while the journal has room (D4).

mod daemon;
mod evidence;
mod exit;
mod freeze;
mod launch;
mod output;
mod stop;
mod story;
mod tasks;
mod work;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use outlive_core::diagnosis::evidence::Evidence;
use outlive_core::limits::{COALESCE_BYTES_MAX, SUSPENDED_MS};
use outlive_core::time::{Now, Tick};
use outlive_process::reap::reap_orphans;
use outlive_protocol::shim::{Notice, OpenQuestion, ShimIdentity, ShimLaunch, StateNotice};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::OwnedWriteHalf;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::clock::{instant, now};
use crate::journal::Journal;
use crate::kernel::Happened;
use crate::ladder::Stopping;
use crate::link::{ConnectionId, Link, LinkEvent};
use crate::runner;
use freeze::Guard;
use launch::Supervised;
use output::{BlobWritten, Piped};
use story::Story;

/// Time between two looks at whether anybody can still find this shim, in milliseconds.
const FOUND_CHECK_MS: u64 = 10_000;

/// Everything of one shim.
pub(crate) struct Driver {
    launch: ShimLaunch,
    directory: PathBuf,
    identity: ShimIdentity,
    journal: Journal,
    link: Link,
    peer: Option<Peer>,
    life: Life,
    stopping: Option<Stopping>,
    /// The last question, answered or not.
    asked: Option<OpenQuestion>,
    story: Story,
    fate: Fate,
    orphans: Signal,
    found_check_at: Tick,
    /// Who keeps the process from running, and since when.
    frozen: Option<(freeze::By, Tick)>,
    guard: Option<Guard>,
}

/// The daemon's connection of now.
struct Peer {
    id: ConnectionId,
    writer: OwnedWriteHalf,
    /// Dropping it closes the reading side.
    _open: oneshot::Sender<()>,
    outbox: BytesMut,
}

/// How far the process is.
enum Life {
    /// A command that was not executed yet.
    Waiting,
    Supervising(Box<Supervised>),
    Ended,
}

/// What becomes of the shim when its process has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// It waits until a daemon has stored its records and says goodbye.
    Waits,
    /// Its records are stored.
    Goodbye,
    /// No daemon will ever take them.
    Disowned,
}

enum Event {
    Exited,
    Link(LinkEvent),
    Alarm,
    Deadline,
    ChildEnded,
    Written(io::Result<()>),
    Blob(BlobWritten),
    Killed(usize),
    Kernel(Happened),
    Runner(runner::Happened),
    Piped(Piped),
}

impl Driver {
    /// # Errors
    /// When the signal handler for SIGCHLD cannot be installed.
    pub(crate) fn new(launch: ShimLaunch, identity: ShimIdentity, link: Link) -> io::Result<Self> {
        let directory = PathBuf::from(&launch.directory);
        let journal = Journal::new(&directory, launch.memory_bytes_max, launch.spool_bytes_max);
        Ok(Self {
            directory,
            identity,
            journal,
            link,
            peer: None,
            life: Life::Waiting,
            stopping: None,
            asked: None,
            story: Story::default(),
            fate: Fate::Waits,
            orphans: signal(SignalKind::child())?,
            found_check_at: now().tick + Duration::from_millis(FOUND_CHECK_MS),
            frozen: None,
            guard: Guard::of(launch.guard_ms),
            launch,
        })
    }

    /// Lives until the process has ended and nobody needs its records any more; then removes what it made.
    pub(crate) async fn live(mut self) {
        self.start_at_once(now());
        while !self.is_over() {
            let event = self.next().await;
            let now = now();
            match event {
                Event::Exited => self.on_exit(now).await,
                Event::Link(event) => self.on_link(event, now),
                Event::Alarm => self.on_alarm(now),
                Event::Deadline => self.on_deadline(now),
                Event::ChildEnded => self.on_child_ended(),
                Event::Written(Ok(())) => {}
                Event::Written(Err(error)) => {
                    tracing::info!(%error, "the daemon's connection is gone");
                    self.peer = None;
                }
                Event::Blob(written) => self.on_blob(written, now),
                Event::Killed(count) => self.on_killed(count),
                Event::Kernel(happened) => self.on_kernel(happened, now),
                Event::Runner(happened) => self.on_runner(happened, now),
                Event::Piped(piped) => self.on_piped(piped, now),
            }
            self.hold_or_release(now);
            self.finish_draining(now);
        }
        self.link.remove_socket();
        // blocks: nothing is left to wait for it
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            tracing::debug!(%error, "the process's directory could not be removed");
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.life, Life::Ended) && self.fate != Fate::Waits
    }

    async fn next(&mut self) -> Event {
        let deadline = self.next_deadline();
        let is_full = self.journal.is_full();
        let Self { link, peer, life, journal, orphans, guard, .. } = self;
        let mut watched = match life {
            Life::Supervising(supervised) => supervised.watched(is_full),
            Life::Waiting | Life::Ended => launch::Watched::default(),
        };
        tokio::select! {
            biased;
            () = watched.exit.next() => Event::Exited,
            event = link.next() => Event::Link(event),
            () = Guard::rings(guard) => Event::Alarm,
            () = until(deadline) => Event::Deadline,
            _ = orphans.recv() => Event::ChildEnded,
            result = send(peer, journal) => Event::Written(result),
            written = watched.blob.next() => Event::Blob(written),
            count = watched.killing.next() => Event::Killed(count),
            happened = watched.kernel.next() => Event::Kernel(happened),
            // Neither waits for the other: a flood on one must not keep a program from writing to the other.
            said = either(watched.runner.next(), watched.pipes.next()) => said,
        }
    }

    fn record(&mut self, state: StateNotice, now: Now) {
        self.story.note(&state);
        self.journal.append(now.wall, Notice::State(state));
    }

    fn next_deadline(&self) -> Tick {
        let supervised = match &self.life {
            // What does not run does nothing in time.
            Life::Supervising(supervised) if self.frozen.is_some() && supervised.is_alive() => None,
            Life::Supervising(supervised) => supervised.next_deadline(),
            Life::Waiting | Life::Ended => None,
        };
        let stopping = self.stopping.as_ref().and_then(Stopping::next_deadline);
        [supervised, stopping].into_iter().flatten().fold(self.found_check_at, Tick::min)
    }

    fn on_deadline(&mut self, now: Now) {
        let late = now.tick.since(self.next_deadline());
        if late > Duration::from_millis(SUSPENDED_MS) {
            self.stood_still(now);
        }
        if now.tick >= self.found_check_at {
            self.found_check_at = now.tick + Duration::from_millis(FOUND_CHECK_MS);
            self.check_found(now);
        }
        self.climb(now);
        if self.frozen.is_none() {
            self.deliver_interrupt(now);
            self.on_supervised_deadline(now);
        }
    }

    /// Without its directory no daemon can ever find this shim: then it behaves as one that was refused.
    fn check_found(&mut self, now: Now) {
        self.journal.recheck_disk();
        let is_gone =
            std::fs::metadata(&self.directory).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        if is_gone && self.peer.is_none() {
            self.disown("its directory was removed", now);
        }
    }

    fn on_child_ended(&mut self) {
        let spared = match &self.life {
            Life::Supervising(supervised) => supervised.unreaped_pid(),
            Life::Waiting | Life::Ended => None,
        };
        reap_orphans(spared);
    }

    /// The last records, when there is no process (any more).
    fn record_end(&mut self, report: outlive_core::runtime::ExitReport, now: Now) {
        let evidence: Box<Evidence> = Box::new(report.evidence.clone());
        self.record(StateNotice::Exited { report: Box::new(report) }, now);
        self.record(StateNotice::Drained { evidence }, now);
        self.life = Life::Ended;
    }
}

/// What comes first of a runner's channel and its pipes, in no order.
async fn either(runner: impl Future<Output = runner::Happened>, pipes: impl Future<Output = Piped>) -> Event {
    tokio::select! {
        happened = runner => Event::Runner(happened),
        piped = pipes => Event::Piped(piped),
    }
}

async fn until(deadline: Tick) {
    tokio::time::sleep_until(instant(deadline)).await;
}

/// Writes what is due to the daemon, some of it at a time. Cancel-safe: what was written is taken off the outbox in
/// the same turn.
async fn send(peer: &mut Option<Peer>, journal: &mut Journal) -> io::Result<()> {
    let Some(peer) = peer else { return std::future::pending().await };
    while peer.outbox.len() < COALESCE_BYTES_MAX {
        let Some(frame) = journal.next_to_send() else { break };
        peer.outbox.extend_from_slice(&frame);
    }
    if peer.outbox.is_empty() {
        return std::future::pending().await;
    }
    let count = peer.writer.write(&peer.outbox).await?;
    peer.outbox.advance(count);
    Ok(())
}
