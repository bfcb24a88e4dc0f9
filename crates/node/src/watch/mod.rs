//! Readers of a session's log, from any place in it to its end, live.
//!
//! A reader subscribes first and then reads the log, so nothing falls between the two; what it is told twice it knows
//! by its position. One that falls behind the live tail is told so and reads on from the log: there is no silent gap.
//!
//! Who wants a session's state alone does not read the log at all: see [`feed`].

pub mod feed;
pub(crate) mod known;
pub(crate) mod patience;
pub mod run;
pub mod session;
mod state;
mod told;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use outlive_core::id::{Position, SessionId};
use outlive_core::log::Entry;
use outlive_core::time::Tick;
use outlive_protocol::http::{Problem, StreamEvent};
use outlive_store::{LaneFilter, Page, ReadError, ReadLimit, TableError};
use tokio::sync::watch;

use crate::api::Delivered;
use crate::bus::{Cut, Severed, Tail};
use crate::context::{Context, Presence};
use crate::problem;
use patience::Patience;

pub use told::about;

/// Whether anything may be watched here.
///
/// # Errors
/// Why not, `node-isolated` for instance.
pub fn may_watch(context: &Context) -> Result<(), Problem> {
    context.bus.severed().borrow().as_deref().map_or(Ok(()), |problem| Err(problem.clone()))
}

/// What a reader makes of the log.
pub(super) trait Telling: Send + 'static {
    /// Takes the next entry and says what the reader is told, and whether that was the last of it.
    fn tell(&mut self, entry: &Entry, out: &mut VecDeque<Delivered>) -> Told;
    /// The lanes that it wants.
    fn lanes(&self) -> &LaneFilter;
    /// Whether it goes on when the session's task here has ended and the session has not: the log tells it all.
    fn outlives_the_task(&self) -> bool {
        false
    }
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
    /// The task that wrote here has ended; it finds out whether the session has.
    Parted,
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
    context: Arc<Context>,
    session: SessionId,
    /// `None`: it does not stay.
    live: Option<Tail>,
    severed: watch::Receiver<Severed>,
    patience: Patience,
    /// The store did not answer, and is not asked before this.
    again: Option<Tick>,
    through: Position,
    mode: Mode,
    waiting: VecDeque<Delivered>,
    telling: T,
}

/// What a reader has come upon.
enum Heard {
    Page(Result<Page, ReadError>),
    Live(Result<Arc<Entry>, Cut>),
    Row(Result<Option<Presence>, TableError>),
    Severed(Problem),
}

impl<T: Telling> Reader<T> {
    /// A reader that stays if it `follows`. What is appended from now on is heard.
    pub(super) fn new(
        context: &Arc<Context>,
        session: SessionId,
        follows: bool,
        first: Vec<Delivered>,
        telling: T,
    ) -> Self {
        let live = follows.then(|| context.bus.subscribe(session, telling.lanes().clone()));
        Self {
            context: Arc::clone(context),
            session,
            live,
            severed: context.bus.severed(),
            patience: Patience::default(),
            again: None,
            through: Position(0),
            mode: Mode::Log,
            waiting: first.into(),
            telling,
        }
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
            if self.mode == Mode::Done {
                return Step::Over;
            }
            match self.hear().await {
                Heard::Page(page) => {
                    self.turn(page);
                    if self.is_live() {
                        return Step::CaughtUp;
                    }
                }
                Heard::Live(Ok(entry)) => self.take(&entry),
                Heard::Live(Err(cut)) => self.cut(cut),
                Heard::Row(row) => self.parted(row),
                Heard::Severed(problem) => self.fail(problem),
            }
        }
    }

    async fn hear(&mut self) -> Heard {
        let Self { context, session, live, severed, again, through, telling, mode, .. } = self;
        let read = async {
            if let Some(again) = *again {
                context.clock.until(again).await;
            }
            context.engine.read(*session, *through, telling.lanes(), ReadLimit::default()).await
        };
        tokio::select! {
            biased;
            problem = cut_off(severed) => Heard::Severed(problem),
            entry = next_live(live), if *mode == Mode::Live => Heard::Live(entry),
            page = read, if *mode == Mode::Log => Heard::Page(page),
            row = context.indexed(*session), if *mode == Mode::Parted => {
                Heard::Row(row.map(|row| row.map(|row| row.presence)))
            }
        }
    }

    /// Takes a page of the log.
    fn turn(&mut self, page: Result<Page, ReadError>) {
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                match self.patience.again_at(self.context.clock.now().tick, error) {
                    Ok(again) => self.again = Some(again),
                    Err(error) => self.fail(problem::store(&error)),
                }
                return;
            }
        };
        self.patience.answered();
        self.again = None;
        if page.entries.is_empty() && page.through <= self.through {
            self.telling.caught_up(&mut self.waiting);
            match self.live {
                Some(_) => self.mode = Mode::Live,
                None => self.end(),
            }
        }
        for entry in &page.entries {
            self.take(entry);
        }
        self.through = self.through.max(page.through);
    }

    fn cut(&mut self, cut: Cut) {
        let passed = self.live.as_ref().map_or(Position(0), Tail::passed);
        self.through = self.through.max(passed);
        self.mode = Mode::Log;
        match cut {
            Cut::Lagged(skipped) => {
                self.waiting.push_back(Delivered { cursor: None, event: StreamEvent::Gap { skipped } });
            }
            Cut::Moved => {}
            // The session's task here has ended: what it wrote last is in the log.
            Cut::Closed => {
                self.live = None;
                if self.context.cluster.is_some() && self.telling.outlives_the_task() {
                    self.mode = Mode::Parted;
                }
            }
            Cut::Failed(problem) => self.fail(problem.as_ref().clone()),
        }
    }

    /// Of several nodes, another one may go on with the session.
    fn parted(&mut self, row: Result<Option<Presence>, TableError>) {
        self.mode = Mode::Log;
        if self.context.stop.is_cancelled() {
            return self.fail(problem::shutting_down());
        }
        if let Err(problem) = self.context.handle(self.session) {
            return self.fail(problem);
        }
        match row {
            Ok(None) => self.fail(problem::no_session(self.session)),
            Ok(Some(Presence::Ended)) => {}
            // A store that does not answer is found out by reading on.
            Ok(Some(_)) | Err(_) => {
                let lanes = self.telling.lanes().clone();
                self.live = Some(self.context.bus.subscribe(self.session, lanes));
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

/// The next entry of a tail.
async fn next_live(live: &mut Option<Tail>) -> Result<Arc<Entry>, Cut> {
    match live {
        Some(live) => live.recv().await,
        None => Err(Cut::Closed),
    }
}

/// Returns when nobody may watch here any more. Cancel-safe.
pub(super) async fn cut_off(severed: &mut watch::Receiver<Severed>) -> Problem {
    if let Ok(severed) = severed.wait_for(Option::is_some).await
        && let Some(problem) = severed.as_deref()
    {
        return problem.clone();
    }
    std::future::pending().await
}

/// The session's task has ended, and the session has not.
fn away(id: SessionId) -> Problem {
    let detail = format!("session {id} is not in this daemon's memory any more");
    Problem::new(503, "session-away", "The session is away", detail)
        .hint("attach again: it is taken up where it is")
}
