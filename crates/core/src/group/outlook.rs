//! Whether a task can hope: which members might take it, and since when none does.

use super::spec::NewTask;
use super::state::{Group, Member, Task};
use crate::runtime::Program;
use crate::runtime::runner::{Phase, Speaks};
use crate::session::event::AfterExit;
use crate::session::state::{Health, Life, Status, Wanted};
use crate::time::WallTime;

/// How many members a reason names.
const NAMED_MAX: usize = 4;

/// What a task of one name can hope for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outlook {
    /// A member is ready that has it, be it that there is no room now.
    Ready,
    /// None is, since then; one may become it.
    Waits(WallTime),
    /// None will be.
    Never,
}

/// The outlook of a task of this name.
#[must_use]
pub fn outlook(group: &Group, task: &str) -> Outlook {
    let able = group
        .members
        .iter()
        .filter(|member| may_serve(group, member) && member.has_handler(task) != Some(false));
    let mut outlook = Outlook::Never;
    for member in able {
        match member.unready_since {
            None => return Outlook::Ready,
            Some(since) => match outlook {
                Outlook::Waits(latest) if latest >= since => {}
                Outlook::Waits(_) | Outlook::Never | Outlook::Ready => outlook = Outlook::Waits(since),
            },
        }
    }
    outlook
}

/// The outlooks of all names that wait, each looked for once: there are few names and may be many tasks.
pub(super) struct Outlooks<'a> {
    group: &'a Group,
    known: Vec<(&'a str, Outlook)>,
}

impl<'a> Outlooks<'a> {
    pub(super) const fn new(group: &'a Group) -> Self {
        Self { group, known: Vec::new() }
    }

    pub(super) fn of(&mut self, task: &'a str) -> &Outlook {
        let place = self.known.iter().position(|(name, _)| *name == task).unwrap_or_else(|| {
            self.known.push((task, outlook(self.group, task)));
            self.known.len() - 1
        });
        &self.known[place].1
    }
}

/// When a waiting task has waited enough: its bound runs from the moment from which no member takes it. `None` while one
/// does.
#[must_use]
pub fn waits_until(group: &Group, task: &Task, outlook: &Outlook) -> Option<WallTime> {
    match outlook {
        Outlook::Ready | Outlook::Never => None,
        Outlook::Waits(since) => {
            let bound = wait_ms(group, task).saturating_mul(1_000);
            Some(WallTime((*since).max(task.waits_since).0.saturating_add(bound)))
        }
    }
}

/// How long a task may wait. One that had a runner and lost it with its node waits as others do until there is another, be
/// it that it would not have waited for its first.
fn wait_ms(group: &Group, task: &Task) -> u64 {
    if task.excused.attempts > 0 { task.new.wait_ms.max(group.spec.wait_ms) } else { task.new.wait_ms }
}

/// Whether the member takes tasks, or may by itself come to it.
fn may_serve(group: &Group, member: &Member) -> bool {
    speaks(group, member) == Speaks::Protocol && is_up_or_coming(group, member)
}

/// Whether the member is up, or will be without anybody's help.
#[must_use]
pub fn is_up_or_coming(group: &Group, member: &Member) -> bool {
    group.life == Life::Open
        && match &member.runtime.status {
            Status::Down => member.runtime.wanted == Wanted::Up && starts_again(group),
            Status::Launching | Status::Ready(_) | Status::Stopping { .. } => {
                member.runtime.wanted == Wanted::Up
            }
            Status::Backoff { .. } | Status::Draining { then: AfterExit::Restart { .. }, .. } => true,
            Status::Draining {
                then: AfterExit::Stay | AfterExit::Rest | AfterExit::GiveUp { .. }, ..
            }
            | Status::Exited(_)
            | Status::GaveUp { .. } => false,
        }
}

/// Whether what was taken down together is started again.
pub(super) fn starts_again(group: &Group) -> bool {
    group.falling.as_ref().is_none_or(|falling| matches!(falling.then, AfterExit::Restart { .. }))
}

/// Whether a member has a channel.
pub(super) fn speaks(group: &Group, member: &Member) -> Speaks {
    let spec = group.spec.members.iter().find(|spec| spec.runtime == member.id);
    match spec.map(|spec| &spec.launch.program) {
        Some(Program::Runner { speaks, .. }) => *speaks,
        Some(Program::Kernel { .. } | Program::OfNotebook { .. } | Program::Command { .. }) | None => {
            Speaks::Nothing
        }
    }
}

/// Why no member takes a task, when all have said what they can do and none has it.
#[must_use]
pub fn unknown_task(group: &Group, task: &str) -> Option<String> {
    let mut handlers = group.members.iter().filter(|member| may_serve(group, member)).peekable();
    handlers.peek()?;
    let lacks = |member: &Member| member.has_handler(task) == Some(false);
    handlers.all(lacks).then(|| known_tasks(group))
}

/// The names of all handlers, for people.
fn known_tasks(group: &Group) -> String {
    let greetings = group.members.iter().filter_map(|member| member.greeting.as_ref());
    let names: std::collections::BTreeSet<&str> =
        greetings.flat_map(|greeting| greeting.tasks.iter().map(String::as_str)).collect();
    if names.is_empty() {
        return "none".to_owned();
    }
    names.into_iter().collect::<Vec<_>>().join(", ")
}

/// Why a task is not served that was queued: its name is unknown, it has waited enough, or nobody will come.
#[must_use]
pub fn unserved(group: &Group, new: &NewTask) -> String {
    if let Some(known) = unknown_task(group, &new.task) {
        return format!("no runner of {} has a task {:?}; it has {known}", group.spec.name, new.task);
    }
    match outlook(group, &new.task) {
        Outlook::Never => format!("no runner of {} is up: {}", group.spec.name, standing(group)),
        Outlook::Waits(_) | Outlook::Ready => format!(
            "no runner of {} was ready within {} s: {}",
            group.spec.name,
            new.wait_ms.div_ceil(1_000),
            standing(group)
        ),
    }
}

/// What the members do, for people.
#[must_use]
pub fn standing(group: &Group) -> String {
    let mut words: Vec<String> = group
        .members
        .iter()
        .take(NAMED_MAX)
        .map(|member| format!("{} {}", group.name(member.id), doing(group, member)))
        .collect();
    if group.members.len() > NAMED_MAX {
        words.push(format!("and {} more", group.members.len() - NAMED_MAX));
    }
    words.join(", ")
}

fn doing(group: &Group, member: &Member) -> String {
    let why = || {
        member.last_report.as_ref().map_or_else(String::new, |report| {
            format!(" ({}: {})", report.cause().code, report.cause().summary)
        })
    };
    match &member.runtime.status {
        Status::Down if member.runtime.wanted == Wanted::Down => "was stopped".to_owned(),
        Status::Down | Status::Launching => "is being started".to_owned(),
        Status::Ready(Health::Unresponsive(_)) => "does not answer".to_owned(),
        Status::Ready(Health::Responsive) if speaks(group, member) == Speaks::Nothing => {
            "serves no tasks (protocol = \"none\")".to_owned()
        }
        Status::Ready(Health::Responsive) => match member.phase {
            Phase::Connecting => "has not said hello".to_owned(),
            Phase::Loading => "is loading".to_owned(),
            Phase::WarmingUp => "is warming up".to_owned(),
            Phase::Ready if member.ignores_cancel => "does not end a cancelled task".to_owned(),
            Phase::Ready => "is ready".to_owned(),
            Phase::ShuttingDown => "is shutting down".to_owned(),
        },
        Status::Stopping { .. } => "is being stopped".to_owned(),
        Status::Draining { then: AfterExit::Restart { .. }, .. } | Status::Backoff { .. } => {
            format!("is about to be started again{}", why())
        }
        Status::Draining { then: AfterExit::GiveUp { reason }, .. } | Status::GaveUp { reason } => {
            format!("gave up: {reason}{}", why())
        }
        Status::Draining { status, then: AfterExit::Stay | AfterExit::Rest } | Status::Exited(status) => {
            format!("has ended with {status}{}", why())
        }
    }
}
