//! Who is alive.

use outlive_core::failover::liveness::{Guard, Output, Why};
use outlive_core::limits::{CLUSTER_MAJORITY_MS, CLUSTER_NEIGHBOURS, CLUSTER_REUNION_MS};
use proptest::prelude::*;

use crate::world::{PACE, Wire, World, member, ms};

/// How long a death may take to be noticed: the silence, a beat's distance and the way.
const NOTICED_MS: u64 = 360;

fn count(outputs: &[Output], is: impl Fn(&Output) -> bool) -> usize {
    outputs.iter().filter(|output| is(output)).count()
}

#[test]
fn one_of_three_is_killed_and_each_other_is_told_once_in_time() {
    for moment in [0, 13, 40, 77, 99] {
        let mut world = World::new(3);
        world.run(2_000 + moment);
        world.kill(0);
        let killed = world.now();
        world.run(10_000);
        for node in [1, 2] {
            let lost = world.lost_by(node);
            assert_eq!(lost.len(), 1, "{lost:?}");
            let (who, why, at) = lost[0];
            assert_eq!((who, why), (member(0, 0), Why::Silent));
            assert!(at - killed <= NOTICED_MS, "noticed after {} ms", at - killed);
        }
    }
}

#[test]
fn nobody_is_lost_in_ten_minutes_of_ordinary_delays() {
    let mut world = World::with_delays(3, vec![1, 5, 40, 2, 90, 3]);
    world.run(600_000);
    assert!((0..3).all(|node| world.lost_by(node).is_empty()), "{:?}", world.told);
}

#[test]
fn the_other_of_two_is_noticed_as_fast() {
    let mut world = World::new(2);
    world.run(2_000);
    world.kill(1);
    world.run(NOTICED_MS + 1);
    assert_eq!(world.lost_by(0).len(), 1);
}

#[test]
fn two_of_three_at_once_are_believed_once_it_lasts_and_the_store_answers() {
    let mut world = World::new(3);
    world.run(2_000);
    world.kill(1);
    world.kill(2);
    world.run(1_000);
    assert!(world.lost_by(0).is_empty(), "more than half of the cluster is silent at once");
    assert!(world.told_by(0).contains(&Output::Held(Guard::Majority)));
    world.run(CLUSTER_MAJORITY_MS);
    assert_eq!(world.lost_by(0).len(), 2);
    assert!(world.told_by(0).contains(&Output::Released(Guard::Majority)));
}

#[test]
fn two_of_three_at_once_are_not_believed_without_a_store() {
    let mut world = World::new(3);
    world.run(2_000);
    world.store_answers = false;
    world.kill(1);
    world.kill(2);
    world.run(60_000);
    assert!(world.lost_by(0).is_empty(), "perhaps this node is on the wrong side of a cut");
    world.store_answers = true;
    world.run(200);
    assert_eq!(world.lost_by(0).len(), 2);
}

#[test]
fn one_after_the_other_is_no_majority() {
    let mut world = World::new(3);
    world.run(2_000);
    world.kill(1);
    world.run(1_000);
    world.kill(2);
    world.run(NOTICED_MS + 1);
    assert_eq!(world.lost_by(0).len(), 2);
    assert_eq!(count(&world.told_by(0), |output| *output == Output::Held(Guard::Majority)), 0);
}

#[test]
fn a_node_that_is_cut_off_loses_nobody_and_is_lost() {
    for wire in [Wire::Swallows, Wire::Down] {
        let mut world = World::new(3);
        world.run(2_000);
        world.wire(0, wire);
        let cut = world.now();
        world.run(20_000);
        assert!(world.lost_by(0).is_empty(), "it cannot know");
        assert!(!world.is_well(0));
        assert!(world.lost_by(1).iter().all(|(who, _, at)| *who == member(0, 0) && at - cut <= NOTICED_MS));
        assert_eq!(world.lost_by(1).len(), 1);
        world.wire(0, Wire::Whole);
        world.run(5_000);
        assert!(world.is_well(0));
        assert!(world.lost_by(0).is_empty());
        let guard = if wire == Wire::Down { Guard::Connection } else { Guard::OwnBeats };
        assert!(world.told_by(0).contains(&Output::Held(guard)));
        assert_eq!(count(&world.told_by(0), |output| matches!(output, Output::Rearmed { .. })), 1);
        let back = count(&world.told_by(1), |output| *output == Output::Joined(member(0, 0)));
        assert_eq!(back, 2, "first heard, and heard again");
    }
}

/// Row E5.
#[test]
fn an_outage_of_the_service_kills_nobody_and_afterwards_a_death_is_noticed_as_fast_as_ever() {
    let mut world = World::new(3);
    world.run(2_000);
    for _restart in 0..2 {
        for node in 0..3 {
            world.wire(node, Wire::Down);
        }
        world.run(5_000);
        // They do not come back at the same time.
        world.wire(1, Wire::Whole);
        world.run(900);
        world.wire(0, Wire::Whole);
        world.run(2_000);
        world.wire(2, Wire::Whole);
        world.run(5_000);
        assert!((0..3).all(|node| world.lost_by(node).is_empty()), "{:?}", world.told);
    }
    world.kill(2);
    world.run(NOTICED_MS + 1);
    assert_eq!((world.lost_by(0).len(), world.lost_by(1).len()), (1, 1));
}

#[test]
fn who_died_during_an_outage_is_lost_when_it_had_time_to_come_back() {
    let mut world = World::new(3);
    world.run(2_000);
    (0..3).for_each(|node| world.wire(node, Wire::Down));
    world.run(3_000);
    world.kill(2);
    world.wire(0, Wire::Whole);
    world.wire(1, Wire::Whole);
    world.run(CLUSTER_REUNION_MS - 500);
    assert!(world.lost_by(0).is_empty());
    world.run(1_000);
    assert_eq!(world.lost_by(0).len(), 1);
}

#[test]
fn a_frozen_node_takes_nobody_for_dead_when_it_goes_on() {
    let mut world = World::new(3);
    world.run(2_000);
    world.freeze(0);
    world.run(10_000);
    assert_eq!(world.lost_by(1).len(), 1, "it was silent");
    world.go_on(0);
    world.run(5_000);
    assert!(world.lost_by(0).is_empty());
    let woke = world.told_by(0).into_iter().find_map(|output| match output {
        Output::Woke { stall } => Some(ms(stall)),
        _ => None,
    });
    assert!(woke.is_some_and(|stall| stall >= 9_900), "{woke:?}");
}

#[test]
fn a_clock_that_is_set_is_no_sleep() {
    let mut world = World::new(2);
    world.run(2_000);
    for to in [0, 7_200_000, world.now()] {
        world.sets_clock(0, to);
        world.run(1_000);
    }
    let woke = |output: &Output| matches!(output, Output::Woke { .. } | Output::Held(_));
    assert_eq!(count(&world.told_by(0), woke), 0);
    assert!(world.is_well(0) && world.lost_by(0).is_empty());
}

#[test]
fn a_machine_that_slept_knows_it_by_the_other_clock() {
    let mut world = World::new(2);
    world.run(2_000);
    world.sleeps(0, 7_200_000);
    let woke = |output: &Output| matches!(output, Output::Woke { stall } if ms(*stall) >= 7_200_000);
    assert_eq!(count(&world.told_by(0), woke), 1);
    world.run(1_000);
    assert!(world.is_well(0) && world.lost_by(0).is_empty());
}

#[test]
fn a_goodbye_is_a_loss_at_once_and_the_only_one() {
    let mut world = World::new(3);
    world.run(2_000);
    world.leave(2);
    world.run(2);
    assert_eq!(world.lost_by(0), [(member(2, 0), Why::Left, world.now() - 1)]);
    world.echo(0, member(2, 0), 3);
    world.run(10_000);
    assert_eq!(world.lost_by(0).len(), 1, "a late beat of its is no life");
    assert_eq!(count(&world.told_by(0), |output| *output == Output::Joined(member(2, 0))), 1);
}

/// Row E7.
#[test]
fn the_next_life_of_a_node_ends_the_old_one_and_is_not_confused_with_it() {
    let mut world = World::new(2);
    world.run(2_000);
    world.kill(1);
    world.run(100);
    world.restart(1);
    world.run(50);
    let lost: Vec<_> = world.lost_by(0).iter().map(|(who, why, _)| (*who, *why)).collect();
    assert_eq!(lost, [(member(1, 0), Why::Reborn)]);
    world.echo(0, member(1, 0), 1_000);
    world.run(10_000);
    assert_eq!(world.lost_by(0).len(), 1, "a late beat of the old life ends nobody");
    world.kill(1);
    world.run(NOTICED_MS + 1);
    assert_eq!(world.lost_by(0)[1].0, member(1, 1));
}

#[test]
fn a_connection_that_was_seen_to_end_accelerates_and_an_answer_stops_it() {
    let mut world = World::new(3);
    world.run(2_050);
    world.kill(2);
    world.disconnects(0, 2);
    let killed = world.now();
    // It has only connected again.
    world.disconnects(0, 1);
    world.run(5_000);
    let lost = world.lost_by(0);
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert_eq!((lost[0].0, lost[0].1), (member(2, 0), Why::Disconnected));
    assert!(lost[0].2 - killed <= 220, "{lost:?}");
    assert!(world.told_by(0).contains(&Output::Cleared(member(1, 0))));
    world.disconnects(0, 2);
    world.run(5_000);
    assert_eq!(world.lost_by(0).len(), 1, "one death is told once");
}

#[test]
fn in_a_large_cluster_few_ask_and_all_know() {
    let mut world = World::new(40);
    world.run(2_000);
    world.kill(7);
    world.run(NOTICED_MS + 20);
    let asked = (0..40)
        .filter(|node| count(&world.told_by(*node), |output| *output == Output::Suspected(member(7, 0))) > 0);
    assert_eq!(asked.count(), CLUSTER_NEIGHBOURS);
    let lost = (0..40).filter(|node| world.lost_by(*node).len() == 1).count();
    assert_eq!(lost, 39);
    // Those who watched it and were watched by it, at once.
    let gone = [0, 3, 5, 9, 11, 13, 21, 34];
    gone.into_iter().for_each(|node| world.kill(node));
    world.run(30_000);
    let left = (0..40).filter(|node| world.runs(*node));
    for node in left {
        assert_eq!(world.lost_by(node).len(), 1 + gone.len(), "by {node}");
    }
}

/// What befalls somebody.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Freeze(usize, u64),
    Cut(usize, u64),
    Down(usize, u64),
    DownAll(u64),
    Restart(usize),
    Pass(u64),
}

fn fault(nodes: usize) -> impl Strategy<Value = Fault> {
    let (node, time) = (0..nodes, 1_u64..3_000);
    prop_oneof![
        (node.clone(), time.clone()).prop_map(|(node, ms)| Fault::Freeze(node, ms)),
        (node.clone(), time.clone()).prop_map(|(node, ms)| Fault::Cut(node, ms)),
        (node.clone(), time.clone()).prop_map(|(node, ms)| Fault::Down(node, ms)),
        time.clone().prop_map(Fault::DownAll),
        node.prop_map(Fault::Restart),
        time.prop_map(Fault::Pass),
    ]
}

fn befall(world: &mut World, nodes: usize, fault: Fault) {
    match fault {
        Fault::Freeze(node, ms) => {
            world.freeze(node);
            world.run(ms);
            world.go_on(node);
        }
        Fault::Cut(node, ms) => {
            world.wire(node, Wire::Swallows);
            world.run(ms);
            world.wire(node, Wire::Whole);
        }
        Fault::Down(node, ms) => {
            world.wire(node, Wire::Down);
            world.run(ms);
            world.wire(node, Wire::Whole);
        }
        Fault::DownAll(ms) => {
            (0..nodes).for_each(|node| world.wire(node, Wire::Down));
            world.run(ms);
            (0..nodes).for_each(|node| world.wire(node, Wire::Whole));
        }
        Fault::Restart(node) => {
            world.kill(node);
            world.restart(node);
        }
        Fault::Pass(ms) => world.run(ms),
    }
}

/// Nobody was declared dead for silence who had been heard just before, and each death was told once.
fn check(world: &World) {
    for told in &world.told {
        if let Output::Lost { member, why: Why::Silent, .. } = told.output {
            let silence = told.at - told.heard.unwrap_or(0);
            assert!(silence >= ms(PACE.suspect), "{member:?} lost after {silence} ms of silence: {told:?}");
        }
    }
    let mut there = std::collections::BTreeSet::new();
    for told in &world.told {
        let teller = (told.by, told.life);
        match told.output {
            Output::Joined(member) => assert!(there.insert((teller, member)), "{member:?} is there twice"),
            Output::Lost { member, .. } => {
                assert!(there.remove(&(teller, member)), "{member:?} is lost twice");
            }
            _ => {}
        }
    }
}

// E7: a beat of the life before comes late to one that is too young to have heard that life.
#[test]
fn a_late_beat_of_a_life_that_was_not_known_hides_nobody() {
    let mut delays = vec![1; 14];
    delays[4] = 57;
    let mut world = World::with_delays(4, delays);
    world.run(1_000);
    for fault in [Fault::Pass(2_057), Fault::Restart(1), Fault::Freeze(3, 43), Fault::Restart(0)] {
        befall(&mut world, 4, fault);
    }
    world.run(2_000);
    check(&world);
    let who = world.me(0);
    let told = world.told_by(1);
    assert!(told.contains(&Output::Joined(who)), "{told:?}");
    assert!(
        !told.iter().any(|output| matches!(output, Output::Lost { member, .. } if *member == who)),
        "{told:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_false_deaths_and_no_missed_ones(
        nodes in 2_usize..6,
        delays in prop::collection::vec(1_u64..60, 1..20),
        faults in prop::collection::vec(fault(6), 0..12),
        dead in prop::collection::btree_set(0_usize..6, 0..5),
    ) {
        let mut world = World::with_delays(nodes, delays);
        world.run(1_000);
        for fault in faults {
            let fits = match fault {
                Fault::Freeze(node, _) | Fault::Cut(node, _) | Fault::Down(node, _) | Fault::Restart(node) => {
                    node < nodes
                }
                Fault::DownAll(_) | Fault::Pass(_) => true,
            };
            if fits {
                befall(&mut world, nodes, fault);
            }
        }
        let dead: Vec<usize> = dead.into_iter().filter(|node| *node < nodes).collect();
        let gone: Vec<_> = dead.iter().map(|node| world.me(*node)).collect();
        dead.iter().for_each(|node| world.kill(*node));
        // All that a cut allows, then the wait for a majority, and one more for those who are noticed after that.
        world.run(CLUSTER_REUNION_MS + 2 * CLUSTER_MAJORITY_MS + 1_000);
        check(&world);
        for node in (0..nodes).filter(|node| world.runs(*node)) {
            prop_assert!(world.is_well(node));
            let told = world.told_by(node);
            let is_there = |who| {
                told.iter().rev().find_map(|output| match output {
                    Output::Joined(member) if *member == who => Some(true),
                    Output::Lost { member, .. } if *member == who => Some(false),
                    _ => None,
                })
            };
            for who in &gone {
                prop_assert!(is_there(*who) != Some(true), "{node} does not know that {who:?} is dead");
            }
            for other in (0..nodes).filter(|other| *other != node && world.runs(*other)) {
                prop_assert_eq!(is_there(world.me(other)), Some(true), "{} does not see {}", node, other);
            }
        }
    }

    /// Long delays and losses of single messages alone.
    #[test]
    fn nobody_is_lost_while_beats_come_in_time(delays in prop::collection::vec(1_u64..140, 1..40)) {
        let mut world = World::with_delays(4, delays);
        world.run(5_000);
        for node in 0..4 {
            prop_assert!(world.lost_by(node).is_empty(), "{:?}", world.lost_by(node));
        }
    }
}
