//! One Jupyter kernel, from its sockets to what the driver has to tell.
//!
//! ```text
//! Connecting ──connected──► Asking ──kernel_info_reply and iopub heard──► Ready
//!      └ ConnectError           └ an error reply, or silence until the launch's deadline
//! ```
//! Runs that are given before Ready wait here and are sent in their order.

pub(crate) mod outputs;
mod probes;
pub(crate) mod pulse;
mod queue;
pub(crate) mod runs;
mod wires;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use outlive_core::diagnosis::evidence::{LaunchEvidence, LaunchStep};
use outlive_core::id::RunId;
use outlive_core::log::ChunkKind;
use outlive_core::runtime::spec::Transport;
use outlive_core::session::RunOutcome;
use outlive_core::time::{Now, Tick};
use outlive_jupyter::channels::{Channels, ConnectError, Incoming};
use outlive_jupyter::connection::{AllocateError, ConnectionInfo, PortReservation};
use outlive_jupyter::message::Message;
use outlive_jupyter::request::{Client, ExecuteMode};
use outlive_protocol::shim::StateNotice;
use serde::Deserialize;
use serde_json::Value;

use outputs::{Meaning, meaning};
use queue::Queue;
use runs::{Reply, RunKey, Runs, message_id};
use wires::Wires;

/// Our own requests' ids begin so; what they cause is nobody's output.
const OWN: &str = "outlive-";
const INFO: &str = "outlive-info";

/// A kernel whose iopub is not heard yet is asked again after this time, in milliseconds: the first status may have
/// been sent before the subscription reached it.
const ASK_AGAIN_MS: u64 = 100;
/// How often it is asked again. A kernel that answers and publishes nothing is ready all the same.
const ASK_AGAIN_MAX: u32 = 10;
/// Shell, control, stdin, iopub.
const CHANNELS: usize = 4;
/// Longest kernel_info that is kept, in bytes.
const INFO_BYTES_MAX: usize = 131_072;

/// Whether a message id is one of our own requests'.
pub(crate) fn is_own_request(id: &str) -> bool {
    id.starts_with(OWN)
}

/// What a kernel did.
pub(crate) enum Happened {
    /// Its sockets are connected, or not.
    Connected(Result<Box<Channels>, ConnectError>),
    /// It said something.
    Said(Incoming),
    /// It answered a heartbeat.
    Echo,
}

/// What the driver has to do about it.
#[derive(Debug)]
pub(crate) enum Effect {
    Ready {
        kernel_info: Value,
    },
    Output {
        run: Option<RunKey>,
        kind: ChunkKind,
        pieces: Vec<Bytes>,
    },
    State(StateNotice),
    /// A question: first its chunk, then its notice.
    Asks {
        content: Bytes,
        notice: StateNotice,
        run: RunKey,
    },
    Failed(LaunchEvidence),
    Echo,
}

type Connecting = Pin<Box<dyn Future<Output = Result<Channels, ConnectError>> + Send>>;

enum Stage {
    Connecting { future: Connecting, _ports: Option<PortReservation> },
    Asking(Asking),
    Ready { wires: Wires, can_wait: bool, is_held: bool },
    Failed,
}

struct Asking {
    wires: Wires,
    info: Option<Value>,
    is_iopub_heard: bool,
    asked: u32,
    ask_again_at: Tick,
}

/// A kernel's sockets and runs.
pub(crate) struct Kernel {
    client: Client,
    stage: Stage,
    incoming: Queue,
    disconnected: usize,
    runs: Runs,
    waiting: Vec<Message>,
    rejected: Option<String>,
}

/// The connection file's name in the process's directory.
const CONNECTION_FILE: &str = "connection.json";

/// What a kernel's launch needs before it is spawned.
pub(crate) struct Prepared {
    info: ConnectionInfo,
    ports: Option<PortReservation>,
    /// The command line, filled in.
    pub(crate) argv: Vec<String>,
}

/// Chooses ports or paths, writes the connection file, fills in the command line.
///
/// # Errors
/// In words: it becomes evidence of the launch.
pub(crate) fn prepare(
    directory: &Path,
    name: &str,
    argv: &[String],
    resource_dir: Option<&str>,
    transport: Transport,
) -> Result<Prepared, String> {
    let (info, ports) = match transport {
        Transport::Tcp => ConnectionInfo::on_tcp(name).map(|(info, ports)| (info, Some(ports))),
        Transport::Ipc => match ConnectionInfo::in_directory(directory, name) {
            // A preference, not a promise: where no socket path is short enough, loopback ports do.
            Err(AllocateError::PathTooLong { .. }) => {
                ConnectionInfo::on_tcp(name).map(|(info, ports)| (info, Some(ports)))
            }
            made => made.map(|info| (info, None)),
        },
    }
    .map_err(|error| chain(&error))?;
    let file = directory.join(CONNECTION_FILE);
    info.write(&file).map_err(|error| chain(&error))?;
    let file = file.display().to_string();
    let fill = |word: &String| {
        word.replace("{connection_file}", &file).replace("{resource_dir}", resource_dir.unwrap_or_default())
    };
    Ok(Prepared { info, ports, argv: argv.iter().map(fill).collect() })
}

impl Kernel {
    /// Begins to connect to a kernel that was just spawned.
    pub(crate) fn connect(prepared: Prepared, timeout: Duration) -> Self {
        let (incoming, push) = Queue::new();
        let session = uuid::Uuid::new_v4().to_string();
        let client = Client { session: session.clone(), username: "outlive".to_owned() };
        let info = prepared.info;
        let future = Box::pin(async move { Channels::connect(&info, &session, timeout, push).await });
        Self {
            client,
            stage: Stage::Connecting { future, _ports: prepared.ports },
            incoming,
            disconnected: 0,
            runs: Runs::default(),
            waiting: Vec::new(),
            rejected: None,
        }
    }

    /// Waits for the next thing. What it says is left in the queue unless `is_reading`. Cancel-safe.
    pub(crate) async fn next(&mut self, is_reading: bool) -> Happened {
        let Self { stage, incoming, .. } = self;
        match stage {
            Stage::Connecting { future, .. } => Happened::Connected(future.await.map(Box::new)),
            Stage::Asking(Asking { wires, .. }) | Stage::Ready { wires, .. } => {
                tokio::select! {
                    biased;
                    () = wires.echo() => Happened::Echo,
                    Some(said) = incoming.recv(), if is_reading => Happened::Said(said),
                    else => std::future::pending().await,
                }
            }
            Stage::Failed => std::future::pending().await,
        }
    }

    /// What is waiting already.
    pub(crate) fn said(&mut self) -> Option<Happened> {
        self.incoming.try_recv().map(Happened::Said)
    }

    /// Takes in what happened.
    pub(crate) fn take(&mut self, happened: Happened, now: Now) -> Option<Effect> {
        match happened {
            Happened::Connected(Ok(channels)) => {
                let wires = Wires::new(*channels);
                let mut asking =
                    Asking { wires, info: None, is_iopub_heard: false, asked: 0, ask_again_at: now.tick };
                asking.ask(&self.client, now);
                self.stage = Stage::Asking(asking);
                None
            }
            Happened::Connected(Err(error)) => {
                self.stage = Stage::Failed;
                let waited_ms = match &error {
                    ConnectError::NotListening { waited, .. } => Some(crate::clock::millis(*waited)),
                    ConnectError::Key(_)
                    | ConnectError::Handshake { .. }
                    | ConnectError::Unreachable { .. } => None,
                };
                Some(Effect::Failed(failure(LaunchStep::Connect, chain(&error), waited_ms)))
            }
            Happened::Echo => Some(Effect::Echo),
            Happened::Said(Incoming::Message(channel, message)) => {
                if let (Stage::Asking(asking), outlive_jupyter::message::Channel::Iopub) =
                    (&mut self.stage, channel)
                {
                    asking.is_iopub_heard = true;
                }
                let effect = self.understand(meaning(channel, &message), *message, now);
                effect.or_else(|| self.become_ready(now))
            }
            Happened::Said(Incoming::Rejected(channel, error)) => {
                tracing::warn!(%channel, %error, "frames that are no message of this kernel");
                self.rejected = Some(chain(&error));
                None
            }
            Happened::Said(Incoming::Disconnected(_)) => {
                self.disconnected += 1;
                None
            }
        }
    }

    fn understand(&mut self, meaning: Meaning, message: Message, now: Now) -> Option<Effect> {
        match meaning {
            Meaning::Output { run, kind, pieces } => {
                if let Some(run) = run {
                    self.runs.heard(run);
                }
                Some(Effect::Output { run, kind, pieces })
            }
            Meaning::Busy(run) => self.runs.busy(run).map(Effect::State),
            Meaning::Idle(run) => self.runs.idle(run, now.tick).map(Effect::State),
            Meaning::Replied(run, reply) => self.runs.reply(run, reply).map(Effect::State),
            Meaning::Asks { run, prompt, is_password } => {
                let content = message.raw.content.clone();
                self.runs.ask(run, message);
                let notice = StateNotice::InputRequested { run: run.0, prompt, password: is_password };
                Some(Effect::Asks { content, notice, run })
            }
            Meaning::Answer(id) => self.answered(&id, &message),
            Meaning::Nothing => None,
        }
    }

    fn answered(&mut self, id: &str, message: &Message) -> Option<Effect> {
        #[derive(Deserialize)]
        struct Status {
            #[serde(default)]
            status: String,
            #[serde(default)]
            ename: String,
            #[serde(default)]
            evalue: String,
        }
        let status = message.content::<Status>();
        match (&mut self.stage, id) {
            (Stage::Asking(asking), INFO) => match status {
                // Kernels before protocol 5.1 give no status.
                Ok(Status { status, .. }) if status == "ok" || status.is_empty() => {
                    let is_small = message.raw.content.len() <= INFO_BYTES_MAX;
                    let info = is_small.then(|| message.content().ok()).flatten();
                    asking.info = Some(info.unwrap_or_else(|| serde_json::json!({})));
                    None
                }
                Ok(Status { ename, evalue, .. }) => {
                    let what =
                        format!("the kernel answered kernel_info_request with an error: {ename}: {evalue}");
                    Some(Effect::Failed(failure(LaunchStep::Ready, what, None)))
                }
                Err(error) => {
                    let what = format!("the kernel's kernel_info_reply cannot be read: {error}");
                    Some(Effect::Failed(failure(LaunchStep::Ready, what, None)))
                }
            },
            (Stage::Ready { can_wait, .. }, probes::NO_DROP) => {
                *can_wait = status.is_ok_and(|status| status.status == "ok");
                tracing::debug!(can_wait = *can_wait, "back-pressure for this kernel");
                None
            }
            _ => None,
        }
    }

    /// Goes on to Ready when it has answered and its iopub is heard, or does not seem to say anything.
    fn become_ready(&mut self, now: Now) -> Option<Effect> {
        let Stage::Asking(asking) = &mut self.stage else { return None };
        if asking.info.is_none() || !(asking.is_iopub_heard || asking.asked >= ASK_AGAIN_MAX) {
            return None;
        }
        let kernel_info = asking.info.take()?;
        let Stage::Asking(Asking { wires, .. }) = std::mem::replace(&mut self.stage, Stage::Failed) else {
            unreachable!("matched above")
        };
        if kernel_info["implementation"] == "ipython" {
            for (id, code) in probes::ALL {
                let _not_asked = wires.shell(self.client.execute(id, code, ExecuteMode::Silent, now.wall));
            }
        }
        for message in self.waiting.drain(..) {
            let _full_at_ten_thousand = wires.shell(message);
        }
        self.stage = Stage::Ready { wires, can_wait: false, is_held: false };
        Some(Effect::Ready { kernel_info })
    }

    /// When [`Self::expire`] wants to be called.
    pub(crate) fn next_deadline(&self) -> Option<Tick> {
        match &self.stage {
            Stage::Asking(asking) => Some(asking.ask_again_at),
            Stage::Ready { .. } => self.runs.next_deadline(),
            Stage::Connecting { .. } | Stage::Failed => None,
        }
    }

    /// The deadline has come.
    pub(crate) fn expire(&mut self, now: Now) -> Option<Effect> {
        let Stage::Asking(asking) = &mut self.stage else {
            return self.runs.expire(now.tick).map(Effect::State);
        };
        if now.tick < asking.ask_again_at {
            return None;
        }
        // One that has not answered once is not asked again: it would answer each of them.
        if asking.info.is_some() {
            asking.ask(&self.client, now);
        } else {
            asking.ask_again_at = now.tick + Duration::from_millis(ASK_AGAIN_MS);
        }
        self.become_ready(now)
    }

    /// Sends a heartbeat.
    pub(crate) fn beat(&self) {
        if let Stage::Ready { wires, .. } = &self.stage {
            wires.beat();
        }
    }

    /// Gives it a run. One that was given before is ignored; one that the kernel cannot take is finished at once.
    pub(crate) fn execute(
        &mut self,
        key: RunKey,
        code: &str,
        mode: ExecuteMode,
        now: Now,
    ) -> Option<StateNotice> {
        if !self.runs.give(key) {
            return None;
        }
        let message = self.client.execute(&message_id(key), code, mode, now.wall);
        match &self.stage {
            Stage::Ready { wires, .. } => {
                let refused = wires.shell(message).err()?;
                let outcome =
                    RunOutcome::Raised { ename: "KernelBusy".to_owned(), evalue: refused.to_string() };
                self.runs.idle(key, now.tick);
                self.runs.reply(key, Reply { outcome, execution_count: None })
            }
            Stage::Connecting { .. } | Stage::Asking(_) => {
                self.waiting.push(message);
                None
            }
            // It is being stopped; its exit settles the run.
            Stage::Failed => None,
        }
    }

    /// It was given a run and has not begun with its code: an interrupt would be lost on it.
    pub(crate) fn is_beginning(&self) -> bool {
        self.runs.is_beginning()
    }

    /// It is interrupted now.
    pub(crate) fn interrupted(&mut self) {
        self.runs.interrupt();
    }

    /// Asks it to interrupt what runs; `false` when it cannot be asked.
    pub(crate) fn interrupt(&self, now: Now) -> bool {
        let Stage::Ready { wires, .. } = &self.stage else { return false };
        wires.control(self.client.interrupt("outlive-interrupt", now.wall)).is_ok()
    }

    /// Asks it to end; `false` when it cannot be asked.
    pub(crate) fn shut_down(&self, is_restart: bool, now: Now) -> bool {
        let Stage::Ready { wires, .. } = &self.stage else { return false };
        wires.control(self.client.shutdown("outlive-shutdown", is_restart, now.wall)).is_ok()
    }

    /// Answers a run's question.
    pub(crate) fn input(&mut self, run: RunId, value: &str, now: Now) {
        let Some(question) = self.runs.take_question(run) else { return };
        if let Stage::Ready { wires, .. } = &self.stage {
            let reply = self.client.input_reply(&question, "outlive-input", value, now.wall);
            let _dying = wires.stdin(reply);
        }
    }

    /// Whether a run waits for an answer.
    pub(crate) fn is_asking(&self, run: RunId) -> bool {
        self.runs.is_asking(run)
    }

    /// Makes a kernel that can wait do so, or go on.
    pub(crate) fn hold(&mut self, hold: bool) {
        if let Stage::Ready { wires, can_wait: true, is_held } = &mut self.stage
            && *is_held != hold
        {
            *is_held = hold;
            wires.hold_iopub(hold);
        }
    }

    /// Whether it waits instead of dropping output when it is not read.
    pub(crate) const fn can_wait(&self) -> bool {
        matches!(self.stage, Stage::Ready { can_wait: true, .. })
    }

    /// Whether nothing more can come: every channel is closed, or was never opened.
    pub(crate) fn is_drained(&self) -> bool {
        let never_opened = matches!(self.stage, Stage::Connecting { .. } | Stage::Failed);
        self.incoming.is_empty() && (never_opened || self.disconnected >= CHANNELS)
    }

    /// Whether it says more than can be taken in.
    pub(crate) fn is_ahead(&self) -> bool {
        self.incoming.is_long()
    }

    pub(crate) fn has_said(&self) -> bool {
        !self.incoming.is_empty()
    }

    pub(crate) fn runs(&self) -> &Runs {
        &self.runs
    }

    /// Why it is not ready when its time is up.
    pub(crate) fn not_ready(&self, waited_ms: u64) -> LaunchEvidence {
        let step = match self.stage {
            Stage::Connecting { .. } => LaunchStep::Connect,
            Stage::Asking(_) | Stage::Ready { .. } | Stage::Failed => LaunchStep::Ready,
        };
        let what = match (&self.rejected, step) {
            (Some(rejected), _) => format!("the kernel gave no answer that could be read: {rejected}"),
            (None, LaunchStep::Connect) => "the kernel did not open its sockets in time".to_owned(),
            (None, _) => {
                "the kernel opened its sockets but did not answer kernel_info_request in time".to_owned()
            }
        };
        failure(step, what, Some(waited_ms))
    }
}

impl Asking {
    fn ask(&mut self, client: &Client, now: Now) {
        self.asked += 1;
        self.ask_again_at = now.tick + Duration::from_millis(ASK_AGAIN_MS);
        let _dying = self.wires.shell(client.kernel_info(INFO, now.wall));
    }
}

fn failure(step: LaunchStep, message: String, waited_ms: Option<u64>) -> LaunchEvidence {
    LaunchEvidence { step, errno: None, path: None, message, waited_ms }
}

/// An error with its sources, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
