//! A world of its own for one test.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::clock::{PATIENCE, within};
use crate::command::{Finished, Running};
use crate::daemon::Daemon;
use crate::http::Api;
use crate::notebook;
use crate::process::{self, Process, Signal, mentions};
use crate::session::Session;

/// A home, an environment and everything that a test started in it. Dropped, it kills what still runs.
#[derive(Debug)]
pub struct World {
    root: TempDir,
    environment: BTreeMap<String, String>,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// Makes one.
    ///
    /// # Panics
    /// Without a built binary or a Python environment: `cargo xtask test` makes both.
    #[must_use]
    pub fn new() -> Self {
        // A short path of its own: a Unix socket's path has 107 bytes at most.
        let root = tempfile::Builder::new().prefix("ol-").tempdir_in("/tmp").expect("/tmp can be written");
        for folder in ["home", "state", "run", "cache", "work", "tmp"] {
            fs::create_dir(root.path().join(folder)).expect("a new directory can be written");
        }
        let below = |folder: &str| root.path().join(folder).to_string_lossy().into_owned();
        let venv = python_environment();
        let environment = [
            ("HOME", below("home")),
            ("TMPDIR", below("tmp")),
            ("OUTLIVE_STATE_DIR", below("state")),
            ("OUTLIVE_RUNTIME_DIR", below("run")),
            ("OUTLIVE_CLAIMS_DIR", below("run/claims")),
            ("OUTLIVE_CACHE_DIR", below("cache")),
            ("PATH", format!("{}/bin:/usr/local/bin:/usr/bin:/bin", venv.display())),
            ("VIRTUAL_ENV", venv.display().to_string()),
            ("JUPYTER_PATH", format!("{}/share/jupyter", venv.display())),
            ("LANG", "C.UTF-8".to_owned()),
            ("TERM", "dumb".to_owned()),
            // IPython writes its history into SQLite at every cell; nothing here looks at it.
            ("IPYTHONDIR", below("home/.ipython")),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value)).into();
        Self { root, environment }
    }

    /// Sets a variable for everything that is started from now on.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.environment.insert(name.to_owned(), value.into());
    }

    /// Where everything of this world is.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// The working directory of what is run.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.root().join("work")
    }

    /// The daemon's state directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.root().join("state")
    }

    /// The directory of the daemon's socket.
    #[must_use]
    pub fn runtime(&self) -> PathBuf {
        self.root().join("run")
    }

    /// The API of this world's daemon, whether it runs or not.
    #[must_use]
    pub fn api(&self) -> Api {
        Api::new(self.runtime().join("outlive.sock"))
    }

    /// The interpreter that has ipykernel.
    #[must_use]
    pub fn python(&self) -> PathBuf {
        python_environment().join("bin/python")
    }

    /// A command in this world's environment, and no other.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env_clear().envs(&self.environment).current_dir(self.work());
        command
    }

    /// `outlive` with these arguments.
    #[must_use]
    pub fn outlive(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(binary());
        command.args(arguments);
        command
    }

    /// Runs `outlive` to its end.
    ///
    /// # Panics
    /// When it takes longer than a minute.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Finished {
        self.run_within(PATIENCE, arguments)
    }

    /// Runs `outlive` to its end.
    ///
    /// # Panics
    /// When it takes longer.
    #[track_caller]
    pub fn run_within(&self, time: Duration, arguments: &[&str]) -> Finished {
        self.spawn(arguments).finish(within(time))
    }

    /// Starts `outlive`.
    #[must_use]
    pub fn spawn(&self, arguments: &[&str]) -> Running {
        Running::start(&mut self.outlive(arguments))
    }

    /// Starts a daemon in the foreground and waits until it takes work.
    #[must_use]
    #[track_caller]
    pub fn daemon(&self) -> Daemon {
        Daemon::wait_ready(self.spawn(&["serve"]), &self.api())
    }

    /// The pid of the daemon that answers.
    #[must_use]
    #[track_caller]
    pub fn daemon_pid(&self) -> i32 {
        let node = self.api().get("/v1/node");
        let pid = node["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        pid.unwrap_or_else(|| panic!("no pid: {node}"))
    }

    /// Writes a notebook into the working directory.
    #[must_use]
    pub fn notebook(&self, name: &str, cells: &[&str]) -> PathBuf {
        let path = self.work().join(name);
        fs::write(&path, notebook::with_cells(cells).to_string()).expect("the world's files can be written");
        path
    }

    /// What an untitled notebook is created with here.
    #[must_use]
    pub fn untitled_spec(&self) -> Value {
        json!({"cwd": self.work()})
    }

    /// A new untitled notebook, whose kernel comes with its first run.
    #[must_use]
    #[track_caller]
    pub fn untitled(&self) -> Session {
        Session::untitled(&self.api(), &self.untitled_spec())
    }

    /// Starts a daemon that sees the filesystem as this shell script makes it, which runs in a mount namespace of its
    /// own, and as an ordinary user in a user namespace too; [`seen_by`](Self::seen_by) shows the test what the daemon
    /// sees.
    ///
    /// # Panics
    /// When the script fails: a fault that cannot be made is no reason to skip its test.
    #[must_use]
    #[track_caller]
    pub fn daemon_behind(&self, mounts: &str) -> Daemon {
        let mut command = self.command("unshare");
        let script = format!("set -e\n{mounts}\nexec {} serve", binary().display());
        if !rustix::process::getuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--mount", "sh", "-c", &script]);
        Daemon::wait_ready(Running::start(&mut command), &self.api())
    }

    /// A path as a process sees it.
    #[must_use]
    pub fn seen_by(&self, daemon: &Daemon, path: &Path) -> PathBuf {
        let inside = path.strip_prefix("/").unwrap_or(path);
        Path::new("/proc").join(daemon.pid().to_string()).join("root").join(inside)
    }

    /// What a session with a kernel, and without a notebook, is created with. Tests change it as they like.
    #[must_use]
    pub fn kernel_spec(&self) -> Value {
        self.session_spec(&json!({"kind": "kernel"}), &self.kernel_program())
    }

    /// What a session is created with that runs all cells of a notebook.
    #[must_use]
    pub fn notebook_spec(&self, path: &Path) -> Value {
        let workload = json!({"kind": "notebook", "source": path, "path": path});
        let mut spec = self.session_spec(&workload, &self.kernel_program());
        spec["run_all"] = json!(true);
        spec
    }

    /// What a session with a command is created with.
    #[must_use]
    pub fn command_spec(&self, argv: &[&str]) -> Value {
        self.session_spec(&json!({"kind": "command"}), &json!({"kind": "command", "argv": argv}))
    }

    fn kernel_program(&self) -> Value {
        let python = self.python();
        let argv = [&*python.to_string_lossy(), "-m", "ipykernel_launcher", "-f", "{connection_file}"];
        json!({
            "kind": "kernel", "name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python",
            "argv": argv, "resource_dir": null, "interrupt_mode": "signal", "transport": "tcp",
        })
    }

    fn session_spec(&self, workload: &Value, program: &Value) -> Value {
        json!({
            "workload": workload,
            "launch": {
                "program": program, "cwd": self.work(), "env": self.environment, "memory_bytes_max": null,
                "ready_timeout_ms": 60_000,
            },
            "restart": {
                "restart": "temporary", "restarts_max": 3, "period_ms": 60_000, "backoff_ms": 200,
                "backoff_ms_max": 10_000,
            },
            "on_hang": "report",
            "keep": true,
        })
    }

    /// A session with a kernel that is ready.
    #[must_use]
    #[track_caller]
    pub fn kernel(&self) -> Session {
        let session = Session::create(&self.api(), &self.kernel_spec());
        session.wait_runtime("idle");
        session
    }

    /// Every process that was started in this world, directly or not.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        let root = self.root().to_string_lossy().into_owned();
        let ours = |process: &Process| process.state != 'Z' && mentions(process.pid, &root);
        process::all().into_iter().filter(ours).collect()
    }

    /// The processes that a daemon supervises: all of this world but the daemon and its clients.
    #[must_use]
    pub fn supervised(&self) -> Vec<Process> {
        let binary = binary().to_string_lossy().into_owned();
        let is_ours =
            |process: &Process| process.command.starts_with(&binary) && !process.command.contains("shim");
        self.processes().into_iter().filter(|process| !is_ours(process)).collect()
    }

    /// Checks that nothing that the daemon supervised is left (the daemon may be).
    ///
    /// # Panics
    /// With what is left, when it does not go by itself within ten seconds.
    #[track_caller]
    pub fn assert_nothing_supervised(&self) {
        let deadline = within(Duration::from_secs(10));
        while let Some(process) = self.supervised().first() {
            assert!(process::wait_gone(process, deadline), "left behind: {:#?}", self.supervised());
        }
    }

    /// Checks that nothing is left of all that was started in this world: no process, no socket.
    ///
    /// # Panics
    /// With what is left, when it does not go by itself within ten seconds.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let deadline = within(Duration::from_secs(10));
        while let Some(process) = self.processes().first() {
            assert!(process::wait_gone(process, deadline), "left behind: {:#?}", self.processes());
        }
        let sockets = self.sockets();
        assert!(sockets.is_empty(), "left behind: {sockets:#?}");
    }

    /// Every Unix socket below this world's directories.
    #[must_use]
    pub fn sockets(&self) -> Vec<PathBuf> {
        let (mut sockets, mut folders) = (Vec::new(), vec![self.root().to_owned()]);
        while let Some(folder) = folders.pop() {
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                let Ok(kind) = entry.file_type() else { continue };
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if kind.is_socket() {
                    sockets.push(entry.path());
                }
            }
        }
        sockets
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // What is killed may have started something meanwhile: until nothing is left, but not for ever.
        let deadline = within(Duration::from_secs(20));
        loop {
            let processes = self.processes();
            let Some(first) = processes.first() else { return };
            for process in &processes {
                process::signal(process.pid, Signal::KILL);
            }
            if !process::wait_gone(first, deadline) {
                eprintln!("could not be killed: {processes:#?}");
                return;
            }
        }
    }
}

/// The built `outlive`: beside this test, or where `OUTLIVE_BIN` says.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn binary() -> PathBuf {
    let path = std::env::var_os("OUTLIVE_BIN").map_or_else(
        || {
            let this = std::env::current_exe().expect("a process has an executable");
            // target/debug/deps/TEST, or target/debug/xtask
            let folders = this.ancestors().skip(1).take(2);
            let found = folders.map(|folder| folder.join("outlive")).find(|path| path.is_file());
            found.unwrap_or_else(|| this.with_file_name("outlive"))
        },
        PathBuf::from,
    );
    assert!(path.is_file(), "{} is missing: `cargo build` makes it", path.display());
    path
}

/// The Python environment with ipykernel: `OUTLIVE_TEST_VENV`, or where `cargo xtask python` puts it.
///
/// # Panics
/// When it was not made.
#[must_use]
pub fn python_environment() -> PathBuf {
    let path = std::env::var_os("OUTLIVE_TEST_VENV")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-venv"), PathBuf::from);
    let path = path.canonicalize().unwrap_or(path);
    assert!(path.join("bin/python").exists(), "{} is missing: `cargo xtask python` makes it", path.display());
    path
}
