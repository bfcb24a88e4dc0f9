//! A session's state without its output: views with rising generations, and what changed between them, in order.
//!
//! What a watcher is told comes from the session's task and from memory ([`Feed`]), never from the log: a session that
//! has printed gigabytes is as quickly watched as a new one. A watcher that lacks more than is at hand is told `gap`
//! and then everything anew: the session and each of its runs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use outlive_core::id::{Generation, Position};
use outlive_core::limits::PEERS_SHOWN_MS;
use outlive_core::time::Tick;
use outlive_protocol::http::{Problem, SessionView, StreamEvent};
use tokio::sync::watch;

use super::feed::Feed;
use crate::api::{AttachSession, Delivered, Events, From};
use crate::bus::Severed;
use crate::seams::Clock;
use crate::session::Handle;
use crate::session::handle::{Answer, Ask, Peer};

/// Watches a session that is open here.
#[must_use]
pub(super) fn attach(
    clock: Arc<dyn Clock>,
    severed: watch::Receiver<Severed>,
    handle: &Handle,
    how: AttachSession,
) -> Events {
    let watcher = Watcher {
        clock,
        severed,
        changed: handle.feed.subscribe(),
        feed: Arc::clone(&handle.feed),
        view: handle.view.clone(),
        handle: handle.clone(),
        next: handle.feed.head(),
        shown: None,
        peers_due: None,
        waiting: VecDeque::new(),
        phase: Phase::Begin(how.from),
        follow: how.follow,
        _peer: Peer::attach(Arc::clone(&handle.peers), how.interactive),
    };
    Box::pin(stream::unfold(watcher, |mut watcher| async move {
        watcher.next().await.map(|event| (event, watcher))
    }))
}

/// The state of a session that is not in memory: there is nothing to wait for.
pub(super) fn of_row(now: SessionView, from: From) -> Events {
    let mut events = VecDeque::new();
    if let From::After(after) = from {
        events.extend(gap(after, now.position).map(untold));
    }
    events.push_back(shown(now));
    events.push_back(untold(StreamEvent::End { outcome: None }));
    Box::pin(stream::iter(events))
}

/// What a watcher has to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// It has been told nothing yet.
    Begin(From),
    /// It lacks what is not at hand any more.
    Anew,
    Live,
    Done,
}

struct Watcher {
    clock: Arc<dyn Clock>,
    severed: watch::Receiver<Severed>,
    handle: Handle,
    feed: Arc<Feed>,
    changed: watch::Receiver<u64>,
    view: watch::Receiver<Arc<SessionView>>,
    /// The number of the next change that it is told.
    next: u64,
    /// The last view that it was told.
    shown: Option<Arc<SessionView>>,
    /// When it is told that others have come or gone, which alone is no hurry.
    peers_due: Option<Tick>,
    waiting: VecDeque<Delivered>,
    phase: Phase,
    follow: bool,
    _peer: Peer,
}

impl Watcher {
    async fn next(&mut self) -> Option<Delivered> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            match self.phase {
                Phase::Begin(from) => self.begin(from),
                Phase::Anew => self.tell_anew().await,
                Phase::Live => self.wait().await,
                Phase::Done => return None,
            }
        }
    }

    fn begin(&mut self, from: From) {
        let view = self.view.borrow_and_update().clone();
        self.phase = Phase::Live;
        match from {
            From::Head => self.show(view),
            From::After(after) => match self.feed.behind(after) {
                Some(next) => {
                    self.next = next;
                    // No place to come back to yet: what leads to it follows.
                    self.waiting
                        .push_back(untold(StreamEvent::Session { session: Box::new((*view).clone()) }));
                    self.tell(&view);
                    self.shown = Some(view);
                }
                None => {
                    self.waiting.extend(gap(after, view.position).map(untold));
                    self.phase = Phase::Anew;
                }
            },
        }
        if !self.follow && self.phase == Phase::Live {
            self.end();
        }
    }

    /// The session and each of its runs.
    async fn tell_anew(&mut self) {
        self.next = self.feed.head();
        let view = self.view.borrow_and_update().clone();
        let runs = self.handle.ask(Ask::Runs).await;
        self.phase = Phase::Live;
        match runs {
            Ok(Answer::Runs(runs)) => {
                let runs = runs.into_iter().map(|run| untold(StreamEvent::Run { run: Box::new(run) }));
                self.waiting.push_back(untold(StreamEvent::Session { session: Box::new((*view).clone()) }));
                self.waiting.extend(runs);
                // The last of them is the place to come back to.
                let last = self.waiting.back_mut().expect("at least the session");
                last.cursor = Some(view.position.to_string());
                self.shown = Some(view);
                if !self.follow {
                    self.end();
                }
            }
            // Its end: what there is to be told is in the last view.
            Ok(_) | Err(_) if self.view.has_changed().is_err() => self.part(),
            Ok(other) => self.fail(crate::problem::internal(format!("the session answered {other:?}"))),
            Err(problem) => self.fail(problem),
        }
    }

    async fn wait(&mut self) {
        let due = self.peers_due;
        let is_over = tokio::select! {
            biased;
            problem = super::cut_off(&mut self.severed) => return self.fail(problem),
            _ = self.changed.changed() => false,
            changed = self.view.changed() => changed.is_err(),
            () = async {
                match due {
                    Some(at) => self.clock.until(at).await,
                    None => std::future::pending().await,
                }
            } => {
                self.peers_due = None;
                let view = self.view.borrow_and_update().clone();
                self.show(view);
                return;
            }
        };
        if is_over {
            return self.part();
        }
        let view = self.view.borrow_and_update().clone();
        self.tell(&view);
        if self.shown.as_deref().is_some_and(|shown| differs_in_peers_alone(shown, &view)) {
            let now = self.clock.now().tick;
            self.peers_due.get_or_insert(now + Duration::from_millis(PEERS_SHOWN_MS));
        } else {
            self.show(view);
        }
    }

    /// Tells all changes that there are. A view is taken before that, so that none is told before what led to it.
    fn tell(&mut self, view: &SessionView) {
        match self.feed.since(self.next) {
            Ok(changes) => {
                self.next += changes.len() as u64;
                for change in changes {
                    let last = change.events.len() - 1;
                    self.waiting.extend(change.events.iter().enumerate().map(|(n, event)| Delivered {
                        cursor: (n == last).then(|| change.position.to_string()),
                        event: event.clone(),
                    }));
                }
            }
            Err(skipped) => {
                tracing::debug!(session = %view.id, skipped, "a watcher fell behind");
                self.waiting.push_back(untold(StreamEvent::Gap { skipped }));
                self.phase = Phase::Anew;
            }
        }
    }

    fn show(&mut self, view: Arc<SessionView>) {
        let known = self.shown.as_ref().map_or(Generation(0), |shown| shown.generation);
        if self.phase == Phase::Live && (self.shown.is_none() || view.generation > known) {
            self.waiting.push_back(shown((*view).clone()));
            self.shown = Some(view);
            self.peers_due = None;
        }
    }

    /// The session's task has ended, and with it what there is to watch.
    fn part(&mut self) {
        let view = self.view.borrow().clone();
        self.phase = Phase::Live;
        self.tell(&view);
        // The last of all views says what the changes that are gone led to.
        self.phase = Phase::Live;
        self.show(Arc::clone(&view));
        if view.closed_at.is_some() {
            self.end();
        } else {
            self.fail(super::away(view.id));
        }
    }

    fn end(&mut self) {
        self.waiting.push_back(untold(StreamEvent::End { outcome: None }));
        self.phase = Phase::Done;
    }

    fn fail(&mut self, problem: Problem) {
        self.waiting.push_back(untold(StreamEvent::Problem { problem }));
        self.phase = Phase::Done;
    }
}

fn untold(event: StreamEvent) -> Delivered {
    Delivered { cursor: None, event }
}

/// A view, with the place that it stands for.
fn shown(view: SessionView) -> Delivered {
    let cursor = Some(view.position.to_string());
    Delivered { cursor, event: StreamEvent::Session { session: Box::new(view) } }
}

/// What somebody lacks who has been told nothing after a position; nobody lacks what nobody has begun to tell.
fn gap(after: Position, now: Position) -> Option<StreamEvent> {
    (after > Position(0) && after < now).then(|| StreamEvent::Gap { skipped: now.0 - after.0 })
}

fn differs_in_peers_alone(before: &SessionView, after: &SessionView) -> bool {
    let same = SessionView {
        peers: before.peers,
        generation: before.generation,
        position: before.position,
        ..after.clone()
    };
    before.peers != after.peers && same == *before
}

#[cfg(test)]
mod tests;
