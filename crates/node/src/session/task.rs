//! The task that owns a session.
//!
//! ```text
//!  shim's records ─┐
//!  timers ─────────┤► one input ─► decide ─► facts to the log ─► apply ─► effects ─► advance … ─► view
//!  mailbox ────────┘   (timers first, the others in turns)
//! ```

mod asked;
mod document;
mod file;
mod leaving;
mod peers;
mod process;
mod required;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use outlive_core::failover::Takeover;
use outlive_core::id::{ReportId, RunId};
use outlive_core::log::fold::Effect as LogEffect;
use outlive_core::log::{Entry, FencedBody, Record, RunRecord, Source};
use outlive_core::session::event::{Happened, SessionEvent};
use outlive_core::session::input::Timer;
use outlive_core::session::residence::Resident;
use outlive_core::session::{Decision, Denied, Fact, Input, Session, advance, apply, decide, timers};
use outlive_core::time::Tick;
use outlive_protocol::http::SessionView;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::handle::{Giving, Message, Peers, ended, moving};
use super::journal::{Journal, WriteError};
use super::notebook::{Done, NotebookPlane};
use super::peers::Wish;
use super::view;
use crate::cluster::fenced;
use crate::context::Context;
use crate::problem;
use crate::seams::{FromLink, Link};
use crate::watch::feed::Feed;
use leaving::Left;

#[cfg(test)]
pub(super) use file::tests::world::{Daemon, Doom, PATIENCE, World};
use required::Waiting;

/// A session and all that its task holds for it.
pub(super) struct Task {
    pub(super) context: Arc<Context>,
    pub(super) session: Session,
    pub(super) journal: Journal,
    pub(super) notebook: Option<NotebookPlane>,
    pub(super) link: Option<Link>,
    pub(super) timers: BTreeMap<Timer, Tick>,
    pub(super) mailbox: mpsc::Receiver<Message>,
    /// Those who wait for edits; at most `REQUIRED_WAITING_MAX`.
    pub(super) waiting: Vec<Waiting>,
    /// Runs that are forgotten and still in the log.
    pub(super) forgotten: BTreeSet<RunId>,
    pub(super) view: watch::Sender<Arc<SessionView>>,
    pub(super) feed: Arc<Feed>,
    pub(super) peers: Arc<Peers>,
    pub(super) resident: watch::Sender<Resident>,
    pub(super) blobs: String,
    pub(super) stop: CancellationToken,
    /// Another node has the session.
    pub(super) lost: CancellationToken,
    /// How the session came here from another node, until that is recorded.
    pub(super) taken: Option<Box<Takeover>>,
    /// It is being given away.
    pub(super) giving: Option<Giving>,
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

/// Who was heard last and so is heard last now: in turns, so that a program that prints for ever, somebody who types
/// for ever and somebody who asks for ever delay each other by one round only. What is due comes before all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    Shim,
    Mailbox,
    Peers,
}

/// What woke the task.
enum Woken {
    Link(Option<FromLink>),
    Timer(Timer),
    File(Box<Done>),
    FileDue,
    /// Somebody has come or gone.
    Moved,
    /// Nobody needs it in memory any more.
    LeaveDue,
    /// Outputs are to be shown to those who edit live.
    ProjectDue,
    /// Somebody has waited long enough for edits.
    WaitedEnough,
    Peers(Wish),
    Asked(Option<Message>),
    Stopped,
}

impl Task {
    /// Runs until the session has ended, the daemon stops, or the session is lost to somebody else.
    pub(super) async fn run(mut self) {
        let (id, lost) = (self.session.spec.id, self.lost.clone());
        let driven = tokio::select! {
            biased;
            () = lost.cancelled() => Err(WriteError::Fenced),
            driven = self.drive() => driven,
        };
        let Err(error) = driven else { return };
        let why = match &error {
            WriteError::Fenced => {
                tracing::warn!(session = %id, "append refused as fenced: somebody else owns the session; its processes are killed");
                self.disown();
                self.context.metrics.cluster.fenced();
                if self.context.give_up(id) {
                    return;
                }
                "another daemon owns it".to_owned()
            }
            error => {
                let why = super::notebook::with_sources(error);
                tracing::error!(session = %id, error = %why, "the session cannot go on");
                why
            }
        };
        // Before anybody can take it up again: then the tail is that of another task.
        self.context.bus.close(id);
        self.context.broken(id, why);
    }

    async fn drive(&mut self) -> Result<(), WriteError> {
        if let Some(plane) = &mut self.notebook {
            plane.document.take_stock(&self.session);
        }
        if let Some(takeover) = self.taken.take() {
            self.taken_over(takeover).await?;
        }
        self.follow_volume().await?;
        self.take_up_file().await?;
        self.settle().await?;
        let mut last = Turn::Mailbox;
        loop {
            match self.life {
                Life::Going => {}
                Life::LastSave => {
                    self.save_finally().await?;
                    continue;
                }
                Life::Over => return self.finish().await,
            }
            let woken = self.wait(last).await;
            match &woken {
                Woken::Link(_) => last = Turn::Shim,
                Woken::Asked(_) => last = Turn::Mailbox,
                Woken::Peers(_) => last = Turn::Peers,
                Woken::Timer(_)
                | Woken::File(_)
                | Woken::FileDue
                | Woken::ProjectDue
                | Woken::WaitedEnough
                | Woken::Moved
                | Woken::LeaveDue
                | Woken::Stopped => {}
            }
            match woken {
                Woken::Link(event) => self.linked(event).await?,
                Woken::Timer(timer) => {
                    self.timers.remove(&timer);
                    self.input(Input::Timer(timer), None).await?.ok();
                }
                Woken::File(done) => self.file_done(*done).await?,
                Woken::FileDue => self.go_on_with_file().await?,
                Woken::ProjectDue => self.project_outputs().await?,
                Woken::WaitedEnough => {}
                Woken::Peers(wish) => self.peers_wish(wish).await?,
                Woken::Moved => {
                    self.look_around();
                    let shown = Arc::clone(&self.view.borrow());
                    if (shown.peers, shown.rests_at) != (self.peers.attached(), self.peers.resting_at()) {
                        self.show();
                    }
                }
                Woken::LeaveDue => {
                    if self.evict().await? == Left::Yes {
                        return Ok(());
                    }
                }
                Woken::Asked(Some(message)) => self.asked(message).await?,
                Woken::Asked(None) | Woken::Stopped => return self.leave().await,
            }
            if !self.waiting.is_empty() {
                self.release_waiting().await?;
            }
            if self.is_given() {
                return self.give_away().await;
            }
            self.compact().await?;
            self.show_saved();
        }
    }

    async fn wait(&mut self, last: Turn) -> Woken {
        let deadline = self.deadline();
        let clock = Arc::clone(&self.context.clock);
        let (mut file, mut peers) = (None, None);
        if let Some(plane) = &mut self.notebook {
            (file, peers) = (Some(&mut plane.file), Some(&mut plane.peers));
        }
        let due = async {
            tokio::select! {
                biased;
                woken = async {
                    match deadline {
                        Some((at, woken)) => { clock.until(at).await; woken }
                        None => std::future::pending().await,
                    }
                } => woken,
                done = async {
                    match &mut file {
                        Some(file) => file.next().await,
                        None => std::future::pending().await,
                    }
                } => Woken::File(Box::new(done)),
                () = self.peers.moved() => Woken::Moved,
            }
        };
        let shim = async {
            match &mut self.link {
                Some(link) => Woken::Link(link.from.recv().await),
                None => std::future::pending().await,
            }
        };
        let asked = async { Woken::Asked(self.mailbox.recv().await) };
        let edited = async {
            match &mut peers {
                Some(peers) => Woken::Peers(peers.next().await),
                None => std::future::pending().await,
            }
        };
        let stopped = self.stop.cancelled();
        match last {
            Turn::Peers => tokio::select! {
                biased;
                () = stopped => Woken::Stopped,
                woken = due => woken,
                woken = shim => woken,
                woken = asked => woken,
                woken = edited => woken,
            },
            Turn::Shim => tokio::select! {
                biased;
                () = stopped => Woken::Stopped,
                woken = due => woken,
                woken = asked => woken,
                woken = edited => woken,
                woken = shim => woken,
            },
            Turn::Mailbox => tokio::select! {
                biased;
                () = stopped => Woken::Stopped,
                woken = due => woken,
                woken = edited => woken,
                woken = shim => woken,
                woken = asked => woken,
            },
        }
    }

    /// What is due next, and when.
    fn deadline(&mut self) -> Option<(Tick, Woken)> {
        // Not in the middle of a save: its end is waited for, and wakes the task.
        let is_saving = self.notebook.as_ref().is_some_and(|plane| plane.file.is_working());
        let leaves_at = self.leaves_at().filter(|_| !is_saving).map(|at| (at, Woken::LeaveDue));
        let waited_enough = self.waiting_until().map(|at| (at, Woken::WaitedEnough));
        let (mut file_due, mut project_due) = (None, None);
        if let Some(plane) = &mut self.notebook {
            file_due = plane.file.due().map(|at| (at, Woken::FileDue));
            project_due = plane.project_due().map(|at| (at, Woken::ProjectDue));
        }
        let timers = self.timers.iter().map(|(timer, at)| (*at, Woken::Timer(*timer)));
        let all = timers.chain(file_due).chain(project_due).chain(waited_enough).chain(leaves_at);
        all.min_by_key(|(at, _)| *at)
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
        rearm(&mut self.timers, timers(&self.session, now), now.tick);
        self.look_around();
        self.show();
        Ok(())
    }

    /// Facts first, effects after. The records of the shim are accounted for by the last fact. Of many runs that end
    /// together only the last waits for the disk.
    async fn carry_out(&mut self, decision: Decision, source: Option<Source>) -> Result<(), WriteError> {
        let last = decision.facts.len();
        let last_end = decision.facts.iter().rposition(|fact| matches!(fact, Fact::RunEnded { .. }));
        for (n, fact) in decision.facts.iter().enumerate() {
            let source = source.filter(|_| n + 1 == last);
            let entry = if last_end.is_some_and(|end| n < end) {
                self.journal.fact_before(fact, source).await?
            } else {
                self.journal.fact(fact, source).await?
            };
            self.context.metrics.happened(fact);
            apply(&mut self.session, fact);
            self.project(&entry, fact);
            if let Fact::Journal(SessionEvent { what: Happened::RunsForgotten { runs, .. }, .. }) = fact {
                self.forgotten.extend(runs);
            }
            let run = |id| view::run(&self.session, self.journal.fold(), id);
            let told = crate::watch::about(self.session.spec.id, run, fact);
            self.feed.publish(entry.position, told);
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
            (Fact::Journal(_), _) => LogEffect::Journal,
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
        view.rests_at = self.peers.resting_at();
        view.node = self.context.name();
        if let Some(notebook) = &self.notebook {
            view::in_file(&mut view, &notebook.file);
        }
        let epoch = self.journal.fold().epoch();
        self.view.send_if_modified(|before| {
            let view = view::behind(Some(before), view, epoch);
            let modified = view.generation > before.generation;
            self.context.shows(before, &view);
            *before = Arc::new(view);
            modified
        });
    }

    async fn save_finally(&mut self) -> Result<(), WriteError> {
        self.life = Life::Going;
        let problem = self.last_save().await?;
        // Before anybody can hear of its end: then its path is free.
        if let Some(notebook) = &mut self.notebook {
            notebook.file.release();
        }
        self.context.forget_paths_of(self.session.spec.id);
        self.input(Input::Saved { problem }, None).await?.ok();
        Ok(())
    }

    /// The session has ended: its log is closed, its path free.
    async fn finish(&mut self) -> Result<(), WriteError> {
        if let Some(mut plane) = self.notebook.take() {
            plane.peers.part_with(ended(self.session.spec.id));
        }
        self.journal.close().await?;
        let view = Arc::clone(&self.view.borrow());
        self.context.closed(&view, self.journal.fold().epoch()).await;
        self.context.bus.close(self.session.spec.id);
        Ok(())
    }

    /// The daemon stops and the processes go on: what can be saved is saved.
    async fn leave(&mut self) -> Result<(), WriteError> {
        if let Some(problem) = self.save_before_leaving().await? {
            tracing::warn!(session = %self.session.spec.id, problem, "not saved at the daemon's end");
        }
        if let Some(plane) = &mut self.notebook {
            plane.peers.part_with(problem::shutting_down());
        }
        self.context.bus.close(self.session.spec.id);
        Ok(())
    }

    /// Nothing of the session is ours any more.
    fn disown(&mut self) {
        self.lost.cancel();
        if let Some(link) = self.link.take() {
            fenced::kill(&self.context, link);
        }
        if let Some(plane) = &mut self.notebook {
            plane.peers.part_with(moving(self.session.spec.id));
        }
    }
}

/// Arms the timers that are wanted and are not armed, and disarms those that are not wanted any more.
pub(crate) fn rearm<T: Ord>(timers: &mut BTreeMap<T, Tick>, wanted: Vec<(T, Duration)>, now: Tick) {
    let wanted: BTreeMap<_, _> = wanted.into_iter().collect();
    timers.retain(|timer, _| wanted.contains_key(timer));
    for (timer, after) in wanted {
        timers.entry(timer).or_insert(now + after);
    }
}

/// A fresh id for a report.
pub(crate) fn report_id() -> ReportId {
    ReportId::from_uuid(crate::ids::by_time())
}
