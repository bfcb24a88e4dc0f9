//! What daemon and shim say to each other, over one Unix socket for each process.
//!
//! The daemon binds the socket before it starts the shim and hands the listener over, so connecting never races.
//! After a restart of the daemon the socket is still there; the shim serves one daemon at a time and the newest
//! connection that proves itself wins.
//!
//! ```text
//! daemon                              shim
//!   Hello{who, versions, acked}  ──►    checks who is meant
//!                                ◄──  Welcome{identity, known runs, first unacknowledged src}
//!   Execute / Interrupt / Stop … ──►
//!                                ◄──  Record{src: 1, …} Record{src: 2, …} …   (numbered, kept until acknowledged)
//!   Ack{through: 2}              ──►    forgets 1 and 2
//! ```
//!
//! Control messages are JSON bodies; a record is JSON followed by the raw bytes of its chunks (see [`super::log`]).
//! A message of a kind that the receiver does not know is skipped. Versions: [`VERSION`] and the one before. Version 2 has
//! `Freeze`, `Thaw` and `Beat`: a shim of version 1 skips them, and its process runs on.

use outlive_core::diagnosis::evidence::{Evidence, HangEvidence, StallEvidence};
use outlive_core::id::{Attempt, BootId, Incarnation, NodeId, ProcessKey, RunId, RuntimeId, SessionId, Src};
use outlive_core::log::{BlobRef, Chunk};
use outlive_core::runtime::runner::{Greeting, Phase as RunnerPhase, Progress, TaskOrder};
use outlive_core::runtime::stop::StopLadder;
use outlive_core::runtime::{ExitReport, LaunchSpec, StopStep, StopWhy};
use outlive_core::session::RunOutcome;
use outlive_core::time::WallTime;
use serde::{Deserialize, Serialize};

/// The version of this protocol. A shim speaks it to daemons of this version and the one before.
pub const VERSION: u16 = 2;

/// Who a shim is, proved on every connection: never a bare pid.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ShimIdentity {
    /// The session it works for.
    pub session: SessionId,
    /// The runtime and incarnation that it holds.
    pub process: ProcessKey,
    /// The node whose daemon launched it.
    pub node: NodeId,
    /// The machine's boot id (/proc/sys/kernel/random/boot_id) at its launch.
    pub machine_boot: String,
    /// The shim's pid.
    pub shim_pid: i32,
    /// The shim's start time in clock ticks since boot (/proc/PID/stat field 22).
    pub shim_start: u64,
    /// The process's pid, once it is spawned.
    pub pid: Option<i32>,
    /// The process's start time, in clock ticks since boot.
    pub pid_start: Option<u64>,
    /// The cgroup directories made for the process, absolute.
    pub cgroups: Vec<String>,
}

/// What the daemon writes for a shim before it starts it: `launch.json`, mode 0600, in the process's directory.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ShimLaunch {
    /// [`VERSION`] of the writer.
    pub version: u16,
    /// The session it works for.
    pub session: SessionId,
    /// The runtime and incarnation to start.
    pub process: ProcessKey,
    /// The node that launches it.
    pub node: NodeId,
    /// What to start.
    pub spec: LaunchSpec,
    /// Absolute directory of this process: identity, connection file, spool. The shim removes it at its end.
    pub directory: String,
    /// Absolute directory of the session's blobs.
    pub blobs: String,
    /// The ladder for stops.
    pub ladder: StopLadder,
    /// How much unacknowledged output is kept in memory, in bytes.
    pub memory_bytes_max: u64,
    /// How much is spooled, in bytes.
    pub spool_bytes_max: u64,
    /// How long its daemon may say nothing, in milliseconds, before the shim freezes the process by itself: another node may
    /// have taken its session over. `None` on a node that is alone: its process runs on until a daemon returns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard_ms: Option<u64>,
}

/// From daemon to shim.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToShim {
    /// First message of a connection.
    Hello {
        /// The newest version that the daemon speaks.
        version: u16,
        /// The session that the daemon thinks this is.
        session: SessionId,
        /// The process that the daemon thinks this is.
        process: ProcessKey,
        /// The daemon's start.
        boot: BootId,
        /// Everything up to here is stored: send again from the next on.
        acked: Src,
    },
    /// Everything up to here is stored.
    Ack {
        /// The last stored record.
        through: Src,
    },
    /// Run code. Ignored when this run and attempt was already given.
    Execute {
        /// The run.
        run: RunId,
        /// Its attempt.
        attempt: Attempt,
        /// The source.
        code: String,
        /// Whether somebody is there to answer `input_request`.
        allow_stdin: bool,
        /// Run without output, history or count (Outlive's own probes).
        silent: bool,
    },
    /// Give a runner a task. Ignored when this run and attempt was already given.
    Task {
        /// The run.
        run: RunId,
        /// Its attempt.
        attempt: Attempt,
        /// What to do.
        order: TaskOrder,
    },
    /// Tell a runner to stop a task.
    CancelTask {
        /// The run.
        run: RunId,
        /// Its attempt.
        attempt: Attempt,
    },
    /// Interrupt what runs (signal or message, as the kernelspec says). Never queued behind output.
    Interrupt,
    /// Answer a run's question.
    Input {
        /// The run that asked.
        run: RunId,
        /// The answer.
        value: String,
    },
    /// Stop the process by the ladder; a second Stop with a harder `from` skips to that rung.
    Stop {
        /// Who wants it.
        why: StopWhy,
        /// The rung to begin with.
        from: StopStep,
    },
    /// Keep the process from running, whatever it does, until `Thaw`.
    Freeze,
    /// Let it go on where it was frozen, by this daemon or an earlier one or by the shim itself. Not frozen: nothing.
    Thaw,
    /// The daemon is there, and one of its cluster: the guard stays quiet.
    Beat,
    /// The process has ended, its records are stored: the shim may remove its directory and end.
    Goodbye,
    /// The daemon does not know this shim: it stops its process in the normal ladder and ends.
    Refuse {
        /// For the log.
        reason: String,
    },
}

/// From shim to daemon.
#[derive(Clone, PartialEq, Debug)]
pub enum FromShim {
    /// Answer to Hello.
    Welcome(Welcome),
    /// Answer to a Hello that means somebody else, or that speaks no common version.
    Wrong {
        /// What does not fit.
        reason: String,
    },
    /// A numbered record.
    Record(Numbered),
}

/// Answer to Hello.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// The version that the shim will speak.
    pub version: u16,
    /// Who it is.
    pub identity: ShimIdentity,
    /// The runs that it was given and that are not finished: an Execute for another is new to it.
    pub open_runs: Vec<(RunId, Attempt)>,
    /// The last number that it gave.
    pub last_src: Src,
    /// What its run waits to be told. An answer that was on its way when a daemon died has not come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asks: Option<OpenQuestion>,
    /// Whether the process is frozen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub frozen: bool,
}

/// A question that nobody has answered yet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OpenQuestion {
    /// The record that asked it.
    pub src: Src,
    /// The run that asks.
    pub run: RunId,
    /// What it asks.
    pub prompt: String,
    /// Whether the answer must not be shown.
    pub password: bool,
}

/// A record with its number. Kept by the shim until it is acknowledged, and sent again after a reconnect.
#[derive(Clone, PartialEq, Debug)]
pub struct Numbered {
    /// From 1, without holes.
    pub src: Src,
    /// When it happened.
    pub at: WallTime,
    /// What happened.
    pub notice: Notice,
}

/// What a shim has to say.
#[derive(Clone, PartialEq, Debug)]
pub enum Notice {
    /// Output. `run` is the run whose message caused it; `None` for output of nobody (start-up, a kernel's own
    /// stderr, a command's output before… a command's output always names its run: the first Execute).
    Output {
        /// The run it belongs to.
        run: Option<RunId>,
        /// Usually one.
        chunks: Vec<Chunk>,
    },
    /// Everything without chunks.
    State(StateNotice),
}

/// A change in the life of the process or of a run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateNotice {
    /// The process exists.
    Spawned {
        /// Its pid.
        pid: i32,
        /// Its start time in clock ticks since boot.
        pid_start: u64,
    },
    /// It has answered (kernel: `kernel_info_reply`; command: it was executed).
    Ready {
        /// The kernel's banner, implementation and language, as it gave them; empty for a command.
        kernel_info: serde_json::Value,
    },
    /// A run began (status busy with its message as the parent).
    RunStarted {
        /// The run.
        run: RunId,
        /// Its attempt.
        attempt: Attempt,
    },
    /// A run's reply *and* its idle status have come: all its output stands before this record.
    RunFinished {
        /// The run.
        run: RunId,
        /// Its attempt.
        attempt: Attempt,
        /// Succeeded, Raised, or Cancelled for `status: aborted`.
        outcome: RunOutcome,
        /// The kernel's count, when it gave one.
        execution_count: Option<u32>,
    },
    /// Somebody has to answer. The chunk with the prompt stands before this record.
    InputRequested {
        /// The run that asks.
        run: RunId,
        /// What it asks.
        prompt: String,
        /// Whether the answer must not be shown.
        password: bool,
    },
    /// Heartbeats are missing: suspicion, not death.
    Unresponsive {
        /// Since when and what it does meanwhile.
        hang: HangEvidence,
    },
    /// It answers again.
    Responsive,
    /// A rung of the ladder was reached.
    Stopping {
        /// Who wanted it.
        why: StopWhy,
        /// The rung.
        step: StopStep,
    },
    /// It has ended, or never began. Everything it wrote to its pipes stands before this record. Sent once.
    Exited {
        /// The one report.
        report: Box<ExitReport>,
    },
    /// Channels are drained and its group is gone; the last record of a shim. The evidence is the report's with
    /// what was found late.
    Drained {
        /// Evidence, complete.
        evidence: Box<Evidence>,
    },
    /// A runner has said what it can do.
    Greeted {
        /// What.
        greeting: Greeting,
    },
    /// A runner is so far. Repeated with each progress, not more often than people can read.
    Entered {
        /// The phase.
        phase: RunnerPhase,
        /// How much of it is done.
        progress: Progress,
    },
    /// A task can be continued from here: all its output before this record is covered.
    Checkpointed {
        /// The run.
        run: RunId,
        /// Its attempt.
        attempt: Attempt,
        /// The state that was saved.
        blob: BlobRef,
    },
    /// A watchdog saw no progress: suspicion, not death.
    Stalled {
        /// In what.
        stall: StallEvidence,
        /// The task that stands still; `None` while loading.
        run: Option<RunId>,
    },
    /// A runner broke its protocol.
    Violated {
        /// What it did.
        what: String,
        /// Whether its channel cannot be used any more.
        is_fatal: bool,
    },
    /// The process is kept from running.
    Frozen {
        /// The shim did it by itself, because it had not heard of its daemon.
        by_guard: bool,
    },
    /// It goes on.
    Thawed,
    /// Output was lost between the record before and this one, and this is why.
    Gap {
        /// The last record before the gap.
        since: Src,
        /// The reason.
        reason: String,
    },
}

/// The file name of a process's directory: `RUNTIME-INCARNATION`.
#[must_use]
pub fn directory_name(process: ProcessKey) -> String {
    process.to_string()
}

/// Reads a process's key back from [`directory_name`].
#[must_use]
pub fn parse_directory_name(name: &str) -> Option<ProcessKey> {
    let (runtime, incarnation) = name.rsplit_once('-')?;
    let runtime: RuntimeId = runtime.parse().ok()?;
    let incarnation: Incarnation = incarnation.parse().ok()?;
    Some(ProcessKey { runtime, incarnation })
}
