//! `outlive task submit`: a task is queued, and its output shown.

use std::path::PathBuf;
use std::time::Duration;

use outlive_core::id::RunId;
use outlive_protocol::http::{RunView, SubmitTask};

use super::{Form, How, follow, input};
use crate::client::{CallError, Client, Twice};
use crate::command::attach::quietly;
use crate::command::down::unknown;
use crate::daemon::{self, Daemon};
use crate::exit::Exit;
use crate::failure::{Failure, doing};
use crate::follow::OnInterrupt;
use crate::{select, terminal, values};

/// Arguments.
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
#[derive(clap::Args, Debug)]
#[command(override_usage = "outlive task submit [OPTIONS] <NAME> <TASK> [JSON | --input FILE | KEY=VALUE…]")]
pub struct Args {
    /// The group
    #[arg(value_name = "NAME", add = crate::complete::groups(), value_parser = values::name)]
    group: String,
    /// What is to be done: the name of a handler of its runners
    #[arg(value_name = "TASK")]
    task: String,
    /// The input: JSON, or values by name
    #[arg(value_name = "JSON|KEY=VALUE", conflicts_with = "input")]
    words: Vec<String>,
    /// Read the input as JSON from a file; `-` is standard input
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Idempotency key: a task with a key that the group knows is that task, and is not queued again
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Let another runner begin it again when its own dies
    #[arg(long)]
    idempotent: bool,
    /// How long it may wait while no runner is ready; 0: fail at once [default: the group's]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    wait: Option<Duration>,
    /// How long one attempt may run, for instance 5m
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    timeout: Option<Duration>,
    /// Queue it, print its id and leave
    #[arg(short, long, conflicts_with = "cancel_on_interrupt")]
    detach: bool,
    /// Cancel the task at Ctrl-C instead of leaving it
    #[arg(long)]
    cancel_on_interrupt: bool,
    /// How it is shown.
    #[command(flatten)]
    form: Form,
}

impl Args {
    /// Does it.
    pub async fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        let input = match &self.input {
            Some(path) => input::of_file(path)?,
            None => input::of_words(&self.words)?,
        };
        if self.timeout.is_some_and(|limit| limit.is_zero()) {
            return Err(Failure::new(Exit::Usage, "a task cannot end within no time")
                .hint("leave --timeout out where there is no limit"));
        }
        let request = SubmitTask {
            // Random, not by time: people type the beginning of it.
            id: Some(RunId::from_uuid(uuid::Uuid::new_v4())),
            task: self.task,
            input,
            key: self.key,
            idempotent: self.idempotent,
            wait_ms: self.wait.map(values::millis),
            timeout_ms: self.timeout.map(|limit| values::millis(limit).max(1)),
        };
        let (client, run) = submit(daemon, &self.group, &request).await?;
        if self.detach {
            return detached(&self.group, &run, self.form.json);
        }
        let on_interrupt = if self.cancel_on_interrupt { OnInterrupt::Cancel } else { OnInterrupt::Ask };
        follow(daemon, client, self.group, &run, How { cursor: None, form: self.form, on_interrupt }).await
    }
}

async fn submit(daemon: &Daemon, group: &str, request: &SubmitTask) -> Result<(Client, RunView), Failure> {
    let mut client = quietly(daemon).await?;
    let submitted = daemon
        .persist(&mut client, Twice::Harmless, &mut daemon::silent, async |client: Client| {
            client.submit_task(group, request).await
        })
        .await;
    match submitted {
        Ok(run) => Ok((client, run)),
        Err(CallError::Refused(problem)) if problem.status == 404 => Err(unknown(group)),
        Err(error) => Err(doing("submit", error)),
    }
}

fn detached(group: &str, run: &RunView, json: bool) -> Result<Exit, Failure> {
    if json {
        terminal::line(serde_json::to_string(run).expect("a run has string keys"))?;
    } else {
        terminal::line(run.id)?;
        terminal::talk(format!("`outlive task attach {group} {}` follows it", select::short_run(run.id)));
    }
    Ok(Exit::Ok)
}
