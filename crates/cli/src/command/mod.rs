//! The commands, one file each.

pub mod attach;
pub mod cells;
pub mod close;
pub mod completions;
pub mod config;
pub mod daemon;
pub mod doctor;
pub mod down;
pub mod drain;
pub mod exec;
pub mod explain;
pub mod forget;
pub mod interrupt;
pub mod logs;
pub mod mcp;
pub mod migrate;
pub mod new;
pub mod nodes;
pub mod open;
pub mod ps;
mod rerun;
pub mod rest;
pub mod restart;
pub mod run;
pub mod runner;
pub mod runners;
pub mod save;
pub mod serve;
pub mod shim;
pub mod stop;
pub mod task;
pub mod trust;
pub mod up;
pub mod watch;

use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::Failure;

/// The command line.
#[derive(Parser, Debug)]
#[command(
    name = "outlive",
    version,
    about = "Runs notebooks, commands and runners that outlive their terminal",
    after_help = crate::exit::HELP,
    max_term_width = 100,
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Directory of the daemon's state [OUTLIVE_STATE_DIR]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Everywhere")]
    pub state_dir: Option<String>,
    /// Daemons over TCP, with commas between them, instead of this machine's [OUTLIVE_URL]
    #[arg(long, global = true, value_name = "http://HOST:PORT", help_heading = "Everywhere")]
    pub url: Option<String>,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a notebook or a command, and show its output
    Run(Box<run::Args>),
    /// Show a session from its first line and follow it
    Attach(attach::Args),
    /// Print the output of a session
    Logs(logs::Args),
    /// Say what went wrong, why, and what to do
    Explain(explain::Args),
    /// Make an untitled notebook
    New(new::Args),
    /// Open a notebook, or join its session
    Open(open::Args),
    /// Run code or cells in an open session, and show their output
    Exec(exec::Args),
    /// List the cells of a session's notebook with their ids
    Cells(cells::Args),
    /// Save a session's notebook
    Save(save::Args),
    /// Move a session's notebook to another file
    SaveAs(save::AsArgs),
    /// Save a session's notebook, stop its kernel and end it
    Close(close::Args),
    /// Stop a session's kernel and keep the session
    Rest(rest::Args),
    /// Vouch for a session's notebook
    Trust(trust::Args),
    /// Show a session's notebook live
    Watch(watch::Args),
    /// List sessions
    #[command(visible_alias = "sessions")]
    Ps(ps::Args),
    /// Bring the groups of runners up that a file describes
    Up(up::Args),
    /// Take groups of runners down
    Down(down::Args),
    /// List runners
    Runners(runners::Args),
    /// Start, stop or restart runners of a group
    Runner(runner::Args),
    /// Give a group of runners work
    Task(task::Args),
    /// Interrupt what runs in a session
    Interrupt(interrupt::Args),
    /// Restart a session's kernel or command
    Restart(restart::Args),
    /// Stop a session
    Stop(stop::Args),
    /// Forget ended sessions and their output
    Forget(forget::Args),
    /// List the nodes of the cluster, and what was taken over lately
    Nodes(nodes::Args),
    /// Make a node give its work to the others
    Drain(drain::Args),
    /// Move the sessions of a daemon that was alone into a cluster
    Migrate(migrate::Args),
    /// Offer notebooks to an agent, over standard input and output (MCP)
    Mcp(mcp::Args),
    /// Run the daemon in the foreground
    Serve(Box<serve::Args>),
    /// Stop the daemon, or say how it is
    Daemon(daemon::Args),
    /// Look at what Outlive needs, and say what is missing
    Doctor(doctor::Args),
    /// Show settings and where they are from
    Config(config::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
}

impl Command {
    /// Does it. `serve` brings its own runtime; every other command waits on one thread.
    pub fn run(self, config: Config) -> Result<Exit, Failure> {
        match self {
            Self::Serve(args) => args.run(config),
            Self::Config(args) => args.run(&config),
            Self::Completions(args) => args.run(),
            command => tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| Failure::new(Exit::Failed, format!("the event loop cannot start: {error}")))?
                .block_on(command.run_async(&Daemon::new(config.clone()), &config)),
        }
    }

    async fn run_async(self, daemon: &Daemon, config: &Config) -> Result<Exit, Failure> {
        match self {
            Self::Run(args) => args.run(daemon, config).await,
            Self::Attach(args) => args.run(daemon).await,
            Self::Logs(args) => args.run(daemon).await,
            Self::Explain(args) => args.run(daemon).await,
            Self::New(args) => args.run(daemon).await,
            Self::Open(args) => args.run(daemon).await,
            Self::Exec(args) => args.run(daemon).await,
            Self::Cells(args) => args.run(daemon).await,
            Self::Save(args) => args.run(daemon).await,
            Self::SaveAs(args) => args.run(daemon).await,
            Self::Close(args) => args.run(daemon).await,
            Self::Rest(args) => args.run(daemon).await,
            Self::Trust(args) => args.run(daemon).await,
            Self::Watch(args) => args.run(daemon).await,
            Self::Ps(args) => args.run(daemon).await,
            Self::Up(args) => args.run(daemon).await,
            Self::Down(args) => args.run(daemon).await,
            Self::Runners(args) => args.run(daemon).await,
            Self::Runner(args) => args.run(daemon).await,
            Self::Task(args) => args.run(daemon).await,
            Self::Interrupt(args) => args.run(daemon).await,
            Self::Restart(args) => args.run(daemon).await,
            Self::Stop(args) => args.run(daemon).await,
            Self::Forget(args) => args.run(daemon).await,
            Self::Nodes(args) => args.run(daemon).await,
            Self::Drain(args) => args.run(daemon).await,
            Self::Migrate(args) => args.run(config).await,
            Self::Mcp(args) => args.run(config).await,
            Self::Daemon(args) => args.run(daemon).await,
            Self::Doctor(args) => args.run(daemon, config).await,
            Self::Serve(_) | Self::Config(_) | Self::Completions(_) => {
                unreachable!("answered without a runtime")
            }
        }
    }
}
