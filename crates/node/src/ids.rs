//! Where fresh ids come from.
//!
//! They are drawn from the operating system. A simulation runs all its nodes on one thread and gives that thread a
//! source of its own, so that the same seed gives the same ids.

use std::cell::RefCell;

use uuid::Uuid;

type Source = Box<dyn FnMut() -> Uuid>;

thread_local! {
    static SOURCE: RefCell<Option<Source>> = const { RefCell::new(None) };
}

/// Every id that this thread draws from now on comes from `source`; `None`: from the operating system again.
pub fn drawn_from(source: Option<Source>) {
    SOURCE.with_borrow_mut(|current| *current = source);
}

/// An id that sorts behind those that were drawn earlier.
pub(crate) fn by_time() -> Uuid {
    drawn().unwrap_or_else(Uuid::now_v7)
}

/// An id whose beginning is different each time: people type it.
pub(crate) fn random() -> Uuid {
    drawn().unwrap_or_else(Uuid::new_v4)
}

fn drawn() -> Option<Uuid> {
    SOURCE.with_borrow_mut(|source| source.as_mut().map(|draw| draw()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_from_the_source_that_was_given() {
        let mut n = 0;
        drawn_from(Some(Box::new(move || {
            n += 1;
            Uuid::from_u128(n)
        })));
        assert_eq!((by_time(), random()), (Uuid::from_u128(1), Uuid::from_u128(2)));
        drawn_from(None);
        assert_ne!((random(), random()), (Uuid::from_u128(3), Uuid::from_u128(4)));
    }
}
