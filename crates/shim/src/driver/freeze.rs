//! A process that is kept from running: because its daemon says so, or because nobody says anything.
//!
//! ```text
//!             Freeze, or the guard                     Thaw
//!  running ────────────────────────► frozen ────────────────────────► running; heartbeat and watchdogs begin anew
//!                                      └── Stop at Kill, Refuse ──► killed where it stands; Stop at Ask, Term: thawed first
//! ```
//! What is frozen is not accused of anything: no heartbeat is sent, no watchdog runs, and the time in which it was to be
//! ready stands still.
//!
//! The guard: a node of a cluster whose daemon says nothing may have lost its sessions to others, which the daemon cannot tell
//! (it is frozen, or the machine was suspended: CLOCK_BOOTTIME). Its process must not run beside the one that another node has
//! started, so it is frozen. Only a `Thaw` ends that: whoever says it has looked whose the session is.

use std::time::Duration;

use outlive_core::limits::SHIM_GUARD_MS_MIN;
use outlive_core::time::{Now, Tick};
use outlive_process::alarm::{Alarm, since_boot};
use outlive_process::freeze::{freeze, thaw};
use outlive_protocol::shim::StateNotice;

use super::launch::Supervised;
use super::{Driver, Life};

/// Watches that the daemon says something.
pub(super) struct Guard {
    alarm: Alarm,
    patience: Duration,
    /// When it was heard last, since boot.
    heard: Duration,
}

impl Guard {
    /// A guard, if the launch asks for one. Without a timer there is none, and that is said.
    pub(super) fn of(guard_ms: Option<u64>) -> Option<Self> {
        let patience = Duration::from_millis(guard_ms?.max(SHIM_GUARD_MS_MIN));
        let alarm = Alarm::new().and_then(|alarm| alarm.set(patience).map(|()| alarm));
        match alarm {
            Ok(alarm) => Some(Self { alarm, patience, heard: since_boot() }),
            Err(error) => {
                tracing::error!(%error, "no alarm can be had: the process runs on also when its daemon is frozen");
                None
            }
        }
    }

    /// Cancel-safe. Never returns without a guard.
    pub(super) async fn rings(guard: &Option<Self>) {
        match guard {
            Some(guard) => guard.alarm.rings().await,
            None => std::future::pending().await,
        }
    }

    /// Whether the daemon has been silent for too long; if not, the alarm is set to when it will have been.
    fn is_too_long(&self) -> bool {
        let left = self.patience.saturating_sub(since_boot().saturating_sub(self.heard));
        if left.is_zero() {
            return true;
        }
        if let Err(error) = self.alarm.set(left) {
            tracing::error!(%error, "the alarm cannot be set");
        }
        false
    }
}

/// Why a process is frozen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum By {
    Daemon,
    Guard,
}

impl Driver {
    /// The daemon has said something. Whatever it is, it does not make good for a silence that was too long.
    pub(super) fn heard(&mut self, now: Now) {
        let Some(guard) = &mut self.guard else { return };
        let silent = since_boot().saturating_sub(guard.heard) > guard.patience;
        guard.heard = since_boot();
        if silent {
            self.freeze(By::Guard, now);
        }
    }

    pub(super) fn on_alarm(&mut self, now: Now) {
        if self.guard.as_ref().is_some_and(Guard::is_too_long) {
            self.freeze(By::Guard, now);
        }
    }

    /// Keeps the process from running. One that is not started yet is frozen as soon as it is.
    pub(super) fn freeze(&mut self, by: By, now: Now) {
        if self.frozen.is_some() || self.stopping.is_some() || matches!(self.life, Life::Ended) {
            return;
        }
        if let Life::Supervising(supervised) = &mut self.life {
            if !supervised.is_alive() {
                return;
            }
            freeze(&supervised.container, supervised.process.pid());
        }
        self.frozen = Some((by, now.tick));
        match by {
            By::Daemon => tracing::info!("the process is frozen"),
            By::Guard => tracing::warn!("the daemon says nothing: the process is frozen"),
        }
        self.record(StateNotice::Frozen { by_guard: by == By::Guard }, now);
    }

    /// It was started while it is to be frozen.
    pub(super) fn freeze_started(&mut self) {
        if let (Some(_), Life::Supervising(supervised)) = (self.frozen, &self.life) {
            freeze(&supervised.container, supervised.process.pid());
        }
    }

    /// Lets the process go on.
    pub(super) fn thaw(&mut self, now: Now) {
        if let Some(guard) = &mut self.guard {
            guard.heard = since_boot();
            guard.is_too_long();
        }
        let Some((_, since)) = self.frozen.take() else { return };
        if let Life::Supervising(supervised) = &mut self.life
            && supervised.is_alive()
        {
            thaw(&supervised.container, supervised.process.pid());
            supervised.go_on(since, now.tick);
        }
        tracing::info!("the process goes on");
        self.record(StateNotice::Thawed, now);
    }
}

impl Supervised {
    /// It did not run since then: nothing that it did not do meanwhile counts.
    fn go_on(&mut self, since: Tick, now: Tick) {
        let stood = now.since(since);
        for by in [&mut self.ready_by, &mut self.interrupt_by].into_iter().flatten() {
            *by = *by + stood;
        }
        self.pulse.reset(now);
        if let Some(runner) = self.work.runner_mut() {
            runner.restart_watchdogs(now);
        }
    }
}
