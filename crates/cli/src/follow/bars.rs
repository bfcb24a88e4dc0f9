//! Bars on a terminal. Output is written above them, line by line: a line that is not finished yet (a progress
//! display that rewrites itself, a prompt) stands in the first bar until its end comes.
//!
//! ```text
//!   …output…
//!   [2/3] cell 2 ok 0.1 s
//!   half a li                    ← tail
//!   ⠹ cell 5  df = load(…)  1s   ← what runs
//!   ━━━━━━━━──────── 2/3  14s    ← how far
//! ```

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::{self, Piece, Place};
use crate::failure::Failure;
use crate::terminal;

/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(120);
/// Longest unfinished line that is kept, in bytes; then it is written without its end.
const TAIL_BYTES_MAX: usize = 65_536;

/// What the bar of the running cell shows, and what it shows between cells: a spinner that stands still looks broken.
const RUNS: &str = "{spinner:.cyan} {prefix:.bold}  {wide_msg:.dim} {elapsed:.dim}";
const NOTHING_RUNS: &str = "{msg}";

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is a literal").progress_chars("━╸─")
}

/// The bars of one screen.
pub struct Bars {
    all: MultiProgress,
    tail_bar: ProgressBar,
    current: ProgressBar,
    cells: ProgressBar,
    /// What was printed since the last line feed, and where it goes.
    tail: Vec<u8>,
    tail_place: Place,
    /// What a display that updates itself shows now.
    fleeting: String,
}

impl Bars {
    /// Three bars on standard error; nothing is drawn before there is something to show.
    pub fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(15));
        let bar = |template: &str| all.add(ProgressBar::new(0).with_style(style(template)));
        let tail_bar = bar("{msg}");
        let current = bar(NOTHING_RUNS);
        let cells = bar("{bar:30.cyan/black.bright} {pos}/{len} {msg:.yellow} {elapsed:.dim}");
        Self {
            tail_bar,
            current,
            cells,
            all,
            tail: Vec::new(),
            tail_place: Place::Out,
            fleeting: String::new(),
        }
    }

    /// How far the whole run is.
    pub fn counts(&mut self, settled: u32, total: u32, trouble: &str) {
        self.cells.set_length(u64::from(total));
        self.cells.set_position(u64::from(settled));
        self.cells.set_message(trouble.to_owned());
        self.cells.tick();
    }

    /// A cell runs.
    pub fn began(&mut self, name: &str, source: &str) {
        self.current.set_style(style(RUNS));
        self.current.reset_elapsed();
        self.current.set_prefix(name.to_owned());
        self.current.set_message(terminal::one_line(source));
        self.current.enable_steady_tick(TICK);
    }

    /// It has ended.
    pub fn ended(&mut self) -> Result<(), Failure> {
        self.flush()?;
        self.current.disable_steady_tick();
        self.current.set_style(style(NOTHING_RUNS));
        self.current.set_message("");
        Ok(())
    }

    /// Output.
    pub fn piece(&mut self, piece: Piece) -> Result<(), Failure> {
        match piece {
            Piece::Stream(place, bytes) => self.stream(place, &bytes),
            Piece::Lines(place, text) => {
                self.flush()?;
                self.write(place, format!("{text}\n").as_bytes())
            }
            Piece::Fleeting(text) => {
                self.fleeting = text;
                self.show_tail();
                Ok(())
            }
            Piece::Nothing => Ok(()),
        }
    }

    /// A line of ours, above the bars.
    pub fn say(&mut self, text: &str) {
        self.all.suspend(|| terminal::talk(text));
    }

    /// Takes the bars away.
    pub fn hide(&mut self) {
        // A terminal that is gone has nothing to clear.
        drop(self.all.clear());
        self.all.set_draw_target(ProgressDrawTarget::hidden());
    }

    /// Brings them back.
    pub fn show(&mut self) {
        self.all.set_draw_target(ProgressDrawTarget::stderr_with_hz(15));
    }

    /// Writes what is left and takes the bars away for good.
    pub fn finish(&mut self) -> Result<(), Failure> {
        let flushed = self.flush();
        for bar in [&self.tail_bar, &self.current, &self.cells] {
            bar.finish_and_clear();
        }
        flushed
    }

    fn stream(&mut self, place: Place, bytes: &[u8]) -> Result<(), Failure> {
        // A pipe gets bytes as they are; only a terminal shares its lines with the bars.
        if place == Place::Out && !terminal::out_is_terminal() {
            return terminal::data(bytes);
        }
        self.tail.extend_from_slice(bytes);
        self.tail_place = place;
        let complete = self.tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |place| place + 1);
        let complete = if self.tail.len() - complete > TAIL_BYTES_MAX { self.tail.len() } else { complete };
        if complete > 0 {
            let lines: Vec<u8> = self.tail.drain(..complete).collect();
            self.write(place, &lines)?;
        }
        self.show_tail();
        Ok(())
    }

    /// Ends an unfinished line.
    fn flush(&mut self) -> Result<(), Failure> {
        let mut rest = std::mem::take(&mut self.tail);
        if !self.fleeting.is_empty() {
            rest.extend_from_slice(std::mem::take(&mut self.fleeting).as_bytes());
        }
        self.show_tail();
        if rest.is_empty() {
            return Ok(());
        }
        rest.push(b'\n');
        self.write(self.tail_place, &rest)
    }

    fn show_tail(&self) {
        let text =
            if self.tail.is_empty() { last_line(self.fleeting.as_bytes()) } else { last_line(&self.tail) };
        self.tail_bar.set_message(terminal::fit(&text, terminal::width().saturating_sub(1)));
    }

    fn write(&self, place: Place, bytes: &[u8]) -> Result<(), Failure> {
        self.all.suspend(|| match place {
            Place::Out => terminal::data(bytes),
            Place::Err => {
                terminal::error_bytes(bytes);
                Ok(())
            }
        })
    }
}

/// What a terminal would show of an unfinished line: what follows the last carriage return that something follows.
fn last_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end_matches(['\r', '\n']);
    output::as_seen(text.rsplit('\n').next().unwrap_or(""))
}

#[cfg(test)]
mod tests {
    use super::last_line;

    #[test]
    fn a_progress_display_is_shown_in_its_newest_state() {
        assert_eq!(last_line(b" 10%|#   |\r 20%|##  |"), " 20%|##  |");
        assert_eq!(last_line(b" 10%\r 20%\r"), " 20%");
        assert_eq!(last_line(b"\x1b[32mname? \x1b[0m\x07"), "name? ");
        assert_eq!(last_line(b""), "");
    }
}
