//! `outlive down`: groups end with all their runners, and tasks that run or wait end with them.

use std::path::Path;

use outlive_protocol::http::SessionView;

use super::attach::quietly;
use super::stop::until_ended;
use crate::client::{CallError, Client};
use crate::config::groups;
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::{Failure, doing};
use crate::{terminal, values};

/// Arguments.
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Groups by name, or files that describe them
    #[arg(value_name = "FILE.toml|NAME", required = true, add = crate::complete::groups_and_files())]
    groups: Vec<String>,
    /// Kill at once instead of asking first
    #[arg(short, long)]
    force: bool,
    /// Do not wait for the end
    #[arg(long)]
    no_wait: bool,
}

impl Args {
    /// Does it.
    pub async fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        let mut names = Vec::new();
        for word in &self.groups {
            if word.ends_with(".toml") || word.contains('/') {
                names.extend(groups::names(Path::new(word))?.into_iter().map(|name| (name, true)));
            } else {
                let name = values::name(word)
                    .map_err(|wrong| Failure::new(Exit::Usage, format!("{word:?} is no group: {wrong}")))?;
                names.push((name, false));
            }
        }
        let client = quietly(daemon).await?;
        for (name, is_of_file) in names {
            let was_up = if self.no_wait {
                asked(&client, &name, self.force).await?.is_some()
            } else {
                take_down(daemon, &client, &name, self.force).await?
            };
            match (was_up, is_of_file) {
                (true, _) if self.no_wait => terminal::talk(format!("{name} goes down")),
                (true, _) => terminal::talk(format!("{name} is down")),
                // Of a file any part may be up.
                (false, true) => terminal::talk(format!("{name} is not up")),
                (false, false) => return Err(unknown(&name)),
            }
        }
        Ok(Exit::Ok)
    }
}

/// There is no group of this name.
pub fn unknown(name: &str) -> Failure {
    Failure::new(Exit::NotFound, format!("no group {name:?} is up"))
        .hint("`outlive runners` lists those that are")
}

/// Asks a group to end; `None` when there is none.
async fn asked(client: &Client, name: &str, force: bool) -> Result<Option<SessionView>, Failure> {
    match client.down(name, force).await {
        Ok(session) => Ok(Some(session)),
        Err(CallError::Refused(problem)) if problem.status == 404 => Ok(None),
        Err(error) => Err(doing(&format!("take {name} down"), error)),
    }
}

/// Ends a group and waits for its end; whether there was one.
pub async fn take_down(daemon: &Daemon, client: &Client, name: &str, force: bool) -> Result<bool, Failure> {
    let Some(session) = asked(client, name, force).await? else { return Ok(false) };
    until_ended(daemon, client, &session).await?;
    Ok(true)
}
