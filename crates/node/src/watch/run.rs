//! The output of one run. The cursor is `attempt.seq`.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::stream;
use outlive_core::id::{Cursor, RunId};
use outlive_core::log::fold::{Effect, Fold, Ownership, Verdict};
use outlive_core::log::follow::{Follower, Step};
use outlive_core::log::{Entry, FencedBody, Lane, Record, RunRecord};
use outlive_protocol::http::StreamEvent;
use outlive_store::LaneFilter;

use super::told::views;
use super::{Reader, Telling, Told};
use crate::api::{AttachRun, Delivered, Events};
use crate::context::Context;
use crate::session::handle::KnownRun;

/// Attaches to a run.
#[must_use]
pub fn attach(context: &Arc<Context>, run: KnownRun, how: AttachRun) -> Events {
    let KnownRun { view: run, known, before } = run;
    let attempt = known.attempt();
    let (follower, resume) = Follower::new(run.id, known, how.cursor);
    let mut first = vec![Delivered { cursor: None, event: StreamEvent::Run { run: Box::new(run.clone()) } }];
    if resume.reset {
        let cursor = Some(Cursor { attempt, seq: resume.keep }.to_string());
        first.push(Delivered {
            cursor,
            event: StreamEvent::Reset { run: run.id, attempt, keep: resume.keep },
        });
    }
    let telling = RunTelling {
        run: run.id,
        fold: before,
        follower,
        lanes: LaneFilter::Only(vec![Lane::Control, Lane::Run(run.id)]),
    };
    let from = telling.fold.position();
    // Nothing follows on a session that has ended.
    let follows = how.follow && telling.fold.ownership() != Ownership::Closed;
    let reader = Reader::new(context, run.session, follows, first, telling).starting_behind(from);
    Box::pin(stream::unfold(
        reader,
        |mut reader| async move { reader.next().await.map(|event| (event, reader)) },
    ))
}

struct RunTelling {
    run: RunId,
    fold: Fold,
    follower: Follower,
    lanes: LaneFilter,
}

impl Telling for RunTelling {
    fn lanes(&self) -> &LaneFilter {
        &self.lanes
    }

    fn outlives_the_task(&self) -> bool {
        true
    }

    fn tell(&mut self, entry: &Entry, out: &mut VecDeque<Delivered>) -> Told {
        let Verdict::Counted(effect) = self.fold.push(entry) else { return Told::More };
        if effect == Effect::Closed {
            out.push_back(Delivered { cursor: None, event: StreamEvent::End { outcome: None } });
            return Told::All;
        }
        let step = self.follower.push(&effect);
        let cursor = Some(self.follower.cursor().to_string());
        let run = self.run;
        match (step, &entry.record) {
            (Step::Take { attempt, first, skip, n }, Record::Fenced(fenced)) => {
                if let FencedBody::Run(RunRecord::Data { chunks, .. }) = &fenced.body {
                    let chunks = views(chunks, skip, n);
                    let event = StreamEvent::Output { run: Some(run), attempt, first, chunks };
                    out.push_back(Delivered { cursor, event });
                }
                Told::More
            }
            (Step::Reset { keep }, _) => {
                let attempt = self.follower.cursor().attempt;
                out.push_back(Delivered { cursor, event: StreamEvent::Reset { run, attempt, keep } });
                Told::More
            }
            (Step::End, Record::Fenced(fenced)) => {
                if let FencedBody::Run(RunRecord::End { outcome, report, .. }) = &fenced.body {
                    if let Some(report) = report {
                        let event = StreamEvent::Report { report: report.clone() };
                        out.push_back(Delivered { cursor: None, event });
                    }
                    let event = StreamEvent::End { outcome: Some(outcome.clone()) };
                    out.push_back(Delivered { cursor, event });
                }
                Told::All
            }
            (Step::Nothing | Step::Take { .. } | Step::End, _) => Told::More,
        }
    }
}
