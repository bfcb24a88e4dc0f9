//! A step of the launch failed, and the system said why; no other engine needs to know more.

use super::{Finding, Rank};
use crate::diagnosis::case::Case;
use crate::diagnosis::cause::{CauseCode, Confidence};
use crate::diagnosis::evidence::{LaunchEvidence, LaunchStep};
use crate::diagnosis::{errno, lines};
use crate::runtime::ExitStatus;

pub(super) fn examine(case: &Case<'_>) -> Option<Finding> {
    let launch = case.evidence.launch.as_ref()?;
    let ended_itself = matches!(case.status, Some(ExitStatus::Code { .. } | ExitStatus::Signal { .. }));
    if case.evidence.stop.is_some() || ended_itself || has_name(launch) {
        return None;
    }
    let doing = match launch.step {
        LaunchStep::Environment => "making its environment",
        LaunchStep::Shim => "starting its shim",
        LaunchStep::Prepare => "preparing its directory and files",
        LaunchStep::Contain => "setting its limits",
        LaunchStep::Exec => "executing its program",
        LaunchStep::Kernelspec | LaunchStep::Connect | LaunchStep::Ready => return None,
    };
    let summary = format!("could not be started: {doing} failed: {}", launch.message);
    let mut facts = Vec::new();
    if let Some(errno) = launch.errno {
        facts.push(lines::fact("system call", errno::of_system_call(errno)));
    }
    if let Some(path) = &launch.path {
        facts.push(lines::fact("path", path.clone()));
    }
    let finding = Finding::new(Rank::End, CauseCode::LaunchFailed, Confidence::Certain, summary);
    Some(finding.evidence(facts).remedy(remedy(launch.step, launch.errno)))
}

/// Whether another engine has a better name for it: no program, no memory, no space, no address.
fn has_name(launch: &LaunchEvidence) -> bool {
    match launch.errno {
        Some(12 | 28 | 48 | 98 | 122) => true,
        Some(2 | 8 | 13 | 20) => launch.step == LaunchStep::Exec,
        Some(_) | None => false,
    }
}

fn remedy(step: LaunchStep, errno: Option<i32>) -> &'static str {
    match (errno, step) {
        (Some(24 | 23), _) => {
            "Too many files are open: raise `ulimit -n` (or fs.file-max), or close sessions."
        }
        (Some(11), _) => "No more processes are allowed: raise `ulimit -u` or the pids limit of the cgroup.",
        (Some(1 | 13), _) => "Outlive may not use this path: check its owner and mode.",
        (Some(2 | 20), _) => "A directory of the path does not exist: check the working directory.",
        (Some(30), _) => "The file system is mounted read-only: choose another directory.",
        (_, LaunchStep::Environment) => "The text says what to do; then start the kernel again.",
        (_, LaunchStep::Contain) => {
            "Check the memory limit that was asked for, and `outlive doctor` for cgroups."
        }
        _ => "`outlive doctor` checks what a launch needs; the daemon's log has the details.",
    }
}
