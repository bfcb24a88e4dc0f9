//! What comes from a shim, put in order: output to its run's lane, everything else to `decide`.

use outlive_core::id::{ProcessKey, ReportId, RunId, Src};
use outlive_core::limits::{COALESCE_BYTES_MAX, COALESCE_RECORDS_MAX};
use outlive_core::log::{Chunk, Payload, Source};
use outlive_core::session::input::ProcessInput;
use outlive_protocol::shim::{Notice, Numbered, StateNotice};

use crate::seams::FromLink;

/// How many records of a shim are taken into one round, so that commands are answered in between.
const ROUND_RECORDS_MAX: usize = 512;

/// One step of the task that owns a process; `I` is what it decides.
#[derive(Debug)]
pub(crate) enum Step<I> {
    /// Append this output.
    Output {
        /// Whose it is.
        run: Option<RunId>,
        /// In order.
        chunks: Vec<Chunk>,
        /// What is accounted for with it.
        source: Source,
    },
    /// Decide this.
    Decide {
        /// The input.
        input: I,
        /// What is accounted for when all that follows from it is stored.
        source: Source,
    },
    /// Nothing to store, but accounted for with what comes next.
    Nothing,
}

/// A round of a shim's records, and what else it said behind them.
pub(crate) fn round(
    first: Numbered,
    mut next: impl FnMut() -> Option<FromLink>,
) -> (Vec<Numbered>, Option<FromLink>) {
    let mut records = vec![first];
    while records.len() < ROUND_RECORDS_MAX {
        match next() {
            Some(FromLink::Record(record)) => records.push(record),
            other => return (records, other),
        }
    }
    (records, None)
}

/// Turns a batch of records into steps; neighbouring output of one run becomes one append. What is not output is what
/// `decided` says.
pub(crate) fn steps<I>(
    process: ProcessKey,
    records: Vec<Numbered>,
    mut decided: impl FnMut(StateNotice) -> Option<I>,
) -> Vec<Step<I>> {
    let mut steps: Vec<Step<I>> = Vec::new();
    let mut room = 0_usize;
    for record in records {
        let source = Source { process, through: record.src };
        match record.notice {
            Notice::Output { run, chunks } => {
                let bytes = chunks.iter().map(inline_bytes).sum::<usize>();
                match steps.last_mut() {
                    Some(Step::Output { run: last, chunks: before, source: through })
                        if *last == run && bytes <= room && before.len() < COALESCE_RECORDS_MAX =>
                    {
                        room -= bytes;
                        before.extend(chunks);
                        *through = source;
                    }
                    _ => {
                        room = COALESCE_BYTES_MAX.saturating_sub(bytes);
                        steps.push(Step::Output { run, chunks, source });
                    }
                }
            }
            Notice::State(state) => {
                steps.push(decided(state).map_or(Step::Nothing, |input| Step::Decide { input, source }));
            }
        }
    }
    steps
}

fn inline_bytes(chunk: &Chunk) -> usize {
    match &chunk.payload {
        Payload::Inline(bytes) => bytes.len(),
        Payload::Blob(_) => 0,
    }
}

/// What every process says of itself; `Err` is what only a runner says.
pub(crate) fn of_process(
    state: StateNotice,
    attended: bool,
    mut report_id: impl FnMut() -> ReportId,
) -> Result<Option<ProcessInput>, StateNotice> {
    Ok(Some(match state {
        StateNotice::Spawned { pid, pid_start: _ } => ProcessInput::Spawned { pid },
        StateNotice::Ready { kernel_info: _ } => ProcessInput::Ready,
        StateNotice::RunFinished { run, attempt, outcome, execution_count } => {
            ProcessInput::RunFinished { run, attempt, outcome, execution_count }
        }
        StateNotice::InputRequested { run, prompt, password } => {
            ProcessInput::InputRequested { run, prompt, password, attended }
        }
        StateNotice::Unresponsive { hang } => ProcessInput::Unresponsive(hang),
        StateNotice::Responsive => ProcessInput::Responsive,
        StateNotice::Stopping { why, step } => ProcessInput::Stopping { why, step },
        StateNotice::Exited { report } => ProcessInput::Exited { report, id: report_id() },
        StateNotice::Drained { evidence } => ProcessInput::Drained(evidence),
        // The run's `Open` said it; a gap is told by its chunk.
        StateNotice::RunStarted { .. } | StateNotice::Gap { .. } => return Ok(None),
        // Of the moment: see `was_frozen`.
        StateNotice::Frozen { .. } | StateNotice::Thawed => return Ok(None),
        said @ (StateNotice::Greeted { .. }
        | StateNotice::Entered { .. }
        | StateNotice::Checkpointed { .. }
        | StateNotice::Stalled { .. }
        | StateNotice::Violated { .. }) => return Err(said),
    }))
}

/// Whether the shim has frozen its process by itself, because it had not heard of its daemon for long. It goes on when it
/// is known whose the session is.
pub(crate) fn was_frozen(records: &[Numbered]) -> bool {
    records
        .iter()
        .any(|record| matches!(record.notice, Notice::State(StateNotice::Frozen { by_guard: true })))
}

/// The last record of a batch.
pub(crate) fn last(records: &[Numbered]) -> Option<Src> {
    records.last().map(|record| record.src)
}
