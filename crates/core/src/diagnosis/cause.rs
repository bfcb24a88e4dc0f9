//! What a failure was caused by: a stable code, a confidence, evidence lines, a remedy.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A stable code; each has a page `docs/causes/CODE.md`. Codes are added, never renamed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CauseCode {
    /// Ended by itself with an exit code, and nothing explains it better.
    ExitCode,
    /// A signal ended it, and nothing explains the signal better.
    Signal,
    /// It ran out of memory, or was killed for it.
    OutOfMemory,
    /// An uncaught Python exception ended it.
    PythonException,
    /// A crash in native code: segmentation fault, abort, illegal instruction.
    NativeCrash,
    /// No space left on a device.
    DiskFull,
    /// A module or package could not be imported.
    MissingModule,
    /// The program or its interpreter does not exist or cannot be executed.
    MissingInterpreter,
    /// No such kernel, or its kernelspec is unusable.
    MissingKernel,
    /// It could not be started, and the system said why.
    LaunchFailed,
    /// It did not become ready in time.
    NeverReady,
    /// It stopped answering and was ended for it.
    Hung,
    /// A run took longer than its limit.
    Timeout,
    /// A port or socket that it needs is taken.
    AddressInUse,
    /// The memory of a graphics processor ran out.
    GpuOutOfMemory,
    /// A graphics processor failed or was reset: a device-side assertion, a command buffer's time limit.
    GpuFault,
    /// The connection between members of a group of workers broke: NCCL, Gloo, a ring.
    TransportFailed,
    /// A runner broke the runner protocol.
    ProtocolViolation,
    /// A runner made no progress for longer than its watchdog allows: in loading, before a first chunk, between chunks.
    Stalled,
    /// A runner closed its channel and lived on.
    ChannelClosed,
    /// A runner went on with a task that had been cancelled, and was stopped for it.
    IgnoredCancel,
    /// Stopped because another member of its group died, without which it is useless.
    GroupSibling,
    /// The limit of open files was reached.
    TooManyOpenFiles,
    /// A service that it needs could not be reached.
    ConnectionRefused,
    /// A shared library could not be loaded.
    MissingLibrary,
    /// A file or directory that it needs does not exist.
    MissingFile,
    /// A model, its tokenizer or its weights are not there or cannot be read.
    MissingWeights,
    /// It may not use a file, a device or a port.
    PermissionDenied,
    /// An assertion of the program failed.
    AssertionFailed,
    /// A panic of Rust or Go.
    Panic,
    /// One of the user's own matchers says so; the cause has its name.
    Custom,
    /// Somebody asked for its end.
    KilledByOperator,
    /// The shim that held it was killed.
    ShimLost,
    /// The machine it ran on was restarted.
    MachineRestarted,
    /// The node it ran on was lost.
    NodeLost,
    /// A defect of Outlive itself.
    Bug,
    /// Nothing explains it; the tail is kept.
    Unknown,
}

impl CauseCode {
    /// Every code there is.
    pub const ALL: [Self; 37] = [
        Self::ExitCode,
        Self::Signal,
        Self::OutOfMemory,
        Self::PythonException,
        Self::NativeCrash,
        Self::DiskFull,
        Self::MissingModule,
        Self::MissingInterpreter,
        Self::MissingKernel,
        Self::LaunchFailed,
        Self::NeverReady,
        Self::Hung,
        Self::Timeout,
        Self::AddressInUse,
        Self::GpuOutOfMemory,
        Self::GpuFault,
        Self::TransportFailed,
        Self::ProtocolViolation,
        Self::Stalled,
        Self::ChannelClosed,
        Self::IgnoredCancel,
        Self::GroupSibling,
        Self::TooManyOpenFiles,
        Self::ConnectionRefused,
        Self::MissingLibrary,
        Self::MissingFile,
        Self::MissingWeights,
        Self::PermissionDenied,
        Self::AssertionFailed,
        Self::Panic,
        Self::Custom,
        Self::KilledByOperator,
        Self::ShimLost,
        Self::MachineRestarted,
        Self::NodeLost,
        Self::Bug,
        Self::Unknown,
    ];

    /// The code as it is written everywhere, for instance `out-of-memory`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ExitCode => "exit-code",
            Self::Signal => "signal",
            Self::OutOfMemory => "out-of-memory",
            Self::PythonException => "python-exception",
            Self::NativeCrash => "native-crash",
            Self::DiskFull => "disk-full",
            Self::MissingModule => "missing-module",
            Self::MissingInterpreter => "missing-interpreter",
            Self::MissingKernel => "missing-kernel",
            Self::LaunchFailed => "launch-failed",
            Self::NeverReady => "never-ready",
            Self::Hung => "hung",
            Self::Timeout => "timeout",
            Self::AddressInUse => "address-in-use",
            Self::GpuOutOfMemory => "gpu-out-of-memory",
            Self::GpuFault => "gpu-fault",
            Self::TransportFailed => "transport-failed",
            Self::ProtocolViolation => "protocol-violation",
            Self::Stalled => "stalled",
            Self::ChannelClosed => "channel-closed",
            Self::IgnoredCancel => "ignored-cancel",
            Self::GroupSibling => "group-sibling",
            Self::TooManyOpenFiles => "too-many-open-files",
            Self::ConnectionRefused => "connection-refused",
            Self::MissingLibrary => "missing-library",
            Self::MissingFile => "missing-file",
            Self::MissingWeights => "missing-weights",
            Self::PermissionDenied => "permission-denied",
            Self::AssertionFailed => "assertion-failed",
            Self::Panic => "panic",
            Self::Custom => "custom",
            Self::KilledByOperator => "killed-by-operator",
            Self::ShimLost => "shim-lost",
            Self::MachineRestarted => "machine-restarted",
            Self::NodeLost => "node-lost",
            Self::Bug => "bug",
            Self::Unknown => "unknown",
        }
    }

    /// Its page below the repository's root, for instance `docs/causes/out-of-memory.md`.
    #[must_use]
    pub fn page(self) -> String {
        format!("docs/causes/{self}.md")
    }
}

impl FromStr for CauseCode {
    type Err = UnknownCauseCode;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|code| code.as_str() == text)
            .ok_or_else(|| UnknownCauseCode { text: text.to_owned() })
    }
}

/// No cause code is written like this.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{text}` is no cause code; each has a page in docs/causes/")]
pub struct UnknownCauseCode {
    /// What was given.
    pub text: String,
}

impl fmt::Display for CauseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How sure a cause is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// One of several readings.
    Possible,
    /// The evidence points here, but something else could look the same.
    Likely,
    /// The system or the program said so itself.
    Certain,
}

impl fmt::Display for Confidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Possible => "possible",
            Self::Likely => "likely",
            Self::Certain => "certain",
        })
    }
}

/// One cause, as it is shown.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Cause {
    /// Its code.
    pub code: CauseCode,
    /// The name of the user's matcher, for [`CauseCode::Custom`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How sure it is.
    pub confidence: Confidence,
    /// One sentence with the figures in it, for instance `killed by the OOM killer at 1.9 of 2.0 GiB`.
    pub summary: String,
    /// The lines that show it, most telling first; repeats are collapsed into `… (×n)`.
    pub evidence: Vec<EvidenceLine>,
    /// What to do about it.
    pub remedy: String,
}

impl Cause {
    /// What it is called: its code, or the name of the user's matcher.
    #[must_use]
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(self.code.as_str())
    }
}

/// A line of evidence and where it is from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EvidenceLine {
    /// For instance `wait status`, `stderr`, `cgroup memory.events`, `kernel log`.
    pub source: String,
    /// The line.
    pub text: String,
}
