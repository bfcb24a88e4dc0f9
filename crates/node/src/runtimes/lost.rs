//! The report of an end that no shim is left to report.

use outlive_core::diagnosis::Evidence;
use outlive_core::diagnosis::evidence::{LaunchEvidence, MachineRestart, ShimLostEvidence};
use outlive_core::id::ProcessKey;
use outlive_core::runtime::{ExitReport, ExitStatus};
use outlive_core::time::WallTime;
use outlive_process::identity::age;
use outlive_process::{machine_boot_id, sweep};
use outlive_protocol::shim::ShimIdentity;

use super::Inner;

/// Nothing was started: a step of the launch failed.
pub(super) fn never_started(
    inner: &Inner,
    process: ProcessKey,
    started_at: WallTime,
    launch: LaunchEvidence,
) -> ExitReport {
    let evidence = Evidence { launch: Some(launch), ..Evidence::default() };
    ended_before(inner, process, started_at, evidence)
}

/// Nothing was started, for any reason.
pub(super) fn ended_before(
    inner: &Inner,
    process: ProcessKey,
    started_at: WallTime,
    evidence: Evidence,
) -> ExitReport {
    ExitReport {
        process,
        pid: None,
        started_at,
        exited_at: inner.clock.now().wall,
        status: ExitStatus::Unknown,
        evidence,
    }
}

/// The shim is gone: everything that it held is killed, and the report says so.
pub(super) async fn shim_lost(
    inner: &Inner,
    identity: &ShimIdentity,
    of_earlier_boot: bool,
    shim_status: Option<ExitStatus>,
    refused: Option<String>,
) -> ExitReport {
    let lived = identity.pid_start.map(age).unwrap_or_default();
    let killed = if of_earlier_boot { 0 } else { sweep(identity.process, &identity.cgroups).await };
    let now = inner.clock.now().wall;
    let evidence = Evidence {
        shim_lost: Some(ShimLostEvidence {
            shim_pid: Some(identity.shim_pid),
            shim_status,
            killed: u32::try_from(killed).unwrap_or(u32::MAX),
            refused,
        }),
        machine_restart: of_earlier_boot.then(|| MachineRestart {
            boot_before: identity.machine_boot.clone(),
            boot_now: machine_boot_id().unwrap_or_default(),
        }),
        ..Evidence::default()
    };
    let lived_us = u64::try_from(lived.as_micros()).unwrap_or(0);
    ExitReport {
        process: identity.process,
        pid: identity.pid,
        started_at: WallTime(now.0.saturating_sub(lived_us)),
        exited_at: now,
        status: ExitStatus::Unknown,
        evidence,
    }
}
