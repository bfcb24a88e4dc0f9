//! Stories of many seeds, in which nothing may go wrong; and stories that are told twice.

use outlive_sim::campaign::Campaign;
use outlive_sim::story::{Cast, Story};
use outlive_sim::trace::Telling;

/// How many seeds one test takes.
const fn seeds(cast: Cast) -> u64 {
    match cast {
        Cast::Cluster | Cast::Alone => 40,
        Cast::Visitors => 20,
    }
}

fn all_is_well(cast: Cast, nth: u64) {
    let (campaign, seeds) = (Campaign { cast, only: Vec::new() }, seeds(cast));
    let found = campaign.run(nth * seeds..(nth + 1) * seeds, 1, |_| {});
    let Some(first) = found.first() else { return };
    let who = match cast {
        Cast::Cluster => "",
        Cast::Alone => " --alone",
        Cast::Visitors => " --visitors",
    };
    panic!(
        "{} of {seeds} seeds went wrong, the first of them {}:\n  {}\nsee it step by step: cargo xtask sim --seed {}{who} --trace",
        found.len(),
        first.seed,
        first.wrong.join("\n  "),
        first.seed,
    );
}

/// Each is a test of its own, so that they run side by side.
macro_rules! seeds {
    ($(($name:ident, $cast:ident, $nth:literal),)*) => {
        $(#[test]
        fn $name() {
            all_is_well(Cast::$cast, $nth);
        })*
    };
}

// E12 E6 E7 E8 E9 E10b
seeds! {
    (nodes_lose_nothing_0, Cluster, 0),
    (nodes_lose_nothing_1, Cluster, 1),
    (nodes_lose_nothing_2, Cluster, 2),
    (nodes_lose_nothing_3, Cluster, 3),
    (nodes_lose_nothing_4, Cluster, 4),
    (nodes_lose_nothing_5, Cluster, 5),
    (nodes_lose_nothing_6, Cluster, 6),
    (nodes_lose_nothing_7, Cluster, 7),
    (nodes_lose_nothing_8, Cluster, 8),
    (nodes_lose_nothing_9, Cluster, 9),
}

// E12 A6
seeds! {
    (a_node_alone_loses_nothing_0, Alone, 0),
    (a_node_alone_loses_nothing_1, Alone, 1),
    (a_node_alone_loses_nothing_2, Alone, 2),
}

// C7
seeds! {
    (whoever_comes_back_to_a_session_that_leaves_finds_all_0, Visitors, 0),
    (whoever_comes_back_to_a_session_that_leaves_finds_all_1, Visitors, 1),
    (whoever_comes_back_to_a_session_that_leaves_finds_all_2, Visitors, 2),
}

/// Each has found something, which was mended.
// C7
#[test]
fn what_visitors_found_wrong_once_they_find_no_more() {
    let campaign = Campaign { cast: Cast::Visitors, only: Vec::new() };
    for seed in [10, 135] {
        let found = campaign.run(seed..seed + 1, 1, |_| {});
        assert!(found.is_empty(), "seed {seed}: {:?}", found[0].wrong);
    }
}

/// Each has found something, which was mended.
#[test]
fn what_went_wrong_once_does_not_again() {
    let campaign = Campaign { cast: Cast::Cluster, only: Vec::new() };
    for seed in [424, 581, 971, 974, 1_350, 1_558, 1_682, 1_702, 2_005] {
        let found = campaign.run(seed..seed + 1, 1, |_| {});
        assert!(found.is_empty(), "seed {seed}: {:?}", found[0].wrong);
    }
}

#[test]
fn one_seed_is_one_story() {
    for (seed, cast) in
        [(3, Cast::Alone), (7, Cast::Alone), (3, Cast::Cluster), (9, Cast::Cluster), (13, Cast::Cluster)]
    {
        let story = Story::of(seed, cast);
        let (once, twice) = (story.tell(Telling::Silent), story.tell(Telling::Silent));
        assert_eq!(once.number, twice.number, "{story:?}");
        let other = Story::of(seed + 1, cast).tell(Telling::Silent);
        assert_ne!(once.number, other.number, "another seed is another story");
    }
}
