//! How far somebody has read a run's output.

use std::fmt;
use std::str::FromStr;

use outlive_core::id::{Cursor, Seq};

/// `ATTEMPT.SEQ`, as everywhere, with `+BYTES` where a chunk was read in part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// The last chunk that was read, or is being read.
    pub at: Cursor,
    /// How much of that chunk was read, in bytes; 0 for all of it.
    pub part: usize,
}

impl Place {
    /// All chunks up to this one.
    pub const fn behind(at: Cursor) -> Self {
        Self { at, part: 0 }
    }

    /// The cursor that the daemon is asked with: behind the last chunk that was read to its end.
    pub fn cursor(self) -> Cursor {
        if self.part == 0 { self.at } else { Cursor { seq: Seq(self.at.seq.0.saturating_sub(1)), ..self.at } }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            0 => write!(f, "{}", self.at),
            part => write!(f, "{}+{part}", self.at),
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (at, part) = text.split_once('+').unwrap_or((text, "0"));
        match (at.parse(), part.parse()) {
            (Ok(at), Ok(part)) => Ok(Self { at, part }),
            _ => Err(format!("{text:?} is no cursor; take the one that `run` or `outputs` gave")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_what_it_prints() {
        for text in ["0.0", "1.57", "2.9+8192"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        for wrong in ["", "1", "1.x", "1.2+", "+3", "1.2+-3"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_was_read_in_part_is_asked_for_again() {
        assert_eq!("1.5+10".parse::<Place>().unwrap().cursor().to_string(), "1.4");
        assert_eq!("1.5".parse::<Place>().unwrap().cursor().to_string(), "1.5");
    }
}
