//! Readers of a session's log, from any place in it to its end, live.
//!
//! A reader subscribes first and then reads the log, so nothing falls between the two; what it is told twice it knows
//! by its position. One that falls behind the live tail is told so and reads on from the log: there is no silent gap.
//!
//! Who wants a session's state alone does not read the log at all: see [`feed`].

pub mod feed;
pub mod run;
pub mod session;
mod state;
mod told;

use std::collections::VecDeque;
use std::sync::Arc;

use outlive_core::id::{Position, SessionId};
use outlive_core::log::Entry;
use outlive_protocol::http::{Problem, StreamEvent};
use outlive_store::{Engine, LaneFilter, ReadLimit};
use tokio::sync::broadcast::error::RecvError;

use crate::api::Delivered;
use crate::bus::Tail;
use crate::problem;

pub use told::about;

/// What a reader makes of the log.
pub(super) trait Telling: Send + 'static {
    /// Takes the next entry and says what the reader is told, and whether that was the last of it.
    fn tell(&mut self, entry: &Entry, out: &mut VecDeque<Delivered>) -> Told;
    /// The lanes that it wants.
    fn lanes(&self) -> &LaneFilter;
    /// The reader has caught up with the log for the first time.
    fn caught_up(&mut self, _out: &mut VecDeque<Delivered>) {}
}

/// Whether there is more to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Told {
    /// There may be.
    More,
    /// That was all.
    All,
}

/// Where a reader reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Log,
    Live,
    Done,
}

/// What one step of a reader has come to.
#[derive(Debug)]
pub(super) enum Step {
    /// The reader is told this.
    Told(Delivered),
    /// It has read all that the log had, and listens now.
    CaughtUp,
    /// That was all.
    Over,
}

/// A reader: log first, then live, then log again where it fell behind.
pub(super) struct Reader<T> {
    engine: Arc<dyn Engine>,
    session: SessionId,
    /// `None`: it does not stay.
    live: Option<Tail>,
    through: Position,
    mode: Mode,
    waiting: VecDeque<Delivered>,
    telling: T,
}

impl<T: Telling> Reader<T> {
    pub(super) fn new(
        engine: Arc<dyn Engine>,
        session: SessionId,
        live: Option<Tail>,
        first: Vec<Delivered>,
        telling: T,
    ) -> Self {
        Self { engine, session, live, through: Position(0), mode: Mode::Log, waiting: first.into(), telling }
    }

    /// A reader that knows the log up to here and only listens.
    pub(super) fn starting_behind(mut self, through: Position) -> Self {
        self.through = through;
        self
    }

    /// Whether all up to here is told.
    pub(super) fn has_told(&self, position: Position) -> bool {
        self.waiting.is_empty() && self.through >= position
    }

    /// Whether it listens, and has told all that it has heard so far.
    pub(super) fn is_live(&self) -> bool {
        self.mode == Mode::Live && self.waiting.is_empty()
    }

    /// The next event; `None` after the last.
    pub(super) async fn next(&mut self) -> Option<Delivered> {
        loop {
            match self.step().await {
                Step::Told(event) => return Some(event),
                Step::CaughtUp => {}
                Step::Over => return None,
            }
        }
    }

    /// As [`Self::next`], and it also returns when it has caught up with the log. Cancel-safe.
    pub(super) async fn step(&mut self) -> Step {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Step::Told(event);
            }
            match self.mode {
                Mode::Log => {
                    self.read().await;
                    if self.is_live() {
                        return Step::CaughtUp;
                    }
                }
                Mode::Live => self.listen().await,
                Mode::Done => return Step::Over,
            }
        }
    }

    async fn read(&mut self) {
        let page =
            self.engine.read(self.session, self.through, self.telling.lanes(), ReadLimit::default()).await;
        match page {
            Ok(page) if page.entries.is_empty() && page.through <= self.through => {
                self.telling.caught_up(&mut self.waiting);
                match self.live {
                    Some(_) => self.mode = Mode::Live,
                    None => self.end(),
                }
            }
            Ok(page) => {
                for entry in &page.entries {
                    self.take(entry);
                }
                self.through = self.through.max(page.through);
            }
            Err(error) => self.fail(problem::store(&error)),
        }
    }

    async fn listen(&mut self) {
        let Some(live) = &mut self.live else { return self.end() };
        match live.recv().await {
            Ok(entry) => self.take(&entry),
            Err(RecvError::Lagged(skipped)) => {
                self.waiting.push_back(Delivered { cursor: None, event: StreamEvent::Gap { skipped } });
                self.mode = Mode::Log;
            }
            // The session's task has ended: what it wrote last is in the log.
            Err(RecvError::Closed) => {
                self.live = None;
                self.mode = Mode::Log;
            }
        }
    }

    fn take(&mut self, entry: &Entry) {
        if self.mode == Mode::Done || entry.position <= self.through {
            return;
        }
        self.through = entry.position;
        if self.telling.lanes().wants(entry.lane) && self.telling.tell(entry, &mut self.waiting) == Told::All
        {
            self.mode = Mode::Done;
        }
    }

    fn end(&mut self) {
        self.waiting.push_back(Delivered { cursor: None, event: StreamEvent::End { outcome: None } });
        self.mode = Mode::Done;
    }

    fn fail(&mut self, problem: Problem) {
        self.waiting.push_back(Delivered { cursor: None, event: StreamEvent::Problem { problem } });
        self.mode = Mode::Done;
    }
}

/// The session's task has ended, and the session has not.
fn away(id: SessionId) -> Problem {
    let detail = format!("session {id} is not in this daemon's memory any more");
    Problem::new(503, "session-away", "The session is away", detail)
        .hint("attach again: it is taken up where it is")
}
