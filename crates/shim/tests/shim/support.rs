//! A daemon in miniature: starts a real shim, speaks its protocol, and looks at what comes.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use outlive_core::diagnosis::Evidence;
use outlive_core::id::{Attempt, BootId, Incarnation, NodeId, ProcessKey, RunId, RuntimeId, SessionId, Src};
use outlive_core::limits::{SHIM_MEMORY_BYTES_MAX, SPOOL_BYTES_MAX};
use outlive_core::log::{ChunkKind, Payload};
use outlive_core::runtime::runner::{Replay, Speaks, TaskOrder, Watchdogs};
use outlive_core::runtime::spec::{InterruptMode, Transport};
use outlive_core::runtime::stop::StopLadder;
use outlive_core::runtime::{ExitReport, LaunchSpec, Program, StopStep, StopWhy};
use outlive_process::detached;
use outlive_process::watch::Process;
use outlive_protocol::frame::Decoder;
use outlive_protocol::shim::{FromShim, Notice, Numbered, ShimLaunch, StateNotice, ToShim, VERSION, Welcome};
use outlive_protocol::shim_codec::{decode_from_shim, encode_to_shim};
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use uuid::Uuid;

/// Longer than anything takes that is not broken, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Waits for something that must come.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

/// Looks at what tells nobody of itself (a file that grows, a process that waits) until it is so.
pub async fn seen(what: &str, mut is_so: impl FnMut() -> bool) {
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    soon(what, async {
        while !is_so() {
            looks.tick().await;
        }
    })
    .await;
}

pub fn new_run() -> RunId {
    RunId::from_uuid(Uuid::new_v4())
}

/// What a test may change before the shim is started.
pub struct Setup {
    pub launch: ShimLaunch,
    directory: tempfile::TempDir,
}

impl Setup {
    pub fn command(argv: &[&str]) -> Self {
        Self::new(Program::Command { argv: argv.iter().map(|word| (*word).to_owned()).collect() })
    }

    pub fn kernel(argv: &[&str]) -> Self {
        Self::new(Program::Kernel {
            name: "test".to_owned(),
            display_name: "Test".to_owned(),
            language: "test".to_owned(),
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            resource_dir: None,
            interrupt_mode: InterruptMode::Signal,
            transport: Transport::Tcp,
        })
    }

    /// A real ipykernel, in the environment that Outlive would make for a user.
    pub fn ipykernel() -> Self {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
        let here = outlive_jupyter::surroundings::Surroundings::of_this_process().unwrap();
        let mut variables = here.variables().clone();
        variables.insert("XDG_CACHE_HOME".to_owned(), cache.to_str().unwrap().to_owned());
        let surroundings =
            outlive_jupyter::surroundings::Surroundings::new(variables, here.directory().to_owned());
        let prefix =
            outlive_jupyter::environment::managed::find_or_make(&[], &surroundings, None, &mut |progress| {
                eprintln!("{progress}");
            })
            .unwrap();
        let python = prefix.join("bin/python").display().to_string();
        let mut setup = Self::kernel(&[
            &python,
            "-Xfrozen_modules=off",
            "-m",
            "ipykernel_launcher",
            "-f",
            "{connection_file}",
        ]);
        // Not the developer's own: IPython reads and writes files there.
        let home = setup.directory.path().display().to_string();
        setup.launch.spec.env.insert("HOME".to_owned(), home);
        setup
    }

    /// The kernel of `outlive-jupyter` that misbehaves on order.
    pub fn fake_kernel(mode: &str) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_shim-under-test")).with_file_name("fake-kernel");
        if !program.exists() {
            let built = std::process::Command::new(env!("CARGO"))
                .args(["build", "--quiet", "--package", "outlive-jupyter", "--bin", "fake-kernel"])
                .status();
            assert!(built.unwrap().success());
        }
        Self::kernel(&[&program.display().to_string(), "--mode", mode, "-f", "{connection_file}"])
    }

    /// Any program as a runner.
    pub fn runner_of(argv: &[&str], watch: Watchdogs) -> Self {
        let argv = argv.iter().map(|word| (*word).to_owned()).collect();
        Self::new(Program::Runner { name: "test-0".to_owned(), argv, speaks: Speaks::Protocol, watch })
    }

    /// The runner that behaves or misbehaves on order.
    pub fn runner(begins: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/runner.py");
        let argv = ["python3", "-S", "-E", &script.display().to_string(), begins];
        Self::runner_of(&argv, Watchdogs::default())
    }

    /// Its watchdogs, in milliseconds.
    pub fn watch(mut self, change: impl FnOnce(&mut Watchdogs)) -> Self {
        if let Program::Runner { watch, .. } = &mut self.launch.spec.program {
            change(watch);
        }
        self
    }

    fn new(program: Program) -> Self {
        // A short path: it holds a socket.
        let directory = tempfile::Builder::new().prefix("shim").tempdir().unwrap();
        let process =
            ProcessKey { runtime: RuntimeId::from_uuid(Uuid::new_v4()), incarnation: Incarnation(1) };
        let spec = LaunchSpec {
            program,
            cwd: directory.path().display().to_string(),
            env: BTreeMap::from([("PATH".to_owned(), std::env::var("PATH").unwrap())]),
            memory_bytes_max: None,
            ready_timeout_ms: 60_000,
        };
        let launch = ShimLaunch {
            version: VERSION,
            session: SessionId::from_uuid(Uuid::new_v4()),
            process,
            node: NodeId::from_uuid(Uuid::new_v4()),
            spec,
            directory: directory.path().join("p").display().to_string(),
            blobs: directory.path().join("blobs").display().to_string(),
            ladder: StopLadder { ask_ms: 5_000, term_ms: 300 },
            memory_bytes_max: SHIM_MEMORY_BYTES_MAX as u64,
            spool_bytes_max: SPOOL_BYTES_MAX,
            guard_ms: None,
        };
        Self { launch, directory }
    }

    /// Starts the shim.
    pub fn start(self) -> Shim {
        let Self { launch, directory } = self;
        std::fs::create_dir_all(&launch.directory).unwrap();
        let place = PathBuf::from(&launch.directory);
        std::fs::write(place.join("launch.json"), serde_json::to_vec(&launch).unwrap()).unwrap();
        let socket = place.join("socket");
        let listener = OwnedFd::from(UnixListener::bind(&socket).unwrap());
        let log = directory.path().join("shim.log");
        let program = Path::new(env!("CARGO_BIN_EXE_shim-under-test"));
        let log_file = detached::open_log(&log).unwrap();
        let process = detached::spawn(program, &[&launch.directory], Some(listener), log_file).unwrap();
        Shim { launch, process, socket, log, directory }
    }
}

/// A real shim.
pub struct Shim {
    pub launch: ShimLaunch,
    pub process: Process,
    pub socket: PathBuf,
    log: PathBuf,
    directory: tempfile::TempDir,
}

impl Shim {
    pub fn hello(&self, acked: Src) -> ToShim {
        ToShim::Hello {
            version: VERSION,
            session: self.launch.session,
            process: self.launch.process,
            boot: BootId::from_uuid(Uuid::new_v4()),
            acked,
        }
    }

    /// Connects and proves itself; what is acknowledged is not sent again.
    pub async fn connect(&self, acked: Src) -> Daemon {
        let mut daemon = Daemon::open(&self.socket).await;
        daemon.say(&self.hello(acked)).await;
        match daemon.hear().await {
            Some(FromShim::Welcome(welcome)) => daemon.welcome = Some(welcome),
            other => panic!("no welcome but {other:?}"),
        }
        daemon.last = acked;
        daemon
    }

    /// Waits until the shim itself has ended.
    pub async fn ended(&self) {
        soon("the end of the shim", self.process.exited()).await.unwrap();
        let _status = self.process.reap();
        assert!(!Path::new(&self.launch.directory).exists(), "it removes its directory");
    }

    pub fn blobs(&self) -> PathBuf {
        PathBuf::from(&self.launch.blobs)
    }

    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }

    /// The shim's own resident memory now, in bytes, without what it shares with others.
    pub fn private_bytes(&self) -> u64 {
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.process.pid())).unwrap();
        let kib: u64 = rollup
            .lines()
            .filter(|line| line.starts_with("Private_"))
            .map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap())
            .sum();
        kib * 1024
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the shim's log\n{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
        let _ended = self.process.signal(Signal::KILL);
        // What a failed test leaves behind; a test that passed has nothing to kill.
        let cgroups = outlive_shim::identity::read(Path::new(&self.launch.directory))
            .map(|identity| identity.cgroups)
            .unwrap_or_default();
        let process = self.launch.process;
        let sweep = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(outlive_process::sweep(process, &cgroups));
        });
        let _panicked = sweep.join();
    }
}

/// One connection to a shim.
pub struct Daemon {
    stream: UnixStream,
    decoder: Decoder,
    pub welcome: Option<Welcome>,
    /// Every record of this connection.
    pub records: Vec<Numbered>,
    /// The last record that came; numbers are checked.
    pub last: Src,
    /// Whether each record is acknowledged as it comes.
    pub acknowledges: bool,
}

impl Daemon {
    pub async fn open(socket: &Path) -> Self {
        let stream = soon("a connection", UnixStream::connect(socket)).await.unwrap();
        Self {
            stream,
            decoder: Decoder::default(),
            welcome: None,
            records: Vec::new(),
            last: Src(0),
            acknowledges: true,
        }
    }

    pub async fn say(&mut self, message: &ToShim) {
        self.write(&encode_to_shim(message).unwrap()).await;
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        soon("room for a message", self.stream.write_all(bytes)).await.unwrap();
    }

    /// The next message, or `None` when the shim has closed the connection.
    pub async fn hear(&mut self) -> Option<FromShim> {
        loop {
            while let Some(frame) = self.decoder.next_frame().unwrap() {
                if let Some(message) = decode_from_shim(&frame).unwrap() {
                    return Some(message);
                }
            }
            let mut buffer = vec![0; 65_536];
            match soon("a message of the shim", self.stream.read(&mut buffer)).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.decoder.feed(&buffer[..count]),
            }
        }
    }

    /// The next record.
    pub async fn record(&mut self) -> Numbered {
        match self.hear().await {
            Some(FromShim::Record(record)) => {
                assert_eq!(record.src, self.last.next(), "no hole and no double");
                self.last = record.src;
                if self.acknowledges {
                    self.say(&ToShim::Ack { through: record.src }).await;
                }
                self.records.push(record.clone());
                record
            }
            other => panic!("no record but {other:?}"),
        }
    }

    /// Reads on until a state notice that `is_it`.
    pub async fn until<T>(&mut self, mut is_it: impl FnMut(&StateNotice) -> Option<T>) -> T {
        loop {
            if let Notice::State(state) = self.record().await.notice
                && let Some(found) = is_it(&state)
            {
                return found;
            }
        }
    }

    /// Reads on until this text stands in the output.
    pub async fn until_text(&mut self, wanted: &str) {
        while !self.text(ChunkKind::Stdout).contains(wanted) {
            self.record().await;
        }
    }

    pub async fn ready(&mut self) {
        self.until(|state| matches!(state, StateNotice::Ready { .. }).then_some(())).await;
    }

    pub async fn execute(&mut self, run: RunId, code: &str) {
        let execute = ToShim::Execute {
            run,
            attempt: Attempt(1),
            code: code.to_owned(),
            allow_stdin: true,
            silent: false,
        };
        self.say(&execute).await;
    }

    /// Gives a runner a task.
    pub async fn task(&mut self, task: &str, input: Value) -> RunId {
        let run = new_run();
        self.task_again(run, Attempt(1), task, input).await;
        run
    }

    pub async fn task_again(&mut self, run: RunId, attempt: Attempt, task: &str, input: Value) {
        self.task_replayed(run, attempt, (task, input), None).await;
    }

    pub async fn task_replayed(
        &mut self,
        run: RunId,
        attempt: Attempt,
        (task, input): (&str, Value),
        replay: Option<Replay>,
    ) {
        let (task, key) = (task.to_owned(), format!("key-{run}"));
        let order = TaskOrder { task, input, key, checkpoint: None, replay };
        self.say(&ToShim::Task { run, attempt, order }).await;
    }

    /// How it broke the protocol, next, and whether fatally.
    pub async fn violated(&mut self) -> (String, bool) {
        self.until(|state| match state {
            StateNotice::Violated { what, is_fatal } => Some((what.clone(), *is_fatal)),
            _ => None,
        })
        .await
    }

    /// The output of one run as text, whatever its kind.
    pub fn output(&self, wanted: RunId) -> Vec<(ChunkKind, String)> {
        let mut found = Vec::new();
        for record in &self.records {
            let Notice::Output { run: Some(run), chunks } = &record.notice else { continue };
            for chunk in chunks.iter().filter(|_| *run == wanted) {
                let text = match &chunk.payload {
                    Payload::Inline(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                    Payload::Blob(blob) => format!("{} bytes of {}", blob.size, blob.mime),
                };
                found.push((chunk.kind.clone(), text));
            }
        }
        found
    }

    pub async fn started(&mut self, wanted: RunId) {
        self.until(|state| {
            matches!(state, StateNotice::RunStarted { run, .. } if *run == wanted).then_some(())
        })
        .await;
    }

    pub async fn finished(&mut self, wanted: RunId) -> outlive_core::session::RunOutcome {
        self.until(|state| match state {
            StateNotice::RunFinished { run, outcome, .. } if *run == wanted => Some(outcome.clone()),
            _ => None,
        })
        .await
    }

    pub async fn exited(&mut self) -> ExitReport {
        self.until(|state| match state {
            StateNotice::Exited { report } => Some((**report).clone()),
            _ => None,
        })
        .await
    }

    pub async fn drained(&mut self) -> Evidence {
        self.until(|state| match state {
            StateNotice::Drained { evidence } => Some((**evidence).clone()),
            _ => None,
        })
        .await
    }

    pub async fn stop(&mut self, from: StopStep) {
        self.say(&ToShim::Stop { why: StopWhy::User, from }).await;
    }

    /// Everything of one kind that came, whichever run.
    pub fn text(&self, wanted: ChunkKind) -> String {
        self.chunks(wanted)
            .into_iter()
            .map(|(_, bytes)| String::from_utf8_lossy(&bytes).into_owned())
            .collect()
    }

    /// Inline chunks of a kind with their runs.
    pub fn chunks(&self, wanted: ChunkKind) -> Vec<(Option<RunId>, Vec<u8>)> {
        let mut found = Vec::new();
        for record in &self.records {
            let Notice::Output { run, chunks } = &record.notice else { continue };
            for chunk in chunks.iter().filter(|chunk| chunk.kind == wanted) {
                if let Payload::Inline(bytes) = &chunk.payload {
                    found.push((*run, bytes.to_vec()));
                }
            }
        }
        found
    }

    /// The rungs of the ladder that were told.
    pub fn steps(&self) -> Vec<StopStep> {
        let steps = self.states().into_iter().filter_map(|state| match state {
            StateNotice::Stopping { step, .. } => Some(*step),
            _ => None,
        });
        steps.collect()
    }

    pub fn states(&self) -> Vec<&StateNotice> {
        self.records
            .iter()
            .filter_map(|record| match &record.notice {
                Notice::State(state) => Some(state),
                Notice::Output { .. } => None,
            })
            .collect()
    }
}
