//! A group of runners and its tasks, through the API.
//!
//! Most groups here are of `fixtures/raw.py`, which speaks the bare protocol and does what each task's code says.

use std::path::Path;

use serde_json::{Value, json};

use crate::clock::{Deadline, PATIENCE, eventually, within};
use crate::events::Events;
use crate::http::{Api, Response};
use crate::process::{self, Process, Signal};
use crate::session::Session;
use crate::transcript::Transcript;
use crate::world::World;

/// The states in which a member's process takes tasks.
const READY: [&str; 2] = ["idle", "busy"];

/// A group that is up.
#[derive(Clone, Debug)]
pub struct Group {
    session: Session,
    /// Its name.
    pub name: String,
}

impl World {
    /// What starts a program as a member. Tests change it as they like.
    #[must_use]
    pub fn member(&self, name: &str, argv: &[&str]) -> Value {
        let mut launch = self.command_spec(argv)["launch"].clone();
        launch["program"] = json!({"kind": "runner", "name": name, "argv": argv});
        json!({"name": name, "launch": launch})
    }

    /// A member that speaks the bare protocol; this Python code is what it does first.
    #[must_use]
    pub fn raw_member(&self, name: &str, start: &str) -> Value {
        let raw = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/raw.py");
        let (python, raw) =
            (self.python().to_string_lossy().into_owned(), raw.to_string_lossy().into_owned());
        self.member(name, &[&python, "-S", &raw, start])
    }

    /// So many members, `m-0` and so on, that are ready at once and take a task at a time or eight.
    #[must_use]
    pub fn group_config(&self, count: usize) -> Value {
        self.group_of((0..count).map(|n| self.raw_member(&format!("m-{n}"), "hello(); ready()")).collect())
    }

    /// These members. What dies is started again, thrice a minute at most.
    #[must_use]
    pub fn group_of(&self, members: Vec<Value>) -> Value {
        json!({
            "members": members,
            "strategy": "one_for_one",
            "restart": {
                "restart": "permanent", "restarts_max": 3, "period_ms": 60_000, "backoff_ms": 50,
                "backoff_ms_max": 1_000,
            },
            "on_hang": "report",
        })
    }

    /// A group of so many members that are ready.
    #[must_use]
    #[track_caller]
    pub fn runners(&self, count: usize) -> Group {
        let group = Group::up(&self.api(), "g", &self.group_config(count));
        group.wait_ready();
        group
    }
}

impl Group {
    /// Brings one up.
    ///
    /// # Panics
    /// When the daemon refuses.
    #[must_use]
    #[track_caller]
    pub fn up(api: &Api, name: &str, config: &Value) -> Self {
        let response = Self::try_up(api, name, config);
        assert!([200, 201].contains(&response.status), "PUT {name}: {}", response.json());
        let view = response.json();
        assert_eq!(view["kind"], "runners", "{view}");
        let id = view["id"].as_str().unwrap_or_else(|| panic!("a group without an id: {view}"));
        Self { session: Session::existing(api, id), name: name.to_owned() }
    }

    /// One that is up, asked for at this place.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    #[track_caller]
    pub fn existing(api: &Api, name: &str) -> Self {
        let view = api.get(&format!("/v1/runners/{name}"));
        let id = view["id"].as_str().unwrap_or_else(|| panic!("a group without an id: {view}"));
        Self { session: Session::existing(api, id), name: name.to_owned() }
    }

    /// Asks for one, whatever the answer.
    #[track_caller]
    pub fn try_up(api: &Api, name: &str, config: &Value) -> Response {
        api.request("PUT", &format!("/v1/runners/{name}"), Some(config))
    }

    /// The session that it is.
    #[must_use]
    pub const fn session(&self) -> &Session {
        &self.session
    }

    /// A path below it.
    #[must_use]
    pub fn path(&self, rest: &str) -> String {
        format!("/v1/runners/{}{rest}", self.name)
    }

    /// Its view.
    #[must_use]
    #[track_caller]
    pub fn view(&self) -> Value {
        self.session.api().get(&self.path(""))
    }

    /// One member's view, by its place.
    #[must_use]
    #[track_caller]
    pub fn member(&self, place: usize) -> Value {
        member(&self.view(), place).clone()
    }

    /// The process of a member.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    #[track_caller]
    pub fn process(&self, place: usize) -> Process {
        let view = self.member(place);
        let pid = view["runtime"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        let process = pid.and_then(process::find);
        process.unwrap_or_else(|| panic!("no process: {view}"))
    }

    /// Sends a signal to a member's process.
    #[track_caller]
    pub fn signal(&self, place: usize, signal: Signal) {
        process::signal(self.process(place).pid, signal);
    }

    /// Waits until its view fits.
    ///
    /// # Panics
    /// At the deadline, with the views seen.
    #[track_caller]
    pub fn wait_until(&self, what: &str, deadline: Deadline, fits: impl FnMut(&Value) -> bool) -> Value {
        self.session.wait_until(what, deadline, fits)
    }

    /// Waits until every member takes tasks.
    #[track_caller]
    pub fn wait_ready(&self) -> Value {
        self.wait_until("all members are ready", within(PATIENCE), |view| members(view).iter().all(is_ready))
    }

    /// Waits until a member's state is this (`idle`, `exited`, `gave_up`, …).
    #[track_caller]
    pub fn wait_member(&self, place: usize, state: &str) -> Value {
        let view = self.wait_until(&format!("member {place} is {state}"), within(PATIENCE), |view| {
            member_state(member(view, place)) == state
        });
        member(&view, place).clone()
    }

    /// Waits until this process of a member takes tasks.
    #[track_caller]
    pub fn wait_incarnation(&self, place: usize, incarnation: u64) -> Value {
        let view = self.wait_until("a further process is ready", within(PATIENCE), |view| {
            let member = member(view, place);
            is_ready(member) && member["runtime"]["incarnation"] == incarnation
        });
        member(&view, place).clone()
    }

    /// Submits a task in Python.
    #[must_use]
    #[track_caller]
    pub fn submit(&self, code: &str) -> Task {
        self.submit_with(code, &json!({}))
    }

    /// Submits a task in Python with more fields: `idempotent`, `wait_ms`, `key`, …
    #[must_use]
    #[track_caller]
    pub fn submit_with(&self, code: &str, fields: &Value) -> Task {
        let body = task_of(code, fields);
        let view = self.session.api().post(&self.path("/tasks"), &body);
        self.task(view["id"].as_str().unwrap_or_else(|| panic!("no run: {view}")))
    }

    /// A task in Python that must be refused; the problem.
    #[must_use]
    #[track_caller]
    pub fn submit_refused(&self, code: &str, fields: &Value) -> Value {
        self.session.api().refused(&self.path("/tasks"), &task_of(code, fields))
    }

    /// A task that exists.
    #[must_use]
    pub fn task(&self, id: &str) -> Task {
        Task { group: self.clone(), id: id.to_owned() }
    }

    /// Runs a task in Python to its end.
    #[must_use]
    #[track_caller]
    pub fn run(&self, code: &str) -> Transcript {
        self.submit(code).outcome()
    }

    /// Its failures, oldest first.
    #[must_use]
    #[track_caller]
    pub fn reports(&self) -> Vec<Value> {
        self.session.reports()
    }

    /// Waits for its first failure.
    ///
    /// # Panics
    /// When there is none within a minute.
    #[must_use]
    #[track_caller]
    pub fn first_report(&self) -> Value {
        self.session.events().wait_for("a report", within(PATIENCE), |event| {
            event.name == "report"
                || members(&event.data["session"]).iter().any(|member| !member["last_report"].is_null())
                || !event.data["session"]["last_report"].is_null()
        });
        self.reports().first().cloned().expect("a view names a report")
    }

    /// Starts, stops or restarts one member, or all.
    #[track_caller]
    pub fn wish(&self, wish: &str, member: Option<&str>) {
        self.session.api().post(&self.path(&format!("/{wish}")), &json!({"member": member}));
    }

    /// Ends it and waits for its end. A node that has just come back may still find out whose it is.
    #[track_caller]
    pub fn down(&self) -> Value {
        eventually("whose group it is, is known", within(PATIENCE), || {
            let response = self.session.api().request("DELETE", &self.path(""), None);
            let is_moving = response.status == 503 && response.json()["code"] == "session-moving";
            assert!(is_moving || (200..300).contains(&response.status), "{}", response.json());
            (!is_moving).then_some(())
        });
        self.session.wait_closed()
    }
}

fn task_of(code: &str, fields: &Value) -> Value {
    let mut body = json!({"task": "python", "input": {"code": code}});
    for (name, value) in fields.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    body
}

/// The members in a group's view.
#[must_use]
pub fn members(view: &Value) -> &[Value] {
    view["group"]["members"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// One of them, by its place.
///
/// # Panics
/// When there are fewer.
#[must_use]
#[track_caller]
pub fn member(view: &Value, place: usize) -> &Value {
    members(view).get(place).unwrap_or_else(|| panic!("no member {place}: {view}"))
}

/// The state of a member's process.
#[must_use]
pub fn member_state(member: &Value) -> &str {
    member["runtime"]["state"]["state"].as_str().unwrap_or_default()
}

/// Whether a member takes tasks.
#[must_use]
pub fn is_ready(member: &Value) -> bool {
    member["phase"] == "ready" && READY.contains(&member_state(member))
}

/// A task of a group.
#[derive(Clone, Debug)]
pub struct Task {
    group: Group,
    /// Its run.
    pub id: String,
}

impl Task {
    fn path(&self, rest: &str) -> String {
        self.group.path(&format!("/tasks/{}{rest}", self.id))
    }

    /// Its view.
    #[must_use]
    #[track_caller]
    pub fn view(&self) -> Value {
        self.group.session.api().get(&self.path(""))
    }

    /// Its stream from the cursor on.
    #[must_use]
    #[track_caller]
    pub fn attach(&self, cursor: Option<&str>) -> Events {
        self.group.session.api().events(&self.path("/attach?follow=true"), cursor)
    }

    /// The same for a client whose going away cancels the task.
    #[must_use]
    #[track_caller]
    pub fn attach_and_cancel(&self) -> Events {
        self.group.session.api().events(&self.path("/attach?follow=true&cancel=true"), None)
    }

    /// Waits for its end and gives its output.
    #[must_use]
    #[track_caller]
    pub fn outcome(&self) -> Transcript {
        self.outcome_by(within(PATIENCE))
    }

    /// The same with a deadline of its own.
    ///
    /// # Panics
    /// At the deadline, or when the stream ends before the task.
    #[must_use]
    #[track_caller]
    pub fn outcome_by(&self, deadline: Deadline) -> Transcript {
        let mut transcript = Transcript::default();
        let ended = transcript.follow(&mut self.attach(None), deadline);
        assert!(ended, "the stream of task {} ended before the task", self.id);
        transcript
    }

    /// Waits for the text in its output, from its beginning on, and gives what was read until then.
    ///
    /// # Panics
    /// When it ends before, or does not say it within a minute.
    #[track_caller]
    pub fn wait_said(&self, text: &str) -> (Transcript, Events) {
        let (mut seen, mut events) = (Transcript::default(), self.attach(None));
        read_until(&mut seen, &mut events, text);
        (seen, events)
    }

    /// Cancels it; the answer's status.
    #[track_caller]
    pub fn cancel(&self) -> u16 {
        let response = self.group.session.api().request("DELETE", &self.path(""), None);
        assert!([200, 202].contains(&response.status), "DELETE: {} {}", response.status, response.json());
        response.status
    }
}

/// Reads on until the text was said.
///
/// # Panics
/// When the task ends before, or after a minute.
#[track_caller]
pub fn read_until(seen: &mut Transcript, events: &mut Events, text: &str) {
    let deadline = within(PATIENCE);
    while !seen.said().contains(text) {
        let event = events.next(deadline).unwrap_or_else(|silence| {
            panic!("{silence:?} before {text:?}; said: {:?}", seen.said());
        });
        let ended = seen.push(&event);
        assert!(!ended || seen.said().contains(text), "it ended before {text:?}: {seen:?}");
    }
}
