//! `outlive up`: the groups of a file come up, and stay up without this client.

use std::path::PathBuf;

use outlive_protocol::http::{GroupConfig, SessionView};

use super::down::take_down;
use crate::client::{CallError, Client, Twice};
use crate::config::groups;
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::{Failure, doing};
use crate::follow::Left;
use crate::follow::arrival::{self, Awaited, Goal};
use crate::{launch, terminal};

/// How often a group that somebody else brings up meanwhile is taken down and asked for again.
const UP_TRIES: u32 = 4;

/// Arguments.
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The file that describes them (docs/operations/runners.md)
    #[arg(value_name = "FILE.toml", value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// Only these of its groups
    #[arg(value_name = "GROUP")]
    groups: Vec<String>,
    /// Take a group down first that is up with another configuration
    #[arg(long)]
    replace: bool,
    /// Do not wait until the members are ready
    #[arg(long)]
    no_wait: bool,
    /// Print the groups as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Does it.
    pub async fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        let groups = groups::read(&self.file, launch::surroundings()?.variables())?;
        let groups = self.chosen(groups)?;
        let mut client = daemon.connect_or_start(&mut |text| terminal::talk(text)).await?;
        let mut awaited = Vec::new();
        for (name, config) in &groups {
            let session = self.up(daemon, &mut client, name, config).await?;
            awaited.push(Awaited { session, member: None });
        }
        let (awaited, left) = if self.no_wait {
            (awaited, Left::Seen)
        } else {
            arrival::wait(daemon, &client, awaited, Goal::Up).await?
        };
        if self.json {
            let sessions: Vec<&SessionView> = awaited.iter().map(|group| &group.session).collect();
            terminal::line(serde_json::to_string_pretty(&sessions).expect("sessions have string keys"))?;
        }
        match left {
            Left::Detached(exit) => {
                terminal::talk("detached; they come up all the same. `outlive runners` shows how they are");
                Ok(exit)
            }
            Left::Seen if self.no_wait => Ok(Exit::Ok),
            Left::Seen => arrival::explain(&client, &awaited).await,
        }
    }

    fn chosen(&self, groups: Vec<(String, GroupConfig)>) -> Result<Vec<(String, GroupConfig)>, Failure> {
        if self.groups.is_empty() {
            return Ok(groups);
        }
        let missing = self.groups.iter().find(|name| !groups.iter().any(|(known, _)| known == *name));
        if let Some(missing) = missing {
            let known: Vec<_> = groups.iter().map(|(name, _)| name.as_str()).collect();
            let what = format!("{} has no group {missing:?}", self.file.display());
            return Err(Failure::new(Exit::Usage, what).hint(format!("it has {}", known.join(", "))));
        }
        Ok(groups.into_iter().filter(|(name, _)| self.groups.contains(name)).collect())
    }

    async fn up(
        &self,
        daemon: &Daemon,
        client: &mut Client,
        name: &str,
        config: &GroupConfig,
    ) -> Result<SessionView, Failure> {
        let mut tries = 0;
        loop {
            let talk = &mut |text: &str| terminal::talk(text);
            let asked = daemon
                .persist(client, Twice::Harmless, talk, async |client: Client| client.up(name, config).await)
                .await;
            match asked {
                Ok((session, is_new)) => {
                    let state = if is_new { "comes up" } else { "is up already" };
                    let count = config.members.len();
                    let runners = if count == 1 { "runner" } else { "runners" };
                    terminal::talk(format!("{name} {state} ({count} {runners})"));
                    return Ok(session);
                }
                Err(CallError::Refused(problem)) if problem.code == "group-is-up" && self.replace => {
                    take_down(daemon, client, name, false).await?;
                }
                Err(CallError::Refused(problem)) if problem.code == "group-is-up" => {
                    let hint = "`--replace` takes it down first, which ends its tasks";
                    return Err(Failure::from(*problem).hint(hint));
                }
                Err(error) => return Err(doing(&format!("bring {name} up"), error)),
            }
            tries += 1;
            if tries > UP_TRIES {
                let what = format!("{name} is taken by another configuration again and again");
                return Err(Failure::new(Exit::Conflict, what).hint("somebody else brings it up"));
            }
        }
    }
}
