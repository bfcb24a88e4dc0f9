//! The tasks that hold a kernel's sockets: the driver never waits for a kernel that does not read.

use std::time::Duration;

use outlive_core::limits::{HEARTBEAT_TIMEOUT_MS, QUEUED_RUNS_MAX};
use outlive_jupyter::channels::{Channels, Readers, Sender};
use outlive_jupyter::heartbeat::{BeatError, Heartbeat};
use outlive_jupyter::message::Message;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How many requests of Outlive's own (interrupt, shutdown, answers) wait for a kernel that does not read.
const REQUESTS_MAX: usize = 64;

/// The sending sides, the heartbeat, and the reading tasks. Dropping it closes every socket.
pub(super) struct Wires {
    shell: mpsc::Sender<Message>,
    control: mpsc::Sender<Message>,
    stdin: mpsc::Sender<Message>,
    beats: mpsc::Sender<()>,
    echoes: mpsc::Receiver<()>,
    readers: Readers,
    _tasks: JoinSet<()>,
}

/// The kernel has not read thousands of requests: this one was not sent.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the kernel does not read its requests; interrupt or restart it")]
pub(crate) struct NotRead;

impl Wires {
    pub(super) fn new(channels: Channels) -> Self {
        let Channels { shell, control, stdin, heartbeat, readers } = channels;
        let mut tasks = JoinSet::new();
        let (shell_queue, requests) = mpsc::channel(QUEUED_RUNS_MAX);
        tasks.spawn(send(shell, requests));
        let (control_queue, requests) = mpsc::channel(REQUESTS_MAX);
        tasks.spawn(send(control, requests));
        let (stdin_queue, requests) = mpsc::channel(REQUESTS_MAX);
        tasks.spawn(send(stdin, requests));
        // One of each: a beat is asked for only after the last one was answered or missed.
        let (beats, asked) = mpsc::channel(1);
        let (answered, echoes) = mpsc::channel(1);
        tasks.spawn(beat(heartbeat, asked, answered));
        Self {
            shell: shell_queue,
            control: control_queue,
            stdin: stdin_queue,
            beats,
            echoes,
            readers,
            _tasks: tasks,
        }
    }

    pub(super) fn shell(&self, message: Message) -> Result<(), NotRead> {
        self.shell.try_send(message).map_err(|_| NotRead)
    }

    pub(super) fn control(&self, message: Message) -> Result<(), NotRead> {
        self.control.try_send(message).map_err(|_| NotRead)
    }

    pub(super) fn stdin(&self, message: Message) -> Result<(), NotRead> {
        self.stdin.try_send(message).map_err(|_| NotRead)
    }

    /// Asks for an echo; nothing when one is under way.
    pub(super) fn beat(&self) {
        let _under_way = self.beats.try_send(());
    }

    /// The next echo. Cancel-safe.
    pub(super) async fn echo(&mut self) {
        if self.echoes.recv().await.is_none() {
            // The socket is gone: the process has died, and its pidfd says so.
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn hold_iopub(&self, hold: bool) {
        self.readers.hold_iopub(hold);
    }
}

async fn send(mut sender: Sender, mut requests: mpsc::Receiver<Message>) {
    while let Some(message) = requests.recv().await {
        if let Err(error) = sender.send(&message).await {
            // The kernel is dying; the driver hears of it from the pidfd.
            tracing::debug!(%error, "a request was not sent");
            return;
        }
    }
}

async fn beat(mut heartbeat: Heartbeat, mut asked: mpsc::Receiver<()>, answered: mpsc::Sender<()>) {
    while asked.recv().await.is_some() {
        match heartbeat.beat(Duration::from_millis(HEARTBEAT_TIMEOUT_MS)).await {
            Ok(()) => {
                if answered.send(()).await.is_err() {
                    return;
                }
            }
            // The driver counts by its own deadline.
            Err(BeatError::Missed(_)) => {}
            Err(BeatError::Disconnected(_)) => return,
        }
    }
}
