//! A kernel process under test: spawned, connected, its messages in a queue that nobody has to read in time.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use outlive_core::runtime::spec::Transport;
use outlive_core::time::WallTime;
use outlive_jupyter::channels::{Channels, ConnectError, Incoming};
use outlive_jupyter::connection::{ConnectionInfo, PortReservation};
use outlive_jupyter::message::{Channel, Message};
use outlive_jupyter::request::{Client, ExecuteMode};
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Longer than anything takes that is not broken, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const AT: WallTime = WallTime(1_795_302_605_000_000);

/// The connection of a kernel that is not started yet.
pub struct Place {
    pub info: ConnectionInfo,
    pub directory: tempfile::TempDir,
    _ports: Option<PortReservation>,
}

impl Place {
    pub fn new(transport: Transport) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (info, ports) = match transport {
            Transport::Tcp => {
                let (info, ports) = ConnectionInfo::on_tcp("test").unwrap();
                (info, Some(ports))
            }
            Transport::Ipc => (ConnectionInfo::in_directory(directory.path(), "test").unwrap(), None),
        };
        info.write(&directory.path().join("connection.json")).unwrap();
        Self { info, directory, _ports: ports }
    }

    pub fn file(&self) -> PathBuf {
        self.directory.path().join("connection.json")
    }
}

/// Kills its process when dropped.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), signal).unwrap();
    }
}

pub struct Kernel {
    pub channels: Channels,
    pub incoming: UnboundedReceiver<Incoming>,
    pub client: Client,
    pub process: Process,
    _place: Place,
    asked: u32,
}

/// What came of one execution, in order, up to both the reply and the idle status.
#[derive(Debug)]
pub struct Outcome {
    pub reply: Message,
    pub iopub: Vec<Message>,
}

impl Kernel {
    /// Connected and subscribed.
    pub async fn start(command: Command, transport: Transport) -> Self {
        let mut kernel = Self::try_start(command, transport, PATIENCE).await.unwrap();
        assert!(kernel.channels.subscribed(PATIENCE).await, "this kernel greets a subscriber (JEP 65)");
        kernel
    }

    /// Connected, which says nothing about iopub yet.
    pub async fn try_start(
        mut command: Command,
        transport: Transport,
        timeout: Duration,
    ) -> Result<Self, ConnectError> {
        let place = Place::new(transport);
        command.arg("-f").arg(place.file()).stdin(Stdio::null());
        let process = Process(command.spawn().unwrap());
        let (queue, incoming) = unbounded_channel();
        let sink = into_queue(queue);
        let channels = Channels::connect(&place.info, "outlive-test", timeout, sink).await?;
        let client = Client { session: "outlive-test".to_owned(), username: "tester".to_owned() };
        Ok(Self { channels, incoming, client, process, _place: place, asked: 0 })
    }

    pub async fn next(&mut self) -> Incoming {
        let next = tokio::time::timeout(PATIENCE, self.incoming.recv()).await;
        next.expect("the kernel says something in time").expect("readers live as long as the channels")
    }

    pub async fn message(&mut self) -> (Channel, Message) {
        loop {
            match self.next().await {
                Incoming::Message(_, message) if message.header.msg_type == "iopub_welcome" => {}
                Incoming::Message(channel, message) => return (channel, *message),
                other => panic!("not a message: {other:?}"),
            }
        }
    }

    pub fn new_id(&mut self) -> String {
        self.asked += 1;
        format!("request-{}", self.asked)
    }

    pub async fn send_code(&mut self, code: &str) -> String {
        let id = self.new_id();
        let request = self.client.execute(&id, code, ExecuteMode::Interactive, AT);
        self.channels.shell.send(&request).await.unwrap();
        id
    }

    pub async fn execute(&mut self, code: &str) -> Outcome {
        let id = self.send_code(code).await;
        self.finish(&id).await
    }

    /// Everything that belongs to a request, once its reply and its idle status are there.
    pub async fn finish(&mut self, id: &str) -> Outcome {
        let (mut reply, mut iopub, mut idle) = (None, Vec::new(), false);
        while reply.is_none() || !idle {
            let (channel, message) = self.message().await;
            if message.parent_id() != Some(id) {
                continue;
            }
            match channel {
                Channel::Iopub => {
                    idle |=
                        message.header.msg_type == "status" && json(&message)["execution_state"] == "idle";
                    iopub.push(message);
                }
                Channel::Shell => reply = Some(message),
                other => panic!("{other} for {message:?}"),
            }
        }
        Outcome { reply: reply.unwrap(), iopub }
    }
}

impl Outcome {
    pub fn status(&self) -> String {
        json(&self.reply)["status"].as_str().unwrap().to_owned()
    }

    pub fn of_type(&self, msg_type: &str) -> Vec<Value> {
        self.iopub.iter().filter(|message| message.header.msg_type == msg_type).map(json).collect()
    }

    pub fn text(&self, stream: &str) -> String {
        let pieces = self.of_type("stream").into_iter().filter(|content| content["name"] == stream);
        pieces.map(|content| content["text"].as_str().unwrap().to_owned()).collect()
    }
}

pub fn json(message: &Message) -> Value {
    message.content().unwrap()
}

pub fn into_queue(queue: UnboundedSender<Incoming>) -> impl FnMut(Incoming) + Clone + Send + 'static {
    move |incoming| {
        // The test may have ended.
        let _ = queue.send(incoming);
    }
}
