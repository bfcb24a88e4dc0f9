//! What an input is answered with: by a session, and by a group of runners, which differ in their effects.

use super::event::{Fact, Happened, NewRun, SessionEvent};
use crate::time::WallTime;

/// Facts to append, then effects to carry out.
#[derive(Clone, PartialEq, Debug)]
pub struct Decision<E> {
    /// In this order.
    pub facts: Vec<Fact>,
    /// After the facts are stored, in this order.
    pub effects: Vec<E>,
}

impl<E> Default for Decision<E> {
    fn default() -> Self {
        Self { facts: Vec::new(), effects: Vec::new() }
    }
}

impl<E> Decision<E> {
    /// Nothing to do.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.facts.is_empty() && self.effects.is_empty()
    }

    pub(crate) fn happened(self, at: WallTime, what: Happened) -> Self {
        self.fact(Fact::Journal(SessionEvent { at, what }))
    }

    pub(crate) fn queued(self, at: WallTime, runs: Vec<NewRun>) -> Self {
        Happened::queued(runs).into_iter().fold(self, |decision, what| decision.happened(at, what))
    }

    pub(crate) fn fact(mut self, fact: Fact) -> Self {
        self.facts.push(fact);
        self
    }

    pub(crate) fn effect(mut self, effect: E) -> Self {
        self.effects.push(effect);
        self
    }

    /// This, and then that.
    pub(crate) fn and(mut self, more: Self) -> Self {
        self.facts.extend(more.facts);
        self.effects.extend(more.effects);
        self
    }
}
