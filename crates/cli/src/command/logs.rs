//! `outlive logs`: what a session has printed.

use outlive_core::id::SessionId;
use outlive_protocol::http::RunView;

use super::attach::quietly;
use crate::client::Client;
use crate::client::attached::{Attached, Target};
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::follow::group::Group;
use crate::follow::notebook::Notebook;
use crate::follow::screen::{Json, Raw, Screen};
use crate::follow::{Follow, Left, Subject, Until, task};
use crate::select;

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Session: id or its beginning, title or file name [default: the latest]
    #[arg(value_name = "SESSION", add = crate::complete::sessions())]
    session: Option<String>,
    /// Only the run with this number, as the progress lines count them (from 1)
    #[arg(long, value_name = "N")]
    run: Option<u32>,
    /// Go on as it happens
    #[arg(short, long)]
    follow: bool,
    /// How it is printed.
    #[command(flatten)]
    form: Form,
}

/// How it is printed.
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
#[derive(clap::Args, Debug)]
#[group(multiple = false)]
struct Form {
    /// Only the bytes of standard output and standard error
    #[arg(long)]
    raw: bool,
    /// Print one event a line, as the API sends it
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Does it.
    pub async fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        let client = quietly(daemon).await?;
        let session = select::session(&client, self.session.as_deref()).await?;
        let target = match self.run {
            None => Target::Session { id: session.id, interactive: false },
            Some(number) => Target::Run { id: session.id, run: run(&client, session.id, number).await?.id },
        };
        let screen: Box<dyn Screen> = match (self.form.json, self.form.raw) {
            (true, _) => Box::new(Json),
            (_, true) => Box::new(Raw::streams()),
            (false, false) if session.group.is_some() && self.run.is_some() => {
                Box::new(task::Screened::new(&session.title, task::Wanted::All))
            }
            (false, false) if session.group.is_some() => Box::new(Group::new()),
            (false, false) if session.kind == "command" || self.run.is_some() => Box::new(Raw::explained()),
            (false, false) => Box::new(Notebook::plain()),
        };
        let attached = Attached::open(daemon, client, target, self.follow, None).await?;
        let follow = Follow {
            attached,
            subject: Subject::Session(session.id),
            screen,
            interactive: false,
            until: Until::End,
            since: None,
        };
        match follow.run().await? {
            (_, Left::Detached(exit)) => Ok(exit),
            (_, Left::Seen) => Ok(Exit::Ok),
        }
    }
}

async fn run(client: &Client, session: SessionId, number: u32) -> Result<RunView, Failure> {
    let runs = client.runs(session).await?;
    let count = runs.len();
    runs.into_iter().find(|run| Some(run.index) == number.checked_sub(1)).ok_or_else(|| {
        let what = format!("session {} has no run {number}", select::short(session));
        Failure::new(Exit::NotFound, what).hint(format!("it has {count}, counted from 1"))
    })
}
