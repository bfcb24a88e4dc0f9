//! From the output of a run, or of a cell, to what an agent reads: bounded, and nothing of it out of reach.
//!
//! ```text
//! chunk, or output of a cell ── piece ──► fold ──► items and images
//!                                place: how far that was
//! ```
//! Without a place to go on from, a long output is its beginning and its end, with a line between them that says what
//! is left out and how to read it. From a place on it is read page by page.

mod fold;
mod piece;
mod place;
mod text;

use futures_util::StreamExt as _;
use outlive_core::id::{Cursor, Seq, SessionId};
use outlive_core::limits::MCP_TAIL_CHUNKS;
use outlive_protocol::http::{Problem, RunView, StreamEvent};
use serde_json::Value;

use crate::host::Host;
use fold::{Before, Fold, Taken};
pub use fold::{Image, Item};
pub use place::Place;

/// What there is to see of a run.
#[derive(Debug)]
pub struct Shown {
    /// In order.
    pub items: Vec<Item>,
    /// Where to go on: with what was left out at the end, else with what is still to come.
    pub next: Place,
}

/// The output of a run behind a place, or all in all.
pub async fn of_run(
    host: &dyn Host,
    run: &RunView,
    after: Option<Place>,
    room: usize,
    images: &mut Vec<Image>,
) -> Result<Shown, Problem> {
    let page = if after.is_some() { room } else { room / 3 };
    let mut begin = Fold::begin(page);
    let read = fill(host, run, after.unwrap_or_default(), &mut begin).await?;
    if read.ended {
        return Ok(Shown { items: begin.finish(images), next: read.next });
    }
    if after.is_some() {
        begin.notice(format!(
            "[there is more: ask `outputs` with run={} and after={} for what follows]",
            run.id, read.next
        ));
        return Ok(Shown { items: begin.finish(images), next: read.next });
    }
    // The end, without reading all that is between.
    let seq = Seq(run.head.0.saturating_sub(MCP_TAIL_CHUNKS));
    let tail = Place::behind(Cursor { attempt: run.attempt, seq });
    let is_far = tail.at.seq > read.next.at.seq;
    let mut end = Fold::end(room - page);
    let last = fill(host, run, if is_far { tail } else { read.next }, &mut end).await?;
    let mut items = Vec::new();
    if end.before() != Before::Cleared {
        if is_far || end.before() == Before::Cut {
            begin.notice(format!(
                "[output is left out here: ask `outputs` with run={} and after={} for it]",
                run.id, read.next
            ));
        }
        items = begin.finish(images);
    }
    items.extend(end.finish(images));
    Ok(Shown { items, next: last.next })
}

/// How far a fold was filled.
struct Filled {
    next: Place,
    /// There is nothing more for now.
    ended: bool,
}

async fn fill(host: &dyn Host, run: &RunView, from: Place, fold: &mut Fold) -> Result<Filled, Problem> {
    let mut events = host.run_output(run.session, run.id, from.cursor()).await?;
    let mut next = from;
    while let Some(delivered) = events.next().await {
        match delivered.event {
            StreamEvent::Output { attempt, first, chunks, .. } => {
                for (seq, chunk) in (first.0..).zip(chunks) {
                    // What nobody's attempt printed has no place to come back to.
                    let at = (attempt.0 > 0).then_some(Cursor { attempt, seq: Seq(seq) });
                    let skip = if at == Some(from.at) { from.part } else { 0 };
                    let piece = piece::of_chunk(host, run.session, chunk).await?;
                    match (fold.push(piece, skip), at) {
                        (Taken::Whole, Some(at)) => next = Place::behind(at),
                        (Taken::Whole, None) => {}
                        (Taken::Part(bytes), at) => {
                            if let (Some(at), 1..) = (at, skip + bytes) {
                                next = Place { at, part: skip + bytes };
                            }
                            return Ok(Filled { next, ended: false });
                        }
                    }
                }
            }
            StreamEvent::Reset { keep, .. } => {
                fold.notice(format!(
                    "[the run was begun again; of its output, the first {keep} chunks count]"
                ));
            }
            StreamEvent::Problem { problem } => return Err(problem),
            StreamEvent::End { .. } => break,
            StreamEvent::Session { .. }
            | StreamEvent::Run { .. }
            | StreamEvent::PathChanged { .. }
            | StreamEvent::Stalled { .. }
            | StreamEvent::Report { .. }
            | StreamEvent::Gap { .. }
            | StreamEvent::Unknown => {}
        }
    }
    Ok(Filled { next, ended: true })
}

/// The outputs of a cell as the notebook has them, in as much room as there is.
pub fn of_cell(
    session: SessionId,
    cell: &str,
    outputs: &[Value],
    room: usize,
    images: &mut Vec<Image>,
) -> Vec<Item> {
    let mut fold = Fold::begin(room);
    for (index, output) in outputs.iter().enumerate() {
        if let Taken::Part(_) = fold.push(piece::of_output(output), 0) {
            fold.notice(format!(
                "[output {} of {} of this cell is cut here; all of it is in the notebook's file, and GET \
                 /v1/sessions/{session}/cells/{cell}/outputs of the daemon answers with it]",
                index + 1,
                outputs.len()
            ));
            break;
        }
    }
    fold.finish(images)
}

/// Items as text.
pub fn text(items: &[Item]) -> String {
    let mut text = String::new();
    for item in items {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        match item {
            Item::Stream { name: "stderr", text: printed } => text.push_str(&format!("[stderr]\n{printed}")),
            Item::Stream { text: printed, .. } | Item::Display { text: printed, .. } => {
                text.push_str(printed)
            }
            Item::Image { mime, bytes, attached: true, .. } => {
                text.push_str(&format!("[image: {mime}, {bytes} bytes, attached]"));
            }
            Item::Image { mime, bytes, text: alternative, .. } => text.push_str(&format!(
                "[image: {mime}, {bytes} bytes, not attached; it is in the notebook's file] {alternative}"
            )),
            Item::Error { ename, evalue, traceback } if traceback.is_empty() => {
                text.push_str(&format!("{ename}: {evalue}"));
            }
            Item::Error { traceback, .. } => text.push_str(traceback),
            Item::Notice { text: notice } => text.push_str(notice),
        }
    }
    text
}
