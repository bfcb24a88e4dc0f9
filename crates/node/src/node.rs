//! The node: its start and recovery, its answers, its end.

mod broken;
mod ending;
mod give_back;
mod looking;
mod recover;
pub(crate) mod retain;
mod unlisted;
mod unwatched;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outlive_core::diagnosis::{FailureReport, Matchers};
use outlive_core::id::{BootId, NodeId, RunId, SessionId};
use outlive_core::limits::READY_STORE_MS;
use outlive_core::runtime::{StopStep, StopWhy};
use outlive_core::session::spec::Trust;
use outlive_core::time::WallTime;
use outlive_protocol::http::{
    API_VERSION, Close, ClusterView, CreateSession, DoctorView, Drain, Drained, EditNotebook, Edited,
    Elsewhere, NewSession, NodeView, NotebookView, OpenSession, Opened, Problem, Restart, RunView,
    SaveSession, SessionView, Stop, StopNode, SubmitRuns, TakeoverView,
};
use outlive_store::Engine;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{Api, AttachRun, AttachSession, Events};
use crate::blobs;
use crate::budget::Budgets;
use crate::bus::LocalBus;
use crate::causes::Causes;
use crate::cluster;
use crate::context::{Context, Presence, Seams};
use crate::files::LocalFiles;
use crate::hosted::Hosted;
use crate::problem;
use crate::runtimes::LocalRuntimes;
use crate::seams::{Clock, Identity};
use crate::session::handle::{Answer, Ask, DocumentAsk, FileAsk};
use crate::session::open;
use crate::session::peers::DocumentPeer;
use crate::session::with_sources;
use crate::watch;

pub(crate) use recover::recover;

/// What a node is started with.
pub struct NodeConfig {
    /// Its id.
    pub node: NodeId,
    /// Its state directory, locked by the caller.
    pub state: PathBuf,
    /// The folder of path claims, shared by all daemons of this user.
    pub claims: PathBuf,
    /// Where daemons of version 0.1 with this one's settings have theirs.
    pub earlier_claims: Option<PathBuf>,
    /// Our own binary.
    pub program: PathBuf,
    /// Where logs, tables and blobs are kept.
    pub engine: Arc<dyn Engine>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The folder in which Python environments are made.
    pub cache: PathBuf,
    /// How much of what there may be.
    pub budgets: Budgets,
    /// The user's own matchers, whether or not the file exists.
    pub causes: PathBuf,
    /// What makes it one of several nodes, on an engine that they share; `None`: it is alone.
    pub cluster: Option<cluster::Settings>,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store does not answer.
    #[error("the store cannot be read")]
    Store(#[from] outlive_store::TableError),
    /// Another node of the cluster has its name.
    #[error(
        "the node's name {name:?} is in use by node {node} ({url}, pid {pid}), which is alive; \
         give this one another name, or stop that one"
    )]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        node: NodeId,
        /// Where its API is.
        url: String,
        /// Its process, on its machine.
        pid: u32,
    },
    /// It was stopped while it waited for its cluster.
    #[error("the node was stopped before it had joined its cluster")]
    Stopped,
}

/// One node.
pub struct Node {
    pub(crate) context: Arc<Context>,
    state: PathBuf,
    started_at: WallTime,
    processes: TaskTracker,
    /// Somebody asked for the end of the daemon.
    ending: CancellationToken,
}

impl Node {
    /// Starts a node: takes up every session that was open, refuses shims that nobody knows.
    ///
    /// # Errors
    /// [`StartError`]. A session that cannot be taken up does not stop the others.
    pub async fn start(config: NodeConfig) -> Result<Arc<Self>, StartError> {
        let who = Identity { node: config.node, boot: BootId::from_uuid(crate::ids::by_time()) };
        // Before anything is taken up, and with it a death perhaps.
        let causes = Causes::install(&config.causes);
        let processes = TaskTracker::new();
        let runtimes = LocalRuntimes::new(
            config.state.join("processes"),
            config.program,
            who,
            Arc::clone(&config.clock),
            processes.clone(),
        )
        .keeping(config.budgets.keep, config.cache);
        let runtimes = match &config.cluster {
            Some(cluster) => runtimes.guarded(cluster.kernel_grace),
            None => runtimes,
        };
        let seams = Seams {
            clock: config.clock,
            engine: config.engine,
            bus: Arc::new(LocalBus::default()),
            runtimes: Arc::new(runtimes),
            files: Arc::new(LocalFiles::beside_earlier(config.claims, config.earlier_claims)),
            cluster: config.cluster,
        };
        let node = Self::over(who, seams, config.budgets, config.state, processes).await?;
        node.context.causes.set(causes).expect("it is set here alone");
        // The first death is not to wait until the patterns are compiled.
        node.context.tasks.spawn_blocking(Matchers::current);
        Ok(node)
    }

    /// As [`Self::start`], over any seams. `processes` owns the tasks of the runtimes.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn over(
        who: Identity,
        seams: Seams,
        budgets: Budgets,
        state: PathBuf,
        processes: TaskTracker,
    ) -> Result<Arc<Self>, StartError> {
        let started_at = seams.clock.now().wall;
        let context = Arc::new(Context::new(who, seams, budgets));
        let node = Arc::new(Self { context, state, started_at, processes, ending: CancellationToken::new() });
        cluster::arm(&node.context);
        cluster::membership::join(&node.context).await?;
        recover(&node.context).await?;
        cluster::serve(&node.context);
        if let Err(error) = retain::retain(&node.context).await {
            // It is tried again; what was open goes on meanwhile.
            tracing::warn!(error = %with_sources(&error), "ended sessions are not forgotten");
        }
        node.context.tasks.spawn(retain::retain_now_and_then(Arc::clone(&node.context)));
        node.context.tasks.spawn(give_back::give_back_now_and_then(Arc::clone(&node.context)));
        node.context.tasks.spawn(crate::evict::keep_within_budgets(Arc::clone(&node.context)));
        Ok(node)
    }

    /// This node's part in its cluster; `None`: it is alone.
    pub fn membership(&self) -> Option<&Arc<cluster::Cluster>> {
        self.context.cluster.as_ref()
    }

    /// The members of the cluster as this node sees them, live; `None` for a node that is alone.
    #[must_use]
    pub fn watch_members(&self) -> Option<tokio::sync::watch::Receiver<Arc<cluster::Members>>> {
        self.context.cluster.as_ref().map(|cluster| cluster.members.subscribe())
    }

    /// Returns when somebody asked for the end of the daemon.
    pub async fn ending(&self) {
        self.ending.cancelled().await;
    }

    /// Ends the node's tasks; processes go on behind their shims. After this nothing is written.
    pub async fn stop(&self) {
        self.context.stop.cancel();
        self.context.tasks.close();
        self.context.tasks.wait().await;
        if let Err(error) = self.context.engine.flush().await {
            tracing::error!(error = %with_sources(&error), "the store was not flushed");
        }
    }
}

#[async_trait]
impl Api for Node {
    fn node(&self) -> NodeView {
        NodeView {
            node: self.context.who.node,
            boot: self.context.who.boot,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            api: API_VERSION,
            pid: std::process::id(),
            state_directory: self.state.display().to_string(),
            started_at: self.started_at,
            ready: self.context.cluster.as_ref().is_none_or(|cluster| cluster.ready().is_ok()),
        }
    }

    async fn create(&self, request: CreateSession) -> Result<SessionView, Problem> {
        let id = request.id.unwrap_or_else(|| SessionId::from_uuid(crate::ids::by_time()));
        let reservation = loop {
            match self.session(id).await {
                Ok(view) => return Ok(view),
                Err(problem) if problem.code != "no-such-session" => return Err(problem),
                Err(_) => {}
            }
            self.context.takes_work()?;
            match self.context.reserve(id) {
                Some(reservation) => break reservation,
                None => drop(self.here(id).await?),
            }
        };
        // In a task of its own: a client that goes away meanwhile must not leave half a session behind, nor its id
        // reserved.
        let context = Arc::clone(&self.context);
        let making =
            self.context.tasks.spawn(async move { open::create(&context, &reservation, request).await });
        let handle = making.await.map_err(|panicked| problem::internal(panicked.to_string()))??;
        let view = handle.view.borrow();
        Ok(view.as_ref().clone())
    }

    async fn sessions(&self, all: bool) -> Result<Vec<SessionView>, Problem> {
        let mut views: Vec<SessionView> =
            self.context.handles().iter().map(|handle| handle.view.borrow().as_ref().clone()).collect();
        let rows = self.context.all_indexed().await.map_err(|error| problem::store(&error))?;
        let here: std::collections::HashSet<_> = views.iter().map(|view| view.id).collect();
        let others = rows.into_iter().filter(|row| all || row.presence != Presence::Ended);
        views.extend(others.map(|row| row.view).filter(|view| !here.contains(&view.id)));
        // One that has ended is still in its place for a moment, until its path and its task are given back.
        views.retain(|view| all || view.closed_at.is_none());
        views.sort_by_key(|view| std::cmp::Reverse((view.created_at, view.id)));
        Ok(views)
    }

    async fn session(&self, id: SessionId) -> Result<SessionView, Problem> {
        match self.here(id).await? {
            Some(entered) => Ok(entered.handle.view.borrow().as_ref().clone()),
            None => self.told(id).await,
        }
    }

    async fn forget(&self, id: SessionId) -> Result<(), Problem> {
        let entered = match self.here(id).await {
            Err(problem) if problem::is_broken(&problem) => return self.forget_broken(id, problem).await,
            entered => entered?,
        };
        let here = match entered {
            // Its end has been told already; what is left of it takes a moment.
            Some(entered) if entered.handle.view.borrow().closed_at.is_some() => {
                let mut view = entered.handle.view.clone();
                while view.changed().await.is_ok() {}
                false
            }
            here => here.is_some(),
        };
        let row = self.context.indexed(id).await.map_err(|error| problem::store(&error))?;
        if here || row.is_some_and(|row| row.presence != Presence::Ended) {
            return Err(Problem::new(
                409,
                "session-open",
                "The session is open",
                format!("session {id} is open"),
            )
            .hint("stop it first with `outlive stop`"));
        }
        self.row(id).await?;
        self.context.forget(id).await.map_err(|error| problem::store(&error))
    }

    async fn runs(&self, id: SessionId) -> Result<Vec<RunView>, Problem> {
        if let Some(entered) = self.here(id).await?
            && let Ok(Answer::Runs(runs)) = entered.handle.ask(Ask::Runs).await
        {
            return Ok(runs);
        }
        self.is_told_here(id)?;
        let folded = self.load(id).await?;
        Ok(folded.hosted.map(|hosted| hosted.runs(&folded.fold)).unwrap_or_default())
    }

    async fn submit(&self, id: SessionId, work: SubmitRuns) -> Result<Vec<RunView>, Problem> {
        match self.ask(id, Ask::Submit(work)).await? {
            Answer::Runs(runs) => Ok(runs),
            other => Err(unexpected(&other)),
        }
    }

    async fn interrupt(&self, id: SessionId) -> Result<SessionView, Problem> {
        self.done(id, Ask::Interrupt).await
    }

    async fn restart(&self, id: SessionId, how: Restart) -> Result<SessionView, Problem> {
        self.done(id, Ask::Restart { run_all: how.run_all }).await
    }

    async fn stop(&self, id: SessionId, how: Stop) -> Result<SessionView, Problem> {
        let from = if how.force { StopStep::Kill } else { StopStep::Ask };
        let stopped = match self.ask(id, Ask::Stop { why: StopWhy::User, from }).await {
            // Its end came first: what was wanted.
            Err(problem) if problem.code == "session-ended" => self.row(id).await,
            Err(problem) => Err(problem),
            Ok(_) => self.session(id).await,
        };
        self.or_end_broken(id, how.force, stopped).await
    }

    async fn cancel(&self, id: SessionId, run: RunId) -> Result<RunView, Problem> {
        self.ask(id, Ask::Cancel(run)).await?;
        self.run(id, run).await
    }

    async fn input(&self, id: SessionId, run: RunId, value: String) -> Result<RunView, Problem> {
        self.ask(id, Ask::Answer { run, value }).await?;
        self.run(id, run).await
    }

    async fn attach(&self, id: SessionId, how: AttachSession) -> Result<Events, Problem> {
        watch::may_watch(&self.context)?;
        let entered = if how.follow { self.followed(id).await? } else { self.here(id).await? };
        let now = match &entered {
            Some(entered) => entered.handle.view.borrow().as_ref().clone(),
            None => self.told(id).await?,
        };
        // An ended session has no live tail: its log is all there is.
        let how = AttachSession { follow: how.follow && entered.is_some(), ..how };
        let handle = entered.as_ref().map(|entered| &entered.handle);
        let follows = how.follow;
        let events = watch::session::attach(&self.context, now, handle, how).await;
        let events = match handle {
            Some(handle) if follows => handle.stall.told_among(events),
            Some(_) | None => events,
        };
        Ok(self.read_through(id, entered.is_some(), events))
    }

    async fn attach_run(&self, id: SessionId, run: RunId, how: AttachRun) -> Result<Events, Problem> {
        watch::may_watch(&self.context)?;
        let entered = self.here(id).await?;
        let open = entered.is_some();
        if how.cancel && !open {
            // It goes with its reader, and that is for its owner to see.
            self.is_told_here(id)?;
        }
        let known = self.known_run(id, run).await?;
        // Whoever of several nodes goes on with it, its log tells it.
        let goes_on = open || (self.context.cluster.is_some() && !self.has_ended(id).await?);
        let how = AttachRun { follow: how.follow && goes_on, ..how };
        let events = watch::run::attach(&self.context, known, how);
        let events = match &entered {
            Some(entered) if how.follow => entered.handle.stall.told_among(events),
            Some(_) | None => events,
        };
        let events = self.read_through(id, open, events);
        Ok(if how.cancel && how.follow {
            unwatched::cancelled_with(Arc::clone(&self.context), id, run, events)
        } else {
            events
        })
    }

    async fn reports(&self, id: SessionId) -> Result<Vec<FailureReport>, Problem> {
        if let Some(entered) = self.here(id).await?
            && let Ok(Answer::Reports(reports)) = entered.handle.ask(Ask::Reports).await
        {
            return Ok(reports);
        }
        self.is_told_here(id)?;
        let folded = self.load(id).await?;
        Ok(folded.hosted.map(Hosted::into_reports).unwrap_or_default())
    }

    async fn blob(&self, id: SessionId, sha256: &str) -> Result<File, Problem> {
        self.row(id).await?;
        blobs::open(&*self.context.engine, id, sha256).await.map_err(|error| problem::blob(id, &error))
    }

    async fn doctor(&self) -> DoctorView {
        crate::doctor::look(&self.context, &self.state).await
    }

    async fn new_session(&self, request: NewSession) -> Result<Opened, Problem> {
        crate::session::open::new(&self.context, request).await
    }

    async fn open(&self, request: OpenSession) -> Result<Opened, Problem> {
        crate::session::open::open(&self.context, request).await
    }

    async fn save(&self, id: SessionId, how: SaveSession) -> Result<Opened, Problem> {
        match self.ask(id, Ask::File(FileAsk::Save(how))).await? {
            Answer::Opened(opened) => Ok(*opened),
            other => Err(unexpected(&other)),
        }
    }

    async fn close(&self, id: SessionId, how: Close) -> Result<SessionView, Problem> {
        let closed = self.done(id, Ask::File(FileAsk::Close(how))).await;
        self.or_end_broken(id, how.discard, closed).await
    }

    async fn rest(&self, id: SessionId, how: Stop) -> Result<SessionView, Problem> {
        let from = if how.force { StopStep::Kill } else { StopStep::Ask };
        self.done(id, Ask::Rest { why: StopWhy::Rest, from }).await
    }

    async fn trust(&self, id: SessionId, trust: Trust) -> Result<SessionView, Problem> {
        self.done(id, Ask::Trust(trust)).await
    }

    async fn notebook(&self, id: SessionId, outputs: bool) -> Result<NotebookView, Problem> {
        match self.ask(id, Ask::Document(DocumentAsk::Read { outputs })).await? {
            Answer::Notebook(view) => Ok(*view),
            other => Err(unexpected(&other)),
        }
    }

    async fn edit(&self, id: SessionId, edits: EditNotebook) -> Result<Edited, Problem> {
        match self.ask(id, Ask::Document(DocumentAsk::Edit(edits))).await? {
            Answer::Edited(edited) => Ok(edited),
            other => Err(unexpected(&other)),
        }
    }

    async fn cell_outputs(&self, id: SessionId, cell: String) -> Result<Vec<serde_json::Value>, Problem> {
        match self.ask(id, Ask::Document(DocumentAsk::Outputs(cell))).await? {
            Answer::Outputs(outputs) => Ok(outputs),
            other => Err(unexpected(&other)),
        }
    }

    async fn document(&self, id: SessionId) -> Result<DocumentPeer, Problem> {
        match self.ask(id, Ask::Document(DocumentAsk::Join)).await? {
            Answer::Joined(peer) => Ok(peer),
            other => Err(unexpected(&other)),
        }
    }

    async fn metrics(&self) -> String {
        crate::metrics::render(&self.context).await
    }

    async fn ready(&self) -> Result<(), Problem> {
        if let Some(cluster) = &self.context.cluster {
            cluster.ready()?;
        }
        let deadline = self.context.clock.now().tick + Duration::from_millis(READY_STORE_MS);
        tokio::select! {
            biased;
            answered = answers(&*self.context.engine) => answered,
            () = self.context.clock.until(deadline) => Err(problem::store_silent(READY_STORE_MS)),
        }
    }

    async fn cluster(&self) -> ClusterView {
        self.context.cluster.as_ref().map(|cluster| cluster.view()).unwrap_or_default()
    }

    fn neighbour(&self) -> Option<Elsewhere> {
        self.context.cluster.as_ref()?.neighbour()
    }

    fn is_in_touch(&self) -> bool {
        self.context.cluster.as_ref().is_none_or(|cluster| cluster.is_in_touch())
    }

    async fn until_lost(&self, node: NodeId) {
        match &self.context.cluster {
            Some(cluster) => cluster.until_lost(node).await,
            None => std::future::pending().await,
        }
    }

    async fn drain(&self, how: Drain) -> Result<Drained, Problem> {
        let Some(cluster) = &self.context.cluster else { return Err(problem::not_clustered()) };
        let (context, cluster) = (Arc::clone(&self.context), Arc::clone(cluster));
        // In a task of its own: a client that goes away meanwhile must not leave it half drained.
        let draining =
            self.context.tasks.spawn(async move { cluster::drain::drain(&context, &cluster, how).await });
        let drained = draining.await.map_err(|panicked| problem::internal(panicked.to_string()))??;
        if how.stop {
            self.ending.cancel();
        }
        Ok(drained)
    }

    async fn takeovers(&self, id: SessionId) -> Result<Vec<TakeoverView>, Problem> {
        let folded = self.load(id).await?;
        let Some(hosted) = folded.hosted else { return Ok(Vec::new()) };
        let title = hosted.view(folded.fold.position()).title;
        Ok(hosted.takeovers().iter().map(|takeover| cluster::takeover::view(id, &title, takeover)).collect())
    }

    async fn shutdown(&self, how: StopNode) -> Result<(), Problem> {
        if !how.keep_runtimes {
            let open = self.context.handles();
            futures_util::future::join_all(open.iter().map(|handle| self.end_in_time(handle.id))).await;
            // What is left belongs to sessions that could not come to their end: nobody else would end it.
            for shim in self.context.runtimes.found() {
                self.context.refuse(&shim, "the daemon was asked to end everything");
            }
            self.processes.close();
            self.processes.wait().await;
        }
        self.ending.cancel();
        Ok(())
    }
}

/// Whether the store answers, and takes rows.
async fn answers(engine: &dyn Engine) -> Result<(), Problem> {
    if let Some(why) = engine.tables().await.refused {
        return Err(problem::tables_refused(&why));
    }
    // Which row is asked for does not matter: any answer is one.
    engine.get("nodes", "ready").await.map(drop).map_err(|error| problem::store(&error))
}

pub(crate) fn unexpected(answer: &Answer) -> Problem {
    problem::internal(format!("the session answered something else: {answer:?}"))
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use outlive_core::runtime::restart::RestartPolicy;
    use outlive_core::runtime::spec::{LaunchSpec, Program};
    use outlive_core::session::spec::{HangPolicy, Workload};
    use uuid::Uuid;

    use super::*;
    use crate::clock::SystemClock;

    #[tokio::test]
    async fn a_client_that_goes_away_while_its_session_is_made_leaves_no_half_of_one() {
        let place = tempfile::tempdir().unwrap();
        let config = NodeConfig {
            node: NodeId::from_uuid(Uuid::from_u128(1)),
            state: place.path().to_owned(),
            claims: place.path().join("claims"),
            earlier_claims: None,
            program: place.path().join("no-shim"),
            engine: Arc::new(outlive_store::Embedded::open(&place.path().join("store")).unwrap()),
            clock: Arc::new(SystemClock::default()),
            cache: place.path().join("cache"),
            budgets: Budgets::default(),
            causes: place.path().join("causes.toml"),
            cluster: None,
        };
        let node = Node::start(config).await.unwrap();
        let id = SessionId::from_uuid(Uuid::from_u128(2));
        let request = CreateSession {
            id: Some(id),
            workload: Workload::Command { timeout_ms: None },
            launch: LaunchSpec {
                program: Program::Command { argv: vec!["true".to_owned()] },
                cwd: "/".to_owned(),
                env: std::collections::BTreeMap::new(),
                memory_bytes_max: None,
                ready_timeout_ms: 1_000,
            },
            restart: RestartPolicy::temporary(),
            on_hang: HangPolicy::Report,
            on_node_loss: outlive_core::session::spec::OnNodeLoss::default(),
            keep: false,
            parameters: std::collections::BTreeMap::new(),
            run_all: false,
        };
        let mut creating = node.create(request);
        std::future::poll_fn(|context| {
            let _pending = creating.as_mut().poll(context);
            let reserved = node.context.is_here(id);
            if reserved { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        drop(creating);
        // Waits for all that was begun.
        tokio::time::timeout(Duration::from_secs(20), node.stop()).await.expect("the node stops");
        let made = node.context.indexed(id).await.unwrap();
        assert!(made.is_some(), "it was begun, so it is there to be taken up, shown and stopped");
    }
}
