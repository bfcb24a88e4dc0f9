//! The log as its owner writes it: one append in flight, fenced by the claim, folded as it is acknowledged.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use outlive_core::failover::{Claimable, Deposes, Member, claimable};
use outlive_core::id::{Epoch, NodeId, Position, ProcessKey, RunId, Seq, SessionId, Src};
use outlive_core::limits::{RELEASED_TO_MS, STORE_DOUBT_MS, STORE_RETRY_MS};
use outlive_core::log::fold::{Claim, Effect, Fold, Ownership, Verdict};
use outlive_core::log::record::ControlChange;
use outlive_core::log::{
    BlobRef, Chunk, Control, Entry, Fenced, FencedBody, Lane, Record, RunRecord, Source,
};
use outlive_core::session::Fact;
use outlive_store::{
    AppendError, BlobError, Durability, Engine, Guard, LaneFilter, Page, ReadError, ReadLimit, Unavailable,
};

use tokio_util::sync::CancellationToken;

use super::notebook::restore::RestoreError;
use super::open::control;
use super::stall::Stall;
use super::with_sources;
use crate::blobs::{self, Listed, OfDocument, Unnamed};
use crate::bus::Held;
use crate::context::Context;
use crate::seams::{Bus, Clock};

/// Why the owner cannot go on writing.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Somebody else owns the session: stop, touch nothing.
    #[error("the session is owned by somebody else")]
    Fenced,
    /// Somebody has it whom the claimant may not depose; nothing was written.
    #[error("the session is owned by node {}, epoch {}", .0.node, .0.epoch)]
    Taken(Claim),
    /// The session has ended; nothing was written.
    #[error("the session has ended")]
    Closed,
    /// The store does not take it.
    #[error("the log cannot be written")]
    Store(#[source] AppendError),
    /// What is too large for the log cannot be put beside it.
    #[error("a part of the notebook cannot be kept")]
    Blob(#[source] BlobError),
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Read(#[from] ReadError),
    /// The notebook cannot be had from the log again.
    #[error("the notebook cannot be read again")]
    Document(#[source] Box<RestoreError>),
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
    /// It is published here.
    owning: Option<Held>,
    /// Whether the store takes what is written.
    stall: Arc<Stall>,
    /// What of the document is beside the log.
    beside: OfDocument,
    /// Old blobs that nothing in the log has named so far.
    unnamed: Unnamed,
}

/// A session that is claimed, and whose log is not read yet: what stands before the claim is final.
#[must_use]
pub struct Claimed {
    journal: Journal,
    /// Which claim of the session it is.
    pub epoch: Epoch,
}

impl Claimed {
    /// Looks for blobs that nothing names any more, while the log is read. Only for a session without a process: the shim
    /// of one may have put what it has not told of for hours.
    pub async fn look_for_unnamed(&mut self) {
        self.journal.unnamed = Unnamed::list(&*self.journal.engine, self.journal.session).await;
    }

    /// Reads the log, giving each record that counts to `each`.
    ///
    /// # Errors
    /// [`WriteError`]; `Fenced` when somebody has taken it meanwhile.
    pub async fn read(self, each: impl FnMut(&Entry, &Effect)) -> Result<Journal, WriteError> {
        self.read_with(None, each).await
    }

    /// As [`Self::read`]. What output is beside the log is brought into `folder` before its record is given to `each`:
    /// another node may have put it there.
    ///
    /// # Errors
    /// [`WriteError`]; `Fenced` when somebody has taken it meanwhile.
    pub async fn read_with(
        self,
        folder: Option<&Path>,
        mut each: impl FnMut(&Entry, &Effect),
    ) -> Result<Journal, WriteError> {
        let mut journal = self.journal;
        // Who watches it here is told by its task from now on.
        journal.owning = Some(journal.bus.own(journal.session));
        while let Some(page) = journal.next_page().await? {
            if let Some(folder) = folder {
                for blob in page.entries.iter().flat_map(blobs::of_output) {
                    if let Err(error) = blobs::bring(&*journal.engine, journal.session, folder, blob).await {
                        // The notebook says so where it would be.
                        tracing::warn!(session = %journal.session, error = %with_sources(&error), "an output is not had");
                    }
                }
            }
            journal.take(&page, &mut each);
        }
        if journal.fold.is_current(journal.claim) { Ok(journal) } else { Err(WriteError::Fenced) }
    }
}

impl Journal {
    /// Claims a session that this node may have: one that nobody has, one of an earlier life of its own, or that of this
    /// member, which is lost. A node that is alone may have them all.
    ///
    /// # Errors
    /// [`WriteError`]. Nothing is written where somebody else has it.
    pub async fn claim(
        session: SessionId,
        context: &Context,
        deposes: Option<Member>,
    ) -> Result<Claimed, WriteError> {
        let me = Member { node: context.who.node, boot: context.who.boot };
        let deposes = match (&context.cluster, deposes) {
            (None, _) => Deposes::Anybody,
            (Some(_), None) => Deposes::Itself,
            (Some(_), Some(lost)) => Deposes::Member(lost),
        };
        let mut journal = Self {
            session,
            engine: Arc::clone(&context.engine),
            bus: Arc::clone(&context.bus),
            clock: Arc::clone(&context.clock),
            stop: context.stop.clone(),
            fold: Fold::default(),
            claim: Position(0),
            owning: None,
            stall: Arc::default(),
            beside: OfDocument::default(),
            unnamed: Unnamed::default(),
        };
        let (mut patience, mut waited, mut tried) = (Patience::default(), None, None);
        loop {
            let control = control(&*context.engine, session).await?.fold;
            // Our own append may be there without its answer.
            if let (Some(claim), Some(tried)) = (control.claim(), tried)
                && (claim.node, claim.boot) == (me.node, me.boot)
                && claim.epoch >= tried
            {
                journal.claim = claim.position;
                return Ok(Claimed { journal, epoch: claim.epoch });
            }
            match claimable(control.ownership(), me, deposes) {
                Claimable::Now => {}
                Claimable::AfterGrace { .. } if waited == Some(control.control_prev()) => {}
                Claimable::AfterGrace { to } => {
                    tracing::debug!(%session, %to, "it was given to another node, which is let go first");
                    waited = Some(control.control_prev());
                    Patience::wait(&journal, RELEASED_TO_MS, AppendError::Unknown).await?;
                    continue;
                }
                Claimable::Taken(claim) => return Err(WriteError::Taken(claim)),
                Claimable::Closed => return Err(WriteError::Closed),
            }
            let epoch = control.epoch().next();
            let change = ControlChange::Claim { epoch, node: me.node, boot: me.boot };
            let record = Record::Control(Control { prev: control.control_prev(), change });
            let guard = Guard::Previous(control.control_guard());
            tried = Some(epoch);
            let appended =
                context.engine.append(session, Lane::Control, guard, &record, Durability::Synced).await;
            match appended {
                Ok(position) => {
                    journal.claim = position;
                    return Ok(Claimed { journal, epoch });
                }
                // Somebody was quicker, or our own append is there without its answer: look.
                Err(error @ (AppendError::Conflict { .. } | AppendError::Unknown)) => {
                    patience.doubt(&journal, error).await?;
                }
                Err(error) => return Err(WriteError::Store(error)),
            }
        }
    }

    async fn read_on(&mut self, each: &mut impl FnMut(&Entry, &Effect)) -> Result<(), WriteError> {
        while let Some(page) = self.next_page().await? {
            self.take(&page, each);
        }
        Ok(())
    }

    /// What stands behind the records that are folded; `None` when nothing does.
    async fn next_page(&self) -> Result<Option<Page>, WriteError> {
        let (after, limit) = (self.fold.position(), ReadLimit::default());
        let page = self.engine.read(self.session, after, &LaneFilter::All, limit).await?;
        Ok((!page.entries.is_empty()).then_some(page))
    }

    fn take(&mut self, page: &Page, each: &mut impl FnMut(&Entry, &Effect)) {
        for entry in &page.entries {
            self.unnamed.push(entry);
            if let Verdict::Counted(effect) = self.fold.push(entry) {
                self.beside.push(entry);
                each(entry, &effect);
            }
        }
    }

    /// Whether the store takes what is written, live.
    pub fn stall(&self) -> Arc<Stall> {
        Arc::clone(&self.stall)
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
        self.fact_as(fact, source, Durability::Synced).await
    }

    /// As [`Self::fact`], where one that follows at once makes this one durable too: of many ends that one death makes,
    /// only the last waits for the disk.
    pub async fn fact_before(
        &mut self,
        fact: &Fact,
        source: Option<Source>,
    ) -> Result<Arc<Entry>, WriteError> {
        self.fact_as(fact, source, Durability::Written).await
    }

    /// `end` is how durable the end of a run is.
    async fn fact_as(
        &mut self,
        fact: &Fact,
        source: Option<Source>,
        end: Durability,
    ) -> Result<Arc<Entry>, WriteError> {
        let (lane, body, durability) = match fact {
            Fact::Journal(event) => {
                (Lane::Journal, FencedBody::Journal(vec![event.clone()]), Durability::Written)
            }
            Fact::RunOpened { run, attempt, base, at } => {
                let base = base.unwrap_or_else(|| self.head(*run));
                let open = RunRecord::Open { attempt: *attempt, base, at: *at };
                (Lane::Run(*run), FencedBody::Run(open), Durability::Written)
            }
            Fact::RunTold { run, chunks } => return self.output(*run, chunks.clone(), source).await,
            Fact::RunCheckpointed { run, attempt, seq, blob } => {
                let checkpoint = RunRecord::Checkpoint { attempt: *attempt, seq: *seq, blob: blob.clone() };
                (Lane::Run(*run), FencedBody::Run(checkpoint), Durability::Synced)
            }
            Fact::RunEnded { run, outcome, report, execution_count, at } => {
                let attempt =
                    self.fold.run(*run).map(outlive_core::log::fold::RunFold::attempt).unwrap_or_default();
                let record = RunRecord::End {
                    attempt,
                    outcome: outcome.clone(),
                    last_seq: self.head(*run),
                    report: report.clone(),
                    execution_count: *execution_count,
                    at: *at,
                };
                (Lane::Run(*run), FencedBody::Run(record), end)
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

    /// Appends a record of the document that must not be lost with the machine's power.
    pub async fn document(&mut self, bytes: Vec<u8>) -> Result<Arc<Entry>, WriteError> {
        self.append(Lane::Document, FencedBody::Document(bytes), None, Durability::Synced).await
    }

    /// Appends a change of the document.
    pub async fn update(&mut self, bytes: Vec<u8>, durability: Durability) -> Result<Arc<Entry>, WriteError> {
        self.append(Lane::Document, FencedBody::Document(bytes), None, durability).await
    }

    /// Puts what is too large for a record beside the log, so that a record can name it. A full disk is waited for.
    pub async fn beside(&self, bytes: &[u8], mime: &str) -> Result<BlobRef, WriteError> {
        let mut patience = Patience::default();
        loop {
            match self.engine.put_blob_bytes(self.session, bytes, mime).await {
                Ok(blob) => {
                    patience.taken(self);
                    return Ok(blob);
                }
                Err(BlobError::Unavailable(error)) => patience.refused(self, error).await?,
                Err(error) => return Err(WriteError::Blob(error)),
            }
        }
    }

    /// As [`Self::beside`], if there is something.
    pub async fn beside_if(&self, bytes: Option<&[u8]>, mime: &str) -> Result<Option<BlobRef>, WriteError> {
        match bytes {
            Some(bytes) => self.beside(bytes, mime).await.map(Some),
            None => Ok(None),
        }
    }

    /// What of the document is beside the log now, to be asked before the next snapshot is written. Then it is ours for
    /// certain what is listed here: whoever has the session after us puts anew what it needs.
    pub async fn list_beside(&self) -> Listed {
        self.beside.list(&*self.engine, self.session).await
    }

    /// Removes what the new snapshot has replaced of this, beside the task.
    pub fn remove_replaced(&self, listed: Listed) -> impl Future<Output = ()> + Send + use<> {
        blobs::remove(Arc::clone(&self.engine), self.session, self.beside.replaced(listed))
    }

    /// Old blobs that nothing in the log names, now that all of it was read. Once.
    pub fn take_unnamed(&mut self) -> Unnamed {
        std::mem::take(&mut self.unnamed)
    }

    /// Removes these, beside the task.
    pub fn remove_unnamed(&self, unnamed: Unnamed) -> impl Future<Output = ()> + Send + use<> {
        blobs::remove(Arc::clone(&self.engine), self.session, unnamed.into_listed())
    }

    /// What stands in the document lane before this may go. It is only a matter of space.
    pub async fn trim_document(&self, before: Position) {
        match self.engine.trim(self.session, &[Lane::Document].into(), before).await {
            Ok(bytes) => tracing::debug!(session = %self.session, bytes, "the document's log is shorter"),
            Err(error) => {
                tracing::warn!(session = %self.session, error = %with_sources(&error), "the document's log stays");
            }
        }
    }

    /// Forgets runs that these processes had; what is returned removes what the log has of them. It is only a matter of
    /// space.
    pub async fn forget_runs(
        &mut self,
        runs: BTreeSet<RunId>,
        processes: &[ProcessKey],
    ) -> Result<impl Future<Output = ()> + Send + use<>, WriteError> {
        for &process in processes {
            // What was accounted for by the records that go stays so.
            let (nothing, through) = (FencedBody::Journal(Vec::new()), self.acked(process));
            let source = Some(Source { process, through });
            self.append(Lane::Journal, nothing, source, Durability::Written).await?;
        }
        for run in &runs {
            self.fold.forget(*run);
        }
        let (engine, session, before) = (Arc::clone(&self.engine), self.session, self.position().next());
        Ok(async move {
            let lanes = runs.into_iter().map(Lane::Run).collect();
            match engine.trim(session, &lanes, before).await {
                Ok(bytes) => tracing::debug!(%session, bytes, "ended runs have left the log"),
                Err(error) => {
                    tracing::warn!(%session, error = %with_sources(&error), "ended runs stay in the log");
                }
            }
        })
    }

    /// Gives the session away: to this node, or to whoever wants it. Nothing more will be written.
    pub async fn release(&mut self, to: Option<NodeId>) -> Result<(), WriteError> {
        let change = ControlChange::Release { claim: self.claim, to };
        self.control(change).await
    }

    /// Nothing more will be written.
    pub async fn close(&mut self) -> Result<(), WriteError> {
        let change = ControlChange::Close { claim: self.claim };
        self.control(change).await
    }

    async fn control(&mut self, change: ControlChange) -> Result<(), WriteError> {
        let record = Record::Control(Control { prev: self.fold.control_prev(), change });
        self.put(Lane::Control, record, Durability::Synced).await.map(drop)
    }

    async fn append(
        &mut self,
        lane: Lane,
        body: FencedBody,
        source: Option<Source>,
        durability: Durability,
    ) -> Result<Arc<Entry>, WriteError> {
        let record = Record::Fenced(Fenced { claim: self.claim, source, body });
        self.put(lane, record, durability).await
    }

    /// The same bytes until they are acknowledged; on a refusal or a lost answer, look who owns the session first.
    async fn put(
        &mut self,
        lane: Lane,
        record: Record,
        durability: Durability,
    ) -> Result<Arc<Entry>, WriteError> {
        let mut patience = Patience::default();
        loop {
            if !self.fold.is_current(self.claim) {
                return Err(WriteError::Fenced);
            }
            // A control record that does not count may stand behind our claim, and is what the engine looks at.
            let last_control = self.fold.control_guard();
            let guard = match lane {
                Lane::Control => Guard::Previous(last_control),
                _ => Guard::Claim(last_control),
            };
            match self.engine.append(self.session, lane, guard, &record, durability).await {
                Ok(position) => {
                    patience.taken(self);
                    let entry = Arc::new(Entry { position, lane, record });
                    match self.fold.push(&entry) {
                        Verdict::Alarm(why) => {
                            tracing::error!(session = %self.session, ?why, "an append of the owner does not count");
                        }
                        Verdict::Counted(_) => self.beside.push(&entry),
                        Verdict::Void(_) => {}
                    }
                    self.bus.publish(self.session, Arc::clone(&entry));
                    return Ok(entry);
                }
                Err(error @ (AppendError::Conflict { .. } | AppendError::Unknown)) => {
                    patience.doubt(self, error).await?;
                    if let Some(entry) = self.look_for(&record, &mut patience).await? {
                        patience.taken(self);
                        return Ok(entry);
                    }
                }
                // A full disk: the processes go on, their shims keep what they write.
                Err(AppendError::Unavailable(error)) => patience.refused(self, error).await?,
                Err(error) => return Err(WriteError::Store(error)),
            }
        }
    }

    /// After a lost answer: our record if it is there, `None` if it is not and the session is still ours. A store that
    /// cannot be read now says neither: it is asked again.
    async fn look_for(
        &mut self,
        record: &Record,
        patience: &mut Patience,
    ) -> Result<Option<Arc<Entry>>, WriteError> {
        let mut ours = None;
        let (session, bus) = (self.session, Arc::clone(&self.bus));
        let mut each = |entry: &Entry, _: &Effect| {
            let entry = Arc::new(entry.clone());
            if entry.record == *record {
                ours = Some(Arc::clone(&entry));
            }
            bus.publish(session, entry);
        };
        while let Err(error) = self.read_on(&mut each).await {
            match error {
                WriteError::Read(ReadError::Unavailable(error)) => patience.refused(self, error).await?,
                error => return Err(error),
            }
        }
        // What counts was written while the session was ours.
        if ours.is_some() {
            return Ok(ours);
        }
        match self.fold.ownership() {
            Ownership::Claimed(claim) if claim.position == self.claim => Ok(None),
            Ownership::Claimed(_) | Ownership::Unclaimed | Ownership::Released { .. } | Ownership::Closed => {
                Err(WriteError::Fenced)
            }
        }
    }
}

/// How long to wait for a store that does not do what it should. The daemon's end is not waited for.
#[derive(Default)]
struct Patience {
    doubts: u32,
    is_refused: bool,
}

impl Patience {
    /// It does not say what became of a record: the first time nothing is waited for.
    async fn doubt(&mut self, journal: &Journal, error: AppendError) -> Result<(), WriteError> {
        let doubled = STORE_DOUBT_MS << self.doubts.saturating_sub(1).min(STORE_RETRY_MS.ilog2());
        let ms = if self.doubts == 0 { 0 } else { doubled.min(STORE_RETRY_MS) };
        self.doubts = self.doubts.saturating_add(1);
        tracing::debug!(session = %journal.session, %error, ms, "the log is looked at");
        Self::wait(journal, ms, error).await
    }

    /// It takes or gives nothing now.
    async fn refused(&mut self, journal: &Journal, error: Unavailable) -> Result<(), WriteError> {
        let why = with_sources(&error);
        // Once: it is tried for as long as a disk is full.
        if !std::mem::replace(&mut self.is_refused, true) {
            tracing::warn!(session = %journal.session, error = %why, "the log is not taken; what runs waits until it is");
        }
        journal.stall.refused(why);
        Self::wait(journal, STORE_RETRY_MS, error.into()).await
    }

    /// What was refused is taken.
    fn taken(&self, journal: &Journal) {
        journal.stall.taken();
        if self.is_refused {
            tracing::info!(session = %journal.session, "the log is taken again");
        }
    }

    async fn wait(journal: &Journal, ms: u64, error: AppendError) -> Result<(), WriteError> {
        let again = journal.clock.now().tick + Duration::from_millis(ms);
        tokio::select! {
            biased;
            () = journal.stop.cancelled() => Err(WriteError::Store(error)),
            () = journal.clock.until(again) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use async_trait::async_trait;
    use outlive_core::id::{BootId, NodeId};
    use outlive_core::session::SessionEvent;
    use outlive_core::session::event::Happened;
    use outlive_core::time::{Now, Tick, WallTime};
    use outlive_store::{Fault, Faulty, Memory, Operation};
    use tokio_util::task::TaskTracker;
    use uuid::Uuid;

    use super::*;
    use crate::budget::Budgets;
    use crate::bus::LocalBus;
    use crate::clock::SystemClock;
    use crate::context::Seams;
    use crate::files::LocalFiles;
    use crate::runtimes::LocalRuntimes;
    use crate::seams::Identity;

    /// Time that passes when it is waited for.
    #[derive(Default)]
    struct Waits {
        now: Mutex<Tick>,
        all: Mutex<Vec<Duration>>,
    }

    #[async_trait]
    impl Clock for Waits {
        fn now(&self) -> Now {
            Now { tick: *self.now.lock().unwrap(), wall: WallTime(1), slept: Duration::ZERO }
        }

        async fn until(&self, tick: Tick) {
            let mut now = self.now.lock().unwrap();
            let waited = tick.since(*now);
            *now = tick;
            if !waited.is_zero() {
                self.all.lock().unwrap().push(waited);
            }
        }
    }

    struct Ill {
        context: Context,
        clock: Arc<Waits>,
        store: Memory,
        appends: Arc<AtomicU32>,
        claimed: Arc<AtomicBool>,
    }

    /// A store whose `n`-th append (from 1) and `n`-th read after the claim fail as the functions say.
    fn ill(append: fn(u32) -> Fault, read: fn(u32) -> Fault) -> Ill {
        let (node, boot) = (NodeId::from_uuid(Uuid::from_u128(1)), BootId::from_uuid(Uuid::from_u128(2)));
        let who = Identity { node, boot };
        let (store, clock) = (Memory::default(), Arc::new(Waits::default()));
        let (appends, mut reads) = (Arc::new(AtomicU32::new(0)), 0);
        let (counted, claimed) = (Arc::clone(&appends), Arc::new(AtomicBool::new(false)));
        let is_claimed = Arc::clone(&claimed);
        let faulty = Faulty::new(store.clone(), move |operation| match operation {
            Operation::Append { .. } => append(counted.fetch_add(1, Ordering::SeqCst) + 1),
            Operation::Read { .. } if is_claimed.load(Ordering::SeqCst) => {
                reads += 1;
                read(reads)
            }
            Operation::Read { .. } | Operation::TableRead | Operation::TableWrite => Fault::None,
        });
        let nowhere = PathBuf::from("/nonexistent");
        let real = Arc::new(SystemClock::default());
        let runtimes = LocalRuntimes::new(nowhere.clone(), nowhere.clone(), who, real, TaskTracker::new());
        let seams = Seams {
            clock: clock.clone(),
            engine: Arc::new(faulty),
            bus: Arc::new(LocalBus::default()),
            runtimes: Arc::new(runtimes),
            files: Arc::new(LocalFiles::new(nowhere)),
            cluster: None,
        };
        let context = Context::new(who, seams, Budgets::default());
        Ill { context, clock, store, appends, claimed }
    }

    impl Ill {
        fn session() -> SessionId {
            SessionId::from_uuid(Uuid::from_u128(3))
        }

        async fn claim(&self) -> Journal {
            let claimed = Journal::claim(Self::session(), &self.context, None).await.unwrap();
            let journal = claimed.read(|_, _| {}).await.unwrap();
            self.claimed.store(true, Ordering::SeqCst);
            journal
        }

        fn waits(&self) -> Vec<u128> {
            self.clock.all.lock().unwrap().iter().map(Duration::as_millis).collect()
        }

        /// Somebody else's claim, which names this control record as the one before it, is stored all the same.
        async fn claimed_by_another(&self, prev: Position, epoch: Epoch) {
            let (node, boot) = (NodeId::from_uuid(Uuid::from_u128(8)), BootId::from_uuid(Uuid::from_u128(9)));
            let change = ControlChange::Claim { epoch, node, boot };
            let record = Record::Control(Control { prev, change });
            let last = control(&self.store, Self::session()).await.unwrap().fold.control_guard();
            let guard = Guard::Previous(last);
            self.store
                .append(Self::session(), Lane::Control, guard, &record, Durability::Synced)
                .await
                .unwrap();
        }

        async fn stored(&self) -> usize {
            let all = (LaneFilter::All, ReadLimit::default());
            self.store.read(Self::session(), Position(0), &all.0, all.1).await.unwrap().entries.len()
        }
    }

    fn fact() -> Fact {
        Fact::Journal(SessionEvent { at: WallTime(1), what: Happened::Settled })
    }

    #[tokio::test]
    async fn a_store_that_loses_requests_is_asked_less_and_less_often() {
        let ill =
            ill(|n| if (2..=12).contains(&n) { Fault::LostRequest } else { Fault::None }, |_| Fault::None);
        let mut journal = ill.claim().await;
        journal.fact(&fact(), None).await.unwrap();
        assert_eq!(ill.waits(), [4, 8, 16, 32, 64, 128, 256, 500, 500, 500], "the first time at once");
        assert_eq!((ill.appends.load(Ordering::SeqCst), ill.stored().await), (13, 2));
    }

    #[tokio::test]
    async fn a_record_with_a_lost_answer_is_not_written_twice_when_the_store_cannot_be_read_meanwhile() {
        let lost = |n| if n == 2 { Fault::LostAck } else { Fault::None };
        let ill = ill(lost, |n| if n <= 3 { Fault::Unavailable } else { Fault::None });
        let mut journal = ill.claim().await;
        let entry = journal.fact(&fact(), None).await.unwrap();
        assert_eq!(ill.waits(), [500, 500, 500]);
        assert_eq!((ill.appends.load(Ordering::SeqCst), ill.stored().await), (2, 2));
        assert_eq!(journal.position(), entry.position);
    }

    #[tokio::test]
    async fn the_end_of_a_session_is_written_once_too() {
        let ill = ill(|n| if n == 2 { Fault::LostAck } else { Fault::None }, |_| Fault::None);
        let mut journal = ill.claim().await;
        journal.close().await.unwrap();
        assert_eq!((ill.appends.load(Ordering::SeqCst), ill.stored().await), (2, 2));
        assert_eq!(journal.fold().ownership(), Ownership::Closed);
    }

    #[tokio::test]
    async fn an_owner_behind_whose_claim_a_void_one_was_stored_writes_on() {
        let ill = ill(|_| Fault::None, |_| Fault::None);
        let mut journal = ill.claim().await;
        // It was admitted in the place of ours, and does not count.
        ill.claimed_by_another(Position(0), Epoch(1)).await;
        let first = journal.fact(&fact(), None).await.unwrap();
        let tried = ill.appends.load(Ordering::SeqCst);
        journal.release(None).await.unwrap();
        assert_eq!((journal.position() > first.position, ill.stored().await), (true, 4));
        assert_eq!(ill.appends.load(Ordering::SeqCst), tried + 1, "and knows from then on what is stored");
        assert_eq!(journal.fold().ownership(), Ownership::Released { to: None });
    }

    #[tokio::test]
    async fn an_owner_that_has_heard_that_it_is_fenced_tries_no_append() {
        let ill = ill(|_| Fault::None, |_| Fault::None);
        let mut journal = ill.claim().await;
        ill.claimed_by_another(journal.claim, Epoch(2)).await;
        for _ in 0..2 {
            assert!(matches!(journal.fact(&fact(), None).await, Err(WriteError::Fenced)));
        }
        let (appends, stored) = (ill.appends.load(Ordering::SeqCst), ill.stored().await);
        assert_eq!((appends, stored), (2, 2), "its claim, and the append by which it heard");
    }

    #[tokio::test]
    async fn the_daemons_end_is_not_waited_for() {
        let ill = ill(|n| if n == 1 { Fault::None } else { Fault::Unavailable }, |_| Fault::None);
        let mut journal = ill.claim().await;
        ill.context.stop.cancel();
        let refused = journal.fact(&fact(), None).await;
        assert!(matches!(refused, Err(WriteError::Store(AppendError::Unavailable(_)))), "{refused:?}");
    }
}
