//! The same messages through Outlive and through nbclient and nbformat: the same file, byte for byte.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use outlive_core::id::{RunId, Seq};
use outlive_core::log::{Chunk, ChunkKind};
use outlive_core::session::RunOutcome;
use outlive_core::time::WallTime;
use outlive_document::{CellKey, CellKind, NoBlobs, Notebook};
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

/// The Python environment with nbclient and nbformat: `OUTLIVE_TEST_VENV`, or where `cargo xtask python` puts it.
fn python() -> PathBuf {
    let venv = std::env::var_os("OUTLIVE_TEST_VENV")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-venv"), PathBuf::from);
    let python = venv.join("bin/python");
    assert!(python.exists(), "{} is missing: `cargo xtask python` makes it", python.display());
    python
}

const CELLS: usize = 3;

#[derive(Clone)]
struct Message {
    cell: usize,
    kind: &'static str,
    content: Value,
}

/// Short: a failing batch holds a hundred sessions, and the assertion shows the one that matters.
impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.cell, self.kind)
    }
}

fn any_message() -> impl Strategy<Value = Message> {
    let id = prop::option::of(prop_oneof![Just("x"), Just("y")]);
    let text = || prop_oneof!["[a-zé😀\u{2028}\"\\\\]{0,9}", "([a-z]{0,4}[\n\r]){1,4}", any::<String>()];
    let stream = (prop_oneof![Just("stdout"), Just("stderr")], text())
        .prop_filter("a kernel does not send empty text", |(_, text)| !text.is_empty())
        .prop_map(|(name, text)| ("stream", json!({"name": name, "text": text})));
    let rich = (prop_oneof![Just("display_data"), Just("update_display_data"), Just("execute_result")], text(), any::<i64>(), id)
        .prop_map(|(kind, text, number, id)| {
            let data = json!({
                "text/plain": text, "text/html": text, "image/svg+xml": text, "image/png": "iVBORw0KGgo=\n",
                "application/json": {"z": [number, text, null], "a": {}}, "application/vnd.vega.v5+json": [text],
            });
            // An update without an id is what no kernel sends; it is no output for either side.
            let transient = id.map_or(json!({}), |id| json!({"display_id": id}));
            let mut content = json!({"data": data, "metadata": {"image/png": {"width": 1}}, "transient": transient});
            if kind == "execute_result" {
                content["execution_count"] = json!(7);
            }
            (kind, content)
        });
    let clear = any::<bool>().prop_map(|wait| ("clear_output", json!({"wait": wait})));
    let error =
        text().prop_map(|text| ("error", json!({"ename": "E", "evalue": text, "traceback": [text, "end"]})));
    let message = prop_oneof![4 => stream, 4 => rich, 1 => clear, 1 => error];
    (0..CELLS, message).prop_map(|(cell, (kind, content))| Message { cell, kind, content })
}

/// A session of messages, cell after cell, each begun by its count.
fn any_session() -> impl Strategy<Value = Vec<Message>> {
    prop::collection::vec(any_message(), 0..20).prop_map(|mut messages| {
        messages.sort_by_key(|message| message.cell);
        let mut session = Vec::new();
        for cell in 0..CELLS {
            // As the execute_result's, because nbclient takes the count from both.
            session.push(Message {
                cell,
                kind: "execute_input",
                content: json!({"code": "", "execution_count": 7}),
            });
            session.extend(messages.iter().filter(|message| message.cell == cell).cloned());
        }
        session
    })
}

fn chunk(message: &Message) -> Chunk {
    let (kind, bytes) = match message.kind {
        "stream" => {
            let kind =
                if message.content["name"] == "stdout" { ChunkKind::Stdout } else { ChunkKind::Stderr };
            (kind, message.content["text"].as_str().unwrap().to_owned())
        }
        "execute_input" => {
            (ChunkKind::Started, json!({"execution_count": message.content["execution_count"]}).to_string())
        }
        "display_data" => (ChunkKind::DisplayData, message.content.to_string()),
        "update_display_data" => (ChunkKind::UpdateDisplayData, message.content.to_string()),
        "execute_result" => (ChunkKind::ExecuteResult, message.content.to_string()),
        "clear_output" => (ChunkKind::ClearOutput, message.content.to_string()),
        "error" => (ChunkKind::Error, message.content.to_string()),
        other => panic!("no chunk for {other}"),
    };
    Chunk::inline(kind, WallTime(0), bytes.into_bytes())
}

fn notebook() -> Notebook {
    let mut notebook = Notebook::empty("python3");
    for index in 0..CELLS {
        notebook.insert_cell(index, CellKind::Code, "print(1)\n# é", Some(&format!("cell-{index}")));
    }
    notebook
}

fn export(notebook: &Notebook) -> String {
    String::from_utf8(notebook.to_bytes(&NoBlobs)).unwrap()
}

fn fold(messages: &[Message]) -> String {
    let mut notebook = notebook();
    let run = |cell: usize| RunId::from_uuid(Uuid::from_u128(cell as u128));
    let mut next = [Seq(1); CELLS];
    for message in messages {
        let cell = message.cell;
        if next[cell] == Seq(1) {
            notebook.begin_run(&CellKey::new(format!("cell-{cell}")), run(cell)).unwrap();
        }
        notebook.apply_chunk(run(cell), next[cell], &chunk(message), &NoBlobs).unwrap();
        next[cell] = next[cell].next();
    }
    for cell in 0..CELLS {
        notebook.finish_run(run(cell), &RunOutcome::Succeeded, None).unwrap();
    }
    export(&notebook)
}

/// What `oracle/fold.py` says to each of these questions.
fn ask(questions: Vec<Value>) -> Vec<String> {
    let mut child = Command::new(python())
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/fold.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let asking = std::thread::spawn(move || {
        for question in questions {
            writeln!(stdin, "{question}")?;
        }
        std::io::Result::Ok(())
    });
    let answer = child.wait_with_output().unwrap();
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    asking.join().unwrap().unwrap();
    answer
        .stdout
        .split_inclusive(|&byte| byte == b'\n')
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

#[test]
fn the_examples_are_valid_and_without_outputs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut questions = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "ipynb") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let notebook = Notebook::parse(text.as_bytes()).unwrap();
        assert_eq!(export(&notebook), text);
        assert!(
            notebook.cells().all(|cell| notebook.outputs(cell.key(), &NoBlobs).is_empty()),
            "{}",
            path.display()
        );
        assert!(!notebook.declared_parameters().expect("each example has parameters").is_empty());
        questions.push(json!({"notebook": text, "messages": [], "ours": text}));
    }
    assert!(questions.len() >= 3);
    let texts: Vec<String> =
        questions.iter().map(|question| question["ours"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ask(questions), texts);
}

proptest! {
    // A case is a batch: starting Python takes longer than folding a hundred sessions.
    #![proptest_config(ProptestConfig { cases: 3, max_shrink_iters: 20, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn nbclient_makes_the_same_of_it(sessions in prop::collection::vec(any_session(), 100)) {
        let before = export(&notebook());
        let ours: Vec<String> = sessions.iter().map(|session| fold(session)).collect();
        let questions = sessions.iter().zip(&ours).map(|(session, ours)| {
            let messages: Vec<Value> =
                session.iter().map(|message| json!([message.cell, message.kind, message.content])).collect();
            json!({"notebook": before, "messages": messages, "ours": ours})
        });
        let answers = ask(questions.collect());
        prop_assert_eq!(answers.len(), sessions.len());
        for ((ours, theirs), session) in ours.iter().zip(&answers).zip(&sessions) {
            prop_assert!(ours == theirs, "{:?}\nours: {}\ntheirs: {}", session, ours, theirs);
        }
    }
}
