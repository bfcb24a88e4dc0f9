//! How events are shown. Data goes to standard output, everything else to standard error.

use outlive_core::log::ChunkKind;
use outlive_protocol::http::{ChunkView, StreamEvent};

use super::output::{self, Piece, Place};
use super::watch::Watch;
use crate::failure::Failure;
use crate::report;
use crate::terminal::{self, Paint};

/// A way to show events.
pub trait Screen: Send {
    /// Shows what is new. The watch has taken the event already.
    fn show(&mut self, event: &StreamEvent, watch: &Watch) -> Result<(), Failure>;
    /// Whether it shows large chunks too: then they are fetched before they come here.
    fn wants_large(&self) -> bool {
        false
    }
    /// Says a line of ours.
    fn say(&mut self, text: &str) {
        terminal::talk(text);
    }
    /// Clears the place where a question is going to stand, and stays away from it until `resume`.
    fn pause(&mut self) {}
    /// The question is answered.
    fn resume(&mut self) {}
    /// The last word, unless the reader left before the end.
    fn finish(&mut self, _watch: &Watch) -> Result<(), Failure> {
        Ok(())
    }
}

/// One event a line, as the API sends it.
pub struct Json;

impl Screen for Json {
    fn show(&mut self, event: &StreamEvent, _watch: &Watch) -> Result<(), Failure> {
        let text = serde_json::to_string(event).expect("events have string keys and finite numbers");
        terminal::line(text)
    }
}

/// A command's output as if it had been run here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Raw {
    /// Its streams and nothing else.
    Streams,
    /// Also what else there is to see; a death is explained, an exit code of its own needs no words.
    Explained,
}

impl Screen for Raw {
    fn show(&mut self, event: &StreamEvent, watch: &Watch) -> Result<(), Failure> {
        match event {
            StreamEvent::Output { chunks, .. } => chunks.iter().try_for_each(|chunk| self.chunk(chunk)),
            StreamEvent::Reset { attempt, keep, .. } => {
                let void = watch.void(*keep);
                terminal::talk(format!("outlive: started again (attempt {attempt}); {void}"));
                Ok(())
            }
            StreamEvent::Report { report } => {
                let is_plain = report::is_plain_exit(report) || !report::is_news(report);
                if *self == Self::Explained && !is_plain {
                    terminal::error_bytes(report::text(report, Paint::err()).as_bytes());
                }
                Ok(())
            }
            StreamEvent::Session { .. }
            | StreamEvent::Run { .. }
            | StreamEvent::Gap { .. }
            | StreamEvent::End { .. }
            | StreamEvent::Problem { .. }
            | StreamEvent::PathChanged { .. }
            | StreamEvent::Stalled { .. }
            | StreamEvent::Unknown => Ok(()),
        }
    }
}

impl Raw {
    fn chunk(self, chunk: &ChunkView) -> Result<(), Failure> {
        if self == Self::Streams && !matches!(chunk.kind, ChunkKind::Stdout | ChunkKind::Stderr) {
            return Ok(());
        }
        match output::piece(chunk, Paint::err().is_on()) {
            Piece::Stream(Place::Out, bytes) => terminal::data(&bytes),
            Piece::Stream(Place::Err, bytes) => {
                terminal::error_bytes(&bytes);
                Ok(())
            }
            Piece::Lines(Place::Out, text) => terminal::line(text),
            Piece::Lines(Place::Err, text) => {
                terminal::talk(text);
                Ok(())
            }
            Piece::Fleeting(_) | Piece::Nothing => Ok(()),
        }
    }
}
