//! Chunks of runs become the outputs of cells.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use std::collections::{HashMap, HashSet};
use std::io;

use outlive_core::diagnosis::evidence::Evidence;
use outlive_core::diagnosis::{Cause, CauseCode, Confidence, FailureReport, NextStep};
use outlive_core::id::{ReportId, RunId, Seq, SessionId};
use outlive_core::limits::{NOTEBOOK_OUTPUTS_MAX, NOTEBOOK_RICH_BYTES_MAX, NOTEBOOK_STREAM_BYTES_MAX};
use outlive_core::log::{BlobRef, Chunk, ChunkKind, Payload};
use outlive_core::session::{CancelWhy, RunOutcome};
use outlive_core::time::WallTime;
use outlive_document::{Blobs, CellKey, NoBlobs, Notebook, ProjectionError};
use serde_json::{Value, json};
use uuid::Uuid;

/// A notebook with code cells `a` and `b`; `a` has shown something before.
struct Desk {
    notebook: Notebook,
    next: HashMap<RunId, Seq>,
}

fn run(number: u128) -> RunId {
    RunId::from_uuid(Uuid::from_u128(number))
}

fn key(text: &str) -> CellKey {
    CellKey::new(text)
}

fn stream(name: &str, lines: &[&str]) -> Value {
    json!({"output_type": "stream", "name": name, "text": lines})
}

impl Desk {
    fn new() -> Self {
        let cell = |id: &str, outputs: Value| json!({"cell_type": "code", "id": id, "metadata": {}, "execution_count": 7, "outputs": outputs, "source": "1"});
        let notebook = json!({
            "cells": [cell("a", json!([stream("stdout", &["old\n"])])), cell("b", json!([]))],
            "metadata": {}, "nbformat": 4, "nbformat_minor": 5,
        });
        Self { notebook: Notebook::parse(notebook.to_string().as_bytes()).unwrap(), next: HashMap::new() }
    }

    fn begun(number: u128) -> Self {
        let mut desk = Self::new();
        desk.begin("a", number);
        desk
    }

    fn begin(&mut self, cell: &str, number: u128) {
        self.notebook.begin_run(&key(cell), run(number)).unwrap();
        self.next.insert(run(number), Seq(1));
    }

    fn bytes(&mut self, number: u128, kind: ChunkKind, bytes: &[u8]) {
        self.payload(number, kind, Payload::Inline(bytes.into()), &NoBlobs);
    }

    fn payload(&mut self, number: u128, kind: ChunkKind, payload: Payload, blobs: &dyn Blobs) {
        let seq = self.next.get_mut(&run(number)).unwrap();
        let chunk = Chunk { kind, at: WallTime(0), payload };
        self.notebook.apply_chunk(run(number), *seq, &chunk, blobs).unwrap();
        *seq = seq.next();
    }

    fn json(&mut self, number: u128, kind: ChunkKind, content: Value) {
        self.bytes(number, kind, content.to_string().as_bytes());
    }

    fn print(&mut self, number: u128, text: &str) {
        self.bytes(number, ChunkKind::Stdout, text.as_bytes());
    }

    fn display(&mut self, number: u128, kind: ChunkKind, text: &str, id: Option<&str>) {
        let transient = id.map_or(json!({}), |id| json!({"display_id": id}));
        self.json(
            number,
            kind,
            json!({"data": {"text/plain": text}, "metadata": {}, "transient": transient}),
        );
    }

    fn finish(&mut self, number: u128, outcome: &RunOutcome) {
        self.notebook.finish_run(run(number), outcome, None).unwrap();
    }

    fn outputs(&self, cell: &str) -> Vec<Value> {
        self.notebook.outputs(&key(cell), &NoBlobs)
    }

    fn texts(&self, cell: &str) -> Vec<String> {
        let text = |output: Value| {
            let text = if output["output_type"] == "stream" {
                &output["text"]
            } else {
                &output["data"]["text/plain"]
            };
            text.as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect()
        };
        self.outputs(cell).into_iter().map(text).collect()
    }

    fn count(&self, cell: &str) -> Value {
        let whole: Value = serde_json::from_slice(&self.notebook.to_bytes(&NoBlobs)).unwrap();
        let cells = whole["cells"].as_array().unwrap();
        cells.iter().find(|candidate| candidate["id"] == cell).unwrap()["execution_count"].clone()
    }
}

#[test]
fn streams_in_a_row_are_one_output() {
    let mut desk = Desk::begun(1);
    desk.json(1, ChunkKind::Started, json!({"execution_count": 9}));
    desk.print(1, "one\ntw");
    desk.print(1, "o\n");
    desk.bytes(1, ChunkKind::Stderr, b"bad\n");
    desk.print(1, "50%\r100%");
    desk.finish(1, &RunOutcome::Succeeded);
    assert_eq!(
        desk.outputs("a"),
        [
            stream("stdout", &["one\n", "two\n"]),
            stream("stderr", &["bad\n"]),
            stream("stdout", &["50%\r", "100%"]),
        ]
    );
    assert_eq!(desk.count("a"), 9);
    assert_eq!(desk.count("b"), 7);
}

#[test]
fn a_character_may_be_cut_by_chunks_even_of_two_streams() {
    let mut desk = Desk::begun(1);
    let smile = "😀".as_bytes();
    desk.bytes(1, ChunkKind::Stdout, &smile[..2]);
    desk.bytes(1, ChunkKind::Stderr, "é".as_bytes());
    desk.bytes(1, ChunkKind::Stdout, &smile[2..]);
    desk.bytes(1, ChunkKind::Stdout, &[0xff, b'x', 0xe2, 0x82]);
    desk.finish(1, &RunOutcome::Succeeded);
    assert_eq!(desk.texts("a"), ["é", "😀\u{fffd}x\u{fffd}"]);
}

// Issue: saving during a run keeps what was there until there is something new.
#[test]
fn the_old_output_stays_until_there_is_a_new_one() {
    let mut desk = Desk::new();
    let original = desk.notebook.to_bytes(&NoBlobs);
    desk.begin("a", 1);
    assert_eq!(desk.notebook.to_bytes(&NoBlobs), original);
    desk.json(1, ChunkKind::Started, json!({"execution_count": 8}));
    assert_eq!((desk.texts("a"), desk.count("a")), (vec!["old\n".to_owned()], json!(8)));
    desk.print(1, "new");
    assert_eq!(desk.texts("a"), ["new"]);
    desk.finish(1, &RunOutcome::Succeeded);

    desk.begin("a", 2);
    assert_eq!((desk.texts("a"), desk.count("a")), (vec!["new".to_owned()], json!(8)));
    desk.json(2, ChunkKind::Started, json!({"execution_count": 9}));
    desk.finish(2, &RunOutcome::Succeeded);
    assert!(desk.outputs("a").is_empty(), "a run without output leaves none");
    assert_eq!(desk.count("a"), 9);
}

#[test]
fn a_run_that_never_began_changes_nothing() {
    let mut desk = Desk::new();
    let original = desk.notebook.to_bytes(&NoBlobs);
    desk.begin("a", 1);
    desk.finish(1, &RunOutcome::Cancelled { why: CancelWhy::EarlierFailure });
    assert_eq!(desk.notebook.to_bytes(&NoBlobs), original);
}

#[test]
fn clear_output_now_and_later() {
    let mut desk = Desk::begun(1);
    desk.print(1, "1");
    desk.json(1, ChunkKind::ClearOutput, json!({"wait": false}));
    assert!(desk.outputs("a").is_empty());
    desk.print(1, "2");
    desk.json(1, ChunkKind::ClearOutput, json!({"wait": true}));
    assert_eq!(desk.texts("a"), ["2"], "it waits for the next output");
    desk.print(1, "3");
    assert_eq!(desk.texts("a"), ["3"]);
    desk.json(1, ChunkKind::ClearOutput, json!({"wait": true}));
    desk.finish(1, &RunOutcome::Succeeded);
    assert_eq!(desk.texts("a"), ["3"], "no output came");
}

#[test]
fn a_display_id_updates_its_outputs_in_all_cells() {
    let mut desk = Desk::begun(1);
    desk.display(1, ChunkKind::DisplayData, "0%", Some("bar"));
    desk.display(1, ChunkKind::DisplayData, "alone", None);
    desk.finish(1, &RunOutcome::Succeeded);
    desk.begin("b", 2);
    desk.display(2, ChunkKind::UpdateDisplayData, "50%", Some("bar"));
    assert_eq!(desk.texts("a"), ["50%", "alone"], "an earlier cell's display");
    assert!(desk.outputs("b").is_empty(), "an update shows nothing of its own");
    desk.display(2, ChunkKind::DisplayData, "70%", Some("bar"));
    assert_eq!((desk.texts("a")[0].as_str(), desk.texts("b")[0].as_str()), ("70%", "70%"));
    desk.json(2, ChunkKind::ClearOutput, json!({"wait": false}));
    desk.display(2, ChunkKind::UpdateDisplayData, "100%", Some("bar"));
    desk.display(2, ChunkKind::UpdateDisplayData, "nobody", Some("unknown"));
    assert_eq!(desk.texts("a"), ["100%", "alone"]);
    assert!(desk.outputs("b").is_empty());
    assert!(!String::from_utf8(desk.notebook.to_bytes(&NoBlobs)).unwrap().contains("transient"));
}

#[test]
fn mime_bundles_are_stored_as_nbformat_does() {
    let mut desk = Desk::begun(1);
    let content = r#"{"execution_count": 4, "data": {"text/html": "<b>\nx</b>", "image/png": "iVBO\nRw0=\n",
        "application/vnd.x+json": {"n": 1.0, "big": 99999999999999999999}, "image/svg+xml": ["<svg>\n", "</svg>"]}, "metadata": {"image/png": {"width": 3}}}"#;
    desk.bytes(1, ChunkKind::ExecuteResult, content.as_bytes());
    let text = String::from_utf8(desk.notebook.to_bytes(&NoBlobs)).unwrap();
    assert!(
        text.contains(r#"{"n":1.0,"big":99999999999999999999}"#)
            || text.contains(r#"{"big":99999999999999999999,"n":1.0}"#),
        "numbers keep their text: {text}"
    );
    let output = &desk.outputs("a")[0];
    assert_eq!(output["data"]["text/html"], json!(["<b>\n", "x</b>"]));
    assert_eq!(output["data"]["image/svg+xml"], json!(["<svg>\n", "</svg>"]));
    assert_eq!(output["data"]["image/png"], "iVBO\nRw0=\n");
    assert_eq!(
        (&output["execution_count"], &output["metadata"]),
        (&json!(4), &json!({"image/png": {"width": 3}}))
    );
}

struct Shelf(HashMap<String, Vec<u8>>);

impl Blobs for Shelf {
    fn read(&self, blob: &BlobRef) -> io::Result<Vec<u8>> {
        self.0.get(&blob.sha256).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

// B3: a large picture is complete, and one that cannot be had is said to be missing.
#[test]
fn large_outputs_come_from_blobs() {
    let picture = "QUJD".repeat(1 << 20);
    let content =
        json!({"data": {"image/png": picture}, "metadata": {}, "transient": {"display_id": "p"}}).to_string();
    let blob =
        BlobRef { sha256: "ab".repeat(32), size: content.len() as u64, mime: "application/json".into() };
    let shelf = Shelf(HashMap::from([(blob.sha256.clone(), content.into_bytes())]));
    let mut desk = Desk::begun(1);
    desk.payload(1, ChunkKind::DisplayData, Payload::Blob(blob.clone()), &shelf);
    assert_eq!(desk.notebook.outputs(&key("a"), &shelf)[0]["data"]["image/png"], picture);
    assert!(desk.texts("a")[0].contains("could not be read from blob"), "{:?}", desk.texts("a"));

    let absurd = BlobRef { size: 600 << 20, ..blob };
    desk.payload(1, ChunkKind::DisplayData, Payload::Blob(absurd), &shelf);
    let said = desk.texts("a")[1].clone();
    assert!(said.contains("600.0 MiB") && said.contains(&format!("outlive logs {}", run(1))), "{said}");
}

// B3: 1 GB of output from one cell; memory is bounded, begin and end are kept, the rest is said to be missing.
#[test]
fn text_of_any_size_is_bounded_and_says_so() {
    let mut desk = Desk::begun(1);
    let line = format!("{}\n", "x".repeat(65_534));
    desk.print(1, "first\n");
    for _ in 0..16_400 {
        desk.print(1, &line);
    }
    desk.print(1, "last\n");
    let text = desk.texts("a").concat();
    assert!(text.len() <= NOTEBOOK_STREAM_BYTES_MAX + 1_000, "{}", text.len());
    assert!(text.starts_with("first\n") && text.ends_with("x\nlast\n"));
    let remark = text.lines().find(|line| line.contains("[outlive:")).unwrap();
    assert!(remark.contains("of 1.0 GiB are left out") && remark.contains("outlive logs"), "{remark}");
    assert_eq!(desk.outputs("a").len(), 1);
}

#[test]
fn interleaved_streams_are_bounded_in_number_and_lose_no_text() {
    let mut desk = Desk::begun(1);
    for number in 0..50_000 {
        desk.print(1, &format!("o{number}\n"));
        desk.bytes(1, ChunkKind::Stderr, format!("e{number}\n").as_bytes());
    }
    assert_eq!(desk.outputs("a").len(), NOTEBOOK_OUTPUTS_MAX);
    let text = desk.texts("a").concat();
    let lines: HashSet<&str> = text.lines().collect();
    assert_eq!(lines.len(), 100_000);
    assert!(lines.contains("o49999") && lines.contains("e0"));
}

#[test]
fn too_many_rich_outputs_are_counted_and_errors_still_shown() {
    let mut desk = Desk::begun(1);
    let large = "y".repeat(200_000);
    for _ in 0..(NOTEBOOK_RICH_BYTES_MAX / 200_000 + 10) {
        desk.display(1, ChunkKind::DisplayData, &large, None);
    }
    desk.json(
        1,
        ChunkKind::Error,
        json!({"ename": "E", "evalue": "v".repeat(1 << 20), "traceback": ["l1", "l2"]}),
    );
    let outputs = desk.outputs("a");
    let [.., error, remark] = &outputs[..] else { panic!("outputs expected") };
    assert_eq!((&error["ename"], &error["traceback"]), (&json!("E"), &json!(["l1", "l2"])));
    assert!(error["evalue"].as_str().unwrap().len() < 100_000);
    let text = remark["text"][0].as_str().unwrap();
    assert!(text.contains("10 outputs of 1.9 MiB") && text.contains("left out"), "{text}");
}

#[test]
fn a_hundred_thousand_updates_are_quick_and_small() {
    let mut desk = Desk::begun(1);
    desk.display(1, ChunkKind::DisplayData, "0", Some("bar"));
    for number in 0..100_000 {
        desk.display(1, ChunkKind::UpdateDisplayData, &number.to_string(), Some("bar"));
    }
    assert_eq!(desk.texts("a"), ["99999"]);
}

#[test]
fn chunks_come_once_and_in_order() {
    let mut desk = Desk::begun(1);
    desk.print(1, "a");
    let chunk = Chunk::inline(ChunkKind::Stdout, WallTime(0), *b"x");
    let notebook = &mut desk.notebook;
    assert_eq!(notebook.apply_chunk(run(1), Seq(1), &chunk, &NoBlobs), Ok(()), "a retry is ignored");
    let gap = notebook.apply_chunk(run(1), Seq(3), &chunk, &NoBlobs);
    assert_eq!(gap, Err(ProjectionError::OutOfOrder { run: run(1), expected: Seq(2), got: Seq(3) }));
    let stranger = notebook.apply_chunk(run(9), Seq(1), &chunk, &NoBlobs);
    assert_eq!(stranger, Err(ProjectionError::UnknownRun(run(9))));
    assert_eq!(desk.texts("a"), ["a"]);
}

#[test]
fn a_reset_begins_anew() {
    let mut desk = Desk::begun(1);
    desk.print(1, "one");
    desk.print(1, "two");
    assert_eq!(desk.notebook.truncate(run(1), Seq(5)), Ok(Seq(2)), "nothing to cut");
    assert_eq!(desk.notebook.truncate(run(1), Seq(1)), Ok(Seq(0)));
    assert!(desk.outputs("a").is_empty());
    desk.next.insert(run(1), Seq(1));
    desk.print(1, "one again");
    assert_eq!(desk.texts("a"), ["one again"]);
}

#[test]
fn late_output_goes_to_the_cell_that_made_it() {
    let mut desk = Desk::begun(1);
    desk.print(1, "in time\n");
    desk.finish(1, &RunOutcome::Succeeded);
    let late = Chunk::inline(ChunkKind::Stdout, WallTime(0), *b"late\n");
    desk.notebook.apply_late(run(1), &late, &NoBlobs);
    assert_eq!(desk.texts("a"), ["in time\nlate\n"]);
    desk.begin("a", 2);
    desk.print(2, "newer");
    desk.notebook.apply_late(run(1), &late, &NoBlobs);
    assert_eq!(desk.texts("a"), ["newer"]);
}

#[test]
fn lost_output_is_said_to_be_lost() {
    let mut desk = Desk::begun(1);
    desk.json(1, ChunkKind::Gap, json!({"since": 4, "reason": "the spool was full"}));
    assert!(desk.texts("a")[0].contains("output was lost here: the spool was full"));
    desk.bytes(1, ChunkKind::DisplayData, b"{broken");
    assert!(desk.texts("a")[0].contains("an output is missing here: the kernel's message is not JSON"));
}

// P9: a death stands in the cell with what is known.
#[test]
fn a_death_is_explained_in_its_cell() {
    let summary = "killed by the OOM killer at 1.9 of 2.0 GiB".to_owned();
    let report = FailureReport {
        id: ReportId::from_uuid(Uuid::nil()),
        session: SessionId::from_uuid(Uuid::nil()),
        process: None,
        subject: "kernel python3 (pid 4711)".into(),
        at: WallTime(0),
        lived_ms: None,
        status: None,
        causes: vec![Cause {
            code: CauseCode::OutOfMemory,
            name: None,
            confidence: Confidence::Certain,
            summary: summary.clone(),
            evidence: vec![],
            remedy: "give it more memory".into(),
        }],
        interrupted: vec![run(1)],
        interrupted_names: Vec::new(),
        next: NextStep::Nothing,
        evidence: Evidence::default(),
    };
    let mut desk = Desk::begun(1);
    desk.print(1, "working\n");
    let outcome =
        RunOutcome::Failed { code: CauseCode::OutOfMemory, summary: summary.clone(), report: report.id };
    desk.notebook.finish_run(run(1), &outcome, Some(&report)).unwrap();
    let outputs = desk.outputs("a");
    assert_eq!(outputs[0], stream("stdout", &["working\n"]));
    assert_eq!((&outputs[1]["ename"], &outputs[1]["evalue"]), (&json!("KernelDied"), &json!(summary)));
    let traceback = outputs[1]["traceback"].to_string();
    for part in ["out-of-memory (certain)", "pid 4711", "give it more memory", "outlive explain"] {
        assert!(traceback.contains(part), "{part} is missing: {traceback}");
    }
}

#[test]
fn a_deleted_cell_takes_its_outputs_with_it() {
    let mut desk = Desk::begun(1);
    desk.display(1, ChunkKind::DisplayData, "x", Some("d"));
    desk.notebook.delete_cell(&key("a")).unwrap();
    desk.print(1, "nowhere");
    desk.begin("b", 2);
    desk.display(2, ChunkKind::UpdateDisplayData, "y", Some("d"));
    assert_eq!(desk.notebook.cells().len(), 1);
    assert!(desk.outputs("b").is_empty());
}
