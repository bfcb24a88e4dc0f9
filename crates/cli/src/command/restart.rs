//! `outlive restart`: a new process in the same session. A kernel's memory is gone with the old one.

use outlive_protocol::http::Restart;

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
    /// Run all cells of the notebook afterwards
    #[arg(long)]
    run_all: bool,
}

impl Args {
    /// Does it.
    pub async fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        let client = quietly(daemon).await?;
        let session = select::session(&client, self.session.as_deref()).await?;
        let session = client
            .restart(session.id, Restart { run_all: self.run_all })
            .await
            .map_err(doing_to(&session, "restart"))?;
        let id = select::short(session.id);
        terminal::talk(match &session.group {
            Some(group) => {
                let name = terminal::one_line(&group.name);
                format!("restarting the runners of {name}; `outlive runners {name}` shows how they are")
            }
            None => format!("restarting {}; `outlive attach {id}` follows it", session.runtime.name),
        });
        Ok(Exit::Ok)
    }
}
