//! The log as its owner writes it: one append in flight, fenced by the claim, folded as it is acknowledged.

use std::sync::Arc;
use std::time::Duration;

use outlive_core::id::{Position, ProcessKey, RunId, Seq, SessionId, Src};
use outlive_core::limits::STORE_RETRY_MS;
use outlive_core::log::fold::{Effect, Fold, Ownership, Verdict};
use outlive_core::log::record::ControlChange;
use outlive_core::log::{Chunk, Control, Entry, Fenced, FencedBody, Lane, Record, RunRecord, Source};
use outlive_core::session::Fact;
use outlive_store::{AppendError, Durability, Engine, Guard, LaneFilter, ReadError, ReadLimit};

use tokio_util::sync::CancellationToken;

use super::with_sources;
use crate::context::Context;
use crate::seams::{Bus, Clock};

/// Why the owner cannot go on writing.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Somebody else owns the session: stop, touch nothing.
    #[error("the session is owned by somebody else")]
    Fenced,
    /// The store does not take it.
    #[error("the log cannot be written")]
    Store(#[source] AppendError),
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Read(#[from] ReadError),
}

/// A session's log and its fold.
pub struct Journal {
    session: SessionId,
    engine: Arc<dyn Engine>,
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    /// The daemon ends: a store that is unavailable is not waited for.
    stop: CancellationToken,
    fold: Fold,
    claim: Position,
}

impl Journal {
    /// Folds the log of a session, giving each record that counts to `each`, then claims the session.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn claim(
        session: SessionId,
        context: &Context,
        mut each: impl FnMut(&Entry, &Effect),
    ) -> Result<Self, WriteError> {
        let who = context.who;
        let mut journal = Self {
            session,
            engine: Arc::clone(&context.engine),
            bus: Arc::clone(&context.bus),
            clock: Arc::clone(&context.clock),
            stop: context.stop.clone(),
            fold: Fold::default(),
            claim: Position(0),
        };
        journal.read_on(&mut each).await?;
        loop {
            let change =
                ControlChange::Claim { epoch: journal.fold.epoch().next(), node: who.node, boot: who.boot };
            let record = Record::Control(Control { prev: journal.fold.control_prev(), change });
            let guard = Guard::Previous(journal.fold.control_guard());
            let appended =
                journal.engine.append(session, Lane::Control, guard, &record, Durability::Synced).await;
            match appended {
                Ok(position) => {
                    journal.fold.push(&Entry { position, lane: Lane::Control, record });
                    journal.claim = position;
                    return Ok(journal);
                }
                // Somebody was quicker, or our own append is there without its answer: look.
                Err(AppendError::Conflict { .. } | AppendError::Unknown) => {
                    journal.read_on(&mut each).await?;
                    if let Some(claim) = journal.fold.claim()
                        && claim.boot == who.boot
                    {
                        journal.claim = claim.position;
                        return Ok(journal);
                    }
                }
                Err(error) => return Err(WriteError::Store(error)),
            }
        }
    }

    async fn read_on(&mut self, each: &mut impl FnMut(&Entry, &Effect)) -> Result<(), WriteError> {
        loop {
            let page = self
                .engine
                .read(self.session, self.fold.position(), &LaneFilter::All, ReadLimit::default())
                .await?;
            if page.entries.is_empty() {
                return Ok(());
            }
            for entry in &page.entries {
                if let Verdict::Counted(effect) = self.fold.push(entry) {
                    each(entry, &effect);
                }
            }
        }
    }

    /// The fold of the log so far.
    pub fn fold(&self) -> &Fold {
        &self.fold
    }

    /// The position of the last record.
    pub fn position(&self) -> Position {
        self.fold.position()
    }

    /// Up to where a process's records are in the log.
    pub fn acked(&self, process: ProcessKey) -> Src {
        self.fold.acked(process)
    }

    /// The last chunk of a run.
    pub fn head(&self, run: RunId) -> Seq {
        self.fold.run(run).map_or(Seq(0), outlive_core::log::fold::RunFold::head)
    }

    /// Appends a fact. Returns the entry as readers see it.
    pub async fn fact(&mut self, fact: &Fact, source: Option<Source>) -> Result<Arc<Entry>, WriteError> {
        let (lane, body, durability) = match fact {
            Fact::Journal(event) => {
                (Lane::Journal, FencedBody::Journal(vec![event.clone()]), Durability::Written)
            }
            Fact::RunOpened { run, attempt, base, at } => {
                let base = base.unwrap_or_else(|| self.head(*run));
                let open = RunRecord::Open { attempt: *attempt, base, at: *at };
                (Lane::Run(*run), FencedBody::Run(open), Durability::Written)
            }
            Fact::RunEnded { run, outcome, report, execution_count, at } => {
                let attempt =
                    self.fold.run(*run).map(outlive_core::log::fold::RunFold::attempt).unwrap_or_default();
                let end = RunRecord::End {
                    attempt,
                    outcome: outcome.clone(),
                    last_seq: self.head(*run),
                    report: report.clone(),
                    execution_count: *execution_count,
                    at: *at,
                };
                (Lane::Run(*run), FencedBody::Run(end), Durability::Synced)
            }
        };
        self.append(lane, body, source, durability).await
    }

    /// Appends output of an open run.
    pub async fn output(
        &mut self,
        run: RunId,
        chunks: Vec<Chunk>,
        source: Option<Source>,
    ) -> Result<Arc<Entry>, WriteError> {
        let attempt = self.fold.run(run).map(outlive_core::log::fold::RunFold::attempt).unwrap_or_default();
        let data = RunRecord::Data { attempt, first: self.head(run).next(), chunks };
        self.append(Lane::Run(run), FencedBody::Run(data), source, Durability::Written).await
    }

    /// Appends output that belongs to no open run.
    pub async fn stray(
        &mut self,
        process: ProcessKey,
        origin: Option<RunId>,
        chunks: Vec<Chunk>,
        source: Option<Source>,
    ) -> Result<Arc<Entry>, WriteError> {
        let body = FencedBody::Runtime { process, origin, chunks };
        self.append(Lane::Runtime, body, source, Durability::Written).await
    }

    /// Appends a snapshot of the document.
    pub async fn document(&mut self, bytes: Vec<u8>) -> Result<Arc<Entry>, WriteError> {
        self.append(Lane::Document, FencedBody::Document(bytes), None, Durability::Synced).await
    }

    /// Nothing more will be written.
    pub async fn close(&mut self) -> Result<(), WriteError> {
        let change = ControlChange::Close { claim: self.claim };
        let record = Record::Control(Control { prev: self.fold.control_prev(), change });
        let guard = Guard::Previous(self.fold.control_guard());
        let position = self
            .engine
            .append(self.session, Lane::Control, guard, &record, Durability::Synced)
            .await
            .map_err(WriteError::Store)?;
        let entry = Entry { position, lane: Lane::Control, record };
        self.fold.push(&entry);
        self.bus.publish(self.session, Arc::new(entry));
        Ok(())
    }

    /// The same bytes until they are acknowledged; on a refusal or a lost answer, look who owns the session first.
    async fn append(
        &mut self,
        lane: Lane,
        body: FencedBody,
        source: Option<Source>,
        durability: Durability,
    ) -> Result<Arc<Entry>, WriteError> {
        let record = Record::Fenced(Fenced { claim: self.claim, source, body });
        loop {
            let guard = Guard::Claim(self.claim);
            match self.engine.append(self.session, lane, guard, &record, durability).await {
                Ok(position) => {
                    let entry = Arc::new(Entry { position, lane, record });
                    if let Verdict::Alarm(why) = self.fold.push(&entry) {
                        tracing::error!(session = %self.session, ?why, "an append of the owner does not count");
                    }
                    self.bus.publish(self.session, Arc::clone(&entry));
                    return Ok(entry);
                }
                Err(AppendError::Conflict { .. } | AppendError::Unknown) => {
                    if let Some(entry) = self.look_for(&record).await? {
                        return Ok(entry);
                    }
                }
                // A full disk: the processes go on, their shims keep what they write.
                Err(AppendError::Unavailable(error)) => {
                    tracing::warn!(session = %self.session, error = %with_sources(&error), "the log is not taken");
                    let again = self.clock.now().tick + Duration::from_millis(STORE_RETRY_MS);
                    tokio::select! {
                        biased;
                        () = self.stop.cancelled() => return Err(WriteError::Store(error.into())),
                        () = self.clock.until(again) => {}
                    }
                }
                Err(error) => return Err(WriteError::Store(error)),
            }
        }
    }

    /// After a lost answer: our record if it is there, `None` if it is not and the session is still ours.
    async fn look_for(&mut self, record: &Record) -> Result<Option<Arc<Entry>>, WriteError> {
        let mut ours = None;
        let (session, bus) = (self.session, Arc::clone(&self.bus));
        self.read_on(&mut |entry, _| {
            let entry = Arc::new(entry.clone());
            if entry.record == *record {
                ours = Some(Arc::clone(&entry));
            }
            bus.publish(session, entry);
        })
        .await?;
        match self.fold.ownership() {
            Ownership::Claimed(claim) if claim.position == self.claim => Ok(ours),
            Ownership::Claimed(_) | Ownership::Unclaimed | Ownership::Released { .. } | Ownership::Closed => {
                Err(WriteError::Fenced)
            }
        }
    }
}
