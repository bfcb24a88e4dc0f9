//! A Jupyter kernel that misbehaves on order, for tests: `fake-kernel [--mode MODE] -f CONNECTION_FILE`.
//!
//! Modes (default `normal`):
//!
//! | mode | what it does |
//! |---|---|
//! | `exits-before-ready` | writes to stderr and exits with 3 before it listens |
//! | `never-listens` | lives, binds nothing |
//! | `never-answers` | listens and echoes heartbeats, answers no request |
//! | `wrong-hmac` | signs with another key |
//! | `info-error` | answers `kernel_info_request` with an error |
//! | `no-welcome` | has a plain PUB: no `iopub_welcome` (JEP 65) |
//! | `dies-after:N` | exits with 70 instead of publishing message N + 1 on iopub |
//! | `drops-outputs` | loses every second output of a cell, as a full ZeroMQ socket does |
//! | `floods` | publishes without end once it was asked for anything |
//! | `no-echo` | does not answer heartbeats |
//! | `ignores-shutdown` | answers `shutdown_request`, but lives on |
//! | `ignores-stop` | the same, and ignores SIGTERM |
//!
//! A cell is lines of: `print TEXT`, `warn TEXT` (streams), `say TEXT` (the process's own stderr), `show MIME TEXT`
//! (`display_data`), `flood N`, `ask PROMPT` (prints the answer), `raise NAME TEXT`, `hang` (until interrupted),
//! `spin` (the whole process, for ever), `exit CODE`.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use outlive_core::time::WallTime;
use outlive_jupyter::connection::ConnectionInfo;
use outlive_jupyter::message::{Message, SIGNATURE_SCHEME, SigningKey};
use outlive_jupyter::request::Client;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use zeromq::{RouterSocket, Socket as _, SocketRecv as _, SocketSend as _, XPubSocket, ZmqMessage};

type Outcome<T> = Result<T, Box<dyn Error>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Normal,
    ExitsBeforeReady,
    NeverListens,
    NeverAnswers,
    WrongHmac,
    InfoError,
    NoWelcome,
    DiesAfter(u64),
    DropsOutputs,
    Floods,
    NoEcho,
    IgnoresShutdown,
    IgnoresStop,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run())) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("fake-kernel: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Outcome<u8> {
    let (mode, file) = arguments(std::env::args().skip(1))?;
    let info = ConnectionInfo::read(&file)?;
    match mode {
        Mode::ExitsBeforeReady => {
            eprintln!("fake-kernel: told to fail before it is ready");
            return Ok(3);
        }
        Mode::NeverListens => return std::future::pending().await,
        _ => {}
    }
    Kernel::listen(mode, &info).await?.serve().await
}

fn arguments(mut words: impl Iterator<Item = String>) -> Outcome<(Mode, PathBuf)> {
    let (mut mode, mut file) = (Mode::Normal, None);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--mode" => mode = parse_mode(&value)?,
            "-f" => file = Some(PathBuf::from(value)),
            other => return Err(format!("unknown option {other}").into()),
        }
    }
    Ok((mode, file.ok_or("-f CONNECTION_FILE is missing")?))
}

fn parse_mode(text: &str) -> Outcome<Mode> {
    Ok(match text {
        "normal" => Mode::Normal,
        "exits-before-ready" => Mode::ExitsBeforeReady,
        "never-listens" => Mode::NeverListens,
        "never-answers" => Mode::NeverAnswers,
        "wrong-hmac" => Mode::WrongHmac,
        "info-error" => Mode::InfoError,
        "no-welcome" => Mode::NoWelcome,
        "drops-outputs" => Mode::DropsOutputs,
        "floods" => Mode::Floods,
        "no-echo" => Mode::NoEcho,
        "ignores-shutdown" => Mode::IgnoresShutdown,
        "ignores-stop" => Mode::IgnoresStop,
        other => match other.strip_prefix("dies-after:") {
            Some(count) => Mode::DiesAfter(count.parse()?),
            None => return Err(format!("unknown mode {other}").into()),
        },
    })
}

struct Kernel {
    mode: Mode,
    key: SigningKey,
    voice: Client,
    shell: RouterSocket,
    control: RouterSocket,
    stdin: RouterSocket,
    iopub: XPubSocket,
    heartbeat: JoinSet<()>,
    /// Hears what comes after the cell's start; its being there keeps SIGINT from ending the process.
    interrupts: Signal,
    published: u64,
    outputs: u64,
    said: u64,
    executed: u64,
}

/// How a cell ended.
enum End {
    Reply(Value),
    Exit(u8),
}

/// What ends a wait inside a cell.
enum Wake {
    Interrupted,
    Exit(u8),
}

impl Kernel {
    async fn listen(mode: Mode, info: &ConnectionInfo) -> Outcome<Self> {
        let key = match mode {
            Mode::WrongHmac => SigningKey::new("another key", SIGNATURE_SCHEME)?,
            _ => info.signing_key()?,
        };
        let (mut shell, mut control, mut stdin) =
            (RouterSocket::new(), RouterSocket::new(), RouterSocket::new());
        let (mut iopub, mut echo) = (XPubSocket::new(), RouterSocket::new());
        shell.bind(&info.endpoint(info.shell_port)).await?;
        stdin.bind(&info.endpoint(info.stdin_port)).await?;
        control.bind(&info.endpoint(info.control_port)).await?;
        iopub.bind(&info.endpoint(info.iopub_port)).await?;
        echo.bind(&info.endpoint(info.hb_port)).await?;
        let mut heartbeat = JoinSet::new();
        heartbeat.spawn(async move {
            while let Ok(question) = echo.recv().await {
                if mode != Mode::NoEcho && echo.send(question).await.is_err() {
                    return;
                }
            }
        });
        let voice = Client { session: "fake-kernel".to_owned(), username: "kernel".to_owned() };
        let (published, outputs, said, executed) = (0, 0, 0, 0);
        Ok(Self {
            mode,
            key,
            voice,
            shell,
            control,
            stdin,
            iopub,
            heartbeat,
            interrupts: signal(SignalKind::interrupt())?,
            published,
            outputs,
            said,
            executed,
        })
    }

    async fn serve(mut self) -> Outcome<u8> {
        let mut terminate = signal(SignalKind::terminate())?;
        loop {
            let exit = tokio::select! {
                Ok(frames) = self.shell.recv() => self.on_shell(frames).await?,
                Ok(frames) = self.control.recv() => self.on_control(frames).await?.1,
                Ok(subscription) = self.iopub.recv() => self.on_subscription(&subscription).await?,
                _ = terminate.recv(), if self.mode != Mode::IgnoresStop => Some(143),
            };
            if let Some(code) = exit {
                self.heartbeat.abort_all();
                // zeromq writes on tasks of its own: they get their turns, or the last answer would be lost.
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                return Ok(code);
            }
        }
    }

    async fn on_subscription(&mut self, subscription: &ZmqMessage) -> Outcome<Option<u8>> {
        let subscribed = subscription.get(0).is_some_and(|frame| frame.first() == Some(&1));
        if subscribed && !matches!(self.mode, Mode::NoWelcome | Mode::NeverAnswers) {
            return self.publish(None, "iopub_welcome", json!({ "subscription": "" })).await;
        }
        Ok(None)
    }

    async fn on_shell(&mut self, frames: ZmqMessage) -> Outcome<Option<u8>> {
        let request = Message::decode(frames.into_vec(), &self.key);
        // A kernel drops what is not signed with its key.
        let (Ok(request), true) = (request, self.mode != Mode::NeverAnswers) else {
            return self.shrug().await;
        };
        if let Some(code) =
            self.publish(Some(&request), "status", json!({ "execution_state": "busy" })).await?
        {
            return Ok(Some(code));
        }
        let reply_type = request.header.msg_type.replace("_request", "_reply");
        let content = match request.header.msg_type.as_str() {
            "execute_request" => match self.execute(&request).await? {
                End::Reply(content) => content,
                End::Exit(code) => return Ok(Some(code)),
            },
            "kernel_info_request" => self.kernel_info(),
            _ => json!({ "status": "ok" }),
        };
        let reply = self.message(Some(&request), &reply_type, &content);
        self.shell.send(self.frames(&reply)).await?;
        self.publish(Some(&request), "status", json!({ "execution_state": "idle" })).await
    }

    /// The answer to what is not answered. With another key this is where it shows.
    async fn shrug(&mut self) -> Outcome<Option<u8>> {
        if self.mode == Mode::WrongHmac {
            return self.publish(None, "status", json!({ "execution_state": "busy" })).await;
        }
        Ok(None)
    }

    /// What is to be done after a control message: whether the cell is interrupted, whether the process exits.
    async fn on_control(&mut self, frames: ZmqMessage) -> Outcome<(bool, Option<u8>)> {
        let Ok(request) = Message::decode(frames.into_vec(), &self.key) else {
            return Ok((false, self.shrug().await?));
        };
        if self.mode == Mode::NeverAnswers {
            return Ok((false, None));
        }
        let kind = request.header.msg_type.as_str();
        let content = match kind {
            "kernel_info_request" => self.kernel_info(),
            _ => json!({ "status": "ok" }),
        };
        let reply = self.message(Some(&request), &kind.replace("_request", "_reply"), &content);
        self.control.send(self.frames(&reply)).await?;
        let stays = matches!(self.mode, Mode::IgnoresShutdown | Mode::IgnoresStop);
        let exit = (kind == "shutdown_request" && !stays).then_some(0);
        Ok((kind == "interrupt_request", exit))
    }

    fn kernel_info(&self) -> Value {
        if self.mode == Mode::InfoError {
            return json!({
                "status": "error", "ename": "FakeError", "evalue": "told to answer with an error", "traceback": [],
            });
        }
        json!({
            "status": "ok",
            "protocol_version": "5.4",
            "implementation": "fake-kernel",
            "implementation_version": "1",
            "banner": "a kernel for tests",
            "help_links": [],
            "language_info": { "name": "fake", "version": "1", "mimetype": "text/plain", "file_extension": ".fake" },
        })
    }

    async fn execute(&mut self, request: &Message) -> Outcome<End> {
        let content: Value = request.content()?;
        let code = content["code"].as_str().unwrap_or_default().to_owned();
        self.executed += 1;
        self.interrupts = signal(SignalKind::interrupt())?;
        while self.mode == Mode::Floods {
            if let Some(code) = self.stream(request, "stdout", "flood\n").await? {
                return Ok(End::Exit(code));
            }
        }
        for line in code.lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            if let Some(end) = self.statement(request, word, rest).await? {
                return Ok(end);
            }
        }
        Ok(End::Reply(json!({ "status": "ok", "execution_count": self.executed, "user_expressions": {} })))
    }

    async fn statement(&mut self, request: &Message, word: &str, rest: &str) -> Outcome<Option<End>> {
        let exit = match word {
            "" => None,
            "print" => self.stream(request, "stdout", &format!("{rest}\n")).await?,
            "warn" => self.stream(request, "stderr", &format!("{rest}\n")).await?,
            "say" => {
                eprintln!("{rest}");
                None
            }
            "show" => {
                let (mime, text) = rest.split_once(' ').ok_or("show MIME TEXT")?;
                let content = json!({ "data": { mime: text }, "metadata": {}, "transient": {} });
                self.output(request, "display_data", content).await?
            }
            "flood" => {
                let mut exit = None;
                for number in 0..rest.parse::<u64>()? {
                    exit = self.stream(request, "stdout", &format!("{number}\n")).await?;
                    if exit.is_some() {
                        break;
                    }
                }
                exit
            }
            "ask" => {
                let answer = self.ask(request, rest).await?;
                self.stream(request, "stdout", &format!("{answer}\n")).await?
            }
            "raise" => {
                let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
                return self.raise(request, name, text).await.map(Some);
            }
            "hang" => match self.wait_for_interrupt().await? {
                Wake::Interrupted => {
                    return self.raise(request, "KeyboardInterrupt", "").await.map(Some);
                }
                Wake::Exit(code) => Some(code),
            },
            "spin" => loop {
                std::hint::spin_loop();
            },
            "exit" => Some(rest.parse()?),
            _ => return self.raise(request, "SyntaxError", word).await.map(Some),
        };
        Ok(exit.map(End::Exit))
    }

    async fn wait_for_interrupt(&mut self) -> Outcome<Wake> {
        let mut terminate = signal(SignalKind::terminate())?;
        loop {
            tokio::select! {
                _ = self.interrupts.recv() => return Ok(Wake::Interrupted),
                _ = terminate.recv(), if self.mode != Mode::IgnoresStop => return Ok(Wake::Exit(143)),
                Ok(frames) = self.control.recv() => match self.on_control(frames).await? {
                    (_, Some(code)) => return Ok(Wake::Exit(code)),
                    (true, None) => return Ok(Wake::Interrupted),
                    (false, None) => {}
                },
            }
        }
    }

    async fn ask(&mut self, request: &Message, prompt: &str) -> Outcome<String> {
        let question =
            self.message(Some(request), "input_request", &json!({ "prompt": prompt, "password": false }));
        self.stdin.send(self.frames(&question)).await?;
        let answer = Message::decode(self.stdin.recv().await?.into_vec(), &self.key)?;
        let content: Value = answer.content()?;
        Ok(content["value"].as_str().unwrap_or_default().to_owned())
    }

    async fn raise(&mut self, request: &Message, name: &str, text: &str) -> Outcome<End> {
        let error = json!({ "ename": name, "evalue": text, "traceback": [format!("{name}: {text}")] });
        if let Some(code) = self.output(request, "error", error.clone()).await? {
            return Ok(End::Exit(code));
        }
        let mut reply = error;
        reply["status"] = json!("error");
        reply["execution_count"] = json!(self.executed);
        Ok(End::Reply(reply))
    }

    async fn stream(&mut self, request: &Message, name: &str, text: &str) -> Outcome<Option<u8>> {
        self.output(request, "stream", json!({ "name": name, "text": text })).await
    }

    async fn output(&mut self, request: &Message, kind: &str, content: Value) -> Outcome<Option<u8>> {
        self.outputs += 1;
        if self.mode == Mode::DropsOutputs && self.outputs.is_multiple_of(2) {
            return Ok(None);
        }
        self.publish(Some(request), kind, content).await
    }

    /// The exit code, when this is where the process is to die.
    async fn publish(&mut self, parent: Option<&Message>, kind: &str, content: Value) -> Outcome<Option<u8>> {
        if let Mode::DiesAfter(count) = self.mode
            && self.published == count
        {
            eprintln!("fake-kernel: told to die after {count} messages");
            return Ok(Some(70));
        }
        self.published += 1;
        let mut message = self.message(parent, kind, &content);
        message.identities = vec![kind.to_owned().into()];
        self.iopub.send(self.frames(&message)).await?;
        Ok(None)
    }

    /// To whom the parent came from.
    fn message(&mut self, parent: Option<&Message>, kind: &str, content: &Value) -> Message {
        self.said += 1;
        let id = format!("fake-{}", self.said);
        let mut message = self.voice.reply_to(parent, &id, kind, content, WallTime(0));
        if let Some(parent) = parent {
            message.identities.clone_from(&parent.identities);
        }
        message
    }

    fn frames(&self, message: &Message) -> ZmqMessage {
        ZmqMessage::try_from(message.encode(&self.key)).expect("a message has frames")
    }
}
