//! A story that is told twice.

use outlive_sim::story::Story;
use outlive_sim::trace::Telling;

#[test]
fn one_seed_is_one_story() {
    for (seed, is_cluster) in [(3, false), (7, false), (11, false)] {
        let story = Story::of(seed, is_cluster);
        let (once, twice) = (story.tell(Telling::Silent), story.tell(Telling::Silent));
        assert_eq!(once.number, twice.number, "{story:?}");
        let other = Story::of(seed + 1, is_cluster).tell(Telling::Silent);
        assert_ne!(once.number, other.number, "another seed is another story");
    }
}
