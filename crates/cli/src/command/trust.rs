//! `outlive trust`: you vouch for a notebook.

use std::path::Path;

use outlive_core::session::spec::Trust;
use outlive_protocol::http::RuntimeState;

use super::attach::quietly;
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::{Failure, doing_to};
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
        let session = select::session(&client, Some(&self.session)).await.map_err(|failure| {
            let file = &self.session;
            let is_file = failure.exit == Exit::NotFound && Path::new(file).is_file();
            if is_file {
                failure.hint(format!("`outlive open --trust {file}` opens it and vouches for it"))
            } else {
                failure
            }
        })?;
        let trust = if self.revoke { Trust::Untrusted } else { Trust::Trusted };
        let session =
            client.trust(session.id, trust).await.map_err(doing_to(&session, "change the trust"))?;
        let word = if self.revoke { "not trusted any more" } else { "trusted" };
        terminal::talk(format!("{} is {word}", terminal::one_line(&session.title)));
        if let (Trust::Trusted, RuntimeState::Exited { .. } | RuntimeState::GaveUp { .. }) =
            (trust, &session.runtime.state)
        {
            let id = select::short(session.id);
            terminal::talk(format!("its kernel has ended; `outlive restart {id}` starts it again"));
        }
        Ok(Exit::Ok)
    }
}
