//! `outlive interrupt`: as Ctrl-C at the program's own terminal.

use super::attach::quietly;
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::{Failure, doing_to};
use crate::{select, terminal};

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Session: id or its beginning, title or file name [default: the latest]
    #[arg(value_name = "SESSION", add = crate::complete::sessions())]
    session: Option<String>,
}

impl Args {
    /// Does it.
    pub async fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        let client = quietly(daemon).await?;
        let session = select::session(&client, self.session.as_deref()).await?;
        let session = client.interrupt(session.id).await.map_err(doing_to(&session, "interrupt"))?;
        terminal::talk(format!("interrupted {}", select::short(session.id)));
        Ok(Exit::Ok)
    }
}
