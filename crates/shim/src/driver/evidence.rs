//! Everything known about the end of the process.

use std::path::Path;

use outlive_core::diagnosis::evidence::{Evidence, Phase};
use outlive_core::runtime::StopWhy;
use outlive_core::time::Now;
use outlive_process::Reaped;
use outlive_process::evidence::disks;

use super::work::Work;
use super::{Driver, Life};
use crate::ladder::Stopping;

/// How much of a command line is kept, in bytes: a record has to fit a frame.
const ARGV_BYTES_MAX: usize = 32_768;

impl Driver {
    /// What is known of a process that was never spawned.
    pub(super) fn bare_evidence(&self, argv: Vec<String>) -> Evidence {
        Evidence { argv: cut(argv), cwd: self.launch.spec.cwd.clone(), ..Evidence::default() }
    }

    /// What is known at the exit of the process.
    pub(super) fn evidence(&self, reaped: Option<Reaped>, now: Now) -> Option<Evidence> {
        let Life::Supervising(supervised) = &self.life else { return None };
        let spec = &self.launch.spec;
        let temporary = spec.env.get("TMPDIR").map_or("/tmp", String::as_str);
        let stderr = supervised.pipes.stderr_tail();
        let said = supervised.work.runner().map(|runner| runner.testimony(now.tick)).unwrap_or_default();
        Some(Evidence {
            phase: self.phase(),
            stderr_tail: stderr.text(),
            stdout_tail: supervised.pipes.stdout_tail().text(),
            stderr_bytes: stderr.total(),
            memory: supervised
                .memory
                .end(Some(&supervised.container), reaped.map(|reaped| reaped.rss_bytes_peak)),
            stop: self.stopping.as_ref().map(Stopping::evidence),
            launch: supervised.failure.clone(),
            hang: supervised.pulse.silence(now.tick),
            last_words: said
                .last_words
                .or_else(|| said.of_a_thread.filter(|_| self.is_ended_for_its_silence())),
            stall: said.stall,
            violation: said.violation,
            channel_closed_ms: said.channel_closed_ms,
            cpu_ms: reaped.map(|reaped| reaped.cpu_ms),
            disk: disks([Path::new(&spec.cwd), Path::new(temporary), &self.directory]),
            kernel_log: supervised.kernel_log.lines_about(supervised.process.pid()),
            ..self.bare_evidence(supervised.argv.clone())
        })
    }

    fn phase(&self) -> Phase {
        let Life::Supervising(supervised) = &self.life else { return Phase::Launching };
        if self.stopping.is_some() {
            return Phase::Stopping;
        }
        if !supervised.is_ready {
            return Phase::Launching;
        }
        match &supervised.work {
            Work::Kernel(kernel) if kernel.runs().is_empty() => Phase::Idle,
            Work::Runner(runner) if runner.tasks().is_empty() => Phase::Idle,
            // The work of one that says nothing is its life.
            Work::Kernel(_) | Work::Runner(_) | Work::Command(_) | Work::Mute => Phase::Busy,
        }
    }

    /// Whether it was stopped for something that the end of one of its threads explains.
    fn is_ended_for_its_silence(&self) -> bool {
        self.stopping.as_ref().is_some_and(|stopping| match stopping.why() {
            StopWhy::Stalled | StopWhy::Hung | StopWhy::Violation | StopWhy::IgnoredCancel => true,
            StopWhy::User
            | StopWhy::Restart
            | StopWhy::Finished
            | StopWhy::Rest
            | StopWhy::Eviction
            | StopWhy::Drain
            | StopWhy::NeverReady
            | StopWhy::Timeout
            | StopWhy::Sibling
            | StopWhy::Disowned => false,
        })
    }
}

fn cut(argv: Vec<String>) -> Vec<String> {
    let mut left = ARGV_BYTES_MAX;
    let mut kept = Vec::new();
    for mut word in argv {
        if word.len() > left {
            word.truncate(word.floor_char_boundary(left));
            word.push('…');
            kept.push(word);
            break;
        }
        left -= word.len();
        kept.push(word);
    }
    kept
}
