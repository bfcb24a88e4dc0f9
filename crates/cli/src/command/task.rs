//! `outlive task`: work for a group of runners.

mod input;
mod submit;

use clap::Subcommand;
use outlive_core::id::Cursor;
use outlive_core::session::RunOutcome;
use outlive_protocol::http::{RunState, RunView};

use super::attach::quietly;
use super::down::unknown;
use crate::client::attached::{Attached, Target};
use crate::client::{CallError, Client};
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::{Failure, doing};
use crate::follow::screen::{Json, Screen};
use crate::follow::task::{Screened, Wanted};
use crate::follow::{Follow, Left, OnInterrupt, Subject, Task, Until, notebook, verdict};
use crate::table::{self, Cell, Shape};
use crate::terminal::{self, Paint};
use crate::{clock, values};

/// So many ended tasks are listed, the newest, unless all are asked for.
const ENDED_SHOWN: usize = 20;

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// What is done.
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Give a group a task, and show its output
    Submit(Box<submit::Args>),
    /// Show a task from its first piece of output and follow it
    Attach(AttachArgs),
    /// Cancel a task; one that has ended is left alone
    Cancel(CancelArgs),
    /// List the tasks of a group
    List(ListArgs),
}

#[derive(clap::Args, Debug)]
struct AttachArgs {
    /// Which.
    #[command(flatten)]
    which: Which,
    /// Only what comes after this place, as `--json` and the API name it
    #[arg(long, value_name = "ATTEMPT.SEQ", value_parser = cursor)]
    cursor: Option<Cursor>,
    /// How it is shown.
    #[command(flatten)]
    form: Form,
}

#[derive(clap::Args, Debug)]
struct CancelArgs {
    /// Which.
    #[command(flatten)]
    which: Which,
}

#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
#[derive(clap::Args, Debug)]
struct ListArgs {
    /// The group
    #[arg(value_name = "NAME", add = crate::complete::groups(), value_parser = values::name)]
    group: String,
    /// All that are remembered, not only the latest
    #[arg(short, long)]
    all: bool,
    /// Print the tasks as JSON
    #[arg(long)]
    json: bool,
}

/// A task.
#[derive(clap::Args, Debug)]
struct Which {
    /// The group
    #[arg(value_name = "NAME", add = crate::complete::groups(), value_parser = values::name)]
    group: String,
    /// The task: id or its beginning, or `latest`
    #[arg(value_name = "RUN", add = crate::complete::tasks())]
    run: String,
}

/// How a task is shown.
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
#[derive(clap::Args, Clone, Copy, Debug)]
#[group(multiple = false)]
struct Form {
    /// Only its result
    #[arg(long)]
    result: bool,
    /// Print one event a line, as the API sends it
    #[arg(long)]
    json: bool,
}

fn cursor(text: &str) -> Result<Cursor, String> {
    text.parse().map_err(|_| "expected ATTEMPT.SEQ, for instance 1.42".to_owned())
}

impl Args {
    /// Does it.
    pub async fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        match self.action {
            Action::Submit(args) => args.run(daemon).await,
            Action::Attach(args) => {
                let client = quietly(daemon).await?;
                let run = find(&client, &args.which).await?;
                let (group, form) = (args.which.group, args.form);
                let how = How { cursor: args.cursor, form, on_interrupt: OnInterrupt::Ask };
                follow(daemon, client, group, &run, how).await
            }
            Action::Cancel(args) => cancel(&quietly(daemon).await?, &args.which).await,
            Action::List(args) => args.list(&quietly(daemon).await?).await,
        }
    }
}

/// How a task is followed.
struct How {
    cursor: Option<Cursor>,
    form: Form,
    on_interrupt: OnInterrupt,
}

/// Shows a task to its end; the exit code is by its outcome.
async fn follow(
    daemon: &Daemon,
    client: Client,
    group: String,
    run: &RunView,
    how: How,
) -> Result<Exit, Failure> {
    let target = Target::Run { id: run.session, run: run.id };
    let cursor = how.cursor.map(|cursor| cursor.to_string());
    let wanted = if how.form.result { Wanted::Result } else { Wanted::All };
    let screen: Box<dyn Screen> =
        if how.form.json { Box::new(Json) } else { Box::new(Screened::new(&group, wanted)) };
    let task = Task { group, session: run.session, run: run.id, on_interrupt: how.on_interrupt };
    let follow = Follow {
        attached: Attached::open(daemon, client, target, true, cursor).await?,
        subject: Subject::Task(task),
        screen,
        interactive: terminal::is_interactive() && !how.form.json,
        until: Until::End,
        since: None,
    };
    match follow.run().await? {
        (_, Left::Detached(exit)) => Ok(exit),
        (watch, Left::Seen) => Ok(verdict::of_task(&watch, run.id)),
    }
}

async fn cancel(client: &Client, which: &Which) -> Result<Exit, Failure> {
    let run = find(client, which).await?;
    let after = client.cancel_task(&which.group, run.id).await.map_err(|error| doing("cancel", error))?;
    terminal::talk(what_became(&run, &after));
    Ok(Exit::Ok)
}

/// What a cancel has done. A task may end by itself while it is asked for.
fn what_became(before: &RunView, after: &RunView) -> String {
    let id = crate::select::short_run(before.id);
    match (&before.state, &after.state) {
        (RunState::Queued | RunState::Running, RunState::Ended { outcome: RunOutcome::Cancelled { .. } }) => {
            format!("cancelled task {id}")
        }
        (RunState::Ended { outcome }, _) | (_, RunState::Ended { outcome }) => {
            format!("task {id} has ended already: {}", notebook::in_words(after, outcome).1)
        }
        (_, _) => format!("cancelling task {id}; its runner is told to stop it"),
    }
}

/// The tasks of a group; one that is not up is said so.
async fn tasks(client: &Client, group: &str) -> Result<Vec<RunView>, Failure> {
    client.tasks(group).await.map_err(|error| match error {
        CallError::Refused(problem) if problem.status == 404 => unknown(group),
        error => error.into(),
    })
}

async fn find(client: &Client, which: &Which) -> Result<RunView, Failure> {
    choose(tasks(client, &which.group).await?, &which.group, &which.run)
}

fn choose(tasks: Vec<RunView>, group: &str, word: &str) -> Result<RunView, Failure> {
    let none = |what: String| {
        Err(Failure::new(Exit::NotFound, what)
            .hint(format!("`outlive task list {group}` lists those it knows")))
    };
    if word == "latest" {
        let latest = tasks.into_iter().max_by_key(|run| run.index);
        return latest.map_or_else(|| none(format!("{group} has had no task yet")), Ok);
    }
    let prefix = word.to_ascii_lowercase();
    let fits = |run: &RunView| {
        let id = run.id.to_string();
        !prefix.is_empty() && (id.starts_with(&prefix) || id.replace('-', "").starts_with(&prefix))
    };
    let mut found: Vec<RunView> = tasks.into_iter().filter(fits).collect();
    match found.len() {
        0 => none(format!("{group} knows no task {word:?}")),
        1 => Ok(found.remove(0)),
        count => none(format!("{word:?} fits {count} tasks of {group}")),
    }
}

const SHAPE: Shape<'static> = Shape {
    head: &["ID", "TASK", "STATE", "MEMBER", "ATTEMPT", "TOOK", "AGE"],
    main: (2, 14),
    spare: (1, 8),
    give_way: &[4, 3],
};

impl ListArgs {
    async fn list(self, client: &Client) -> Result<Exit, Failure> {
        let mut tasks = tasks(client, &self.group).await?;
        if self.json {
            terminal::line(serde_json::to_string_pretty(&tasks).expect("runs have string keys"))?;
            return Ok(Exit::Ok);
        }
        if tasks.is_empty() {
            terminal::talk(format!(
                "{} has had no task yet; `outlive task submit {0} TASK` gives it one",
                self.group
            ));
            return Ok(Exit::Ok);
        }
        let hidden = if self.all { 0 } else { hide(&mut tasks) };
        let width = if terminal::out_is_terminal() { terminal::width() } else { usize::MAX };
        terminal::data(text(&tasks, clock::now().0, width, Paint::out()).as_bytes())?;
        if hidden > 0 {
            terminal::talk(format!("{hidden} older ones have ended; `--all` lists them too"));
        }
        Ok(Exit::Ok)
    }
}

/// Leaves out all but the newest of the tasks that have ended; how many those are.
fn hide(tasks: &mut Vec<RunView>) -> usize {
    let is_ended = |run: &RunView| matches!(run.state, RunState::Ended { .. });
    let ended = tasks.iter().filter(|run| is_ended(run)).count();
    let hidden = ended.saturating_sub(ENDED_SHOWN);
    let mut left = hidden;
    tasks.retain(|run| {
        let is_hidden = left > 0 && is_ended(run);
        left -= usize::from(is_hidden);
        !is_hidden
    });
    hidden
}

fn text(tasks: &[RunView], now: u64, width: usize, paint: Paint) -> String {
    let ids: Vec<String> = tasks.iter().map(|run| run.id.to_string()).collect();
    let length = distinct(&ids);
    let row = |(run, id): (&RunView, &String)| -> Vec<Cell> {
        let (name, member) = match &run.task {
            Some(task) => (task.task.as_str(), task.member.as_deref()),
            None => (run.source.as_str(), None),
        };
        let state = match &run.state {
            RunState::Queued => table::cell("queued"),
            RunState::Running => (Some(terminal::Ink::Cyan), "running".to_owned()),
            RunState::Ended { outcome } => {
                let (ink, word) = notebook::in_words(run, outcome);
                (Some(ink), word)
            }
            RunState::Unknown => table::cell("unknown"),
        };
        let took = run.started_at.map(|start| run.ended_at.map_or(now, |end| end.0).saturating_sub(start.0));
        vec![
            table::cell(&id[..length]),
            table::cell(terminal::one_line(name)),
            state,
            table::cell(member.map_or_else(|| "-".to_owned(), terminal::one_line)),
            table::cell(run.attempt.to_string()),
            table::cell(took.map_or_else(|| "-".to_owned(), terminal::span)),
            table::cell(table::age(now.saturating_sub(run.queued_at.0))),
        ]
    };
    let rows: Vec<Vec<Cell>> = tasks.iter().zip(&ids).map(row).collect();
    SHAPE.text(&rows, width, paint)
}

/// How much of the ids tells them apart: ids that follow the time begin alike.
fn distinct(ids: &[String]) -> usize {
    let most = ids.iter().map(String::len).min().unwrap_or(8);
    let is_enough = |length: &usize| {
        let mut seen = std::collections::BTreeSet::new();
        ids.iter().all(|id| seen.insert(&id[..*length]))
    };
    [8, 13, 18, 23].into_iter().filter(|length| *length <= most).find(is_enough).unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use outlive_core::session::CancelWhy;
    use serde_json::{Value, json};

    use super::*;

    fn run(index: u32, id: &str, state: Value, member: Option<&str>) -> RunView {
        let is_queued = state == json!({"state": "queued"});
        let is_ended = state["state"] == "ended";
        serde_json::from_value(json!({
            "id": id, "session": uuid::Uuid::nil(), "index": index, "cell": null, "source": "chat", "state": state,
            "attempt": u32::from(!is_queued), "head": 0, "execution_count": null, "queued_at": 1_000_000,
            "started_at": (!is_queued).then_some(2_000_000), "ended_at": is_ended.then_some(2_500_000),
            "task": {"task": "chat", "key": "k", "idempotent": false, "member": member},
        }))
        .expect("a run")
    }

    fn ended(outcome: &RunOutcome) -> Value {
        json!({"state": "ended", "outcome": outcome})
    }

    fn some() -> Vec<RunView> {
        let unserved =
            RunOutcome::Unserved { reason: "all runners of llm gave up: out-of-memory".to_owned() };
        vec![
            run(0, "1a2b3c4d-0000-4000-8000-000000000001", ended(&RunOutcome::Succeeded), Some("llm-0")),
            run(1, "2a2b3c4d-0000-4000-8000-000000000002", ended(&unserved), None),
            run(2, "3a2b3c4d-0000-4000-8000-000000000003", json!({"state": "running"}), Some("llm-1")),
            run(3, "4a2b3c4d-0000-4000-8000-000000000004", json!({"state": "queued"}), None),
        ]
    }

    #[test]
    fn a_table_of_tasks() {
        let expected = "\
ID        TASK  STATE                                                MEMBER  ATTEMPT  TOOK   AGE
1a2b3c4d  chat  ok                                                   llm-0   1        0.5 s  1m
2a2b3c4d  chat  not run: all runners of llm gave up: out-of-memory   -       1        0.5 s  1m
3a2b3c4d  chat  running                                              llm-1   1        59.0 s  1m
";
        let shown = text(&some(), 61_000_000, usize::MAX, Paint::OFF);
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words(&shown).starts_with(&words(expected)), "{shown}");
        let narrow = text(&some(), 61_000_000, 60, Paint::OFF);
        assert!(narrow.lines().all(|line| console::measure_text_width(line) <= 60), "{narrow}");
        assert!(narrow.contains("not run: all"), "{narrow}");
    }

    #[test]
    fn a_task_that_was_quicker_than_its_cancel_is_not_called_cancelled() {
        let id = "1a2b3c4d-0000-4000-8000-000000000001";
        let a_run = |state| run(0, id, state, Some("llm-0"));
        let after = |before: Value, after: Value| what_became(&a_run(before), &a_run(after));
        let (running, succeeded) = (json!({"state": "running"}), ended(&RunOutcome::Succeeded));
        let cancelled = ended(&RunOutcome::Cancelled { why: CancelWhy::User });
        assert_eq!(after(running.clone(), succeeded.clone()), "task 1a2b3c4d has ended already: ok");
        assert_eq!(after(succeeded.clone(), succeeded), "task 1a2b3c4d has ended already: ok");
        assert_eq!(after(running.clone(), cancelled.clone()), "cancelled task 1a2b3c4d");
        assert_eq!(after(cancelled.clone(), cancelled), "task 1a2b3c4d has ended already: cancelled");
        assert!(after(running.clone(), running).starts_with("cancelling task 1a2b3c4d"));
    }

    #[test]
    fn ids_are_as_long_as_it_takes_to_tell_them_apart() {
        let ids = |ids: &[&str]| distinct(&ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>());
        assert_eq!(ids(&["1a2b3c4d-0000-4000-8000-000000000001", "2a2b3c4d-0000-4000-8000-000000000001"]), 8);
        assert_eq!(
            ids(&["1a2b3c4d-0000-7000-8000-000000000001", "1a2b3c4d-0001-7000-8000-000000000001"]),
            13
        );
        assert_eq!(
            ids(&["1a2b3c4d-0000-7000-8000-000000000001", "1a2b3c4d-0000-7000-8000-000000000002"]),
            36
        );
    }

    #[test]
    fn only_the_newest_of_the_ended_are_listed() {
        let id = |n: u128| uuid::Uuid::from_u128(n).to_string();
        let mut tasks: Vec<_> =
            (0..25).map(|n| run(n, &id(u128::from(n)), ended(&RunOutcome::Succeeded), None)).collect();
        tasks.insert(0, run(99, &id(99), json!({"state": "running"}), None));
        assert_eq!(hide(&mut tasks), 5);
        assert_eq!((tasks.len(), tasks[0].index, tasks[1].index), (21, 99, 5));
    }

    #[test]
    fn a_task_is_found_by_its_beginning_or_as_the_latest() {
        let found = |word: &str| choose(some(), "llm", word).map(|run| run.index);
        assert_eq!(found("2A2B").expect("one"), 1);
        assert_eq!(found("latest").expect("one"), 3);
        let failure = found("9").expect_err("none");
        assert_eq!((failure.exit, failure.what.as_str()), (Exit::NotFound, "llm knows no task \"9\""));
        assert!(found("").is_err());
        let mut twins = some();
        twins.push(run(9, "1a2b3c4d-0000-4000-8000-00000000000f", json!({"state": "queued"}), None));
        assert!(choose(twins, "llm", "1a").expect_err("two").what.contains("fits 2 tasks"));
    }
}
