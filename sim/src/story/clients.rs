//! Clients: each does a few things with sessions, through any node, and asks again until it is done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use outlive_core::id::{RunId, SessionId};
use outlive_core::time::Tick;
use outlive_node::Node;
use outlive_node::api::{Api, Groups as _};
use outlive_protocol::http::{
    CellEdit, CreateSession, EditNotebook, GroupConfig, OpenSession, Problem, RunView, Stop, SubmitRuns,
    SubmitTask,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::ledger::{Given, Ledger};
use super::watcher::Watcher;
use crate::files::SHARED;
use crate::schedule::Place;
use crate::seed::Random;
use crate::store::short;
use crate::world::{Called, Sim, World, node_id};

/// How long somebody asks again what is answered with a refusal.
const STUBBORN: Duration = Duration::from_secs(150);

/// One who wants something.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) world: Arc<World>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) random: Random,
    /// No new work is given after this.
    until: Tick,
    /// Where a watcher is made.
    watchers: tokio::runtime::Handle,
}

/// Starts all clients.
pub(super) fn begin(sim: &Sim, ledger: &Arc<Ledger>, storm: Duration) {
    let world = &sim.world;
    let mut random = world.seed.draw("clients");
    let client = |what: &'static str, n: u64| Client::new(sim, ledger, storm, (what, n));
    for n in 0..random.of(1..3) {
        sim.client(client("group", n).group(n));
    }
    for n in 0..random.of(0..3) {
        sim.client(client("command", n).command(n));
    }
    for n in 0..random.of(0..3) {
        sim.client(client("kernel", n).kernel(n));
    }
    let paths = random.of(0..3);
    for n in 0..paths {
        let path = format!("{SHARED}/{n}.ipynb");
        world.disks.put(world, 0, path.as_ref(), notebook(n));
        for m in 0..2 {
            sim.client(client("notebook", n * 10 + m).notebook(path.clone(), m));
        }
    }
}

/// Asks every node to end.
pub(super) fn end(sim: &Sim, ledger: &Arc<Ledger>) {
    for node in 0..sim.world.setup.nodes {
        let (world, ledger) = (Arc::clone(&sim.world), Arc::clone(ledger));
        sim.client(async move {
            let mut luck = world.seed.draw(("end", node));
            let stop = |node: Arc<Node>| async move { node.stop().await };
            let called = world.call(node, &mut luck, stop).await;
            match called {
                Called::Answered(()) => ledger.ended(node),
                Called::Nobody | Called::Lost => {
                    ledger.note(format!("n{node} cannot be asked to end: {called:?}"))
                }
            }
        });
    }
}

pub(super) fn notebook(n: u64) -> Vec<u8> {
    let cell = |id: &str| json!({"cell_type": "code", "execution_count": null, "id": id, "metadata": {}, "outputs": [], "source": format!("say {n} 1000")});
    let kernelspec = json!({"name": "made-up", "display_name": "made up", "language": "none"});
    let all = json!({"cells": [cell("one"), cell("two")], "metadata": {"kernelspec": kernelspec}, "nbformat": 4, "nbformat_minor": 5});
    serde_json::to_vec(&all).expect("a notebook is plain data")
}

impl Client {
    /// The n-th of its kind.
    pub(super) fn new(sim: &Sim, ledger: &Arc<Ledger>, storm: Duration, who: (&'static str, u64)) -> Self {
        Self {
            world: Arc::clone(&sim.world),
            ledger: Arc::clone(ledger),
            random: sim.world.seed.draw(who),
            until: Tick(0) + storm,
            watchers: sim.clients_handle(),
        }
    }

    fn place(&mut self) -> usize {
        self.random.place(self.world.setup.nodes)
    }

    pub(super) async fn wait(&mut self, millis: std::ops::Range<u64>) {
        let wait = self.random.millis(millis);
        self.world.schedule.sleep(wait, Place::Clients).await;
    }

    pub(super) fn is_time_left(&self) -> bool {
        self.world.schedule.now() < self.until
    }

    /// Asks any node until one answers; `None`: what was asked may or may not have been done, and must not be asked again.
    ///
    /// # Errors
    /// A problem that does not go away by itself.
    pub(super) async fn ask<T: Send + 'static>(
        &mut self,
        again: Again,
        asked: impl Fn(Arc<Node>) -> BoxFuture<'static, Result<T, Problem>> + Clone + Send + 'static,
    ) -> Result<Option<T>, Problem> {
        let mut node = self.place();
        let gives_up = self.world.schedule.now() + STUBBORN;
        loop {
            let asked = asked.clone();
            match self.world.call(node, &mut self.random, move |node: Arc<Node>| asked(node)).await {
                Called::Answered(Ok(answer)) => return Ok(Some(answer)),
                Called::Answered(Err(problem)) => {
                    let is_passing = problem.status == 503 || problem.status == 421 || problem.code == "busy";
                    if !is_passing || self.world.schedule.now() > gives_up {
                        return Err(problem);
                    }
                    let nodes = self.world.setup.nodes;
                    let at = problem.elsewhere.and_then(|at| (0..nodes).find(|n| node_id(*n) == at.node));
                    node = at.unwrap_or_else(|| self.place());
                    self.wait(10..150).await;
                }
                Called::Lost if again == Again::Never => return Ok(None),
                Called::Lost | Called::Nobody => {
                    node = self.place();
                    self.wait(20..300).await;
                }
            }
        }
    }

    fn watch(&mut self, session: SessionId, run: RunId) {
        for n in 0..self.random.of(1..4) {
            let who = format!("w{n}");
            let mut watcher = Watcher::new(&self.world, &self.ledger, (session, run), who);
            let wait = watcher.random.millis(0..2_000);
            let (world, is_late) = (Arc::clone(&self.world), watcher.random.happens(500));
            let ledger = Arc::clone(&self.ledger);
            let name = format!("late watcher {n} of run {}", short(run));
            ledger.begin(&name);
            drop(self.watchers.spawn(async move {
                if is_late {
                    world.schedule.sleep(wait, Place::Clients).await;
                }
                ledger.done(&name);
                watcher.watch().await;
            }));
        }
    }

    /// A group of runners, and tasks for it.
    async fn group(mut self, n: u64) {
        let name = format!("g{n}");
        let done = format!("the client of group {name}");
        self.ledger.begin(&done);
        let members: Vec<Value> = (0..self.random.of(1..4)).map(|m| member(&format!("m{m}"))).collect();
        let restart = json!({"restart": "permanent", "restarts_max": 100_000, "period_ms": 1_000, "backoff_ms": 10, "backoff_ms_max": 100});
        let config = json!({"members": members, "restart": restart, "wait_ms": 600_000});
        let config: GroupConfig = serde_json::from_value(config).expect("a group's configuration");
        let group = name.clone();
        let up = self.ask(Again::Always, move |node| {
            let (group, config) = (group.clone(), config.clone());
            async move { node.up(&group, config).await }.boxed()
        });
        if let Err(problem) = up.await {
            self.ledger.note(format!("group {name} does not come up: {problem:?}"));
        }
        let mut nth = 0;
        while self.is_time_left() {
            nth += 1;
            self.task(&name, nth).await;
            self.wait(50..1_500).await;
        }
        self.ledger.done(&done);
    }

    async fn task(&mut self, group: &str, nth: u64) {
        let what = *self.random.one(&["plain", "saves", "saves", "exact", "dies", "holds"]);
        let (n, every_us) = (self.random.of(1..30), self.random.of(500..120_000));
        let id =
            RunId::from_uuid(Uuid::from_u128((u128::from(self.random.number()) << 64) + u128::from(nth)));
        let task = SubmitTask {
            id: Some(id),
            task: what.to_owned(),
            input: json!({"n": n, "every_us": every_us}),
            key: None,
            idempotent: true,
            wait_ms: Some(600_000),
            timeout_ms: None,
        };
        let name = group.to_owned();
        let submitted = self.ask(Again::Always, move |node| {
            let (name, task) = (name.clone(), task.clone());
            async move { node.submit_task(&name, task).await }.boxed()
        });
        match submitted.await {
            Ok(Some(view)) => {
                let given =
                    Given { session: view.session, what: what.to_owned(), n: Some(n), is_unwanted: false };
                self.ledger.give(id, given);
                self.watch(view.session, id);
                if what == "holds" || self.random.happens(100) {
                    self.cancel(group, id).await;
                }
            }
            Ok(None) => {}
            Err(problem) => self.ledger.note(format!("task {} is refused: {problem:?}", short(id))),
        }
    }

    async fn cancel(&mut self, group: &str, run: RunId) {
        self.wait(0..1_500).await;
        self.ledger.unwant(run);
        let name = group.to_owned();
        let cancelled = self.ask(Again::Always, move |node| {
            let name = name.clone();
            async move { node.cancel_task(&name, run).await }.boxed()
        });
        if let Err(problem) = cancelled.await {
            self.ledger.note(format!("task {} cannot be cancelled: {problem:?}", short(run)));
        }
    }

    /// A command that is started again when it is lost.
    async fn command(mut self, n: u64) {
        let done = format!("the client of command {n}");
        self.ledger.begin(&done);
        self.wait(0..3_000).await;
        let (says, every_us) = (self.random.of(1..40), self.random.of(500..150_000));
        let argv = ["say".to_owned(), says.to_string(), every_us.to_string(), "0".to_owned()];
        let program = json!({"kind": "command", "argv": argv});
        let id = self.session_id();
        let create = created(id, json!({"kind": "command"}), &program);
        if let Some(session) = self.create(create).await {
            let asked = self.ask(Again::Always, move |node| async move { node.runs(session).await }.boxed());
            match asked.await {
                Ok(Some(runs)) => self.given(session, &runs, "command", Some(says)),
                Ok(None) => {}
                Err(problem) => {
                    self.ledger.note(format!("the runs of {} are refused: {problem:?}", short(session)))
                }
            }
        }
        self.ledger.done(&done);
    }

    /// A kernel without a notebook: code, and now and then an interrupt.
    async fn kernel(mut self, n: u64) {
        let done = format!("the client of kernel {n}");
        self.ledger.begin(&done);
        self.wait(0..2_000).await;
        let program = json!({"kind": "kernel", "name": "made-up", "display_name": "made up", "language": "none", "argv": ["k"], "resource_dir": null, "interrupt_mode": "signal", "transport": "tcp"});
        let mut create = created(self.session_id(), json!({"kind": "kernel"}), &program);
        create.keep = true;
        let session = self.create(create).await;
        while let Some(session) = session
            && self.is_time_left()
        {
            self.code(session).await;
            if self.random.happens(100) {
                self.ledger.unwant_all(session);
                let interrupted =
                    self.ask(Again::Never, move |node| async move { node.interrupt(session).await }.boxed());
                // One that has nothing to interrupt says so.
                drop(interrupted.await);
            }
            self.wait(100..2_000).await;
        }
        if let Some(session) = session
            && self.random.happens(500)
        {
            self.ledger.unwant_all(session);
            let how = Stop { force: self.random.happens(300) };
            let stopped = self.ask(Again::Always, move |node| {
                async move { Api::stop(node.as_ref(), session, how).await }.boxed()
            });
            if let Err(problem) = stopped.await {
                self.ledger.note(format!("kernel {} cannot be stopped: {problem:?}", short(session)));
            }
        }
        self.ledger.done(&done);
    }

    async fn code(&mut self, session: SessionId) {
        let (says, every_us) = (self.random.of(1..20), self.random.of(500..100_000));
        let code =
            if self.random.happens(60) { "die 9 1000".to_owned() } else { format!("say {says} {every_us}") };
        let what = if code.starts_with("die") { "die" } else { "code" };
        let work = SubmitRuns::Code { code };
        let submitted = self.ask(Again::Never, move |node| {
            let work = work.clone();
            async move { node.submit(session, work).await }.boxed()
        });
        match submitted.await {
            Ok(Some(runs)) => self.given(session, &runs, what, Some(says)),
            Ok(None) => {}
            // After its kernel has died for good.
            Err(problem) if problem.status == 409 => self.restart(session).await,
            Err(problem) => self.ledger.note(format!("code for {} is refused: {problem:?}", short(session))),
        }
    }

    pub(super) async fn restart(&mut self, session: SessionId) {
        self.ledger.unwant_all(session);
        let how = outlive_protocol::http::Restart { run_all: false };
        let restarted =
            self.ask(Again::Never, move |node| async move { node.restart(session, how).await }.boxed());
        // It may have come back by itself.
        drop(restarted.await);
    }

    /// A notebook on the shared disk: opened by its path through any node, edited, and run.
    async fn notebook(mut self, path: String, nth: u64) {
        let done = format!("the client {nth} of {path}");
        self.ledger.begin(&done);
        self.wait(0..2_000).await;
        let mut n = 0;
        while self.is_time_left() {
            n += 1;
            let request = OpenSession { path: Some(path.clone()), ..OpenSession::default() };
            let opened = self.ask(Again::Always, move |node| {
                let request = request.clone();
                async move { node.open(request).await }.boxed()
            });
            let session = match opened.await {
                Ok(Some(opened)) => opened.session_id,
                Ok(None) => continue,
                Err(problem) => {
                    self.ledger.note(format!("{path} cannot be opened: {problem:?}"));
                    break;
                }
            };
            self.ledger.opened(&path, session);
            let cell = if nth == 0 { "one" } else { "two" };
            let (says, every_us) = (self.random.of(1..9), self.random.of(500..50_000));
            let source = format!("say {says} {every_us} {n}");
            if self.edit(session, cell, &source).await && self.random.happens(600) {
                let work = SubmitRuns::CellIds {
                    cells: vec![cell.to_owned()],
                    required: None,
                    expected: BTreeMap::new(),
                };
                let submitted = self.ask(Again::Never, move |node| {
                    let work = work.clone();
                    async move { node.submit(session, work).await }.boxed()
                });
                if let Ok(Some(runs)) = submitted.await {
                    self.given(session, &runs, "cell", None);
                }
            }
            self.wait(200..3_000).await;
        }
        self.ledger.done(&done);
    }

    async fn edit(&mut self, session: SessionId, cell: &str, source: &str) -> bool {
        let edit = CellEdit::SetSource { cell: cell.to_owned(), source: source.to_owned(), expected: None };
        let edits = EditNotebook { edits: vec![edit] };
        let edited = self.ask(Again::Always, move |node| {
            let edits = edits.clone();
            async move { node.edit(session, edits).await }.boxed()
        });
        match edited.await {
            Ok(Some(_)) => {
                self.ledger.edited(session, cell, source);
                true
            }
            Ok(None) => false,
            Err(problem) => {
                self.ledger.note(format!("an edit of {} is refused: {problem:?}", short(session)));
                false
            }
        }
    }

    pub(super) fn session_id(&mut self) -> SessionId {
        let (high, low) = (self.random.number(), self.random.number());
        SessionId::from_uuid(Uuid::from_u128((u128::from(high) << 64) + u128::from(low)))
    }

    async fn create(&mut self, create: CreateSession) -> Option<SessionId> {
        let id = create.id.expect("the client gives one");
        let made = self.ask(Again::Always, move |node| {
            let create = create.clone();
            async move { node.create(create).await }.boxed()
        });
        match made.await {
            Ok(made) => made.map(|_| id),
            Err(problem) => {
                self.ledger.note(format!("session {} is not made: {problem:?}", short(id)));
                None
            }
        }
    }

    pub(super) fn given(&mut self, session: SessionId, runs: &[RunView], what: &str, n: Option<u64>) {
        for run in runs {
            let given = Given { session, what: what.to_owned(), n, is_unwanted: false };
            self.ledger.give(run.id, given);
            self.watch(session, run.id);
        }
    }
}

/// Whether a request whose answer was lost is made again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Again {
    /// Doing it twice is doing it once.
    Always,
    /// It must not be done twice.
    Never,
}

fn launch(program: &Value) -> Value {
    json!({"program": program, "cwd": "/", "env": {}, "memory_bytes_max": null, "ready_timeout_ms": 60_000})
}

fn member(name: &str) -> Value {
    json!({"name": name, "launch": launch(&json!({"kind": "runner", "name": name, "argv": ["a-runner"]}))})
}

fn created(id: SessionId, workload: Value, program: &Value) -> CreateSession {
    let restart = json!({"restart": "transient", "restarts_max": 100_000, "period_ms": 1_000, "backoff_ms": 10, "backoff_ms_max": 100});
    let all = json!({"id": id, "workload": workload, "launch": launch(program), "restart": restart});
    serde_json::from_value(all).expect("a session's beginning")
}
