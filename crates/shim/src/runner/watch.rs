//! Watchdogs: how long a runner and its tasks make no progress. Pure.
//!
//! A watchdog that runs out is told once, and again only after progress. Nothing runs out while the runner is not
//! listened to, or is being stopped, or when it was we who stood still.

use std::time::Duration;

use outlive_core::diagnosis::evidence::StallEvidence;
use outlive_core::id::RunId;
use outlive_core::runtime::runner::Watchdogs;
use outlive_core::time::Tick;

use super::tasks::{Awaited, Tasks};
use crate::clock::millis;
use crate::kernel::runs::RunKey;

/// Whether it is looked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Looks {
    Yes,
    /// The runner is not listened to for now.
    Held,
    /// The runner is being stopped.
    Never,
}

/// The watchdogs of one runner. Those of its tasks are kept with the tasks.
#[derive(Debug)]
pub(super) struct Watch {
    limits: Watchdogs,
    /// Its last progress while it loads; `None` when it does not, or its stall was told.
    loading_since: Option<Tick>,
    looks: Looks,
    /// What stands still now.
    stall: Option<(Option<RunKey>, StallEvidence)>,
}

impl Watch {
    pub(super) const fn new(limits: Watchdogs, now: Tick) -> Self {
        Self { limits, loading_since: Some(now), looks: Looks::Yes, stall: None }
    }

    /// It made progress: in loading, or past it.
    pub(super) fn loading(&mut self, is_loading: bool, now: Tick) {
        self.loading_since = is_loading.then_some(now);
        self.progressed(None);
    }

    /// A task, or with `None` the loading, does not stand still. That it did when it was stopped stays so.
    pub(super) fn progressed(&mut self, what: Option<RunKey>) {
        if !self.is_stopped() && self.stall.as_ref().is_some_and(|(stalled, _)| *stalled == what) {
            self.stall = None;
        }
    }

    /// What stands still now.
    pub(super) fn stall(&self) -> Option<&StallEvidence> {
        self.stall.as_ref().map(|(_, stall)| stall)
    }

    pub(super) fn next_deadline(&self, tasks: &Tasks) -> Option<Tick> {
        if self.looks != Looks::Yes {
            return None;
        }
        let tasks = tasks.each().filter_map(|open| Some(open.since? + self.patience(open.awaited)?)).min();
        self.load_deadline().into_iter().chain(tasks).min()
    }

    fn load_deadline(&self) -> Option<Tick> {
        Some(self.loading_since? + Duration::from_millis(self.limits.load_ms?))
    }

    fn patience(&self, awaited: Awaited) -> Option<Duration> {
        let limit_ms = match awaited {
            Awaited::First => self.limits.first_chunk_ms,
            Awaited::Next => self.limits.between_chunks_ms,
        };
        limit_ms.map(Duration::from_millis)
    }

    /// The deadline has come: what stands still.
    pub(super) fn expire(&mut self, tasks: &mut Tasks, now: Tick) -> Vec<(StallEvidence, Option<RunId>)> {
        let mut stalls = Vec::new();
        if self.looks != Looks::Yes {
            return stalls;
        }
        if let Some(since) = self.loading_since
            && self.load_deadline().is_some_and(|at| now >= at)
        {
            self.loading_since = None;
            let stall = evidence("load", since, self.limits.load_ms, now);
            self.stall = Some((None, stall.clone()));
            stalls.push((stall, None));
        }
        for (key, open) in tasks.all() {
            let Some((since, patience)) = open.since.zip(self.patience(open.awaited)) else { continue };
            if now < since + patience {
                continue;
            }
            open.since = None;
            let (phase, limit_ms) = match open.awaited {
                Awaited::First => ("first chunk", self.limits.first_chunk_ms),
                Awaited::Next => ("between chunks", self.limits.between_chunks_ms),
            };
            let stall = evidence(phase, since, limit_ms, now);
            self.stall = Some((Some(key), stall.clone()));
            stalls.push((stall, Some(key.0)));
        }
        stalls
    }

    /// Nothing is read of it for now, or again.
    pub(super) fn hold(&mut self, is_held: bool, tasks: &mut Tasks, now: Tick) {
        match (self.looks, is_held) {
            (Looks::Yes, true) => self.looks = Looks::Held,
            (Looks::Held, false) => {
                self.looks = Looks::Yes;
                self.restart(tasks, now);
            }
            (Looks::Yes | Looks::Held | Looks::Never, _) => {}
        }
    }

    pub(super) const fn is_held(&self) -> bool {
        matches!(self.looks, Looks::Held)
    }

    pub(super) const fn stop(&mut self) {
        self.looks = Looks::Never;
    }

    pub(super) const fn is_stopped(&self) -> bool {
        matches!(self.looks, Looks::Never)
    }

    /// Every watchdog that runs begins anew.
    pub(super) fn restart(&mut self, tasks: &mut Tasks, now: Tick) {
        let anew = |since: &mut Option<Tick>| *since = since.map(|_| now);
        anew(&mut self.loading_since);
        tasks.all().for_each(|(_, open)| anew(&mut open.since));
    }
}

fn evidence(phase: &str, since: Tick, limit_ms: Option<u64>, now: Tick) -> StallEvidence {
    StallEvidence {
        phase: phase.to_owned(),
        silent_ms: millis(now.since(since)),
        limit_ms: limit_ms.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use outlive_core::id::Attempt;
    use uuid::Uuid;

    use super::*;

    const S: u64 = 1_000_000_000;
    const LIMITS: Watchdogs =
        Watchdogs { load_ms: Some(1_000), first_chunk_ms: Some(2_000), between_chunks_ms: None };

    fn key(n: u128) -> RunKey {
        (RunId::from_uuid(Uuid::from_u128(n)), Attempt(1))
    }

    #[test]
    fn each_phase_has_its_limit_and_a_stall_is_told_once() {
        let (mut watch, mut tasks) = (Watch::new(LIMITS, Tick(0)), Tasks::default());
        assert_eq!(watch.next_deadline(&tasks), Some(Tick(S)));
        watch.loading(true, Tick(S / 2));
        assert!(watch.expire(&mut tasks, Tick(S)).is_empty(), "it made progress");
        let [(stall, None)] = &watch.expire(&mut tasks, Tick(3 * S / 2))[..] else { panic!("a stall") };
        assert_eq!((stall.phase.as_str(), stall.silent_ms, stall.limit_ms), ("load", 1_000, 1_000));
        assert!(watch.expire(&mut tasks, Tick(9 * S)).is_empty() && watch.stall().is_some());
        watch.loading(false, Tick(9 * S));
        assert_eq!((watch.stall(), watch.next_deadline(&tasks)), (None, None));

        tasks.give(key(1), "t".into(), None, Tick(10 * S));
        tasks.give(key(2), "t".into(), None, Tick(11 * S));
        let [(stall, Some(run))] = &watch.expire(&mut tasks, Tick(12 * S))[..] else { panic!("a stall") };
        assert_eq!((stall.phase.as_str(), *run), ("first chunk", key(1).0));
        for (_, open) in tasks.all() {
            (open.awaited, open.since) = (Awaited::Next, Some(Tick(12 * S)));
        }
        assert_eq!(watch.next_deadline(&tasks), None, "off by choice");
    }

    #[test]
    fn nothing_runs_out_while_nobody_listens() {
        let (mut watch, mut tasks) = (Watch::new(LIMITS, Tick(0)), Tasks::default());
        watch.hold(true, &mut tasks, Tick(0));
        assert!(watch.next_deadline(&tasks).is_none() && watch.expire(&mut tasks, Tick(9 * S)).is_empty());
        watch.hold(false, &mut tasks, Tick(9 * S));
        assert_eq!(watch.next_deadline(&tasks), Some(Tick(10 * S)), "then it has its whole time again");
        watch.restart(&mut tasks, Tick(9 * S));
        assert_eq!(watch.expire(&mut tasks, Tick(10 * S)).len(), 1);
        watch.stop();
        watch.progressed(None);
        assert!(watch.stall().is_some(), "that is why it was stopped");
        watch.hold(true, &mut tasks, Tick(9 * S));
        watch.hold(false, &mut tasks, Tick(9 * S));
        assert_eq!(watch.next_deadline(&tasks), None);
    }
}
