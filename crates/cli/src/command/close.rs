//! `outlive close`: all is saved, the kernel is stopped, the file is free.

use outlive_protocol::http::{Close, SessionView};

use super::attach::quietly;
use super::stop::until_ended;
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::{Failure, doing_to};
use crate::{select, terminal};

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Sessions: id or its beginning, title or file name
    #[arg(value_name = "SESSION", add = crate::complete::sessions(), required = true)]
    sessions: Vec<String>,
    /// Close although there are edits that no file has
    #[arg(long)]
    discard: bool,
}

impl Args {
    /// Does it.
    pub async fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        let client = quietly(daemon).await?;
        for name in &self.sessions {
            let session = select::session(&client, Some(name)).await?;
            let (id, title) = (select::short(session.id), terminal::one_line(&session.title));
            if session.closed_at.is_some() {
                terminal::talk(format!("{id} ({title}) has ended already"));
                continue;
            }
            let how = Close { discard: self.discard };
            let closed = client.close(session.id, how).await.map_err(doing_to(&session, "close"))?;
            until_ended(daemon, &client, &closed).await?;
            terminal::talk(format!("closed {id} ({title}){}", cut_short(&session)));
        }
        Ok(Exit::Ok)
    }
}

/// What goes with a kernel: the work that it had, if it had any.
pub fn cut_short(session: &SessionView) -> String {
    let runs = session.runs;
    match (runs.running, runs.queued) {
        (0, 0) => String::new(),
        (running, 0) => format!("; {running} that ran was stopped"),
        (0, queued) => format!("; {queued} that waited will not run"),
        (running, queued) => format!("; {running} that ran was stopped, {queued} that waited will not run"),
    }
}
