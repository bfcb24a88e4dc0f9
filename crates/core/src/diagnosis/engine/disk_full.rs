//! No space left on a device.

use super::{Finding, Rank};
use crate::diagnosis::case::{Case, Pattern, Weight, matches};
use crate::diagnosis::cause::{CauseCode, Confidence, EvidenceLine};
use crate::diagnosis::evidence::DiskEvidence;
use crate::diagnosis::lines;

/// ENOSPC, EDQUOT.
const ERRNOS: [i32; 2] = [28, 122];
/// SIGBUS: what touching a mapped file gives when its file system is full.
const SIGBUS: i32 = 7;
/// Below this many bytes a file system counts as full.
const FULL_BYTES: u64 = 1 << 20;

const PATTERNS: &[Pattern] = &[
    &["no space left on device"],
    &["enospc"],
    &["[errno 28]"],
    &["disk quota exceeded"],
    &["database or disk is full"],
    &["not enough free space", "disk"],
    &["dataloader", "killed by signal: bus error"],
];

/// The limit of file watches is told with the same error.
const WATCHES: &[Pattern] = &[&["file watchers"], &["inotify"]];

pub(super) fn examine(case: &Case<'_>) -> Option<Finding> {
    let full: Vec<&DiskEvidence> = case.evidence.disk.iter().filter(|disk| is_full(disk)).collect();
    let facts: Vec<EvidenceLine> = case.evidence.disk.iter().map(fact).collect();
    let where_full = full.first().map(|disk| disk.path.as_str());

    if let Some(launch) =
        case.evidence.launch.as_ref().filter(|l| l.errno.is_some_and(|n| ERRNOS.contains(&n)))
    {
        let path = launch.path.as_deref().or(where_full);
        let finding = Finding::new(Rank::Root, CauseCode::DiskFull, Confidence::Certain, summary(path));
        let said = lines::fact("launch", launch.message.clone());
        return Some(finding.evidence(std::iter::once(said).chain(facts)).remedy(remedy(path, &full)));
    }
    if let Some(hit) = case.find(PATTERNS).filter(|hit| !hit.lines.iter().any(|line| matches(line, WATCHES)))
    {
        let named = hit.lines.iter().rev().find_map(|line| quoted_path(line));
        let path = named.as_deref().or(where_full);
        let mut finding = Finding::of_text(hit.weight, CauseCode::DiskFull, summary(path));
        if hit.weight == Weight::Strong && !full.is_empty() {
            finding.cause.confidence = Confidence::Certain;
        }
        let finding = finding.evidence(lines::evidence(hit.source, hit.lines)).evidence(facts);
        return Some(finding.remedy(remedy(path, &full)));
    }
    let path = where_full?;
    if case.fatal_signal() == Some(SIGBUS) && case.evidence.signal_sender.is_none() {
        let summary = format!("a file on {path} was mapped into memory and its file system is full (SIGBUS)");
        let finding = Finding::new(Rank::Root, CauseCode::DiskFull, Confidence::Likely, summary);
        return Some(finding.evidence(facts).remedy(remedy(Some(path), &full)));
    }
    if case.evidence.stop.is_some() || case.status.is_some_and(crate::runtime::ExitStatus::is_success) {
        return None;
    }
    let summary = format!("the file system of {path} was full when it ended");
    let finding = Finding::new(Rank::Suspicion, CauseCode::DiskFull, Confidence::Possible, summary);
    Some(finding.evidence(facts).remedy(remedy(Some(path), &full)))
}

/// A file system without inodes of its own (btrfs and others) reports none left and bytes free.
fn is_full(disk: &DiskEvidence) -> bool {
    disk.free_bytes < FULL_BYTES
}

fn fact(disk: &DiskEvidence) -> EvidenceLine {
    let text =
        format!("{}: {} free, {} inodes free", disk.path, lines::bytes(disk.free_bytes), disk.free_inodes);
    lines::fact("statvfs", text)
}

fn summary(path: Option<&str>) -> String {
    path.map_or_else(
        || "no space left on a device".to_owned(),
        |path| format!("no space left on the device of {path}"),
    )
}

fn remedy(path: Option<&str>, full: &[&DiskEvidence]) -> String {
    let path = path.unwrap_or(".");
    let look =
        format!("`df -h {path}` and `df -i {path}` show what is used up; free some, or write elsewhere.");
    if path.starts_with("/dev/shm") || full.iter().any(|disk| disk.path.starts_with("/dev/shm")) {
        return format!(
            "{look} /dev/shm is memory: in a container raise `--shm-size`, or use fewer loader workers."
        );
    }
    format!("{look} For temporary files set TMPDIR.")
}

/// The path that Python appends to an OSError: `…: '/path'`.
fn quoted_path(line: &str) -> Option<String> {
    let (_, rest) = line.rsplit_once(": '")?;
    let path = rest.strip_suffix('\'')?;
    path.starts_with('/').then(|| path.to_owned())
}
