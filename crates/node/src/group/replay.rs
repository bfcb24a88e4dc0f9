//! What running tasks have said that will be said again by their next attempt, should there be one: those whose runner
//! replays exactly. Kept along with the log, by whoever folds it: a digest for each, whatever it has said.

use std::collections::BTreeMap;

use outlive_core::group::Group;
use outlive_core::id::{RunId, Seq};
use outlive_core::log::fold::Effect as LogEffect;
use outlive_core::log::{Chunk, Entry, FencedBody, Record, RunRecord};
use outlive_core::runtime::runner::Replay;
use outlive_protocol::replay::Said;

use crate::hosted::Hosted;

/// By run: what was said behind its last checkpoint.
#[derive(Debug, Default)]
pub(super) struct Replays {
    said: BTreeMap<RunId, Said>,
}

impl Replays {
    /// Folds a record that counts, into the group that it was folded into before.
    pub(super) fn fold(&mut self, hosted: Option<&Hosted>, entry: &Entry, effect: &LogEffect) {
        let Some(Hosted::Group(group)) = hosted else { return };
        match (effect, &entry.record) {
            (LogEffect::Opened { run, base, truncated_from, .. }, _) => {
                self.opened(group, *run, base < truncated_from);
            }
            (LogEffect::Appended { run, skip, .. }, Record::Fenced(fenced)) => {
                if let FencedBody::Run(RunRecord::Data { chunks, .. }) = &fenced.body {
                    let skip = usize::try_from(*skip).unwrap_or(usize::MAX);
                    self.appended(*run, chunks.iter().skip(skip));
                }
            }
            (LogEffect::Checkpointed { run, .. }, _) => self.checkpointed(*run),
            (LogEffect::Ended { run, .. }, _) => self.ended(*run),
            _ => {}
        }
    }

    /// An attempt was begun; `is_cut` is whether output of the one before was withdrawn.
    pub(super) fn opened(&mut self, group: &Group, run: RunId, is_cut: bool) {
        let is_exact = group.tasks.get(&run).is_some_and(|task| task.is_exact);
        if !is_exact || is_cut {
            self.said.remove(&run);
        }
        if is_exact {
            self.said.entry(run).or_default();
        }
    }

    /// It said something.
    pub(super) fn appended<'a>(&mut self, run: RunId, chunks: impl Iterator<Item = &'a Chunk>) {
        if let Some(said) = self.said.get_mut(&run) {
            chunks.for_each(|chunk| said.add(chunk));
        }
    }

    /// What it has said is covered by a state.
    pub(super) fn checkpointed(&mut self, run: RunId) {
        if let Some(said) = self.said.get_mut(&run) {
            *said = Said::default();
        }
    }

    /// It has ended.
    pub(super) fn ended(&mut self, run: RunId) {
        self.said.remove(&run);
    }

    /// What the present attempt has to say again; `head` and `kept` are the last chunk that there is and the last that its
    /// state covers.
    pub(super) fn of(&self, run: RunId, kept: Seq, head: Seq) -> Option<Replay> {
        let chunks = head.0.saturating_sub(kept.0);
        if chunks == 0 {
            return None;
        }
        let replay = self.said.get(&run).map(Said::replay).filter(|replay| replay.chunks == chunks);
        // Should it not be known, nothing is the same: then it is said, and not shown twice.
        Some(replay.unwrap_or(Replay { chunks, sha256: "unknown".to_owned() }))
    }
}
