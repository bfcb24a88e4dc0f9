//! What one keystroke costs in a live document of 10, 500 and 5,000 cells: by cell, from a peer, and into the file's
//! side. The figures must not grow with the number of cells, but for cells that come or go.
//!
//! `cargo run --release -p outlive-document --example live_cost`

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement, run by hand"
)]

use std::time::{Duration, Instant};

use outlive_core::id::{RunId, Seq};
use outlive_core::log::{Chunk, ChunkKind};
use outlive_core::time::WallTime;
use outlive_document::live::{Edit, Live, Place};
use outlive_document::{CellKey, CellKind, NoBlobs, Notebook};

const ROUNDS: u32 = 1_000;

fn notebook(cells: usize) -> Notebook {
    let mut notebook = Notebook::empty("python3");
    for index in 0..cells {
        let source = format!("# cell {index}\n{}", "value = compute(1, 2, 3)\n".repeat(12));
        notebook.insert_cell(index, CellKind::Code, &source, Some(&format!("c{index}")));
    }
    notebook
}

fn type_at(cell: &CellKey, at: u32) -> Edit {
    Edit::Splice { cell: cell.clone(), at, delete: 0, insert: "x".to_owned() }
}

fn each(rounds: u32, mut work: impl FnMut(u32)) -> f64 {
    let begin = Instant::now();
    (0..rounds).for_each(&mut work);
    micros(begin.elapsed()) / f64::from(rounds)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn main() {
    println!(
        "cells   share   restore   edit   peer's edit   +notebook   print+project   insert+delete  (microseconds)"
    );
    for cells in [10, 500, 5_000] {
        let mut live = Live::new(notebook(cells));
        let begin = Instant::now();
        let state = live.share().unwrap();
        let share = micros(begin.elapsed());
        let opened = notebook(cells);
        let begin = Instant::now();
        let mut restoring = Live::restore(opened);
        restoring.update(&state).unwrap();
        let mut other = restoring.finish();
        let restore = micros(begin.elapsed());
        let cell = CellKey::new(format!("c{}", cells / 2));
        let mut updates = Vec::new();
        let edit = each(ROUNDS, |round| {
            updates.push(other.edit(&[type_at(&cell, round)]).unwrap().update.unwrap());
        });
        let apply = each(ROUNDS, |round| drop(live.apply(&updates[round as usize]).unwrap()));
        let with_notebook = each(ROUNDS, |round| {
            let update = other.edit(&[type_at(&cell, round)]).unwrap().update.unwrap();
            live.apply(&update).unwrap();
            live.notebook();
        });
        let run = RunId::from_uuid(uuid::Uuid::from_u128(1));
        live.begin_run(&cell, run).unwrap();
        let chunk = Chunk::inline(ChunkKind::Stdout, WallTime(0), &b"a line that a cell prints\n"[..]);
        let project = each(ROUNDS, |round| {
            live.apply_chunk(run, Seq(u64::from(round) + 1), &chunk, &NoBlobs).unwrap();
            live.project().unwrap();
        });
        let insert = each(100, |round| {
            let id = format!("new{round}");
            let new = Edit::Insert {
                at: Place::After(cell.clone()),
                kind: CellKind::Code,
                source: String::new(),
                id: Some(id.clone()),
                metadata: serde_json::Map::new(),
            };
            live.edit(&[new]).unwrap();
            live.edit(&[Edit::Delete { cell: CellKey::new(id) }]).unwrap();
        });
        println!(
            "{cells:5} {share:8.0} {restore:8.0} {edit:8.1} {apply:10.1} {with_notebook:12.1} {project:12.1} {insert:14.1}"
        );
    }
}
