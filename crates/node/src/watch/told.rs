//! What a record of the log means for clients.

use outlive_core::group::GroupEvent;
use outlive_core::id::{Attempt, RunId, Seq, SessionId};
use outlive_core::log::fold::Effect;
use outlive_core::log::{Chunk, Entry, FencedBody, Record, RunRecord};
use outlive_core::session::Fact;
use outlive_core::session::event::Happened;
use outlive_protocol::http::{ChunkView, RunView, StreamEvent};

/// What a fact means, once it is applied; the session's view apart.
#[must_use]
pub fn about(session: SessionId, run: impl Fn(RunId) -> Option<RunView>, fact: &Fact) -> Vec<StreamEvent> {
    let run = |id| run(id).map(|run| StreamEvent::Run { run: Box::new(run) });
    match fact {
        Fact::RunOpened { run: id, .. } | Fact::RunEnded { run: id, .. } => run(*id).into_iter().collect(),
        Fact::Journal(event) => match &event.what {
            // Of parts that come before the last, nothing is queued yet.
            Happened::RunsQueued(runs) | Happened::RunsQueuedInParts { runs, .. } => {
                runs.iter().filter_map(|new| run(new.id)).collect()
            }
            Happened::RunWaitsAgain { run: id } => run(*id).into_iter().collect(),
            Happened::RuntimeExited { report: Some(report), .. }
            | Happened::RuntimeDrained { report: Some(report), .. } => {
                vec![StreamEvent::Report { report: report.clone() }]
            }
            Happened::PathChanged { path, why } => {
                vec![StreamEvent::PathChanged { session, path: path.clone(), why: *why }]
            }
            Happened::Group(event) => match event {
                GroupEvent::TaskQueued(task) => run(task.id).into_iter().collect(),
                GroupEvent::TaskEnding { run: id, .. } | GroupEvent::TaskWaitsAgain { run: id, .. } => {
                    run(*id).into_iter().collect()
                }
                GroupEvent::Noted { report } => vec![StreamEvent::Report { report: report.clone() }],
                _ => Vec::new(),
            },
            _ => Vec::new(),
        },
        Fact::RunTold { .. } | Fact::RunCheckpointed { .. } => Vec::new(),
    }
}

/// The output that a record has brought.
pub(super) fn output(entry: &Entry, effect: &Effect) -> Option<StreamEvent> {
    let Record::Fenced(fenced) = &entry.record else { return None };
    match (&fenced.body, effect) {
        (
            FencedBody::Run(RunRecord::Data { chunks, .. }),
            Effect::Appended { run, attempt, first, skip, .. },
        ) => {
            let chunks = views(chunks, *skip, u64::MAX);
            Some(StreamEvent::Output { run: Some(*run), attempt: *attempt, first: *first, chunks })
        }
        (FencedBody::Run(RunRecord::Open { .. }), Effect::Opened { run, attempt, base, truncated_from })
            if base < truncated_from =>
        {
            Some(StreamEvent::Reset { run: *run, attempt: *attempt, keep: *base })
        }
        (FencedBody::Runtime { origin, chunks, .. }, Effect::Runtime) => {
            let chunks = views(chunks, 0, u64::MAX);
            Some(StreamEvent::Output { run: *origin, attempt: Attempt(0), first: Seq(0), chunks })
        }
        _ => None,
    }
}

/// Chunks as clients see them, but for the first `skip` and those after the next `n`.
pub(super) fn views(chunks: &[Chunk], skip: u64, n: u64) -> Vec<ChunkView> {
    let (skip, n) = (usize::try_from(skip).unwrap_or(usize::MAX), usize::try_from(n).unwrap_or(usize::MAX));
    chunks.iter().skip(skip).take(n).map(Into::into).collect()
}
