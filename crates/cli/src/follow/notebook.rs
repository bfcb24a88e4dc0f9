//! A notebook's run: each cell's output as it comes, and where the run stands: bars on a terminal, plain lines elsewhere.

use outlive_core::session::{CancelWhy, RunOutcome};
use outlive_protocol::http::{
    ChunkView, RunCounts, RunState, RunView, RuntimeState, SessionState, SessionView, StreamEvent,
};

use super::bars::Bars;
use super::output::{self, Piece, Place};
use super::screen::Screen;
use super::updates::Updates;
use super::watch::Watch;
use crate::failure::Failure;
use crate::report;
use crate::terminal::{self, Ink, Paint};

/// The screen of a notebook, or of a kernel without one.
pub struct Notebook {
    bars: Option<Bars>,
    updates: Updates,
    paint: Paint,
    /// What was last said about the runtime, so that it is said once.
    trouble: String,
    save_problem: Option<String>,
}

impl Notebook {
    /// With bars where standard error is a terminal: for work that is under way.
    pub fn live() -> Self {
        let mut screen = Self::plain();
        screen.bars = terminal::err_is_terminal().then(Bars::new);
        screen
    }

    /// Without bars.
    pub fn plain() -> Self {
        Self {
            bars: None,
            updates: Updates::default(),
            paint: Paint::err(),
            trouble: String::new(),
            save_problem: None,
        }
    }

    fn session(&mut self, session: &SessionView) {
        let trouble = super::state::trouble(session);
        if trouble != self.trouble {
            if !trouble.is_empty() {
                self.say(&self.paint.text(Ink::Yellow, &trouble).to_string());
            }
            self.trouble = trouble;
        }
        if session.save_problem != self.save_problem {
            if let Some(problem) = &session.save_problem {
                let text = format!("the notebook cannot be saved: {problem}");
                self.say(&self.paint.text(Ink::Red, text).to_string());
            }
            self.save_problem.clone_from(&session.save_problem);
        }
        if let Some(bars) = &mut self.bars {
            bars.counts(settled(session.runs), total(session.runs), &self.trouble);
            if session.runtime.state == RuntimeState::Launching {
                bars.began("starting", &session.runtime.name);
            }
        }
    }

    fn run(&mut self, run: &RunView, watch: &Watch) -> Result<(), Failure> {
        match &run.state {
            RunState::Running => {
                if let Some(bars) = &mut self.bars {
                    bars.began(
                        &name(run),
                        run.source.lines().find(|line| !line.trim().is_empty()).unwrap_or(""),
                    );
                }
                Ok(())
            }
            RunState::Ended { outcome } => {
                if let Some(bars) = &mut self.bars {
                    bars.ended()?;
                }
                self.updates.take().try_for_each(terminal::line)?;
                let total = watch.session.as_ref().map_or(0, |session| total(session.runs));
                self.say(&settled_line(run, outcome, total, self.paint));
                Ok(())
            }
            RunState::Queued | RunState::Unknown => Ok(()),
        }
    }

    fn piece(&mut self, chunk: &ChunkView, piece: Piece) -> Result<(), Failure> {
        if let Some(bars) = &mut self.bars {
            return bars.piece(piece);
        }
        match piece {
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

impl Screen for Notebook {
    fn show(&mut self, event: &StreamEvent, watch: &Watch) -> Result<(), Failure> {
        match event {
            StreamEvent::Session { session } => {
                self.session(session);
                Ok(())
            }
            StreamEvent::Run { run } => self.run(run, watch),
            // What the kernel itself logs while no cell runs is for its report and for `logs --raw`.
            StreamEvent::Output { run: None, .. } if !watch.is_running() => Ok(()),
            StreamEvent::Output { chunks, .. } => {
                let colours = self.paint.is_on();
                chunks.iter().try_for_each(|chunk| self.piece(chunk, output::piece(chunk, colours)))
            }
            StreamEvent::Reset { run, attempt, keep } => {
                let name = watch.runs.get(run).map_or_else(|| "the run".to_owned(), name);
                self.say(&format!("{name} started again (attempt {attempt}); {}", watch.void(*keep)));
                Ok(())
            }
            StreamEvent::Report { report } if !report::is_news(report) => Ok(()),
            StreamEvent::Report { report } => {
                let text = report::text_in(watch.session.as_ref(), report, self.paint);
                self.say(&format!("\n{text}"));
                Ok(())
            }
            StreamEvent::Gap { .. }
            | StreamEvent::End { .. }
            | StreamEvent::Problem { .. }
            | StreamEvent::PathChanged { .. }
            | StreamEvent::Stalled { .. }
            | StreamEvent::Unknown => Ok(()),
        }
    }

    fn say(&mut self, text: &str) {
        match &mut self.bars {
            Some(bars) => bars.say(text),
            None => terminal::talk(text),
        }
    }

    fn pause(&mut self) {
        if let Some(bars) = &mut self.bars {
            bars.hide();
        }
    }

    fn resume(&mut self) {
        if let Some(bars) = &mut self.bars {
            bars.show();
        }
    }

    fn finish(&mut self, watch: &Watch) -> Result<(), Failure> {
        if let Some(bars) = &mut self.bars {
            bars.finish()?;
        }
        if let Some(session) = watch.session.as_ref().filter(|session| total(session.runs) > 0) {
            terminal::talk(summary(session, self.paint));
        }
        Ok(())
    }
}

impl Drop for Notebook {
    fn drop(&mut self) {
        if let Some(bars) = &mut self.bars {
            bars.hide();
        }
    }
}

const fn settled(runs: RunCounts) -> u32 {
    runs.succeeded + runs.failed + runs.cancelled
}

const fn total(runs: RunCounts) -> u32 {
    settled(runs) + runs.queued + runs.running
}

/// `cell 5` of a notebook, `run 5` of a kernel; counted from 1, as people do.
pub fn name(run: &RunView) -> String {
    match run.cell {
        Some(cell) => format!("cell {}", cell + 1),
        None => format!("run {}", run.index + 1),
    }
}

/// How a run ended, in a few words and their colour.
pub fn in_words(run: &RunView, outcome: &RunOutcome) -> (Ink, String) {
    match outcome {
        RunOutcome::Succeeded => (Ink::Green, "ok".to_owned()),
        RunOutcome::Raised { ename, .. } if run.may_raise => {
            (Ink::Yellow, format!("raised {}, as it may", terminal::one_line(ename)))
        }
        RunOutcome::Raised { ename, .. } => (Ink::Red, format!("failed: {}", terminal::one_line(ename))),
        RunOutcome::Failed { summary, .. } if run.started_at.is_none() => {
            (Ink::Red, format!("not run: {}", terminal::one_line(summary)))
        }
        RunOutcome::Failed { summary, .. } => (Ink::Red, format!("failed: {}", terminal::one_line(summary))),
        RunOutcome::Unserved { reason } => (Ink::Red, format!("not run: {}", terminal::one_line(reason))),
        RunOutcome::TimedOut { limit_ms } => {
            (Ink::Red, format!("took longer than {}", terminal::span(limit_ms * 1_000)))
        }
        RunOutcome::Cancelled { why } => {
            let why = match why {
                CancelWhy::User => "cancelled",
                CancelWhy::EarlierFailure => "skipped",
                CancelWhy::Interrupted => "not run: interrupted",
                CancelWhy::Stopped if run.started_at.is_some() => "stopped",
                CancelWhy::Stopped => "not run: stopped",
                CancelWhy::NodeDrained if run.started_at.is_some() => "stopped: its node was drained",
                CancelWhy::NodeDrained => "not run: its node was drained",
            };
            (Ink::Dim, why.to_owned())
        }
    }
}

/// `[3/12] cell 5 ok 0.4 s`
fn settled_line(run: &RunView, outcome: &RunOutcome, total: u32, paint: Paint) -> String {
    let (ink, word) = in_words(run, outcome);
    let place = paint.text(Ink::Dim, format!("[{}/{}]", run.index + 1, total.max(run.index + 1))).to_string();
    let mut line = format!("{place} {} {}", name(run), paint.text(ink, word));
    if let (Some(start), Some(end)) = (run.started_at, run.ended_at) {
        let took = terminal::span(end.0.saturating_sub(start.0));
        line.push_str(&format!(" {}", paint.text(Ink::Dim, took)));
    }
    line
}

/// The last line: how many cells went how, how long it took, which file was written.
fn summary(session: &SessionView, paint: Paint) -> String {
    let runs = session.runs;
    let (ink, mark) = match session.state {
        SessionState::Succeeded => (Ink::Green, "✓"),
        SessionState::Failed => (Ink::Red, "✗"),
        SessionState::Stopped => (Ink::Yellow, "■"),
        SessionState::Working | SessionState::Idle | SessionState::Unknown if runs.failed > 0 => {
            (Ink::Red, "✗")
        }
        SessionState::Working | SessionState::Idle | SessionState::Unknown => (Ink::Green, "✓"),
    };
    // A session that succeeded has cells that raised only where they may.
    let failed = if session.state == SessionState::Succeeded { "raised as they may" } else { "failed" };
    let mut line = format!("{} {} ok", paint.text(ink, mark), runs.succeeded);
    if runs.failed > 0 || session.state != SessionState::Succeeded {
        line.push_str(&format!(", {} {failed}", runs.failed));
    }
    if runs.cancelled > 0 {
        line.push_str(&format!(", {} skipped", runs.cancelled));
    }
    if let Some(closed) = session.closed_at {
        line.push_str(&format!(", {}", terminal::span(closed.0.saturating_sub(session.created_at.0))));
    }
    match (&session.path, &session.save_problem) {
        (Some(path), None) => line.push_str(&format!(" → {path}")),
        (Some(path), Some(_)) => line.push_str(&format!(" (not written: {path})")),
        (None, _) => {}
    }
    line
}

#[cfg(test)]
mod tests {
    use outlive_core::diagnosis::CauseCode;
    use outlive_core::id::ReportId;
    use serde_json::json;

    use super::*;

    fn run(index: u32, cell: Option<usize>, micros: Option<(u64, u64)>) -> RunView {
        serde_json::from_value(json!({
            "id": uuid::Uuid::nil(), "session": uuid::Uuid::nil(), "index": index, "cell": cell, "source": "x",
            "state": {"state": "queued"}, "attempt": 1, "head": 0, "execution_count": null, "queued_at": 0,
            "started_at": micros.map(|times| times.0), "ended_at": micros.map(|times| times.1),
        }))
        .expect("a run")
    }

    #[test]
    fn plain_lines_say_place_cell_outcome_and_time() {
        let line = |run, outcome| settled_line(&run, &outcome, 12, Paint::OFF);
        let ok = line(run(2, Some(4), Some((1_000_000, 1_400_000))), RunOutcome::Succeeded);
        assert_eq!(ok, "[3/12] cell 5 ok 0.4 s");
        let failed = RunOutcome::Failed {
            code: CauseCode::OutOfMemory,
            summary: "killed at 2 GiB".to_owned(),
            report: ReportId::from_uuid(uuid::Uuid::nil()),
        };
        assert_eq!(
            line(run(0, None, Some((0, 0))), failed.clone()),
            "[1/12] run 1 failed: killed at 2 GiB 0.0 s"
        );
        assert_eq!(line(run(0, None, None), failed), "[1/12] run 1 not run: killed at 2 GiB");
        let skipped = RunOutcome::Cancelled { why: CancelWhy::EarlierFailure };
        assert_eq!(line(run(11, Some(20), None), skipped), "[12/12] cell 21 skipped");
        let stopped = RunOutcome::Cancelled { why: CancelWhy::Stopped };
        assert_eq!(line(run(0, None, None), stopped.clone()), "[1/12] run 1 not run: stopped");
        assert_eq!(line(run(0, None, Some((0, 0))), stopped), "[1/12] run 1 stopped 0.0 s");
    }
}
