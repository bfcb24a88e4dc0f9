//! `outlive explain`: the failures of a session, each with cause, evidence and remedy.

use super::attach::quietly;
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::terminal::{self, Paint};
use crate::{report, select};

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Session: id or its beginning, title or file name [default: the latest]
    #[arg(value_name = "SESSION")]
    session: Option<String>,
    /// Print the reports as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Does it.
    pub async fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        let client = quietly(daemon).await?;
        let session = select::session(&client, self.session.as_deref()).await?;
        let reports = client.reports(session.id).await?;
        if self.json {
            let text = serde_json::to_string_pretty(&reports).expect("reports have string keys");
            terminal::line(text)?;
            return Ok(Exit::Ok);
        }
        if reports.is_empty() {
            let title = terminal::one_line(&session.title);
            terminal::talk(format!("nothing has died in {} ({title})", select::short(session.id)));
            if session.runs.failed > 0 {
                terminal::talk(format!(
                    "{} of its runs failed by themselves: `outlive logs {}` shows how",
                    session.runs.failed,
                    select::short(session.id)
                ));
            }
        }
        for (number, report) in reports.iter().enumerate() {
            let gap = if number > 0 { "\n" } else { "" };
            terminal::data(format!("{gap}{}", report::text(report, Paint::out())).as_bytes())?;
        }
        Ok(Exit::Ok)
    }
}
