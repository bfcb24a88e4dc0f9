//! Everything that happens in a session, in log order. The cursor is a log position.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::stream;
use outlive_core::id::{Attempt, Position, Seq};
use outlive_core::log::fold::{Effect, Fold, Verdict};
use outlive_core::log::{Chunk, Entry, FencedBody, Record, RunRecord};
use outlive_core::session::event::Happened;
use outlive_core::session::state::Life;
use outlive_core::session::{Fact, Session};
use outlive_protocol::http::{SessionView, StreamEvent};
use outlive_store::LaneFilter;

use super::{Reader, Telling, Told};
use crate::api::{AttachSession, Delivered, Events, From};
use crate::context::Context;
use crate::session::handle::{Peer, Peers};
use crate::session::open::{facts_in, fold_session};
use crate::session::view;

/// Attaches to a session whose present state is `now`.
#[must_use]
pub fn attach(
    context: &Context,
    now: &SessionView,
    peers: Option<&Arc<Peers>>,
    how: AttachSession,
) -> Events {
    let live = how.follow.then(|| context.bus.subscribe(now.id));
    let telling = SessionTelling {
        after: match how.from {
            From::After(position) => position,
            From::Head => now.position,
        },
        outputs: how.outputs,
        fold: Fold::default(),
        session: None,
        live: false,
        lanes: LaneFilter::All,
        peer: peers.map(|peers| Peer::attach(Arc::clone(peers), how.interactive)),
    };
    let first = Delivered { cursor: None, event: StreamEvent::Session { session: Box::new(now.clone()) } };
    let reader = Reader::new(Arc::clone(&context.engine), now.id, live, vec![first], telling);
    Box::pin(stream::unfold(
        reader,
        |mut reader| async move { reader.next().await.map(|event| (event, reader)) },
    ))
}

struct SessionTelling {
    after: Position,
    outputs: bool,
    fold: Fold,
    session: Option<Session>,
    /// History has been told: from here on every change of the state is shown.
    live: bool,
    lanes: LaneFilter,
    /// Detaches when the reader goes.
    peer: Option<Peer>,
}

impl Telling for SessionTelling {
    fn lanes(&self) -> &LaneFilter {
        &self.lanes
    }

    fn caught_up(&mut self, out: &mut VecDeque<Delivered>) {
        if !self.live {
            self.live = true;
            out.extend(self.shown().map(|event| Delivered { cursor: None, event }));
        }
    }

    fn tell(&mut self, entry: &Entry, out: &mut VecDeque<Delivered>) -> Told {
        let Verdict::Counted(effect) = self.fold.push(entry) else { return Told::More };
        let facts = facts_in(entry, &effect);
        fold_session(&mut self.session, entry, &effect);
        let mut events = if self.outputs { output(entry, &effect) } else { Vec::new() };
        events.extend(facts.iter().flat_map(|fact| self.about(fact)));
        if self.live && !facts.is_empty() {
            events.extend(self.shown());
        }
        let over = self.session.as_ref().is_some_and(|session| matches!(session.life, Life::Closed { .. }));
        if over {
            if !self.live {
                events.extend(self.shown());
            }
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
        let peers = self.peer.as_ref().map_or(0, Peer::attached);
        let session = view::session(self.session.as_ref()?, self.fold.position(), peers);
        Some(StreamEvent::Session { session: Box::new(session) })
    }

    /// What a fact means for a client, the state apart.
    fn about(&self, fact: &Fact) -> Vec<StreamEvent> {
        let Some(session) = &self.session else { return Vec::new() };
        let run = |id| view::run(session, &self.fold, id).map(|run| StreamEvent::Run { run: Box::new(run) });
        match fact {
            Fact::RunOpened { run: id, .. } | Fact::RunEnded { run: id, .. } => {
                run(*id).into_iter().collect()
            }
            Fact::Journal(event) => match &event.what {
                Happened::RunsQueued(runs) => runs.iter().filter_map(|new| run(new.id)).collect(),
                Happened::RuntimeExited { report: Some(report), .. }
                | Happened::RuntimeDrained { report: Some(report), .. } => {
                    vec![StreamEvent::Report { report: report.clone() }]
                }
                Happened::PathChanged { path, why } => {
                    vec![StreamEvent::PathChanged { session: session.spec.id, path: path.clone(), why: *why }]
                }
                _ => Vec::new(),
            },
        }
    }
}

fn output(entry: &Entry, effect: &Effect) -> Vec<StreamEvent> {
    let Record::Fenced(fenced) = &entry.record else { return Vec::new() };
    match (&fenced.body, effect) {
        (
            FencedBody::Run(RunRecord::Data { chunks, .. }),
            Effect::Appended { run, attempt, first, skip, .. },
        ) => {
            let chunks = views(chunks, *skip, u64::MAX);
            vec![StreamEvent::Output { run: Some(*run), attempt: *attempt, first: *first, chunks }]
        }
        (FencedBody::Run(RunRecord::Open { .. }), Effect::Opened { run, attempt, base, truncated_from })
            if base < truncated_from =>
        {
            vec![StreamEvent::Reset { run: *run, attempt: *attempt, keep: *base }]
        }
        (FencedBody::Runtime { origin, chunks, .. }, Effect::Runtime) => {
            let chunks = views(chunks, 0, u64::MAX);
            vec![StreamEvent::Output { run: *origin, attempt: Attempt(0), first: Seq(0), chunks }]
        }
        _ => Vec::new(),
    }
}

/// Chunks as clients see them, but for the first `skip` and those after the next `n`.
pub(super) fn views(chunks: &[Chunk], skip: u64, n: u64) -> Vec<outlive_protocol::http::ChunkView> {
    let (skip, n) = (usize::try_from(skip).unwrap_or(usize::MAX), usize::try_from(n).unwrap_or(usize::MAX));
    chunks.iter().skip(skip).take(n).map(Into::into).collect()
}
