//! A question whose answer was lost with the daemon is asked again (docs/decisions/006).

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use outlive_core::id::{Attempt, BootId, NodeId, ProcessKey, RunId, SessionId, Src};
use outlive_core::runtime::restart::RestartPolicy;
use outlive_core::runtime::spec::{InterruptMode, LaunchSpec, Program, Transport};
use outlive_core::session::spec::{HangPolicy, Workload};
use outlive_core::time::WallTime;
use outlive_node::Node;
use outlive_node::api::{Api, AttachSession, Events, From};
use outlive_node::budget::Budgets;
use outlive_node::bus::LocalBus;
use outlive_node::clock::SystemClock;
use outlive_node::context::Seams;
use outlive_node::files::LocalFiles;
use outlive_node::seams::{FoundShim, FromLink, Identity, LaunchOrder, Link, Runtimes};
use outlive_protocol::http::{CreateSession, SessionView, StreamEvent, SubmitRuns};
use outlive_protocol::shim::{Notice, Numbered, OpenQuestion, ShimIdentity, StateNotice, ToShim, Welcome};
use outlive_store::{Embedded, Engine};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

const WAIT: Duration = Duration::from_secs(20);

fn id() -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(2))
}

/// The one process, whose shim is played by the test.
struct Stage {
    link: Mutex<Option<(mpsc::Sender<ToShim>, mpsc::Receiver<FromLink>)>>,
    process: Arc<Mutex<Option<ProcessKey>>>,
}

impl Stage {
    fn link(&self, process: ProcessKey) -> Link {
        *self.process.lock().unwrap() = Some(process);
        let (to, from) = self.link.lock().unwrap().take().expect("one process, linked once");
        Link { process, to, from }
    }
}

fn identity(process: ProcessKey) -> ShimIdentity {
    ShimIdentity {
        session: id(),
        process,
        node: NodeId::from_uuid(Uuid::from_u128(1)),
        machine_boot: String::new(),
        shim_pid: 1,
        shim_start: 1,
        pid: Some(2),
        pid_start: Some(1),
        cgroups: Vec::new(),
    }
}

impl Runtimes for Stage {
    fn launch(&self, order: LaunchOrder) -> Link {
        self.link(order.process)
    }

    fn adopt(&self, found: &FoundShim, _acked: Src) -> Link {
        self.link(found.identity.process)
    }

    fn found(&self) -> Vec<FoundShim> {
        let process = *self.process.lock().unwrap();
        process
            .map(|process| FoundShim { identity: identity(process), of_earlier_boot: false })
            .into_iter()
            .collect()
    }

    fn refuse(&self, found: &FoundShim, reason: &str) {
        panic!("{found:?} is refused: {reason}");
    }
}

/// The shim's end of the link.
struct Shim {
    says: mpsc::Sender<FromLink>,
    hears: mpsc::Receiver<ToShim>,
    process: Arc<Mutex<Option<ProcessKey>>>,
    last: Src,
}

impl Shim {
    async fn welcome(&self, asks: Option<OpenQuestion>) {
        let process = self.process.lock().unwrap().expect("it is linked");
        let welcome = Welcome {
            version: 1,
            identity: identity(process),
            open_runs: Vec::new(),
            last_src: self.last,
            asks,
            frozen: false,
        };
        self.says.send(FromLink::Welcome(Box::new(welcome))).await.unwrap();
    }

    async fn say(&mut self, state: StateNotice) {
        self.last = self.last.next();
        let record = Numbered { src: self.last, at: WallTime(1), notice: Notice::State(state) };
        self.says.send(FromLink::Record(record)).await.unwrap();
    }

    /// The next order that fits.
    async fn hear<T>(&mut self, fits: impl Fn(&ToShim) -> Option<T>) -> T {
        let hear = async {
            loop {
                let order = self.hears.recv().await.expect("the session lives");
                if let Some(found) = fits(&order) {
                    return found;
                }
            }
        };
        tokio::time::timeout(WAIT, hear).await.expect("an order")
    }
}

/// A daemon over what `engine` has.
async fn daemon(
    engine: &Arc<dyn Engine>,
    place: &Path,
    process: &Arc<Mutex<Option<ProcessKey>>>,
    boot: u128,
) -> (Arc<Node>, Shim) {
    let (to, hears) = mpsc::channel(64);
    let (says, from) = mpsc::channel(64);
    let stage = Stage { link: Mutex::new(Some((to, from))), process: Arc::clone(process) };
    let node = NodeId::from_uuid(Uuid::from_u128(1));
    let who = Identity { node, boot: BootId::from_uuid(Uuid::from_u128(boot)) };
    let seams = Seams {
        clock: Arc::new(SystemClock::default()),
        engine: Arc::clone(engine),
        bus: Arc::new(LocalBus::default()),
        runtimes: Arc::new(stage),
        files: Arc::new(LocalFiles::new(place.join("claims"))),
        cluster: None,
    };
    let node =
        Node::over(who, seams, Budgets::default(), place.to_owned(), TaskTracker::new()).await.unwrap();
    (node, Shim { says, hears, process: Arc::clone(process), last: Src(0) })
}

fn kernel() -> CreateSession {
    CreateSession {
        id: Some(id()),
        workload: Workload::Kernel,
        launch: LaunchSpec {
            program: Program::Kernel {
                name: "k".to_owned(),
                display_name: "K".to_owned(),
                language: "k".to_owned(),
                argv: vec!["k".to_owned()],
                resource_dir: None,
                interrupt_mode: InterruptMode::Signal,
                transport: Transport::Tcp,
            },
            cwd: "/".to_owned(),
            env: BTreeMap::new(),
            memory_bytes_max: None,
            ready_timeout_ms: 1_000,
        },
        restart: RestartPolicy::temporary(),
        on_hang: HangPolicy::Report,
        on_node_loss: outlive_core::session::spec::OnNodeLoss::default(),
        keep: true,
        parameters: BTreeMap::new(),
        run_all: false,
    }
}

async fn watch(node: &Node) -> Events {
    let how = AttachSession { from: From::Head, interactive: true, follow: true, outputs: false };
    node.attach(id(), how).await.unwrap()
}

async fn until(events: &mut Events, fits: impl Fn(&SessionView) -> bool) -> SessionView {
    let look = async {
        loop {
            let delivered = events.next().await.expect("the session goes on");
            if let StreamEvent::Session { session } = delivered.event
                && fits(&session)
            {
                return *session;
            }
        }
    };
    tokio::time::timeout(WAIT, look).await.expect("the state comes")
}

async fn answer(node: &Node, shim: &mut Shim, run: RunId, value: &str) {
    node.input(id(), run, value.to_owned()).await.unwrap();
    let told = shim.hear(|order| match order {
        ToShim::Input { run, value } => Some((*run, value.clone())),
        _ => None,
    });
    assert_eq!(told.await, (run, value.to_owned()));
}

/// A session whose question was answered, and whose daemon died then. Gives the run and the question as its shim has it.
async fn answered(
    engine: &Arc<dyn Engine>,
    place: &Path,
    process: &Arc<Mutex<Option<ProcessKey>>>,
) -> OpenQuestion {
    let (node, mut shim) = daemon(engine, place, process, 10).await;
    node.create(kernel()).await.unwrap();
    let mut events = watch(&node).await;
    shim.welcome(None).await;
    shim.say(StateNotice::Spawned { pid: 2, pid_start: 1 }).await;
    shim.say(StateNotice::Ready { kernel_info: serde_json::Value::Null }).await;
    let run = node.submit(id(), SubmitRuns::Code { code: "input()".to_owned() }).await.unwrap()[0].id;
    let given = shim.hear(|order| match order {
        ToShim::Execute { run, attempt, .. } => Some((*run, *attempt)),
        _ => None,
    });
    assert_eq!(given.await, (run, Attempt(1)));
    let (prompt, password) = ("secret? ".to_owned(), true);
    shim.say(StateNotice::InputRequested { run, prompt: prompt.clone(), password }).await;
    until(&mut events, |view| view.question.is_some()).await;
    answer(&node, &mut shim, run, "1234").await;
    drop(events);
    tokio::time::timeout(WAIT, node.stop()).await.expect("the node stops");
    OpenQuestion { src: shim.last, run, prompt, password }
}

#[tokio::test]
async fn an_answer_that_did_not_arrive_is_asked_for_again() {
    let place = tempfile::tempdir().unwrap();
    let engine: Arc<dyn Engine> = Arc::new(Embedded::open(&place.path().join("store")).unwrap());
    let process = Arc::default();
    let asked = answered(&engine, place.path(), &process).await;

    let (node, mut shim) = daemon(&engine, place.path(), &process, 11).await;
    shim.last = asked.src;
    let mut events = watch(&node).await;
    assert!(until(&mut events, |_| true).await.question.is_none(), "the log says that it was answered");
    shim.welcome(Some(asked.clone())).await;
    let question = until(&mut events, |view| view.question.is_some()).await.question.unwrap();
    assert_eq!((question.run, question.prompt.as_str(), question.password), (asked.run, "secret? ", true));
    answer(&node, &mut shim, asked.run, "5678").await;
    node.stop().await;
}

#[tokio::test]
async fn an_answer_that_arrived_is_not_asked_for_again() {
    let place = tempfile::tempdir().unwrap();
    let engine: Arc<dyn Engine> = Arc::new(Embedded::open(&place.path().join("store")).unwrap());
    let process = Arc::default();
    let asked = answered(&engine, place.path(), &process).await;

    let (node, mut shim) = daemon(&engine, place.path(), &process, 11).await;
    shim.last = asked.src;
    let mut events = watch(&node).await;
    shim.welcome(None).await;
    // What follows is heard after the Welcome: nothing was asked before it.
    shim.say(StateNotice::RunFinished {
        run: asked.run,
        attempt: Attempt(1),
        outcome: outlive_core::session::RunOutcome::Succeeded,
        execution_count: Some(1),
    })
    .await;
    let look = async {
        loop {
            match events.next().await.expect("the session goes on").event {
                StreamEvent::Session { session } => assert!(session.question.is_none(), "{session:?}"),
                StreamEvent::Run { run } if run.id == asked.run => return,
                _ => {}
            }
        }
    };
    tokio::time::timeout(WAIT, look).await.expect("the run ends");
    node.stop().await;
}
