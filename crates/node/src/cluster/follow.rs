//! The live tails of sessions that other nodes write.
//!
//! ```text
//!   this node owns the session          another node owns it, or nobody
//!   ──────────────────────────          ───────────────────────────────
//!   its task ──publish──┐               engine ──head, read──► follower ──publish──┐
//!                       ▼                                                          ▼
//!                  local queues, one for each watcher              the same local queues
//! ```
//! The first watcher of a session that this node does not own starts its follower, the last one ends it: a thousand
//! watchers are one reader of the log, and who watches nothing costs nothing. It reads the lanes that somebody wants
//! and no others.
//!
//! Invariant: a watcher is given each record of its lanes, in order. Where one writer of the queues hands over to the
//! other, watchers are told to read the log again, and what is published before and after that never mixes: all of it
//! happens under the lock of [`Inner::followed`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use outlive_core::id::{Position, SessionId};
use outlive_core::log::{Entry, Lane};
use outlive_protocol::http::Problem;
use outlive_store::{Engine, LaneFilter, Page, ReadError, ReadLimit, Unavailable};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bus::{Held, Severed, Tail};
use crate::problem;
use crate::seams::{Bus, Clock};
use crate::watch::patience::Patience;

/// A bus on which sessions of other nodes are heard as well.
pub struct ClusterBus(Arc<Inner>);

struct Inner {
    local: Arc<dyn Bus>,
    engine: Arc<dyn Engine>,
    clock: Arc<dyn Clock>,
    tasks: TaskTracker,
    stop: CancellationToken,
    followed: Mutex<Sessions>,
}

#[derive(Default)]
struct Sessions {
    /// Those that are owned here or watched here.
    by_id: HashMap<SessionId, Followed>,
    /// How often this node has become the owner of one.
    owned: u64,
}

/// A session that is owned here or watched here.
#[derive(Default)]
struct Followed {
    /// The number of the ownership that is held here.
    owner: Option<u64>,
    wanted: Wanted,
    /// Ends the follower that there is.
    follower: Option<CancellationToken>,
}

/// The lanes that watchers want, and how many want each.
#[derive(Default)]
struct Wanted {
    everything: usize,
    lanes: BTreeMap<Lane, usize>,
    /// Rises when a lane is wanted that was not before.
    version: u64,
}

impl Wanted {
    fn add(&mut self, filter: &LaneFilter) {
        let is_new = match filter {
            LaneFilter::All => {
                self.everything += 1;
                self.everything == 1
            }
            LaneFilter::Only(lanes) => lanes.iter().fold(false, |is_new, lane| {
                let count = self.lanes.entry(*lane).or_default();
                *count += 1;
                is_new || *count == 1
            }),
        };
        self.version += u64::from(is_new);
    }

    fn remove(&mut self, filter: &LaneFilter) {
        match filter {
            LaneFilter::All => self.everything -= 1,
            LaneFilter::Only(lanes) => {
                for lane in lanes {
                    if let Some(count) = self.lanes.get_mut(lane) {
                        *count -= 1;
                    }
                }
                self.lanes.retain(|_, count| *count > 0);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.everything == 0 && self.lanes.is_empty()
    }

    fn filter(&self) -> LaneFilter {
        if self.everything > 0 {
            return LaneFilter::All;
        }
        LaneFilter::Only(self.lanes.keys().copied().collect())
    }
}

impl ClusterBus {
    /// Over the queues of `local` and the logs of `engine`. `tasks` owns the followers, `stop` ends them.
    #[must_use]
    pub fn over(
        local: Arc<dyn Bus>,
        engine: Arc<dyn Engine>,
        clock: Arc<dyn Clock>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner { local, engine, clock, tasks, stop, followed: Mutex::default() }))
    }

    /// The sessions that are followed now.
    #[must_use]
    pub fn following(&self) -> BTreeSet<SessionId> {
        let sessions = self.0.lock();
        let followed = sessions.by_id.iter().filter(|(_, followed)| followed.follower.is_some());
        followed.map(|(id, _)| *id).collect()
    }
}

impl Bus for ClusterBus {
    fn publish(&self, session: SessionId, entry: Arc<Entry>) {
        self.0.local.publish(session, entry);
    }

    fn subscribe(&self, session: SessionId, lanes: LaneFilter) -> Tail {
        let mut sessions = self.0.lock();
        let followed = sessions.by_id.entry(session).or_default();
        followed.wanted.add(&lanes);
        let tail = self.0.local.subscribe(session, lanes.clone());
        self.0.follow_if_needed(session, followed);
        drop(sessions);
        tail.holding(Box::new(Watching { inner: Arc::clone(&self.0), session, lanes }))
    }

    fn close(&self, session: SessionId) {
        self.0.local.close(session);
    }

    fn moved(&self, session: SessionId) {
        self.0.local.moved(session);
    }

    fn fail(&self, session: SessionId, why: Problem) {
        self.0.local.fail(session, why);
    }

    fn own(&self, session: SessionId) -> Held {
        let mut sessions = self.0.lock();
        sessions.owned += 1;
        let number = sessions.owned;
        let followed = sessions.by_id.entry(session).or_default();
        followed.owner = Some(number);
        if let Some(follower) = followed.follower.take() {
            follower.cancel();
        }
        if !followed.wanted.is_empty() {
            self.0.local.moved(session);
        }
        Box::new(Owning { inner: Arc::clone(&self.0), session, number })
    }

    fn is_followed(&self, session: SessionId) -> bool {
        self.0.lock().by_id.get(&session).is_some_and(|followed| followed.follower.is_some())
    }

    fn sever(&self, why: Problem) {
        self.0.local.sever(why);
    }

    fn mend(&self) {
        self.0.local.mend();
    }

    fn severed(&self) -> watch::Receiver<Severed> {
        self.0.local.severed()
    }
}

/// One watcher.
struct Watching {
    inner: Arc<Inner>,
    session: SessionId,
    lanes: LaneFilter,
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut sessions = self.inner.lock();
        let Some(followed) = sessions.by_id.get_mut(&self.session) else { return };
        followed.wanted.remove(&self.lanes);
        if followed.wanted.is_empty()
            && let Some(follower) = followed.follower.take()
        {
            follower.cancel();
        }
        sessions.tidy(self.session);
    }
}

/// This node is the one that writes a session.
struct Owning {
    inner: Arc<Inner>,
    session: SessionId,
    number: u64,
}

impl Drop for Owning {
    fn drop(&mut self) {
        let mut sessions = self.inner.lock();
        let Some(followed) = sessions.by_id.get_mut(&self.session) else { return };
        // It may own it again already.
        if followed.owner == Some(self.number) {
            followed.owner = None;
            self.inner.follow_if_needed(self.session, followed);
        }
        sessions.tidy(self.session);
    }
}

impl Sessions {
    /// Nothing is kept of a session that is neither owned nor watched here.
    fn tidy(&mut self, session: SessionId) {
        if self
            .by_id
            .get(&session)
            .is_some_and(|followed| followed.owner.is_none() && followed.wanted.is_empty())
        {
            self.by_id.remove(&session);
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.followed.lock().expect("nothing panics while it holds the followed sessions")
    }

    fn follow_if_needed(self: &Arc<Self>, session: SessionId, followed: &mut Followed) {
        let needed = followed.owner.is_none() && followed.follower.is_none() && !followed.wanted.is_empty();
        // Outside of a runtime there is nobody to tell: the process ends.
        let Some(runtime) = Handle::try_current().ok().filter(|_| needed && !self.stop.is_cancelled()) else {
            return;
        };
        let over = CancellationToken::new();
        followed.follower = Some(over.clone());
        let follower = Follower { inner: Arc::clone(self), session, over, patience: Patience::default() };
        self.tasks.spawn_on(follower.run(), &runtime);
    }
}

/// Reads a session's log for all who watch it here.
struct Follower {
    inner: Arc<Inner>,
    session: SessionId,
    /// Somebody else publishes, or nobody listens.
    over: CancellationToken,
    patience: Patience,
}

/// What became of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Published {
    /// Everybody has it.
    All,
    /// Up to here; somebody has come who wants more than was read.
    UpTo(Position),
    /// This follower is over.
    Nothing,
}

impl Follower {
    async fn run(mut self) {
        let (over, stop) = (self.over.clone(), self.inner.stop.clone());
        let ended = tokio::select! {
            biased;
            () = over.cancelled() => return self.let_go().await,
            () = stop.cancelled() => None,
            error = self.follow() => Some(error),
        };
        let mut sessions = self.inner.lock();
        if over.is_cancelled() {
            return;
        }
        if let Some(followed) = sessions.by_id.get_mut(&self.session) {
            followed.follower = None;
        }
        match ended {
            Some(End::Store(error)) => {
                tracing::warn!(session = %self.session, %error, "a session of another node cannot be followed");
                self.inner.local.fail(self.session, problem::store(&error));
            }
            Some(End::Dropped) => self.inner.local.fail(self.session, problem::no_session(self.session)),
            None => self.inner.local.close(self.session),
        }
    }

    /// What the engine holds for the session is for nobody any more.
    async fn let_go(self) {
        let is_needed = self.inner.lock().by_id.contains_key(&self.session);
        if !is_needed {
            self.inner.engine.close_session(self.session).await;
        }
    }

    /// Until there is nothing to follow any more.
    async fn follow(&mut self) -> End {
        let mut at = None;
        loop {
            let mut head = match self.head().await {
                Ok(head) => head,
                Err(end) => return end,
            };
            let present = *head.borrow_and_update();
            // There is no log without a record.
            if present < at.unwrap_or(Position(1)) {
                return End::Dropped;
            }
            if at.is_none() {
                // What stands in the log now, who listens already reads there.
                self.tell_moved();
            }
            let mut through = at.unwrap_or(present);
            // An error: the engine has let go of the session here, or dropped it. It is asked again.
            loop {
                if let Err(end) = self.read_up_to(&mut through, &mut head).await {
                    return end;
                }
                at = Some(through);
                if head.changed().await.is_err() {
                    break;
                }
            }
        }
    }

    async fn head(&mut self) -> Result<watch::Receiver<Position>, End> {
        loop {
            match self.inner.engine.head(self.session).await {
                Ok(head) => {
                    self.patience.answered();
                    return Ok(head);
                }
                Err(error) => self.again_after(error).await?,
            }
        }
    }

    /// Publishes what stands behind `through`, until nothing more is said to be there.
    async fn read_up_to(
        &mut self,
        through: &mut Position,
        head: &mut watch::Receiver<Position>,
    ) -> Result<(), End> {
        while *head.borrow_and_update() > *through {
            let Some((lanes, version)) = self.wanted() else { return Ok(()) };
            let read = self.inner.engine.read(self.session, *through, &lanes, ReadLimit::default()).await;
            match read {
                // A replica that has not heard of it yet.
                Ok(page) if page.through <= *through => self.again_after(behind()).await?,
                Ok(page) => {
                    self.patience.answered();
                    let end = page.through;
                    match self.publish(version, page) {
                        Published::All => *through = end,
                        Published::UpTo(last) => *through = last.max(*through),
                        Published::Nothing => return Ok(()),
                    }
                }
                Err(error) => self.again_after(error).await?,
            }
        }
        Ok(())
    }

    fn wanted(&self) -> Option<(LaneFilter, u64)> {
        let sessions = self.inner.lock();
        let followed = sessions.by_id.get(&self.session)?;
        Some((followed.wanted.filter(), followed.wanted.version))
    }

    /// The lock is taken for each entry: a page for a thousand watchers holds nobody up.
    fn publish(&self, version: u64, page: Page) -> Published {
        let mut last = Position(0);
        for entry in page.entries {
            let sessions = self.inner.lock();
            if self.over.is_cancelled() {
                return Published::Nothing;
            }
            if sessions.by_id.get(&self.session).is_none_or(|followed| followed.wanted.version != version) {
                return Published::UpTo(last);
            }
            last = entry.position;
            self.inner.local.publish(self.session, Arc::new(entry));
        }
        let sessions = self.inner.lock();
        match sessions.by_id.get(&self.session) {
            Some(followed) if followed.wanted.version == version => Published::All,
            Some(_) => Published::UpTo(last),
            None => Published::Nothing,
        }
    }

    fn tell_moved(&self) {
        let _sessions = self.inner.lock();
        if !self.over.is_cancelled() {
            self.inner.local.moved(self.session);
        }
    }

    async fn again_after(&mut self, error: ReadError) -> Result<(), End> {
        let clock = &self.inner.clock;
        let again = self.patience.again_at(clock.now().tick, error).map_err(End::Store)?;
        clock.until(again).await;
        Ok(())
    }
}

fn behind() -> ReadError {
    Unavailable::new("read what it has announced", io::Error::from(io::ErrorKind::WouldBlock)).into()
}

/// Why nothing more is followed.
enum End {
    /// The store does not answer, or not with what it should.
    Store(ReadError),
    /// The session is not in the store any more.
    Dropped,
}
