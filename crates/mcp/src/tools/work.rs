//! Work of a kernel: run, outputs, interrupt, restart, runs.

use std::collections::BTreeMap;
use std::time::Duration;

use outlive_core::id::{RunId, SessionId};
use outlive_core::limits::{
    MCP_LISTED_MAX, MCP_RUN_TEXT_BYTES_MIN, MCP_RUNS_SHOWN_MAX, MCP_TEXT_BYTES_MAX, MCP_WAIT_S,
    MCP_WAIT_S_MAX,
};
use outlive_protocol::http::{Problem, Restart, RunState, RunView, SubmitRuns};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::brief::{Run, Session};
use crate::outputs::{self, Image, Item, Place};
use crate::tool::{Call, Reply, bad_arguments};
use crate::wait;

/// How many runs are listed unless more are asked for.
const RUNS_LISTED: usize = 20;
/// How much of a run's source is listed, in bytes.
const SOURCE_BYTES: usize = 200;

/// `run`. One of `cells`, `all` and `code`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunCells {
    /// The session's id.
    session: SessionId,
    /// Cells by id, in the order in which they are to run.
    #[serde(default)]
    cells: Option<Vec<String>>,
    /// With `cells`: the source of cells as you have read it, by id. None is run when one reads otherwise by now.
    #[serde(default)]
    expected: BTreeMap<String, String>,
    /// All code cells.
    #[serde(default)]
    all: bool,
    /// Code that stands in no cell. It leaves nothing in the notebook but its effect on the kernel.
    #[serde(default)]
    code: Option<String>,
    /// How long to wait for the end, in seconds: at most 600, by default 50.
    #[serde(default)]
    wait_s: Option<u64>,
}

/// Runs with what they have printed.
#[derive(Serialize, JsonSchema)]
pub struct Ran {
    /// Whether all of them have ended. If not they go on; ask `outputs` with their ids.
    complete: bool,
    /// In the order in which they run.
    runs: Vec<Run>,
}

pub async fn run(call: Call, input: RunCells) -> Result<Reply<Ran>, Problem> {
    let (session, time) = (input.session, wait_time(input.wait_s.unwrap_or(MCP_WAIT_S))?);
    let work = work(input)?;
    // Before the work is queued, so that no end of it is missed.
    let events = call.host.watch(session).await?;
    let queued = call.host.submit(session, work).await?;
    if queued.is_empty() {
        let text = "nothing was run: the notebook has no cell with code\n".to_owned();
        return Ok(Reply::new(Ran { complete: true, runs: Vec::new() }, text));
    }
    // They are queued: whatever fails from here on, their ids are told.
    let watched = wait::until_ended(&call, session, &queued, events, time).await;
    let mut views = queued;
    let mut notes: Vec<String> =
        watched.err().map(|problem| problem.sentence("wait for the end")).into_iter().collect();
    match call.host.runs(session).await {
        Ok(all) => {
            for view in &mut views {
                if let Some(now) = all.iter().find(|now| now.id == view.id) {
                    *view = now.clone();
                }
            }
        }
        Err(problem) => notes.push(problem.sentence("see how far they are")),
    }
    let mut images = Vec::new();
    let runs = with_outputs(&call, &views, &mut images).await;
    let complete = views.iter().all(wait::is_over);
    let mut text: String = runs.iter().map(run_text).collect();
    notes.iter().for_each(|note| text.push_str(&format!("[{note}]\n")));
    if !complete {
        let (waited, first) = (time.as_secs(), views.iter().find(|view| !wait::is_over(view)));
        let first = first.map(|view| view.id.to_string()).unwrap_or_default();
        text.push_str(&format!(
            "[still running after {waited} s; it goes on. Ask `outputs` with run={first} for what comes next, or \
             `interrupt` to stop it]\n"
        ));
        text.push_str(&question(&call, session).await);
    }
    Ok(Reply { answer: Ran { complete, runs }, text, images })
}

fn work(input: RunCells) -> Result<SubmitRuns, Problem> {
    let RunCells { cells, all, code, expected, .. } = input;
    if !expected.is_empty() && cells.is_none() {
        return Err(bad_arguments("`expected` goes with `cells`"));
    }
    match (cells, all, code) {
        (Some(cells), false, None) if cells.is_empty() => Err(bad_arguments("`cells` names none")),
        (Some(cells), false, None) => Ok(SubmitRuns::CellIds { cells, required: None, expected }),
        (None, true, None) => Ok(SubmitRuns::All { required: None }),
        (None, false, Some(code)) => Ok(SubmitRuns::Code { code }),
        _ => Err(bad_arguments("give one of `cells`, `all` and `code`")),
    }
}

fn wait_time(seconds: u64) -> Result<Duration, Problem> {
    if seconds > MCP_WAIT_S_MAX {
        return Err(bad_arguments(format!("wait_s is {seconds}; it is at most {MCP_WAIT_S_MAX}")));
    }
    Ok(Duration::from_secs(seconds))
}

/// A program that asks its user waits for ever when nobody tells the agent.
async fn question(call: &Call, session: SessionId) -> String {
    let asked = call.host.session(session).await.ok().and_then(|view| view.question);
    asked.map_or_else(String::new, |question| {
        format!("[run {} waits for its user to answer: {}]\n", question.run, question.prompt)
    })
}

/// Runs with their outputs, the latest ones where there are too many. A reading that fails leaves a line instead.
async fn with_outputs(call: &Call, views: &[RunView], images: &mut Vec<Image>) -> Vec<Run> {
    let begun: Vec<RunId> =
        views.iter().filter(|view| view.head.0 > 0 || !wait::is_over(view)).map(|view| view.id).collect();
    let shown = &begun[begun.len().saturating_sub(MCP_RUNS_SHOWN_MAX)..];
    let room = (MCP_TEXT_BYTES_MAX / shown.len().max(1)).max(MCP_RUN_TEXT_BYTES_MIN);
    let mut runs = Vec::new();
    for view in views.iter().take(MCP_LISTED_MAX) {
        let mut run = Run::from(view);
        // Code that stands in no cell came with the call. Of a cell it may be other code than was read before.
        run.source = run.cell.is_some().then(|| head(&view.source));
        if view.state == RunState::Queued {
            run.cursor = Some(Place::default().to_string());
        } else if shown.contains(&view.id) {
            match outputs::of_run(&*call.host, view, None, room, images).await {
                Ok(shown) => {
                    run.outputs = Some(shown.items);
                    run.cursor = Some(shown.next.to_string());
                }
                Err(problem) => {
                    run.outputs = Some(vec![Item::Notice {
                        text: format!("[{}]", problem.sentence("read its output")),
                    }]);
                }
            }
        } else if begun.contains(&view.id) {
            let text = format!("[its output is left out here: ask `outputs` with run={}]", view.id);
            run.outputs = Some(vec![Item::Notice { text }]);
        }
        runs.push(run);
    }
    runs
}

fn run_text(run: &Run) -> String {
    let mut text = match &run.source {
        Some(source) => format!("{}, source: {}\n", run.line(), quoted(source)),
        None => format!("{}\n", run.line()),
    };
    if let Some(items) = run.outputs.as_deref().filter(|items| !items.is_empty()) {
        text.push_str(outputs::text(items).trim_end_matches('\n'));
        text.push('\n');
    }
    text
}

/// The beginning of a source.
fn head(source: &str) -> String {
    source[..source.floor_char_boundary(SOURCE_BYTES)].to_owned()
}

/// The first line of a source.
fn quoted(source: &str) -> String {
    let mut lines = source.lines();
    let first = lines.next().unwrap_or_default();
    let more = if lines.next().is_some() { " …" } else { "" };
    format!("`{first}`{more}")
}

/// `outputs`. One of `run` and `cell`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Outputs {
    /// The session's id.
    session: SessionId,
    /// A run's id.
    #[serde(default)]
    run: Option<RunId>,
    /// A cell's id: what it shows now, also if it was not run in this session.
    #[serde(default)]
    cell: Option<String>,
    /// The `cursor` of an earlier answer: only what came after it. For a run.
    #[serde(default)]
    after: Option<String>,
    /// Wait up to so many seconds for the end of the run first: at most 600, by default not at all.
    #[serde(default)]
    wait_s: u64,
}

/// What there is to see.
#[derive(Serialize, JsonSchema)]
pub struct Shown {
    /// The run that printed it; without one, it is what the cell shows.
    run: Option<Run>,
    /// What the cell shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    cell: Option<Vec<Item>>,
    /// Whether nothing more is to come.
    complete: bool,
}

pub async fn outputs(call: Call, input: Outputs) -> Result<Reply<Shown>, Problem> {
    match (input.run, input.cell) {
        (Some(run), None) => {
            let after = input.after.as_deref().map(str::parse::<Place>).transpose().map_err(bad_arguments)?;
            of_run(&call, input.session, run, after, wait_time(input.wait_s)?).await
        }
        (None, Some(cell)) if input.after.is_none() => of_cell(&call, input.session, cell).await,
        (None, Some(_)) => {
            Err(bad_arguments("`after` goes with `run`; a cell's last run is in what `read` answers"))
        }
        (Some(_), Some(_)) | (None, None) => Err(bad_arguments("give one of `run` and `cell`")),
    }
}

async fn of_run(
    call: &Call,
    session: SessionId,
    run: RunId,
    after: Option<Place>,
    time: Duration,
) -> Result<Reply<Shown>, Problem> {
    let mut view = call.host.run(session, run).await?;
    if !time.is_zero() && !wait::is_over(&view) {
        let events = call.host.watch(session).await?;
        view = call.host.run(session, run).await?;
        wait::until_ended(call, session, std::slice::from_ref(&view), events, time).await?;
        view = call.host.run(session, run).await?;
    }
    let mut images = Vec::new();
    let shown = outputs::of_run(&*call.host, &view, after, MCP_TEXT_BYTES_MAX, &mut images).await?;
    let complete = wait::is_over(&view);
    let mut run = Run::from(&view);
    run.outputs = Some(shown.items);
    run.cursor = Some(shown.next.to_string());
    let mut text = run_text(&run);
    if !complete {
        text.push_str(&format!("[it goes on; ask again with after={}]\n", shown.next));
        text.push_str(&question(call, session).await);
    }
    Ok(Reply { answer: Shown { run: Some(run), cell: None, complete }, text, images })
}

async fn of_cell(call: &Call, session: SessionId, cell: String) -> Result<Reply<Shown>, Problem> {
    let all = call.host.cell_outputs(session, cell.clone()).await?;
    let mut images = Vec::new();
    let items = outputs::of_cell(session, &cell, &all, MCP_TEXT_BYTES_MAX, &mut images);
    let mut text = outputs::text(&items);
    if items.is_empty() {
        text.push_str("the cell shows nothing");
    }
    text.push('\n');
    Ok(Reply { answer: Shown { run: None, cell: Some(items), complete: true }, text, images })
}

/// `interrupt`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Interrupt {
    /// The session's id.
    session: SessionId,
}

pub async fn interrupt(call: Call, input: Interrupt) -> Result<Reply<Session>, Problem> {
    let session = Session::from(call.host.interrupt(input.session).await?);
    let text = format!("interrupted\n{}", session.text());
    Ok(Reply::new(session, text))
}

/// `restart`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Again {
    /// The session's id.
    session: SessionId,
    /// Queue all code cells afterwards.
    #[serde(default)]
    run_all: bool,
}

pub async fn restart(call: Call, input: Again) -> Result<Reply<Session>, Problem> {
    let view = call.host.restart(input.session, Restart { run_all: input.run_all }).await?;
    let session = Session::from(view);
    let text = format!("the kernel is started again\n{}", session.text());
    Ok(Reply::new(session, text))
}

/// `runs`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// The session's id.
    session: SessionId,
    /// How many, the latest ones: at most 200, by default 20.
    #[serde(default)]
    limit: Option<usize>,
}

/// Runs.
#[derive(Serialize, JsonSchema)]
pub struct Runs {
    /// The latest ones, in the order in which they were queued.
    runs: Vec<Run>,
    /// How many older ones there are.
    left_out: usize,
}

pub async fn runs(call: Call, input: List) -> Result<Reply<Runs>, Problem> {
    let mut views = call.host.runs(input.session).await?;
    let left_out = views.len().saturating_sub(input.limit.unwrap_or(RUNS_LISTED).min(MCP_LISTED_MAX));
    views.drain(..left_out);
    let mut text = String::new();
    let runs: Vec<Run> = views
        .iter()
        .map(|view| {
            let run = Run { source: Some(head(&view.source)), ..Run::from(view) };
            text.push_str(&run_text(&run));
            run
        })
        .collect();
    if runs.is_empty() {
        text.push_str("nothing was run in this session\n");
    }
    if left_out > 0 {
        text.push_str(&format!("[{left_out} older ones are left out]\n"));
    }
    Ok(Reply::new(Runs { runs, left_out }, text))
}
