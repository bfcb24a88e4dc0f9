//! What is to happen, and time.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use outlive_core::time::Tick;

/// One life of one node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Life {
    /// Which node, from 0.
    pub node: usize,
    /// Which of its lives, from 1.
    pub nth: u32,
}

/// To whom something happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The store, the network, a machine: it happens in any case.
    World,
    /// Clients.
    Clients,
    /// A node: it waits while the node is frozen, and does not happen when this life of it is over.
    Node(Life),
}

type Deed = Box<dyn FnOnce() + Send>;

/// What happens.
pub enum What {
    /// Somebody has waited long enough.
    Wake(Waker),
    /// Something is done.
    Do(Deed),
}

/// Something that is to happen.
pub struct Event {
    /// To whom.
    pub place: Place,
    /// What.
    pub what: What,
}

impl Event {
    /// It happens.
    pub fn happen(self) {
        match self.what {
            What::Wake(waker) => waker.wake(),
            What::Do(deed) => deed(),
        }
    }
}

/// All that is to happen, and the present.
#[derive(Clone, Default)]
pub struct Schedule(Arc<Mutex<Inner>>);

/// The place of an event: when, and the how manieth.
type Key = (Tick, u64);

#[derive(Default)]
struct Inner {
    now: Tick,
    next: u64,
    queue: BTreeMap<Key, Event>,
}

impl Inner {
    fn insert(&mut self, at: Tick, event: Event) -> Key {
        self.next += 1;
        let key = (at.max(self.now), self.next);
        self.queue.insert(key, event);
        key
    }
}

impl Schedule {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nothing panics while it holds the schedule")
    }

    /// The present.
    #[must_use]
    pub fn now(&self) -> Tick {
        self.lock().now
    }

    /// This is done after a while.
    pub fn after(&self, wait: Duration, place: Place, deed: impl FnOnce() + Send + 'static) {
        let mut inner = self.lock();
        let at = inner.now + wait;
        inner.insert(at, Event { place, what: What::Do(Box::new(deed)) });
    }

    /// This is done then.
    pub fn at(&self, at: Tick, place: Place, deed: impl FnOnce() + Send + 'static) {
        self.lock().insert(at, Event { place, what: What::Do(Box::new(deed)) });
    }

    /// What was taken from the queue happens now, behind all that happens now.
    pub fn again(&self, event: Event) {
        let mut inner = self.lock();
        let now = inner.now;
        inner.insert(now, event);
    }

    /// Waits until then.
    #[must_use]
    pub fn until(&self, at: Tick, place: Place) -> Sleep {
        Sleep { schedule: self.clone(), place, at, key: None }
    }

    /// Waits so long.
    #[must_use]
    pub fn sleep(&self, wait: Duration, place: Place) -> Sleep {
        self.until(self.now() + wait, place)
    }

    /// Goes on to the next thing that happens, if it happens before `limit`.
    #[must_use]
    pub fn next(&self, limit: Tick) -> Option<Event> {
        let mut inner = self.lock();
        let entry = inner.queue.first_entry()?;
        let (at, _) = *entry.key();
        if at > limit {
            return None;
        }
        let event = entry.remove();
        inner.now = at;
        Some(event)
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedule").field("now", &self.now()).finish_non_exhaustive()
    }
}

/// Somebody who waits for a time.
pub struct Sleep {
    schedule: Schedule,
    place: Place,
    at: Tick,
    key: Option<Key>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let schedule = self.schedule.clone();
        let mut inner = schedule.lock();
        if inner.now >= self.at {
            if let Some(key) = self.key.take() {
                inner.queue.remove(&key);
            }
            return Poll::Ready(());
        }
        let event = Event { place: self.place, what: What::Wake(context.waker().clone()) };
        match self.key.and_then(|key| inner.queue.get_mut(&key)) {
            Some(waiting) => *waiting = event,
            None => self.key = Some(inner.insert(self.at, event)),
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            // The event holds a waker, whose end may end other things that wait.
            let event = self.schedule.lock().queue.remove(&key);
            drop(event);
        }
    }
}
