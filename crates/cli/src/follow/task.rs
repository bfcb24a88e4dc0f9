//! A task on a terminal or a pipe: text as it comes, JSON a line each, bytes as they are, its result at the end. How
//! far it is stands on a line of its own on standard error, while no line of output is unfinished.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use outlive_core::log::ChunkKind;
use outlive_core::runtime::runner::Progress;
use outlive_core::session::RunOutcome;
use outlive_protocol::http::{ChunkView, RunState, RunView, StreamEvent};

use super::output::{self, Piece, Place};
use super::screen::Screen;
use super::watch::Watch;
use super::{members, notebook};
use crate::failure::Failure;
use crate::report;
use crate::terminal::{self, Ink, Paint};

/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(120);
/// What is said of a task that no runner has taken.
const WAITS: &str = "waits for a runner";
/// So many steps has a bar.
const STEPS: u64 = 1_000;

/// What of a task's output is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// All of it.
    All,
    /// Its result, and what went wrong.
    Result,
}

/// The screen of one task.
pub struct Screened {
    printer: Printer,
    meter: Option<Meter>,
    paint: Paint,
    /// Whether an error chunk has said what went wrong.
    is_explained: bool,
    group: String,
}

impl Screened {
    /// For a task of this group.
    pub fn new(group: &str, wanted: Wanted) -> Self {
        let paint = Paint::err();
        Self {
            printer: Printer {
                wanted,
                colours: if paint.is_on() { Colours::Kept } else { Colours::Dropped },
                out: if terminal::out_is_terminal() { Out::Terminal } else { Out::Pipe },
                line: Line::Begins,
            },
            meter: terminal::err_is_terminal().then(Meter::new),
            paint,
            is_explained: false,
            group: group.to_owned(),
        }
    }

    fn chunk(&mut self, chunk: &ChunkView) -> Result<(), Failure> {
        self.is_explained |= chunk.kind == ChunkKind::Error;
        match self.printer.chunk(chunk) {
            Some(Shown::Progress(progress)) => {
                if let Some(meter) = &self.meter {
                    meter.progress(&progress);
                }
                Ok(())
            }
            Some(Shown::Bytes(place, bytes)) => self.write(place, &bytes),
            None => Ok(()),
        }
    }

    fn write(&mut self, place: Place, bytes: &[u8]) -> Result<(), Failure> {
        let is_line_open = self.printer.out == Out::Terminal && self.printer.line == Line::Open;
        let write = || match place {
            Place::Out => terminal::data(bytes),
            Place::Err => {
                terminal::error_bytes(bytes);
                Ok(())
            }
        };
        match &mut self.meter {
            Some(meter) => meter.around(is_line_open, write),
            None => write(),
        }
    }

    fn run(&mut self, run: &RunView) {
        let name = run.task.as_ref().map_or(run.source.as_str(), |task| &task.task);
        let member = run.task.as_ref().and_then(|task| task.member.as_deref());
        match &run.state {
            RunState::Queued => {
                if let Some(meter) = &self.meter {
                    meter.began(name, WAITS);
                }
            }
            RunState::Running => {
                if let Some(meter) = &self.meter {
                    meter.began(name, member.unwrap_or("runs"));
                }
            }
            RunState::Ended { .. } | RunState::Unknown => {}
        }
    }

    /// What the output has not said yet.
    fn verdict(&self, run: &RunView, outcome: &RunOutcome, watch: &Watch) -> Option<String> {
        let (ink, word) = match outcome {
            // The view may be older than its beginning.
            RunOutcome::Failed { summary, .. } => {
                (Ink::Red, format!("failed: {}", terminal::one_line(summary)))
            }
            outcome => notebook::in_words(run, outcome),
        };
        let task = run.task.as_ref().map_or("the task", |task| &task.task);
        let line = format!("{} {}", terminal::one_line(task), self.paint.text(ink, word));
        match outcome {
            RunOutcome::Succeeded => None,
            RunOutcome::Raised { .. } if self.is_explained => None,
            RunOutcome::Failed { report, .. } => {
                let known = watch.reports.iter().find(|known| known.id == *report);
                let text = known.filter(|_| !self.is_explained);
                let text = text.map_or_else(String::new, |known| report::text(known, self.paint) + "\n");
                Some(format!("{text}{line}; `outlive explain {}` has the report", self.group))
            }
            RunOutcome::Raised { evalue, .. } => Some(format!("{line}: {}", terminal::one_line(evalue))),
            RunOutcome::TimedOut { .. } | RunOutcome::Unserved { .. } | RunOutcome::Cancelled { .. } => {
                Some(line)
            }
        }
    }
}

impl Screen for Screened {
    fn show(&mut self, event: &StreamEvent, watch: &Watch) -> Result<(), Failure> {
        match event {
            StreamEvent::Output { chunks, .. } => {
                if let Some(meter) = &self.meter {
                    meter.is_served();
                }
                chunks.iter().try_for_each(|chunk| self.chunk(chunk))
            }
            StreamEvent::Run { run } => {
                self.run(run);
                Ok(())
            }
            StreamEvent::Reset { attempt, keep, .. } => {
                self.is_explained = false;
                self.say(&format!("attempt {attempt} begins on another runner; {}", watch.void(*keep)));
                Ok(())
            }
            // An error chunk tells of the same death.
            StreamEvent::Report { .. }
            | StreamEvent::Session { .. }
            | StreamEvent::Gap { .. }
            | StreamEvent::End { .. }
            | StreamEvent::Problem { .. }
            | StreamEvent::PathChanged { .. }
            | StreamEvent::Stalled { .. }
            | StreamEvent::Unknown => Ok(()),
        }
    }

    fn wants_large(&self) -> bool {
        true
    }

    fn say(&mut self, text: &str) {
        let text = match self.printer.end_line() {
            Some(_) if self.printer.out == Out::Terminal => format!("\n{text}\n"),
            _ => format!("{text}\n"),
        };
        // Standard error cannot be written: there is no place left to say it.
        drop(self.write(Place::Err, text.as_bytes()));
    }

    fn pause(&mut self) {
        if let Some(meter) = &mut self.meter {
            meter.hide();
        }
    }

    fn resume(&mut self) {
        if let Some(meter) = &mut self.meter {
            meter.show();
        }
    }

    fn finish(&mut self, watch: &Watch) -> Result<(), Failure> {
        self.pause();
        if self.printer.out == Out::Terminal
            && let Some(end) = self.printer.end_line()
        {
            terminal::data(end)?;
        }
        let ended = watch.runs.values().next().zip(watch.outcome.as_ref());
        if let Some(text) = ended.and_then(|(run, outcome)| self.verdict(run, outcome, watch)) {
            terminal::talk(text);
        }
        Ok(())
    }
}

impl Drop for Screened {
    fn drop(&mut self) {
        self.pause();
    }
}

/// Whether standard output is looked at or kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Out {
    Terminal,
    Pipe,
}

/// Whether a traceback keeps its colours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Colours {
    Kept,
    Dropped,
}

/// Where standard output stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Line {
    Begins,
    Open,
}

/// What a chunk shows.
#[derive(Clone, PartialEq, Debug)]
enum Shown {
    Bytes(Place, Vec<u8>),
    Progress(Progress),
}

/// Turns chunks into bytes for standard output and standard error.
struct Printer {
    wanted: Wanted,
    out: Out,
    colours: Colours,
    line: Line,
}

impl Printer {
    fn chunk(&mut self, chunk: &ChunkView) -> Option<Shown> {
        if chunk.kind == ChunkKind::Progress {
            let content = chunk.content.clone()?;
            return serde_json::from_value(content).ok().map(Shown::Progress);
        }
        if self.wanted == Wanted::Result
            && !matches!(chunk.kind, ChunkKind::Result | ChunkKind::Error | ChunkKind::Gap)
        {
            return None;
        }
        if let Some((what, bytes)) = raw(chunk) {
            return match self.out {
                Out::Pipe => Some(self.data(bytes)),
                Out::Terminal => {
                    let size = terminal::bytes(bytes.len() as u64);
                    let note = format!("[{size} of {what}: send standard output to a file to have them]");
                    self.whole_line(Place::Err, &note)
                }
            };
        }
        match output::piece(chunk, self.colours == Colours::Kept) {
            Piece::Stream(Place::Out, bytes) if bytes.is_empty() => None,
            Piece::Stream(Place::Out, bytes) => Some(self.data(bytes)),
            Piece::Stream(Place::Err, bytes) => Some(Shown::Bytes(Place::Err, bytes)),
            Piece::Lines(place, text) => self.whole_line(place, &text),
            Piece::Fleeting(_) | Piece::Nothing => None,
        }
    }

    fn data(&mut self, bytes: Vec<u8>) -> Shown {
        self.line = if bytes.ends_with(b"\n") { Line::Begins } else { Line::Open };
        Shown::Bytes(Place::Out, bytes)
    }

    /// A line of its own: one that stands open is ended first, where both go to the same place.
    fn whole_line(&mut self, place: Place, text: &str) -> Option<Shown> {
        let is_shared = place == Place::Out || self.out == Out::Terminal;
        let end = if is_shared { self.end_line().unwrap_or_default() } else { b"" };
        Some(Shown::Bytes(place, [end, text.as_bytes(), b"\n"].concat()))
    }

    /// What ends an unfinished line, when there is one.
    fn end_line(&mut self) -> Option<&'static [u8]> {
        let is_open = std::mem::replace(&mut self.line, Line::Begins) == Line::Open;
        is_open.then_some(b"\n")
    }
}

/// Bytes that are no text, and what they are: of a chunk of bytes, or of one with a MIME type.
fn raw(chunk: &ChunkView) -> Option<(String, Vec<u8>)> {
    match chunk.kind {
        ChunkKind::Bytes => Some(("bytes".to_owned(), output::bytes(chunk)?)),
        ChunkKind::DisplayData => {
            let data = chunk.content.as_ref()?["data"].as_object()?;
            let (mime, value) = data.iter().find(|(mime, _)| !mime.starts_with("text/"))?;
            let bytes = outlive_protocol::http::from_base64(value.as_str()?)?;
            Some((terminal::one_line(mime), bytes))
        }
        _ => None,
    }
}

/// How far a task is, in one line at the bottom.
struct Meter {
    all: MultiProgress,
    bar: ProgressBar,
}

impl Meter {
    fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(15));
        let bar = all.add(ProgressBar::new(STEPS).with_style(style(SPINS)));
        Self { all, bar }
    }

    /// Output has come, so it does not wait any more.
    fn is_served(&self) {
        if self.bar.message() == WAITS {
            self.bar.set_message("runs");
        }
    }

    fn began(&self, name: &str, what: &str) {
        self.bar.set_style(style(SPINS));
        self.bar.set_prefix(terminal::one_line(name));
        self.bar.set_message(terminal::one_line(what));
        self.bar.reset_elapsed();
        self.bar.enable_steady_tick(TICK);
    }

    fn progress(&self, progress: &Progress) {
        if let (Some(done), Some(total)) = (progress.done, progress.total)
            && total > 0.0
        {
            self.bar.set_style(style(FILLS));
            self.bar.set_position((done / total * STEPS as f64).clamp(0.0, STEPS as f64) as u64);
        }
        self.bar.set_message(members::progress(progress));
    }

    /// Writes above the line; while a line of output stands open, this one is away.
    fn around(
        &mut self,
        is_line_open: bool,
        write: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if is_line_open {
            self.hide();
            return write();
        }
        let written = self.all.suspend(write);
        self.show();
        written
    }

    fn hide(&mut self) {
        if !self.all.is_hidden() {
            // A terminal that is gone has nothing to clear.
            drop(self.all.clear());
            self.all.set_draw_target(ProgressDrawTarget::hidden());
        }
    }

    fn show(&mut self) {
        if self.all.is_hidden() {
            self.all.set_draw_target(ProgressDrawTarget::stderr_with_hz(15));
        }
    }
}

const SPINS: &str = "{spinner:.cyan} {prefix:.bold}  {wide_msg:.dim} {elapsed:.dim}";
const FILLS: &str =
    "{spinner:.cyan} {prefix:.bold}  {bar:24.cyan/black.bright} {wide_msg:.dim} {elapsed:.dim}";

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is a literal").progress_chars("━╸─")
}

#[cfg(test)]
mod tests {
    use outlive_core::diagnosis::CauseCode;
    use outlive_core::id::{ReportId, RunId};
    use serde_json::{Value, json};

    use super::*;

    fn chunk(kind: &str, more: Value) -> ChunkView {
        let mut chunk = json!({"kind": kind, "at": 0});
        for (key, value) in more.as_object().expect("an object") {
            chunk[key] = value.clone();
        }
        serde_json::from_value(chunk).expect("a chunk")
    }

    fn text(text: &str) -> ChunkView {
        chunk("text", json!({"text": text}))
    }

    fn content(kind: &str, content: Value) -> ChunkView {
        chunk(kind, json!({"content": content}))
    }

    /// What comes out and what is said besides.
    fn shown(wanted: Wanted, out: Out, chunks: &[ChunkView]) -> (String, String) {
        let mut printer = Printer { wanted, out, colours: Colours::Dropped, line: Line::Begins };
        let (mut data, mut talk) = (Vec::new(), Vec::new());
        for chunk in chunks {
            match printer.chunk(chunk) {
                Some(Shown::Bytes(Place::Out, bytes)) => data.extend(bytes),
                Some(Shown::Bytes(Place::Err, bytes)) => talk.extend(bytes),
                Some(Shown::Progress(_)) | None => {}
            }
        }
        let lossy = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (lossy(data), lossy(talk))
    }

    #[test]
    fn text_is_as_it_came_json_a_line_and_the_result_last() {
        let chunks = [
            text("Once "),
            text("upon"),
            content("json", json!({"token": 7})),
            content("progress", json!({"done": 1})),
            content("result", json!({"n": 2})),
        ];
        let all = shown(Wanted::All, Out::Pipe, &chunks);
        assert_eq!(all, ("Once upon\n{\"token\":7}\n{\"n\":2}\n".to_owned(), String::new()));
        let result = shown(Wanted::Result, Out::Pipe, &chunks);
        assert_eq!(result, ("{\"n\":2}\n".to_owned(), String::new()));
        let words = [content("result", json!("two words\n"))];
        assert_eq!(shown(Wanted::Result, Out::Pipe, &words).0, "two words\n");
        assert_eq!(shown(Wanted::All, Out::Pipe, &[content("result", Value::Null)]).0, "");
    }

    #[test]
    fn bytes_go_to_a_file_and_not_to_a_terminal() {
        let bytes = [text("a"), chunk("bytes", json!({"base64": "AAE="}))];
        assert_eq!(shown(Wanted::All, Out::Pipe, &bytes).0, "a\0\x01");
        let (data, talk) = shown(Wanted::All, Out::Terminal, &bytes);
        assert_eq!(data, "a");
        assert_eq!(talk, "\n[2 B of bytes: send standard output to a file to have them]\n");
        let image = [content("display_data", json!({"data": {"image/png": "AAE="}, "metadata": {}}))];
        assert_eq!(shown(Wanted::All, Out::Pipe, &image).0, "\0\x01");
        assert!(shown(Wanted::All, Out::Terminal, &image).1.contains("2 B of image/png"));
    }

    #[test]
    fn an_error_is_told_apart_from_the_output() {
        let error =
            content("error", json!({"ename": "E", "evalue": "v", "traceback": ["Traceback", "E: v"]}));
        for wanted in [Wanted::All, Wanted::Result] {
            let (data, talk) = shown(wanted, Out::Pipe, &[text("half a li"), error.clone()]);
            assert_eq!(data, if wanted == Wanted::All { "half a li" } else { "" });
            assert_eq!(talk, "Traceback\nE: v\n");
        }
    }

    fn ended(outcome: &RunOutcome) -> RunView {
        serde_json::from_value(json!({
            "id": RunId::from_uuid(uuid::Uuid::nil()), "session": uuid::Uuid::nil(), "index": 0, "cell": null,
            "source": "chat", "state": {"state": "ended", "outcome": outcome}, "attempt": 1, "head": 1,
            "execution_count": null, "queued_at": 0, "started_at": 0, "ended_at": 1,
            "task": {"task": "chat", "key": "k", "idempotent": false, "member": "llm-0"},
        }))
        .expect("a run")
    }

    #[test]
    fn the_end_is_said_where_the_output_has_not_said_it() {
        let mut screen = Screened::new("llm", Wanted::All);
        let verdict = |screen: &Screened, outcome: &RunOutcome| {
            screen.verdict(&ended(outcome), outcome, &Watch::default())
        };
        assert_eq!(verdict(&screen, &RunOutcome::Succeeded), None);
        let unserved = RunOutcome::Unserved { reason: "no runner was ready within 5 min".to_owned() };
        let said = verdict(&screen, &unserved).expect("a line");
        assert_eq!(console::strip_ansi_codes(&said), "chat not run: no runner was ready within 5 min");
        let raised = RunOutcome::Raised { ename: "ValueError".to_owned(), evalue: "no".to_owned() };
        assert!(verdict(&screen, &raised).expect("a line").contains("ValueError"));
        screen.is_explained = true;
        assert_eq!(verdict(&screen, &raised), None, "its traceback was shown");
        let failed = RunOutcome::Failed {
            code: CauseCode::OutOfMemory,
            summary: "it used 8 GiB".to_owned(),
            report: ReportId::from_uuid(uuid::Uuid::nil()),
        };
        assert!(verdict(&screen, &failed).expect("a line").contains("`outlive explain llm`"));
    }
}
