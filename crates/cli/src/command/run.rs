//! `outlive run`: a notebook or a command that goes on when this client leaves.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use outlive_core::id::SessionId;
use outlive_core::limits;
use outlive_core::runtime::{RestartPolicy, RestartType};
use outlive_core::session::spec::{HangPolicy, Workload};
use outlive_protocol::http::{CreateSession, SessionView};
use serde_json::Value;

use super::attach::{self, How};
use super::rerun::Rerun;
use crate::client::{Client, Twice};
use crate::config::Config;
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::follow::Until;
use crate::launch::{self, Wishes};
use crate::{select, terminal, values};

/// Arguments.
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
#[derive(clap::Args, Debug)]
#[command(override_usage = "outlive run [OPTIONS] FILE.ipynb\n       outlive run [OPTIONS] -- COMMAND…")]
pub struct Args {
    /// Notebook to run; it is written in place unless --output is given
    #[arg(value_name = "FILE.ipynb", required_unless_present = "argv", conflicts_with = "argv")]
    file: Option<PathBuf>,
    /// Command to run, with its arguments
    #[arg(value_name = "COMMAND", last = true)]
    argv: Vec<String>,
    /// Write the executed notebook here and leave FILE as it is
    #[arg(short, long, value_name = "OUT.ipynb", conflicts_with = "argv", help_heading = "Notebooks")]
    output: Option<PathBuf>,
    /// Set a parameter of the notebook (its cell is tagged `parameters`); may be repeated
    #[arg(short, long = "param", value_name = "NAME=VALUE", value_parser = values::parameter,
          conflicts_with = "argv", help_heading = "Notebooks")]
    parameters: Vec<(String, Value)>,
    /// Kernel to use instead of the notebook's
    #[arg(long, value_name = "NAME", conflicts_with = "argv", help_heading = "Notebooks")]
    kernel: Option<String>,
    /// Go on after a cell that raises, and count it as no failure
    #[arg(long, conflicts_with = "argv", help_heading = "Notebooks")]
    allow_errors: bool,
    /// Longest time for each cell, or for the command, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = values::seconds, help_heading = "Limits and policies")]
    timeout: Option<Duration>,
    /// Memory limit, for instance 2G
    #[arg(long, value_name = "SIZE", value_parser = values::size, help_heading = "Limits and policies")]
    memory: Option<u64>,
    /// When the process is started again after its end
    #[arg(long, value_enum, default_value_t = Restart::Temporary, help_heading = "Limits and policies")]
    restart: Restart,
    /// What is done when it stops answering
    #[arg(long, value_enum, default_value_t = OnHang::Report, help_heading = "Limits and policies")]
    on_hang: OnHang,
    /// What is run again by itself when its node is lost or drained
    #[arg(long, value_enum, default_value_t = Rerun::None, help_heading = "Limits and policies")]
    rerun: Rerun,
    /// Keep the session and its kernel when the work is done
    #[arg(long, help_heading = "Limits and policies")]
    keep: bool,
    /// Set an environment variable; may be repeated
    #[arg(short, long = "env", value_name = "NAME=VALUE", value_parser = values::pair)]
    env: Vec<(String, String)>,
    /// Working directory [default: the notebook's, or this one for a command]
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Start it, print the session's id and leave
    #[arg(short, long)]
    detach: bool,
    /// Print one event a line, as the API sends it
    #[arg(long)]
    json: bool,
}

/// When a process that ended is started again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Restart {
    /// After every end that nobody asked for
    Permanent,
    /// After an abnormal end: not after exit code 0
    Transient,
    /// Never
    Temporary,
}

/// What is done with a process that hangs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum OnHang {
    /// Say so, and wait
    Report,
    /// Interrupt what runs
    Interrupt,
    /// Stop it and start it again
    Restart,
}

impl Args {
    /// Does it.
    pub async fn run(self, daemon: &Daemon, config: &Config) -> Result<Exit, Failure> {
        let request = self.request(config).await?;
        let client = daemon.connect_or_start(&mut |text| terminal::talk(text)).await?;
        let (client, session) = create(daemon, client, &request).await?;
        if self.detach {
            return detached(&session, self.json);
        }
        let until = if self.keep { Until::WorkDone } else { Until::End };
        let how = How { json: self.json, since: None, until };
        attach::to(daemon, client, &session, how).await
    }

    async fn request(&self, config: &Config) -> Result<CreateSession, Failure> {
        let limit_ms = self.timeout.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1));
        let wishes = Wishes { cwd: self.cwd.clone(), env: self.env.clone(), memory_bytes_max: self.memory };
        let parameters: BTreeMap<_, _> = self.parameters.iter().cloned().collect();
        let (workload, launch) = match &self.file {
            None => (Workload::Command { timeout_ms: limit_ms }, launch::command(self.argv.clone(), wishes)?),
            Some(file) if file.extension().is_none_or(|extension| extension != "ipynb") => {
                let what = format!("{} is no notebook (.ipynb)", file.display());
                return Err(Failure::new(Exit::Usage, what).hint(format!(
                    "to run a command, put it after `--`: outlive run -- {}",
                    file.display()
                )));
            }
            Some(file) => {
                let source = launch::notebook(file, self.output.as_deref(), &parameters)?;
                let launch = launch::kernel(&source, self.kernel.as_deref(), wishes, config).await?;
                let workload = Workload::Notebook {
                    source: Some(launch::utf8(&source.source)?),
                    path: Some(launch::utf8(&source.path)?),
                    allow_errors: self.allow_errors,
                    cell_timeout_ms: limit_ms,
                };
                (workload, launch)
            }
        };
        Ok(CreateSession {
            // Random, not by time: people type the beginning of it.
            id: Some(SessionId::from_uuid(uuid::Uuid::new_v4())),
            run_all: matches!(workload, Workload::Notebook { .. }),
            workload,
            launch,
            restart: self.restart.policy(),
            on_hang: self.on_hang.policy(),
            on_node_loss: self.rerun.policy(),
            keep: self.keep,
            parameters,
        })
    }
}

impl Restart {
    const fn policy(self) -> RestartPolicy {
        RestartPolicy {
            restart: match self {
                Self::Permanent => RestartType::Permanent,
                Self::Transient => RestartType::Transient,
                Self::Temporary => RestartType::Temporary,
            },
            restarts_max: limits::RESTARTS_MAX,
            period_ms: limits::RESTART_PERIOD_MS,
            backoff_ms: limits::BACKOFF_MS,
            backoff_ms_max: limits::BACKOFF_MS_MAX,
        }
    }
}

impl OnHang {
    const fn policy(self) -> HangPolicy {
        match self {
            Self::Report => HangPolicy::Report,
            Self::Interrupt => HangPolicy::Interrupt,
            Self::Restart => HangPolicy::Restart,
        }
    }
}

/// Makes the session, again with the same id when the answer was lost.
async fn create(
    daemon: &Daemon,
    mut client: Client,
    request: &CreateSession,
) -> Result<(Client, SessionView), Failure> {
    let session = daemon
        .persist(&mut client, Twice::Harmless, &mut |text| terminal::talk(text), async |client: Client| {
            client.create(request).await
        })
        .await?;
    Ok((client, session))
}

fn detached(session: &SessionView, json: bool) -> Result<Exit, Failure> {
    if json {
        terminal::line(serde_json::to_string(session).expect("a session has string keys"))?;
    } else {
        terminal::line(session.id)?;
        terminal::talk(format!("`outlive attach {}` follows it", select::short(session.id)));
    }
    Ok(Exit::Ok)
}
