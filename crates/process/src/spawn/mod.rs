//! Starting a program. Each stage owns what it made and gives it back when a later one fails (P4).
//!
//! ```text
//! Launch ─check─► Checked ─contain─► Contained{cgroups} ─pipes, fork, exec─► Spawned
//!           │               │                    └ fails: cgroups removed, pipes closed, child reaped
//!           └ ProgramError  └ never fails: without a cgroup there is the group, the marker and RLIMIT_AS
//! ```

mod child;
pub mod program;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use outlive_core::diagnosis::evidence::{LaunchEvidence, LaunchStep};
use outlive_core::id::ProcessKey;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::MARKER;
use crate::cgroup::{Container, MemoryLimit};
use crate::channel::{Channel, ProgramEnds};
use crate::pipe::Pipe;
use crate::watch::Process;
pub(crate) use child::reset_signals;
use child::{CGROUPS_MAX, Plan, Step, prepare};
pub use program::ProgramError;

/// What to start.
#[derive(Clone)]
pub struct Launch<'a> {
    /// Names its cgroup and its marker.
    pub process: ProcessKey,
    /// The command line; the first word is looked up in the PATH of `env`.
    pub argv: &'a [String],
    /// Absolute working directory.
    pub cwd: &'a Path,
    /// The whole environment; the marker is added.
    pub env: &'a BTreeMap<String, String>,
    /// Memory limit in bytes.
    pub memory_bytes_max: Option<u64>,
    /// Whether it gets a private channel on descriptors 3 and 4.
    pub has_channel: bool,
}

/// A process that was started.
#[derive(Debug)]
pub struct Spawned {
    /// The process; it leads its own session and group, so its pid names the group too.
    pub process: Process,
    /// What holds it and its descendants.
    pub container: Container,
    /// Its standard output.
    pub stdout: Pipe,
    /// Its standard error.
    pub stderr: Pipe,
    /// Its private channel, if it was to have one.
    pub channel: Option<Channel>,
    /// RLIMIT_AS in bytes, where no cgroup could limit its memory.
    pub address_space_bytes_max: Option<u64>,
}

/// Why a program was not started. Nothing of it is left. All are known outcomes; whether trying again helps is said
/// by the reason.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The command line has no program that can be executed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The working directory cannot be entered.
    #[error("the working directory {path} cannot be used: {source}; choose one that exists")]
    WorkingDirectory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No pipes for its output or its channel: out of file descriptors.
    #[error("no pipes to it could be made: {0}; close something or raise the limit of open files")]
    Pipes(#[source] io::Error),
    /// It could not be put into its cgroup or given its limit.
    #[error("it could not be contained: {0}")]
    Contain(#[source] io::Error),
    /// fork or exec failed although the program looked executable.
    #[error("{path} could not be executed: {source}")]
    Exec {
        /// The program's file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It was started and could not be watched, so it was ended again.
    #[error("it could not be watched: {0}; close something or raise the limit of open files")]
    Watch(#[source] io::Error),
}

impl SpawnError {
    /// The same as evidence for a failure report.
    #[must_use]
    pub fn evidence(&self) -> LaunchEvidence {
        let (step, source, path) = match self {
            Self::Program(error) => (LaunchStep::Exec, None, error.path()),
            Self::WorkingDirectory { path, source } => {
                (LaunchStep::Prepare, Some(source), Some(path.as_path()))
            }
            Self::Pipes(source) | Self::Watch(source) => (LaunchStep::Prepare, Some(source), None),
            Self::Contain(source) => (LaunchStep::Contain, Some(source), None),
            Self::Exec { path, source } => (LaunchStep::Exec, Some(source), Some(path.as_path())),
        };
        LaunchEvidence {
            step,
            errno: source.and_then(io::Error::raw_os_error).or_else(|| self.errno_of_program()),
            path: path.map(|path| path.display().to_string()),
            message: self.to_string(),
            waited_ms: None,
        }
    }

    /// The number that exec would have failed with, had we tried.
    fn errno_of_program(&self) -> Option<i32> {
        let Self::Program(error) = self else { return None };
        match error {
            ProgramError::Empty => None,
            ProgramError::NotInPath { .. }
            | ProgramError::NoSuchFile(_)
            | ProgramError::BadInterpreter { .. } => Some(libc::ENOENT),
            ProgramError::NotExecutable { .. } => Some(libc::EACCES),
            ProgramError::WrongArchitecture { .. } => Some(libc::ENOEXEC),
        }
    }
}

/// Starts a program in its own session, group and cgroup, with standard input from /dev/null. Needs a tokio runtime.
///
/// # Errors
/// See [`SpawnError`]; then nothing is left: no process, cgroup or descriptor.
pub fn spawn(launch: &Launch<'_>) -> Result<Spawned, SpawnError> {
    let checked = check(launch)?;
    let contained = Contained::make(launch);
    let (stdout, stdout_write) = Pipe::new().map_err(SpawnError::Pipes)?;
    let (stderr, stderr_write) = Pipe::new().map_err(SpawnError::Pipes)?;

    let mut command = Command::new(&checked.file);
    command
        .arg0(&launch.argv[0])
        .args(&launch.argv[1..])
        .current_dir(launch.cwd)
        .env_clear()
        .envs(launch.env)
        .env(MARKER, launch.process.to_string())
        .stdin(Stdio::null())
        .stdout(stdout_write)
        .stderr(stderr_write);
    // Invariant: what the child needs until exec (these ends, our report pipe and std's) is never numbered 3 or 4. The
    // four ends of the pipes above took the lowest free numbers and stay open until the fork is over. Test:
    // `a_channel_is_at_three_and_four_whatever_this_process_holds`.
    let channel = launch.has_channel.then(Channel::new).transpose().map_err(SpawnError::Pipes)?;
    let (channel, ends) = channel.unzip();
    let pid = contained.fork(command, &checked.file, ends.as_ref())?;
    drop(ends);
    let process = match Process::open(pid) {
        Ok(process) => process,
        Err(error) => {
            end_unwatched(pid);
            return Err(SpawnError::Watch(error));
        }
    };
    let address_space_bytes_max = match contained.limit {
        MemoryLimit::AddressSpace(bytes) => Some(bytes),
        MemoryLimit::None | MemoryLimit::Cgroup => None,
    };
    Ok(Spawned { process, container: contained.keep(), stdout, stderr, channel, address_space_bytes_max })
}

/// The program's file, known to be executable.
struct Checked {
    file: PathBuf,
}

fn check(launch: &Launch<'_>) -> Result<Checked, SpawnError> {
    let unusable = |source: io::Error| SpawnError::WorkingDirectory { path: launch.cwd.to_owned(), source };
    let metadata = std::fs::metadata(launch.cwd).map_err(unusable)?;
    if !metadata.is_dir() {
        return Err(unusable(io::ErrorKind::NotADirectory.into()));
    }
    rustix::fs::access(launch.cwd, rustix::fs::Access::EXEC_OK).map_err(|error| unusable(error.into()))?;
    let word = launch.argv.first().ok_or(ProgramError::Empty)?;
    // What execvp(3) searches when there is no PATH.
    let path = launch.env.get("PATH").map_or("/bin:/usr/bin", String::as_str);
    Ok(Checked { file: program::find(word, path, launch.cwd)? })
}

/// Cgroups that are removed again unless a process keeps them.
struct Contained {
    container: Option<Container>,
    limit: MemoryLimit,
}

impl Contained {
    fn make(launch: &Launch<'_>) -> Self {
        let (container, limit) = Container::make(launch.process, launch.memory_bytes_max);
        Self { container: Some(container), limit }
    }

    fn keep(mut self) -> Container {
        self.container.take().expect("taken only here, by value")
    }

    /// Forks and executes; the child joins the cgroups in between.
    fn fork(&self, mut command: Command, file: &Path, ends: Option<&ProgramEnds>) -> Result<i32, SpawnError> {
        let container = self.container.as_ref().expect("taken only in keep");
        let joins = container.join_files().map_err(SpawnError::Contain)?;
        let (report, report_write) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|e| SpawnError::Pipes(e.into()))?;
        let mut plan = Plan {
            cgroups: [-1; CGROUPS_MAX],
            address_space: None,
            report: report_write.as_raw_fd(),
            channel: ends.map(|ends| [ends.reads.as_raw_fd(), ends.writes.as_raw_fd()]),
        };
        for (slot, file) in plan.cgroups.iter_mut().zip(&joins) {
            *slot = file.as_raw_fd();
        }
        if let MemoryLimit::AddressSpace(bytes) = self.limit {
            plan.address_space = Some(bytes);
        }
        // SAFETY: `prepare` makes only async-signal-safe calls; its descriptors stay open until the fork is over.
        unsafe { command.pre_exec(move || prepare(&plan)) };
        let spawned = command.spawn();
        drop(report_write);
        match spawned {
            // std's Child neither kills nor waits when dropped; the pidfd takes over.
            Ok(child) => Ok(i32::try_from(child.id()).expect("a pid fits pid_t")),
            Err(source) => {
                let mut byte = [0_u8; 1];
                let told = std::fs::File::from(report).read(&mut byte).unwrap_or(0);
                match Step::from_byte(byte[0]) {
                    Some(Step::Contain | Step::Limit | Step::Session) if told == 1 => {
                        Err(SpawnError::Contain(source))
                    }
                    Some(Step::Channel) if told == 1 => Err(SpawnError::Pipes(source)),
                    _ => Err(SpawnError::Exec { path: file.to_owned(), source }),
                }
            }
        }
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        if let Some(container) = &self.container {
            let _removed = container.remove();
        }
    }
}

/// Ends a child for which no pidfd could be had, and waits for it.
fn end_unwatched(pid: i32) {
    // SAFETY: `pid` is our unreaped child and leads the group of its own name; no status is asked for.
    unsafe {
        libc::kill(-pid, libc::SIGKILL);
        libc::kill(pid, libc::SIGKILL);
        libc::waitpid(pid, std::ptr::null_mut(), 0);
    }
}
