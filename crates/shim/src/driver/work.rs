//! What a process works on, and how it is spoken to.

use outlive_core::time::Tick;

use crate::kernel::Kernel;
use crate::kernel::runs::RunKey;
use crate::runner::Runner;

/// What a process works on.
pub(super) enum Work {
    /// Runs, over its sockets.
    Kernel(Box<Kernel>),
    /// One run, which is its life.
    Command(RunKey),
    /// Tasks, over its channel.
    Runner(Box<Runner>),
    /// Nothing that anybody could give it: a runner without a channel.
    Mute,
}

impl Work {
    pub(super) fn kernel(&self) -> Option<&Kernel> {
        match self {
            Self::Kernel(kernel) => Some(kernel),
            Self::Command(_) | Self::Runner(_) | Self::Mute => None,
        }
    }

    pub(super) fn kernel_mut(&mut self) -> Option<&mut Kernel> {
        match self {
            Self::Kernel(kernel) => Some(kernel),
            Self::Command(_) | Self::Runner(_) | Self::Mute => None,
        }
    }

    pub(super) fn runner(&self) -> Option<&Runner> {
        match self {
            Self::Runner(runner) => Some(runner),
            Self::Kernel(_) | Self::Command(_) | Self::Mute => None,
        }
    }

    pub(super) fn runner_mut(&mut self) -> Option<&mut Runner> {
        match self {
            Self::Runner(runner) => Some(runner),
            Self::Kernel(_) | Self::Command(_) | Self::Mute => None,
        }
    }

    /// The run that all output of the process is.
    pub(super) const fn command_run(&self) -> Option<RunKey> {
        match self {
            Self::Command(run) => Some(*run),
            Self::Kernel(_) | Self::Runner(_) | Self::Mute => None,
        }
    }

    pub(super) const fn answers_heartbeats(&self) -> bool {
        matches!(self, Self::Kernel(_) | Self::Runner(_))
    }

    /// Sends a heartbeat.
    pub(super) fn beat(&mut self) {
        match self {
            Self::Kernel(kernel) => kernel.beat(),
            Self::Runner(runner) => runner.ping(),
            Self::Command(_) | Self::Mute => {}
        }
    }

    /// What it was given and has not finished.
    pub(super) fn open_runs(&self) -> Vec<RunKey> {
        match self {
            Self::Kernel(kernel) => kernel.runs().open(),
            Self::Command(run) => vec![*run],
            Self::Runner(runner) => runner.tasks().keys(),
            Self::Mute => Vec::new(),
        }
    }

    /// Whether it is done with this run and would not begin it again.
    pub(super) fn has_finished(&self, key: RunKey) -> bool {
        match self {
            Self::Kernel(kernel) => kernel.runs().has_finished(key),
            Self::Runner(runner) => runner.tasks().has_finished(key),
            Self::Command(_) | Self::Mute => false,
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Tick> {
        match self {
            Self::Kernel(kernel) => kernel.next_deadline(),
            Self::Runner(runner) => runner.next_deadline(),
            Self::Command(_) | Self::Mute => None,
        }
    }
}
