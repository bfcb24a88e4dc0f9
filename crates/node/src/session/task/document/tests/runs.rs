//! Runs of cells that are edited, and their outputs for those who edit.

use std::collections::BTreeMap;

use outlive_core::id::{Attempt, Position, RunId, SessionId};
use outlive_core::limits::{
    DOCUMENT_PROJECT_MS, REQUIRED_WAIT_MS, RUNS_REMEMBERED_MAX, RUNS_TRIMMED_AT_ONCE, TRIM_BYTES_MIN,
};
use outlive_core::log::{Chunk, ChunkKind, Lane};
use outlive_core::session::RunOutcome;
use outlive_core::time::WallTime;
use outlive_protocol::http::{
    CellEdit, CellKindName, CellState, Problem, RunState, RunView, SaveHow, SubmitRuns, Where, base64,
};
use outlive_protocol::shim::{Notice, StateNotice};
use outlive_store::{LaneFilter, ReadLimit};
use serde_json::{Value, json};
use yrs::Array;

use super::editor::{Editor, insert_cell};
use super::{PATIENCE, ask, edit, joined};
use crate::session::handle::{Answer, Ask, Message as Mail};
use crate::session::open;
use crate::session::task::file::tests::world::{Daemon, World, life};

async fn run(daemon: &Daemon, id: SessionId, work: SubmitRuns) -> Result<Vec<RunView>, Problem> {
    match ask(daemon, id, Ask::Submit(work)).await? {
        Answer::Runs(runs) => Ok(runs),
        other => panic!("{other:?}"),
    }
}

fn cells(ids: &[&str]) -> SubmitRuns {
    SubmitRuns::CellIds {
        cells: ids.iter().map(|id| (*id).to_owned()).collect(),
        required: None,
        expected: BTreeMap::new(),
    }
}

fn seeing(ids: &[&str], editor: &Editor) -> SubmitRuns {
    let required = Some(base64(&editor.state_vector()));
    SubmitRuns::CellIds {
        cells: ids.iter().map(|id| (*id).to_owned()).collect(),
        required,
        expected: BTreeMap::new(),
    }
}

fn insert(id: &str, source: &str) -> CellEdit {
    let (source, id) = (source.to_owned(), Some(id.to_owned()));
    CellEdit::Insert { at: Where::End, kind: CellKindName::Code, source, id }
}

fn printed(run: RunId, text: &str) -> Notice {
    let chunk = Chunk::inline(ChunkKind::Stdout, WallTime(1), text.as_bytes());
    Notice::Output { run: Some(run), chunks: vec![chunk] }
}

fn started(run: RunId) -> Notice {
    let chunk = Chunk::inline(ChunkKind::Started, WallTime(1), &b"{\"execution_count\":7}"[..]);
    Notice::Output { run: Some(run), chunks: vec![chunk] }
}

fn finished(run: RunId) -> Notice {
    let outcome = RunOutcome::Succeeded;
    Notice::State(StateNotice::RunFinished { run, attempt: Attempt(1), outcome, execution_count: Some(7) })
}

/// Waits until an editor shows this.
async fn until_shows(daemon: &Daemon, editor: &mut Editor, is_so: impl Fn(&Value) -> bool) {
    for _ in 0..2_000 {
        daemon.clock.advance(DOCUMENT_PROJECT_MS);
        editor.sync().await;
        if is_so(&editor.shows()) {
            return;
        }
    }
    panic!("it never came; at last: {:#}", editor.shows());
}

#[test]
fn a_run_that_is_to_see_an_edit_waits_for_it_and_runs_what_its_asker_saw() {
    let world = World::new();
    life(async {
        let daemon = world.daemon();
        let id = daemon.new_notebook("x = 1").await;
        let cell = daemon.notebook(id).await.cells[0].id.clone();
        let mut editor = joined(&daemon, id, 1).await;
        editor.edit(|txn, cells| {
            let source = super::editor::source_of(txn, cells, 0);
            yrs::Text::insert(&source, txn, 5, "00");
        });
        let handle = open::wake(&daemon.context, id).await.unwrap().handle;
        let (answer, mut answered) = tokio::sync::oneshot::channel();
        let mail = Mail { ask: Ask::Submit(seeing(&[&cell], &editor)), answer };
        handle.mailbox.send(mail).await.unwrap();
        // The session is not held up by it.
        daemon.sources(id).await;
        assert!(answered.try_recv().is_err(), "it waits");
        editor.flush().await;
        let Ok(Ok(Answer::Runs(runs))) = answered.await else { panic!("it was not run") };
        assert_eq!(runs[0].source, "x = 100");
        assert_eq!(runs[0].cell_id.as_deref(), Some(&*cell));
        // What is there already is not waited for.
        let again = run(&daemon, id, seeing(&[&cell], &editor)).await.unwrap();
        assert_eq!(again[0].source, "x = 100");
    });
}

#[test]
fn a_deletion_on_its_way_is_waited_for_by_whoever_says_what_the_cell_reads() {
    let world = World::new();
    life(async {
        let daemon = world.daemon();
        let id = daemon.new_notebook("keep()\ndanger()").await;
        let cell = daemon.notebook(id).await.cells[0].id.clone();
        let mut editor = joined(&daemon, id, 1).await;
        for (at, reads) in [(6, "keep()"), (4, "keep")] {
            editor.edit(|txn, cells| {
                let source = super::editor::source_of(txn, cells, 0);
                let length = yrs::Text::len(&source, txn);
                yrs::Text::remove_range(&source, txn, at, length - at);
            });
            let expected = BTreeMap::from([(cell.clone(), reads.to_owned())]);
            let snapshot = format!("snapshot:{}", base64(&editor.snapshot()));
            let wishes = [(None, expected), (Some(snapshot), BTreeMap::new())];
            let waiting = wishes.map(|(required, expected)| {
                run(&daemon, id, SubmitRuns::CellIds { cells: vec![cell.clone()], required, expected })
            });
            let [by_source, by_snapshot] = waiting;
            let (by_source, by_snapshot, ()) = tokio::join!(by_source, by_snapshot, async {
                // Nobody has run what its asker has not seen.
                daemon.sources(id).await;
                let Ok(Answer::Runs(runs)) = ask(&daemon, id, Ask::Runs).await else { panic!("no runs") };
                assert!(runs.iter().all(|run| run.source != "keep()\ndanger()"), "{runs:?}");
                editor.flush().await;
            });
            for runs in [by_source, by_snapshot] {
                assert_eq!(runs.unwrap()[0].source, reads);
            }
        }
    });
}

#[test]
fn a_cell_that_somebody_else_has_changed_is_not_run_for_whoever_says_what_they_saw() {
    let world = World::new();
    life(async {
        let daemon = world.daemon();
        let id = daemon.new_notebook("x = 1\ny = 2").await;
        let cell = daemon.notebook(id).await.cells[0].id.clone();
        let expecting = |of: &str, source: &str| {
            let expected = BTreeMap::from([(of.to_owned(), source.to_owned())]);
            SubmitRuns::CellIds { cells: vec![cell.clone()], required: None, expected }
        };
        let (changed, gone, ()) = tokio::join!(
            run(&daemon, id, expecting(&cell, "x = 1\ny = 3\nz")),
            run(&daemon, id, expecting("gone", "")),
            async {
                daemon.sources(id).await;
                daemon.clock.advance(REQUIRED_WAIT_MS + 1);
            }
        );
        let problem = changed.unwrap_err();
        assert_eq!((problem.status, problem.code.as_str()), (409, "cell-changed"));
        assert!(problem.detail.contains("line 2 is \"y = 2\", expected: \"y = 3\""), "{problem}");
        assert_eq!((&*problem.facts["cell"], &*problem.facts["source"]), (&*cell, "x = 1\ny = 2"));
        let problem = gone.unwrap_err();
        assert_eq!((problem.code.as_str(), &*problem.facts["cell"]), ("no-such-cell", "gone"));
        let Ok(Answer::Runs(runs)) = ask(&daemon, id, Ask::Runs).await else { panic!("no runs") };
        assert!(runs.is_empty(), "{runs:?}");
        assert_eq!(run(&daemon, id, expecting(&cell, "x = 1\ny = 2")).await.unwrap().len(), 1);
    });
}

#[test]
fn a_run_whose_edits_do_not_come_is_refused_and_nothing_is_run() {
    let world = World::new();
    life(async {
        let daemon = world.daemon();
        let id = daemon.new_notebook("x = 1").await;
        let cell = daemon.notebook(id).await.cells[0].id.clone();
        let mut editor = joined(&daemon, id, 1).await;
        editor.edit(|txn, cells| insert_cell(txn, cells, 1, "b", ""));
        let (wish, other) = (seeing(&[&cell], &editor), seeing(&[], &editor));
        let (refused, also, ()) = tokio::join!(run(&daemon, id, wish), run(&daemon, id, other), async {
            daemon.sources(id).await;
            daemon.clock.advance(REQUIRED_WAIT_MS + 1);
        });
        assert_eq!(refused.unwrap_err().code, "document-behind");
        assert_eq!(also.unwrap_err().code, "document-behind");
        let rubbish = SubmitRuns::All { required: Some("%%%".to_owned()) };
        assert_eq!(run(&daemon, id, rubbish).await.unwrap_err().code, "bad-request");
        let rubbish = SubmitRuns::All { required: Some(base64(&[0xff, 0xff])) };
        assert_eq!(run(&daemon, id, rubbish).await.unwrap_err().code, "bad-request");
        let Ok(Answer::Runs(runs)) = ask(&daemon, id, Ask::Runs).await else { panic!("no runs") };
        assert!(runs.is_empty());
        // An empty state vector asks for nothing.
        let any = SubmitRuns::All { required: Some(base64(&[0])) };
        assert_eq!(run(&daemon, id, any).await.unwrap().len(), 1);
    });
}

#[test]
fn cells_that_are_not_there_or_no_code_are_refused_and_nothing_is_run_or_changed() {
    let world = World::new();
    life(async {
        let daemon = world.daemon();
        let id = daemon.new_notebook("x = 1").await;
        let cell = daemon.notebook(id).await.cells[0].id.clone();
        let text = CellEdit::Insert {
            at: Where::Index(0),
            kind: CellKindName::Markdown,
            source: "# Title".to_owned(),
            id: Some("text".to_owned()),
        };
        edit(&daemon, id, vec![text]).await.unwrap();
        for ids in [&[&*cell, "nowhere"][..], &[&*cell, "text"]] {
            let problem = run(&daemon, id, cells(ids)).await.unwrap_err();
            assert_eq!(problem.code, "no-such-cell");
            assert_eq!(problem.facts["cell"], ids[1]);
        }
        let problem = run(&daemon, id, SubmitRuns::Cells { cells: vec![1, 0] }).await.unwrap_err();
        assert_eq!(problem.code, "no-such-cell");
        let Ok(Answer::Runs(runs)) = ask(&daemon, id, Ask::Runs).await else { panic!("no runs") };
        assert!(runs.is_empty(), "{runs:?}");
        let set = |source: &str, expected: Option<&str>| CellEdit::SetSource {
            cell: cell.clone(),
            source: source.to_owned(),
            expected: expected.map(str::to_owned),
        };
        let gone = CellEdit::Delete { cell: "nowhere".to_owned() };
        let problem = edit(&daemon, id, vec![set("lost", None), gone]).await.unwrap_err();
        assert_eq!(problem.code, "no-such-cell");
        let problem = edit(&daemon, id, vec![set("lost", Some("x = 0"))]).await.unwrap_err();
        assert_eq!((problem.code.as_str(), &*problem.facts["source"]), ("cell-changed", "x = 1"));
        let kind = CellEdit::SetKind { cell: cell.clone(), kind: CellKindName::Unknown };
        assert_eq!(edit(&daemon, id, vec![kind]).await.unwrap_err().code, "bad-edit");
        assert_eq!(daemon.sources(id).await, ["# Title", "x = 1"]);
        edit(&daemon, id, vec![set("x = 2", Some("x = 1"))]).await.unwrap();
        // An id that is taken is drawn.
        let edited = edit(&daemon, id, vec![insert("text", "a"), insert("new", "b")]).await.unwrap();
        assert_ne!(edited.cells[0], "text");
        assert_eq!(edited.cells[1], "new");
        assert_eq!(daemon.sources(id).await, ["# Title", "x = 2", "a", "b"]);
    });
}

#[test]
fn those_who_edit_see_what_waits_what_runs_and_what_it_prints() {
    let world = World::new();
    let id = life(async {
        let daemon = world.daemon();
        let id = daemon.new_notebook("print(1)").await;
        let a = daemon.notebook(id).await.cells[0].id.clone();
        edit(&daemon, id, vec![insert("b", "print(2)")]).await.unwrap();
        let mut editor = joined(&daemon, id, 1).await;
        let runs = run(&daemon, id, cells(&[&a, "b"])).await.unwrap();
        until_shows(&daemon, &mut editor, |shows| {
            shows[0]["execution_state"] == "running" && shows[1]["execution_state"] == "running"
        })
        .await;
        daemon.until(id, |view| view.current == Some(runs[0].id)).await;
        let states: Vec<_> = daemon.notebook(id).await.cells.iter().map(|cell| cell.state).collect();
        assert_eq!(states, [CellState::Running, CellState::Queued]);
        daemon.kernels.says(id, 3, started(runs[0].id)).await;
        daemon.kernels.says(id, 4, printed(runs[0].id, "one\ntwo\n")).await;
        let text = json!([{"output_type": "stream", "name": "stdout", "text": "one\ntwo\n"}]);
        until_shows(&daemon, &mut editor, |shows| shows[0]["outputs"] == text).await;
        daemon.kernels.says(id, 5, finished(runs[0].id)).await;
        until_shows(&daemon, &mut editor, |shows| {
            shows[0]["execution_state"] == "idle" && shows[0]["execution_count"].as_f64() == Some(7.0)
        })
        .await;
        let notebook = daemon.notebook(id).await;
        assert_eq!(notebook.cells[0].run, Some(runs[0].id));
        assert_eq!(notebook.cells[0].execution_count, Some(7));
        assert_eq!(notebook.cells[0].outputs.as_ref().unwrap()[0]["text"], json!(["one\n", "two\n"]));
        assert_eq!(notebook.cells[1].state, CellState::Running);
        id
    });
    // The kernel is gone with the daemon; what it printed is not.
    life(async {
        let daemon = world.daemon();
        let mut editor = joined(&daemon, id, 2).await;
        until_shows(&daemon, &mut editor, |shows| shows[1]["execution_state"] == "idle").await;
        assert_eq!(editor.shows()[0]["outputs"][0]["text"], "one\ntwo\n");
        assert_eq!(editor.shows()[0]["outputs"].as_array().unwrap().len(), 1);
    });
}

#[test]
fn a_cell_that_is_deleted_while_it_runs_goes_on_in_its_log() {
    let world = World::new();
    life(async {
        let daemon = world.daemon();
        let id = daemon.new_notebook("print(1)").await;
        let a = daemon.notebook(id).await.cells[0].id.clone();
        edit(&daemon, id, vec![insert("b", "print(2)")]).await.unwrap();
        let mut editor = joined(&daemon, id, 1).await;
        let runs = run(&daemon, id, cells(&[&a, "b"])).await.unwrap();
        daemon.until(id, |view| view.current == Some(runs[0].id)).await;
        daemon.kernels.says(id, 3, printed(runs[0].id, "before\n")).await;
        editor.edit(|txn, cells| cells.remove(txn, 0));
        editor.flush().await;
        editor.sync().await;
        daemon.kernels.says(id, 4, printed(runs[0].id, "after\n")).await;
        daemon.kernels.says(id, 5, finished(runs[0].id)).await;
        daemon.until(id, |view| view.current == Some(runs[1].id)).await;
        let Ok(Answer::Runs(all)) = ask(&daemon, id, Ask::Runs).await else { panic!("no runs") };
        assert_eq!(all[0].state, RunState::Ended { outcome: RunOutcome::Succeeded });
        assert_eq!(all[0].head.0, 2, "all that it printed is in its log");
        assert_eq!(daemon.sources(id).await, ["print(2)"]);
        editor.sync().await;
        assert_eq!(editor.sources(), ["print(2)"]);
    });
}

#[test]
fn outputs_that_a_peer_has_cleared_stay_cleared() {
    let world = World::new();
    let id = life(async {
        let daemon = world.daemon();
        let id = daemon.new_notebook("print(1)").await;
        let a = daemon.notebook(id).await.cells[0].id.clone();
        let mut editor = joined(&daemon, id, 1).await;
        let runs = run(&daemon, id, cells(&[&a])).await.unwrap();
        daemon.until(id, |view| view.current == Some(runs[0].id)).await;
        daemon.kernels.says(id, 3, printed(runs[0].id, "one\n")).await;
        daemon.kernels.says(id, 4, finished(runs[0].id)).await;
        until_shows(&daemon, &mut editor, |shows| {
            shows[0]["outputs"].as_array().is_some_and(|outputs| outputs.len() == 1)
                && shows[0]["execution_state"] == "idle"
        })
        .await;
        edit(&daemon, id, vec![CellEdit::ClearOutputs { cell: Some(a) }]).await.unwrap();
        editor.sync().await;
        assert_eq!(editor.shows()[0]["outputs"], json!([]));
        assert_eq!(daemon.notebook(id).await.cells[0].outputs, Some(Vec::new()));
        id
    });
    life(async {
        let daemon = world.daemon();
        assert_eq!(daemon.notebook(id).await.cells[0].outputs, Some(Vec::new()));
        let editor = joined(&daemon, id, 2).await;
        assert_eq!(editor.shows()[0]["outputs"], json!([]));
    });
}

#[test]
fn a_cell_that_waits_is_one_run_with_its_newest_source() {
    let world = World::new();
    life(async {
        let daemon = world.daemon();
        let id = daemon.new_notebook("print(1)").await;
        let a = daemon.notebook(id).await.cells[0].id.clone();
        edit(&daemon, id, vec![insert("b", "old")]).await.unwrap();
        let first = run(&daemon, id, cells(&[&a, "b"])).await.unwrap();
        daemon.set_source(id, "b", "new").await;
        let again = run(&daemon, id, cells(&["b"])).await.unwrap();
        assert_eq!((again[0].id, again[0].source.as_str()), (first[1].id, "new"));
        let Ok(Answer::Runs(all)) = ask(&daemon, id, Ask::Runs).await else { panic!("no runs") };
        assert_eq!(all.len(), 2);
    });
}

#[test]
fn a_run_that_goes_on_while_the_document_is_read_again_loses_nothing() {
    let world = World::new();
    life(async {
        let daemon = world.daemon();
        let id = daemon.new_notebook("print(1)").await;
        let a = daemon.notebook(id).await.cells[0].id.clone();
        edit(&daemon, id, vec![insert("b", "print(2)")]).await.unwrap();
        let mut editor = joined(&daemon, id, 1).await;
        let runs = run(&daemon, id, cells(&[&a, "b"])).await.unwrap();
        daemon.until(id, |view| view.current == Some(runs[0].id)).await;
        daemon.kernels.says(id, 3, printed(runs[0].id, "one\n")).await;
        until_shows(&daemon, &mut editor, |shows| shows[0]["outputs"][0]["text"] == "one\n").await;
        let mut bad = joined(&daemon, id, 2).await;
        bad.nest_too_deep();
        bad.flush().await;
        assert_eq!(bad.until_cut().await.code, "forged-update");
        daemon.kernels.says(id, 4, printed(runs[0].id, "two\n")).await;
        until_shows(&daemon, &mut editor, |shows| shows[0]["outputs"][0]["text"] == "one\ntwo\n").await;
        let states: Vec<_> = daemon.notebook(id).await.cells.iter().map(|cell| cell.state).collect();
        assert_eq!(states, [CellState::Running, CellState::Queued]);
        daemon.kernels.says(id, 5, finished(runs[0].id)).await;
        until_shows(&daemon, &mut editor, |shows| shows[0]["execution_state"] == "idle").await;
        assert_eq!(editor.shows()[0]["outputs"].as_array().unwrap().len(), 1);
    });
}

#[test]
fn an_edit_of_a_session_that_is_being_closed_is_in_its_file_or_refused() {
    let world = World::new();
    life(async {
        let daemon = world.daemon();
        let untitled = daemon.new_notebook("x = 1").await;
        let saved = daemon.new_notebook("x = 1").await;
        let file = world.path("a.ipynb");
        daemon.save_as(saved, &file, SaveHow::Save).await.unwrap();
        for id in [untitled, saved] {
            run(&daemon, id, SubmitRuns::Code { code: "long".to_owned() }).await.unwrap();
            daemon.until(id, |view| view.runs.running == 1).await;
        }
        let mut editor = joined(&daemon, untitled, 1).await;
        let kernels_stay = daemon.kernels.hold_stops();
        daemon.close(untitled, true).await.unwrap();
        daemon.close(saved, false).await.unwrap();
        let refused = edit(&daemon, untitled, vec![insert("late", "late")]).await.unwrap_err();
        assert_eq!(refused.code, "session-ended");
        assert!(refused.detail.contains("being closed"), "{refused}");
        editor.edit(|txn, cells| insert_cell(txn, cells, 1, "later", ""));
        editor.flush().await;
        assert_eq!(editor.until_cut().await.code, "session-ended");
        assert_eq!(daemon.sources(untitled).await, ["x = 1"]);
        edit(&daemon, saved, vec![insert("late", "late")]).await.unwrap();
        drop(kernels_stay);
        daemon.until_ended(saved).await;
        assert!(std::fs::read_to_string(&file).unwrap().contains("\"late\""));
    });
}

/// Runs of code: an interrupt drops all but the first, which ends then.
async fn runs_that_end(daemon: &Daemon, id: SessionId, number: usize, src: u64) {
    let code = || SubmitRuns::Code { code: "1".to_owned() };
    let first = run(daemon, id, code()).await.unwrap().remove(0);
    for _ in 1..number {
        run(daemon, id, code()).await.unwrap();
    }
    ask(daemon, id, Ask::Interrupt).await.unwrap();
    daemon.kernels.says(id, src, finished(first.id)).await;
    daemon.until(id, |view| view.current.is_none() && view.runs.queued == 0).await;
}

/// What is known of a notebook's first cell and its run after so many others.
async fn is_forgotten(daemon: &Daemon, id: SessionId, first: RunId) {
    let Ok(Answer::Runs(runs)) = ask(daemon, id, Ask::Runs).await else { panic!("no runs") };
    assert!(runs.len() <= RUNS_REMEMBERED_MAX && runs.len() > RUNS_REMEMBERED_MAX - RUNS_TRIMMED_AT_ONCE);
    assert!(runs.iter().all(|run| run.id != first));
    let cell = daemon.notebook(id).await.cells.remove(0);
    assert_eq!((cell.state, cell.run), (CellState::Idle, None));
    daemon.until_output(id, &cell.id, "kept").await;
}

/// Waits until nothing of a run is in the log.
async fn until_it_has_left(daemon: &Daemon, id: SessionId, run: RunId) {
    let lane = LaneFilter::Only(vec![Lane::Run(run)]);
    let left = async {
        loop {
            let page =
                daemon.context.engine.read(id, Position(0), &lane, ReadLimit::default()).await.unwrap();
            if page.entries.is_empty() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, left).await.expect("forgotten runs leave the log");
}

#[test]
fn what_forgotten_runs_put_into_the_notebook_stays_when_they_have_left_the_log() {
    const ALL: usize = RUNS_REMEMBERED_MAX + RUNS_TRIMMED_AT_ONCE + 3;
    let world = World::new();
    let (id, first, counts) = life(async {
        let daemon = world.daemon();
        let id = daemon.new_notebook("print('kept')").await;
        let cell = daemon.notebook(id).await.cells[0].id.clone();
        let first = run(&daemon, id, cells(&[&cell])).await.unwrap().remove(0).id;
        daemon.kernels.says(id, 3, printed(first, "kept\n")).await;
        daemon.kernels.says(id, 4, finished(first)).await;
        // Enough of a document that this part of the log is closed when the notebook is written anew.
        let large = "x".repeat(2 * usize::try_from(TRIM_BYTES_MIN).unwrap());
        edit(&daemon, id, vec![insert("large", &large)]).await.unwrap();
        edit(&daemon, id, vec![CellEdit::Delete { cell: "large".to_owned() }]).await.unwrap();
        for src in 5..8 {
            runs_that_end(&daemon, id, ALL / 3, src).await;
        }
        is_forgotten(&daemon, id, first).await;
        until_it_has_left(&daemon, id, first).await;
        (id, first, daemon.view(id).runs)
    });
    life(async {
        let daemon = world.daemon();
        is_forgotten(&daemon, id, first).await;
        assert_eq!(daemon.view(id).runs.cancelled, counts.cancelled, "all are counted");
    });
}

#[test]
fn sources_that_fit_no_record_together_are_run_and_one_that_fits_none_is_refused() {
    let world = World::new();
    let id = life(async {
        let daemon = world.daemon();
        let id = daemon.new_notebook("x = 1").await;
        let large = format!("y = '{}'", "é".repeat(10_000));
        let names: Vec<String> = (0..80).map(|n| format!("cell-{n}")).collect();
        edit(&daemon, id, names.iter().map(|name| insert(name, &large)).collect()).await.unwrap();
        assert_eq!(run(&daemon, id, SubmitRuns::All { required: None }).await.unwrap().len(), 81);
        let cell = daemon.notebook(id).await.cells.remove(80);
        assert_eq!(cell.state, CellState::Queued, "{}", cell.id);
        let huge = format!("z = '{}'", "\n".repeat(600_000));
        edit(&daemon, id, vec![insert("huge", &huge)]).await.unwrap();
        for work in [cells(&["huge"]), SubmitRuns::All { required: None }, SubmitRuns::Code { code: huge }] {
            assert_eq!(run(&daemon, id, work).await.unwrap_err().code, "source-too-large");
        }
        // The session lives, and so does what it had.
        let Ok(Answer::Runs(runs)) = ask(&daemon, id, Ask::Runs).await else { panic!("no runs") };
        assert_eq!(runs.len(), 81);
        id
    });
    life(async {
        let daemon = world.daemon();
        let Ok(Answer::Runs(runs)) = ask(&daemon, id, Ask::Runs).await else { panic!("no runs") };
        assert_eq!(runs.len(), 81);
    });
}
