//! What the shell asks when somebody presses Tab: the command line knows its words, the daemon its sessions, groups and
//! tasks. A daemon that does not run, or does not answer at once, knows none.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::CommandFactory;
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use outlive_protocol::http::{RunState, SessionView};

use crate::client::{CallError, Client};
use crate::command::Cli;
use crate::daemon::Daemon;
use crate::select::short;
use crate::terminal;

/// The variable by which a shell's script asks.
pub const VARIABLE: &str = "OUTLIVE_COMPLETE";
/// Longest wait for the daemon: somebody waits for their shell.
const PATIENCE: Duration = Duration::from_millis(500);
/// How many tasks of a group are offered, the newest.
const TASKS_MAX: usize = 20;

/// Answers a shell that asks, and ends the process; does nothing else otherwise.
pub fn answer() {
    CompleteEnv::with_factory(Cli::command).var(VARIABLE).complete();
}

/// Sessions by title, or by id where that says nothing.
pub fn sessions() -> ArgValueCandidates {
    ArgValueCandidates::new(all_sessions)
}

/// Groups by name.
pub fn groups() -> ArgValueCandidates {
    ArgValueCandidates::new(all_groups)
}

/// Groups by name, and the files here that may describe some.
pub fn groups_and_files() -> ArgValueCandidates {
    ArgValueCandidates::new(all_groups_and_files)
}

/// Groups, and their members as `GROUP/MEMBER`.
pub fn runners() -> ArgValueCandidates {
    ArgValueCandidates::new(all_runners)
}

/// The newest tasks of all groups, by id.
pub fn tasks() -> ArgValueCandidates {
    ArgValueCandidates::new(all_tasks)
}

fn all_sessions() -> Vec<CompletionCandidate> {
    ask(async |client| client.sessions(true).await).iter().map(session).collect()
}

fn all_groups() -> Vec<CompletionCandidate> {
    ask(async |client| client.groups().await).iter().map(session).collect()
}

fn all_groups_and_files() -> Vec<CompletionCandidate> {
    let entries = std::fs::read_dir(".").into_iter().flatten().filter_map(Result::ok);
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let files = names.filter(|name| name.ends_with(".toml")).map(CompletionCandidate::new);
    all_groups().into_iter().chain(files).collect()
}

fn all_runners() -> Vec<CompletionCandidate> {
    let groups = ask(async |client| client.groups().await);
    let members = groups
        .iter()
        .filter_map(|session| session.group.as_ref())
        .flat_map(|group| group.members.iter().map(move |member| format!("{}/{}", group.name, member.name)));
    groups.iter().map(session).chain(members.map(CompletionCandidate::new)).collect()
}

fn all_tasks() -> Vec<CompletionCandidate> {
    let tasks = ask(async |client| {
        let mut tasks = Vec::new();
        for group in client.groups().await?.iter().filter_map(|session| session.group.as_ref()) {
            let runs = client.tasks(&group.name).await?;
            tasks.extend(runs.into_iter().rev().take(TASKS_MAX).map(|run| (group.name.clone(), run)));
        }
        Ok(tasks)
    });
    let candidate = |(group, run): &(String, outlive_protocol::http::RunView)| {
        let state = match &run.state {
            RunState::Queued => "queued",
            RunState::Running => "running",
            RunState::Ended { .. } => "ended",
            RunState::Unknown => "unknown",
        };
        let task = run.task.as_ref().map_or("", |task| &task.task);
        let help = terminal::one_line(&format!("{group} {task} {state}"));
        CompletionCandidate::new(run.id.to_string()).help(Some(help.into()))
    };
    tasks.iter().map(candidate).collect()
}

fn session(session: &SessionView) -> CompletionCandidate {
    let state = crate::follow::state::session(session.state);
    let word = match session.title.as_str() {
        title if !title.contains(char::is_whitespace) && !session.untitled => terminal::one_line(title),
        _ => short(session.id),
    };
    CompletionCandidate::new(word).help(Some(format!("{} {state}", session.kind).into()))
}

/// Asks the daemon that runs, if one does.
fn ask<T: Default>(question: impl AsyncFnOnce(Client) -> Result<T, CallError>) -> T {
    let Ok(config) = crate::load(BTreeMap::new()) else { return T::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return T::default() };
    let Ok(mut clients) = Daemon::new(config).clients() else { return T::default() };
    let client = clients.swap_remove(0);
    let answer = async { tokio::time::timeout(PATIENCE, question(client)).await };
    runtime.block_on(answer).ok().and_then(Result::ok).unwrap_or_default()
}
