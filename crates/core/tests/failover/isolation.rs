//! What a node does that is cut off.

use std::collections::BTreeSet;
use std::time::Duration;

use outlive_core::failover::isolation::{Isolation, Order, Place, Round, Verdict};
use outlive_core::id::SessionId;
use outlive_core::limits::CLUSTER_ISOLATION_MS;
use outlive_core::time::Tick;
use proptest::prelude::*;
use uuid::Uuid;

const LIMIT: u64 = CLUSTER_ISOLATION_MS;

fn at(ms: u64) -> Tick {
    Tick(ms * 1_000_000)
}

fn session(n: u8) -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(u128::from(n)))
}

fn orders(isolation: &mut Isolation) -> Vec<Order> {
    isolation.orders().collect()
}

fn round(orders: &[Order]) -> Round {
    match orders {
        [Order::Look(round)] => *round,
        other => panic!("{other:?}"),
    }
}

/// A node that is cut off since 1,000 and isolated.
fn isolated() -> Isolation {
    let mut isolation = Isolation::default();
    isolation.observe(at(1_000 + LIMIT), Some(at(1_000)));
    assert_eq!(orders(&mut isolation), [Order::Isolate { since: at(1_000) }]);
    isolation
}

#[test]
fn a_cut_that_is_short_closes_nothing() {
    let mut isolation = Isolation::default();
    isolation.observe(at(1_000 + LIMIT - 1), Some(at(1_000)));
    isolation.observe(at(1_000 + LIMIT), None);
    assert_eq!(orders(&mut isolation), []);
    assert_eq!(isolation.place(), Place::Well);
}

/// Row E4: back after the limit, what is still its own goes on and what is not is given up.
#[test]
fn after_a_cut_each_session_is_looked_at_before_anything_goes_on() {
    let mut isolation = isolated();
    isolation.observe(at(9_000), Some(at(1_000)));
    assert_eq!(orders(&mut isolation), [], "it is told once");
    isolation.observe(at(9_100), None);
    let round = round(&orders(&mut isolation));
    isolation.begin(round, [session(1), session(2)]);
    isolation.looked(round, session(1), Verdict::Mine);
    assert_eq!(orders(&mut isolation), [Order::GoOn(session(1))]);
    assert_eq!(isolation.place(), Place::Reuniting);
    isolation.looked(round, session(2), Verdict::NotMine);
    assert_eq!(orders(&mut isolation), [Order::GiveUp(session(2)), Order::Rejoin]);
    assert_eq!(isolation.place(), Place::Well);
}

#[test]
fn a_node_without_sessions_is_back_at_once() {
    let mut isolation = isolated();
    isolation.observe(at(9_100), None);
    let round = round(&orders(&mut isolation));
    isolation.begin(round, []);
    assert_eq!(orders(&mut isolation), [Order::Rejoin]);
}

#[test]
fn an_answer_from_before_the_second_cut_lets_nothing_go_on() {
    let mut isolation = isolated();
    isolation.observe(at(9_000), None);
    let first = round(&orders(&mut isolation));
    isolation.begin(first, [session(1)]);
    isolation.observe(at(9_100), Some(at(9_050)));
    isolation.observe(at(9_050 + LIMIT), Some(at(9_050)));
    assert_eq!(orders(&mut isolation), [Order::Isolate { since: at(9_050) }]);
    isolation.looked(first, session(1), Verdict::Mine);
    assert_eq!(orders(&mut isolation), [], "it was ours before the second cut");
    isolation.observe(at(20_000), None);
    let second = round(&orders(&mut isolation));
    isolation.begin(first, [session(1)]);
    isolation.begin(second, [session(1)]);
    isolation.looked(second, session(1), Verdict::NotMine);
    assert_eq!(orders(&mut isolation), [Order::GiveUp(session(1)), Order::Rejoin]);
}

#[test]
fn a_link_that_flaps_has_the_sessions_looked_at_each_time_and_freezes_nothing() {
    let mut isolation = Isolation::default();
    for n in 0..5 {
        let since = at(10_000 * (n + 1));
        isolation.observe(since + Duration::from_millis(LIMIT / 2), Some(since));
        isolation.observe(since + Duration::from_millis(LIMIT / 2 + 1), None);
        isolation.rearmed();
        let round = round(&orders(&mut isolation));
        isolation.begin(round, [session(1)]);
        isolation.looked(round, session(1), Verdict::Mine);
        assert_eq!(orders(&mut isolation), [Order::GoOn(session(1))]);
        assert_eq!(isolation.place(), Place::Well);
    }
}

#[test]
fn a_machine_that_slept_for_hours_is_isolated_before_it_does_anything() {
    let mut isolation = Isolation::default();
    isolation.woke(at(1_000), Duration::from_secs(7_200));
    assert_eq!(orders(&mut isolation), [Order::Isolate { since: at(1_000) }]);
    isolation.observe(at(7_201_100), None);
    assert!(matches!(orders(&mut isolation)[..], [Order::Look(_)]));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Pass(u64),
    Cut,
    Heal,
    Stall(u64),
    Rearmed,
    Answer(u8, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1_u64..3_000).prop_map(Step::Pass),
        Just(Step::Cut),
        Just(Step::Heal),
        (500_u64..5_000).prop_map(Step::Stall),
        Just(Step::Rearmed),
        (0_u8..4, any::<bool>()).prop_map(|(session, mine)| Step::Answer(session, mine)),
    ]
}

proptest! {
    /// Nothing goes on after an isolation that was not looked at since; whoever is back is back in the end.
    #[test]
    fn nothing_goes_on_that_was_not_looked_at(steps in prop::collection::vec(step(), 0..60)) {
        let mut isolation = Isolation::default();
        let (mut now, mut amiss, mut current) = (10_000_u64, None, None);
        // Those that were asked about since the last isolation.
        let mut asked: BTreeSet<SessionId> = BTreeSet::new();
        let heal = [Step::Heal, Step::Pass(1), Step::Answer(0, true), Step::Answer(1, false), Step::Answer(2, true), Step::Answer(3, true)];
        for step in steps.into_iter().chain(heal) {
            match step {
                Step::Pass(ms) => now += ms,
                Step::Cut => { amiss.get_or_insert(at(now)); }
                Step::Heal => amiss = None,
                Step::Stall(ms) => {
                    isolation.woke(at(now), Duration::from_millis(ms));
                    now += ms;
                }
                Step::Rearmed => isolation.rearmed(),
                Step::Answer(n, mine) => if let Some(round) = current {
                    let verdict = if mine { Verdict::Mine } else { Verdict::NotMine };
                    isolation.looked(round, session(n), verdict);
                },
            }
            if !matches!(step, Step::Answer(..)) {
                isolation.observe(at(now), amiss);
            }
            loop {
                let given = orders(&mut isolation);
                if given.is_empty() { break; }
                for order in given {
                    match order {
                        Order::Isolate { .. } => asked.clear(),
                        Order::Look(round) => {
                            asked = (0..4).map(session).collect();
                            current = Some(round);
                            isolation.begin(round, asked.iter().copied());
                        }
                        Order::GoOn(id) | Order::GiveUp(id) => prop_assert!(asked.contains(&id)),
                        Order::Rejoin => prop_assert_eq!(isolation.place(), Place::Well),
                    }
                }
            }
        }
        prop_assert_eq!(isolation.place(), Place::Well);
    }
}
