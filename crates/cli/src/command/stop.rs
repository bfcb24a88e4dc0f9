//! `outlive stop`: the runtime is asked to end, then made to; the session is closed.

use outlive_protocol::http::{SessionView, StreamEvent};

use super::attach::quietly;
use crate::client::Client;
use crate::client::attached::{Attached, Next, Target};
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::{Failure, doing_to};
use crate::{select, terminal};

/// Arguments.
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Sessions: id or its beginning, title or file name [default: the latest]
    #[arg(value_name = "SESSION", add = crate::complete::sessions())]
    sessions: Vec<String>,
    /// Kill at once instead of asking first; a notebook that is in no file goes too
    #[arg(short, long)]
    force: bool,
    /// Do not wait for the end
    #[arg(long)]
    no_wait: bool,
}

impl Args {
    /// Does it.
    pub async fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        let client = quietly(daemon).await?;
        let names: Vec<Option<&str>> = if self.sessions.is_empty() {
            vec![None]
        } else {
            self.sessions.iter().map(|name| Some(name.as_str())).collect()
        };
        for name in names {
            let session = select::session(&client, name).await?;
            let (id, title) = (select::short(session.id), terminal::one_line(&session.title));
            if session.closed_at.is_some() {
                terminal::talk(format!("{id} ({title}) has ended already"));
                continue;
            }
            let session = client.end(&session, self.force).await.map_err(doing_to(&session, "stop"))?;
            if self.no_wait {
                terminal::talk(format!("stopping {id} ({title})"));
                continue;
            }
            until_ended(daemon, &client, &session).await?;
            terminal::talk(format!("stopped {id} ({title})"));
        }
        Ok(Exit::Ok)
    }
}

/// Waits for the end of a session that was asked to end.
pub async fn until_ended(daemon: &Daemon, client: &Client, session: &SessionView) -> Result<(), Failure> {
    if session.closed_at.is_some() {
        return Ok(());
    }
    let target = Target::Session { id: session.id, interactive: false };
    let after = session.position.to_string();
    let mut attached = Attached::open(daemon, client.clone(), target, true, Some(after)).await?;
    loop {
        match attached.next().await? {
            Next::End => return Ok(()),
            Next::Event(StreamEvent::Session { session }) if session.closed_at.is_some() => return Ok(()),
            Next::Event(_) => {}
            Next::Notice(text) => terminal::talk(text),
        }
    }
}
