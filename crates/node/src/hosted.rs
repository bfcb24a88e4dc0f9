//! What a log is about: a session of one notebook, command or kernel, or a group of runners.

use std::collections::VecDeque;

use outlive_core::diagnosis::FailureReport;
use outlive_core::failover::Takeover;
use outlive_core::group::{self, Group, GroupEvent};
use outlive_core::id::{Position, RunId, SessionId};
use outlive_core::log::Entry;
use outlive_core::log::fold::{Effect as LogEffect, Fold};
use outlive_core::session::event::{Happened, SessionEvent};
use outlive_core::session::state::Life;
use outlive_core::session::{self, Fact, Session};
use outlive_protocol::http::{RunView, SessionView};

use crate::group::view as group_view;
use crate::session::open::facts_in;
use crate::session::view as session_view;

/// The state that a log's facts make.
#[derive(Clone, Debug)]
pub enum Hosted {
    /// Of a notebook, a command or a kernel.
    Session(Box<Session>),
    /// Of a group of runners.
    Group(Box<Group>),
}

impl Hosted {
    /// Folds the facts in a record that counts; the first of a log says what it is about.
    pub fn fold(hosted: &mut Option<Self>, entry: &Entry, effect: &LogEffect) {
        if let (LogEffect::Claimed(_), Some(hosted)) = (effect, &mut *hosted) {
            hosted.claimed();
        }
        for fact in facts_in(entry, effect) {
            match hosted {
                None => *hosted = Self::created(&fact),
                Some(hosted) => hosted.apply(&fact),
            }
        }
    }

    fn created(fact: &Fact) -> Option<Self> {
        let Fact::Journal(SessionEvent { what, .. }) = fact else { return None };
        match what {
            Happened::Created(spec) => Some(Self::Session(Box::new(Session::new((**spec).clone())))),
            Happened::Group(GroupEvent::Created(spec)) => {
                Some(Self::Group(Box::new(Group::new((**spec).clone()))))
            }
            _ => None,
        }
    }

    fn apply(&mut self, fact: &Fact) {
        match self {
            Self::Session(session) => session::apply(session, fact),
            Self::Group(group) => group::apply(group, fact),
        }
    }

    fn claimed(&mut self) {
        match self {
            Self::Session(session) => session.claimed(),
            Self::Group(group) => group.claimed(),
        }
    }

    /// Whether it can be given to another node now: its hand-over was asked for, and nothing of it is here any more.
    #[must_use]
    pub fn can_release(&self) -> bool {
        match self {
            Self::Session(session) => session::can_release(session),
            Self::Group(group) => group::can_release(group),
        }
    }

    /// How it came to its latest owners, oldest first.
    #[must_use]
    pub const fn takeovers(&self) -> &VecDeque<Takeover> {
        match self {
            Self::Session(session) => &session.takeovers,
            Self::Group(group) => &group.takeovers,
        }
    }

    /// The session's id.
    #[must_use]
    pub const fn id(&self) -> SessionId {
        match self {
            Self::Session(session) => session.spec.id,
            Self::Group(group) => group.spec.id,
        }
    }

    /// Whether it has ended.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        let life = match self {
            Self::Session(session) => &session.life,
            Self::Group(group) => &group.life,
        };
        matches!(life, Life::Closed { .. })
    }

    /// As clients see it, when nobody is there.
    #[must_use]
    pub fn view(&self, position: Position) -> SessionView {
        match self {
            Self::Session(session) => session_view::session(session, position, 0),
            Self::Group(group) => group_view::group(group, position, 0, &group_view::Loading::new()),
        }
    }

    /// One of its runs.
    #[must_use]
    pub fn run(&self, fold: &Fold, run: RunId) -> Option<RunView> {
        match self {
            Self::Session(session) => session_view::run(session, fold, run),
            Self::Group(group) => group_view::task(group, fold, run),
        }
    }

    /// All its runs, in the order in which they were queued.
    #[must_use]
    pub fn runs(&self, fold: &Fold) -> Vec<RunView> {
        match self {
            Self::Session(session) => session_view::runs(session, fold),
            Self::Group(group) => group_view::tasks(group, fold),
        }
    }

    /// Its failures, oldest first.
    #[must_use]
    pub fn into_reports(self) -> Vec<FailureReport> {
        match self {
            Self::Session(session) => session.reports,
            Self::Group(group) => group.reports.into(),
        }
    }
}
