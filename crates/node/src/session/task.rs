//! The task that owns a session.
//!
//! ```text
//!  shim's records ─┐
//!  timers ─────────┤► one input ─► decide ─► facts to the log ─► apply ─► effects ─► advance … ─► view
//!  mailbox ────────┘   (in this order, and the others before more output)
//! ```

mod asked;
mod document;
mod file;
mod process;

use std::collections::BTreeMap;
use std::sync::Arc;

use outlive_core::id::ReportId;
use outlive_core::log::fold::Effect as LogEffect;
use outlive_core::log::{Entry, FencedBody, Record, RunRecord, Source};
use outlive_core::runtime::StopWhy;
use outlive_core::session::input::Timer;
use outlive_core::session::{Decision, Denied, Fact, Input, Session, advance, apply, decide, timers};
use outlive_core::time::Tick;
use outlive_protocol::http::SessionView;
use outlive_protocol::shim::ToShim;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::handle::{Message, Peers};
use super::journal::{Journal, WriteError};
use super::notebook::NotebookPlane;
use super::view;
use crate::context::Context;
use crate::seams::{FromLink, Link};

/// How many records of a shim are taken into one round, so that commands are answered in between.
const ROUND_RECORDS_MAX: usize = 512;

/// A session and all that its task holds for it.
pub(super) struct Task {
    pub(super) context: Arc<Context>,
    pub(super) session: Session,
    pub(super) journal: Journal,
    pub(super) notebook: Option<NotebookPlane>,
    pub(super) link: Option<Link>,
    pub(super) timers: BTreeMap<Timer, Tick>,
    pub(super) mailbox: mpsc::Receiver<Message>,
    pub(super) view: watch::Sender<Arc<SessionView>>,
    pub(super) peers: Arc<Peers>,
    pub(super) blobs: String,
    pub(super) stop: CancellationToken,
    pub(super) life: Life,
}

/// Whether the task goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Life {
    /// It does.
    Going,
    /// The last save is due.
    LastSave,
    /// The session has ended.
    Over,
}

/// Who is heard first when several have something. After output it is the others' turn: a program that prints for
/// ever delays a wish or a deadline by one round of its output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum First {
    Shim,
    Others,
}

/// What woke the task.
enum Woken {
    Link(Option<FromLink>),
    Timer(Timer),
    Saved,
    SaveDue,
    Asked(Option<Message>),
    Stopped,
}

impl Task {
    /// Runs until the session has ended, the daemon stops, or the session is lost to somebody else.
    pub(super) async fn run(mut self) {
        let id = self.session.spec.id;
        let result = self.drive().await;
        match &result {
            Ok(()) => {}
            Err(WriteError::Fenced) => {
                tracing::warn!(session = %id, "fenced: somebody else owns the session; its processes are stopped");
                self.disown().await;
                self.context.broken(id, "another daemon owns it".to_owned());
            }
            Err(error) => {
                tracing::error!(session = %id, error = %super::notebook::with_sources(error), "the session cannot go on");
                self.context.broken(id, super::notebook::with_sources(error));
            }
        }
        self.context.bus.close(id);
    }

    async fn drive(&mut self) -> Result<(), WriteError> {
        self.settle().await?;
        let mut first = First::Shim;
        loop {
            match self.life {
                Life::Going => {}
                Life::LastSave => {
                    self.save_finally().await?;
                    continue;
                }
                Life::Over => return self.finish().await,
            }
            let woken = self.wait(first).await;
            first = if matches!(woken, Woken::Link(_)) { First::Others } else { First::Shim };
            match woken {
                Woken::Link(event) => self.linked(event).await?,
                Woken::Timer(timer) => {
                    self.timers.remove(&timer);
                    self.input(Input::Timer(timer), None).await?.ok();
                }
                Woken::Saved => self.show(),
                Woken::SaveDue => {
                    if let Some(notebook) = &mut self.notebook {
                        notebook.file.begin_save(&notebook.document, self.context.clock.now().tick);
                    }
                }
                Woken::Asked(Some(message)) => self.asked(message).await?,
                Woken::Asked(None) | Woken::Stopped => return self.leave().await,
            }
        }
    }

    async fn wait(&mut self, first: First) -> Woken {
        let timer = self.timers.iter().min_by_key(|(_, at)| **at).map(|(timer, at)| (*timer, *at));
        let save = self.notebook.as_ref().and_then(|notebook| notebook.file.save_due());
        let clock = Arc::clone(&self.context.clock);
        let shim = async {
            match &mut self.link {
                Some(link) => Woken::Link(link.from.recv().await),
                None => std::future::pending().await,
            }
        };
        let others = async {
            tokio::select! {
                biased;
                timer = async {
                    match timer {
                        Some((timer, at)) => { clock.until(at).await; timer }
                        None => std::future::pending().await,
                    }
                } => Woken::Timer(timer),
                () = async {
                    match &mut self.notebook {
                        Some(notebook) => notebook.file.saved().await,
                        None => std::future::pending().await,
                    }
                } => Woken::Saved,
                () = async {
                    match save {
                        Some(at) => clock.until(at).await,
                        None => std::future::pending().await,
                    }
                } => Woken::SaveDue,
                message = self.mailbox.recv() => Woken::Asked(message),
            }
        };
        match first {
            First::Shim => tokio::select! {
                biased;
                () = self.stop.cancelled() => Woken::Stopped,
                woken = shim => woken,
                woken = others => woken,
            },
            First::Others => tokio::select! {
                biased;
                () = self.stop.cancelled() => Woken::Stopped,
                woken = others => woken,
                woken = shim => woken,
            },
        }
    }

    /// Decides one input, stores and applies what follows, and all that follows from that.
    async fn input(
        &mut self,
        input: Input,
        source: Option<Source>,
    ) -> Result<Result<(), Denied>, WriteError> {
        let now = self.context.clock.now();
        let decision = match decide(&self.session, input, now) {
            Ok(decision) => decision,
            Err(denied) => return Ok(Err(denied)),
        };
        self.carry_out(decision, source).await?;
        self.settle().await?;
        Ok(Ok(()))
    }

    /// Carries out what follows from the state until nothing does, then shows the state.
    async fn settle(&mut self) -> Result<(), WriteError> {
        loop {
            let decision = advance(&self.session, self.context.clock.now());
            if decision.is_none() {
                break;
            }
            self.carry_out(decision, None).await?;
        }
        let now = self.context.clock.now();
        let wanted = timers(&self.session, now);
        self.timers.retain(|timer, _| wanted.iter().any(|(wanted, _)| wanted == timer));
        for (timer, after) in wanted {
            self.timers.entry(timer).or_insert(now.tick + after);
        }
        self.show();
        Ok(())
    }

    /// Facts first, effects after. The records of the shim are accounted for by the last fact.
    async fn carry_out(&mut self, decision: Decision, source: Option<Source>) -> Result<(), WriteError> {
        let last = decision.facts.len();
        for (n, fact) in decision.facts.iter().enumerate() {
            let source = source.filter(|_| n + 1 == last);
            let entry = self.journal.fact(fact, source).await?;
            apply(&mut self.session, fact);
            self.project(&entry, fact);
        }
        for effect in decision.effects {
            self.effect(effect).await;
        }
        Ok(())
    }

    fn project(&mut self, entry: &Entry, fact: &Fact) {
        let Some(notebook) = &mut self.notebook else { return };
        let now = self.context.clock.now().tick;
        let effect = match (fact, &entry.record) {
            (
                Fact::RunOpened { run, .. },
                Record::Fenced(outlive_core::log::Fenced {
                    body: FencedBody::Run(RunRecord::Open { attempt, base, .. }),
                    ..
                }),
            ) => LogEffect::Opened { run: *run, attempt: *attempt, base: *base, truncated_from: *base },
            (Fact::RunEnded { run, .. }, _) => LogEffect::Ended {
                run: *run,
                attempt: outlive_core::id::Attempt(0),
                last_seq: self.journal.head(*run),
            },
            _ => return,
        };
        notebook.apply(entry, &effect, &self.session, now);
    }

    fn show(&self) {
        let mut view = view::session(&self.session, self.journal.position(), self.peers.attached());
        if view.save_problem.is_none() {
            view.save_problem =
                self.notebook.as_ref().and_then(|notebook| notebook.file.problem()).map(str::to_owned);
        }
        self.view.send_replace(Arc::new(view));
    }

    async fn save_finally(&mut self) -> Result<(), WriteError> {
        self.life = Life::Going;
        let problem = match &mut self.notebook {
            Some(notebook) => {
                notebook.file.save_finally(&notebook.document, self.context.clock.now().tick).await
            }
            None => None,
        };
        self.input(Input::Saved { problem }, None).await?.ok();
        Ok(())
    }

    /// The session has ended: its log is closed, its path free.
    async fn finish(&mut self) -> Result<(), WriteError> {
        self.notebook = None;
        self.journal.close().await?;
        let view = Arc::clone(&self.view.borrow());
        self.context.closed(&view).await;
        Ok(())
    }

    /// The daemon stops and the processes go on: what can be saved is saved.
    async fn leave(&mut self) -> Result<(), WriteError> {
        if let Some(notebook) = &mut self.notebook
            && let Some(problem) =
                notebook.file.save_finally(&notebook.document, self.context.clock.now().tick).await
        {
            tracing::warn!(session = %self.session.spec.id, problem, "not saved at the daemon's end");
        }
        Ok(())
    }

    async fn disown(&mut self) {
        let stop = ToShim::Stop { why: StopWhy::Disowned, from: outlive_core::runtime::StopStep::Term };
        self.order(self.session.process(), stop).await;
    }
}

/// A fresh id for a report.
pub(super) fn report_id() -> ReportId {
    ReportId::from_uuid(Uuid::now_v7())
}
