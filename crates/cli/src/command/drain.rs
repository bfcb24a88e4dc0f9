//! `outlive drain`: a node gives everything away that it owns, for an upgrade or for good.

use std::time::Duration;

use outlive_protocol::http::{ClusterNode, Drain, Drained};

use super::attach::quietly;
use crate::client::{CallError, Client};
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::{Failure, doing};
use crate::{select, terminal, values};

/// Arguments.
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The node's name, as `outlive nodes` lists it [default: this machine's]
    #[arg(value_name = "NODE")]
    node: Option<String>,
    /// How long a running cell may still take before its kernel is stopped, for instance 30s
    #[arg(long, value_name = "TIME", value_parser = values::duration, default_value = "0")]
    cell_grace: Duration,
    /// End its daemon afterwards
    #[arg(long)]
    stop: bool,
    /// Print what was given away as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Does it.
    pub async fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        let client = quietly(daemon).await?;
        let nodes = client.cluster().await?.nodes;
        let Some(me) = nodes.iter().find(|node| node.is_me) else {
            return Err(Failure::new(
                Exit::Failed,
                "this daemon is alone: there is nobody to give its work to",
            )
            .hint("`outlive daemon stop --keep-runtimes` ends it and leaves running what runs"));
        };
        let node = match &self.node {
            None => me,
            Some(name) => named(&nodes, name)?,
        };
        let client = if node.is_me { client } else { reached(daemon, node)? };
        if !self.json {
            terminal::talk(format!("draining {}", node.name));
        }
        let how = Drain { cell_grace_ms: values::millis(self.cell_grace), stop: self.stop };
        let drained = match client.drain(how).await {
            Ok(drained) => drained,
            Err(CallError::Lost { .. }) if self.stop => {
                let what = format!("{} ended before it had said what it gave away", node.name);
                return Err(
                    Failure::new(Exit::Daemon, what).hint("`outlive ps` shows where its sessions are")
                );
            }
            Err(error) => return Err(doing(&format!("drain {}", node.name), error)),
        };
        if self.json {
            terminal::line(serde_json::to_string_pretty(&drained).expect("string keys"))?;
        } else {
            said(&node.name, &drained);
        }
        Ok(if drained.kept.is_empty() { Exit::Ok } else { Exit::Failed })
    }
}

fn named<'a>(nodes: &'a [ClusterNode], name: &str) -> Result<&'a ClusterNode, Failure> {
    nodes.iter().find(|node| node.name == name).ok_or_else(|| {
        let names: Vec<_> = nodes.iter().map(|node| terminal::one_line(&node.name)).collect();
        Failure::new(Exit::NotFound, format!("there is no node {name:?}"))
            .hint(format!("the nodes are: {}", names.join(", ")))
    })
}

fn reached(daemon: &Daemon, node: &ClusterNode) -> Result<Client, Failure> {
    let client = node.url.as_deref().map(|url| daemon.at(url)).transpose()?;
    client.ok_or_else(|| {
        let what = format!("{} cannot be reached from another machine: it advertises no address", node.name);
        Failure::new(Exit::Daemon, what)
            .hint("run `outlive drain` there, or start it with --tcp and --advertise")
    })
}

fn said(name: &str, drained: &Drained) {
    let (released, taken) = (drained.released.len(), drained.taken.len());
    let sessions = if released == 1 { "session" } else { "sessions" };
    let waits = match released.saturating_sub(taken) {
        0 => String::new(),
        waits => format!(", {waits} of them not taken yet"),
    };
    terminal::talk(format!("{name} is drained: {released} {sessions} given away{waits}"));
    for id in drained.released.iter().filter(|id| !drained.taken.contains(id)) {
        terminal::talk(format!("  {} waits for a node", select::short(*id)));
    }
    for why in &drained.kept {
        terminal::talk(format!("  kept: {}", terminal::one_line(why)));
    }
}
