//! `outlive cells`: the cells of a session's notebook, with the ids that `exec --cell` takes.

use outlive_protocol::http::{CellKindName, CellView, RunView};

use super::attach::quietly;
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::{Failure, doing_to};
use crate::follow::cell::{doing, first_line, last_runs};
use crate::select;
use crate::table::{self, Cell, Shape};
use crate::terminal::{self, Paint};

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Session: id or its beginning, title or file name [default: the latest]
    #[arg(value_name = "SESSION", add = crate::complete::sessions())]
    session: Option<String>,
    /// Print the cells as JSON, with their whole sources
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Does it.
    pub async fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        let client = quietly(daemon).await?;
        let session = select::session(&client, self.session.as_deref()).await?;
        let refused = || doing_to(&session, "list the cells");
        let cells = client.notebook(session.id, false).await.map_err(refused())?.cells;
        if self.json {
            terminal::line(serde_json::to_string_pretty(&cells).expect("cells have string keys"))?;
            return Ok(Exit::Ok);
        }
        let runs = client.runs(session.id).await.map_err(refused())?;
        let width = if terminal::out_is_terminal() { terminal::width() } else { usize::MAX };
        terminal::data(table(&cells, &runs, width, Paint::out()).as_bytes())?;
        Ok(Exit::Ok)
    }
}

/// The cells, counted from 1 as everywhere where people read.
fn table(cells: &[CellView], runs: &[RunView], width: usize, paint: Paint) -> String {
    let runs = last_runs(runs);
    let rows: Vec<Vec<Cell>> = cells
        .iter()
        .enumerate()
        .map(|(place, cell)| {
            let (ink, state) = doing(cell, runs.get(cell.id.as_str()).copied());
            vec![
                table::cell((place + 1).to_string()),
                table::cell(terminal::one_line(&cell.id)),
                table::cell(kind(cell.kind)),
                (Some(ink), state),
                table::cell(first_line(&cell.source)),
            ]
        })
        .collect();
    let shape = Shape {
        head: &["CELL", "ID", "KIND", "STATE", "SOURCE"],
        main: (4, 20),
        // How it failed may be a long name.
        spare: (3, 10),
        give_way: &[2],
    };
    shape.text(&rows, width, paint)
}

const fn kind(kind: CellKindName) -> &'static str {
    match kind {
        CellKindName::Code => "code",
        CellKindName::Markdown => "markdown",
        CellKindName::Raw => "raw",
        CellKindName::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_cell_has_its_id_and_says_how_its_last_run_went() {
        let run = "cccccccc-0000-4000-8000-000000000001";
        let cell = |id: &str, kind: &str, source: &str, state: &str, run: Option<&str>| -> CellView {
            let cell =
                json!({"id": id, "kind": kind, "source": source, "metadata": {}, "state": state, "run": run});
            serde_json::from_value(cell).expect("a cell")
        };
        let cells = [
            cell("t", "markdown", "# Title\n\ntext", "idle", None),
            cell("a1b2", "code", "\nx = 1 / 0", "idle", Some(run)),
            cell("c3", "code", "", "running", None),
        ];
        let raised = json!({"kind": "raised", "ename": "ZeroDivisionError", "evalue": ""});
        let runs: Vec<RunView> = serde_json::from_value(json!([{
            "id": run, "session": run, "index": 0, "cell": 1, "cell_id": "a1b2", "source": "", "attempt": 1, "head": 0,
            "state": {"state": "ended", "outcome": raised}, "execution_count": 1, "queued_at": 0,
            "started_at": 0, "ended_at": 1,
        }]))
        .expect("a run");
        let expected = "\
CELL  ID    KIND      STATE                      SOURCE
1     t     markdown                             # Title …
2     a1b2  code      failed: ZeroDivisionError  x = 1 / 0
3     c3    code      running                    (empty)
";
        assert_eq!(table(&cells, &runs, usize::MAX, Paint::OFF), expected);
        let narrow = table(&cells, &runs, 50, Paint::OFF);
        assert!(narrow.lines().all(|line| console::measure_text_width(line) <= 50), "{narrow}");
        assert!(narrow.contains("a1b2"), "an id is never cut: {narrow}");
    }
}
