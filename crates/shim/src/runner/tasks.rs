//! Which tasks a runner was given and how far they are. Pure.

use std::collections::{HashMap, HashSet, VecDeque};

use outlive_core::id::RunId;
use outlive_core::log::ChunkKind;
use outlive_core::runtime::runner::Replay;
use outlive_core::time::Tick;
use outlive_protocol::replay::Said;

use crate::kernel::runs::RunKey;

/// How many finished tasks are remembered, so that a daemon that asks again is not obeyed twice, and what comes late of
/// one is known for what it is.
const FINISHED_MAX: usize = 2_048;

/// A task that has no terminal yet.
#[derive(Debug)]
pub(crate) struct Open {
    /// Its handler's name.
    pub(crate) name: String,
    /// What is waited for, as in the evidence of a stall.
    pub(crate) awaited: Awaited,
    /// Since when; `None` when its stall was told.
    pub(crate) since: Option<Tick>,
    /// Whether the runner was told to stop it.
    pub(crate) is_cancelled: bool,
    /// What it says again, as long as it does.
    pub(crate) replaying: Option<Replaying>,
}

/// A task that says again what an earlier attempt has said.
#[derive(Debug)]
pub(crate) struct Replaying {
    /// What it has said of that so far.
    said: Said,
    /// What it has to say.
    wanted: Replay,
}

/// What became of something that was said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Heard {
    /// It is new.
    New,
    /// It was said before.
    Again,
    /// It is the last of what was said before, and that was something else.
    Differs,
}

impl Open {
    /// Takes a piece of its output.
    pub(crate) fn hear(&mut self, kind: &ChunkKind, content: &[u8]) -> Heard {
        let Some(Replaying { said, wanted }) = &mut self.replaying else { return Heard::New };
        said.add_content(kind, content);
        if said.chunks() < wanted.chunks {
            return Heard::Again;
        }
        let is_same = said.replay() == *wanted;
        self.replaying = None;
        if is_same { Heard::Again } else { Heard::Differs }
    }

    /// How much it has said again, and of how much, while it has not said all.
    pub(crate) fn is_behind(&self) -> Option<(u64, u64)> {
        let Replaying { said, wanted } = self.replaying.as_ref()?;
        Some((said.chunks(), wanted.chunks))
    }
}

/// What is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Awaited {
    First,
    Next,
}

/// What is known of a task.
#[derive(Debug)]
pub(crate) enum Standing<'a> {
    Open(&'a mut Open),
    Finished,
    NeverGiven,
}

/// All of a runner's tasks.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    open: HashMap<RunKey, Open>,
    finished: HashSet<RunKey>,
    /// The same, oldest first.
    finished_order: VecDeque<RunKey>,
}

impl Tasks {
    /// Takes a task. `false` when it was given before.
    pub(crate) fn give(&mut self, key: RunKey, name: String, replay: Option<Replay>, now: Tick) -> bool {
        if self.open.contains_key(&key) || self.finished.contains(&key) {
            return false;
        }
        let replay = replay.filter(|wanted| wanted.chunks > 0);
        let replaying = replay.map(|wanted| Replaying { said: Said::default(), wanted });
        let open = Open { name, awaited: Awaited::First, since: Some(now), is_cancelled: false, replaying };
        self.open.insert(key, open);
        true
    }

    pub(crate) fn standing(&mut self, key: RunKey) -> Standing<'_> {
        match self.open.get_mut(&key) {
            Some(open) => Standing::Open(open),
            None if self.finished.contains(&key) => Standing::Finished,
            None => Standing::NeverGiven,
        }
    }

    /// Its terminal has come.
    pub(crate) fn finish(&mut self, key: RunKey) -> Option<Open> {
        let open = self.open.remove(&key)?;
        if self.finished_order.len() == FINISHED_MAX
            && let Some(oldest) = self.finished_order.pop_front()
        {
            self.finished.remove(&oldest);
        }
        self.finished_order.push_back(key);
        self.finished.insert(key);
        Some(open)
    }

    /// Whether it was given and has ended.
    pub(crate) fn has_finished(&self, key: RunKey) -> bool {
        self.finished.contains(&key)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(crate) fn keys(&self) -> Vec<RunKey> {
        self.open.keys().copied().collect()
    }

    pub(crate) fn all(&mut self) -> impl Iterator<Item = (RunKey, &mut Open)> {
        self.open.iter_mut().map(|(key, open)| (*key, open))
    }

    pub(crate) fn each(&self) -> impl Iterator<Item = &Open> {
        self.open.values()
    }

    /// The name of the handler that works on it.
    pub(crate) fn name(&self, run: RunId) -> Option<&str> {
        self.open.iter().find(|((open, _), _)| *open == run).map(|(_, open)| open.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use outlive_core::id::Attempt;
    use uuid::Uuid;

    use super::*;

    fn key(n: u128) -> RunKey {
        (RunId::from_uuid(Uuid::from_u128(n)), Attempt(1))
    }

    #[test]
    fn a_task_is_given_once_and_ends_once() {
        let mut tasks = Tasks::default();
        assert!(
            tasks.give(key(1), "t".into(), None, Tick(0)) && !tasks.give(key(1), "t".into(), None, Tick(0))
        );
        assert!(matches!(tasks.standing(key(1)), Standing::Open(_)));
        assert!(tasks.finish(key(1)).is_some() && tasks.finish(key(1)).is_none());
        assert!(matches!(tasks.standing(key(1)), Standing::Finished));
        assert!(!tasks.give(key(1), "t".into(), None, Tick(0)), "not even when it has ended");
        assert!(tasks.give((key(1).0, Attempt(2)), "t".into(), None, Tick(0)), "another attempt is another");
        assert!(matches!(tasks.standing(key(2)), Standing::NeverGiven));
    }

    #[test]
    fn what_is_remembered_of_finished_ones_is_bounded() {
        let mut tasks = Tasks::default();
        for n in 0..10_000 {
            tasks.give(key(n), "t".into(), None, Tick(0));
            tasks.finish(key(n));
        }
        assert_eq!((tasks.finished.len(), tasks.finished_order.len()), (FINISHED_MAX, FINISHED_MAX));
        assert!(tasks.has_finished(key(9_999)) && !tasks.has_finished(key(1)));
    }
}
