//! What a lost node had goes on elsewhere, once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outlive_core::failover::TakenWhy;
use outlive_core::id::{ProcessKey, RunId, SessionId};
use outlive_core::limits::LISTING_PERIOD_MS;
use outlive_core::log::{Lane, Record};
use outlive_core::runtime::{ExitStatus, RestartPolicy, StopStep, StopWhy};
use outlive_core::time::WallTime;
use outlive_protocol::http::{SessionState, Stop};
use outlive_store::faulty::{Fault, Operation};
use tokio::time::Instant;

use super::world::{GRACE, One, World, id, member};
use crate::api::{Api, Groups};
use crate::cluster::Standing;
use crate::session::open::{Instead, Loss, NotResumed, resume};

fn heir(nodes: &[One], node: outlive_core::id::NodeId) -> &One {
    nodes.iter().find(|one| one.context().who.node == node).expect("it is one of them")
}

/// The first node is taken for lost.
fn silent() -> Loss {
    let (from, name) = (member(1, 1), "n1".to_owned());
    Loss { from, name, why: TakenWhy::Silent, heard: None, noticed_at: WallTime(1) }
}

/// How many processes were launched on these machines.
fn launched(nodes: &[One]) -> usize {
    nodes.iter().map(|one| one.machine.launched()).sum()
}

// E1, E6
#[tokio::test(start_paused = true)]
async fn a_command_of_a_lost_node_goes_on_on_one_other() {
    let world = World::new();
    let nodes = world.nodes(3).await;
    let (session, run) = nodes[0].command(1, RestartPolicy::permanent()).await;
    nodes[0].kill();
    let killed = Instant::now();
    let claim = world.until_owner(session, |claim| claim.node != id(1)).await;
    assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
    let heir = heir(&nodes, claim.node);
    let (process, attempt) = heir.machine.given(run).await;
    assert_eq!(attempt.0, 2);
    assert_eq!(launched(&nodes[1..]), 1, "it runs once");
    heir.machine.text(process, run, "again");
    heir.machine.finish(process, run);
    heir.machine.dies(process, ExitStatus::Code { code: 0 }, None);
    let ended = heir.until(session, |view| view.closed_at.is_some()).await;
    assert_eq!(ended.state, SessionState::Succeeded);
    heir.until_gone(session).await;
    assert_eq!(world.controls(session).await, 3, "two claims and the end");
    let takeovers = heir.node.takeovers(session).await.unwrap();
    let [takeover] = &takeovers[..] else { panic!("{takeovers:?}") };
    assert_eq!((takeover.from_name.as_str(), takeover.why.as_str()), ("n1", "silent"));
    assert_eq!((takeover.to, takeover.epoch.0), (claim.node, 2));
    assert!(takeover.noticed_at <= takeover.claimed_at && takeover.claimed_at <= takeover.resumed_at);
    assert_eq!(heir.node.cluster().await.takeovers, takeovers, "the node tells of it too");
}

#[tokio::test(start_paused = true)]
async fn the_notice_of_a_loss_is_followed_by_the_claim_at_once() {
    let world = World::new();
    let nodes = world.nodes(2).await;
    let (session, run) = nodes[0].command(1, RestartPolicy::permanent()).await;
    nodes[1].until_listed(session, |listed| listed.owner == Some(member(1, 1))).await;
    nodes[0].kill();
    let mut lost = nodes[1].cluster().lost.subscribe();
    lost.recv().await.unwrap();
    let noticed = Instant::now();
    world.until_owner(session, |claim| claim.node == id(2)).await;
    nodes[1].machine.given(run).await;
    assert_eq!(noticed.elapsed(), Duration::ZERO, "the first in the order of claimants waits for nothing");
}

// E6
#[tokio::test(start_paused = true)]
async fn of_many_that_claim_at_once_one_has_it() {
    for many in [2, 20] {
        let world = World::new();
        let nodes = world.nodes(many + 1).await;
        let (session, run) = nodes[0].command(1, RestartPolicy::permanent()).await;
        nodes[0].gate.shut();
        let claims = nodes[1..].iter().map(|one| async {
            let reservation = one.context().reserve(session).expect("nobody else takes it up there");
            resume(one.context(), &reservation, Instead::Of(silent())).await
        });
        let claimed = futures_util::future::join_all(claims).await;
        let won = claimed.iter().filter(|claimed| claimed.is_ok()).count();
        let taken = claimed.iter().filter(|claimed| matches!(claimed, Err(NotResumed::Taken(_)))).count();
        assert_eq!((won, taken), (1, many - 1), "{claimed:?}");
        assert_eq!(world.controls(session).await, 2, "and nothing was written by the others");
        let owner = world.owner(session).await.unwrap();
        heir(&nodes, owner.node).machine.given(run).await;
        assert_eq!(launched(&nodes[1..]), 1);
    }
}

// E6
#[tokio::test(start_paused = true)]
async fn when_the_claimant_dies_between_its_claim_and_what_follows_the_next_finishes_the_job() {
    let world = World::new();
    let nodes = world.nodes(3).await;
    let (session, run) = nodes[0].command(1, RestartPolicy::permanent()).await;
    let doomed = Arc::new(AtomicBool::new(true));
    for one in &nodes[1..] {
        let (doomed, gate) = (Arc::clone(&doomed), one.gate.clone());
        one.faults.set(move |operation| match operation {
            Operation::Append { lane, .. }
                if lane != Lane::Control && doomed.swap(false, Ordering::SeqCst) =>
            {
                gate.shut();
                Fault::Delay(Duration::MAX)
            }
            Operation::Append { .. }
            | Operation::Read { .. }
            | Operation::TableRead
            | Operation::TableWrite => Fault::None,
        });
    }
    nodes[0].kill();
    let first = world.until_owner(session, |claim| claim.node != id(1)).await;
    let second = world.until_owner(session, |claim| claim.node != id(1) && claim.node != first.node).await;
    let (_, attempt) = heir(&nodes, second.node).machine.given(run).await;
    assert_eq!((second.epoch.0, attempt.0), (3, 2), "the first had begun nothing");
    assert_eq!(heir(&nodes, first.node).machine.launched(), 0);
}

// E6
#[tokio::test(start_paused = true)]
async fn two_notices_of_one_death_are_one() {
    let world = World::new();
    let nodes = world.nodes(3).await;
    let (session, run) = nodes[0].command(1, RestartPolicy::permanent()).await;
    nodes[0].kill();
    let claim = world.until_owner(session, |claim| claim.node != id(1)).await;
    let heir = heir(&nodes, claim.node);
    for one in &nodes[1..] {
        one.tell_lost(1, 1);
        one.tell_lost(1, 1);
    }
    heir.machine.given(run).await;
    // Something that comes after them has been done.
    let (later, _) = nodes[1].command(2, RestartPolicy::permanent()).await;
    nodes[2].until_listed(later, |listed| listed.owner == Some(member(2, 1))).await;
    world.pass(GRACE).await;
    assert_eq!((world.controls(session).await, launched(&nodes[1..])), (2, 2));
}

// E10c: a node that is lost right after its kernel has come to life gets its grace too.
#[tokio::test(start_paused = true)]
async fn that_a_kernel_lives_is_known_to_the_others_at_once() {
    let world = World::new();
    let nodes = world.nodes(2).await;
    let began = Instant::now();
    let (session, _, _) = nodes[0].busy_notebook().await;
    nodes[1].until_listed(session, |listed| listed.has_kernel).await;
    let took = began.elapsed();
    assert!(took < Duration::from_millis(LISTING_PERIOD_MS / 10), "{took:?}");
}

// E7, E10c
#[tokio::test(start_paused = true)]
async fn a_daemon_that_is_back_within_the_grace_finds_its_kernel_alive() {
    let world = World::new();
    let nodes = world.nodes(3).await;
    let (session, run, process) = nodes[0].busy_notebook().await;
    nodes[1].until_listed(session, |listed| listed.has_kernel).await;
    nodes[0].kill_daemon();
    world.pass(GRACE / 2).await;
    nodes[0].machine.text(process, run, "said while nobody was there");
    let back = nodes[0].reborn(&world, 2).await;
    back.until_ready().await;
    back.machine.finish(process, run);
    back.until(session, |view| view.runs.succeeded == 1).await;
    world.pass(GRACE * 2).await;
    assert_eq!(world.owner(session).await.map(|claim| (claim.node, claim.epoch.0)), Some((id(1), 2)));
    assert_eq!((back.machine.alive(), launched(&nodes[1..])), (vec![process], 0));
}

// E10c
#[tokio::test(start_paused = true)]
async fn a_daemon_that_is_back_after_the_grace_kills_what_it_no_longer_owns() {
    let world = World::new();
    let nodes = world.nodes(3).await;
    let (session, run, process) = nodes[0].busy_notebook().await;
    nodes[1].until_listed(session, |listed| listed.has_kernel).await;
    nodes[0].kill_daemon();
    let killed = Instant::now();
    let claim = world.until_owner(session, |claim| claim.node != id(1)).await;
    assert!(killed.elapsed() >= GRACE, "a kernel's node is waited for: {:?}", killed.elapsed());
    let heir = heir(&nodes, claim.node);
    let view = heir.until(session, |view| view.last_report.is_some()).await;
    assert_eq!(view.last_report.unwrap().code, outlive_core::diagnosis::CauseCode::NodeLost);
    let back = nodes[0].reborn(&world, 2).await;
    assert_eq!(back.machine.alive(), Vec::<ProcessKey>::new(), "process {process} was not ours any more");
    back.until_ready().await;
    let asked = back.node.interrupt(session).await.unwrap_err();
    assert_eq!(
        (asked.code.as_str(), asked.elsewhere.map(|there| there.node)),
        ("elsewhere", Some(claim.node))
    );
    let runs = heir.node.runs(session).await.unwrap();
    assert!(runs.iter().any(|view| view.id == run && view.ended_at.is_some()), "{runs:?}");
}

// E3, E4
#[tokio::test(start_paused = true)]
async fn an_owner_that_was_out_of_reach_kills_its_processes_and_writes_nothing() {
    let world = World::new();
    let nodes = world.nodes(3).await;
    let (session, run) = nodes[0].command(1, RestartPolicy::permanent()).await;
    let (process, _) = nodes[0].machine.given(run).await;
    nodes[0].gate.shut();
    nodes[0].machine.text(process, run, "said to nobody");
    let claim = world.until_owner(session, |claim| claim.node != id(1)).await;
    heir(&nodes, claim.node).machine.given(run).await;
    let before = world.log(session).await.len();
    nodes[0].gate.open();
    nodes[0].machine.until(|machine| machine.alive().is_empty().then_some(())).await;
    assert_eq!(nodes[0].machine.stops(process), [(StopWhy::Disowned, StopStep::Kill)]);
    nodes[0].until_gone(session).await;
    let written = world.log(session).await;
    let by_the_old = written[before..].iter().filter(|entry| match &entry.record {
        Record::Fenced(fenced) => fenced.claim != claim.position,
        Record::Control(_) | Record::Request(_) | Record::Unknown { .. } => true,
    });
    assert_eq!(by_the_old.count(), 0);
    nodes[0].until_ready().await;
    let asked = nodes[0].node.interrupt(session).await.unwrap_err();
    assert_eq!(
        (asked.code.as_str(), asked.elsewhere.map(|there| there.node)),
        ("elsewhere", Some(claim.node))
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_of_an_owner_while_it_loses_its_session_is_told_to_try_again() {
    let world = World::new();
    let nodes = world.nodes(3).await;
    let (session, _) = nodes[0].command(1, RestartPolicy::permanent()).await;
    nodes[0].gate.shut();
    let asking = Arc::clone(&nodes[0].node);
    let tasks = tokio_util::task::TaskTracker::new();
    let asked = tasks.spawn(async move { Api::stop(&*asking, session, Stop { force: false }).await });
    world.until_owner(session, |claim| claim.node != id(1)).await;
    nodes[0].gate.open();
    let problem = asked.await.unwrap().unwrap_err();
    assert_eq!((problem.status, problem.code.as_str()), (503, "session-moving"));
}

#[tokio::test(start_paused = true)]
async fn a_group_goes_on_with_the_tasks_that_may_be_begun_again() {
    let world = World::new();
    let nodes = world.nodes(3).await;
    let group = nodes[0].up("g").await.unwrap().id;
    let (again, once) = (nodes[0].hold("g", true).await.unwrap(), nodes[0].hold("g", false).await.unwrap());
    nodes[0].machine.given(once).await;
    nodes[2].until_listed(group, |listed| listed.owner.is_some()).await;
    let elsewhere = nodes[2].hold("g", true).await.unwrap_err();
    assert_eq!(elsewhere.elsewhere.map(|there| there.name).as_deref(), Some("n1"));
    assert_eq!(
        nodes[2].node.groups().await.unwrap()[0].node.as_deref(),
        Some("n1"),
        "it is listed everywhere"
    );
    nodes[0].kill();
    let claim = world.until_owner(group, |claim| claim.node != id(1)).await;
    let heir = heir(&nodes, claim.node);
    let (process, attempt) = heir.machine.given(again).await;
    assert_eq!(attempt.0, 2);
    heir.machine.finish(process, again);
    let settled = |view: &outlive_protocol::http::SessionView| view.runs.succeeded + view.runs.failed == 2;
    let view = heir.until(group, settled).await;
    assert_eq!((view.runs.succeeded, view.runs.failed), (1, 1), "what may not be begun again is told so");
    assert!(heir.hold("g", true).await.is_ok(), "it takes tasks here");
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_is_cut_off_does_not_say_that_there_is_no_run_of_which_its_successor_knows() {
    let world = World::new();
    let nodes = world.nodes(2).await;
    let group = nodes[0].up("g").await.unwrap().id;
    nodes[1].until_listed(group, |listed| listed.owner.is_some()).await;
    let nobodys = RunId::from_uuid(uuid::Uuid::from_u128(7));
    let none = nodes[0].node.cancel_task("g", nobodys).await.unwrap_err();
    assert_eq!((none.status, none.code.as_str()), (404, "no-such-run"), "the owner knows");
    nodes[0].gate.shut();
    nodes[1].until(group, |view| view.group.is_some()).await;
    let run = nodes[1].hold("g", true).await.unwrap();
    for problem in [
        nodes[0].node.cancel_task("g", run).await.unwrap_err(),
        nodes[0].node.cancel(group, run).await.unwrap_err(),
    ] {
        assert_eq!((problem.status, problem.code.as_str()), (503, "session-moving"));
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_nodes_that_make_a_group_one_has_its_name_also_if_the_other_stood_still_meanwhile() {
    let world = World::new();
    let nodes = world.nodes(2).await;
    let (gate, mut is_first) = (nodes[0].gate.clone(), true);
    nodes[0].faults.set(move |operation| {
        if matches!(operation, Operation::Append { .. }) && std::mem::take(&mut is_first) {
            gate.shut();
        }
        Fault::None
    });
    let goes_on = async {
        nodes[1].until_members(1).await;
        let quick = nodes[1].up("g").await.unwrap();
        nodes[0].gate.open();
        quick
    };
    let (slow, quick) = tokio::join!(nodes[0].up("g"), goes_on);
    assert_eq!(slow.unwrap_err().code, "session-moving");
    for one in &nodes {
        let groups = one.node.groups().await.unwrap();
        assert_eq!(groups.iter().map(|group| group.id).collect::<Vec<_>>(), [quick.id]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_whose_row_is_written_when_its_maker_is_dead_does_not_share_a_name() {
    let world = World::new();
    let nodes = world.nodes(2).await;
    let (gate, mut writes) = (nodes[0].gate.clone(), 0);
    // The first is the name's.
    nodes[0].faults.set(move |operation| {
        writes += u32::from(matches!(operation, Operation::TableWrite));
        if writes == 2 && matches!(operation, Operation::TableWrite) {
            gate.shut();
            return Fault::Delay(GRACE);
        }
        Fault::None
    });
    let up = nodes[0].up("g");
    let quick = async {
        nodes[1].until_members(1).await;
        nodes[1].up("g").await.unwrap().id
    };
    let quick = tokio::select! {
        made = up => panic!("its node is dead: {made:?}"),
        quick = quick => quick,
    };
    world.until_rows("sessions", 2).await;
    world.pass(GRACE).await;
    let groups = nodes[1].node.groups().await.unwrap();
    assert_eq!(groups.iter().map(|group| group.id).collect::<Vec<_>>(), [quick]);
}

// E4
#[tokio::test(start_paused = true)]
async fn a_node_that_was_thought_lost_and_is_heard_again_keeps_its_kernels() {
    let world = World::new();
    let nodes = world.nodes(2).await;
    let (session, _, process) = nodes[0].busy_notebook().await;
    nodes[1].until_listed(session, |listed| listed.has_kernel).await;
    nodes[0].gate.shut();
    nodes[1].until_members(1).await;
    nodes[0].gate.open();
    nodes[1].until_members(2).await;
    world.pass(GRACE * 2).await;
    assert_eq!(world.owner(session).await.map(|claim| (claim.node, claim.epoch.0)), Some((id(1), 1)));
    assert_eq!((nodes[0].machine.alive(), launched(&nodes[1..])), (vec![process], 0));
}

// E10c
#[tokio::test(start_paused = true)]
async fn an_owner_that_has_nothing_to_write_hears_of_its_successor_and_its_process_goes() {
    let world = World::new();
    let nodes = world.nodes(2).await;
    let (session, run, process) = nodes[0].busy_notebook().await;
    nodes[0].machine.finish(process, run);
    nodes[0].until(session, |view| view.runs.succeeded == 1).await;
    let reservation = nodes[1].context().reserve(session).expect("it is not there");
    resume(nodes[1].context(), &reservation, Instead::Of(silent())).await.unwrap();
    nodes[0].machine.until(|machine| machine.alive().is_empty().then_some(())).await;
    assert_eq!(nodes[0].machine.stops(process), [(StopWhy::Disowned, StopStep::Kill)]);
    nodes[0].until_gone(session).await;
}

// E4
#[tokio::test(start_paused = true)]
async fn what_was_frozen_goes_on_also_if_its_session_is_not_open() {
    let world = World::new();
    let nodes = world.nodes(2).await;
    let (session, _, _) = nodes[0].busy_notebook().await;
    nodes[1].until_listed(session, |listed| listed.has_kernel).await;
    let mut standing = nodes[0].cluster().standing.subscribe();
    nodes[0].context().broken(session, "as the test says".to_owned());
    nodes[0].gate.shut();
    standing.wait_for(|standing| matches!(standing, Standing::Isolated { .. })).await.unwrap();
    nodes[0].gate.open();
    nodes[0].until_ready().await;
    assert_eq!(nodes[0].machine.thawed(), [session]);
}

// E11
#[tokio::test(start_paused = true)]
async fn a_row_that_somebody_wrote_whose_claim_does_not_count_is_corrected() {
    let world = World::new();
    let nodes = world.nodes(3).await;
    let (session, run) = nodes[0].command(1, RestartPolicy::permanent()).await;
    let (refused, mut is_refused) = tokio::sync::watch::channel(false);
    let (refused, is_ill) = (Arc::new(refused), Arc::new(AtomicBool::new(true)));
    for one in &nodes[1..] {
        one.until_listed(session, |listed| listed.owner.is_some()).await;
        let (refused, is_ill) = (Arc::clone(&refused), Arc::clone(&is_ill));
        one.faults.set(move |operation| match operation {
            Operation::TableWrite if is_ill.load(Ordering::SeqCst) => {
                refused.send_replace(true);
                Fault::Unavailable
            }
            _ => Fault::None,
        });
    }
    nodes[0].kill();
    let claim = world.until_owner(session, |claim| claim.node != id(1)).await;
    is_refused.wait_for(|is| *is).await.unwrap();
    is_ill.store(false, Ordering::SeqCst);
    // The other one has claimed it in the same epoch, in vain, and was the one to write the row.
    let other = nodes[1..].iter().find(|one| one.context().who.node != claim.node).unwrap();
    other.context().index_owner(session, claim.epoch).await.unwrap();
    heir(&nodes, claim.node).machine.given(run).await;
    assert_eq!(
        world.owner(session).await.map(|owner| owner.node),
        Some(claim.node),
        "whose claim counts has it"
    );
}

// E11
#[tokio::test(start_paused = true)]
async fn a_takeover_that_was_cut_short_behind_its_claim_is_finished() {
    let world = World::new();
    let nodes = world.nodes(2).await;
    let (session, run) = nodes[0].command(1, RestartPolicy::permanent()).await;
    nodes[1].until_listed(session, |listed| listed.owner.is_some()).await;
    let (mut is_claimed, mut is_listed, mut left) = (false, false, 3);
    nodes[1].faults.set(move |operation| {
        match operation {
            Operation::Append { lane: Lane::Control, .. } => is_claimed = true,
            Operation::TableWrite => is_listed = is_claimed,
            Operation::Read { .. } if is_listed && left > 0 => {
                left -= 1;
                return Fault::Unavailable;
            }
            Operation::Append { .. } | Operation::Read { .. } | Operation::TableRead => {}
        }
        Fault::None
    });
    nodes[0].kill();
    let (_, attempt) = nodes[1].machine.given(run).await;
    assert_eq!(attempt.0, 2);
}

// E11
#[tokio::test(start_paused = true)]
async fn a_claimant_whose_store_fails_lets_others_and_tries_again() {
    let world = World::new();
    let nodes = world.nodes(2).await;
    let (session, run) = nodes[0].command(1, RestartPolicy::permanent()).await;
    nodes[1].until_listed(session, |listed| listed.owner.is_some()).await;
    let mut left = 5;
    nodes[1].faults.set(move |operation| match operation {
        Operation::Append { lane: Lane::Control, .. } if left > 0 => {
            left -= 1;
            if left % 2 == 0 { Fault::Unavailable } else { Fault::LostAck }
        }
        _ => Fault::None,
    });
    nodes[0].kill();
    let claim = world.until_owner(session, |claim| claim.node == id(2)).await;
    nodes[1].machine.given(run).await;
    assert_eq!(claim.epoch.0, 2, "a claim with a lost answer is one claim");
}

// E11: the store fails once the session is claimed; what is tried again is still the takeover of a lost node.
#[tokio::test(start_paused = true)]
async fn a_takeover_that_is_tried_again_after_its_claim_is_still_one() {
    let world = World::new();
    let nodes = world.nodes(2).await;
    let (session, run) = nodes[0].command(1, RestartPolicy::permanent()).await;
    nodes[1].until_listed(session, |listed| listed.owner.is_some()).await;
    let (mut is_claimed, mut left) = (false, 2);
    nodes[1].faults.set(move |operation| match operation {
        Operation::Append { lane: Lane::Control, .. } => {
            is_claimed = true;
            Fault::None
        }
        Operation::Read { session: read } if read == session && is_claimed && left > 0 => {
            left -= 1;
            Fault::Unavailable
        }
        _ => Fault::None,
    });
    nodes[0].kill();
    nodes[1].machine.given(run).await;
    let takeovers = nodes[1].node.takeovers(session).await.unwrap();
    assert_eq!(takeovers.len(), 1, "{takeovers:?}");
    let view = nodes[1].until(session, |view| view.last_report.is_some()).await;
    assert_eq!(view.last_report.unwrap().code, outlive_core::diagnosis::CauseCode::NodeLost);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_died_as_a_whole_takes_up_what_it_had() {
    let world = World::new();
    let nodes = world.nodes(2).await;
    let (first, first_run) = nodes[0].command(1, RestartPolicy::permanent()).await;
    let (second, second_run) = nodes[1].command(2, RestartPolicy::permanent()).await;
    for one in &nodes {
        one.kill();
    }
    // One of them comes back, on an empty machine; the other never does.
    let back = nodes[0].reborn(&world, 2).await;
    for (session, run) in [(first, first_run), (second, second_run)] {
        world.until_owner(session, |claim| claim.node == id(1) && claim.boot == member(1, 2).boot).await;
        assert_eq!(back.machine.given(run).await.1.0, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_watched_is_taken_over_first() {
    let world = World::new();
    let nodes = world.nodes(2).await;
    let mut sessions = Vec::new();
    for number in 1..=20 {
        sessions.push(nodes[0].command(number, RestartPolicy::permanent()).await);
    }
    let (watched, run) = sessions[19];
    let how = crate::api::AttachRun { cursor: Default::default(), follow: true, cancel: false };
    nodes[1].until_listed(watched, |listed| listed.owner.is_some()).await;
    let watching = nodes[1].node.attach_run(watched, run, how).await.unwrap();
    let claimed: Arc<Mutex<Vec<SessionId>>> = Arc::default();
    let claims = Arc::clone(&claimed);
    nodes[1].faults.set(move |operation| {
        if let Operation::Append { session, lane: Lane::Control, .. } = operation {
            claims.lock().unwrap().push(session);
        }
        Fault::None
    });
    nodes[0].kill();
    for (_, run) in &sessions {
        nodes[1].machine.given(*run).await;
    }
    assert_eq!(launched(&nodes[1..]), 20);
    let claimed = claimed.lock().unwrap().clone();
    assert_eq!((claimed.len(), claimed[0]), (20, watched), "{claimed:?}");
    drop(watching);
}
