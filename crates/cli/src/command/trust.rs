//! `outlive trust`: you vouch for a notebook.

use outlive_core::session::spec::Trust;

use super::attach::quietly;
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::{Failure, doing};
use crate::{select, terminal};

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Session: id or its beginning, title or file name
    #[arg(value_name = "SESSION", add = crate::complete::sessions())]
    session: String,
    /// Take it back
    #[arg(long)]
    revoke: bool,
}

impl Args {
    /// Does it.
    pub async fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        let client = quietly(daemon).await?;
        let session = select::session(&client, Some(&self.session)).await?;
        let trust = if self.revoke { Trust::Untrusted } else { Trust::Trusted };
        let session =
            client.trust(session.id, trust).await.map_err(|error| doing("change the trust", error))?;
        let word = if self.revoke { "not trusted any more" } else { "trusted" };
        terminal::talk(format!("{} is {word}", terminal::one_line(&session.title)));
        Ok(Exit::Ok)
    }
}
