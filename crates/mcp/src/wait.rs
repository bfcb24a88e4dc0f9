//! Waiting for runs, without missing an end and without asking again and again.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::StreamExt as _;
use outlive_core::id::{RunId, SessionId};
use outlive_core::limits::{MCP_MOVE_MS, MCP_MOVED_MS, MCP_PROGRESS_MS};
use outlive_node::api::Events;
use outlive_protocol::http::{Problem, RunState, RunView, StreamEvent};
use tokio::time::{Instant, MissedTickBehavior};

use crate::tool::Call;

/// Waits until all runs have ended, one of them asks its user something, the time is over, or the caller has gone.
/// `events` were opened before the runs were queued.
///
/// # Errors
/// The session cannot be watched any more. The runs go on.
pub async fn until_ended(
    call: &Call,
    session: SessionId,
    runs: &[RunView],
    events: Events,
    time: Duration,
) -> Result<(), Problem> {
    let mut waiting: HashSet<RunId> = runs.iter().filter(|run| !is_over(run)).map(|run| run.id).collect();
    let waiting = watch(call, session, &mut waiting, events);
    tokio::select! {
        ended = tokio::time::timeout(time, waiting) => ended.unwrap_or(Ok(())),
        () = call.cancelled.cancelled() => Ok(()),
    }
}

/// Whether nothing more is to be expected of a run.
pub fn is_over(run: &RunView) -> bool {
    matches!(run.state, RunState::Ended { .. })
}

async fn watch(
    call: &Call,
    session: SessionId,
    waiting: &mut HashSet<RunId>,
    mut events: Events,
) -> Result<(), Problem> {
    let all = waiting.len();
    let mut progress = tokio::time::interval(Duration::from_millis(MCP_PROGRESS_MS));
    progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = 0.0;
    while !waiting.is_empty() {
        let event = tokio::select! {
            event = events.next() => event,
            _ = progress.tick() => {
                if let Some(progress) = &call.progress {
                    told += 1.0;
                    progress.tell(told, format!("{} of {all} runs have ended", all - waiting.len())).await;
                }
                continue;
            }
        };
        match event.map(|delivered| delivered.event) {
            Some(StreamEvent::Run { run }) => {
                if is_over(&run) {
                    waiting.remove(&run.id);
                }
            }
            Some(StreamEvent::Session { session }) => {
                if session.question.is_some_and(|question| waiting.contains(&question.run)) {
                    return Ok(());
                }
            }
            Some(StreamEvent::Gap { .. }) => ended_meanwhile(call, session, waiting).await?,
            // Its node is lost or hands it over: another one has it in a moment, and what becomes of the runs with it.
            Some(StreamEvent::Problem { problem }) if is_moving(&problem) => {
                events = once_moved(call, session, waiting).await?;
            }
            Some(StreamEvent::Problem { problem }) => return Err(problem),
            // The session has ended, or the daemon has: whoever comes back to it sees what became of the runs.
            Some(StreamEvent::End { .. }) | None => {
                ended_meanwhile(call, session, waiting).await?;
                if !waiting.is_empty() {
                    events = call.host.watch(session).await?;
                    ended_meanwhile(call, session, waiting).await?;
                }
            }
            Some(
                StreamEvent::Output { .. }
                | StreamEvent::PathChanged { .. }
                | StreamEvent::Stalled { .. }
                | StreamEvent::Reset { .. }
                | StreamEvent::Report { .. }
                | StreamEvent::Unknown,
            ) => {}
        }
    }
    Ok(())
}

/// Whether a problem passes when the session is with its next node.
fn is_moving(problem: &Problem) -> bool {
    let codes = ["owner-silent", "owner-unreachable", "session-moving", "draining"];
    codes.contains(&problem.code.as_str())
}

/// Watches a session again that is on its way from one node to another, and sees which runs have ended meanwhile.
///
/// # Errors
/// No node has it within [`MCP_MOVE_MS`], or it is not to be had for another reason.
async fn once_moved(
    call: &Call,
    session: SessionId,
    waiting: &mut HashSet<RunId>,
) -> Result<Events, Problem> {
    let deadline = Instant::now() + Duration::from_millis(MCP_MOVE_MS);
    let mut again = tokio::time::interval(Duration::from_millis(MCP_MOVED_MS));
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        again.tick().await;
        let watched = async {
            let events = call.host.watch(session).await?;
            ended_meanwhile(call, session, waiting).await?;
            Ok(events)
        };
        match watched.await {
            Err(problem) if is_moving(&problem) && Instant::now() < deadline => {}
            watched => return watched,
        }
    }
}

async fn ended_meanwhile(
    call: &Call,
    session: SessionId,
    waiting: &mut HashSet<RunId>,
) -> Result<(), Problem> {
    for run in call.host.runs(session).await?.iter().filter(|run| is_over(run)) {
        waiting.remove(&run.id);
    }
    Ok(())
}
