//! `outlive runner`: members of a group are started, stopped, started anew.

use clap::Subcommand;
use outlive_protocol::http::Members;

use super::attach::quietly;
use super::down::unknown;
use crate::client::CallError;
use crate::client::runners::Wish;
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::{Failure, doing};
use crate::follow::Left;
use crate::follow::arrival::{self, Awaited, Goal};
use crate::terminal;
use crate::values::{self, Runners};

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// What is wished.
    #[command(subcommand)]
    wish: Wished,
}

#[derive(Subcommand, Debug)]
enum Wished {
    /// Start runners that are down; the count of their restarts begins anew
    Start(Which),
    /// Stop runners; the group stays, and its tasks wait for those that are up
    Stop(Stop),
    /// Start runners anew; tasks that they have end, or wait again if they are idempotent
    Restart(Which),
}

#[derive(clap::Args, Debug)]
struct Which {
    /// A group, or one of its members
    #[arg(value_name = "NAME[/MEMBER]", add = crate::complete::runners(), value_parser = values::runners)]
    runners: Runners,
    /// Do not wait until it is done
    #[arg(long)]
    no_wait: bool,
}

#[derive(clap::Args, Debug)]
struct Stop {
    #[command(flatten)]
    which: Which,
    /// Kill at once instead of asking first
    #[arg(short, long)]
    force: bool,
}

impl Args {
    /// Does it.
    pub async fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        let (wish, which, force) = match self.wish {
            Wished::Start(which) => (Wish::Start, which, false),
            Wished::Stop(stop) => (Wish::Stop, stop.which, stop.force),
            Wished::Restart(which) => (Wish::Restart, which, false),
        };
        let Runners { group, member } = which.runners;
        let client = quietly(daemon).await?;
        let asked = client.members(&group, wish, &Members { member: member.clone(), force }).await;
        let session = asked.map_err(|error| match error {
            CallError::Refused(problem) if problem.status == 404 && member.is_none() => unknown(&group),
            error => doing(wish.verb(), error),
        })?;
        if which.no_wait {
            return Ok(Exit::Ok);
        }
        let goal = if wish == Wish::Stop { Goal::Down } else { Goal::Up };
        let (awaited, left) = arrival::wait(daemon, &client, vec![Awaited { session, member }], goal).await?;
        match (left, goal) {
            (Left::Detached(exit), _) => {
                terminal::talk(format!(
                    "detached; it is done all the same. `outlive runners {group}` shows how far"
                ));
                Ok(exit)
            }
            (Left::Seen, Goal::Down) => Ok(Exit::Ok),
            (Left::Seen, Goal::Up) => arrival::explain(&client, &awaited).await,
        }
    }
}

impl Wish {
    const fn verb(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
        }
    }
}
