//! Stories of many seeds, in which nothing may go wrong; and stories that are told twice.

use outlive_sim::campaign::Campaign;
use outlive_sim::story::Story;
use outlive_sim::trace::Telling;

/// How many seeds one test takes.
const SEEDS: u64 = 40;

fn all_is_well(is_cluster: bool, nth: u64) {
    let campaign = Campaign { is_cluster, only: Vec::new() };
    let found = campaign.run(nth * SEEDS..(nth + 1) * SEEDS, 1, |_| {});
    let Some(first) = found.first() else { return };
    let alone = if is_cluster { "" } else { " --alone" };
    panic!(
        "{} of {SEEDS} seeds went wrong, the first of them {}:\n  {}\nsee it step by step: cargo xtask sim --seed {}{alone} --trace",
        found.len(),
        first.seed,
        first.wrong.join("\n  "),
        first.seed,
    );
}

/// Each is a test of its own, so that they run side by side.
macro_rules! seeds {
    ($(($name:ident, $is_cluster:literal, $nth:literal),)*) => {
        $(#[test]
        fn $name() {
            all_is_well($is_cluster, $nth);
        })*
    };
}

// E12 E6 E7 E8 E9 E10b
seeds! {
    (nodes_lose_nothing_0, true, 0),
    (nodes_lose_nothing_1, true, 1),
    (nodes_lose_nothing_2, true, 2),
    (nodes_lose_nothing_3, true, 3),
    (nodes_lose_nothing_4, true, 4),
    (nodes_lose_nothing_5, true, 5),
    (nodes_lose_nothing_6, true, 6),
    (nodes_lose_nothing_7, true, 7),
    (nodes_lose_nothing_8, true, 8),
    (nodes_lose_nothing_9, true, 9),
}

// E12 A6 C7
seeds! {
    (a_node_alone_loses_nothing_0, false, 0),
    (a_node_alone_loses_nothing_1, false, 1),
    (a_node_alone_loses_nothing_2, false, 2),
}

/// Each has found something, which was mended.
#[test]
fn what_went_wrong_once_does_not_again() {
    let campaign = Campaign { is_cluster: true, only: Vec::new() };
    for seed in [424, 581, 971, 974, 1_350, 1_558, 1_682, 1_702, 2_005] {
        let found = campaign.run(seed..seed + 1, 1, |_| {});
        assert!(found.is_empty(), "seed {seed}: {:?}", found[0].wrong);
    }
}

#[test]
fn one_seed_is_one_story() {
    for (seed, is_cluster) in [(3, false), (7, false), (3, true), (9, true), (13, true)] {
        let story = Story::of(seed, is_cluster);
        let (once, twice) = (story.tell(Telling::Silent), story.tell(Telling::Silent));
        assert_eq!(once.number, twice.number, "{story:?}");
        let other = Story::of(seed + 1, is_cluster).tell(Telling::Silent);
        assert_ne!(once.number, other.number, "another seed is another story");
    }
}
