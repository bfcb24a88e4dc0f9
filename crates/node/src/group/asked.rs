//! What the task answers to those who ask.

use outlive_core::group::spec::NewTask;
use outlive_core::group::state::{Task as Known, TaskState};
use outlive_core::group::{Denied, Group, Input, MemberSpec};
use outlive_core::id::{RunId, RuntimeId, SessionId};
use outlive_core::limits::{TASK_INPUT_BYTES_MAX, TASK_WORD_BYTES_MAX};
use outlive_core::runtime::{StopStep, StopWhy};
use outlive_core::session::state::Life as GroupLife;
use outlive_protocol::http::{Members, Problem, SubmitTask};
use serde_json::Value;

use super::task::Task;
use super::{config, view};
use crate::api::MemberWish;
use crate::hosted::Hosted;
use crate::problem;
use crate::session::handle::{Answer, Ask, Giving, GroupAsk, Message, ended, known_run};
use crate::session::journal::WriteError;

type Answered = Result<Result<Answer, Problem>, WriteError>;

impl Task {
    pub(super) async fn asked(&mut self, message: Message) -> Result<(), WriteError> {
        if let Ask::HandOver { to, .. } = message.ask {
            return self.asked_to_hand_over(Giving { to, answer: message.answer }).await;
        }
        let answer = self.answer(message.ask).await?;
        // Whoever asked may have gone; what was asked is done all the same.
        let _gone = message.answer.send(answer);
        Ok(())
    }

    async fn answer(&mut self, ask: Ask) -> Answered {
        let id = self.group.spec.id;
        let fold = self.journal.fold();
        match ask {
            Ask::Runs => Ok(Ok(Answer::Runs(view::tasks(&self.group, fold)))),
            Ask::Run(run) => Ok(known_run(id, fold, run, view::task(&self.group, fold, run))),
            Ask::Reports => Ok(Ok(Answer::Reports(self.group.reports.iter().cloned().collect()))),
            Ask::State => {
                let hosted = Hosted::Group(Box::new(self.group.clone()));
                Ok(Ok(Answer::State(Box::new((hosted, fold.clone())))))
            }
            Ask::HandOver { .. } => unreachable!("answered by `asked`"),
            Ask::Group(GroupAsk::Config) => Ok(Ok(Answer::Config(Box::new(config::of(&self.group.spec))))),
            Ask::Group(GroupAsk::Submit(task)) => self.submit(task).await,
            Ask::Group(GroupAsk::Members(wish, which)) => self.members(wish, which).await,
            Ask::Cancel(run) => self.cancel(run).await,
            Ask::Stop { why, from } => self.done(Input::Close { why, from }).await,
            Ask::Drain => self.done(Input::Close { why: StopWhy::User, from: StopStep::Ask }).await,
            Ask::Rest { why: StopWhy::Rest, from } => self.done(Input::Stop(None, from)).await,
            Ask::Restart { run_all: false } => self.done(Input::Restart(None)).await,
            Ask::Join { .. } if self.group.life != GroupLife::Open => Ok(Err(ended(id))),
            Ask::Join { .. } => Ok(Ok(Answer::Done(self.view.borrow().clone()))),
            Ask::Submit(_) => Ok(Err(only_tasks(&self.group, "it runs no code of its own"))),
            Ask::Interrupt | Ask::Answer { .. } => Ok(Err(only_tasks(
                &self.group,
                "its tasks run side by side, and none asks its user anything",
            ))),
            Ask::Rest { .. } | Ask::Restart { .. } | Ask::Trust(_) | Ask::Document(_) | Ask::File(_) => {
                Ok(Err(only_tasks(&self.group, "it has no notebook")))
            }
        }
    }

    async fn asked_to_hand_over(&mut self, giving: Giving) -> Result<(), WriteError> {
        match self.input(Input::HandOver, None).await? {
            Ok(()) => self.giving = Some(giving),
            Err(why) => drop(giving.answer.send(Err(denied(&self.group, &why)))),
        }
        Ok(())
    }

    async fn done(&mut self, input: Input) -> Answered {
        Ok(match self.input(input, None).await? {
            Ok(()) => Ok(Answer::Done(self.view.borrow().clone())),
            Err(why) => Err(denied(&self.group, &why)),
        })
    }

    async fn members(&mut self, wish: MemberWish, which: Members) -> Answered {
        let member = match &which.member {
            None => None,
            Some(name) => match named(&self.group, name) {
                Some(member) => Some(member),
                None => return Ok(Err(no_member(&self.group, name))),
            },
        };
        let from = if which.force { StopStep::Kill } else { StopStep::Ask };
        self.done(match wish {
            MemberWish::Start => Input::Start(member),
            MemberWish::Stop => Input::Stop(member, from),
            MemberWish::Restart => Input::Restart(member),
        })
        .await
    }

    /// The same id or key again gives the same task.
    async fn submit(&mut self, task: SubmitTask) -> Answered {
        // Random, not by time: people type the beginning of it.
        let id = task.id.unwrap_or_else(|| RunId::from_uuid(crate::ids::random()));
        if let Err(problem) = is_named(&task) {
            return Ok(Err(problem));
        }
        let new = NewTask {
            id,
            task: task.task,
            input: task.input,
            key: task.key.unwrap_or_else(|| id.to_string()),
            idempotent: task.idempotent,
            wait_ms: task.wait_ms.unwrap_or(self.group.spec.wait_ms),
            limit_ms: task.timeout_ms,
        };
        if let Some(known) = self.group.known(&new) {
            return Ok(same(&self.group.tasks[&known], &new).and_then(|()| self.task(known)));
        }
        if let Err(problem) = fits(&new.input) {
            return Ok(Err(problem));
        }
        Ok(match self.input(Input::Submit(new), None).await? {
            Ok(()) => self.task(id),
            Err(why) => Err(denied(&self.group, &why)),
        })
    }

    /// One that has ended is left alone.
    async fn cancel(&mut self, run: RunId) -> Answered {
        Ok(match self.input(Input::Cancel(run), None).await? {
            Ok(()) | Err(Denied::TaskEnded(_)) => self.task(run),
            Err(why) => Err(denied(&self.group, &why)),
        })
    }

    fn task(&self, run: RunId) -> Result<Answer, Problem> {
        let view = view::task(&self.group, self.journal.fold(), run);
        view.map(|view| Answer::Runs(vec![view])).ok_or_else(|| problem::no_run(self.group.spec.id, run))
    }
}

/// What tells a task from others can do so: an empty key is one that somebody forgot to fill in, and would make all such
/// tasks the same one.
fn is_named(task: &SubmitTask) -> Result<(), Problem> {
    let bad = |what: &str, is: String, hint: &str| {
        let (code, title) = (format!("bad-task-{what}"), format!("The task's {what} cannot be used"));
        Err(Problem::new(422, &code, &title, format!("the {what} of the task {is}")).hint(hint))
    };
    let long = |text: &str| format!("has {} bytes; at most {TASK_WORD_BYTES_MAX} are taken", text.len());
    match &task.key {
        Some(key) if key.is_empty() => {
            bad("key", "is empty".to_owned(), "give each piece of work a key of its own, or none")
        }
        Some(key) if key.len() > TASK_WORD_BYTES_MAX => {
            bad("key", long(key), "make the key of a digest of what names the work")
        }
        _ if task.task.is_empty() => bad("name", "is empty".to_owned(), "it is the name of a handler"),
        _ if task.task.len() > TASK_WORD_BYTES_MAX => {
            bad("name", long(&task.task), "it is the name of a handler; what it works on is its input")
        }
        _ => Ok(()),
    }
}

/// Whether a task is what is asked for again. Of one that has ended a large input is not known any more.
fn same(known: &Known, asked: &NewTask) -> Result<(), Problem> {
    let forgot = matches!(known.state, TaskState::Ended(_)) && known.new.input.is_null();
    let differs = if known.new.task != asked.task {
        format!("is a task {:?}", known.new.task)
    } else if !forgot && known.new.input != asked.input {
        "has another input".to_owned()
    } else {
        return Ok(());
    };
    let detail = format!("the key {:?} is that of task {}, which {differs}", known.new.key, known.new.id);
    Err(Problem::new(409, "key-of-another-task", "The key is another task's", detail)
        .hint("give each piece of work a key of its own; the same key means the same work"))
}

/// A task goes through the log and to its runner in one piece.
fn fits(input: &Value) -> Result<(), Problem> {
    let mut counted = Counted(0);
    serde_json::to_writer(&mut counted, input).expect("a value is written as JSON");
    if counted.0 <= TASK_INPUT_BYTES_MAX {
        return Ok(());
    }
    let detail = format!(
        "the input of the task has {} bytes as JSON; at most {TASK_INPUT_BYTES_MAX} are taken",
        counted.0
    );
    Err(Problem::new(413, "task-too-large", "The task's input is too large", detail)
        .hint("write it to a file and give the task its path"))
}

struct Counted(usize);

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn named(group: &Group, name: &str) -> Option<RuntimeId> {
    group.spec.members.iter().find(|member| member.name == name).map(|member| member.runtime)
}

fn members(group: &Group) -> String {
    let names: Vec<_> = group.spec.members.iter().map(|MemberSpec { name, .. }| name.as_str()).collect();
    names.join(", ")
}

fn no_member(group: &Group, name: &str) -> Problem {
    let detail = format!("group {:?} has no member {name:?}", group.spec.name);
    Problem::new(404, "no-such-member", "No such member", detail).hint(format!("it has {}", members(group)))
}

/// What groups do not do.
fn only_tasks(group: &Group, why: &str) -> Problem {
    let name = &group.spec.name;
    Problem::new(409, "runners-only", "A group of runners does not do that", format!("group {name:?}: {why}"))
        .hint(format!("give it work with `outlive task submit {name} TASK`"))
}

/// A refusal as clients see it.
fn denied(group: &Group, why: &Denied) -> Problem {
    let name = &group.spec.name;
    let id: SessionId = group.spec.id;
    let about = |status, code, title| Problem::new(status, code, title, format!("group {name:?}: {why}"));
    match why {
        Denied::Closed => ended(id),
        Denied::NoSuchTask(run) => problem::no_run(id, *run),
        Denied::TaskEnded(_) => about(409, "run-ended", "The task has ended"),
        Denied::NoSuchMember => {
            about(404, "no-such-member", "No such member").hint(format!("it has {}", members(group)))
        }
        Denied::NobodyReady(_) => about(503, "nobody-ready", "No runner takes the task").hint(format!(
            "`outlive runners {name}` shows the runners, `outlive runner start {name}` starts those that are down"
        )),
        Denied::UnknownTask { .. } => about(422, "unknown-task", "No runner has this task"),
        Denied::QueueFull { .. } => {
            about(429, "queue-full", "The queue is full").hint("wait until some of it has run")
        }
    }
}
