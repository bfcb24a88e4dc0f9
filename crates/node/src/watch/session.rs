//! Everything that happens in a session, in log order. The cursor is a log position.
//!
//! What is in the log is told from the log. What is not in it (whether all is saved, who is there) changes the
//! session's view alone: while the session is open here, views come from its task, each after all that led to it.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::{FutureExt as _, stream};
use outlive_core::id::{Generation, Position, SessionId};
use outlive_core::log::Entry;
use outlive_core::log::fold::{Fold, Verdict};
use outlive_protocol::http::{SessionView, StreamEvent};
use outlive_store::LaneFilter;
use tokio::sync::watch;

use super::{Reader, Step, Telling, Told, away, state, told};
use crate::api::{AttachSession, Delivered, Events, From};
use crate::context::Context;
use crate::hosted::Hosted;
use crate::session::Handle;
use crate::session::handle::{Answer, Ask, Peer};
use crate::session::open::facts_in;

/// Attaches to a session whose present state is `now`; `handle` when it is open here.
pub async fn attach(
    context: &Arc<Context>,
    now: SessionView,
    handle: Option<&Handle>,
    how: AttachSession,
) -> Events {
    match handle {
        None if !how.outputs => state::of_row(now, how.from),
        Some(handle) if !how.outputs => {
            state::attach(Arc::clone(&context.clock), context.bus.severed(), handle, how)
        }
        _ => with_outputs(context, now, handle, how).await,
    }
}

async fn with_outputs(
    context: &Arc<Context>,
    now: SessionView,
    handle: Option<&Handle>,
    how: AttachSession,
) -> Events {
    let present = handle.map(|handle| handle.view.clone());
    let mut telling = SessionTelling {
        after: match how.from {
            From::After(position) => position,
            From::Head => now.position,
        },
        fold: Fold::default(),
        hosted: None,
        phase: Phase::History,
        lanes: LaneFilter::All,
        present: present.clone(),
        follows: how.follow && handle.is_some(),
        _peer: handle.map(|handle| Peer::attach(Arc::clone(&handle.peers), how.interactive)),
    };
    // Who begins at the head needs no history, if the session's task can tell where it stands.
    if let (From::Head, Some(handle)) = (how.from, handle)
        && let Ok(Answer::State(state)) = handle.ask(Ask::State).await
    {
        (telling.hosted, telling.fold) = (Some(state.0), state.1);
        telling.after = telling.fold.position();
    }
    let through = telling.fold.position();
    let (id, shown) = (now.id, now.generation);
    let view = present.filter(|_| telling.follows);
    let first = Delivered { cursor: None, event: StreamEvent::Session { session: Box::new(now) } };
    let reader = Reader::new(context, id, how.follow, vec![first], telling).starting_behind(through);
    let watcher = Watcher { id, reader, view, shown, due: None, last: None };
    Box::pin(stream::unfold(watcher, |mut watcher| async move {
        watcher.next().await.map(|event| (event, watcher))
    }))
}

/// A reader of the log that is shown the views of the session's task in between.
struct Watcher {
    id: SessionId,
    reader: Reader<SessionTelling>,
    /// While it follows a session that is open here.
    view: Option<watch::Receiver<Arc<SessionView>>>,
    /// The generation of the last view that it was told.
    shown: Generation,
    /// A view that it is told once it has heard all that led to it.
    due: Option<Arc<SessionView>>,
    /// The last word, once the last view is told.
    last: Option<Delivered>,
}

impl Watcher {
    async fn next(&mut self) -> Option<Delivered> {
        loop {
            if let Some(last) = self.last.take() {
                return Some(last);
            }
            if let Some(view) = self.due.take_if(|view| self.reader.has_told(view.position)) {
                if view.generation > self.shown {
                    return Some(self.show(&view));
                }
                continue;
            }
            let step = if self.due.is_some() && self.reader.is_live() {
                match self.reader.step().now_or_never() {
                    Some(step) => step,
                    // What led to the view was published before it: there is nothing more of that.
                    None if self.reader.is_live() => {
                        let view = self.due.take().expect("it was there a moment ago");
                        if view.generation > self.shown {
                            return Some(self.show(&view));
                        }
                        continue;
                    }
                    None => continue,
                }
            } else {
                tokio::select! {
                    biased;
                    step = self.reader.step() => step,
                    view = next_view(&mut self.view) => {
                        self.due = Some(view);
                        continue;
                    }
                }
            };
            match step {
                Step::Told(last) if self.is_the_end(&last) => {
                    self.last = Some(last);
                    if let Some(view) = self.last_view().await {
                        return Some(self.show(&view));
                    }
                }
                Step::Told(Delivered { event: StreamEvent::End { .. }, .. }) if self.view.is_some() => {
                    let event = StreamEvent::Problem { problem: away(self.id) };
                    return Some(Delivered { cursor: None, event });
                }
                Step::Told(event) => return Some(event),
                // The present state is told at the end of the history, and after each gap.
                Step::CaughtUp => {
                    if let Some(view) = &mut self.view {
                        self.due = Some(view.borrow_and_update().clone());
                        self.shown = Generation(0);
                    }
                }
                Step::Over => return None,
            }
        }
    }

    fn is_the_end(&self, told: &Delivered) -> bool {
        self.reader.telling.phase == Phase::Over && matches!(told.event, StreamEvent::End { .. })
    }

    /// The session's task shows it in a moment; `None` when its views are not told here.
    async fn last_view(&mut self) -> Option<Arc<SessionView>> {
        let mut view = self.view.take()?;
        // An error says that the task has ended: there will be no other view than the present one.
        let _ = view.wait_for(|view| view.closed_at.is_some()).await;
        Some(Arc::clone(&view.borrow()))
    }

    fn show(&mut self, view: &Arc<SessionView>) -> Delivered {
        self.shown = view.generation;
        let event = StreamEvent::Session { session: Box::new((**view).clone()) };
        Delivered { cursor: None, event }
    }
}

/// Waits for ever where there is none (any more).
async fn next_view(view: &mut Option<watch::Receiver<Arc<SessionView>>>) -> Arc<SessionView> {
    if let Some(changing) = view
        && changing.changed().await.is_ok()
    {
        return changing.borrow_and_update().clone();
    }
    std::future::pending().await
}

/// Where the telling stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// What has happened before.
    History,
    /// What happens: every change of the state is shown.
    Live,
    /// The session has ended.
    Over,
}

struct SessionTelling {
    after: Position,
    fold: Fold,
    hosted: Option<Hosted>,
    phase: Phase,
    lanes: LaneFilter,
    /// The views of the session's task, if it is open here; otherwise the log alone says how it stands.
    present: Option<watch::Receiver<Arc<SessionView>>>,
    /// Those views are told as they come, and not from here.
    follows: bool,
    /// Detaches when the reader goes.
    _peer: Option<Peer>,
}

impl Telling for SessionTelling {
    fn lanes(&self) -> &LaneFilter {
        &self.lanes
    }

    fn caught_up(&mut self, out: &mut VecDeque<Delivered>) {
        if self.phase == Phase::History {
            self.phase = Phase::Live;
            if !self.follows {
                out.extend(self.shown().map(|event| Delivered { cursor: None, event }));
            }
        }
    }

    fn tell(&mut self, entry: &Entry, out: &mut VecDeque<Delivered>) -> Told {
        let Verdict::Counted(effect) = self.fold.push(entry) else { return Told::More };
        let facts = facts_in(entry, &effect);
        Hosted::fold(&mut self.hosted, entry, &effect);
        let mut events: Vec<_> = told::output(entry, &effect).into_iter().collect();
        if let Some(hosted) = &self.hosted {
            let run = |id| hosted.run(&self.fold, id);
            events.extend(facts.iter().flat_map(|fact| told::about(hosted.id(), run, fact)));
        }
        if self.phase == Phase::Live && !self.follows && !facts.is_empty() {
            events.extend(self.shown());
        }
        let over = self.hosted.as_ref().is_some_and(Hosted::is_closed);
        if over {
            if !self.follows && self.phase == Phase::History {
                events.extend(self.shown());
            }
            self.phase = Phase::Over;
            events.push(StreamEvent::End { outcome: None });
        }
        if entry.position > self.after || over {
            // A reader that comes back between two events of one entry is told all of them again.
            let last = events.len().saturating_sub(1);
            out.extend(events.into_iter().enumerate().map(|(n, event)| Delivered {
                cursor: (n == last).then(|| entry.position.to_string()),
                event,
            }));
        }
        if over { Told::All } else { Told::More }
    }
}

impl SessionTelling {
    fn shown(&self) -> Option<StreamEvent> {
        let view = match &self.present {
            Some(view) => (**view.borrow()).clone(),
            None => self.hosted.as_ref()?.view(self.fold.position()),
        };
        Some(StreamEvent::Session { session: Box::new(view) })
    }
}
