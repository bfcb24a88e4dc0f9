//! `outlive save` and `outlive save-as`: a session's notebook into a file.

use std::path::PathBuf;

use outlive_core::id::SessionId;
use outlive_protocol::http::{RunCounts, SaveHow, SaveSession};

use super::attach::quietly;
use crate::client::Client;
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::{Failure, doing_to};
use crate::{launch, select, terminal};

/// Arguments of `save`.
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Session: id or its beginning, title or file name
    #[arg(value_name = "SESSION", add = crate::complete::sessions())]
    session: String,
    /// The file; needed once, for an untitled notebook
    #[arg(value_name = "PATH", conflicts_with = "copy")]
    path: Option<PathBuf>,
    /// Write a copy there; the session stays where it is
    #[arg(long, value_name = "PATH")]
    copy: Option<PathBuf>,
    /// Write although something else is in the file
    #[arg(long)]
    overwrite: bool,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Does it.
    pub async fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        let (how, path) = match (self.path, self.copy) {
            (_, Some(copy)) => (SaveHow::Copy, Some(copy)),
            (path, None) => (SaveHow::Save, path),
        };
        save(daemon, &self.session, path, how, self.overwrite, self.json).await
    }
}

/// Arguments of `save-as`.
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
#[derive(clap::Args, Debug)]
pub struct AsArgs {
    /// Session: id or its beginning, title or file name
    #[arg(value_name = "SESSION", add = crate::complete::sessions())]
    session: String,
    /// The file that the session moves to
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Write although something else is in the file
    #[arg(long)]
    overwrite: bool,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

impl AsArgs {
    /// Does it.
    pub async fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        save(daemon, &self.session, Some(self.path), SaveHow::SaveAs, self.overwrite, self.json).await
    }
}

async fn save(
    daemon: &Daemon,
    session: &str,
    path: Option<PathBuf>,
    how: SaveHow,
    overwrite: bool,
    json: bool,
) -> Result<Exit, Failure> {
    let client = quietly(daemon).await?;
    let before = select::session(&client, Some(session)).await?;
    let path = path.map(|path| launch::utf8(&launch::absolute(&path)?)).transpose()?;
    let request = SaveSession { path, how, overwrite };
    let opened = client.save(before.id, &request).await.map_err(doing_to(&before, "save"))?;
    if json {
        terminal::line(serde_json::to_string_pretty(&opened).expect("an answer has string keys"))?;
        return Ok(Exit::Ok);
    }
    terminal::line(opened.path.as_deref().unwrap_or_default())?;
    if let Some(kept) = &opened.kept {
        terminal::talk(format!("what stood there before is in {kept}"));
    }
    let runs_on = before.runtime.pid.is_some() && before.base != opened.session.base;
    if let (true, Some(base)) = (runs_on, before.base) {
        let id = select::short(before.id);
        terminal::talk(format!("its kernel stays in {base} while it runs; `outlive restart {id}` moves it"));
    }
    if before.untitled && was_used(before.runs) && !has_code(&client, before.id).await {
        terminal::talk("the notebook has no code: what `outlive exec CODE` ran stands in no cell");
    }
    Ok(Exit::Ok)
}

/// Whether an untitled notebook was used at all.
const fn was_used(runs: RunCounts) -> bool {
    runs.succeeded + runs.failed + runs.cancelled + runs.queued + runs.running > 0
}

/// Whether there is anything in a notebook's cells; nobody is told otherwise who cannot be told for sure.
async fn has_code(client: &Client, id: SessionId) -> bool {
    let notebook = client.notebook(id, false).await;
    notebook.map_or(true, |notebook| notebook.cells.iter().any(|cell| !cell.source.trim().is_empty()))
}
