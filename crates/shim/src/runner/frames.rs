//! What a frame means, by how far the conversation is.

use outlive_core::id::RunId;
use outlive_core::limits::{RUNNER_CONCURRENCY_MAX, VIOLATIONS_TOLD_MAX};
use outlive_core::runtime::runner::{Greeting, Phase, Progress};
use outlive_core::session::{CancelWhy, RunOutcome};
use outlive_core::time::Tick;
use outlive_protocol::runner::{Exception, Framed, FromRunner, VERSION};
use outlive_protocol::shim::StateNotice;

use super::tasks::{Awaited, Heard, Standing};
use super::{Farewell, Leaving, Piece, Runner, Said, Talk, content};
use crate::kernel::runs::RunKey;

impl Runner {
    /// The stream cannot be trusted any more.
    pub(super) fn break_off(&mut self, what: String) {
        self.channel.stop_reading();
        self.watch.stop();
        self.talk = Talk::Broken;
        self.testimony.violation = Some(what.clone());
        self.said.push_back(Said::State(StateNotice::Violated { what, is_fatal: true }));
    }

    /// A frame is dropped, and that is told; not without end.
    fn complain(&mut self, what: String) {
        self.violations = self.violations.saturating_add(1);
        if self.violations <= VIOLATIONS_TOLD_MAX {
            self.said.push_back(Said::State(StateNotice::Violated { what, is_fatal: false }));
        } else {
            tracing::debug!(what, "a violation that is not told any more");
        }
    }

    pub(super) fn understand(&mut self, Framed { frame, bytes }: Framed<FromRunner>, now: Tick) {
        match (self.talk, frame) {
            (Talk::Broken | Talk::Ended, frame) => tracing::debug!(?frame, "after the end; dropped"),
            // One that cannot even begin may say why.
            (_, FromRunner::LastWords { exception, id, thread }) => self.last_words(&exception, id, thread),
            (_, FromRunner::End) => {
                (self.talk, self.leaving) = (Talk::Ended, Leaving::Since(now, Farewell::SaidEnd));
                self.enter(Phase::ShuttingDown, Progress::default(), now);
            }
            (Talk::Greeting, FromRunner::Hello { version, tasks, capabilities, concurrency, exact, sdk }) => {
                if version != VERSION {
                    return self.break_off(format!(
                        "it speaks version {version} of the runner protocol; version {VERSION} is spoken here"
                    ));
                }
                self.talk = Talk::Talking;
                let greeting = Greeting {
                    tasks: tasks.into_iter().collect(),
                    capabilities: capabilities.into_iter().collect(),
                    concurrency: concurrency.clamp(1, RUNNER_CONCURRENCY_MAX),
                    exact: exact.into_iter().collect(),
                    sdk,
                };
                self.said.push_back(Said::State(StateNotice::Greeted { greeting }));
                self.enter(Phase::Loading, Progress::default(), now);
            }
            (Talk::Greeting, frame) => {
                self.break_off(format!("its first frame is `{}` and not `hello`", kind(&frame)));
            }
            (Talk::Talking, frame) => self.hear(frame, bytes, now),
        }
    }

    fn hear(&mut self, frame: FromRunner, bytes: Option<Vec<u8>>, now: Tick) {
        let what = kind(&frame);
        match frame {
            FromRunner::Hello { .. } => self.complain("a second `hello`".to_owned()),
            FromRunner::State { state: Phase::Connecting, .. } => {
                self.complain("it says that its state is `connecting`".to_owned());
            }
            FromRunner::State { state, progress } => self.enter(state, progress, now),
            FromRunner::Pong { .. } => {}
            FromRunner::Chunk { id, attempt, text, json, mime } => {
                if self.is_about((id, attempt), what, now) {
                    match content::chunk(text, json, mime, bytes) {
                        Ok(piece) => self.put((id, attempt), piece),
                        Err(why) => self.complain(format!("{why}, of task {id}")),
                    }
                }
            }
            FromRunner::Progress { id, attempt, progress } => {
                if self.is_about((id, attempt), what, now) {
                    self.put((id, attempt), content::progress(&progress));
                }
            }
            FromRunner::Checkpoint { id, attempt, state } => {
                // What was saved on the way to what is known already stands for less than that.
                if self.is_about((id, attempt), what, now) && !self.is_replaying((id, attempt)) {
                    match content::state(state, bytes) {
                        Ok((content, mime)) => {
                            self.said.push_back(Said::Checkpoint { key: (id, attempt), content, mime });
                        }
                        Err(why) => self.complain(format!("{why}, of task {id}")),
                    }
                }
            }
            FromRunner::Result { id, attempt, value } => match content::result(value, bytes) {
                Ok(piece) => self.finish((id, attempt), what, RunOutcome::Succeeded, Some(piece)),
                Err(why) => {
                    let exception = content::own_exception("ProtocolViolation", why.to_owned());
                    self.raise((id, attempt), what, &exception);
                    self.complain(format!("{why}, of task {id}"));
                }
            },
            FromRunner::Error { id, attempt, exception } => self.raise((id, attempt), what, &exception),
            FromRunner::Cancelled { id, attempt } => self.cancelled((id, attempt), what),
            FromRunner::Stopped { id, attempt } => self.stopped((id, attempt), what),
            FromRunner::LastWords { .. } | FromRunner::End => unreachable!("understood before"),
        }
    }

    /// Whether a frame is about a task that is open. It counts as progress of it.
    fn is_about(&mut self, key: RunKey, what: &str, now: Tick) -> bool {
        match self.tasks.standing(key) {
            Standing::Open(open) => {
                (open.awaited, open.since) = (Awaited::Next, Some(now));
                self.watch.progressed(Some(key));
                true
            }
            Standing::Finished => false,
            Standing::NeverGiven => {
                self.complain(format!("a `{what}` of task {} ({}), which it was never given", key.0, key.1));
                false
            }
        }
    }

    /// A piece of output of a task that is open. What it says again is dropped.
    fn put(&mut self, key: RunKey, piece: Piece) {
        let Standing::Open(open) = self.tasks.standing(key) else { return };
        match open.hear(&piece.kind, &piece.content) {
            Heard::New => self.said.push_back(Said::Output { run: key.0, piece }),
            Heard::Again => {}
            Heard::Differs => self.differs(key, "what it says again is something else".to_owned()),
        }
    }

    fn is_replaying(&mut self, key: RunKey) -> bool {
        matches!(self.tasks.standing(key), Standing::Open(open) if open.is_behind().is_some())
    }

    /// A task that was to be replayed exactly is not: nobody could put together what it says with what is known.
    fn differs(&mut self, key: RunKey, how: String) {
        self.cancel(key);
        let what = format!(
            "task {} ({}) is not replayed exactly, as the runner has declared it: {how}",
            key.0, key.1
        );
        let exception = content::own_exception("ReplayMismatch", what.clone());
        self.settle(key, content::raised(&exception), Some(content::error(&exception)));
        self.complain(what);
    }

    /// A terminal has come.
    fn finish(&mut self, key: RunKey, what: &str, outcome: RunOutcome, piece: Option<Piece>) {
        match self.tasks.standing(key) {
            Standing::Open(_) => {}
            Standing::Finished => {
                return self.complain(format!("a `{what}` of task {} ({}), which has ended", key.0, key.1));
            }
            Standing::NeverGiven => {
                return self
                    .complain(format!("a `{what}` of task {} ({}), which it was never given", key.0, key.1));
            }
        }
        if let Some(piece) = &piece
            && outcome == RunOutcome::Succeeded
            && let Standing::Open(open) = self.tasks.standing(key)
        {
            match open.hear(&piece.kind, &piece.content) {
                Heard::New => {}
                // Its result was known, and the end that followed it was not.
                Heard::Again if open.is_behind().is_none() => return self.settle(key, outcome, None),
                Heard::Again => {
                    let (said, wanted) = open.is_behind().unwrap_or_default();
                    return self.differs(key, format!("it ends after {said} of {wanted} chunks"));
                }
                Heard::Differs => {
                    return self.differs(key, "what it says again is something else".to_owned());
                }
            }
        }
        self.settle(key, outcome, piece);
    }

    /// A task has ended.
    fn settle(&mut self, key: RunKey, outcome: RunOutcome, piece: Option<Piece>) {
        self.tasks.finish(key);
        self.watch.progressed(Some(key));
        let (run, attempt) = key;
        self.said.extend(piece.map(|piece| Said::Output { run, piece }));
        self.said.push_back(Said::State(StateNotice::RunFinished {
            run,
            attempt,
            outcome,
            execution_count: None,
        }));
    }

    pub(super) fn raise(&mut self, key: RunKey, what: &str, exception: &Exception) {
        self.finish(key, what, content::raised(exception), Some(content::error(exception)));
    }

    fn cancelled(&mut self, key: RunKey, what: &str) {
        let was_told = match self.tasks.standing(key) {
            Standing::Open(open) => open.is_cancelled,
            Standing::Finished | Standing::NeverGiven => false,
        };
        if was_told {
            self.finish(key, what, RunOutcome::Cancelled { why: CancelWhy::User }, None);
        } else {
            let message = "the runner gave it up without being told to".to_owned();
            self.raise(key, what, &content::own_exception("Cancelled", message));
        }
    }

    fn stopped(&mut self, key: RunKey, what: &str) {
        if self.hands_over {
            self.finish(key, what, RunOutcome::Cancelled { why: CancelWhy::Stopped }, None);
        } else {
            let message = "the runner gave it up without being told to hand over".to_owned();
            self.raise(key, what, &content::own_exception("Stopped", message));
        }
    }

    fn last_words(&mut self, exception: &Exception, id: Option<RunId>, thread: Option<String>) {
        let name = id.map(|id| self.tasks.name(id).map_or_else(|| id.to_string(), str::to_owned));
        let words = content::last_words(exception, self.phase_name().to_owned(), name);
        match thread {
            Some(thread) => {
                tracing::info!(thread, exception = words.exception_type, "a thread of the runner has ended");
                self.testimony.of_a_thread = Some(words);
            }
            None => self.testimony.last_words = Some(words),
        }
    }
}

/// A frame's type, as it is written.
const fn kind(frame: &FromRunner) -> &'static str {
    match frame {
        FromRunner::Hello { .. } => "hello",
        FromRunner::State { .. } => "state",
        FromRunner::Pong { .. } => "pong",
        FromRunner::Chunk { .. } => "chunk",
        FromRunner::Progress { .. } => "progress",
        FromRunner::Checkpoint { .. } => "checkpoint",
        FromRunner::Result { .. } => "result",
        FromRunner::Error { .. } => "error",
        FromRunner::Cancelled { .. } => "cancelled",
        FromRunner::Stopped { .. } => "stopped",
        FromRunner::LastWords { .. } => "last_words",
        FromRunner::End => "end",
    }
}
