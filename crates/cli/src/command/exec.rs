//! `outlive exec`: code or cells in an open session, with its output. The kernel is started when it is down.

use std::collections::BTreeMap;
use std::io::Read;

use outlive_core::session::{CancelWhy, RunOutcome};
use outlive_protocol::http::{RunState, SubmitRuns};

use super::attach::quietly;
use crate::client::attached::{Attached, Target};
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::{Failure, doing_to};
use crate::follow::screen::{Json, Raw, Screen};
use crate::follow::watch::Watch;
use crate::follow::{Follow, Left, Subject, Until, notebook, verdict};
use crate::{select, terminal};

/// Most code that is read from standard input, in bytes: what a request may hold, with room for its escapes.
const CODE_BYTES_MAX: u64 = 4 << 20;

/// Arguments.
#[derive(clap::Args, Debug)]
#[command(override_usage = "outlive exec [OPTIONS] <SESSION> <CODE|--cell <ID>|--all>")]
pub struct Args {
    /// Session: id or its beginning, title or file name
    #[arg(value_name = "SESSION", add = crate::complete::sessions())]
    session: String,
    /// What is run.
    #[command(flatten)]
    what: What,
    /// Print one event a line, as the API sends it
    #[arg(long)]
    json: bool,
}

/// What is run.
#[derive(clap::Args, Debug)]
#[group(required = true, multiple = false)]
struct What {
    /// Code, which no cell keeps; `-` reads it from standard input
    #[arg(value_name = "CODE", allow_hyphen_values = true)]
    code: Option<String>,
    /// A cell by its id (`outlive cells` lists them), with its source as it is now; may be repeated
    #[arg(long = "cell", value_name = "ID")]
    cells: Vec<String>,
    /// All code cells, until one fails
    #[arg(long)]
    all: bool,
}

impl What {
    fn work(self) -> Result<SubmitRuns, Failure> {
        Ok(match self.code {
            Some(code) if code == "-" => SubmitRuns::Code { code: typed()? },
            Some(code) => SubmitRuns::Code { code },
            None if self.all => SubmitRuns::All { required: None },
            None => SubmitRuns::CellIds { cells: self.cells, required: None, expected: BTreeMap::new() },
        })
    }
}

fn typed() -> Result<String, Failure> {
    let mut code = String::new();
    let read = std::io::stdin().take(CODE_BYTES_MAX + 1).read_to_string(&mut code);
    let what = match read {
        Ok(_) if code.len() as u64 <= CODE_BYTES_MAX => return Ok(code),
        Ok(_) => format!("the code on standard input is longer than {}", terminal::bytes(CODE_BYTES_MAX)),
        Err(error) => format!("the code on standard input cannot be read: {error}"),
    };
    Err(Failure::new(Exit::Usage, what))
}

impl Args {
    /// Does it.
    pub async fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        let work = self.what.work()?;
        let client = quietly(daemon).await?;
        let session = select::session(&client, Some(&self.session)).await?;
        let interactive = terminal::is_interactive() && !self.json;
        let target = Target::Session { id: session.id, interactive };
        // Before the runs are queued: a kernel that is up is told with each of them whether somebody can be asked, and
        // nothing of them is missed.
        let after = session.position.to_string();
        let attached = Attached::open(daemon, client, target, true, Some(after)).await?;
        let submitted = attached.client().submit(session.id, &work).await;
        let runs = submitted.map_err(doing_to(&session, "run"))?;
        if runs.is_empty() {
            terminal::talk(format!("{} has no code to run", terminal::one_line(&session.title)));
            return Ok(Exit::Ok);
        }
        let follow = Follow {
            attached,
            subject: Subject::Session(session.id),
            screen: if self.json { Box::new(Json) as Box<dyn Screen> } else { Box::new(Raw::explained()) },
            interactive,
            until: Until::Runs(runs.iter().map(|run| run.id).collect()),
            since: None,
        };
        match follow.run().await? {
            (_, Left::Detached(exit)) => Ok(exit),
            (watch, Left::Seen) => Ok(end(&watch, self.json)),
        }
    }
}

/// Says what the output does not: which runs did not begin, or were given up. The exit code is that of the first
/// failure; runs that were skipped because of somebody else's are no success either.
fn end(watch: &Watch, json: bool) -> Exit {
    let mut skipped = 0;
    for run in watch.runs.values() {
        match &run.state {
            RunState::Ended { outcome: RunOutcome::Cancelled { why: CancelWhy::EarlierFailure } } => {
                skipped += 1
            }
            RunState::Ended {
                outcome:
                    outcome @ (RunOutcome::Cancelled { .. }
                    | RunOutcome::TimedOut { .. }
                    | RunOutcome::Unserved { .. }
                    | RunOutcome::Failed { .. }),
            } if !json => {
                terminal::talk(format!("{} {}", notebook::name(run), notebook::in_words(run, outcome).1));
            }
            RunState::Ended { .. } | RunState::Queued | RunState::Running | RunState::Unknown => {}
        }
    }
    if skipped > 0 && !json {
        terminal::talk(format!("{skipped} not run: something before failed"));
    }
    match verdict::of_notebook(watch) {
        Exit::Ok if skipped > 0 => Exit::Failed,
        exit => exit,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use outlive_core::id::RunId;
    use outlive_protocol::http::StreamEvent;
    use serde_json::json;

    use super::*;

    fn id(number: u128) -> RunId {
        RunId::from_uuid(uuid::Uuid::from_u128(number))
    }

    fn ended(number: u128, outcome: &RunOutcome) -> StreamEvent {
        let run = json!({
            "id": id(number), "session": uuid::Uuid::nil(), "index": 0, "cell": 0, "source": "",
            "state": {"state": "ended", "outcome": outcome}, "attempt": 1, "head": 0, "execution_count": 1,
            "queued_at": 0, "started_at": 0, "ended_at": 1,
        });
        StreamEvent::Run { run: Box::new(serde_json::from_value(run).expect("a run")) }
    }

    /// What is left of a shared session's events for somebody who asked for some runs, and whether they are at their end.
    fn followed(asked: &[u128], events: Vec<StreamEvent>) -> (Watch, bool) {
        let until = Until::Runs(asked.iter().copied().map(id).collect::<BTreeSet<_>>());
        let mut watch = Watch::default();
        events.into_iter().filter(|event| until.concerns(event)).for_each(|event| drop(watch.admit(event)));
        let is_reached = until.is_reached(&watch);
        (watch, is_reached)
    }

    const SKIPPED: RunOutcome = RunOutcome::Cancelled { why: CancelWhy::EarlierFailure };

    #[test]
    fn runs_of_others_neither_end_it_nor_count() {
        let raised = RunOutcome::Raised { ename: "E".to_owned(), evalue: String::new() };
        let (watch, is_reached) =
            followed(&[1, 2], vec![ended(7, &raised), ended(1, &RunOutcome::Succeeded)]);
        assert!(!is_reached, "one of two");
        assert_eq!(end(&watch, true), Exit::Ok, "the failure is somebody else's");
        let both = vec![ended(1, &RunOutcome::Succeeded), ended(2, &raised)];
        let (watch, is_reached) = followed(&[1, 2], both);
        assert!(is_reached);
        assert_eq!(end(&watch, true), Exit::Failed);
    }

    #[test]
    fn what_was_skipped_because_of_others_is_no_success() {
        let (watch, is_reached) = followed(&[1], vec![ended(1, &SKIPPED)]);
        assert!(is_reached);
        assert_eq!(end(&watch, true), Exit::Failed);
        let stopped = RunOutcome::Cancelled { why: CancelWhy::Stopped };
        assert_eq!(end(&followed(&[1], vec![ended(1, &stopped)]).0, true), Exit::Stopped);
    }
}
