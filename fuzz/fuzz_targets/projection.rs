//! Chunks of any kind with any content: the notebook stays one. A chunk is a kind byte, a length byte, the content.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outlive_core::id::{RunId, Seq};
use outlive_core::log::{Chunk, ChunkKind};
use outlive_core::session::RunOutcome;
use outlive_core::time::WallTime;
use outlive_document::{CellKind, NoBlobs, Notebook};
use uuid::Uuid;

const KINDS: [ChunkKind; 10] = [
    ChunkKind::Stdout,
    ChunkKind::Stderr,
    ChunkKind::DisplayData,
    ChunkKind::UpdateDisplayData,
    ChunkKind::ExecuteResult,
    ChunkKind::Error,
    ChunkKind::ClearOutput,
    ChunkKind::Started,
    ChunkKind::Gap,
    ChunkKind::Other,
];

fuzz_target!(|data: &[u8]| {
    let mut notebook = Notebook::empty("python3");
    let cell = notebook.insert_cell(0, CellKind::Code, "", Some("cell"));
    let run = RunId::from_uuid(Uuid::nil());
    notebook.begin_run(&cell, run).expect("the cell was just inserted");
    let (mut rest, mut seq) = (data, Seq(1));
    while let [kind, length, after @ ..] = rest {
        let (content, after) = after.split_at(usize::from(*length).min(after.len()));
        let chunk = Chunk::inline(KINDS[usize::from(*kind) % KINDS.len()].clone(), WallTime(0), content);
        notebook.apply_chunk(run, seq, &chunk, &NoBlobs).expect("chunks come in order");
        (rest, seq) = (after, seq.next());
    }
    notebook.finish_run(run, &RunOutcome::TimedOut { limit_ms: 1 }, None).expect("the run is the cell's");
    Notebook::parse(&notebook.to_bytes(&NoBlobs)).expect("a notebook with any output is a notebook");
});
