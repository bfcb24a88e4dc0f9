//! `outlive forget`: ended sessions, with their logs. A notebook's file stays.

use super::attach::quietly;
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::{Failure, doing};
use crate::{select, terminal};

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Sessions: id or its beginning, title or file name
    #[arg(value_name = "SESSION", add = crate::complete::sessions(), required_unless_present = "ended")]
    sessions: Vec<String>,
    /// All that have ended
    #[arg(long, conflicts_with = "sessions")]
    ended: bool,
}

impl Args {
    /// Does it.
    pub async fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        let client = quietly(daemon).await?;
        let mut chosen = Vec::new();
        for name in &self.sessions {
            chosen.push(select::only(&client, name).await?);
        }
        if self.ended {
            chosen = client.sessions(true).await?;
            chosen.retain(|session| session.closed_at.is_some());
        }
        for session in &chosen {
            client.forget(session.id).await.map_err(|error| doing("forget", error))?;
        }
        let count = chosen.len();
        terminal::talk(format!("forgot {count} session{}", if count == 1 { "" } else { "s" }));
        Ok(Exit::Ok)
    }
}
