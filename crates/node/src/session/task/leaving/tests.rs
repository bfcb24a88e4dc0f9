//! Eviction over a real store and real files, with a clock that stands still: each case of row C7, and what an operator
//! counts.

mod budgets;
mod many;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use outlive_core::id::{BootId, NodeId, SessionId};
use outlive_core::limits::{IDLE_TIMEOUT_S, METRICS_STORE_MS, ZOMBIE_GRACE_MS};
use outlive_core::runtime::{StopStep, StopWhy};
use outlive_protocol::http::{FileConflict, SaveHow, SavedState, SubmitRuns};
use outlive_protocol::shim::{Notice, StateNotice};
use outlive_store::faulty::{Fault, Operation};
use outlive_store::{Embedded, Faulty};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::budget::Budgets;
use crate::bus::LocalBus;
use crate::context::{Context, Found, Presence, Seams};
use crate::files::LocalFiles;
use crate::metrics::render;
use crate::seams::Identity;
use crate::session::handle::{Answer, Ask, DocumentAsk, Peer, Visiting};
use crate::session::open;
use crate::session::peers::DocumentPeer;
use crate::session::task::file::tests::world::{Daemon, IdleKernels, StillClock, World};

const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than a session without anything stays.
const IDLE_MS: u64 = IDLE_TIMEOUT_S * 1_000 + 1;

const NOTEBOOK: &str = r#"{
 "cells": [
  {"cell_type": "code", "execution_count": null, "id": "a", "metadata": {}, "outputs": [], "source": ["1"]}
 ],
 "metadata": {},
 "nbformat": 4,
 "nbformat_minor": 5
}
"#;

/// A daemon with its store in `place`, whose tables refuse writes while `full`.
fn daemon_in(place: &std::path::Path, budgets: Budgets, full: &Arc<AtomicBool>) -> Daemon {
    let engine = Embedded::open(&place.join("store")).unwrap();
    let full = Arc::clone(full);
    let engine = Faulty::new(engine, move |operation| match operation {
        Operation::TableWrite if full.load(Ordering::SeqCst) => Fault::Unavailable,
        _ => Fault::None,
    });
    let (clock, kernels) = (Arc::new(StillClock::default()), Arc::new(IdleKernels::default()));
    let seams = Seams {
        clock: clock.clone(),
        engine: Arc::new(engine),
        bus: Arc::new(LocalBus::default()),
        runtimes: kernels.clone(),
        files: Arc::new(LocalFiles::new(place.join("claims"))),
        cluster: None,
    };
    let who =
        Identity { node: NodeId::from_uuid(Uuid::from_u128(1)), boot: BootId::from_uuid(Uuid::now_v7()) };
    Daemon { context: Arc::new(Context::new(who, seams, budgets)), clock, kernels }
}

impl Daemon {
    /// Waits until the session has a deadline.
    async fn until_due(&self, id: SessionId) {
        let mut resident = self.context.handle(id).unwrap().expect("it is open").resident;
        let due = resident.wait_for(|resident| resident.residence.deadline().is_some());
        tokio::time::timeout(PATIENCE, due).await.expect("it is due").expect("its task goes on");
    }

    /// Waits until the session is out of memory, and says so in its row.
    async fn until_evicted(&self, id: SessionId) {
        let gone = async {
            loop {
                match self.context.enter(id, Visiting::ToLook).unwrap() {
                    Found::Open(entered) => {
                        let mut view = entered.handle.view.clone();
                        drop(entered);
                        while view.changed().await.is_ok() {}
                    }
                    Found::Moving(over) => over.cancelled().await,
                    Found::Absent => return,
                }
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("its task ends");
        assert!(!self.context.is_here(id), "nothing of it is in memory");
        let row = self.context.indexed(id).await.unwrap().expect("it has a row");
        assert_eq!(row.presence, Presence::Dormant);
        assert!(!row.view.loaded);
    }

    /// Lets it be idle for long enough.
    async fn evict(&self, id: SessionId) {
        self.until_due(id).await;
        self.clock.advance(IDLE_MS);
        self.until_evicted(id).await;
    }

    async fn submit(&self, id: SessionId, code: &str) {
        let code = code.to_owned();
        self.do_ask(id, Ask::Submit(SubmitRuns::Code { code })).await;
    }

    async fn joined(&self, id: SessionId) -> DocumentPeer {
        let entered = open::wake(&self.context, id).await.unwrap();
        match entered.handle.ask(Ask::Document(DocumentAsk::Join)).await.unwrap() {
            Answer::Joined(peer) => peer,
            other => panic!("{other:?}"),
        }
    }

    /// A counter or gauge by its name and labels.
    async fn counted(&self, name: &str) -> u64 {
        let text = render(&self.context).await;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().unwrap()
    }

    /// What was scheduled has become something, or is due.
    async fn evictions_add_up(&self) {
        let text = render(&self.context).await;
        let sum = |prefix: &str| -> u64 {
            let lines = text.lines().filter(|line| line.starts_with(prefix));
            lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
        };
        let became = ["done_total", "cancelled_total", "skipped_total", "due"]
            .map(|what| sum(&format!("outlive_evictions_{what}")));
        assert_eq!(sum("outlive_evictions_scheduled_total"), became.iter().sum::<u64>(), "{text}");
    }
}

// C7, P8
#[tokio::test]
async fn an_untitled_notebook_leaves_memory_and_comes_back_by_its_id_with_every_edit() {
    let world = World::new();
    let daemon = world.daemon();
    let id = daemon.new_notebook("unsaved = 1").await;
    daemon.until_due(id).await;
    daemon.clock.advance(IDLE_MS - 1_000);
    tokio::task::yield_now().await;
    assert!(daemon.context.is_here(id), "not before its time");
    daemon.clock.advance(1_000);
    daemon.until_evicted(id).await;
    assert_eq!(daemon.sources(id).await, ["unsaved = 1"]);
    let view = daemon.view(id);
    assert!(view.untitled && view.loaded && view.saved == Some(SavedState::Untitled));
    assert_eq!(
        (
            daemon.counted("outlive_evictions_done_total").await,
            daemon.counted("outlive_sessions_woken_total").await
        ),
        (1, 1)
    );
    daemon.evictions_add_up().await;
    // A second time, with what was written between.
    let cell = daemon.notebook(id).await.cells.remove(0).id;
    daemon.set_source(id, &cell, "unsaved = 2").await;
    daemon.evict(id).await;
    assert_eq!(daemon.sources(id).await, ["unsaved = 2"]);
    assert!(world.names().is_empty(), "no file was made for it");
}

// C7
#[tokio::test]
async fn edits_go_into_the_file_before_their_session_leaves_and_its_claim_and_watch_go_with_it() {
    let world = World::new();
    let path = world.path("a.ipynb");
    fs::write(&path, NOTEBOOK).unwrap();
    let daemon = world.daemon();
    let id = daemon.open(&path).await.unwrap().session_id;
    daemon.set_source(id, "a", "edited = 1").await;
    assert_eq!(daemon.counted("outlive_claims_held").await, 1);
    assert_eq!(daemon.counted("outlive_file_watches").await, 1);
    // Autosave and eviction are due in one moment.
    daemon.evict(id).await;
    assert!(fs::read_to_string(&path).unwrap().contains("edited = 1"));
    assert_eq!(daemon.counted("outlive_claims_held").await, 0);
    assert_eq!(daemon.counted("outlive_file_watches").await, 0);
    assert_eq!(daemon.counted("outlive_sessions{state=\"dormant\"}").await, 1);
    // It keeps its path: whoever opens it comes to the same session.
    let again = daemon.open(&path).await.unwrap();
    assert_eq!(again.session_id, id);
    assert_eq!(daemon.sources(id).await, ["edited = 1"]);
    assert_eq!(daemon.view(id).runs.queued, 0);
}

// C7
#[tokio::test]
async fn a_notebook_that_was_renamed_while_its_session_was_dormant_is_that_session_by_its_new_name() {
    // C3
    let world = World::new();
    let daemon = world.daemon();
    let (before, after) = (world.path("before.ipynb"), world.path("after.ipynb"));
    fs::write(&before, NOTEBOOK).unwrap();
    let id = daemon.open(&before).await.unwrap().session_id;
    daemon.evict(id).await;
    fs::rename(&before, &after).unwrap();
    let opened = daemon.open(&after).await.unwrap();
    assert_eq!((opened.session_id, opened.path.as_deref()), (id, after.to_str()));
    // What is at the old name is another notebook, and so is a copy of one that is gone: that would be a guess.
    fs::write(&before, NOTEBOOK).unwrap();
    assert_ne!(daemon.open(&before).await.unwrap().session_id, id);
    daemon.evict(id).await;
    let copy = world.path("copy.ipynb");
    fs::copy(&after, &copy).unwrap();
    fs::remove_file(&after).unwrap();
    assert_ne!(daemon.open(&copy).await.unwrap().session_id, id);
}

#[tokio::test]
async fn what_another_program_wrote_while_a_session_was_dormant_is_there_when_it_comes_back() {
    let world = World::new();
    let path = world.path("a.ipynb");
    fs::write(&path, NOTEBOOK).unwrap();
    let daemon = world.daemon();
    let id = daemon.open(&path).await.unwrap().session_id;
    daemon.set_source(id, "a", "edited = 1").await;
    daemon.evict(id).await;
    let theirs = fs::read_to_string(&path).unwrap().replace("edited = 1", "theirs = 2");
    fs::write(&path, theirs).unwrap();
    daemon.open(&path).await.unwrap();
    daemon.until_source(id, "theirs = 2").await;
}

// C7
#[tokio::test]
async fn a_session_that_was_saved_as_another_file_leaves_and_comes_back_there() {
    let world = World::new();
    let (old, new) = (world.path("old.ipynb"), world.path("new.ipynb"));
    fs::write(&old, NOTEBOOK).unwrap();
    let daemon = world.daemon();
    let id = daemon.open(&old).await.unwrap().session_id;
    daemon.until_due(id).await;
    daemon.clock.advance(IDLE_MS / 2);
    daemon.save_as(id, &new, SaveHow::SaveAs).await.unwrap();
    daemon.evict(id).await;
    let other = daemon.open(&old).await.unwrap().session_id;
    assert_ne!(other, id, "the old path is free");
    assert_eq!(daemon.open(&new).await.unwrap().session_id, id);
    assert_eq!(daemon.view(id).path.as_deref(), new.to_str());
}

// C7
#[tokio::test]
async fn work_and_a_live_kernel_keep_a_session_for_as_long_as_it_takes() {
    let world = World::new();
    let daemon = world.daemon();
    let id = daemon.new_notebook("1").await;
    daemon.submit(id, "while True: pass").await;
    daemon.until(id, |view| view.runs.running == 1).await;
    for _ in 0..100 {
        daemon.clock.advance(IDLE_MS);
        tokio::task::yield_now().await;
    }
    daemon.until(id, |view| view.runs.running == 1).await;
    let run = daemon.view(id).current.unwrap();
    let outcome = outlive_core::session::RunOutcome::Succeeded;
    let attempt = outlive_core::id::Attempt(1);
    let finished = StateNotice::RunFinished { run, attempt, outcome, execution_count: Some(1) };
    daemon.kernels.says(id, 3, Notice::State(finished)).await;
    daemon.until(id, |view| view.runs.succeeded == 1).await;
    for _ in 0..100 {
        daemon.clock.advance(IDLE_MS);
        tokio::task::yield_now().await;
    }
    assert_eq!(daemon.counted("outlive_evictions_scheduled_total").await, 1, "only before its first run");
    daemon.do_ask(id, Ask::Rest { why: StopWhy::Rest, from: StopStep::Ask }).await;
    daemon.evict(id).await;
    // Its runs are read from the log; nobody wakes it for that.
    let folded = open::load(&daemon.context, id).await.unwrap();
    assert_eq!(folded.hosted.unwrap().view(folded.fold.position()).runs.succeeded, 1);
    assert!(!daemon.context.is_here(id));
}

// C7
#[tokio::test]
async fn a_session_whose_file_is_no_notebook_any_more_comes_back_with_its_edits_and_the_conflict() {
    let world = World::new();
    let path = world.path("a.ipynb");
    fs::write(&path, NOTEBOOK).unwrap();
    let daemon = world.daemon();
    let id = daemon.open(&path).await.unwrap().session_id;
    daemon.set_source(id, "a", "mine = 1").await;
    daemon.clock.advance(3_000);
    daemon.until_saved(id).await;
    fs::write(&path, "not a notebook").unwrap();
    let is_conflict = |view: &outlive_protocol::http::SessionView| {
        matches!(view.saved, Some(SavedState::Conflict { conflict: FileConflict::NotANotebook, .. }))
    };
    daemon.until(id, is_conflict).await;
    daemon.set_source(id, "a", "mine = 2").await;
    daemon.evict(id).await;
    assert_eq!(fs::read_to_string(&path).unwrap(), "not a notebook", "nothing is written over it");
    assert_eq!(daemon.sources(id).await, ["mine = 2"]);
    daemon.until(id, is_conflict).await;
    assert_eq!(fs::read_to_string(&path).unwrap(), "not a notebook");
}

// C7
#[tokio::test]
async fn a_session_whose_file_cannot_be_written_leaves_memory_and_writes_it_when_it_can() {
    let world = World::new();
    fs::create_dir(world.path("folder")).unwrap();
    let path = world.path("folder/a.ipynb");
    fs::write(&path, NOTEBOOK).unwrap();
    let daemon = world.daemon();
    let id = daemon.open(&path).await.unwrap().session_id;
    daemon.set_source(id, "a", "first = 1").await;
    daemon.clock.advance(3_000);
    daemon.until_saved(id).await;
    fs::rename(world.path("folder"), world.path("elsewhere")).unwrap();
    daemon.set_source(id, "a", "second = 2").await;
    daemon.evict(id).await;
    fs::rename(world.path("elsewhere"), world.path("folder")).unwrap();
    assert_eq!(daemon.sources(id).await, ["second = 2"]);
    daemon.until(id, |view| !matches!(view.saved, Some(SavedState::Saved { .. }))).await;
    daemon.clock.advance(60_000);
    daemon.until_saved(id).await;
    assert!(fs::read_to_string(&path).unwrap().contains("second = 2"));
}

// C7
#[tokio::test]
async fn an_eviction_that_the_store_refuses_has_another_deadline() {
    let place = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let daemon = daemon_in(place.path(), Budgets::default(), &full);
    let id = daemon.new_notebook("kept = 1").await;
    daemon.until_due(id).await;
    let first = daemon.context.handle(id).unwrap().unwrap().resident.borrow().residence.deadline();
    full.store(true, Ordering::SeqCst);
    let mut resident = daemon.context.handle(id).unwrap().unwrap().resident;
    daemon.clock.advance(IDLE_MS);
    let later = resident.wait_for(|resident| resident.residence.deadline() > first);
    tokio::time::timeout(PATIENCE, later).await.expect("it has another deadline").unwrap();
    assert_eq!(daemon.counted("outlive_evictions_skipped_total{reason=\"store\"}").await, 1);
    daemon.evictions_add_up().await;
    assert_eq!(daemon.sources(id).await, ["kept = 1"], "it goes on");
    full.store(false, Ordering::SeqCst);
    daemon.evict(id).await;
    daemon.evictions_add_up().await;
    assert_eq!(daemon.counted("outlive_zombie_sessions").await, 0);
}

// C7: a peer that comes back in any moment of an eviction sees every edit.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_comes_back_while_a_session_leaves_finds_every_edit() {
    let world = World::new();
    let path = world.path("a.ipynb");
    fs::write(&path, NOTEBOOK).unwrap();
    let daemon = Arc::new(world.daemon());
    let id = daemon.open(&path).await.unwrap().session_id;
    for round in 0..60_u32 {
        let peer = daemon.joined(id).await;
        let text = format!("round = {round}");
        daemon.set_source(id, "a", &text).await;
        drop(peer);
        daemon.until_due(id).await;
        let (coming, other) = (Arc::clone(&daemon), path.clone());
        // Each time at another moment of it, by its id or by its path.
        let comes_back = TaskTracker::new().spawn(async move {
            let has_come = |round| match round % 3 {
                0 => true,
                1 => !matches!(coming.context.handle(id), Ok(Some(_))),
                _ => !coming.context.is_here(id),
            };
            while !has_come(round) {
                tokio::task::yield_now().await;
            }
            if round % 2 == 0 {
                assert_eq!(coming.open(&other).await.unwrap().session_id, id);
            }
            coming.sources(id).await
        });
        daemon.clock.advance(IDLE_MS);
        let found = tokio::time::timeout(PATIENCE, comes_back).await.expect("it is let in").unwrap();
        assert_eq!(found, [text]);
    }
    let evicted = daemon.counted("outlive_evictions_done_total").await;
    assert!(evicted > 0, "none of the rounds met an eviction");
    daemon.evictions_add_up().await;
    assert_eq!(daemon.counted("outlive_sessions{state=\"open\"}").await, 1, "one session, whoever made it");
}

// C7
#[tokio::test]
async fn a_peer_keeps_its_session_and_the_last_one_that_leaves_begins_the_wait() {
    let world = World::new();
    let daemon = world.daemon();
    let id = daemon.new_notebook("1").await;
    let peers = daemon.context.handle(id).unwrap().unwrap().peers;
    let (first, second) = (Peer::attach(Arc::clone(&peers), false), Peer::attach(peers, false));
    daemon.clock.advance(10 * IDLE_MS);
    drop(first);
    daemon.until(id, |view| view.peers == 1).await;
    daemon.clock.advance(10 * IDLE_MS);
    tokio::task::yield_now().await;
    assert!(daemon.context.is_here(id));
    drop(second);
    daemon.until_due(id).await;
    assert!(daemon.context.is_here(id), "a page that is loaded again finds it");
    daemon.evict(id).await;
}

#[tokio::test]
async fn a_session_that_should_have_gone_is_counted() {
    let world = World::new();
    let daemon = world.daemon();
    let id = daemon.new_notebook("1").await;
    daemon.until_due(id).await;
    assert_eq!(daemon.counted("outlive_zombie_sessions").await, 0);
    // Its task does not come to it: on this thread nothing else runs before the next wait.
    daemon.clock.advance(IDLE_MS + ZOMBIE_GRACE_MS + METRICS_STORE_MS);
    assert_eq!(crate::metrics::zombie_sessions(&daemon.context), 1);
    daemon.until_evicted(id).await;
    assert_eq!(daemon.counted("outlive_zombie_sessions").await, 0);
}
