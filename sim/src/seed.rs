//! Random numbers from a seed.
//!
//! A draw depends on the seed and on what it is for, the n-th of its kind: that two unrelated things change places
//! changes nothing else. So a story that is told again with one fault less stays nearly the same.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

/// A sequence of random numbers (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of this range.
    ///
    /// # Panics
    /// When the range is empty.
    pub fn of(&mut self, range: Range<u64>) -> u64 {
        assert!(range.start < range.end, "there is no number in {range:?}");
        range.start + self.number() % (range.end - range.start)
    }

    /// A place in a list of so many.
    pub fn place(&mut self, n: usize) -> usize {
        usize::try_from(self.of(0..n as u64)).expect("it is less than a usize")
    }

    /// One of these.
    pub fn one<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.place(all.len())]
    }

    /// Whether something happens that happens so many times in a thousand.
    pub fn happens(&mut self, in_a_thousand: u64) -> bool {
        self.of(0..1_000) < in_a_thousand
    }

    /// So long, in microseconds.
    pub fn micros(&mut self, range: Range<u64>) -> Duration {
        // To the nanosecond, so that hardly ever two things happen at once.
        Duration::from_nanos(self.of(range.start * 1_000..range.end * 1_000))
    }

    /// So long, in milliseconds.
    pub fn millis(&mut self, range: Range<u64>) -> Duration {
        self.micros(range.start * 1_000..range.end * 1_000)
    }
}

/// A seed, and what was drawn from it.
#[derive(Debug)]
pub struct Seed {
    seed: u64,
    drawn: Mutex<BTreeMap<u64, u64>>,
}

impl Seed {
    /// Nothing has been drawn yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, drawn: Mutex::default() }
    }

    /// The numbers for something: others each time that it is done.
    pub fn draw(&self, what: impl Hash) -> Random {
        // Its keys are constants, unlike those of a map.
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        let what = hasher.finish();
        let mut drawn = self.drawn.lock().expect("nothing panics while it holds this");
        let nth = drawn.entry(what).or_default();
        *nth += 1;
        let mut random = Random::new(self.seed ^ what ^ nth.wrapping_mul(0xd6e8_feb8_6659_fd93));
        random.number();
        random
    }
}
