//! A session's log, folded for somebody who does not own it.

use outlive_core::id::{Position, SessionId};
use outlive_core::log::fold::{Claim, Effect as LogEffect, Fold, Verdict};
use outlive_core::log::record::{FencedBody, RunRecord};
use outlive_core::log::{Entry, Lane, Record};
use outlive_core::session::Fact;
use outlive_store::{Engine, LaneFilter, ReadError, ReadLimit};

use crate::context::Context;
use crate::hosted::Hosted;
use crate::session::notebook::restore::DocumentLane;

/// What a log says, folded.
pub struct Folded {
    /// The state; `None` when the log ends before the session was created.
    pub hosted: Option<Hosted>,
    /// The fold.
    pub fold: Fold,
    /// What its notebook is made of.
    pub document: DocumentLane,
}

/// Folds a session's log for somebody who does not own it.
///
/// # Errors
/// When it cannot be read.
pub async fn load(context: &Context, id: SessionId) -> Result<Folded, ReadError> {
    load_lanes(context, id, &LaneFilter::All).await
}

/// As [`load`], of these lanes alone; without the runs' lanes it knows of no run that began or ended.
///
/// # Errors
/// When the log cannot be read.
pub async fn load_lanes(context: &Context, id: SessionId, lanes: &LaneFilter) -> Result<Folded, ReadError> {
    let mut folded = Folded { hosted: None, fold: Fold::default(), document: DocumentLane::default() };
    let mut after = Position(0);
    loop {
        let page = context.engine.read(id, after, lanes, ReadLimit::default()).await?;
        if page.through <= after {
            return Ok(folded);
        }
        after = page.through;
        for entry in &page.entries {
            if let Verdict::Counted(effect) = folded.fold.push(entry) {
                Hosted::fold(&mut folded.hosted, entry, &effect);
                folded.document.push(entry);
            }
        }
    }
}

/// Whose a session is, as its control lane alone says.
#[derive(Debug)]
pub struct Control {
    /// The fold of that lane.
    pub fold: Fold,
    /// The last claim that counted, whether or not it is current: who has the session, or who gave it away.
    pub last_claim: Option<Claim>,
}

/// Reads a session's control lane, which is short.
///
/// # Errors
/// When it cannot be read.
pub async fn control(engine: &dyn Engine, id: SessionId) -> Result<Control, ReadError> {
    let lanes = LaneFilter::Only(vec![Lane::Control]);
    let (mut fold, mut last_claim, mut after) = (Fold::default(), None, Position(0));
    loop {
        let page = engine.read(id, after, &lanes, ReadLimit::default()).await?;
        if page.through <= after {
            return Ok(Control { fold, last_claim });
        }
        after = page.through;
        for entry in &page.entries {
            if let Verdict::Counted(LogEffect::Claimed(claim)) = fold.push(entry) {
                last_claim = Some(claim);
            }
        }
    }
}

/// The facts that a record states.
#[must_use]
pub fn facts_in(entry: &Entry, effect: &LogEffect) -> Vec<Fact> {
    let Record::Fenced(fenced) = &entry.record else { return Vec::new() };
    match (&fenced.body, effect) {
        (FencedBody::Journal(events), _) => events.iter().cloned().map(Fact::Journal).collect(),
        (FencedBody::Run(RunRecord::Open { attempt, base, at }), LogEffect::Opened { run, .. }) => {
            vec![Fact::RunOpened { run: *run, attempt: *attempt, base: Some(*base), at: *at }]
        }
        // What a process has said has a source; what its owner says of it has none.
        (FencedBody::Run(RunRecord::Data { chunks, .. }), LogEffect::Appended { run, .. })
            if fenced.source.is_none() =>
        {
            vec![Fact::RunTold { run: *run, chunks: chunks.clone() }]
        }
        (
            FencedBody::Run(RunRecord::Checkpoint { attempt, seq, blob }),
            LogEffect::Checkpointed { run, .. },
        ) => vec![Fact::RunCheckpointed { run: *run, attempt: *attempt, seq: *seq, blob: blob.clone() }],
        (
            FencedBody::Run(RunRecord::End { outcome, report, execution_count, at, .. }),
            LogEffect::Ended { run, .. },
        ) => vec![Fact::RunEnded {
            run: *run,
            outcome: outcome.clone(),
            report: report.clone(),
            execution_count: *execution_count,
            at: *at,
        }],
        _ => Vec::new(),
    }
}
