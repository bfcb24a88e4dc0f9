//! Raw facts about the end of a process, as they were gathered. Nothing here is inferred.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cause::CauseCode;
use crate::failover::TakenWhy;
use crate::id::{NodeId, ReportId};
use crate::runtime::{StopStep, StopWhy};

/// Everything known about the end of one process. Every field may be missing; none is guessed.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Evidence {
    /// How far the process had come.
    pub phase: Phase,
    /// The command line as it was executed.
    pub argv: Vec<String>,
    /// The working directory.
    pub cwd: String,
    /// The last bytes of standard error, at most [`crate::limits::STDERR_TAIL_BYTES_MAX`], invalid UTF-8 replaced.
    pub stderr_tail: String,
    /// The last bytes of standard output (of the process, not of its cells).
    pub stdout_tail: String,
    /// How many bytes of standard error there were in all.
    pub stderr_bytes: u64,
    /// What was seen of memory.
    pub memory: MemoryEvidence,
    /// The stop that we asked for, when we did.
    pub stop: Option<StopEvidence>,
    /// The launch step that failed, when one did.
    pub launch: Option<LaunchEvidence>,
    /// The program's own exception, when it said one on a channel (not parsed from stderr).
    pub exception: Option<ProgramException>,
    /// What a runner said of its own end before it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_words: Option<LastWords>,
    /// The hang that was under way, when there was one.
    pub hang: Option<HangEvidence>,
    /// The watchdog that had run out, when one had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall: Option<StallEvidence>,
    /// How a runner broke the runner protocol: one line for people, with the frame or the figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub violation: Option<String>,
    /// A runner closed its channel without saying `end`, and lived on for so many milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_closed_ms: Option<u64>,
    /// The member of its group whose end made this one useless.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sibling: Option<SiblingEvidence>,
    /// Processor time that the process used, in milliseconds.
    pub cpu_ms: Option<u64>,
    /// What the file systems it wrote to had left at its end: path and free bytes.
    pub disk: Vec<DiskEvidence>,
    /// The shim vanished without a report; who waits for the exit status is gone.
    pub shim_lost: Option<ShimLostEvidence>,
    /// The kernel's ring buffer lines that name this pid (segfault, out of memory).
    pub kernel_log: Vec<String>,
    /// The pid that sent the fatal signal, where the system tells.
    pub signal_sender: Option<i32>,
    /// The limit that the run had exceeded, in milliseconds, when a stop for [`StopWhy::Timeout`] followed.
    pub time_limit_ms: Option<u64>,
    /// The machine was restarted while the process ran.
    pub machine_restart: Option<MachineRestart>,
    /// The node that it ran on was lost, and its session was taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_lost: Option<NodeLostEvidence>,
    /// Outlive's own panic message or broken invariant, when that is what ended the work.
    pub bug: Option<String>,
}

impl Evidence {
    /// Whether what the process did goes on elsewhere or later: its node was lost, or gave its work away, or stopped what it
    /// had because it was cut off.
    #[must_use]
    pub fn is_displaced(&self) -> bool {
        self.node_lost.is_some() || self.stop.as_ref().is_some_and(|stop| stop.why == StopWhy::Drain)
    }

    /// Adds what was learnt later. A fact that is known stays; what was missing is filled in; of a tail the newer
    /// and of a count the larger is kept. Merging the same twice changes nothing.
    pub fn merge(&mut self, late: Self) {
        if self.phase == Phase::Launching {
            self.phase = late.phase;
        }
        if self.argv.is_empty() {
            self.argv = late.argv;
        }
        if self.cwd.is_empty() {
            self.cwd = late.cwd;
        }
        // A tail that was full has moved on without growing: who has read more in all has the newer one.
        if late.stderr_bytes > self.stderr_bytes {
            self.stderr_bytes = late.stderr_bytes;
            self.stderr_tail = late.stderr_tail;
        } else if late.stderr_bytes == self.stderr_bytes {
            keep_longer(&mut self.stderr_tail, late.stderr_tail);
        }
        keep_longer(&mut self.stdout_tail, late.stdout_tail);
        self.memory.merge(late.memory);
        fill(&mut self.stop, late.stop);
        fill(&mut self.launch, late.launch);
        fill(&mut self.exception, late.exception);
        fill(&mut self.last_words, late.last_words);
        fill(&mut self.hang, late.hang);
        fill(&mut self.stall, late.stall);
        fill(&mut self.violation, late.violation);
        fill(&mut self.channel_closed_ms, late.channel_closed_ms);
        fill(&mut self.sibling, late.sibling);
        self.cpu_ms = self.cpu_ms.max(late.cpu_ms);
        for disk in late.disk {
            if !self.disk.iter().any(|known| known.path == disk.path) {
                self.disk.push(disk);
            }
        }
        fill(&mut self.shim_lost, late.shim_lost);
        for line in late.kernel_log {
            if !self.kernel_log.contains(&line) {
                self.kernel_log.push(line);
            }
        }
        fill(&mut self.signal_sender, late.signal_sender);
        fill(&mut self.time_limit_ms, late.time_limit_ms);
        fill(&mut self.machine_restart, late.machine_restart);
        fill(&mut self.node_lost, late.node_lost);
        fill(&mut self.bug, late.bug);
    }
}

impl MemoryEvidence {
    fn merge(&mut self, late: Self) {
        match (&mut self.cgroup, late.cgroup) {
            (Some(known), Some(late)) => {
                known.oom_kills = known.oom_kills.max(late.oom_kills);
                known.limit_hits = known.limit_hits.max(late.limit_hits);
                known.peak_bytes = known.peak_bytes.max(late.peak_bytes);
                fill(&mut known.limit_bytes, late.limit_bytes);
            }
            (known, late) => fill(known, late),
        }
        fill(&mut self.rlimit_as_bytes, late.rlimit_as_bytes);
        self.rss_bytes_peak = self.rss_bytes_peak.max(late.rss_bytes_peak);
        self.vm_bytes_peak = self.vm_bytes_peak.max(late.vm_bytes_peak);
        self.host_oom_kills = self.host_oom_kills.max(late.host_oom_kills);
        fill(&mut self.host_bytes_total, late.host_bytes_total);
        fill(&mut self.host_bytes_available, late.host_bytes_available);
    }
}

fn fill<T>(known: &mut Option<T>, late: Option<T>) {
    if known.is_none() {
        *known = late;
    }
}

fn keep_longer(known: &mut String, late: String) {
    if late.len() > known.len() {
        *known = late;
    }
}

/// How far a process had come when it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not spawned, or spawned and not yet ready.
    #[default]
    Launching,
    /// Ready, without work.
    Idle,
    /// Ready, with work in flight.
    Busy,
    /// After we asked it to stop.
    Stopping,
}

/// What was seen of memory at or before the end.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MemoryEvidence {
    /// The cgroup's own account, where one with a memory controller held the process.
    pub cgroup: Option<CgroupMemory>,
    /// RLIMIT_AS in bytes, when one was set.
    pub rlimit_as_bytes: Option<u64>,
    /// The largest resident set of the process in bytes (getrusage).
    pub rss_bytes_peak: Option<u64>,
    /// The largest virtual size of the process in bytes, as last seen.
    pub vm_bytes_peak: Option<u64>,
    /// How far the machine's count of OOM kills moved while the process lived (/proc/vmstat oom_kill).
    pub host_oom_kills: u64,
    /// The machine's memory in bytes.
    pub host_bytes_total: Option<u64>,
    /// The machine's available memory in bytes, as last seen before the end.
    pub host_bytes_available: Option<u64>,
}

/// The memory account of a cgroup.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct CgroupMemory {
    /// 1 or 2.
    pub version: u8,
    /// The cgroup's path below its mount.
    pub path: String,
    /// How often the kernel killed something in it for want of memory, while the process lived.
    pub oom_kills: u64,
    /// How often an allocation hit the limit while the process lived.
    pub limit_hits: u64,
    /// Its limit in bytes, when it has one.
    pub limit_bytes: Option<u64>,
    /// Its peak use in bytes.
    pub peak_bytes: Option<u64>,
}

/// A stop that we asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct StopEvidence {
    /// Who wanted it.
    pub why: StopWhy,
    /// The last rung that was reached.
    pub step: StopStep,
}

/// A step of a launch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LaunchStep {
    /// Finding the kernelspec.
    Kernelspec,
    /// Making the Python environment for it.
    Environment,
    /// Starting the shim.
    Shim,
    /// Making the process's directory and files.
    Prepare,
    /// Making its cgroup and limits.
    Contain,
    /// Finding the program and executing it.
    Exec,
    /// Reaching its sockets.
    Connect,
    /// Waiting for its first answer.
    Ready,
}

/// How a launch failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LaunchEvidence {
    /// Which step.
    pub step: LaunchStep,
    /// The system's error number, when a system call failed.
    pub errno: Option<i32>,
    /// The path it concerned, when it did.
    pub path: Option<String>,
    /// What happened, in words.
    pub message: String,
    /// How long it had waited, in milliseconds, when it waited.
    pub waited_ms: Option<u64>,
}

/// An exception as the program told it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ProgramException {
    /// Its type, for instance `ZeroDivisionError`.
    pub exception_type: String,
    /// Its message.
    pub message: String,
    /// Its traceback as text, causes included; may hold ANSI colours.
    pub traceback: String,
}

/// What a runner said of its own end: the exception that nobody in it caught.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LastWords {
    /// Its type, qualified where it is no builtin, for instance `json.decoder.JSONDecodeError`.
    pub exception_type: String,
    /// Its message.
    pub message: String,
    /// The exception as the language shows the value itself, for instance `KeyError('x')`.
    pub repr: String,
    /// Its traceback as the language prints it, without its causes.
    pub traceback: String,
    /// What it came from, nearest first, the root last; at most [`crate::limits::LAST_WORDS_CAUSES_MAX`], each with
    /// no causes of its own.
    pub causes: Vec<LastWordsCause>,
    /// The state that the runner was in, for instance `loading` or `running`.
    pub phase: String,
    /// The task that it was raised in, when it was one.
    pub task: Option<String>,
}

/// An exception that led to the one of the [`LastWords`].
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LastWordsCause {
    /// Its type, qualified where it is no builtin.
    pub exception_type: String,
    /// Its message.
    pub message: String,
    /// The exception as the language shows the value itself.
    pub repr: String,
    /// Its traceback as the language prints it.
    pub traceback: String,
}

/// A watchdog that ran out: there was no progress.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct StallEvidence {
    /// What was waited for, in words: `load`, `first chunk`, `between chunks`.
    pub phase: String,
    /// How long there had been no progress, in milliseconds.
    pub silent_ms: u64,
    /// The limit, in milliseconds.
    pub limit_ms: u64,
}

/// The member of a group that died first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SiblingEvidence {
    /// Its name, for instance `train-3`.
    pub name: String,
    /// What it died of.
    pub cause: CauseCode,
    /// The same in one sentence.
    pub summary: String,
    /// Its report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<ReportId>,
}

/// A process that stopped answering.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct HangEvidence {
    /// How long it had not answered, in milliseconds.
    pub silent_ms: u64,
    /// Heartbeats missed in a row.
    pub misses: u32,
    /// Processor time used during the silence, in milliseconds.
    pub cpu_ms: Option<u64>,
    /// The scheduler's state letter from /proc/PID/stat: T stopped, R running, S sleeping, D in a system call.
    pub state: Option<char>,
}

/// A file system at the end of a process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DiskEvidence {
    /// A path on it.
    pub path: String,
    /// Bytes left for an ordinary user.
    pub free_bytes: u64,
    /// Inodes left.
    pub free_inodes: u64,
}

/// A shim that vanished.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ShimLostEvidence {
    /// The shim's pid.
    pub shim_pid: Option<i32>,
    /// The shim's own exit status, when it was our child.
    pub shim_status: Option<crate::runtime::ExitStatus>,
    /// How many processes were found and killed after it.
    pub killed: u32,
    /// It lived, but could not be used: what it said, or that its protocol is of another version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// A restart of the machine: its boot id (/proc/sys/kernel/random/boot_id) is another one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MachineRestart {
    /// The boot id under which the process was started.
    pub boot_before: String,
    /// The boot id now.
    pub boot_now: String,
}

/// A node that was lost: nobody can say how its processes ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct NodeLostEvidence {
    /// Which.
    pub node: NodeId,
    /// What it is called.
    pub name: String,
    /// How its loss was noticed.
    pub why: TakenWhy,
    /// How long it had not been heard when that was noticed, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_ms: Option<u64>,
}
