//! The counters as text (<https://prometheus.io/docs/instrumenting/exposition_formats/>, version 0.0.4).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use outlive_core::limits::METRICS_STORE_MS;
use outlive_core::time::Tick;
use outlive_process::descriptors;
use outlive_protocol::http::{RuntimeState, SessionView};

use super::{Skipped, zombies};
use crate::context::{Context, Presence};

/// What all sessions take up on the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    at: Tick,
    log_bytes: u64,
    blob_bytes: u64,
}

/// All that is counted and all that is there now.
pub async fn render(context: &Context) -> String {
    let mut text = Text(String::new());
    counted(context, &mut text);
    let views: Vec<_> = context.handles().iter().map(|handle| handle.view.borrow().clone()).collect();
    there(context, &mut text, &views).await;
    descriptors_and_files(context, &mut text);
    let tables = context.engine.tables().await;
    text.gauge(
        "outlive_tables_refused",
        "1 while no row can be written, because the disk is full for instance.",
    )
    .value("", u64::from(tables.refused.is_some()));
    text.counter("outlive_table_writes_failed_total", "Rows that could not be written.")
        .value("", tables.failed);
    if let Some(cluster) = &context.cluster {
        context.metrics.cluster.render(cluster, &mut text);
    }
    text.gauge(
        "outlive_zombie_sessions",
        "Sessions past their deadline without clients or work; 0 but for moments.",
    )
    .value("", zombies::sessions(context) as u64);
    text.gauge(
        "outlive_zombie_processes",
        "Ended children that nobody waited for, and processes without a session; 0 but for moments.",
    )
    .value("", zombies::processes(context) as u64);
    // A simulation has no runtime.
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        text.gauge("outlive_async_tasks", "Tasks within the daemon that have not ended.")
            .value("", runtime.metrics().num_alive_tasks() as u64);
    }
    if let Some(stored) = stored(context).await {
        text.gauge("outlive_log_bytes", "Bytes of all sessions' logs.").value("", stored.log_bytes);
        text.gauge("outlive_blob_bytes", "Bytes of all sessions' blobs.").value("", stored.blob_bytes);
    }
    text.0
}

fn counted(context: &Context, text: &mut Text) {
    let metrics = &context.metrics;
    let mut total = |name: &str, help: &str, value: u64| {
        text.counter(name, help).value("", value);
    };
    total("outlive_sessions_opened_total", "Sessions made, or opened by path.", metrics.opened.get());
    total("outlive_sessions_woken_total", "Dormant sessions that came back.", metrics.woken.get());
    total("outlive_sessions_ended_total", "Sessions that ended.", metrics.ended.get());
    total(
        "outlive_evictions_scheduled_total",
        "Deadlines given; the sum of done, skipped, cancelled and due.",
        metrics.evictions.scheduled.get(),
    );
    total("outlive_evictions_done_total", "Sessions that left memory.", metrics.evictions.done.get());
    total(
        "outlive_evictions_cancelled_total",
        "Deadlines that went because somebody came.",
        metrics.evictions.cancelled.get(),
    );
    total(
        "outlive_kernels_rested_total",
        "Idle kernels stopped because a budget was exceeded.",
        metrics.rested.get(),
    );
    let mut skipped =
        text.counter("outlive_evictions_skipped_total", "Deadlines that were moved, by the reason.");
    for why in Skipped::ALL {
        let labels = format!("reason=\"{}\"", why.name());
        skipped = skipped.value(&labels, metrics.evictions.skipped[why as usize].get());
    }
    let tasks = metrics.tasks.lock().expect("nothing panics while it holds the tasks").clone();
    let mut family = text.counter("outlive_tasks_total", "Tasks of runners that ended, by their outcome.");
    for (outcome, number) in tasks {
        family = family.value(&format!("outcome=\"{outcome}\""), number);
    }
    text.counter(
        "outlive_runner_restarts_total",
        "Processes of runners that were started anew after an end.",
    )
    .value("", metrics.restarts.get());
    let failures = metrics.failures.lock().expect("nothing panics while it holds the failures").clone();
    let mut family = text.counter("outlive_failures_total", "Processes that failed, by the cause.");
    for (code, number) in failures {
        family = family.value(&format!("cause=\"{code}\""), number);
    }
}

async fn there(context: &Context, text: &mut Text, views: &[std::sync::Arc<SessionView>]) {
    let rows = context.all_indexed().await.unwrap_or_default();
    let dormant = rows.iter().filter(|row| row.presence == Presence::Dormant).count();
    let broken = context.broken_sessions().len();
    text.gauge("outlive_sessions", "Sessions that have not ended, by where they are.")
        .value("state=\"open\"", views.len() as u64)
        .value("state=\"dormant\"", dormant as u64)
        .value("state=\"broken\"", broken as u64);
    let due = context
        .handles()
        .iter()
        .filter(|handle| handle.resident.borrow().residence.deadline().is_some())
        .count();
    text.gauge("outlive_evictions_due", "Sessions with a deadline.").value("", due as u64);
    let peers = views.iter().map(|view| u64::from(view.peers)).sum();
    text.gauge("outlive_peers", "Clients attached to sessions.").value("", peers);
    let mut runtimes: BTreeMap<&'static str, u64> = BTreeMap::new();
    let (mut queued, mut running) = (0, 0);
    for view in views {
        match &view.group {
            Some(group) => {
                queued += u64::from(view.runs.queued);
                running += u64::from(view.runs.running);
                for member in &group.members {
                    *runtimes.entry(runtime(&member.runtime.state)).or_default() += 1;
                }
            }
            None => *runtimes.entry(runtime(&view.runtime.state)).or_default() += 1,
        }
    }
    text.gauge("outlive_tasks", "Tasks of runners that have not ended, by where they are.")
        .value("state=\"queued\"", queued)
        .value("state=\"running\"", running);
    let mut family = text.gauge("outlive_runtimes", "Runtimes of open sessions, by their state.");
    for (state, number) in runtimes {
        family = family.value(&format!("state=\"{state}\""), number);
    }
}

fn descriptors_and_files(context: &Context, text: &mut Text) {
    if let Ok(used) = descriptors::used() {
        text.gauge("outlive_fds_used", "Open files of the daemon.").value("", used);
    }
    if let Some(limit) = descriptors::limit() {
        text.gauge("outlive_fds_limit", "Files that the daemon may have open.").value("", limit);
    }
    let watching = context.files.watching();
    text.gauge("outlive_file_watches", "Files watched for changes by other programs.")
        .value("", watching.watches as u64);
    text.gauge(
        "outlive_file_watches_polled",
        "Those of them that are looked at now and then, for want of inotify.",
    )
    .value("", watching.polled as u64);
    text.gauge("outlive_claims_held", "Paths of notebooks claimed for open sessions.")
        .value("", context.files.claims() as u64);
}

/// Measured now and then: it looks at every session's folder.
async fn stored(context: &Context) -> Option<Stored> {
    let last = || context.metrics.stored.lock().expect("nothing panics while it holds this");
    let now = context.clock.now().tick;
    let measured = *last();
    if let Some(stored) = measured
        && now.since(stored.at) < Duration::from_millis(METRICS_STORE_MS)
    {
        return Some(stored);
    }
    let mut stored = Stored { at: now, log_bytes: 0, blob_bytes: 0 };
    for id in context.engine.sessions().await.ok()? {
        let usage = context.engine.usage(id).await.unwrap_or_default();
        stored.log_bytes += usage.log_bytes;
        stored.blob_bytes += usage.blob_bytes;
    }
    *last() = Some(stored);
    Some(stored)
}

const fn runtime(state: &RuntimeState) -> &'static str {
    match state {
        RuntimeState::Down => "down",
        RuntimeState::Launching => "launching",
        RuntimeState::Idle => "idle",
        RuntimeState::Busy => "busy",
        RuntimeState::Unresponsive { .. } => "unresponsive",
        RuntimeState::Stopping { .. } => "stopping",
        RuntimeState::Exited { .. } => "exited",
        RuntimeState::Backoff { .. } => "backoff",
        RuntimeState::GaveUp { .. } => "gave_up",
        RuntimeState::Unknown => "unknown",
    }
}

/// The text as it grows.
pub(super) struct Text(pub(super) String);

/// A metric whose values follow.
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: String,
}

impl Text {
    pub(super) fn counter(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(name, "counter", help)
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(name, "gauge", help)
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) -> Family<'_> {
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a string takes all");
        Family { text: &mut self.0, name: name.to_owned() }
    }
}

impl Family<'_> {
    /// One value; `labels` as `name="value"`, or nothing.
    pub(super) fn value(self, labels: &str, value: u64) -> Self {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        writeln!(self.text, "{}{labels} {value}", self.name).expect("a string takes all");
        self
    }
}
