//! Somebody who watches a run and does what a good client does: comes back by its cursor, elsewhere if need be, when
//! its stream ends, is silent for a second, or says that it cannot go on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::clock::{Deadline, PATIENCE, now, within};
use crate::events::Silence;
use crate::http::Api;
use crate::random::Random;
use crate::transcript::Transcript;

/// A client takes so much silence for death: comments come every 250 ms.
const SILENCE: Duration = Duration::from_secs(1);
/// How long it waits for an answer.
const ANSWER: Duration = Duration::from_secs(1);
/// How long it watches at most.
const ENOUGH: Duration = Duration::from_secs(180);

/// Where it watches.
#[derive(Clone, Debug)]
pub enum Habit {
    /// From one place, and from the next one when that fails.
    Stays,
    /// It leaves at random and comes back elsewhere.
    Wanders(Random),
}

/// What it saw and when.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// The folded output.
    pub transcript: Transcript,
    /// When each output event came, and the number of chunks there were then.
    pub arrivals: Vec<(Instant, usize)>,
    /// How often it attached.
    pub visits: usize,
}

impl Account {
    /// The first output that came after this moment.
    #[must_use]
    pub fn first_after(&self, moment: Instant) -> Option<Instant> {
        self.arrivals.iter().map(|(at, _)| *at).find(|at| *at > moment)
    }
}

/// Somebody who watches.
#[derive(Debug)]
pub struct Watcher {
    name: String,
    account: Arc<Mutex<Account>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Begins to watch what is at this path, at the first of these places.
    #[must_use]
    pub fn begin(name: impl Into<String>, places: Vec<Api>, path: impl Into<String>, habit: Habit) -> Self {
        let (account, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let name = name.into();
        let mut watching = Watching {
            name: name.clone(),
            places,
            path: path.into(),
            habit,
            account: Arc::clone(&account),
            stop: Arc::clone(&stop),
            deadline: within(ENOUGH),
        };
        let thread = Some(thread::spawn(move || watching.run()));
        Self { name, account, stop, thread }
    }

    /// What it has seen so far.
    ///
    /// # Panics
    /// When it saw something wrong.
    #[must_use]
    #[track_caller]
    pub fn so_far(&self) -> Account {
        self.account.lock().unwrap_or_else(|_| panic!("{} saw something wrong", self.name)).clone()
    }

    /// Waits until it has seen this text.
    ///
    /// # Panics
    /// When it saw something wrong or does not see it within a minute.
    #[track_caller]
    pub fn wait_said(&self, text: &str) -> Account {
        crate::clock::eventually(&format!("{} sees {text:?}", self.name), within(PATIENCE), || {
            let seen = self.so_far();
            seen.transcript.said().contains(text).then_some(seen)
        })
    }

    /// Waits for the end of the run.
    ///
    /// # Panics
    /// When it saw something wrong, or no end.
    #[must_use]
    #[track_caller]
    pub fn end(mut self) -> Account {
        if self.thread.take().expect("it is joined once").join().is_err() {
            panic!("{} saw something wrong: see above", self.name);
        }
        let account = self.so_far();
        assert!(account.transcript.outcome.is_some(), "{} saw no end: {account:#?}", self.name);
        account
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Watching {
    name: String,
    places: Vec<Api>,
    path: String,
    habit: Habit,
    account: Arc<Mutex<Account>>,
    stop: Arc<AtomicBool>,
    deadline: Deadline,
}

impl Watching {
    fn run(&mut self) {
        let mut place = 0;
        while !self.stop.load(Ordering::Relaxed) && !self.deadline.is_over() {
            if self.visit(place) {
                return;
            }
            place = match &mut self.habit {
                Habit::Stays => place + 1,
                Habit::Wanders(random) => usize::try_from(random.below(1 << 20)).expect("small"),
            } % self.places.len();
        }
    }

    /// One stream, to its end. Whether the run has ended.
    fn visit(&mut self, place: usize) -> bool {
        let cursor = {
            let mut account = self.account.lock().expect("only this thread panics with it");
            account.visits += 1;
            account.transcript.cursor.clone()
        };
        let Ok(mut events) = self.places[place].try_events(&self.path, cursor.as_deref(), ANSWER) else {
            thread::sleep(Duration::from_millis(20));
            return false;
        };
        let leave = match &mut self.habit {
            Habit::Stays => None,
            Habit::Wanders(random) => Some(within(Duration::from_millis(20 + random.below(400)))),
        };
        while !self.stop.load(Ordering::Relaxed) && leave.is_none_or(|at| !at.is_over()) {
            match events.next(within(Duration::from_millis(20))) {
                Ok(event) if event.name == "problem" => return false,
                Ok(event) => {
                    let mut account = self.account.lock().expect("only this thread panics with it");
                    let cursor = account.transcript.cursor.clone();
                    if account.transcript.push(&event) {
                        let outcome = account.transcript.outcome.clone().unwrap_or_default();
                        assert!(!outcome.is_null(), "{}: an end without an outcome", self.name);
                        return true;
                    }
                    // Not every event is a place to come back to.
                    if account.transcript.cursor.is_none() {
                        account.transcript.cursor = cursor;
                    }
                    if event.name == "output" {
                        let chunks = account.transcript.chunks.len();
                        account.arrivals.push((now(), chunks));
                    }
                }
                Err(Silence::Ended) => return false,
                Err(Silence::TimeOver) if events.silent_for() > SILENCE => return false,
                Err(Silence::TimeOver) => {}
            }
        }
        false
    }
}
