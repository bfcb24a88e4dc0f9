//! A process that is kept from running: nothing of it moves until somebody thaws it, and nothing is held against it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::{Daemon, Setup, Shim, new_run, seen};
use outlive_core::id::Src;
use outlive_core::limits::SHIM_GUARD_MS_MIN;
use outlive_core::runtime::{ExitStatus, StopStep};
use outlive_core::session::RunOutcome;
use outlive_protocol::shim::{StateNotice, ToShim};
use serde_json::json;

/// A command that writes into two files: itself, and a child in a session and group of its own.
const TICKS: &str = "setsid sh -c 'while :; do echo t >> child; sleep 0.01; done' & \
                     trap 'echo bye > bye; exit 3' TERM; while :; do echo t >> own; sleep 0.01; done";

/// Time passes, as another process that is not frozen sees it.
fn passes(seconds: &str) {
    assert!(Command::new("sleep").arg(seconds).status().unwrap().success());
}

fn size(file: &Path) -> u64 {
    file.metadata().map_or(0, |about| about.len())
}

struct Ticking {
    shim: Shim,
    daemon: Daemon,
    files: [PathBuf; 2],
}

impl Ticking {
    async fn start(guard_ms: Option<u64>) -> Self {
        let mut setup = Setup::command(&["sh", "-c", TICKS]);
        setup.launch.guard_ms = guard_ms;
        let shim = setup.start();
        let mut daemon = shim.connect(Src(0)).await;
        daemon.execute(new_run(), "").await;
        let files = ["own", "child"].map(|name| shim.scratch().join(name));
        daemon.ready().await;
        let ticking = Self { shim, daemon, files };
        ticking.moves().await;
        ticking
    }

    /// Both write on.
    async fn moves(&self) {
        for file in &self.files {
            let before = size(file);
            seen("a tick", || size(file) > before).await;
        }
    }

    /// Neither does, for so long.
    fn stands_still(&self, seconds: &str) {
        // What was on its way into the file when it was frozen.
        passes("0.1");
        let before = self.files.clone().map(|file| size(&file));
        passes(seconds);
        assert_eq!(self.files.clone().map(|file| size(&file)), before);
    }

    async fn is_frozen(&mut self) -> bool {
        let by = |state: &StateNotice| match state {
            StateNotice::Frozen { by_guard } => Some(*by_guard),
            _ => None,
        };
        self.daemon.until(by).await
    }

    async fn freezes(&mut self) {
        self.daemon.say(&ToShim::Freeze).await;
        assert!(!self.is_frozen().await, "its daemon said so");
    }
}

#[tokio::test]
async fn nothing_of_a_frozen_process_moves_until_it_is_thawed() {
    // E4
    let mut ticking = Ticking::start(None).await;
    ticking.freezes().await;
    ticking.daemon.say(&ToShim::Freeze).await;
    ticking.stands_still("0.4");
    ticking.daemon.say(&ToShim::Thaw).await;
    ticking.moves().await;
    ticking.daemon.say(&ToShim::Thaw).await;
    ticking.daemon.stop(StopStep::Ask).await;
    assert_eq!(ticking.daemon.exited().await.status, ExitStatus::Code { code: 3 });
    let told = ticking
        .daemon
        .states()
        .into_iter()
        .filter(|state| matches!(state, StateNotice::Frozen { .. } | StateNotice::Thawed));
    assert_eq!(told.count(), 2, "each is told once");
}

#[tokio::test]
async fn a_frozen_process_that_is_asked_to_end_goes_on_and_ends_in_its_own_way() {
    // A9
    let mut ticking = Ticking::start(None).await;
    ticking.freezes().await;
    ticking.daemon.stop(StopStep::Ask).await;
    assert_eq!(ticking.daemon.exited().await.status, ExitStatus::Code { code: 3 });
    assert!(ticking.shim.scratch().join("bye").exists(), "its own end was run");
    ticking.daemon.drained().await;
    ticking.daemon.say(&ToShim::Goodbye).await;
    ticking.shim.ended().await;
}

#[tokio::test]
async fn a_frozen_process_that_is_killed_or_nobodys_does_not_run_again() {
    // E3, E4: whoever has lost the session must not let it run for a moment.
    for order in [
        ToShim::Stop { why: outlive_core::runtime::StopWhy::Disowned, from: StopStep::Kill },
        ToShim::Refuse { reason: "another node owns its session now".to_owned() },
    ] {
        let mut ticking = Ticking::start(None).await;
        ticking.freezes().await;
        ticking.stands_still("0.05");
        let before = ticking.files.clone().map(|file| size(&file));
        ticking.daemon.say(&order).await;
        let status = ticking.daemon.exited().await.status;
        assert_eq!(status, ExitStatus::Signal { number: 9, core_dumped: false }, "{order:?}");
        if let ToShim::Stop { .. } = order {
            ticking.daemon.drained().await;
            ticking.daemon.say(&ToShim::Goodbye).await;
        }
        assert_eq!(ticking.files.clone().map(|file| size(&file)), before, "{order:?}");
        ticking.shim.ended().await;
    }
}

#[tokio::test]
async fn what_is_frozen_is_neither_hung_nor_stalled_and_has_its_whole_time_again() {
    // A2
    let shim = Setup::runner("ready").watch(|watch| watch.first_chunk_ms = Some(2_000)).start();
    let mut daemon = shim.connect(Src(0)).await;
    daemon.ready().await;
    daemon.say(&ToShim::Freeze).await;
    let run = daemon.task("echo", json!(1)).await;
    daemon.until(|state| matches!(state, StateNotice::Frozen { .. }).then_some(())).await;
    // Longer than any heartbeat and its watchdog would wait.
    passes("4");
    daemon.say(&ToShim::Thaw).await;
    assert_eq!(daemon.finished(run).await, RunOutcome::Succeeded);
    let accused = daemon
        .states()
        .into_iter()
        .any(|state| matches!(state, StateNotice::Unresponsive { .. } | StateNotice::Stalled { .. }));
    assert!(!accused, "{:?}", daemon.states());
}

#[tokio::test]
async fn a_shim_whose_daemon_says_nothing_freezes_its_process_and_only_a_thaw_ends_that() {
    // E3: a daemon that is frozen has lost its sessions to others and cannot know it.
    let mut ticking = Ticking::start(Some(SHIM_GUARD_MS_MIN)).await;
    ticking.daemon.acknowledges = false;
    assert!(ticking.is_frozen().await, "by itself");
    ticking.stands_still("0.05");
    ticking.daemon.say(&ToShim::Beat).await;
    let last = ticking.daemon.last;
    ticking.daemon = ticking.shim.connect(last).await;
    assert!(ticking.daemon.welcome.as_ref().unwrap().frozen, "the next one is told");
    ticking.stands_still("0.2");
    ticking.daemon.say(&ToShim::Thaw).await;
    ticking.moves().await;
}

#[tokio::test]
async fn a_daemon_that_says_that_it_is_there_keeps_the_guard_quiet_also_one_without_anything_else_to_say() {
    let mut ticking = Ticking::start(Some(SHIM_GUARD_MS_MIN)).await;
    let mut beats = tokio::time::interval(Duration::from_millis(SHIM_GUARD_MS_MIN / 5));
    for _ in 0..12 {
        beats.tick().await;
        ticking.daemon.say(&ToShim::Beat).await;
    }
    ticking.moves().await;
    ticking.daemon.stop(StopStep::Ask).await;
    ticking.daemon.exited().await;
    let frozen = ticking.daemon.states().into_iter().any(|state| matches!(state, StateNotice::Frozen { .. }));
    assert!(!frozen, "{:?}", ticking.daemon.states());
}

#[tokio::test]
async fn the_process_of_a_node_that_is_alone_runs_on_without_a_daemon() {
    // D1, P10
    let mut ticking = Ticking::start(None).await;
    let last = ticking.daemon.last;
    let Ticking { shim, daemon, files } = ticking;
    drop(daemon);
    passes("1.5");
    ticking = Ticking { daemon: shim.connect(last).await, shim, files };
    assert!(!ticking.daemon.welcome.as_ref().unwrap().frozen);
    ticking.moves().await;
}
