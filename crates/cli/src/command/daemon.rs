//! `outlive daemon`: the daemon itself.

use clap::Subcommand;
use outlive_process::Process;
use outlive_protocol::http::StopNode;
use rustix::process::Signal;

use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::{clock, terminal};

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// What to do with it.
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Start the daemon in the background, unless it runs already
    Start {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Stop the daemon, with everything that it runs
    Stop {
        /// Leave kernels and commands running; the next daemon takes them over
        #[arg(long)]
        keep_runtimes: bool,
    },
    /// Say whether a daemon runs, and which
    Status {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
}

impl Args {
    /// Does it.
    pub async fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        match self.action {
            Action::Start { json } => {
                daemon.connect_or_start(&mut |text| terminal::talk(text)).await?;
                status(daemon, json).await
            }
            Action::Stop { keep_runtimes } => stop(daemon, keep_runtimes).await,
            Action::Status { json } => status(daemon, json).await,
        }
    }
}

async fn stop(daemon: &Daemon, keep_runtimes: bool) -> Result<Exit, Failure> {
    let Some((client, node)) = daemon.running().await? else {
        return match daemon.unreachable() {
            None => {
                terminal::talk("no daemon runs");
                Ok(Exit::Ok)
            }
            Some(process) if keep_runtimes => {
                process.signal(Signal::TERM).map_err(|error| {
                    Failure::new(Exit::Failed, format!("the daemon cannot be told to end: {error}"))
                })?;
                ended(&process, keep_runtimes).await
            }
            Some(process) => Err(daemon.cannot_reach(&process)),
        };
    };
    // Held before it is told to end, so that its end cannot be missed nor mistaken.
    let process = i32::try_from(node.pid).ok().and_then(|pid| Process::open(pid).ok());
    client.stop_node(StopNode { keep_runtimes }).await?;
    match process {
        Some(process) => ended(&process, keep_runtimes).await,
        // It had gone before it could be held.
        None => Ok(said(node.pid, keep_runtimes)),
    }
}

async fn ended(process: &Process, keep_runtimes: bool) -> Result<Exit, Failure> {
    process
        .exited()
        .await
        .map_err(|error| Failure::new(Exit::Failed, format!("waiting for the daemon's end: {error}")))?;
    Ok(said(process.pid(), keep_runtimes))
}

fn said(pid: impl std::fmt::Display, keep_runtimes: bool) -> Exit {
    let what = if keep_runtimes { "; what it ran goes on" } else { "" };
    terminal::talk(format!("stopped the daemon (pid {pid}){what}"));
    Exit::Ok
}

async fn status(daemon: &Daemon, json: bool) -> Result<Exit, Failure> {
    let Some((client, node)) = daemon.running().await? else {
        if let Some(process) = daemon.unreachable() {
            return Err(daemon.cannot_reach(&process));
        }
        terminal::talk("no daemon runs");
        return Ok(Exit::Daemon);
    };
    if json {
        terminal::line(serde_json::to_string_pretty(&node).expect("a node has string keys"))?;
        return Ok(Exit::Ok);
    }
    let age = terminal::span(clock::now().0.saturating_sub(node.started_at.0));
    let ready = if node.ready { "ready" } else { "recovering" };
    terminal::line(format!("outlive {}, pid {}, {ready}, up {age}", node.version, node.pid))?;
    terminal::line(format!("state   {}", node.state_directory))?;
    terminal::line(format!("socket  {}", client.way()))?;
    Ok(Exit::Ok)
}
