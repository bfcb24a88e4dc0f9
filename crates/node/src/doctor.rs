//! What a node needs, and whether it has it.

use std::path::Path;

use outlive_core::limits::DISK_RESERVE_BYTES;
use outlive_process::descriptors;
use outlive_protocol::http::{DoctorCheck, DoctorLevel, DoctorView};
use outlive_store::Dropped;

use crate::budget::room;
use crate::causes::Causes;
use crate::context::Context;
use crate::session::with_sources;

/// How many damaged logs are named, the latest sessions first.
const DAMAGES_NAMED_MAX: usize = 20;

/// Looks at everything that the daemon depends on.
pub async fn look(context: &Context, state: &Path) -> DoctorView {
    let mut checks = Vec::from_iter(context.cluster.iter().map(|cluster| cluster.diagnose()));
    checks.extend([
        disk(state),
        descriptors(),
        cgroup(),
        store(context).await,
        tables(context).await,
        sessions(context),
        shims(context),
        files(context),
        causes(context),
    ]);
    DoctorView { checks }
}

fn check(name: &str, level: DoctorLevel, found: String, hint: Option<&str>) -> DoctorCheck {
    DoctorCheck { name: name.to_owned(), level, found, hint: hint.map(str::to_owned) }
}

fn disk(state: &Path) -> DoctorCheck {
    match rustix::fs::statvfs(state) {
        Ok(stat) => {
            let free = stat.f_bavail * stat.f_frsize;
            let level = if free < DISK_RESERVE_BYTES { DoctorLevel::Error } else { DoctorLevel::Ok };
            let found = format!("{} MiB free at {}", free >> 20, state.display());
            let hint =
                (level != DoctorLevel::Ok).then_some("free some space: output waits until there is room");
            check("disk", level, found, hint)
        }
        Err(errno) => check("disk", DoctorLevel::Error, format!("{}: {errno}", state.display()), None),
    }
}

fn descriptors() -> DoctorCheck {
    let limit = descriptors::limit();
    let used = descriptors::used();
    let near = match (&used, limit) {
        (Ok(used), Some(limit)) => used * 10 > limit * 8,
        (Err(_), _) => true,
        (Ok(_), None) => false,
    };
    let limit = limit.map_or_else(|| "no limit".to_owned(), |limit| limit.to_string());
    let used = used.map_or_else(|error| format!("not to be counted ({error})"), |used| used.to_string());
    let found = format!("{used} of {limit} in use");
    match (room(), near) {
        (Err(problem), _) => {
            let found = format!("{found}: new sessions are refused; {}", problem.detail);
            check("descriptors", DoctorLevel::Error, found, problem.hint.as_deref())
        }
        (Ok(()), true) => {
            let hint = "raise the limit of open files (ulimit -n) and start the daemon again";
            check("descriptors", DoctorLevel::Warning, found, Some(hint))
        }
        (Ok(()), false) => check("descriptors", DoctorLevel::Ok, found, None),
    }
}

fn causes(context: &Context) -> DoctorCheck {
    match context.causes.get() {
        None | Some(Causes::None) => {
            check("causes", DoctorLevel::Ok, "the built-in causes of failures".to_owned(), None)
        }
        Some(Causes::Installed { path, number }) => {
            let found = format!("the built-in causes of failures, and {number} in {}", path.display());
            check("causes", DoctorLevel::Ok, found, None)
        }
        Some(Causes::Unusable { path, why }) => {
            let found = format!("{} is not used: {why}", path.display());
            let hint = "correct it and start the daemon again; until then the built-in causes are used alone";
            check("causes", DoctorLevel::Error, found, Some(hint))
        }
    }
}

fn cgroup() -> DoctorCheck {
    let process = outlive_core::id::ProcessKey {
        runtime: outlive_core::id::RuntimeId::from_uuid(uuid::Uuid::now_v7()),
        incarnation: outlive_core::id::Incarnation(0),
    };
    let (container, _limit) = outlive_process::Container::make(process, None);
    let (unified, memory) = (container.unified().is_some(), container.memory_v1().is_some());
    let _removed = container.remove();
    match (unified, memory) {
        (true, _) => {
            check("cgroup", DoctorLevel::Ok, "each process gets a cgroup of its own".to_owned(), None)
        }
        (false, true) => {
            check("cgroup", DoctorLevel::Ok, "each process gets a memory cgroup (v1)".to_owned(), None)
        }
        (false, false) => check(
            "cgroup",
            DoctorLevel::Warning,
            "no cgroup can be made: processes are held by group and marker, memory limits by RLIMIT_AS"
                .to_owned(),
            Some("run the daemon as a service with Delegate=yes"),
        ),
    }
}

async fn store(context: &Context) -> DoctorCheck {
    let handles = context.handles();
    let stalled: Vec<_> =
        handles.iter().filter_map(|handle| Some((handle.id, handle.stall.why()?))).collect();
    if let Some((id, why)) = stalled.first() {
        let found = match stalled.len() {
            1 => format!("session {id} cannot be written: {why}"),
            count => format!("{count} sessions cannot be written, {id} for instance: {why}"),
        };
        let hint = "they and what they run wait until the store takes it, and nothing is lost; where room is missing, \
                    forget sessions that are not needed (`outlive ps -a`, `outlive forget`)";
        return check("store", DoctorLevel::Error, found, Some(hint));
    }
    let dropped = match context.engine.all_dropped().await {
        Ok(dropped) => dropped,
        Err(error) => return check("store", DoctorLevel::Error, with_sources(&error), None),
    };
    if dropped.is_empty() {
        return check("store", DoctorLevel::Ok, "logs can be read".to_owned(), None);
    }
    let named = dropped.iter().rev().take(DAMAGES_NAMED_MAX).map(|(id, dropped)| {
        let Dropped { last_good, bytes, records, what, aside } = dropped;
        let kept = if aside.is_empty() { String::new() } else { format!(", kept in {}", aside.join(", ")) };
        format!(
            "session {id}: {bytes} bytes with {records} whole records behind record {last_good} were dropped ({what}){kept}"
        )
    });
    let mut found: Vec<_> = named.collect();
    if dropped.len() > DAMAGES_NAMED_MAX {
        found.push(format!("and {} more", dropped.len() - DAMAGES_NAMED_MAX));
    }
    let hint = "the disk or the power failed: the sessions go on from their last good record; what was whole \
                behind it stands in the named files in the session's folder";
    check("store", DoctorLevel::Warning, found.join("; "), Some(hint))
}

async fn tables(context: &Context) -> DoctorCheck {
    let tables = context.engine.tables().await;
    if let Some(why) = tables.refused {
        let found = format!("no row can be written: {why}");
        let hint = "free disk space or repair the disk; it goes on by itself then. Open sessions go on, new ones and those \
                    that are woken wait";
        return check("tables", DoctorLevel::Error, found, Some(hint));
    }
    let mut found = Vec::new();
    if !tables.put_aside.is_empty() {
        let files =
            tables.put_aside.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        found.push(format!("the table file was damaged and begun anew; what it was is kept in {files}"));
    }
    if context.unlisted() > 0 {
        found.push(format!(
            "{} sessions were missing in it and are listed again by their logs",
            context.unlisted()
        ));
    }
    if found.is_empty() {
        return check("tables", DoctorLevel::Ok, "rows can be read and written".to_owned(), None);
    }
    let hint = "the disk or the power failed; no session is lost by that. What was trusted is asked again; the files that \
                were put aside can be removed";
    check("tables", DoctorLevel::Warning, found.join("; "), Some(hint))
}

fn sessions(context: &Context) -> DoctorCheck {
    let broken = context.broken_sessions();
    let damaged = context.damaged();
    if broken.is_empty() && damaged.is_empty() {
        return check("sessions", DoctorLevel::Ok, format!("{} open", context.handles().len()), None);
    }
    if broken.is_empty() {
        let found = damaged.iter().map(|(id, why)| format!("{id}: {why}")).collect::<Vec<_>>().join("; ");
        let hint = "the disk failed: look whether the notebook is what it should be; what was damaged is kept in the \
                    session's folder";
        return check("sessions", DoctorLevel::Warning, found, Some(hint));
    }
    let found =
        broken.iter().chain(&damaged).map(|(id, why)| format!("{id}: {why}")).collect::<Vec<_>>().join("; ");
    check(
        "sessions",
        DoctorLevel::Error,
        found,
        Some(
            "repair what is wrong and start the daemon again; or give them up: `outlive stop --force`, `outlive forget`",
        ),
    )
}

fn shims(context: &Context) -> DoctorCheck {
    let refused = context.refused();
    if refused.is_empty() {
        return check("shims", DoctorLevel::Ok, "none was refused".to_owned(), None);
    }
    let hint =
        "they stop their processes by themselves; a state directory restored from an older day looks so";
    check("shims", DoctorLevel::Warning, format!("refused: {}", refused.join("; ")), Some(hint))
}

fn files(context: &Context) -> DoctorCheck {
    let state = context.files.watching();
    let found = format!("{} watched, {} of them by looking at them every 2 s", state.watches, state.polled);
    match state.why {
        None => check("files", DoctorLevel::Ok, found, None),
        Some(why) => check(
            "files",
            DoctorLevel::Warning,
            format!("{found}: {why}"),
            Some(
                "changes by others are noticed late; raise the limit (sysctl), it is tried again every 30 s",
            ),
        ),
    }
}
