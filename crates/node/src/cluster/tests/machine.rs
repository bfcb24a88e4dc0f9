//! The processes of one machine, played by the test. They live on behind their shims when their daemon dies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use outlive_core::diagnosis::Evidence;
use outlive_core::diagnosis::evidence::StopEvidence;
use outlive_core::id::{Attempt, NodeId, ProcessKey, RunId, SessionId, Src};
use outlive_core::log::{Chunk, ChunkKind};
use outlive_core::runtime::runner::{Greeting, Phase, Progress};
use outlive_core::runtime::{ExitReport, ExitStatus, Program, StopStep, StopWhy};
use outlive_core::session::RunOutcome;
use outlive_core::time::WallTime;
use outlive_protocol::shim::{Notice, Numbered, ShimIdentity, StateNotice, ToShim, VERSION, Welcome};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::seams::{FoundShim, FromLink, LaunchOrder, Link, Runtimes};

/// What happens on a machine. Every change is told.
#[derive(Default)]
pub struct Machine {
    shims: Mutex<BTreeMap<ProcessKey, Shim>>,
    changed: watch::Sender<u64>,
    /// The sessions whose processes were let go on.
    thawed: Mutex<Vec<SessionId>>,
    /// The readers of orders.
    readers: TaskTracker,
}

struct Shim {
    identity: ShimIdentity,
    program: Program,
    records: Vec<Numbered>,
    given: BTreeMap<RunId, Attempt>,
    known: BTreeSet<(RunId, Attempt)>,
    link: Option<mpsc::Sender<FromLink>>,
    is_alive: bool,
    /// How it was told to stop.
    stops: Vec<(StopWhy, StopStep)>,
}

/// What one daemon has of the machine.
pub struct ForDaemon(pub Arc<Machine>);

impl Machine {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ProcessKey, Shim>> {
        self.shims.lock().unwrap()
    }

    /// The processes that live.
    pub fn alive(&self) -> Vec<ProcessKey> {
        self.lock().iter().filter(|(_, shim)| shim.is_alive).map(|(key, _)| *key).collect()
    }

    /// How many were ever launched.
    pub fn launched(&self) -> usize {
        self.lock().len()
    }

    /// How this process was told to stop.
    pub fn stops(&self, process: ProcessKey) -> Vec<(StopWhy, StopStep)> {
        self.lock()[&process].stops.clone()
    }

    /// The sessions whose processes were let go on.
    pub fn thawed(&self) -> Vec<SessionId> {
        self.thawed.lock().unwrap().clone()
    }

    /// Waits until it is so.
    pub async fn until<T>(&self, found: impl Fn(&Self) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if let Some(found) = found(self) {
                return found;
            }
            changed.changed().await.expect("the machine is there");
        }
    }

    /// Waits until a process has been given this run.
    pub async fn given(&self, run: RunId) -> (ProcessKey, Attempt) {
        self.until(|machine| {
            let shims = machine.lock();
            shims.iter().find_map(|(key, shim)| shim.given.get(&run).map(|attempt| (*key, *attempt)))
        })
        .await
    }

    fn says(&self, process: ProcessKey, notice: Notice) {
        let mut shims = self.lock();
        let shim = shims.get_mut(&process).expect("it was launched");
        let src = Src(shim.records.len() as u64 + 1);
        let record = Numbered { src, at: WallTime(0), notice };
        shim.records.push(record.clone());
        if let Some(link) = &shim.link {
            let _gone = link.try_send(FromLink::Record(record));
        }
        drop(shims);
        self.changed.send_modify(|n| *n += 1);
    }

    fn state(&self, process: ProcessKey, state: StateNotice) {
        self.says(process, Notice::State(state));
    }

    /// The process says something, if it lives.
    pub fn text(&self, process: ProcessKey, run: RunId, text: &str) {
        let chunks = vec![Chunk::inline(ChunkKind::Text, WallTime(0), text.as_bytes())];
        self.says(process, Notice::Output { run: Some(run), chunks });
    }

    pub fn finish(&self, process: ProcessKey, run: RunId) {
        let attempt = self.lock()[&process].given[&run];
        let outcome = RunOutcome::Succeeded;
        self.state(process, StateNotice::RunFinished { run, attempt, outcome, execution_count: None });
    }

    pub fn dies(&self, process: ProcessKey, status: ExitStatus, stop: Option<StopEvidence>) {
        if !std::mem::replace(&mut self.lock().get_mut(&process).unwrap().is_alive, false) {
            return;
        }
        let evidence = Evidence { stop, ..Evidence::default() };
        let report = ExitReport {
            process,
            pid: Some(1),
            started_at: WallTime(0),
            exited_at: WallTime(1),
            status,
            evidence: evidence.clone(),
        };
        self.state(process, StateNotice::Exited { report: Box::new(report) });
        self.state(process, StateNotice::Drained { evidence: Box::new(evidence) });
    }

    /// The daemon is gone and its connections with it; what runs goes on.
    pub fn cut(&self) {
        for shim in self.lock().values_mut() {
            shim.link = None;
        }
    }

    /// The machine is gone and all that ran on it.
    pub fn vanish(&self) {
        for shim in self.lock().values_mut() {
            (shim.link, shim.is_alive) = (None, false);
        }
        self.lock().clear();
    }

    fn told(&self, process: ProcessKey, order: ToShim) {
        match order {
            ToShim::Execute { run, attempt, .. } | ToShim::Task { run, attempt, .. } => {
                let mut shims = self.lock();
                let Some(shim) = shims.get_mut(&process) else { return };
                if shim.is_alive && shim.known.insert((run, attempt)) {
                    shim.given.insert(run, attempt);
                }
            }
            ToShim::Stop { why, from } => {
                if let Some(shim) = self.lock().get_mut(&process) {
                    shim.stops.push((why, from));
                } else {
                    return;
                }
                let status = ExitStatus::Signal { number: 9, core_dumped: false };
                self.dies(process, status, Some(StopEvidence { why, step: from }));
            }
            ToShim::Refuse { .. } | ToShim::Goodbye => {
                let link = self.lock().get_mut(&process).and_then(|shim| {
                    shim.is_alive = false;
                    shim.link.take()
                });
                if let Some(link) = link {
                    let _gone = link.try_send(FromLink::Gone { report: None });
                }
            }
            _ => {}
        }
        self.changed.send_modify(|n| *n += 1);
    }

    fn connect(self: &Arc<Self>, process: ProcessKey, acked: Src) -> Link {
        let (to, mut orders) = mpsc::channel(64);
        let (says, from) = mpsc::channel(10_000);
        let mut shims = self.lock();
        let shim = shims.get_mut(&process).unwrap();
        let welcome: Welcome = serde_json::from_value(serde_json::json!({
            "version": VERSION,
            "identity": shim.identity,
            "open_runs": [],
            "last_src": shim.records.len(),
            "asks": null,
        }))
        .unwrap();
        says.try_send(FromLink::Welcome(Box::new(welcome))).unwrap();
        for record in shim.records.iter().filter(|record| record.src > acked) {
            says.try_send(FromLink::Record(record.clone())).unwrap();
        }
        shim.link = Some(says);
        drop(shims);
        let this = Arc::clone(self);
        self.readers.spawn(async move {
            while let Some(order) = orders.recv().await {
                this.told(process, order);
            }
        });
        Link { process, to, from }
    }

    fn begin(&self, process: ProcessKey) {
        self.state(process, StateNotice::Spawned { pid: 1, pid_start: 1 });
        let program = self.lock()[&process].program.clone();
        match program {
            Program::Command { .. } => {}
            Program::Kernel { .. } | Program::OfNotebook { .. } => {
                self.state(process, StateNotice::Ready { kernel_info: Value::Null });
            }
            Program::Runner { .. } => {
                let tasks = ["hold".to_owned()].into();
                let greeting = Greeting { tasks, concurrency: 2, ..Greeting::default() };
                self.state(process, StateNotice::Greeted { greeting });
                let progress = Progress::default();
                self.state(process, StateNotice::Entered { phase: Phase::Ready, progress });
                self.state(process, StateNotice::Ready { kernel_info: Value::Null });
            }
        }
    }
}

impl Runtimes for ForDaemon {
    fn launch(&self, order: LaunchOrder) -> Link {
        let process = order.process;
        let identity = ShimIdentity {
            session: order.session,
            process,
            node: NodeId::from_uuid(Uuid::from_u128(1)),
            machine_boot: "one".to_owned(),
            shim_pid: 1,
            shim_start: 1,
            pid: Some(1),
            pid_start: Some(1),
            cgroups: Vec::new(),
        };
        let shim = Shim {
            identity,
            program: order.spec.program,
            records: Vec::new(),
            given: BTreeMap::new(),
            known: BTreeSet::new(),
            link: None,
            is_alive: true,
            stops: Vec::new(),
        };
        assert!(self.0.lock().insert(process, shim).is_none(), "{process} is launched once");
        let link = self.0.connect(process, Src(0));
        self.0.begin(process);
        link
    }

    fn adopt(&self, found: &FoundShim, acked: Src) -> Link {
        self.0.connect(found.identity.process, acked)
    }

    fn found(&self) -> Vec<FoundShim> {
        let shims = self.0.lock();
        let alive = shims.values().filter(|shim| shim.is_alive);
        alive.map(|shim| FoundShim { identity: shim.identity.clone(), of_earlier_boot: false }).collect()
    }

    fn thaw(&self, session: SessionId) {
        self.0.thawed.lock().unwrap().push(session);
    }

    fn refuse(&self, found: &FoundShim, _reason: &str) {
        self.0.told(found.identity.process, ToShim::Refuse { reason: String::new() });
    }
}
