//! Sessions by the hundred: nothing is left of those that were closed, and little of those that are dormant.

use outlive_protocol::http::{OpenSession, SaveSession};

use super::*;
use crate::Node;
use crate::api::Api;

/// Files that this process has open.
fn open_files() -> u64 {
    outlive_process::descriptors::used().unwrap()
}

// C6
#[tokio::test]
async fn a_thousand_times_open_run_save_save_as_and_close_leave_nothing() {
    let world = World::new();
    let daemon = world.daemon();
    let (before, tasks) = (open_files(), daemon.context.tasks.len());
    for round in 0..1_000 {
        let (path, other) = (world.path("a.ipynb"), world.path("b.ipynb"));
        fs::write(&path, NOTEBOOK).unwrap();
        let id = daemon.open(&path).await.unwrap().session_id;
        daemon.submit(id, "1").await;
        daemon.until(id, |view| view.runs.running == 1).await;
        daemon.set_source(id, "a", &format!("round = {round}")).await;
        daemon.save(id, SaveSession::default()).await.unwrap();
        daemon.save_as(id, &other, SaveHow::SaveAs).await.unwrap();
        daemon.close(id, false).await.unwrap();
        daemon.until_ended(id).await;
        assert!(fs::read_to_string(&other).unwrap().contains(&format!("round = {round}")));
        fs::remove_file(&path).unwrap();
        fs::remove_file(&other).unwrap();
    }
    assert_eq!(daemon.context.handles().len(), 0);
    assert!(daemon.context.holder(&world.path("b.ipynb")).is_none(), "every path is free");
    assert_eq!((world.claims(), daemon.counted("outlive_claims_held").await), (0, 0));
    assert_eq!(daemon.counted("outlive_file_watches").await, 0);
    assert_eq!(daemon.context.tasks.len(), tasks);
    assert_eq!(daemon.counted("outlive_sessions_opened_total").await, 1_000);
    assert_eq!(daemon.counted("outlive_sessions_ended_total").await, 1_000);
    // The one inotify instance stays, with its pipe.
    assert!(open_files() <= before + 4, "{before} files before, {} after", open_files());
}

// C7, P8
#[tokio::test]
async fn dormant_sessions_cost_no_file_and_the_next_daemon_leaves_them_so() {
    let world = World::new();
    let first = world.daemon();
    let before = open_files();
    let mut ids = Vec::new();
    for n in 0..50 {
        let path = world.path(&format!("{n}.ipynb"));
        fs::write(&path, NOTEBOOK).unwrap();
        ids.push(first.open(&path).await.unwrap().session_id);
    }
    for id in &ids {
        first.until_due(*id).await;
    }
    first.clock.advance(IDLE_MS);
    for id in &ids {
        first.until_evicted(*id).await;
    }
    assert!(open_files() <= before + 4, "{before} files before, {} after", open_files());
    first.context.tasks.close();
    first.context.tasks.wait().await;
    drop(first);
    let place = world.path("..");
    let engine = Arc::new(Embedded::open(&place.join("store")).unwrap());
    let seams = Seams {
        clock: Arc::new(StillClock::default()),
        engine,
        bus: Arc::new(LocalBus::default()),
        runtimes: Arc::new(IdleKernels::default()),
        files: Arc::new(LocalFiles::new(place.join("claims"))),
        cluster: None,
    };
    let who =
        Identity { node: NodeId::from_uuid(Uuid::from_u128(1)), boot: BootId::from_uuid(Uuid::now_v7()) };
    let node = Node::over(who, seams, Budgets::default(), place, TaskTracker::new()).await.unwrap();
    let listed = node.sessions(false).await.unwrap();
    assert!(listed.len() == 50 && listed.iter().all(|view| !view.loaded), "they are there, and dormant");
    let path = Some(world.path("7.ipynb").display().to_string());
    let opened = node.open(OpenSession { path, ..OpenSession::default() }).await.unwrap();
    assert_eq!(opened.session_id, ids[7], "its path is known by its row");
    assert_eq!(node.sessions(false).await.unwrap().iter().filter(|view| view.loaded).count(), 1);
    // What is only read wakes nobody.
    assert!(node.runs(ids[8]).await.unwrap().is_empty() && node.reports(ids[8]).await.unwrap().is_empty());
    assert!(!node.session(ids[8]).await.unwrap().loaded);
    assert_eq!(node.forget(ids[8]).await.unwrap_err().code, "session-open", "dormant is not ended");
    node.stop().await;
}
