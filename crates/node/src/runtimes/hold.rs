//! What shims are told past their sessions' tasks, which may be waiting for a store that does not answer: to freeze or to
//! stop what they hold, to let it go on, and that their daemon is there.
//!
//! Each link watches what is wanted of it and tells its shim whatever of that it has not told yet; a new connection is told
//! anew. While something is to be held, a session cannot have it go on: whoever holds it knows more.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use outlive_core::id::{ProcessKey, SessionId};
use outlive_core::limits::SHIM_BEAT_MS;
use outlive_core::runtime::{StopStep, StopWhy};
use outlive_core::time::Tick;
use outlive_protocol::shim::ToShim;
use tokio::sync::watch;

/// Whether a process is kept from running.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Hold {
    #[default]
    No,
    Frozen,
    Stopped,
}

/// What is wanted of a shim.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Wanted {
    hold: Hold,
    /// How often it was to go on. Also one that is not held here may be frozen, by its own guard.
    thaws: u64,
    /// How often it was to be told that we are there.
    beats: u64,
}

/// All links of this node.
#[derive(Debug, Default)]
pub(super) struct Holds {
    links: Mutex<Links>,
}

#[derive(Debug, Default)]
struct Links {
    links: BTreeMap<ProcessKey, Held>,
    /// No beat before.
    quiet_until: Tick,
}

/// One link.
#[derive(Debug)]
struct Held {
    session: SessionId,
    wanted: watch::Sender<Wanted>,
}

impl Holds {
    fn links(&self) -> MutexGuard<'_, Links> {
        // Nothing panics while it holds them; were it so, they would still be whole.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A link watches from now on what is wanted of its process, which is this session's.
    pub(super) fn watch(&self, session: SessionId, process: ProcessKey) -> watch::Receiver<Wanted> {
        let mut links = self.links();
        // The links of processes that are gone go when the next one comes.
        links.links.retain(|_, link| !link.wanted.is_closed());
        let held = || Held { session, wanted: watch::Sender::default() };
        links.links.entry(process).or_insert_with(held).wanted.subscribe()
    }

    pub(super) fn freeze_all(&self) {
        self.hold_all(Hold::Frozen);
    }

    pub(super) fn stop_all(&self) {
        self.hold_all(Hold::Stopped);
    }

    fn hold_all(&self, hold: Hold) {
        for link in self.links().links.values() {
            link.wanted.send_if_modified(|wanted| {
                let is_new = wanted.hold != hold;
                wanted.hold = hold;
                is_new
            });
        }
    }

    pub(super) fn thaw(&self, session: SessionId) {
        for link in self.links().links.values().filter(|link| link.session == session) {
            link.wanted.send_modify(|wanted| (wanted.hold, wanted.thaws) = (Hold::No, wanted.thaws + 1));
        }
    }

    /// Not more often than the shims need it.
    pub(super) fn beat_all(&self, now: Tick) {
        let mut links = self.links();
        if now < links.quiet_until {
            return;
        }
        links.quiet_until = now + Duration::from_millis(SHIM_BEAT_MS);
        for link in links.links.values() {
            link.wanted.send_modify(|wanted| wanted.beats += 1);
        }
    }
}

/// What one shim was told of what is wanted of it.
pub(super) struct Told {
    wanted: watch::Receiver<Wanted>,
    told: Wanted,
}

impl Told {
    /// A shim that was told nothing yet, and owes nobody anything from before.
    pub(super) fn nothing(mut wanted: watch::Receiver<Wanted>) -> Self {
        let now = *wanted.borrow_and_update();
        // Marked, so that what is held already is looked at.
        wanted.mark_changed();
        Self { wanted, told: Wanted { hold: Hold::No, ..now } }
    }

    /// The shim may not have heard what it was told last.
    pub(super) fn anew(&mut self) {
        self.told.hold = Hold::No;
        self.wanted.mark_changed();
    }

    /// The next thing to tell. Cancel-safe: what was not [`Self::said`] is given again.
    pub(super) async fn next(&mut self) -> ToShim {
        loop {
            let wanted = *self.wanted.borrow_and_update();
            match (wanted.hold, self.told.hold) {
                (Hold::Frozen, Hold::No | Hold::Stopped) => return ToShim::Freeze,
                // What it does not end by itself is not to run.
                (Hold::Stopped, Hold::No | Hold::Frozen) => {
                    return ToShim::Stop { why: StopWhy::Drain, from: StopStep::Term };
                }
                (Hold::No, _) if wanted.thaws != self.told.thaws => return ToShim::Thaw,
                (Hold::No | Hold::Frozen | Hold::Stopped, _) => {}
            }
            if wanted.beats != self.told.beats {
                return ToShim::Beat;
            }
            if self.wanted.changed().await.is_err() {
                // Nothing will be wanted any more.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The shim was told this.
    pub(super) fn said(&mut self, said: &ToShim) {
        let wanted = *self.wanted.borrow();
        match said {
            ToShim::Freeze => self.told.hold = Hold::Frozen,
            ToShim::Stop { .. } => self.told.hold = Hold::Stopped,
            ToShim::Thaw => (self.told.hold, self.told.thaws) = (Hold::No, wanted.thaws),
            _ => self.told.beats = wanted.beats,
        }
    }

    /// Whether a wish of the session is dropped: that its process goes on while it is held. Whoever held it lets it go on.
    pub(super) fn forbids(&self, order: &ToShim) -> bool {
        matches!(order, ToShim::Thaw) && self.wanted.borrow().hold != Hold::No
    }
}

#[cfg(test)]
mod tests {
    use outlive_core::id::{Incarnation, RuntimeId};
    use uuid::Uuid;

    use super::*;

    const PROCESS: ProcessKey =
        ProcessKey { runtime: RuntimeId::from_uuid(Uuid::from_u128(1)), incarnation: Incarnation(1) };

    const SESSION: SessionId = SessionId::from_uuid(Uuid::from_u128(2));

    /// Everything that is to be told now.
    fn tells(told: &mut Told) -> Vec<ToShim> {
        use futures_util::FutureExt as _;
        let mut all = Vec::new();
        while let Some(next) = told.next().now_or_never() {
            told.said(&next);
            all.push(next);
        }
        all
    }

    #[test]
    fn each_shim_is_told_once_and_a_new_connection_anew() {
        let holds = Holds::default();
        let mut told = Told::nothing(holds.watch(SESSION, PROCESS));
        assert_eq!(tells(&mut told), []);
        holds.freeze_all();
        holds.freeze_all();
        assert_eq!(tells(&mut told), [ToShim::Freeze]);
        assert!(told.forbids(&ToShim::Thaw), "it is held");
        told.anew();
        assert_eq!(tells(&mut told), [ToShim::Freeze], "over the next connection");
        let mut later = Told::nothing(holds.watch(SESSION, PROCESS));
        assert_eq!(tells(&mut later), [ToShim::Freeze], "to who comes late");
        holds.thaw(SESSION);
        assert_eq!(tells(&mut told), [ToShim::Thaw]);
        assert!(!told.forbids(&ToShim::Thaw));
        holds.thaw(SESSION);
        assert_eq!(tells(&mut told), [ToShim::Thaw], "its own guard may have frozen it");
        told.anew();
        assert_eq!(tells(&mut told), [], "but not again");
    }

    #[test]
    fn a_thaw_that_could_not_be_told_is_told_over_the_next_connection() {
        let holds = Holds::default();
        let mut told = Told::nothing(holds.watch(SESSION, PROCESS));
        holds.freeze_all();
        assert_eq!(tells(&mut told), [ToShim::Freeze]);
        holds.thaw(SESSION);
        told.anew();
        assert_eq!(tells(&mut told), [ToShim::Thaw]);
    }

    #[test]
    fn each_process_of_a_session_goes_on_and_none_of_another() {
        let holds = Holds::default();
        let processes = [1, 2].map(|n| ProcessKey { incarnation: Incarnation(n), ..PROCESS });
        let mut told = processes.map(|process| Told::nothing(holds.watch(SESSION, process)));
        let runtime = RuntimeId::from_uuid(Uuid::from_u128(3));
        let other = SessionId::from_uuid(Uuid::from_u128(4));
        let mut others = Told::nothing(holds.watch(other, ProcessKey { runtime, ..PROCESS }));
        holds.freeze_all();
        holds.thaw(SESSION);
        for told in &mut told {
            assert_eq!(tells(told), [ToShim::Thaw]);
        }
        assert_eq!(tells(&mut others), [ToShim::Freeze]);
    }

    #[test]
    fn beats_are_no_more_than_the_shims_need() {
        let holds = Holds::default();
        let mut told = Told::nothing(holds.watch(SESSION, PROCESS));
        for ms in 0..SHIM_BEAT_MS * 2 {
            holds.beat_all(Tick(ms * 1_000_000));
        }
        assert_eq!(tells(&mut told), [ToShim::Beat], "several that were not told are one");
        holds.beat_all(Tick(SHIM_BEAT_MS * 2 * 1_000_000));
        assert_eq!(tells(&mut told), [ToShim::Beat]);
    }
}
