//! What has happened, as one number, and as text if somebody reads it.

use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hasher};
use std::sync::Mutex;

use outlive_core::time::Tick;

/// What the trace does with its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Telling {
    /// It counts towards the number, and is gone.
    Silent,
    /// The last lines are kept, for when something is found wrong.
    Last(usize),
    /// It is printed as it happens.
    Aloud,
}

/// What has happened.
#[derive(Debug)]
pub struct Trace {
    telling: Telling,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Of all that is over.
    number: u64,
    /// The present, and the sum of what happens in it: things that happen at once have no order.
    at: Tick,
    sum: u64,
    lines: std::collections::VecDeque<String>,
}

impl Trace {
    /// Nothing yet.
    #[must_use]
    pub fn new(telling: Telling) -> Self {
        Self { telling, inner: Mutex::default() }
    }

    /// Something happens. `who` is the number of a node, if it is one's.
    pub fn tell(&self, at: Tick, who: Option<usize>, what: fmt::Arguments<'_>) {
        let mut hashed = Hashed(DefaultHasher::new());
        write!(hashed, "{who:?} {what}").expect("a hasher takes everything");
        let mut inner = self.inner.lock().expect("nothing panics while it holds the trace");
        if inner.at != at {
            inner.number =
                inner.number.rotate_left(5) ^ inner.sum.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ inner.at.0;
            inner.at = at;
            inner.sum = 0;
        }
        inner.sum = inner.sum.wrapping_add(hashed.0.finish());
        self.keep(&mut inner, at, who, what);
    }

    /// Something is said that is no part of the story.
    pub fn remark(&self, at: Tick, who: Option<usize>, what: fmt::Arguments<'_>) {
        let mut inner = self.inner.lock().expect("nothing panics while it holds the trace");
        self.keep(&mut inner, at, who, what);
    }

    fn keep(&self, inner: &mut Inner, at: Tick, who: Option<usize>, what: fmt::Arguments<'_>) {
        let line = || {
            let who = who.map_or_else(|| "  ".to_owned(), |who| format!("n{who}"));
            format!("{} {who}  {what}", moment(at))
        };
        match self.telling {
            Telling::Silent => {}
            Telling::Last(n) => {
                if inner.lines.len() == n {
                    inner.lines.pop_front();
                }
                inner.lines.push_back(line());
            }
            #[expect(clippy::print_stdout, reason = "somebody asked to see it")]
            Telling::Aloud => println!("{}", line()),
        }
    }

    /// Whether it is printed.
    #[must_use]
    pub fn is_aloud(&self) -> bool {
        self.telling == Telling::Aloud
    }

    /// The number of all that has happened.
    pub fn number(&self) -> u64 {
        let inner = self.inner.lock().expect("nothing panics while it holds the trace");
        inner.number ^ inner.sum
    }

    /// The last lines.
    pub fn last(&self) -> Vec<String> {
        self.inner.lock().expect("nothing panics while it holds the trace").lines.iter().cloned().collect()
    }
}

/// A moment, in seconds.
pub(crate) fn moment(at: Tick) -> String {
    format!("{:>4}.{:06}", at.0 / 1_000_000_000, at.0 % 1_000_000_000 / 1_000)
}

struct Hashed(DefaultHasher);

impl Write for Hashed {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}
