//! Daemons that end and come back, and editors that lose their connection: everybody ends with the same notebook.

use outlive_core::id::SessionId;
use outlive_core::limits::DOCUMENT_COMPACT_BYTES_MIN;
use outlive_core::log::{FencedBody, Record};
use outlive_protocol::http::{CellEdit, CellKindName, SavedState, Where};
use outlive_store::{LaneFilter, ReadLimit};
use yrs::{Array, GetString, Map, Text};

use super::editor::{Editor, cell_of, insert_cell, source_of};
use super::{Dice, edit, joined, peer, settle};
use crate::session::notebook::record::DocumentRecord;
use crate::session::task::file::tests::world::{Daemon, Doom, World, life};

const STEPS: usize = 60;

#[test]
fn three_editors_end_with_the_same_notebook_whatever_breaks_meanwhile() {
    for seed in 1..=8_u64 {
        let world = World::new();
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut editors: Vec<Editor> = (1..=3).map(Editor::new).collect();
        let id = life(async { world.daemon().new_notebook("first").await });
        for _ in 0..3 {
            let last = life(async {
                let daemon = world.daemon();
                for step in 0..STEPS {
                    one_step(&daemon, id, &mut editors, &mut dice, step).await;
                }
                for editor in &mut editors {
                    editor.join(peer(&daemon, id).await).await;
                }
                settle(&mut editors).await;
                for editor in &editors[1..] {
                    assert_eq!(editor.shows(), editors[0].shows(), "seed {seed}");
                }
                let sources = daemon.sources(id).await;
                assert_eq!(editors[0].sources(), sources, "seed {seed}");
                sources
            });
            editors.iter_mut().for_each(Editor::part);
            let after = life(async { world.daemon().sources(id).await });
            assert_eq!(after, last, "seed {seed}");
        }
    }
}

async fn one_step(daemon: &Daemon, id: SessionId, editors: &mut [Editor], dice: &mut Dice, step: usize) {
    let which = dice.roll(editors.len());
    let editor = &mut editors[which];
    let length = editor.sources().len();
    match dice.roll(13) {
        12 if dice.roll(3) == 0 => {
            // Nobody is there for a while: it leaves memory, and who comes back finds it again.
            editors.iter_mut().for_each(Editor::part);
            daemon.sources(id).await;
            let time_goes_on = async {
                loop {
                    daemon.clock.advance(1_000);
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                () = daemon.until_ended(id) => {}
                () = time_goes_on => {}
            }
        }
        0 if editor.is_connected() => editor.part(),
        0 | 1 => editor.join(peer(daemon, id).await).await,
        2 if editor.is_connected() => editor.flush().await,
        3 if editor.is_connected() => editor.sync().await,
        4 => {
            let (source, id_) = (format!("rest {step}"), None);
            let at = Where::Index(dice.roll(5));
            let insert = CellEdit::Insert { at, kind: CellKindName::Code, source, id: id_ };
            edit(daemon, id, vec![insert]).await.unwrap();
        }
        5 => {
            let cells = daemon.notebook(id).await.cells;
            if let Some(cell) = cells.get(dice.roll(cells.len().max(1))) {
                let (cell, source) = (cell.id.clone(), format!("{} {step}", cell.source));
                edit(daemon, id, vec![CellEdit::SetSource { cell, source, expected: None }]).await.unwrap();
            }
        }
        6 => {
            let at = u32::try_from(dice.roll(length + 1)).unwrap();
            let id = format!("e{which}-{step}-{}", dice.roll(1_000_000));
            editor.edit(|txn, cells| insert_cell(txn, cells, at, &id, "new"));
        }
        7 if length > 1 => {
            let at = u32::try_from(dice.roll(length)).unwrap();
            editor.edit(|txn, cells| cells.remove(txn, at));
        }
        8 if length > 0 => {
            let at = u32::try_from(dice.roll(length)).unwrap();
            editor.edit(|txn, cells| {
                if let Some(yrs::Out::YMap(metadata)) = cell_of(txn, cells, at).get(txn, "metadata") {
                    metadata.insert(txn, "k", f64::from(u32::try_from(step).unwrap()));
                }
            });
        }
        _ if length > 0 => {
            let at = u32::try_from(dice.roll(length)).unwrap();
            let words = ["é", "😀", "x = 1\n", "ab"];
            let word = words[dice.roll(words.len())];
            editor.edit(|txn, cells| {
                let source = source_of(txn, cells, at);
                let empty = source.get_string(txn).is_empty();
                source.insert(txn, 0, if empty { "start" } else { word });
            });
        }
        _ => {}
    }
}

#[test]
fn no_edit_that_was_answered_or_seen_by_another_is_lost_whenever_the_daemon_is_killed() {
    let mut killed = 0;
    for steps in 0..60 {
        let world = World::new();
        let id = life(async { world.daemon().new_notebook("start").await });
        let doom = Doom::default();
        let (mut seen, mut answered) = (Vec::new(), Vec::new());
        let mut is_over = false;
        life(async {
            let daemon = world.doomed(doom.clone());
            let mut writer = joined(&daemon, id, 1).await;
            let mut reader = joined(&daemon, id, 2).await;
            doom.after(steps);
            let work = async {
                for n in 0..10 {
                    writer.edit(|txn, cells| {
                        insert_cell(txn, cells, 0, &format!("w{n}"), &format!("typed {n}"))
                    });
                    writer.flush().await;
                    writer.sync().await;
                    let source = format!("rest {n}");
                    let insert =
                        CellEdit::Insert { at: Where::End, kind: CellKindName::Code, source, id: None };
                    edit(&daemon, id, vec![insert]).await.unwrap();
                    answered.push(format!("rest {n}"));
                    reader.sync().await;
                    seen = reader.sources();
                }
            };
            tokio::select! {
                () = doom.over() => killed += 1,
                () = work => is_over = true,
            }
        });
        let after = life(async { world.daemon().sources(id).await });
        for source in seen.iter().chain(&answered) {
            assert!(after.contains(source), "killed at {steps}: {source} is lost; there is {after:?}");
        }
        assert!(after.contains(&"start".to_owned()));
        if is_over {
            break;
        }
    }
    assert!(killed >= 15, "only {killed} of the places were tried");
}

#[test]
fn a_long_log_of_edits_is_written_anew_and_read_again_as_it_was() {
    let world = World::new();
    let (id, shows, before) = life(async {
        let daemon = world.daemon();
        let id = daemon.new_notebook("").await;
        let mut editor = joined(&daemon, id, 1).await;
        let rounds = usize::try_from(DOCUMENT_COMPACT_BYTES_MIN).unwrap() / 10_000 * 3;
        for n in 0..rounds {
            editor.edit(|txn, cells| {
                let source = source_of(txn, cells, 0);
                let length = source.len(txn);
                source.remove_range(txn, 0, length);
                source.insert(txn, 0, &format!("{n}: {}", "y".repeat(10_000)));
            });
            editor.flush().await;
            editor.sync().await;
        }
        let records = document_records(&daemon, id).await;
        let snapshots: Vec<_> =
            records.iter().filter(|record| matches!(record, DocumentRecord::Snapshot(_))).collect();
        assert!(!snapshots.is_empty());
        assert!(records.len() < rounds, "{} records are left of {rounds} edits", records.len());
        editor.type_into(0, " the end").await;
        editor.sync().await;
        (id, editor.shows(), daemon.notebook(id).await)
    });
    life(async {
        let daemon = world.daemon();
        let after = daemon.notebook(id).await;
        assert_eq!(after.cells, before.cells);
        assert_eq!(after.state_vector, before.state_vector);
        let editor = joined(&daemon, id, 2).await;
        assert_eq!(editor.shows(), shows);
    });
}

#[test]
fn cells_without_ids_stay_the_same_cells_when_a_long_log_is_written_anew() {
    let world = World::new();
    let path = world.path("old.ipynb");
    let cell = |source: &str| {
        format!(
            r#"{{"cell_type":"code","execution_count":null,"metadata":{{}},"outputs":[],"source":["{source}"]}}"#
        )
    };
    let text = format!(
        r#"{{"cells":[{},{},{}],"metadata":{{}},"nbformat":4,"nbformat_minor":4}}"#,
        cell("a"),
        cell("b"),
        cell("c")
    );
    put(&path, &text);
    let (id, before, shows) = life(async {
        let daemon = world.daemon();
        let id = daemon.open(&path).await.unwrap().session_id;
        let mut editor = joined(&daemon, id, 1).await;
        editor.edit(|txn, cells| cells.remove(txn, 0));
        editor.edit(|txn, cells| insert_cell(txn, cells, 1, "new", "n"));
        for n in 0..150 {
            editor.edit(|txn, cells| {
                let source = source_of(txn, cells, 0);
                let length = source.len(txn);
                source.remove_range(txn, 0, length);
                source.insert(txn, 0, &format!("b{n} {}", "y".repeat(10_000)));
            });
        }
        editor.flush().await;
        editor.sync().await;
        let records = document_records(&daemon, id).await;
        assert!(records.iter().any(|record| {
            matches!(record, DocumentRecord::Snapshot(snapshot) if snapshot.keys.is_some())
        }));
        (id, daemon.notebook(id).await, editor.shows())
    });
    assert!(before.cells[0].source.starts_with("b149"));
    assert_eq!(before.cells[1].id, "new");
    life(async {
        let daemon = world.daemon();
        let after = daemon.notebook(id).await;
        assert_eq!(after.cells, before.cells);
        let mut editor = joined(&daemon, id, 2).await;
        assert_eq!(editor.shows(), shows);
        editor.type_into(2, "!").await;
        editor.sync().await;
        assert_eq!(daemon.sources(id).await[2], "c!");
        daemon.clock.advance(10_000);
        daemon.until_saved(id).await;
        let saved = std::fs::read_to_string(&path).unwrap();
        assert!(saved.contains("c!") && !saved.contains("\"id\""), "{}", &saved[..200]);
    });
}

pub async fn document_records(daemon: &Daemon, id: SessionId) -> Vec<DocumentRecord> {
    let lanes = LaneFilter::Only(vec![outlive_core::log::Lane::Document]);
    let mut records = Vec::new();
    let mut after = outlive_core::id::Position(0);
    loop {
        let page = daemon.context.engine.read(id, after, &lanes, ReadLimit::default()).await.unwrap();
        if page.through <= after {
            return records;
        }
        after = page.through;
        for entry in page.entries {
            if let Record::Fenced(fenced) = entry.record
                && let FencedBody::Document(bytes) = fenced.body
            {
                records.push(DocumentRecord::decode(&bytes).unwrap());
            }
        }
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "it measures real time")]
fn an_edit_costs_the_same_in_a_notebook_of_a_thousand_cells() {
    let fastest = |count: usize| {
        let world = World::new();
        life(async {
            let daemon = world.daemon();
            let id = daemon.new_notebook("x").await;
            let insert = |n: usize| CellEdit::Insert {
                at: Where::End,
                kind: CellKindName::Code,
                source: format!("value = {n}  # a cell as they are"),
                id: None,
            };
            edit(&daemon, id, (1..count).map(insert).collect()).await.unwrap();
            let (mut writer, mut reader) = (joined(&daemon, id, 1).await, joined(&daemon, id, 2).await);
            let before = daemon.context.engine.usage(id).await.unwrap().log_bytes;
            let mut fastest = std::time::Duration::MAX;
            for _ in 0..200 {
                writer.edit(|txn, cells| source_of(txn, cells, 0).insert(txn, 0, "y"));
                let began = std::time::Instant::now();
                writer.flush().await;
                let heard = reader.updates;
                while reader.updates == heard {
                    reader.hear().await;
                }
                fastest = fastest.min(began.elapsed());
            }
            let bytes = daemon.context.engine.usage(id).await.unwrap().log_bytes - before;
            (fastest, bytes)
        })
    };
    let ((few, few_bytes), (many, many_bytes)) = (fastest(10), fastest(1_000));
    assert!(many < few * 4, "an edit takes {few:?} with 10 cells and {many:?} with 1,000");
    assert!(many_bytes < few_bytes * 2, "200 edits are {few_bytes} and {many_bytes} bytes");
}

fn file_of(sources: [&str; 2], outputs: &str) -> String {
    let cell = |id: &str, source: &str| {
        format!(
            r#"{{"cell_type":"code","execution_count":null,"id":"{id}","metadata":{{}},"outputs":[{outputs}],"source":["{source}"]}}"#
        )
    };
    let (a, b) = (cell("a", sources[0]), cell("b", sources[1]));
    format!(r#"{{"cells":[{a},{b}],"metadata":{{}},"nbformat":4,"nbformat_minor":5}}"#)
}

/// As other programs write: no reader sees half of it.
fn put(path: &std::path::Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

#[test]
fn what_was_merged_from_the_file_is_there_after_a_crash_and_later_merges_know_it() {
    // C5
    let world = World::new();
    let path = world.path("n.ipynb");
    put(&path, &file_of(["a0", "b0"], ""));
    let output = r#"{"name":"stdout","output_type":"stream","text":["theirs\n"]}"#;
    let id = life(async {
        let daemon = world.daemon();
        let id = daemon.open(&path).await.unwrap().session_id;
        // Nobody edits it here yet.
        put(&path, &file_of(["a0", "b1"], output));
        daemon.until(id, |view| view.saved == Some(SavedState::Unsaved)).await;
        assert_eq!(daemon.sources(id).await, ["a0", "b1"]);
        id
    });
    life(async {
        let daemon = world.daemon();
        let notebook = daemon.notebook(id).await;
        assert_eq!(notebook.cells[1].outputs.as_ref().unwrap().len(), 1, "their outputs are in no run's log");
        let mut editor = joined(&daemon, id, 1).await;
        assert_eq!(editor.sources(), ["a0", "b1"]);
        editor.type_into(0, " ours").await;
        editor.sync().await;
        put(&path, &file_of(["a0", "b2"], output));
        until_sent(&mut editor, &["a0 ours", "b2"]).await;
    });
    life(async {
        let daemon = world.daemon();
        assert_eq!(daemon.sources(id).await, ["a0 ours", "b2"]);
        let mut editor = joined(&daemon, id, 2).await;
        put(&path, &file_of(["a0", "b3"], output));
        until_sent(&mut editor, &["a0 ours", "b3"]).await;
        assert_eq!(daemon.sources(id).await, ["a0 ours", "b3"]);
        assert_eq!(editor.shows()[0]["outputs"][0]["text"], "theirs\n");
    });
}

/// Waits until an editor is sent this.
async fn until_sent(editor: &mut Editor, expected: &[&str]) {
    while editor.sources() != expected {
        editor.hear().await;
    }
}
