//! The end of the process, told at once; then what it left behind.
//!
//! ```text
//! pidfd ─► waitid, channel and pipes to EAGAIN, evidence ─► Exited      (P1: nothing above waits)
//!       ─► kill what is left · sockets until closed, at most DRAIN_MS ─► Drained
//! ```

use std::time::Duration;

use outlive_core::diagnosis::evidence::Evidence;
use outlive_core::limits::DRAIN_MS;
use outlive_core::runtime::{ExitReport, ExitStatus};
use outlive_core::time::{Now, Tick};
use outlive_process::reap::reap_orphans;
use outlive_process::stop::kill_all;
use outlive_protocol::shim::StateNotice;

use super::tasks::Pace;
use super::work::Work;
use super::{Driver, Life};

/// Whether the process lives.
pub(super) enum Exit {
    Alive,
    Draining(Draining),
}

/// What is still to come of an ended process.
pub(super) struct Draining {
    evidence: Box<Evidence>,
    rss_bytes_peak: Option<u64>,
    until: Tick,
    patience: Patience,
}

/// How long what was left behind is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Patience {
    Waits,
    /// `until` has passed.
    Late,
    /// Everybody who could write is gone, and what they wrote was read.
    HeardOut,
}

impl Draining {
    pub(super) fn next_deadline(&self) -> Option<Tick> {
        (self.patience == Patience::Waits).then_some(self.until)
    }
}

impl Driver {
    pub(super) async fn on_exit(&mut self, now: Now) {
        let Life::Supervising(supervised) = &mut self.life else { return };
        let reaped = match supervised.process.reap() {
            Ok(Some(reaped)) => Some(reaped),
            // The pidfd is readable a moment before the last thread can be waited for: it fires again.
            Ok(None) => return,
            Err(error) => {
                tracing::error!(%error, "the exit status was taken by somebody else");
                None
            }
        };
        reap_orphans(None);
        self.hear_out(now).await;
        self.drain_pipes(now);
        self.close_gap(now);
        let Some(evidence) = self.evidence(reaped, now) else { return };
        let Life::Supervising(supervised) = &mut self.life else { return };
        let report = ExitReport {
            process: self.launch.process,
            pid: Some(supervised.process.pid()),
            started_at: supervised.started.wall,
            exited_at: now.wall,
            status: reaped.map_or(ExitStatus::Unknown, |reaped| reaped.status),
            evidence: evidence.clone(),
        };
        supervised.pulse.stop();
        let (container, group) = (supervised.container.clone(), supervised.process.pid());
        supervised.killing.spawn(async move { kill_all(&container, Some(group), None).await });
        supervised.exit = Exit::Draining(Draining {
            evidence: Box::new(evidence),
            rss_bytes_peak: reaped.map(|reaped| reaped.rss_bytes_peak),
            until: now.tick + Duration::from_millis(DRAIN_MS),
            patience: Patience::Waits,
        });
        self.record(StateNotice::Exited { report: Box::new(report) }, now);
    }

    pub(super) fn on_killed(&mut self, count: usize) {
        if count > 0 {
            tracing::info!(count, "processes that were left behind were killed");
        }
    }

    /// Ends the draining when nothing more can come.
    pub(super) fn finish_draining(&mut self, now: Now) {
        let Life::Supervising(supervised) = &mut self.life else { return };
        let Exit::Draining(draining) = &mut supervised.exit else { return };
        if draining.patience == Patience::Waits && now.tick >= draining.until {
            draining.patience = Patience::Late;
        }
        let is_quiet = match &supervised.work {
            Work::Kernel(kernel) => {
                kernel.is_drained() || (draining.patience != Patience::Waits && !kernel.has_said())
            }
            Work::Runner(runner) => !runner.has_more(),
            Work::Command(_) | Work::Mute => true,
        };
        if !is_quiet || supervised.blob.is_some() || !supervised.killing.is_empty() {
            return;
        }
        // Grandchildren may have written until they were killed.
        if draining.patience != Patience::HeardOut {
            draining.patience = Patience::HeardOut;
            reap_orphans(None);
            if let Some(runner) = supervised.work.runner_mut() {
                runner.drain();
                self.tell_said(Pace::ToTheEnd, now);
                return self.finish_draining(now);
            }
        }
        self.drain_pipes(now);
        self.close_gap(now);
        let Life::Supervising(supervised) = &mut self.life else { return };
        let Exit::Draining(draining) = &mut supervised.exit else { return };
        let mut evidence = std::mem::take(&mut draining.evidence);
        evidence.kernel_log.extend(supervised.kernel_log.lines_about(supervised.process.pid()));
        evidence.memory = supervised.memory.end(Some(&supervised.container), draining.rss_bytes_peak);
        evidence.stderr_tail = supervised.pipes.stderr_tail().text();
        evidence.stdout_tail = supervised.pipes.stdout_tail().text();
        evidence.stderr_bytes = supervised.pipes.stderr_tail().total();
        if !supervised.container.remove() {
            tracing::warn!(container = ?supervised.container.paths(), "a cgroup could not be removed");
        }
        self.life = Life::Ended;
        self.record(StateNotice::Drained { evidence }, now);
    }
}
