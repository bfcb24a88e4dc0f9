//! Many seeds.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::story::{Cast, Story, Trouble};
use crate::trace::Telling;

/// After so many seeds it says how far it is.
const SAYS_AFTER: u64 = 100;

/// Which stories are told.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// Who is in them.
    pub cast: Cast,
    /// Only this goes wrong; empty: what the seed says.
    pub only: Vec<Trouble>,
}

/// A seed that went wrong.
#[derive(Debug)]
pub struct Found {
    /// Which.
    pub seed: u64,
    /// What did not hold.
    pub wrong: Vec<String>,
}

/// What is said while it goes on.
#[derive(Clone, Copy, Debug)]
pub enum Says<'a> {
    /// So many seeds are done.
    Done(u64),
    /// This one went wrong, and how.
    Found(u64, &'a [String]),
}

impl Campaign {
    /// The story of a seed.
    #[must_use]
    pub fn story(&self, seed: u64) -> Story {
        let mut story = Story::of(seed, self.cast);
        if !self.only.is_empty() {
            story.troubles.clone_from(&self.only);
        }
        story
    }

    /// Tells all stories, so many at a time, and says which went wrong.
    ///
    /// # Panics
    /// Never: a story that panics went wrong.
    pub fn run(&self, seeds: Range<u64>, threads: usize, says: impl Fn(Says<'_>) + Sync) -> Vec<Found> {
        let (next, done) = (AtomicU64::new(seeds.start), AtomicU64::new(0));
        let found: Mutex<BTreeMap<u64, Vec<String>>> = Mutex::default();
        std::thread::scope(|scope| {
            for _ in 0..threads.max(1) {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= seeds.end {
                            return;
                        }
                        let wrong = self.wrong(seed);
                        if !wrong.is_empty() {
                            says(Says::Found(seed, &wrong));
                            found.lock().expect("nothing panics while it holds this").insert(seed, wrong);
                        }
                        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                        if done.is_multiple_of(SAYS_AFTER) {
                            says(Says::Done(done));
                        }
                    }
                });
            }
        });
        let found = found.into_inner().expect("nothing panicked while it held this");
        found.into_iter().map(|(seed, wrong)| Found { seed, wrong }).collect()
    }

    fn wrong(&self, seed: u64) -> Vec<String> {
        let told = catch_unwind(AssertUnwindSafe(|| self.story(seed).tell(Telling::Silent)));
        match told {
            Ok(told) => told.wrong,
            Err(panic) => {
                let said = panic.downcast_ref::<String>().cloned();
                let said = said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
                vec![format!("it panicked: {}", said.unwrap_or_default())]
            }
        }
    }
}
