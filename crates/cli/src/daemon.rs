//! Finding the daemon, and starting one when none runs.
//!
//! A daemon is this same binary (`outlive serve`) in a session of its own, with `/` as working directory and its own
//! log. It says over an inherited pipe that it is ready, or why it cannot be; nothing is polled. Two clients that
//! start one at the same time exclude each other by a lock, so that one starts it and the other finds it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use outlive_process::Process;
use outlive_protocol::http::{API_VERSION, NodeView};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

use crate::client::way::{Secret, Way};
use crate::client::{CallError, Client, Company};
use crate::config::{Config, Origin, paths};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::nodes::Nodes;
use crate::terminal;

/// Longest wait for a daemon that starts. It reads the logs of live sessions and finds their processes.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a daemon that breaks off before it answers is asked again at once.
const LOST_MAX: u32 = 3;
/// Longest message over the readiness pipe, in bytes.
const READINESS_BYTES_MAX: u64 = 65_536;
/// How much of a dead daemon's log is shown, in lines.
const LOG_LINES: usize = 8;
/// A daemon's log is set aside at its start when it is larger, in bytes.
const LOG_BYTES_MAX: u64 = 16 << 20;

/// What a starting daemon says over its pipe, once, as JSON.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Readiness {
    /// It listens.
    Ready,
    /// It ends.
    Failed {
        /// What happened, to what.
        what: String,
        /// What to do.
        hint: Option<String>,
    },
}

/// The way to this user's daemon, or to those that were named by their URLs; and to the other nodes of its cluster.
pub struct Daemon {
    config: Config,
    /// Waits for daemons that we started, so that one that ends before us leaves no zombie.
    children: Mutex<JoinSet<()>>,
}

/// What a daemon writes into its lock.
#[derive(Deserialize)]
struct Holder {
    pid: i32,
}

/// Whether the kernel's list of locks (proc(5), `/proc/locks`) says that a process holds a file.
fn holds(locks: &str, pid: i32, inode: u64) -> bool {
    let (pid, inode) = (pid.to_string(), format!(":{inode}"));
    locks.lines().any(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        matches!(words.as_slice(), [_, "FLOCK", _, _, by, file, ..] if *by == pid && file.ends_with(&inode))
    })
}

/// For callers that say nothing while a daemon is started.
pub fn silent(_: &str) {}

impl Daemon {
    /// The daemon that a configuration leads to.
    pub fn new(config: Config) -> Self {
        Self { config, children: Mutex::new(JoinSet::new()) }
    }

    /// Whether one may be started when none runs. One that was a node of a cluster is not started alone in its place: it
    /// would not have the cluster's sessions.
    pub fn may_start(&self) -> bool {
        self.config.start_daemon.value && !self.is_remote() && !self.is_missing_its_cluster()
    }

    /// Whether this machine's daemon was a node, and the configuration does not say of which cluster.
    fn is_missing_its_cluster(&self) -> bool {
        !self.config.cluster.is_on() && Nodes::read(&self.config.socket.value).is_some()
    }

    /// Whether daemons are named by their URLs: they may be on other machines.
    pub const fn is_remote(&self) -> bool {
        !self.config.url.value.is_empty()
    }

    /// How long one that went away is waited for.
    pub const fn patience(&self) -> Duration {
        Duration::from_secs(self.config.patience_s.value)
    }

    /// Whether other nodes can be asked when the daemon does not answer.
    pub fn has_others(&self) -> bool {
        self.clients().is_ok_and(|clients| clients.len() > 1)
    }

    /// The daemon itself, then those that can go on in its place, as far as they are known now.
    pub fn clients(&self) -> Result<Vec<Client>, Failure> {
        let ways = if self.is_remote() { self.named()? } else { self.around() };
        let company = if ways.len() > 1 { Company::Among } else { Company::Alone };
        Ok(ways.into_iter().map(|way| Client::new(way, company)).collect())
    }

    /// The one behind this one in their order, the first behind the last; `None` when no other is known.
    pub fn behind(&self, way: &Way) -> Option<Client> {
        let mut clients = self.clients().ok().filter(|clients| clients.len() > 1)?;
        let at = clients.iter().position(|client| client.way().is_at(way));
        let next = at.map_or(0, |at| (at + 1) % clients.len());
        Some(clients.swap_remove(next))
    }

    /// A node of the cluster by the address that it advertises.
    pub fn at(&self, url: &str) -> Result<Client, Failure> {
        let token = match Nodes::read(&self.config.socket.value) {
            Some(nodes) if !self.is_remote() => Secret::new(&nodes.token).ok(),
            Some(_) | None => self.token()?,
        };
        let way = Way::url(url, token)
            .map_err(|why| Failure::new(Exit::Daemon, format!("a node's address cannot be used: {why}")))?;
        Ok(Client::new(way, Company::Among))
    }

    fn around(&self) -> Vec<Way> {
        let socket = self.config.socket.value.as_path();
        let others = Nodes::read(socket).map_or_else(Vec::new, |nodes| nodes.others());
        [Way::from(socket)].into_iter().chain(others).collect()
    }

    fn named(&self) -> Result<Vec<Way>, Failure> {
        let url = &self.config.url;
        let token = self.token()?;
        let way = |text: &String| {
            Way::url(text, token.clone())
                .map_err(|why| Failure::new(Exit::Usage, format!("{why} (from {})", url.origin)))
        };
        url.value.iter().map(way).collect()
    }

    /// What a daemon over TCP wants to see: `OUTLIVE_TOKEN`, else the token file if there is one.
    fn token(&self) -> Result<Option<Secret>, Failure> {
        let (text, from) = match std::env::var("OUTLIVE_TOKEN").ok().filter(|text| !text.is_empty()) {
            Some(text) => (text, "$OUTLIVE_TOKEN".to_owned()),
            None => {
                let file = &self.config.token_file;
                let path = file.value.display().to_string();
                match std::fs::read_to_string(&file.value) {
                    Ok(text) => (text, path),
                    Err(error)
                        if error.kind() == io::ErrorKind::NotFound && file.origin == Origin::Default =>
                    {
                        return Ok(None);
                    }
                    Err(error) => {
                        let what = format!("the token file {path} cannot be read: {error}");
                        return Err(Failure::new(Exit::Usage, what)
                            .hint("OUTLIVE_TOKEN_FILE names it, OUTLIVE_TOKEN gives the token itself"));
                    }
                }
            }
        };
        Secret::new(&text)
            .map(Some)
            .map_err(|why| Failure::new(Exit::Usage, format!("the token from {from} cannot be used: {why}")))
    }

    /// The daemon's own log, when it was started by a client.
    pub fn log(&self) -> PathBuf {
        self.config.state_dir.value.join("daemon.log")
    }

    /// How large that log is, in bytes.
    pub fn log_bytes(&self) -> u64 {
        std::fs::metadata(self.log()).map_or(0, |metadata| metadata.len())
    }

    /// The daemon that runs, and no other node in its place; `None` when none does.
    pub async fn running(&self) -> Result<Option<(Client, NodeView)>, Failure> {
        if self.is_remote() {
            return self.somebody().await.map(Some);
        }
        let socket = &self.config.socket.value;
        paths::socket_fits(socket)?;
        self.local(&Client::new(Way::from(socket.as_path()), Company::Alone)).await
    }

    async fn local(&self, client: &Client) -> Result<Option<(Client, NodeView)>, Failure> {
        let socket = &self.config.socket.value;
        let mut lost = 0;
        loop {
            match client.node().await {
                Ok(node) => {
                    same_version(&node)?;
                    return Ok(Some((client.clone(), node)));
                }
                Err(CallError::NotRunning { .. }) => return Ok(None),
                // It went away between connect and answer. One that was killed leaves its socket: asked again, the
                // system says that nobody listens, or the next daemon answers.
                Err(CallError::Lost { .. }) if !socket.exists() => return Ok(None),
                Err(CallError::Lost { .. }) if lost < LOST_MAX => lost += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The first of all nodes that gives a sign of life.
    async fn somebody(&self) -> Result<(Client, NodeView), Failure> {
        let mut last = None;
        for client in self.clients()? {
            match client.node().await {
                Ok(node) => {
                    same_version(&node)?;
                    return Ok((client, node));
                }
                Err(error) if error.is_daemon_gone() || matches!(error, CallError::Connect { .. }) => {
                    last = Some(error);
                }
                // A wrong token is wrong everywhere.
                Err(error) => return Err(error.into()),
            }
        }
        Err(last.map_or_else(|| Failure::new(Exit::Daemon, "no node is known"), Failure::from))
    }

    /// The daemon that holds the state directory, though nobody listens on its socket; `None` when nobody holds it.
    pub fn unreachable(&self) -> Option<Process> {
        let path = self.config.state_dir.value.join("lock");
        let pid = || {
            let holder: Holder = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
            let inode = std::fs::metadata(&path).ok()?.ino();
            let locks = std::fs::read_to_string("/proc/locks").ok()?;
            holds(&locks, holder.pid, inode).then_some(holder.pid)
        };
        let process = Process::open(pid()?).ok()?;
        // A second look: what was opened is what holds it, and not a later process with the same pid.
        (pid() == Some(process.pid())).then_some(process)
    }

    /// What a client is told whose daemon runs and cannot be reached.
    pub fn cannot_reach(&self, process: &Process) -> Failure {
        let socket = self.config.socket.value.display();
        let what =
            format!("a daemon runs (pid {}), and does not listen on its socket {socket}", process.pid());
        Failure::new(Exit::Daemon, what).hint(
            "`outlive daemon stop --keep-runtimes` ends it by its pid; the next command starts another one, which takes over what runs",
        )
    }

    /// The daemon that runs, else one that is started now if the configuration allows it, else another node of its
    /// cluster.
    pub async fn connect_or_start(&self, talk: &mut (dyn FnMut(&str) + Send)) -> Result<Client, Failure> {
        if self.is_remote() {
            return self.somebody().await.map(|(client, _)| client);
        }
        paths::socket_fits(&self.config.socket.value)?;
        let clients = self.clients()?;
        let (client, has_others) = (&clients[0], clients.len() > 1);
        let failure = match self.local(client).await {
            Ok(Some((client, node))) => {
                if node.version != env!("CARGO_PKG_VERSION") {
                    talk(&format!(
                        "note: the daemon is outlive {}, this is {}; `outlive daemon stop --keep-runtimes` lets the next command start the new one",
                        node.version,
                        env!("CARGO_PKG_VERSION")
                    ));
                }
                return Ok(client);
            }
            Ok(None) if self.may_start() => match self.start(talk).await {
                Ok(client) => return Ok(client),
                Err(failure) => failure,
            },
            Ok(None) if self.config.start_daemon.value => {
                Failure::new(Exit::Daemon, "this machine's node of the cluster does not run, and no other node answers").hint(
                    "`outlive serve --cluster nats://HOST:PORT` starts it; `servers` in [cluster] of the configuration lets any command do that",
                )
            }
            Ok(None) => {
                let origin = &self.config.start_daemon.origin;
                Failure::new(Exit::Daemon, "no daemon runs, and none may be started")
                    .hint(format!("`outlive serve` starts one; start_daemon = false is from {origin}"))
            }
            Err(failure) => failure,
        };
        if !has_others {
            return Err(failure);
        }
        // Why the own daemon cannot do it says more than why the last of the others cannot.
        let (client, _) = self.somebody().await.map_err(|_| Failure { ..failure })?;
        talk(&format!("note: this machine's daemon does not answer; {} does", client.way()));
        Ok(client)
    }

    /// This machine's daemon, and no other node: the one that runs, else one that is started now.
    pub async fn find_or_start(&self) -> Result<(), Failure> {
        match self.running().await? {
            Some(_) => Ok(()),
            None => self.start(&mut silent).await.map(drop),
        }
    }

    async fn start(&self, talk: &mut (dyn FnMut(&str) + Send)) -> Result<Client, Failure> {
        paths::private(&self.config.runtime_dir.value, "runtime_dir")?;
        paths::private(&self.config.state_dir.value, "state_dir")?;
        let _lock = self.start_lock().await?;
        // Whoever held the lock before us may have started it.
        if let Some((client, _)) = self.running().await? {
            return Ok(client);
        }
        talk("starting the outlive daemon");
        let reader = self.spawn()?;
        let readiness = tokio::time::timeout(START_TIMEOUT, read_readiness(reader)).await;
        let failed = |what: String, hint: Option<String>| Failure {
            hint: hint.or_else(|| Some(format!("its log is {}", self.log().display()))),
            ..Failure::new(Exit::Daemon, what)
        };
        match readiness {
            Err(_) => {
                let seconds = START_TIMEOUT.as_secs();
                Err(failed(
                    format!("the daemon is not ready after {seconds} s; it may still be recovering"),
                    None,
                ))
            }
            Ok(Some(Readiness::Ready)) => Ok(self.clients()?.swap_remove(0)),
            Ok(said) => {
                // A service may have started its own in the same moment, which is as good.
                if let Some((client, _)) = self.running().await? {
                    return Ok(client);
                }
                if let Some(process) = self.unreachable() {
                    return Err(self.cannot_reach(&process));
                }
                match said {
                    Some(Readiness::Failed { what, hint }) => {
                        Err(failed(format!("the daemon cannot start: {what}"), hint))
                    }
                    Some(Readiness::Ready) | None => {
                        let tail = tail(&self.log());
                        Err(failed(format!("the daemon died while it was starting{tail}"), None))
                    }
                }
            }
        }
    }

    /// Waits for the lock that one starting client holds. It goes with the file.
    async fn start_lock(&self) -> Result<File, Failure> {
        let path = self.config.socket.value.with_extension("start");
        let shown = path.display().to_string();
        let locked = tokio::task::spawn_blocking(move || {
            let file = outlive_process::detached::open_log(&path)?;
            file.lock()?;
            Ok::<_, io::Error>(file)
        });
        let joined = tokio::time::timeout(START_TIMEOUT, locked).await;
        match joined {
            Ok(Ok(Ok(file))) => Ok(file),
            Ok(Ok(Err(error))) => {
                Err(Failure::new(Exit::Daemon, format!("{shown} cannot be locked: {error}")))
            }
            Ok(Err(error)) => Err(Failure::new(Exit::Failed, format!("waiting for a lock: {error}"))),
            Err(_) => {
                Err(Failure::new(Exit::Daemon, "another client has been starting the daemon for too long")
                    .hint(format!("`fuser {shown}` names it")))
            }
        }
    }

    /// Starts the daemon's process; what it says comes out of the pipe.
    fn spawn(&self) -> Result<OwnedFd, Failure> {
        let cannot = |what: &str, error: io::Error| {
            Failure::new(Exit::Daemon, format!("the daemon cannot be started: {what}: {error}"))
        };
        let log_path = self.log();
        set_aside(&log_path);
        let log = outlive_process::detached::open_log(&log_path)
            .map_err(|error| cannot(&format!("its log {}", log_path.display()), error))?;
        let (reader, writer) = io::pipe().map_err(|error| cannot("its pipe", error))?;
        let program = own_program();
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let config = &self.config;
        let args = [
            "serve".to_owned(),
            "--background".to_owned(),
            format!("--state-dir={}", path(&config.state_dir.value)),
            format!("--runtime-dir={}", path(&config.runtime_dir.value)),
            format!("--cache-dir={}", path(&config.cache_dir.value)),
            format!("--socket={}", path(&config.socket.value)),
            format!("--log-level={}", config.log_level.value),
        ];
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let process = outlive_process::detached::spawn(&program, &args, Some(writer.into()), log)
            .map_err(|error| cannot(&program.display().to_string(), error))?;
        self.children.lock().expect("nothing panics while it is held").spawn(async move {
            if process.exited().await.is_ok() {
                drop(process.reap());
            }
        });
        Ok(reader.into())
    }
}

/// Bodies of another version of the API would be misread.
fn same_version(node: &NodeView) -> Result<(), Failure> {
    if node.api == API_VERSION {
        return Ok(());
    }
    let what = format!(
        "the daemon (outlive {}, pid {}) speaks version {} of the API, this outlive {} speaks {API_VERSION}",
        node.version,
        node.pid,
        node.api,
        env!("CARGO_PKG_VERSION")
    );
    let hint = if node.api < API_VERSION {
        format!(
            "upgrade the daemon: `kill {}` ends it and leaves kernels and commands running; the next command starts the new one",
            node.pid
        )
    } else {
        "upgrade this outlive: the daemon is newer".to_owned()
    };
    Err(Failure::new(Exit::Daemon, what).hint(hint))
}

/// The file to start: this one, or what has replaced it since (an upgrade), or this one though its file is gone.
pub fn own_program() -> PathBuf {
    std::env::current_exe()
        .ok()
        .map(|path| match path.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
            Some(replaced) => PathBuf::from(replaced),
            None => path,
        })
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

/// What the daemon said; `None` when it ended without a word.
async fn read_readiness(reader: OwnedFd) -> Option<Readiness> {
    let receiver = tokio::net::unix::pipe::Receiver::from_owned_fd(reader).ok()?;
    let mut text = Vec::new();
    receiver.take(READINESS_BYTES_MAX).read_to_end(&mut text).await.ok()?;
    serde_json::from_slice(&text).ok()
}

/// Keeps one older log, so that a daemon's log does not grow for ever.
fn set_aside(log: &Path) {
    if std::fs::metadata(log).is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX) {
        // When it fails the log goes on growing, which `doctor` shows.
        drop(std::fs::rename(log, log.with_extension("log.1")));
    }
}

/// The last lines of a log, indented below the sentence that they explain.
fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().rev().take(LOG_LINES).collect();
    lines.iter().rev().map(|line| format!("\n    {}", terminal::one_line(line))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_refused_with_the_way_out() {
        let node = |api| {
            serde_json::from_value(serde_json::json!({
                "node": uuid::Uuid::nil(), "boot": uuid::Uuid::nil(), "version": "9.9.9", "api": api, "pid": 77,
                "state_directory": "/s", "started_at": 0, "ready": true,
            }))
            .expect("a node")
        };
        let newer = same_version(&node(API_VERSION + 1)).expect_err("another version");
        assert_eq!(newer.exit, Exit::Daemon);
        assert!(newer.hint.expect("a hint").contains("upgrade this outlive"));
        let older = same_version(&node(API_VERSION - 1)).expect_err("another version");
        assert!(older.hint.expect("a hint").contains("kill 77"));
        same_version(&node(API_VERSION)).expect("the same");
    }

    #[test]
    fn who_holds_a_file_is_what_the_kernel_says() {
        let locks =
            "1: FLOCK  ADVISORY  WRITE 4711 fe:00:1023 0 EOF\n2: POSIX  ADVISORY  WRITE 77 fe:00:99 0 EOF\n";
        assert!(holds(locks, 4711, 1_023));
        assert!(!holds(locks, 4711, 23) && !holds(locks, 471, 1_023), "no part of a number");
        assert!(!holds(locks, 77, 99), "another kind of lock");
    }

    #[test]
    fn a_large_log_is_set_aside() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = directory.path().join("daemon.log");
        File::create(&log).and_then(|file| file.set_len(LOG_BYTES_MAX + 1)).expect("made");
        set_aside(&log);
        assert!(!log.exists() && directory.path().join("daemon.log.1").exists());
    }
}
