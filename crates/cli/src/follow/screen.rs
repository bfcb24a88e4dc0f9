//! How events are shown. Data goes to standard output, everything else to standard error.

use outlive_core::log::ChunkKind;
use outlive_protocol::http::{ChunkView, RunState, StreamEvent};

use super::output::{self, Piece, Place};
use super::updates::Updates;
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
#[derive(Debug)]
pub struct Raw {
    extent: Extent,
    updates: Updates,
}

/// How much of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Extent {
    /// Its streams and nothing else.
    Streams,
    /// Also what else there is to see; a death is explained, an exit code of its own needs no words.
    All,
}

impl Screen for Raw {
    fn show(&mut self, event: &StreamEvent, watch: &Watch) -> Result<(), Failure> {
        match event {
            StreamEvent::Output { chunks, .. } => chunks.iter().try_for_each(|chunk| self.chunk(chunk)),
            StreamEvent::Run { run } if matches!(run.state, RunState::Ended { .. }) => {
                self.updates.take().try_for_each(terminal::line)
            }
            StreamEvent::Reset { attempt, keep, .. } => {
                let void = watch.void(*keep);
                terminal::talk(format!("outlive: started again (attempt {attempt}); {void}"));
                Ok(())
            }
            StreamEvent::Report { report } => {
                let is_plain = report::is_plain_exit(report) || !report::is_news(report);
                if self.extent == Extent::All && !is_plain {
                    let text = report::text_in(watch.session.as_ref(), report, Paint::err());
                    terminal::error_bytes(text.as_bytes());
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

    fn finish(&mut self, _watch: &Watch) -> Result<(), Failure> {
        self.updates.take().try_for_each(terminal::line)
    }
}

impl Raw {
    /// Standard output and standard error alone.
    pub fn streams() -> Self {
        Self { extent: Extent::Streams, updates: Updates::default() }
    }

    /// All that there is to see, and why it ended.
    pub fn explained() -> Self {
        Self { extent: Extent::All, updates: Updates::default() }
    }

    fn chunk(&mut self, chunk: &ChunkView) -> Result<(), Failure> {
        if self.extent == Extent::Streams && !matches!(chunk.kind, ChunkKind::Stdout | ChunkKind::Stderr) {
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
            Piece::Fleeting(text) => self.updates.put(chunk, text).map_or(Ok(()), terminal::line),
            Piece::Nothing => Ok(()),
        }
    }
}
