//! When a process that ended is started again (the words are those of OTP's supervisors).
//!
//! The history is the wall times of earlier restarts within the period, so that a daemon that recovers rebuilds it
//! by folding the session's events. Deciding changes nothing: who follows the decision records it.

use std::collections::VecDeque;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::exit::{ExitReport, ExitStatus};
use super::stop::StopKind;
use crate::limits::{BACKOFF_MS, BACKOFF_MS_MAX, RESTART_HISTORY_MAX, RESTART_PERIOD_MS, RESTARTS_MAX};
use crate::time::WallTime;

/// Which ends are followed by a restart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RestartType {
    /// Every end that nobody asked for.
    Permanent,
    /// Abnormal ends only: not exit code 0.
    Transient,
    /// None.
    Temporary,
}

/// Restart type with its intensity: more than `restarts_max` within `period_ms`, and the supervisor gives up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RestartPolicy {
    /// Which ends count.
    pub restart: RestartType,
    /// How many restarts are allowed within the period.
    pub restarts_max: u32,
    /// The period in milliseconds; a process that stays up for it resets the count and the back-off.
    pub period_ms: u64,
    /// The wait before the first restart, in milliseconds; doubles with each until the maximum.
    pub backoff_ms: u64,
    /// The longest wait, in milliseconds.
    pub backoff_ms_max: u64,
}

/// An end, as far as restarting is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ended {
    /// In which way.
    pub how: EndedHow,
    /// How long the process had lived, in milliseconds.
    pub lived_ms: u64,
}

/// The ways to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndedHow {
    /// Somebody asked for it; ending what hung or took too long is no wish for its end.
    Asked,
    /// By itself, with exit code 0.
    Normal,
    /// In any other way, a failed launch included.
    Abnormal,
}

impl Ended {
    /// How the process of this report ended.
    #[must_use]
    pub fn of(report: &ExitReport) -> Self {
        let how = match report.evidence.stop.as_ref().map(|stop| stop.why.kind()) {
            Some(StopKind::Wish) => EndedHow::Asked,
            Some(StopKind::Verdict | StopKind::Consequence) => EndedHow::Abnormal,
            None if report.pid.is_some() && report.status == (ExitStatus::Code { code: 0 }) => {
                EndedHow::Normal
            }
            None => EndedHow::Abnormal,
        };
        Self { how, lived_ms: report.exited_at.0.saturating_sub(report.started_at.0) / 1_000 }
    }
}

/// The restarts that still count, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RestartHistory {
    restarts: VecDeque<WallTime>,
}

impl RestartHistory {
    /// Records that the process that had died at `at` is started again, `nth` as the decision gave it. The first of
    /// a new series forgets those before it.
    pub fn restarted(&mut self, at: WallTime, nth: u32) {
        if nth <= 1 {
            self.restarts.clear();
        }
        if self.restarts.len() == RESTART_HISTORY_MAX {
            self.restarts.pop_front();
        }
        self.restarts.push_back(at);
    }

    /// Forgets everything: somebody restarted it by hand.
    pub fn reset(&mut self) {
        self.restarts.clear();
    }

    /// How many restarts lie within the period before `now`. One that lies ahead (the clock was set back) counts.
    fn within(&self, period_ms: u64, now: WallTime) -> usize {
        let recent = |at: &&WallTime| now.0.saturating_sub(at.0) / 1_000 < period_ms;
        self.restarts.iter().filter(recent).count()
    }
}

/// What follows an end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RestartDecision {
    /// Start it again.
    Restart {
        /// After this wait, in milliseconds.
        after_ms: u64,
        /// Which restart within the period this is, from 1.
        nth: u32,
        /// How many are allowed.
        of: u32,
    },
    /// It ended too often: leave it, and say why.
    GiveUp {
        /// For people.
        reason: String,
    },
    /// This policy does not restart after such an end.
    No,
}

impl RestartPolicy {
    const fn of(restart: RestartType) -> Self {
        Self {
            restart,
            restarts_max: RESTARTS_MAX,
            period_ms: RESTART_PERIOD_MS,
            backoff_ms: BACKOFF_MS,
            backoff_ms_max: BACKOFF_MS_MAX,
        }
    }

    /// Never restarted: a command whose end is its result.
    #[must_use]
    pub const fn temporary() -> Self {
        Self::of(RestartType::Temporary)
    }

    /// Restarted unless it ended with exit code 0: a kernel.
    #[must_use]
    pub const fn transient() -> Self {
        Self::of(RestartType::Transient)
    }

    /// Restarted whatever its end: a service.
    #[must_use]
    pub const fn permanent() -> Self {
        Self::of(RestartType::Permanent)
    }

    /// Decides what follows an end at `now`. A process that had lived for the whole period starts a new series.
    #[must_use]
    pub fn decide(&self, history: &RestartHistory, ended: Ended, now: WallTime) -> RestartDecision {
        let wanted = match (self.restart, ended.how) {
            (RestartType::Temporary, _)
            | (_, EndedHow::Asked)
            | (RestartType::Transient, EndedHow::Normal) => false,
            (RestartType::Permanent, EndedHow::Normal | EndedHow::Abnormal)
            | (RestartType::Transient, EndedHow::Abnormal) => true,
        };
        if !wanted {
            return RestartDecision::No;
        }
        let healthy = ended.lived_ms >= self.period_ms;
        let earlier = if healthy { 0 } else { history.within(self.period_ms, now) };
        let earlier = u32::try_from(earlier).unwrap_or(u32::MAX);
        if earlier >= self.restarts_max {
            return RestartDecision::GiveUp { reason: self.gave_up(earlier) };
        }
        RestartDecision::Restart { after_ms: self.wait_ms(earlier), nth: earlier + 1, of: self.restarts_max }
    }

    /// The wait after so many earlier restarts: doubles with each, up to the maximum.
    fn wait_ms(&self, earlier: u32) -> u64 {
        let factor = 1_u64.checked_shl(earlier).unwrap_or(u64::MAX);
        self.backoff_ms.saturating_mul(factor).min(self.backoff_ms_max)
    }

    fn gave_up(&self, earlier: u32) -> String {
        let seconds = self.period_ms.div_ceil(1_000);
        match earlier {
            0 => "it ended, and its policy allows no restart".to_owned(),
            1 => format!("it ended again within {seconds} s of its restart, and its policy allows one"),
            n => format!(
                "it ended again after {n} restarts within {seconds} s, and its policy allows {}",
                self.restarts_max
            ),
        }
    }
}
