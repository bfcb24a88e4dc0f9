//! `outlive rest`: the kernel is stopped, the session stays. The next run starts the kernel again.

use outlive_protocol::http::{RuntimeState, Stop};

use super::attach::quietly;
use super::close::cut_short;
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
    /// Kill at once instead of asking first
    #[arg(short, long)]
    force: bool,
}

impl Args {
    /// Does it.
    pub async fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        let client = quietly(daemon).await?;
        let before = select::session(&client, Some(&self.session)).await?;
        let session = client
            .rest(before.id, Stop { force: self.force })
            .await
            .map_err(doing_to(&before, "stop the kernel"))?;
        if let Some(group) = &session.group {
            let name = terminal::one_line(&group.name);
            terminal::talk(format!(
                "the runners of {name} stop; `outlive runner start {name}` starts them again"
            ));
            return Ok(Exit::Ok);
        }
        let name = &session.runtime.name;
        terminal::talk(match session.runtime.state {
            // What has died stays dead until somebody says so: its variables are gone.
            RuntimeState::Exited { .. } | RuntimeState::GaveUp { .. } => {
                let id = select::short(session.id);
                format!("{name} has ended already; `outlive restart {id}` starts it again")
            }
            _ => format!("{name} rests; the next run starts it again{}", cut_short(&before)),
        });
        Ok(Exit::Ok)
    }
}
