//! Weeks in minutes: hundreds of sessions that are opened, edited, run, renamed, moved, killed and closed at random, with
//! a look once a minute at whether anything was lost, mixed up or left behind.
//!
//! ```text
//!  workers ── one session at a time, one thing at a time ──►  daemon  ◄── killed now and then
//!     │                                                         │
//!     └── every minute: all equal everywhere? ── nobody attached, all dormant ──► as at the beginning?
//! ```

mod look;
mod subject;

use std::path::PathBuf;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use look::Look;

use subject::Subject;

use crate::clock::{self, PATIENCE, eventually, within};
use crate::random::Random;
use crate::{Daemon, World};

/// Threads that use sessions.
const WORKERS: usize = 4;
/// Sessions whose cells are run by a real kernel, at a time.
const KERNELS_MAX: usize = 6;

/// The wait before what is too much is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How long, how many, and which.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How long each round is before it is looked at what is left.
    pub round: Duration,
    /// How many rounds.
    pub rounds: u64,
    /// How often the daemon is killed in the first half of the rounds. In the second half it lives on, so that what it
    /// would leak adds up.
    pub kill_period: Duration,
    /// How many sessions.
    pub sessions: usize,
    /// The same seed does the same things in the same order in each thread.
    pub seed: u64,
}

/// What all workers share.
struct Field<'a> {
    world: &'a World,
    /// Held by who uses the daemon, and for itself by who kills it.
    daemon: RwLock<()>,
    /// Rises with each start of the daemon.
    starts: AtomicU64,
    kernels: AtomicUsize,
    /// Sessions that have not been closed.
    alive: AtomicU64,
    done: AtomicU64,
}

/// Does it, and says a line about each round.
///
/// # Panics
/// When something is lost, mixed up or left behind.
pub fn run(plan: Plan, say: &mut dyn FnMut(String)) {
    let mut world = World::new();
    world.set("OUTLIVE_IDLE_TIMEOUT_S", "1");
    let mut daemon = Some(world.daemon());
    let field = Field {
        world: &world,
        daemon: RwLock::new(()),
        starts: AtomicU64::new(0),
        kernels: AtomicUsize::new(0),
        alive: AtomicU64::new(0),
        done: AtomicU64::new(0),
    };
    let mut workers: Vec<Worker> = (0..WORKERS).map(|number| Worker::new(plan, number)).collect();
    // The first round only makes the sessions: what is there afterwards is what may be there.
    let mut first: Option<Look> = None;
    for round in 0..=plan.rounds {
        let length = if round == 0 { Duration::ZERO } else { plan.round };
        let until = within(length);
        // Joins them; a panic of one is ours, when the others are done.
        std::thread::scope(|scope| {
            for worker in &mut workers {
                let field = &field;
                scope.spawn(move || worker.works(field, plan, until));
            }
            let kill_period = if 2 * round <= plan.rounds + 1 { plan.kill_period } else { length };
            kill_now_and_then(&field, &mut daemon, kill_period, until);
        });
        let pid = daemon.as_ref().expect("it was started again").pid();
        let alive = field.alive.load(Ordering::Relaxed);
        let look = soon("nothing is left of the round", || {
            let look = Look::when_quiet(&world, pid, alive);
            match first.as_ref().and_then(|first| look.more_than(first)) {
                None => Some(look),
                Some(more) => {
                    eprintln!("round {round}: {more}");
                    std::thread::sleep(LOOK_AGAIN);
                    None
                }
            }
        });
        say(format!("round {round}: {} things done, {look}", field.done.load(Ordering::Relaxed)));
        first.get_or_insert(look);
    }
    daemon.take().expect("it runs").terminate();
    world.assert_nothing_left();
}

fn kill_now_and_then(
    field: &Field<'_>,
    daemon: &mut Option<Daemon>,
    period: Duration,
    until: clock::Deadline,
) {
    while until.left() > period {
        std::thread::sleep(period);
        let alone = field.daemon.write().expect("who reads it does not poison it");
        daemon.take().expect("it runs").kill();
        *daemon = Some(field.world.daemon());
        field.starts.fetch_add(1, Ordering::Relaxed);
        drop(alone);
    }
}

/// Who uses some of the sessions.
struct Worker {
    number: usize,
    random: Random,
    subjects: Vec<Subject>,
    made: u64,
}

impl Worker {
    fn new(plan: Plan, number: usize) -> Self {
        let random = Random::new(plan.seed * 1_000 + number as u64);
        Self { number, random, subjects: Vec::new(), made: 0 }
    }

    fn works(&mut self, field: &Field<'_>, plan: Plan, until: clock::Deadline) {
        loop {
            let using = field.daemon.read().expect("nobody panics with it");
            while self.subjects.len() < plan.sessions / WORKERS {
                self.made += 1;
                let token = format!("w{}-{}", self.number, self.made);
                self.subjects.push(Subject::begin(field, &token, &mut self.random));
                field.alive.fetch_add(1, Ordering::Relaxed);
            }
            if until.is_over() {
                break;
            }
            let at = usize::try_from(self.random.below(self.subjects.len() as u64)).expect("an index");
            if self.subjects[at].does_something(field, &mut self.random) == subject::Then::Closed {
                self.subjects.swap_remove(at);
                field.alive.fetch_sub(1, Ordering::Relaxed);
            }
            field.done.fetch_add(1, Ordering::Relaxed);
            drop(using);
        }
        for subject in &mut self.subjects {
            let using = field.daemon.read().expect("nobody panics with it");
            subject.is_the_same_everywhere(field);
            subject.leave();
            drop(using);
        }
    }
}

/// A path for a session's file that nobody has had before.
fn fresh_path(field: &Field<'_>, token: &str, random: &mut Random) -> PathBuf {
    field.world.work().join(format!("{token}-{:08x}.ipynb", random.below(1 << 32)))
}

/// Waits for what nobody announces.
fn soon<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    eventually(what, within(PATIENCE), ask)
}
