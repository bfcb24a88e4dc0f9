//! Python environments that Outlive makes: `environments/KEY` in its cache directory, where the key is a hash of the
//! Python version and the packages.
//!
//! An environment cannot be renamed (its scripts name their interpreter), so it is made in place and a marker is
//! written last: one without the marker was interrupted and is made anew. A lock file beside it keeps two makers
//! apart; it goes away with its process, however that ends.

use std::collections::VecDeque;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use outlive_core::limits::{INSTALL_ANSWER_SECONDS, INSTALL_RETRIES_MAX, INSTALL_TAIL_LINES_MAX};
use ring::digest;

use super::{Cancel, Progress, has_ipykernel, python_of};
use crate::surroundings::Surroundings;

/// Written last, in the environment.
const MARKER: &str = "outlive-complete";
/// What every environment has. The tests run with 7; a major version that nobody has tried is not taken silently.
const IPYKERNEL: &str = "ipykernel<8";
/// An environment could not be made. What was begun is made anew next time.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// Nothing to make it with.
    #[error(
        "no Python was found on PATH (looked for uv, python3 and python): install Python 3.10 or later \
         (for instance `apt install python3 python3-venv`, or uv), or choose another kernel"
    )]
    NoPython,
    /// There is no place for it.
    #[error(
        "none of OUTLIVE_CACHE_DIR, XDG_CACHE_HOME and HOME is set, so there is no place to make a Python environment"
    )]
    NoCache,
    /// A tool of Python failed.
    #[error("{action} in {} failed ({how}){advice}{}", .directory.display(), quoted(.tail))]
    Failed {
        /// What was done.
        action: &'static str,
        /// The environment.
        directory: PathBuf,
        /// The tool's end.
        how: String,
        /// What to do, when the output tells.
        advice: &'static str,
        /// The tool's last lines.
        tail: Vec<String>,
    },
    /// Somebody did not want it any more.
    #[error("making a Python environment was given up")]
    Cancelled,
    /// The file system is full.
    #[error("no space is left for a Python environment in {}: free some, or set OUTLIVE_CACHE_DIR to another disk", .directory.display())]
    DiskFull {
        /// The environment.
        directory: PathBuf,
    },
    /// A file operation failed.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn quoted(tail: &[String]) -> String {
    tail.iter().map(|line| format!("\n  | {line}")).collect()
}

/// What environments are made with.
struct Maker {
    uv: Option<PathBuf>,
    python: Option<PathBuf>,
    /// For the key: another minor version needs another environment.
    version: String,
}

/// The prefix of a complete environment with ipykernel and these packages, if it is there. Blocks for a moment.
#[must_use]
pub fn find(requirements: &[String], surroundings: &Surroundings) -> Option<PathBuf> {
    let maker = Maker::find(surroundings)?;
    let directory = cache_root(surroundings)?.join(key(&maker.version, &packages(requirements)));
    is_complete(&directory).then_some(directory)
}

/// All that is installed, in order: the order in which somebody named it makes no difference.
fn packages(requirements: &[String]) -> Vec<String> {
    let mut packages = vec![IPYKERNEL.to_owned()];
    packages.extend(requirements.iter().cloned());
    packages[1..].sort();
    packages.dedup();
    packages
}

/// The prefix of a complete environment with ipykernel and these packages, made unless it is there. Blocks.
///
/// # Errors
/// When it is not there and cannot be made, or was cancelled.
pub fn find_or_make(
    requirements: &[String],
    surroundings: &Surroundings,
    cancel: Option<&Cancel>,
    progress: &mut dyn FnMut(Progress),
) -> Result<PathBuf, MakeError> {
    let maker = Maker::find(surroundings).ok_or(MakeError::NoPython)?;
    let packages = packages(requirements);
    let root = cache_root(surroundings).ok_or(MakeError::NoCache)?;
    let directory = root.join(key(&maker.version, &packages));
    if is_complete(&directory) {
        return Ok(directory);
    }
    fs::create_dir_all(&root).map_err(|source| file_error("create", &root, source))?;
    let _lock = lock(&directory, progress)?;
    if is_complete(&directory) {
        return Ok(directory);
    }
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(file_error("remove the unfinished environment", &directory, error));
        }
        _ => {}
    }
    progress(Progress::Creating(directory.clone()));
    let making = maker.create(&directory);
    run("making an environment", making, &directory, surroundings, cancel, progress)?;
    progress(Progress::Installing(packages.clone()));
    let installing = maker.install(&directory, &packages);
    run("installing packages", installing, &directory, surroundings, cancel, progress)?;
    let marker = directory.join(MARKER);
    fs::write(&marker, packages.join("\n")).map_err(|source| file_error("write", &marker, source))?;
    Ok(directory)
}

/// Where the environments are: below Outlive's cache directory (`OUTLIVE_CACHE_DIR`, by default
/// `$XDG_CACHE_HOME/outlive`).
#[must_use]
pub fn cache_root(surroundings: &Surroundings) -> Option<PathBuf> {
    let below = |cache: PathBuf| cache.join("outlive");
    let absolute = |path: &PathBuf| path.is_absolute();
    let cache = surroundings
        .path("OUTLIVE_CACHE_DIR")
        .filter(absolute)
        .or_else(|| surroundings.path("XDG_CACHE_HOME").filter(absolute).map(below))
        .or_else(|| surroundings.home().map(|home| below(home.join(".cache"))))?;
    Some(cache.join("environments"))
}

/// Marked, and its interpreter still works: the Python below it may have been removed since.
fn is_complete(directory: &Path) -> bool {
    directory.join(MARKER).exists() && has_ipykernel(directory)
}

fn key(version: &str, packages: &[String]) -> String {
    let text = format!("{version}\n{}", packages.join("\n"));
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    hash.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn lock(directory: &Path, progress: &mut dyn FnMut(Progress)) -> Result<File, MakeError> {
    let path = directory.with_extension("lock");
    let failed = |source| file_error("lock", &path, source);
    let file = File::create(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            progress(Progress::Waiting(directory.to_owned()));
            file.lock().map_err(failed)?;
            Ok(file)
        }
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

impl Maker {
    fn find(surroundings: &Surroundings) -> Option<Self> {
        let uv = surroundings.program("uv");
        let found = ["python3", "python"].into_iter().find_map(|name| {
            let python = surroundings.program(name)?;
            let version = version_of(&python)?;
            Some((python, version))
        });
        match (uv, found) {
            (None, None) => None,
            // uv brings its own Python when there is none.
            (Some(uv), None) => Some(Self { uv: Some(uv), python: None, version: "uv".to_owned() }),
            (uv, Some((python, version))) => Some(Self { uv, python: Some(python), version }),
        }
    }

    fn create(&self, directory: &Path) -> Command {
        match (&self.uv, &self.python) {
            (Some(uv), python) => {
                let mut command = Command::new(uv);
                command.arg("venv").arg(directory);
                if let Some(python) = python {
                    command.arg("--python").arg(python);
                }
                command
            }
            (None, python) => {
                let python = python.as_ref().expect("a maker has uv or Python");
                let mut command = Command::new(python);
                command.args(["-m", "venv"]).arg(directory);
                command
            }
        }
    }

    fn install(&self, directory: &Path, packages: &[String]) -> Command {
        let python = python_of(directory);
        let mut command = match &self.uv {
            Some(uv) => {
                let mut command = Command::new(uv);
                command.args(["pip", "install", "--python"]).arg(python);
                command
            }
            None => {
                let mut command = Command::new(python);
                command.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input"]);
                command.args(["--timeout", &INSTALL_ANSWER_SECONDS.to_string()]);
                command.args(["--retries", &INSTALL_RETRIES_MAX.to_string()]);
                command
            }
        };
        // After `--` a package cannot be taken for an option.
        command.arg("--").args(packages);
        command
    }
}

fn version_of(python: &Path) -> Option<String> {
    const ASK: &str = "import sys; print(sys.implementation.cache_tag, sys.base_prefix)";
    let output = Command::new(python).args(["-I", "-c", ASK]).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs a tool, its output going to `progress` line by line.
fn run(
    action: &'static str,
    mut command: Command,
    directory: &Path,
    surroundings: &Surroundings,
    cancel: Option<&Cancel>,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), MakeError> {
    let failed = |source| file_error(action, directory, source);
    let (reader, writer) = io::pipe().map_err(failed)?;
    let errors = writer.try_clone().map_err(failed)?;
    command.stdin(Stdio::null()).stdout(writer).stderr(errors);
    // The index, the proxy and the certificates are the user's.
    command.env_clear().envs(surroundings.variables());
    if cancel.is_some() {
        // With all that it starts, it can be ended. At a terminal it stays in the user's group, for Ctrl-C.
        command.process_group(0);
    }
    let mut child = command.spawn().map_err(failed)?;
    if let Some(cancel) = cancel {
        cancel.started(&child);
    }
    // The command holds our copies of the pipe's writing end: without this the reading below never ends.
    drop(command);
    let mut tail = VecDeque::with_capacity(INSTALL_TAIL_LINES_MAX);
    let mut lines = BufReader::new(reader);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).map_err(failed)? > 0 {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        if text.is_empty() {
            continue;
        }
        if tail.len() == INSTALL_TAIL_LINES_MAX {
            tail.pop_front();
        }
        tail.push_back(text.clone());
        progress(Progress::Output(text));
    }
    if let Some(cancel) = cancel {
        cancel.ended();
    }
    let status = child.wait().map_err(failed)?;
    if cancel.is_some_and(Cancel::is_cancelled) {
        return Err(MakeError::Cancelled);
    }
    if status.success() {
        return Ok(());
    }
    let tail = Vec::from(tail);
    if tail.iter().any(|line| is_disk_full(line)) {
        return Err(MakeError::DiskFull { directory: directory.to_owned() });
    }
    let advice = advice(&tail);
    Err(MakeError::Failed { action, directory: directory.to_owned(), how: status.to_string(), advice, tail })
}

fn is_disk_full(line: &str) -> bool {
    ["No space left on device", "Disk quota exceeded"].iter().any(|sign| line.contains(sign))
}

/// What a tool's output tells about the remedy.
fn advice(tail: &[String]) -> &'static str {
    let says = |signs: &[&str]| tail.iter().any(|line| signs.iter().any(|sign| line.contains(sign)));
    if says(&["ensurepip is not", "python3-venv"]) {
        ": this Python lacks the venv module; install it (for instance `apt install python3-venv`) or uv"
    } else if says(&[
        "NewConnectionError",
        "Failed to establish a new connection",
        "name resolution",
        "Max retries exceeded",
        "ReadTimeoutError",
        "ConnectTimeoutError",
        "Connection broken",
        "error sending request",
        "dns error",
        "ProxyError",
    ]) {
        ": the package index cannot be reached; check the network or the proxy, or choose a kernel that is \
         installed"
    } else if says(&[
        "No matching distribution found",
        "no versions of",
        "Invalid requirement",
        "was not found in",
    ]) {
        ": check the names and versions of the packages in the notebook's metadata (outlive.requirements)"
    } else {
        ""
    }
}

fn file_error(action: &'static str, path: &Path, source: io::Error) -> MakeError {
    if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return MakeError::DiskFull { directory: path.to_owned() };
    }
    MakeError::Io { action, path: path.to_owned(), source }
}
