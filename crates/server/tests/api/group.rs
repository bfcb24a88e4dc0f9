//! The fake's groups of runners: in memory, with the rules that a client notices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use outlive_core::group::Strategy;
use outlive_core::id::{Attempt, RunId, Seq, SessionId};
use outlive_core::log::ChunkKind;
use outlive_core::runtime::runner::{Phase, Progress};
use outlive_core::session::{CancelWhy, RunOutcome};
use outlive_core::time::WallTime;
use outlive_node::api::{Delivered, Events, MemberWish, Up};
use outlive_protocol::http::{
    ChunkView, GroupConfig, GroupView, MemberView, Members, Problem, RunState, RunView, SessionView, Stop,
    StreamEvent, SubmitTask, TaskView,
};
use serde_json::{Value, json};
use tokio::sync::watch;
use uuid::Uuid;

use crate::fake::{Fake, RUN, run_view, session_view};

/// The session of the fake's groups.
pub const GROUP: Uuid = Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0003);

/// The groups that are up, and their tasks.
pub struct Groups {
    up: Mutex<BTreeMap<String, (GroupConfig, SessionView)>>,
    tasks: Mutex<Vec<(SubmitTask, RunView)>>,
    /// What the next task is refused with.
    pub refusal: Mutex<Option<Problem>>,
}

impl Default for Groups {
    /// `llm` is up, and its runner declares `chat`; it has one task.
    fn default() -> Self {
        let groups = Self { up: Mutex::default(), tasks: Mutex::default(), refusal: Mutex::default() };
        groups.raise("llm", config(1));
        let task = SubmitTask {
            id: Some(RunId::from_uuid(RUN)),
            task: "chat".to_owned(),
            input: Value::Null,
            key: None,
            idempotent: false,
            wait_ms: None,
            timeout_ms: None,
        };
        groups.tasks.lock().unwrap().push((task.clone(), view_of(&task, RunId::from_uuid(RUN))));
        groups
    }
}

impl Groups {
    /// Brings a group up.
    pub fn raise(&self, name: &str, config: GroupConfig) {
        let members = config.members.iter().map(|member| member_view(&member.name));
        let group = GroupView {
            name: name.to_owned(),
            strategy: Strategy::OneForOne,
            members: members.collect(),
            running: 0,
        };
        let view = SessionView {
            id: SessionId::from_uuid(GROUP),
            title: name.to_owned(),
            kind: "runners".to_owned(),
            untitled: false,
            group: Some(group),
            created_at: WallTime(1_700_000_000_000_000),
            ..session_view()
        };
        self.up.lock().unwrap().insert(name.to_owned(), (config, view));
    }

    /// Changes what a group's first member says of itself.
    pub fn member(&self, name: &str, change: impl FnOnce(&mut MemberView)) {
        let mut up = self.up.lock().unwrap();
        change(&mut up.get_mut(name).unwrap().1.group.as_mut().unwrap().members[0]);
    }

    /// The tasks of all groups.
    pub fn tasks(&self) -> Vec<RunView> {
        self.tasks.lock().unwrap().iter().map(|(_, view)| view.clone()).collect()
    }

    /// The task that was submitted last.
    pub fn last(&self) -> SubmitTask {
        self.tasks.lock().unwrap().last().unwrap().0.clone()
    }

    fn view(&self, name: &str) -> Result<SessionView, Problem> {
        let up = self.up.lock().unwrap();
        up.get(name).map(|(_, view)| view.clone()).ok_or_else(|| {
            Problem::new(404, "no-such-group", "No such group", format!("No group {name:?} is up."))
                .hint("GET /v1/runners lists them.")
        })
    }
}

/// A body for `PUT /v1/runners/{name}`.
pub fn config_body(members: usize) -> Value {
    let member = |number| {
        json!({
            "name": format!("llm-{number}"),
            "launch": {
                "program": { "kind": "runner", "name": format!("llm-{number}"), "argv": ["true"] },
                "cwd": "/",
                "env": {},
                "ready_timeout_ms": 1000,
            },
        })
    };
    json!({
        "members": (0..members).map(member).collect::<Vec<_>>(),
        "restart": {
            "restart": "permanent", "restarts_max": 3, "period_ms": 1, "backoff_ms": 1, "backoff_ms_max": 1,
        },
    })
}

fn config(members: usize) -> GroupConfig {
    serde_json::from_value(config_body(members)).unwrap()
}

fn member_view(name: &str) -> MemberView {
    let chat = || BTreeSet::from(["chat".to_owned()]);
    MemberView {
        name: name.to_owned(),
        runtime: session_view().runtime,
        comes: true,
        phase: Phase::Ready,
        progress: Progress::default(),
        tasks: chat(),
        capabilities: chat(),
        concurrency: 1,
        running: Vec::new(),
        last_report: None,
    }
}

fn view_of(task: &SubmitTask, id: RunId) -> RunView {
    RunView {
        id,
        session: SessionId::from_uuid(GROUP),
        source: task.task.clone(),
        queued_at: WallTime(1_700_000_001_000_000),
        task: Some(TaskView {
            task: task.task.clone(),
            key: task.key.clone().unwrap_or_else(|| id.to_string()),
            idempotent: task.idempotent,
            member: None,
        }),
        ..run_view()
    }
}

#[async_trait]
impl outlive_node::api::Groups for Fake {
    async fn groups(&self) -> Result<Vec<SessionView>, Problem> {
        Ok(self.groups.up.lock().unwrap().values().map(|(_, view)| view.clone()).collect())
    }

    async fn group(&self, name: &str) -> Result<SessionView, Problem> {
        self.cluster.check()?;
        self.groups.view(name)
    }

    async fn up(&self, name: &str, config: GroupConfig) -> Result<(SessionView, Up), Problem> {
        self.cluster.check()?;
        self.called(format!("up {name} members={}", config.members.len()));
        let known = self.groups.up.lock().unwrap().get(name).cloned();
        match known {
            Some((same, view)) if same == config => Ok((view, Up::Already)),
            Some(_) => Err(Problem::new(
                409,
                "group-is-up",
                "The group is up",
                "It is up, with another configuration.",
            )
            .hint("Take it down first.")),
            None => {
                self.groups.raise(name, config);
                Ok((self.groups.view(name)?, Up::Made))
            }
        }
    }

    async fn down(&self, name: &str, how: Stop) -> Result<SessionView, Problem> {
        self.cluster.check()?;
        self.called(format!("down {name} force={}", how.force));
        let view = self.groups.view(name)?;
        self.groups.up.lock().unwrap().remove(name);
        Ok(view)
    }

    async fn members(&self, name: &str, what: MemberWish, which: Members) -> Result<SessionView, Problem> {
        self.cluster.check()?;
        self.called(format!("{what:?} {name} member={:?} force={}", which.member, which.force));
        self.groups.view(name)
    }

    async fn submit_task(&self, name: &str, task: SubmitTask) -> Result<RunView, Problem> {
        self.cluster.check()?;
        self.groups.view(name)?;
        if let Some(refusal) = self.groups.refusal.lock().unwrap().take() {
            return Err(refusal);
        }
        let mut tasks = self.groups.tasks.lock().unwrap();
        let same = |known: &SubmitTask| task.key.is_some() && known.key == task.key;
        if let Some((_, view)) = tasks.iter().find(|(known, _)| same(known)) {
            return Ok(view.clone());
        }
        let id = task.id.unwrap_or_else(|| {
            RunId::from_uuid(Uuid::from_u128(RUN.as_u128() + 0x100 + tasks.len() as u128))
        });
        let view = view_of(&task, id);
        tasks.push((task, view.clone()));
        Ok(view)
    }

    async fn cancel_task(&self, name: &str, run: RunId) -> Result<RunView, Problem> {
        self.cluster.check()?;
        self.called(format!("cancel {name}"));
        self.groups.view(name)?;
        let mut tasks = self.groups.tasks.lock().unwrap();
        let found = tasks.iter_mut().find(|(_, view)| view.id == run);
        let (_, view) = found.ok_or_else(|| {
            Problem::new(404, "no-such-task", "No such task", format!("There is no task {run}."))
                .hint("List them.")
        })?;
        let before = view.clone();
        view.state = RunState::Ended { outcome: RunOutcome::Cancelled { why: CancelWhy::User } };
        Ok(before)
    }
}

/// Events whose reader wishes that the task goes when it goes.
pub fn cancelling(calls: watch::Sender<Vec<String>>, run: RunId, events: Events) -> Events {
    struct Guard(Option<(watch::Sender<Vec<String>>, RunId)>);
    impl Drop for Guard {
        fn drop(&mut self) {
            if let Some((calls, run)) = self.0.take() {
                calls.send_modify(|calls| calls.push(format!("cancelled {run}")));
            }
        }
    }
    let state = (Guard(Some((calls, run))), events);
    stream::unfold(state, |(mut guard, mut events)| async move {
        let next = events.next().await?;
        if matches!(next.event, StreamEvent::End { .. }) {
            guard.0 = None;
        }
        Some((next, (guard, events)))
    })
    .boxed()
}

/// A chunk of a task, by its number.
pub fn chunk(seq: u64, kind: ChunkKind, value: Value) -> Delivered {
    let is_text = kind == ChunkKind::Text;
    let text = value.as_str().filter(|_| is_text).map(str::to_owned);
    let content = (!is_text).then_some(value);
    let view = ChunkView { kind, at: WallTime(seq), text, base64: None, content, blob: None };
    of_task(seq, view)
}

/// Any chunk of a task.
pub fn of_task(seq: u64, chunk: ChunkView) -> Delivered {
    let event = StreamEvent::Output { run: None, attempt: Attempt(1), first: Seq(seq), chunks: vec![chunk] };
    Delivered { cursor: Some(format!("1.{seq}")), event }
}

/// Text of a task.
pub fn text(seq: u64, text: &str) -> Delivered {
    chunk(seq, ChunkKind::Text, text.into())
}

/// Another attempt begins behind `keep`.
pub fn reset(keep: u64) -> Delivered {
    let event = StreamEvent::Reset { run: RunId::from_uuid(RUN), attempt: Attempt(2), keep: Seq(keep) };
    Delivered { cursor: None, event }
}
