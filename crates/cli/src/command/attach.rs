//! `outlive attach`: a session from its first line, and on with it as it happens.

use std::time::Duration;

use outlive_core::time::WallTime;
use outlive_protocol::http::{SessionState, SessionView};

use crate::client::Client;
use crate::client::attached::{Attached, Target};
use crate::daemon::{self, Daemon};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::follow::group::Group;
use crate::follow::notebook::Notebook;
use crate::follow::screen::{Json, Raw, Screen};
use crate::follow::{Follow, Left, Subject, Until, verdict};
use crate::{clock, select, terminal, values};

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Session: id or its beginning, title or file name [default: the latest]
    #[arg(value_name = "SESSION", add = crate::complete::sessions())]
    session: Option<String>,
    /// Only what came since then, for instance 30s, 10m, 2h, 1d
    #[arg(long, value_name = "AGO", value_parser = values::ago)]
    since: Option<Duration>,
    /// Print one event a line, as the API sends it
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Does it.
    pub async fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        // Sessions live on without a daemon: one that is started now knows them.
        let client = daemon.connect_or_start(&mut |text| terminal::talk(text)).await?;
        let session = select::session(&client, self.session.as_deref()).await?;
        if !self.json {
            remark(&session);
        }
        let how = How { json: self.json, since: before(self.since), until: Until::End };
        to(daemon, client, &session, how).await
    }
}

/// Why nothing may be seen for a while, or at all.
fn remark(session: &SessionView) {
    let title = terminal::one_line(&session.title);
    let runs = session.runs;
    let is_unused = runs.queued + runs.running + runs.succeeded + runs.failed + runs.cancelled == 0;
    if session.state == SessionState::Idle {
        terminal::talk(format!("{title} is open and idle: what is run in it is shown here; Ctrl-C leaves"));
    } else if session.closed_at.is_some() && is_unused {
        terminal::talk(format!("{title} has ended, and nothing was run in it"));
    }
}

/// How to attach.
pub struct How {
    /// One event a line.
    pub json: bool,
    /// Only what came since.
    pub since: Option<WallTime>,
    /// When to leave by itself.
    pub until: Until,
}

/// A point in time so long ago.
pub fn before(ago: Option<Duration>) -> Option<WallTime> {
    let micros = u64::try_from(ago?.as_micros()).unwrap_or(u64::MAX);
    Some(WallTime(clock::now().0.saturating_sub(micros)))
}

/// Attaches to a session; the exit code is that of its work.
pub async fn to(daemon: &Daemon, client: Client, session: &SessionView, how: How) -> Result<Exit, Failure> {
    let is_command = session.kind == "command";
    let is_group = session.group.is_some();
    let screen: Box<dyn Screen> = match (how.json, is_command) {
        (true, _) => Box::new(Json),
        (false, false) if is_group => Box::new(Group::new()),
        (false, true) => Box::new(Raw::explained()),
        (false, false) if session.closed_at.is_some() => Box::new(Notebook::plain()),
        (false, false) => Box::new(Notebook::live()),
    };
    // A group asks nothing, and Ctrl-C is no wish to end it for everybody.
    let interactive = terminal::is_interactive() && !how.json && !is_group;
    let target = Target::Session { id: session.id, interactive };
    let attached = Attached::open(daemon, client, target, true, None).await?;
    let follow = Follow {
        attached,
        subject: Subject::Session(session.id),
        screen,
        interactive,
        until: how.until,
        since: how.since,
    };
    match follow.run().await? {
        (_, Left::Detached(exit)) => Ok(exit),
        (watch, Left::Seen) if is_group => Ok(verdict::of_group(&watch)),
        (watch, Left::Seen) if is_command => Ok(verdict::of_command(&watch)),
        (watch, Left::Seen) => Ok(verdict::of_notebook(&watch)),
    }
}

/// For commands that look at sessions: a daemon is started when none runs, without a word.
pub async fn quietly(daemon: &Daemon) -> Result<Client, Failure> {
    daemon.connect_or_start(&mut daemon::silent).await
}
