//! The task that owns a group.
//!
//! ```text
//!  each member's shim ─┐
//!  timers ─────────────┤► one input ─► decide ─► facts to the log ─► apply ─► effects ─► advance … ─► view
//!  mailbox ────────────┘   (timers first, the others in turns)
//! ```
//! It is to `core::group` what a session's task is to `core::session`; what differs is that it has several processes and
//! no document.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use outlive_core::failover::Takeover;
use outlive_core::group::{
    Decision, Denied, Group, GroupEvent, Input, Timer, advance, apply, can_release, decide, timers,
};
use outlive_core::id::{Position, ProcessKey, RunId};
use outlive_core::limits::RUNS_TRIMMED_AT_ONCE;
use outlive_core::log::Source;
use outlive_core::session::Fact;
use outlive_core::session::event::{Happened, SessionEvent};
use outlive_core::session::residence::{Residence, Resident};
use outlive_core::time::Tick;
use outlive_protocol::http::SessionView;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::links::Links;
use super::replay::Replays;
use super::view::{self, Loading};
use crate::cluster::fenced;
use crate::context::Context;
use crate::seams::FromLink;
use crate::session::handle::{Answer, Giving, Message, Peers};
use crate::session::journal::{Journal, WriteError};
use crate::session::view::behind;
use crate::session::{rearm, with_sources};
use crate::watch::feed::Feed;

/// A group and all that its task holds for it.
pub(super) struct Task {
    pub(super) context: Arc<Context>,
    pub(super) group: Group,
    pub(super) journal: Journal,
    pub(super) links: Links,
    pub(super) timers: BTreeMap<Timer, Tick>,
    /// Tasks that are forgotten and whose records are still in the log.
    pub(super) forgotten: BTreeSet<RunId>,
    /// What tasks have said that are replayed exactly.
    pub(super) replays: Replays,
    pub(super) loading: Loading,
    pub(super) mailbox: mpsc::Receiver<Message>,
    pub(super) view: watch::Sender<Arc<SessionView>>,
    pub(super) feed: Arc<Feed>,
    pub(super) peers: Arc<Peers>,
    pub(super) resident: watch::Sender<Resident>,
    pub(super) blobs: String,
    pub(super) stop: CancellationToken,
    /// Another node has the group.
    pub(super) lost: CancellationToken,
    /// How the group came here from another node, until that is recorded.
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
    /// The group has ended.
    Over,
}

/// Who was heard last and so is heard last now, so that runners that print for ever and somebody who asks for ever
/// delay each other by one round only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    Shims,
    Mailbox,
}

/// What woke the task.
enum Woken {
    Link(ProcessKey, Option<FromLink>),
    Timer(Timer),
    /// Somebody has come or gone.
    Moved,
    Asked(Option<Message>),
    Stopped,
}

impl Task {
    /// Runs until the group has ended, the daemon stops, or the group is lost to somebody else.
    pub(super) async fn run(mut self) {
        let (id, lost) = (self.group.spec.id, self.lost.clone());
        let driven = tokio::select! {
            biased;
            () = lost.cancelled() => Err(WriteError::Fenced),
            driven = self.drive() => driven,
        };
        let Err(error) = driven else { return };
        let why = match &error {
            WriteError::Fenced => {
                tracing::warn!(session = %id, "append refused as fenced: somebody else owns the group; its processes are killed");
                self.disown();
                self.context.metrics.cluster.fenced();
                if self.context.give_up(id) {
                    return;
                }
                "another daemon owns it".to_owned()
            }
            error => {
                let why = with_sources(error);
                tracing::error!(session = %id, error = %why, "the group cannot go on");
                why
            }
        };
        // Before anybody can take it up again: then the tail is that of another task.
        self.context.bus.close(id);
        self.context.broken(id, why);
    }

    async fn drive(&mut self) -> Result<(), WriteError> {
        if let Some(takeover) = self.taken.take() {
            self.taken_over(takeover).await?;
        }
        self.settle().await?;
        let mut last = Turn::Mailbox;
        while self.life == Life::Going {
            match self.wait(last).await {
                Woken::Link(process, event) => {
                    last = Turn::Shims;
                    self.linked(process, event).await?;
                }
                Woken::Asked(Some(message)) => {
                    last = Turn::Mailbox;
                    self.asked(message).await?;
                }
                Woken::Timer(timer) => {
                    self.timers.remove(&timer);
                    self.input(Input::Timer(timer), None).await?.ok();
                }
                Woken::Moved => self.show(),
                Woken::Asked(None) | Woken::Stopped => {
                    // The daemon stops and the runners go on.
                    self.context.bus.close(self.group.spec.id);
                    return Ok(());
                }
            }
            if self.giving.is_some() && can_release(&self.group) {
                return self.give_away().await;
            }
        }
        self.finish().await
    }

    async fn wait(&mut self, last: Turn) -> Woken {
        let due = self.timers.iter().min_by_key(|(_, at)| **at).map(|(timer, at)| (*timer, *at));
        let clock = Arc::clone(&self.context.clock);
        let due = async {
            tokio::select! {
                biased;
                timer = async {
                    match due {
                        Some((timer, at)) => { clock.until(at).await; timer }
                        None => std::future::pending().await,
                    }
                } => Woken::Timer(timer),
                () = self.peers.moved() => Woken::Moved,
            }
        };
        let shims = async {
            let (process, event) = self.links.next().await;
            Woken::Link(process, event)
        };
        let asked = async { Woken::Asked(self.mailbox.recv().await) };
        let stopped = self.stop.cancelled();
        match last {
            Turn::Shims => tokio::select! {
                biased;
                () = stopped => Woken::Stopped,
                woken = due => woken,
                woken = asked => woken,
                woken = shims => woken,
            },
            Turn::Mailbox => tokio::select! {
                biased;
                () = stopped => Woken::Stopped,
                woken = due => woken,
                woken = shims => woken,
                woken = asked => woken,
            },
        }
    }

    /// Decides one input, stores and applies what follows, and all that follows from that.
    pub(super) async fn input(
        &mut self,
        input: Input,
        source: Option<Source>,
    ) -> Result<Result<(), Denied>, WriteError> {
        let now = self.context.clock.now();
        let decision = match decide(&self.group, input, now) {
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
            let decision = advance(&self.group, self.context.clock.now());
            if decision.is_none() {
                break;
            }
            self.carry_out(decision, None).await?;
        }
        let now = self.context.clock.now();
        rearm(&mut self.timers, timers(&self.group, now), now.tick);
        self.show();
        Ok(())
    }

    /// Facts first, effects after. The records of a shim are accounted for by the last fact.
    pub(super) async fn carry_out(
        &mut self,
        decision: Decision,
        source: Option<Source>,
    ) -> Result<(), WriteError> {
        let last = decision.facts.len();
        let last_end = decision.facts.iter().rposition(|fact| matches!(fact, Fact::RunEnded { .. }));
        for (n, fact) in decision.facts.iter().enumerate() {
            let source = source.filter(|_| n + 1 == last);
            let entry = if last_end.is_some_and(|last| n < last) {
                self.journal.fact_before(fact, source).await?
            } else {
                self.journal.fact(fact, source).await?
            };
            self.follow(fact, entry.position).await?;
        }
        for effect in decision.effects {
            self.effect(effect).await;
        }
        Ok(())
    }

    /// Makes a fact true that is stored, then tells it.
    pub(super) async fn follow(&mut self, fact: &Fact, position: Position) -> Result<(), WriteError> {
        self.context.metrics.happened(fact);
        if let Fact::RunEnded { outcome, .. } = fact {
            self.context.metrics.task_ended(outcome);
        }
        apply(&mut self.group, fact);
        match fact {
            Fact::RunOpened { run, base, .. } => self.replays.opened(&self.group, *run, base.is_some()),
            Fact::RunTold { run, chunks } => self.replays.appended(*run, chunks.iter()),
            Fact::RunCheckpointed { run, .. } => self.replays.checkpointed(*run),
            Fact::RunEnded { run, .. } => self.replays.ended(*run),
            Fact::Journal(_) => {}
        }
        let run = |id| view::task(&self.group, self.journal.fold(), id);
        let told = crate::watch::about(self.group.spec.id, run, fact);
        self.feed.publish(position, told);
        let Fact::Journal(SessionEvent { what, .. }) = fact else { return Ok(()) };
        match what {
            Happened::RuntimeLaunching(process) => {
                self.loading.remove(&process.runtime);
                if process.incarnation.0 > 1 {
                    self.context.metrics.runner_restarted();
                }
                Ok(())
            }
            Happened::Group(GroupEvent::TasksForgotten { runs, .. }) => {
                self.forgotten.extend(runs);
                self.trim().await
            }
            _ => Ok(()),
        }
    }

    /// Forgotten tasks leave the log too, many at a time: that rewrites parts of it, beside this task.
    async fn trim(&mut self) -> Result<(), WriteError> {
        if self.forgotten.len() < RUNS_TRIMMED_AT_ONCE {
            return Ok(());
        }
        let runs = std::mem::take(&mut self.forgotten);
        let processes: Vec<_> = self.group.members.iter().map(|member| member.process()).collect();
        let trimming = self.journal.forget_runs(runs, &processes).await?;
        self.context.tasks.spawn(trimming);
        Ok(())
    }

    pub(super) fn show(&self) {
        let there = self.peers.there();
        let position = self.journal.position();
        let mut view = view::group(&self.group, position, self.peers.attached(), &self.loading);
        view.node = self.context.name();
        let epoch = self.journal.fold().epoch();
        self.view.send_if_modified(|before| {
            let view = behind(Some(before), view, epoch);
            let modified = view.generation > before.generation;
            *before = Arc::new(view);
            modified
        });
        // Runners are kept up whoever is there, so a group never leaves memory.
        let residence = if there > 0 { Residence::Watched(there) } else { Residence::Working };
        self.resident.send_if_modified(|resident| {
            let is_new = resident.residence != residence;
            resident.residence = residence;
            is_new
        });
    }

    /// Gives the group away: nothing of it runs. The task ends.
    async fn give_away(&mut self) -> Result<(), WriteError> {
        let (to, answer) = self.giving.take().map(|giving| (giving.to, giving.answer)).unzip();
        self.journal.release(to.flatten()).await?;
        self.context.unname_group(&self.group.spec.name, self.group.spec.id);
        let view = self.view.borrow().as_ref().clone();
        self.context.given_away(&view, self.journal.fold().epoch()).await;
        if let Some(answer) = answer {
            let _gone = answer.send(Ok(Answer::Released));
        }
        // Nothing is waited for after this: whoever still asks here is sent on.
        self.lost.cancel();
        Ok(())
    }

    /// The group has ended: its name is free, its log is closed.
    async fn finish(&mut self) -> Result<(), WriteError> {
        let spec = &self.group.spec;
        self.context.unname_group(&spec.name, spec.id);
        super::names::release(&self.context, &spec.name, spec.id).await;
        self.journal.close().await?;
        let view = Arc::clone(&self.view.borrow());
        self.context.closed(&view, self.journal.fold().epoch()).await;
        self.context.bus.close(self.group.spec.id);
        Ok(())
    }

    /// Nothing of the group is ours any more.
    fn disown(&mut self) {
        self.lost.cancel();
        self.context.unname_group(&self.group.spec.name, self.group.spec.id);
        for link in std::mem::take(&mut self.links).into_all() {
            fenced::kill(&self.context, link);
        }
    }
}

#[cfg(test)]
mod tests;
