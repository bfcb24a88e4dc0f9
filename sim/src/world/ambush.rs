//! Clients that lie in wait for a moment in what a node does.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::oneshot;

use super::World;
use crate::schedule::Place;

/// A moment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Moment {
    /// A node makes sure that its store is on the disk: a session is about to leave memory.
    Leaving,
    /// A node writes a file.
    Writing,
}

/// Those who lie in wait.
#[derive(Default)]
pub(super) struct Ambushes(Mutex<Vec<(Moment, oneshot::Sender<()>)>>);

/// How long after the moment they come out at most, in microseconds: some at once, some as late as when all of it is over.
const COMES_OUT_US: [u64; 3] = [10, 400, 3_000];

impl World {
    /// Waits for such a moment, but not longer than `patience`.
    pub async fn ambush(&self, moment: Moment, patience: Duration) {
        let (spring, sprung) = oneshot::channel();
        self.ambushes.0.lock().unwrap_or_else(PoisonError::into_inner).push((moment, spring));
        let over = self.schedule.sleep(patience, Place::Clients);
        match select(sprung, over).await {
            Either::Left(_) | Either::Right(_) => {}
        }
    }

    /// It is such a moment.
    pub(crate) fn spring(&self, moment: Moment) {
        let mut waiting = self.ambushes.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sprung: Vec<_> = waiting.extract_if(.., |(of, _)| *of == moment).collect();
        drop(waiting);
        for (nth, (_, spring)) in (0_u64..).zip(sprung) {
            let mut random = self.seed.draw(("ambush", moment, nth));
            let latest = *random.one(&COMES_OUT_US);
            let wait = random.micros(0..latest);
            // It may have lost its patience.
            self.schedule.after(wait, Place::Clients, move || spring.send(()).unwrap_or_default());
        }
    }
}
