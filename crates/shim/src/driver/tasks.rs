//! A runner's tasks: given, and what comes of them.

use std::time::Duration;

use outlive_core::id::RunId;
use outlive_core::limits::{CHUNK_BYTES_MAX, COALESCE_BYTES_MAX, COALESCE_RECORDS_MAX, DRAIN_MS};
use outlive_core::log::Chunk;
use outlive_core::runtime::Program;
use outlive_core::runtime::runner::TaskOrder;
use outlive_core::time::Now;
use outlive_process::Channel;
use outlive_protocol::shim::Notice;

use super::output::Becomes;
use super::work::Work;
use super::{Driver, Life};
use crate::journal::Journal;
use crate::kernel::runs::RunKey;
use crate::runner::{Happened, Piece, Runner, Said};

/// How much is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pace {
    /// What the journal has room for.
    AsRoom,
    /// Everything: the runner has ended.
    ToTheEnd,
}

/// Output that is not in the journal yet; that of one run becomes one record.
#[derive(Default)]
struct Batch {
    runs: Vec<(RunId, Vec<Chunk>)>,
    bytes: usize,
    count: usize,
}

impl Batch {
    fn push(&mut self, run: RunId, chunk: Chunk, journal: &mut Journal, now: Now) {
        let size = usize::try_from(chunk.payload.size()).unwrap_or(usize::MAX);
        if self.bytes + size > COALESCE_BYTES_MAX || self.count == COALESCE_RECORDS_MAX {
            self.flush(journal, now);
        }
        (self.bytes, self.count) = (self.bytes + size, self.count + 1);
        match self.runs.iter_mut().find(|(of, _)| *of == run) {
            Some((_, chunks)) => chunks.push(chunk),
            None => self.runs.push((run, vec![chunk])),
        }
    }

    fn flush(&mut self, journal: &mut Journal, now: Now) {
        for (run, chunks) in std::mem::take(self).runs {
            journal.append(now.wall, Notice::Output { run: Some(run), chunks });
        }
    }
}

impl Driver {
    /// What a runner works on.
    pub(super) fn run_with(&self, channel: Option<Channel>, now: Now) -> Work {
        match (&self.launch.spec.program, channel) {
            (Program::Runner { name, watch, .. }, Some(channel)) => {
                let incarnation = self.launch.process.incarnation;
                Work::Runner(Box::new(Runner::new(channel, name.clone(), incarnation, *watch, now.tick)))
            }
            _ => Work::Mute,
        }
    }

    /// Gives the runner a task. One that it was given before is ignored.
    pub(super) fn give_task(&mut self, key: RunKey, order: TaskOrder, now: Now) {
        let Life::Supervising(supervised) = &mut self.life else { return };
        if supervised.has_finished(key) {
            if let Some(notice) = self.story.outcome_lost(key) {
                self.record(notice, now);
            }
            return;
        }
        match supervised.work.runner_mut() {
            Some(runner) => runner.give(key, order, now.tick),
            None => tracing::warn!(run = %key.0, "this process takes no tasks; ignored"),
        }
        self.tell_said(Pace::AsRoom, now);
    }

    pub(super) fn on_runner(&mut self, happened: Happened, now: Now) {
        let Life::Supervising(supervised) = &mut self.life else { return };
        let Some(runner) = supervised.work.runner_mut() else { return };
        // Whatever it says, it lives.
        if runner.take(happened, now.tick) && supervised.pulse.echo(now.tick) {
            self.record(outlive_protocol::shim::StateNotice::Responsive, now);
        }
        let pace = match &self.life {
            Life::Supervising(supervised) if supervised.is_alive() => Pace::AsRoom,
            Life::Supervising(_) | Life::Waiting | Life::Ended => Pace::ToTheEnd,
        };
        self.tell_said(pace, now);
    }

    /// Makes records of what the runner has said, as long as there is room for them.
    pub(super) fn tell_said(&mut self, pace: Pace, now: Now) {
        let mut batch = Batch::default();
        while !self.must_wait(pace)
            && let Life::Supervising(supervised) = &mut self.life
            && let Some(said) = supervised.work.runner_mut().and_then(|runner| runner.say(now.tick))
        {
            match said {
                Said::Output { run, piece: Piece { kind, content, .. } }
                    if content.len() <= CHUNK_BYTES_MAX =>
                {
                    let chunk = Chunk::inline(kind, now.wall, &content[..]);
                    batch.push(run, chunk, &mut self.journal, now);
                    continue;
                }
                _ => batch.flush(&mut self.journal, now),
            }
            match said {
                Said::Output { run, piece: Piece { kind, content, mime } } => {
                    self.begin_blob(Becomes::Output { run: Some(run), kind }, content, mime, now);
                }
                Said::Checkpoint { key, content, mime } => {
                    self.begin_blob(Becomes::Checkpoint(key), content, mime, now);
                }
                Said::Ready => self.set_ready(serde_json::json!({}), now),
                Said::State(notice) => self.record(notice, now),
            }
        }
        batch.flush(&mut self.journal, now);
    }

    /// What comes after a blob keeps its place, and a runner waits when there is no room.
    fn must_wait(&self, pace: Pace) -> bool {
        let Life::Supervising(supervised) = &self.life else { return true };
        supervised.blob.is_some() || (pace == Pace::AsRoom && self.journal.is_full())
    }

    /// Everything that a runner has said before its end becomes records. A large content is on the disk before what
    /// came after it is told; that is waited for, but not longer than a drain.
    pub(super) async fn hear_out(&mut self, now: Now) {
        let Life::Supervising(supervised) = &mut self.life else { return };
        let Some(runner) = supervised.work.runner_mut() else { return };
        runner.drain();
        let until = tokio::time::Instant::now() + Duration::from_millis(DRAIN_MS);
        loop {
            self.tell_said(Pace::ToTheEnd, now);
            let Life::Supervising(supervised) = &mut self.life else { return };
            let Some(blob) = &mut supervised.blob else { break };
            match tokio::time::timeout_at(until, blob.written()).await {
                Ok(written) => self.on_blob(written, now),
                // The rest is told while what it left behind is drained.
                Err(_) => return,
            }
        }
        if let Life::Supervising(supervised) = &mut self.life
            && let Some(runner) = supervised.work.runner_mut()
        {
            runner.release(now.tick);
        }
        self.tell_said(Pace::ToTheEnd, now);
    }

    /// It was we who stood still, so nobody else is accused of it.
    pub(super) fn stood_still(&mut self, now: Now) {
        if let Life::Supervising(supervised) = &mut self.life
            && let Some(runner) = supervised.work.runner_mut()
        {
            runner.restart_watchdogs(now.tick);
        }
    }

    /// The run of a command.
    pub(super) fn command_run(&self) -> Option<RunKey> {
        match &self.life {
            Life::Supervising(supervised) => supervised.work.command_run(),
            Life::Waiting | Life::Ended => None,
        }
    }
}
