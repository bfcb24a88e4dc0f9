//! What is taken over, by whom and when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use outlive_core::failover::Member;
use outlive_core::failover::plan::{Orphan, Plan, Urgency, heir, rank};
use outlive_core::id::{BootId, NodeId, SessionId};
use outlive_core::limits::{TAKEOVER_RETRY_MS, TAKEOVER_STEP_MS, TAKEOVERS_AT_ONCE};
use outlive_core::time::Tick;
use proptest::prelude::*;
use uuid::Uuid;

const GRACE: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(TAKEOVER_STEP_MS);

fn node(n: u128) -> NodeId {
    NodeId::from_uuid(Uuid::from_u128(n + 1))
}

fn session(n: u128) -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(n + 1_000))
}

fn dead(n: u128) -> Member {
    Member { node: node(90 + n), boot: BootId::from_uuid(Uuid::from_u128(n)) }
}

fn orphan(n: u128) -> Orphan {
    Orphan { session: session(n), owner: Some(dead(0)), has_kernel: false, urgency: Urgency::Works }
}

fn plan(me: u128, nodes: u128) -> Plan {
    let mut plan = Plan::new(node(me), GRACE);
    plan.claimants((0..nodes).map(node));
    plan
}

fn sessions(due: &[Orphan]) -> Vec<SessionId> {
    due.iter().map(|orphan| orphan.session).collect()
}

#[test]
fn the_first_claims_at_once_and_each_next_one_a_step_later() {
    let mut at = BTreeMap::new();
    for me in 0..4 {
        let mut plan = plan(me, 4);
        plan.lost(orphan(1), Tick(7));
        let order = rank(session(1), node(me), &(0..4).map(node).collect()).unwrap();
        at.insert(order, plan.next_deadline().unwrap().since(Tick(7)));
    }
    assert_eq!(at.into_values().collect::<Vec<_>>(), [Duration::ZERO, STEP, STEP * 2, STEP * 3]);
    assert_eq!(
        heir(session(1), (0..4).map(node)),
        (0..4)
            .map(node)
            .find(|node| { rank(session(1), *node, &(0..4).map(self::node).collect()) == Some(0) })
    );
}

#[test]
fn the_node_of_a_live_kernel_is_waited_for_and_that_of_a_runner_is_not() {
    let mut plan = plan(0, 1);
    plan.lost(Orphan { has_kernel: true, ..orphan(1) }, Tick(0));
    plan.lost(orphan(2), Tick(0));
    assert_eq!(sessions(&plan.due(Tick(0))), [session(2)]);
    assert_eq!(plan.next_deadline(), Some(Tick(0) + GRACE));
    assert_eq!(sessions(&plan.due(Tick(0) + GRACE)), [session(1)]);
}

#[test]
fn what_is_watched_goes_first_then_what_works_and_no_more_than_so_many_at_once() {
    let mut plan = plan(0, 1);
    let urgency = |n: u128| match n % 3 {
        0 => Urgency::Watched,
        1 => Urgency::Works,
        _ => Urgency::Waits,
    };
    for n in 0..30 {
        plan.lost(Orphan { urgency: urgency(n), ..orphan(n) }, Tick(0));
    }
    let (mut order, mut most) = (Vec::new(), 0);
    loop {
        let due = plan.due(Tick(1));
        if due.is_empty() {
            break;
        }
        most = most.max(due.len());
        assert!(plan.due(Tick(1)).is_empty(), "nothing more before one of them has ended");
        for orphan in due {
            order.push(orphan.urgency);
            plan.settled(orphan.session);
        }
    }
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!((order.len(), most, plan.next_deadline()), (30, TAKEOVERS_AT_ONCE, None));
}

#[test]
fn two_notices_of_one_loss_are_one_and_the_loss_of_the_next_owner_is_another() {
    let mut plan = plan(0, 1);
    plan.lost(orphan(1), Tick(0));
    let begun = plan.due(Tick(0));
    assert_eq!(begun.len(), 1);
    plan.lost(orphan(1), Tick(5));
    assert!(plan.due(Tick(5)).is_empty(), "it is under way");
    plan.settled(session(1));
    let next = Orphan { owner: Some(dead(1)), ..orphan(1) };
    plan.lost(next, Tick(9));
    plan.lost(next, Tick(50));
    assert_eq!(plan.due(Tick(9)), [next]);
}

#[test]
fn who_has_no_room_lets_everybody_else_have_a_turn() {
    let mut plan = plan(0, 3);
    plan.lost(orphan(1), Tick(0));
    let at = plan.next_deadline().unwrap();
    plan.due(at);
    plan.refused(session(1), at);
    let again = plan.next_deadline().unwrap();
    assert!(again >= at + STEP * 3 + Duration::from_millis(TAKEOVER_RETRY_MS), "{:?}", again.since(at));
}

#[test]
fn who_may_claim_nothing_claims_nothing_until_it_may() {
    let mut plan = plan(0, 0);
    plan.lost(orphan(1), Tick(0));
    assert_eq!((plan.next_deadline(), plan.due(Tick(99)).len()), (None, 0));
    plan.claimants([node(0)]);
    assert_eq!(sessions(&plan.due(Tick(100))), [session(1)]);
}

#[test]
fn an_owner_that_nobody_has_heard_of_is_given_time_to_be_heard() {
    let mut plan = plan(0, 1);
    let patience = Duration::from_secs(2);
    assert!(!plan.is_nobody(dead(0), Tick(0), patience));
    assert!(plan.is_nobody(dead(0), Tick(0) + patience, patience));
    plan.heard(dead(0));
    assert!(!plan.is_nobody(dead(0), Tick(0) + patience * 2, patience), "it was heard in between");
}

/// Nodes that share one truth: who has claimed what. Some die instead of their first claim.
struct Nodes {
    plans: BTreeMap<u128, Plan>,
    doomed: BTreeSet<u128>,
    claimed: BTreeMap<SessionId, Vec<u128>>,
}

impl Nodes {
    fn turn(&mut self, me: u128, now: Tick) {
        let due = self.plans.get_mut(&me).expect("it lives").due(now);
        for orphan in due {
            if self.doomed.contains(&me) {
                self.plans.remove(&me);
                return;
            }
            let claims = self.claimed.entry(orphan.session).or_default();
            if claims.is_empty() {
                claims.push(me);
            }
            self.plans.get_mut(&me).expect("it lives").settled(orphan.session);
        }
    }
}

proptest! {
    #[test]
    fn somebody_claims_everything_in_bounded_time_whoever_dies_of_it(
        nodes in 1_u128..7,
        doomed in proptest::collection::btree_set(0_u128..7, 0..6),
        sessions in 1_u128..40,
        kernels in proptest::collection::vec(any::<bool>(), 40),
    ) {
        let doomed: BTreeSet<u128> = doomed.into_iter().filter(|node| *node + 1 < nodes).collect();
        let mut all = Nodes {
            plans: (0..nodes).map(|me| (me, plan(me, nodes))).collect(),
            doomed,
            claimed: BTreeMap::new(),
        };
        for plan in all.plans.values_mut() {
            for n in 0..sessions {
                plan.lost(Orphan { has_kernel: kernels[usize::try_from(n).unwrap()], ..orphan(n) }, Tick(0));
            }
        }
        // Nobody hears of a death among them: the steps alone bring it to an end.
        let mut last = Tick(0);
        while let Some((now, me)) = all.plans.iter().filter_map(|(me, plan)| Some((plan.next_deadline()?, *me))).min() {
            last = last.max(now);
            all.turn(me, last);
        }
        prop_assert_eq!(all.claimed.len() as u128, sessions);
        prop_assert!(all.claimed.values().all(|claims| claims.len() == 1));
        let bound = GRACE + STEP * u32::try_from(nodes).unwrap();
        prop_assert!(last.since(Tick(0)) <= bound, "{:?}", last.since(Tick(0)));
    }

    #[test]
    fn all_who_see_the_same_name_one_first(nodes in proptest::collection::btree_set(0_u128..50, 1..20), n in 0_u128..1_000) {
        let claimants: BTreeSet<NodeId> = nodes.iter().map(|n| node(*n)).collect();
        let firsts = claimants.iter().filter(|node| rank(session(n), **node, &claimants) == Some(0)).count();
        prop_assert_eq!(firsts, 1);
        prop_assert_eq!(rank(session(n), node(99), &claimants), None);
    }
}
