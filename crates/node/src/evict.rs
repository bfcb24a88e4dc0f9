//! Keeps a node within its budgets: when too many sessions are in memory, or all kernels take up too much, idle kernels
//! are stopped, those first that were idle longest. That is announced before, and whoever runs something meanwhile keeps
//! theirs. A session without its kernel leaves memory by itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use outlive_core::id::SessionId;
use outlive_core::limits::{BUDGET_PERIOD_MS, EVICT_NOTICE_MS};
use outlive_core::runtime::{StopStep, StopWhy};
use outlive_core::time::{Tick, WallTime};
use outlive_protocol::http::RuntimeState;

use crate::budget::{Budgets, IdleKernel, Load, to_rest};
use crate::context::{Context, Found};
use crate::metrics::memory;
use crate::session::Handle;
use crate::session::handle::{Ask, Visiting};

/// An idle kernel that is going to be stopped.
#[derive(Clone, Copy)]
struct Announced {
    idle_since: Tick,
    stopped_at: Tick,
}

/// Looks now and then, until the node ends; returns at once when there is no budget.
pub async fn keep_within_budgets(context: Arc<Context>) {
    let Budgets { sessions_max, memory_bytes_max, .. } = context.budgets;
    if sessions_max.is_none() && memory_bytes_max.is_none() {
        return;
    }
    let mut announced = HashMap::new();
    while context.pause(BUDGET_PERIOD_MS).await {
        look(&context, &mut announced).await;
    }
}

async fn look(context: &Context, announced: &mut HashMap<SessionId, Announced>) {
    let handles = context.handles();
    let load = load(context, &handles).await;
    let chosen = to_rest(&load, &context.budgets);
    let now = context.clock.now();
    // Who is not chosen any more, or has worked since, keeps its kernel.
    announced.retain(|id, said| {
        let stays = chosen.iter().any(|kernel| kernel.id == *id && kernel.idle_since == said.idle_since);
        if !stays && let Some(handle) = handles.iter().find(|handle| handle.id == *id) {
            handle.peers.rests_at(None);
        }
        stays
    });
    for kernel in &chosen {
        let Some(handle) = handles.iter().find(|handle| handle.id == kernel.id) else { continue };
        match announced.get(&kernel.id) {
            None => {
                let notice = Duration::from_millis(EVICT_NOTICE_MS);
                let said = Announced { idle_since: kernel.idle_since, stopped_at: now.tick + notice };
                announced.insert(kernel.id, said);
                handle.peers.rests_at(Some(WallTime(now.wall.0 + EVICT_NOTICE_MS * 1_000)));
                tracing::warn!(
                    session = %kernel.id,
                    evict_notice_ms = EVICT_NOTICE_MS,
                    sessions = load.sessions,
                    kernel_bytes = load.bytes,
                    "a budget is exceeded: the idle kernel of this session is stopped soon"
                );
            }
            Some(said) if said.stopped_at <= now.tick => {
                announced.remove(&kernel.id);
                rest(context, kernel.id).await;
            }
            Some(_) => {}
        }
    }
}

/// The session refuses when it has begun to work.
async fn rest(context: &Context, id: SessionId) {
    let Ok(Found::Open(entered)) = context.enter(id, Visiting::ToAsk) else { return };
    entered.handle.peers.rests_at(None);
    match entered.handle.ask(Ask::Rest { why: StopWhy::Eviction, from: StopStep::Ask }).await {
        Ok(_) => {
            context.metrics.kernel_rested();
            tracing::info!(session = %id, "its idle kernel is stopped: a budget is exceeded");
        }
        Err(problem) => tracing::info!(session = %id, %problem, "its kernel is not stopped"),
    }
}

/// What is in memory here now.
pub(crate) async fn load(context: &Context, handles: &[Handle]) -> Load {
    let pid = |handle: &Handle| {
        let view = handle.view.borrow();
        view.runtime.pid.filter(|_| view.group.is_none())
    };
    let pids: Vec<_> = handles.iter().filter_map(pid).collect();
    let bytes = match context.budgets.memory_bytes_max {
        // Reads all of /proc.
        Some(_) => tokio::task::spawn_blocking(move || memory::of_trees(&pids)).await.unwrap_or_default(),
        None => HashMap::new(),
    };
    let idle = handles.iter().filter_map(|handle| {
        let view = handle.view.borrow();
        let resident = *handle.resident.borrow();
        // Runners are kept up: their group says what ends them.
        let is_idle =
            view.group.is_none() && view.runtime.state == RuntimeState::Idle && view.runs.queued == 0;
        is_idle.then(|| IdleKernel {
            id: handle.id,
            idle_since: resident.idle_since,
            bytes: view.runtime.pid.and_then(|pid| bytes.get(&pid).copied()).unwrap_or_default(),
            there: handle.peers.there(),
        })
    });
    let leaving = handles.iter().filter(|handle| handle.resident.borrow().residence.deadline().is_some());
    Load { sessions: handles.len() - leaving.count(), bytes: bytes.values().sum(), idle: idle.collect() }
}
