//! Kernels that are stopped because a budget is exceeded.

use outlive_core::limits::{BUDGET_PERIOD_MS, EVICT_NOTICE_MS};
use outlive_protocol::http::RuntimeState;

use super::*;
use crate::evict::keep_within_budgets;

async fn with_idle_kernel(daemon: &Daemon) -> SessionId {
    let id = daemon.new_notebook("1").await;
    daemon.do_ask(id, Ask::Restart { run_all: false }).await;
    daemon.until(id, |view| view.runtime.state == RuntimeState::Idle).await;
    daemon.clock.advance(1_000);
    id
}

// A9
#[tokio::test]
async fn the_kernel_that_was_idle_longest_is_stopped_after_a_notice_and_that_is_no_crash() {
    let place = tempfile::tempdir().unwrap();
    let budgets = Budgets { sessions_max: Some(2), ..Budgets::default() };
    let daemon = daemon_in(place.path(), budgets, &Arc::default());
    let (oldest, second, third) =
        (with_idle_kernel(&daemon).await, with_idle_kernel(&daemon).await, with_idle_kernel(&daemon).await);
    daemon.context.tasks.spawn(keep_within_budgets(Arc::clone(&daemon.context)));
    tokio::task::yield_now().await;
    daemon.clock.advance(BUDGET_PERIOD_MS);
    daemon.until(oldest, |view| view.rests_at.is_some()).await;
    assert!(daemon.view(second).rests_at.is_none() && daemon.view(third).rests_at.is_none());
    assert_eq!(daemon.view(oldest).runtime.state, RuntimeState::Idle, "it is announced first");
    // Whoever runs something meanwhile keeps the kernel; then it is the next one's turn.
    daemon.submit(oldest, "1").await;
    daemon.until(oldest, |view| view.runs.running == 1).await;
    daemon.clock.advance(BUDGET_PERIOD_MS);
    daemon.until(second, |view| view.rests_at.is_some()).await;
    daemon.until(oldest, |view| view.rests_at.is_none()).await;
    daemon.clock.advance(EVICT_NOTICE_MS);
    daemon.until(second, |view| view.runtime.state == RuntimeState::Down).await;
    let view = daemon.view(second);
    assert!(view.last_report.is_none(), "nobody takes it for a crash: {:?}", view.last_report);
    assert_eq!(daemon.counted("outlive_kernels_rested_total").await, 1);
    daemon.evict(second).await;
    assert_eq!(daemon.view(third).runtime.state, RuntimeState::Idle, "two are within the budget");
    // It comes back, and its kernel with the next run.
    daemon.submit(second, "2").await;
    daemon.until(second, |view| view.runs.running == 1).await;
    daemon.context.stop.cancel();
}
