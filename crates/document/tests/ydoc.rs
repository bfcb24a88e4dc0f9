//! The live document through the real jupyter_ydoc and pycrdt, which JupyterLab's collaboration stands on.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use outlive_core::id::{RunId, Seq};
use outlive_core::log::{BlobRef, Chunk, ChunkKind, Payload};
use outlive_core::session::RunOutcome;
use outlive_core::time::WallTime;
use outlive_document::live::{Edit, Live, REFERENCE_MIME, Running};
use outlive_document::{Blobs, CellKey, NoBlobs, Notebook};
use serde_json::{Value, json};
use uuid::Uuid;

/// The Python environment with jupyter_ydoc: `OUTLIVE_TEST_VENV`, or where `cargo xtask python` puts it.
fn python() -> PathBuf {
    let venv = std::env::var_os("OUTLIVE_TEST_VENV")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-venv"), PathBuf::from);
    let python = venv.join("bin/python");
    assert!(python.exists(), "{} is missing: `cargo xtask python` makes it", python.display());
    python
}

/// What jupyter_ydoc says to a question.
fn ask(question: &Value) -> Value {
    let mut child = Command::new(python())
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/ydoc.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{question}").unwrap();
    let answer = child.wait_with_output().unwrap();
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    serde_json::from_slice(&answer.stdout).unwrap()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes_of(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// A notebook as nbformat's readers have it: texts in one piece.
fn joined(notebook: &[u8]) -> Value {
    fn join(value: &mut Value) {
        if let Value::Array(lines) = value
            && lines.iter().all(Value::is_string)
        {
            *value = Value::String(lines.iter().map(|line| line.as_str().unwrap()).collect());
        }
    }
    let mut notebook: Value = serde_json::from_slice(notebook).unwrap();
    for cell in notebook["cells"].as_array_mut().unwrap() {
        join(&mut cell["source"]);
        for output in cell.get_mut("outputs").and_then(Value::as_array_mut).into_iter().flatten() {
            if output["output_type"] == "stream" {
                join(&mut output["text"]);
            }
            for (mime, value) in output.get_mut("data").and_then(Value::as_object_mut).into_iter().flatten() {
                if mime != "application/json" && !mime.ends_with("+json") {
                    join(value);
                }
            }
        }
    }
    notebook
}

const NOTEBOOK: &str = r##"{
 "cells": [
  {
   "cell_type": "code",
   "execution_count": 3,
   "id": "first",
   "metadata": {"tags": ["a"], "nested": {"n": 1, "x": 1.5, "big": 12345678901, "none": null}},
   "outputs": [
    {"name": "stdout", "output_type": "stream", "text": ["one\n", "two\n"]},
    {"data": {"text/plain": ["4"], "application/json": {"a": ["b"]}}, "execution_count": 3, "metadata": {"w": {"h": 2}}, "output_type": "execute_result"},
    {"ename": "E", "evalue": "v", "output_type": "error", "traceback": ["l1", "l2"]}
   ],
   "source": ["x = 1\n", "é😀"]
  },
  {
   "attachments": {"a.png": {"image/png": "aGVsbG8="}},
   "cell_type": "markdown",
   "id": "second",
   "metadata": {},
   "source": ["# title"]
  },
  {
   "cell_type": "raw",
   "id": "third",
   "metadata": {"format": "text/x-rst"},
   "source": []
  },
  {
   "cell_type": "code",
   "execution_count": null,
   "id": "fourth",
   "metadata": {},
   "outputs": [],
   "source": ["print(1)"]
  }
 ],
 "metadata": {
  "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
  "language_info": {"name": "python", "codemirror_mode": {"version": 3}}
 },
 "nbformat": 4,
 "nbformat_minor": 5
}
"##;

fn parse(text: &str) -> Notebook {
    Notebook::parse(text.as_bytes()).unwrap()
}

fn run() -> RunId {
    RunId::from_uuid(Uuid::from_u128(7))
}

fn feed(live: &mut Live, seq: u64, kind: ChunkKind, content: impl Into<Vec<u8>>) {
    let chunk = Chunk::inline(kind, WallTime(0), content.into());
    live.apply_chunk(run(), Seq(seq), &chunk, &NoBlobs).unwrap();
}

#[test]
fn jupyter_reads_the_same_notebook_and_its_edits_come_back() {
    let mut live = Live::new(parse(NOTEBOOK));
    live.share().unwrap();
    let new = json!({"cell_type": "code", "id": "new", "metadata": {"k": {"v": 1.0}}, "source": "y = 2\nz",
        "execution_count": null, "outputs": []});
    let edits = json!([
        {"cell": 0, "at": 8, "insert": "é😀"}, {"append": new}, {"delete": 2},
        {"cell": 1, "key": "k", "metadata": {"deep": [1, {"a": null}]}}, {"key": "title", "metadata": "t"},
    ]);
    let answer = ask(&json!({"state": to_hex(&live.state()), "edits": edits}));
    assert_eq!(answer["before"], joined(NOTEBOOK.as_bytes()));
    let applied = live.apply(&bytes_of(&answer["update"])).unwrap();
    assert_eq!(applied.corrections, None);
    assert_eq!(applied.cells, [CellKey::new("first"), CellKey::new("new")]);
    let bytes = live.to_bytes(&NoBlobs);
    assert_eq!(joined(&bytes), answer["after"]);
    assert_eq!(live.notebook().cells().next().unwrap().source(), "x = 1\né\u{e9}😀😀");
    // What was not edited keeps its bytes.
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains(
        r#""metadata": {"tags": ["a"], "nested": {"n": 1, "x": 1.5, "big": 12345678901, "none": null}},"#
    ));
    assert!(text.contains(r#"{"name": "stdout", "output_type": "stream", "text": ["one\n", "two\n"]}"#));
}

#[test]
fn what_runs_print_is_a_valid_notebook_for_jupyter() {
    let mut live = Live::new(parse(NOTEBOOK));
    live.share().unwrap();
    let cell = CellKey::new("fourth");
    live.set_running(&cell, Running::Running);
    live.begin_run(&cell, run()).unwrap();
    feed(&mut live, 1, ChunkKind::Started, r#"{"execution_count": 9}"#);
    feed(&mut live, 2, ChunkKind::Stdout, "hello ");
    live.project().unwrap();
    assert_eq!(ask(&json!({"state": to_hex(&live.state())}))["states"][3], "running");
    feed(&mut live, 3, ChunkKind::Stdout, "é😀\n");
    live.project().unwrap();
    feed(&mut live, 4, ChunkKind::Stderr, "warning\n");
    let data = json!({"text/plain": "x", "text/html": "<b>", "application/json": {"a": [1]}, "image/png": "aGVsbG8=\n"});
    let result =
        json!({"data": data, "metadata": {"image/png": {"width": 2}}, "execution_count": 9}).to_string();
    feed(&mut live, 5, ChunkKind::ExecuteResult, result);
    feed(&mut live, 6, ChunkKind::Error, r#"{"ename": "E", "evalue": "é", "traceback": ["a", "b"]}"#);
    live.finish_run(run(), &RunOutcome::Succeeded, None).unwrap();
    live.set_running(&cell, Running::Idle);
    live.project().unwrap();
    let answer = ask(&json!({"state": to_hex(&live.state()), "edits": [{"clear": 3}]}));
    assert_eq!(answer["before"], joined(&live.to_bytes(&NoBlobs)));
    assert_eq!(answer["states"][3], "idle");
    // Somebody clears the outputs over there.
    live.apply(&bytes_of(&answer["update"])).unwrap();
    assert!(live.notebook().outputs(&cell, &NoBlobs).is_empty());
}

struct OneBlob(Vec<u8>);

impl Blobs for OneBlob {
    fn read(&self, _: &BlobRef) -> std::io::Result<Vec<u8>> {
        Ok(self.0.clone())
    }
}

#[test]
fn large_outputs_stand_in_the_document_as_references_and_in_the_file_in_full() {
    let mut live = Live::new(parse(NOTEBOOK));
    live.share().unwrap();
    let cell = CellKey::new("fourth");
    live.begin_run(&cell, run()).unwrap();
    let large =
        json!({"data": {"text/plain": "p", "text/html": "x".repeat(400_000)}, "metadata": {}}).to_string();
    let blob =
        BlobRef { sha256: "ab".repeat(32), size: large.len() as u64, mime: "application/json".to_owned() };
    let chunk = Chunk { kind: ChunkKind::DisplayData, at: WallTime(0), payload: Payload::Blob(blob) };
    let blobs = OneBlob(large.into_bytes());
    live.apply_chunk(run(), Seq(1), &chunk, &blobs).unwrap();
    let inline = json!({"data": {"image/png": "y".repeat(100_000)}, "metadata": {}}).to_string();
    feed(&mut live, 2, ChunkKind::DisplayData, inline);
    feed(&mut live, 3, ChunkKind::Stdout, "line of text\n".repeat(100_000));
    let update = live.project().unwrap();
    assert!(update.len() < 300_000, "{}", update.len());
    let answer = ask(&json!({"state": to_hex(&live.state())}));
    let outputs = answer["before"]["cells"][3]["outputs"].as_array().unwrap();
    let reference = &outputs[0]["data"][REFERENCE_MIME];
    assert_eq!(reference["run"], run().to_string());
    assert_eq!(reference["index"], 0);
    assert_eq!(reference["sha256"], "ab".repeat(32));
    assert_eq!(reference["mime_types"], json!(["text/plain", "text/html"]));
    assert_eq!(outputs[1]["data"][REFERENCE_MIME]["mime_types"], json!(["image/png"]));
    assert!(outputs[1]["data"]["text/plain"].as_str().unwrap().contains(" KiB (image/png)"));
    assert!(outputs[2]["text"].as_str().unwrap().ends_with(&format!("outlive logs {}]\n", run())));
    // More text costs nothing there, and the file has everything.
    feed(&mut live, 4, ChunkKind::Stdout, "more\n");
    assert_eq!(live.project(), None);
    let file = joined(&live.to_bytes(&blobs));
    let outputs = &file["cells"][3]["outputs"];
    assert_eq!(outputs[0]["data"]["text/html"].as_str().unwrap().len(), 400_000);
    assert_eq!(outputs[1]["data"]["image/png"].as_str().unwrap().len(), 100_000);
    assert_eq!(outputs[2]["text"].as_str().unwrap().len(), 13 * 100_000 + 5);
}

#[test]
fn a_notebook_made_by_jupyter_opens_here() {
    let made = ask(&json!({"notebook": joined(NOTEBOOK.as_bytes())}));
    let mut restoring = Live::restore(Notebook::empty("python3"));
    restoring.update(&bytes_of(&made["state"])).unwrap();
    let mut live = restoring.finish();
    assert_eq!(joined(&live.to_bytes(&NoBlobs)), made["after"]);
    let edited = live
        .edit(&[Edit::SetSource {
            cell: CellKey::new("second"),
            source: "# new title".to_owned(),
            expected: None,
        }])
        .unwrap();
    assert!(edited.update.unwrap().len() < 60, "a small change is a small update");
    let answer = ask(&json!({"state": to_hex(&live.state())}));
    assert_eq!(answer["after"]["cells"][1]["source"], "# new title");
}

#[test]
fn old_and_odd_notebooks_are_valid_for_jupyter_and_keep_their_file() {
    // nbformat 4.4: ids in the document, none in the file. 4.5 with one id twice and one missing.
    let cell = |id: Option<&str>, source: &str| {
        let mut cell = json!({"cell_type": "code", "execution_count": null, "metadata": {}, "outputs": [], "source": [source]});
        if let Some(id) = id {
            cell["id"] = id.into();
        }
        cell
    };
    let whole = |minor: u64, cells: Vec<Value>| json!({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": minor});
    let old = whole(4, vec![cell(None, "a"), cell(None, "b")]).to_string();
    let odd = whole(5, vec![cell(Some("i"), "a"), cell(Some("i"), "b"), cell(None, "c")]).to_string();
    for (text, ids) in [(old, [false; 3]), (odd, [true; 3])] {
        let mut live = Live::new(parse(&text));
        live.share().unwrap();
        assert_eq!(live.to_bytes(&NoBlobs), text.as_bytes());
        let edits = json!([{"cell": 1, "at": 1, "insert": "!"}]);
        let answer = ask(&json!({"state": to_hex(&live.state()), "edits": edits}));
        let cells = answer["before"]["cells"].as_array().unwrap();
        assert!(cells.iter().zip(ids).all(|(cell, has)| cell.get("id").is_some() == has), "{cells:?}");
        live.apply(&bytes_of(&answer["update"])).unwrap();
        let expected = text.replace(r#""b""#, r#""b!""#);
        assert_eq!(String::from_utf8(live.to_bytes(&NoBlobs)).unwrap(), expected);
    }
}
