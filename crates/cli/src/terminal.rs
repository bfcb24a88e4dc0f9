//! Where text goes: data on standard output, talk on standard error, colours only where somebody sees them.

use std::fmt::{self, Display};
use std::io::{self, IsTerminal, Write};

use crate::failure::Failure;

/// Writes data to standard output, at once.
pub fn data(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}

/// Writes a line of data to standard output.
pub fn line(text: impl Display) -> Result<(), Failure> {
    data(format!("{text}\n").as_bytes())
}

/// Writes bytes to standard error. Nobody is told when they cannot be written: there is no place left to say it.
pub fn error_bytes(bytes: &[u8]) {
    let mut err = io::stderr().lock();
    drop(err.write_all(bytes).and_then(|()| err.flush()));
}

/// Says a line to the user, on standard error.
pub fn talk(text: impl Display) {
    error_bytes(format!("{text}\n").as_bytes());
}

/// Whether standard output is a terminal.
pub fn out_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether standard error is a terminal.
pub fn err_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Whether somebody is there to be asked: both ends of the conversation are a terminal.
pub fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Columns of the terminal that standard output or standard error is; 80 when neither is one.
pub fn width() -> usize {
    let size = if out_is_terminal() { console::Term::stdout() } else { console::Term::stderr() };
    size.size_checked().map_or(80, |(_, columns)| usize::from(columns))
}

/// Whether text for a stream is coloured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Paint(bool);

impl Paint {
    /// No colours.
    #[cfg(test)]
    pub const OFF: Self = Self(false);

    /// For standard output.
    pub fn out() -> Self {
        Self(out_is_terminal() && Self::wanted())
    }

    /// For standard error.
    pub fn err() -> Self {
        Self(err_is_terminal() && Self::wanted())
    }

    /// Unless the user declined (<https://no-color.org>) or the terminal cannot.
    fn wanted() -> bool {
        let said = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        said("NO_COLOR").is_none() && said("TERM").is_none_or(|term| term != "dumb")
    }

    /// Whether colours are on.
    pub const fn is_on(self) -> bool {
        self.0
    }

    /// Text in one colour or weight.
    pub const fn text<T: Display>(self, ink: Ink, text: T) -> Painted<T> {
        Painted { on: self.0, ink, text }
    }
}

/// Colours and weights.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ink {
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
    Cyan,
}

impl Ink {
    /// The parameter of the escape sequence (ECMA-48 SGR).
    const fn sgr(self) -> &'static str {
        match self {
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Red => "1;31",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Cyan => "36",
        }
    }
}

/// Text with its colour.
pub struct Painted<T> {
    on: bool,
    ink: Ink,
    text: T,
}

impl<T: Display> Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.on { write!(f, "\x1b[{}m{}\x1b[0m", self.ink.sgr(), self.text) } else { self.text.fmt(f) }
    }
}

/// Text from elsewhere in one line of ours: control characters (escape sequences too) made visible.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// At most `columns` wide, with `…` where it was cut.
pub fn fit(text: &str, columns: usize) -> String {
    console::truncate_str(text, columns, "…").into_owned()
}

/// A span of time as people read it: `0.4 s`, `12.3 s`, `3 min 05 s`, `2 h 10 min`, `5 d`.
pub fn span(micros: u64) -> String {
    let tenths = micros / 100_000;
    let seconds = micros / 1_000_000;
    match seconds {
        0..60 => format!("{}.{} s", tenths / 10, tenths % 10),
        60..3_600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        3_600..172_800 => format!("{} h {:02} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A number of bytes as people read it.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1_024 {
        return format!("{count} B");
    }
    let place = (count.ilog2() / 10).min(4);
    let tenths = (u128::from(count) * 10) >> (10 * place);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[place as usize - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_by_people() {
        assert_eq!(span(449_999), "0.4 s");
        assert_eq!(span(185_000_000), "3 min 05 s");
        assert_eq!(span(7_800_000_000), "2 h 10 min");
        assert_eq!(span(5 * 86_400_000_000), "5 d");
        assert_eq!(bytes(1_023), "1023 B");
        assert_eq!(bytes(3_355_443), "3.1 MiB");
        assert_eq!(bytes(u64::MAX), "16777215.9 TiB");
    }

    #[test]
    fn foreign_text_cannot_move_the_cursor() {
        assert_eq!(one_line("a\x1b[2Jb\nc"), "a\u{fffd}[2Jb\u{fffd}c");
        assert_eq!(fit("a long title", 7), "a long…");
    }

    #[test]
    fn no_escape_sequences_without_colours() {
        assert_eq!(Paint::OFF.text(Ink::Red, "x").to_string(), "x");
        assert_eq!(Paint(true).text(Ink::Red, "x").to_string(), "\x1b[1;31mx\x1b[0m");
    }
}
