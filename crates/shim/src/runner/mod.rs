//! One runner, from its channel to what the driver has to tell. The protocol is docs/design/runner-protocol.md.
//!
//! ```text
//! Greeting ──hello──► Talking ──end──► Ended     what follows is dropped
//!     └──────────────────┴── a violation ──► Broken    nothing is read any more
//! ```
//! One that has said `end`, or whose channel is closed, is about to end; that it lives on is told after a while.
//! It decides nothing: what a violation, a stall or a hang leads to is the daemon's. Frames are taken from the channel
//! only as fast as the driver asks for what was said.

mod channel;
mod content;
mod tasks;
mod watch;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use outlive_core::diagnosis::evidence::{LastWords, StallEvidence};
use outlive_core::id::{Attempt, Incarnation, RunId};
use outlive_core::limits::{
    CHANNEL_CLOSED_MS, PROGRESS_MS, RUNNER_BYTES_MAX, RUNNER_CONCURRENCY_MAX, RUNNER_LINE_BYTES_MAX,
    RUNNER_SAID_END_MS, VIOLATIONS_TOLD_MAX,
};
use outlive_core::runtime::runner::{Greeting, Phase, Progress, TaskOrder, Watchdogs};
use outlive_core::session::{CancelWhy, RunOutcome};
use outlive_core::time::Tick;
use outlive_process::Channel as Pipes;
use outlive_protocol::runner::{Exception, Framed, FromRunner, RunnerCodecError, ToRunner, VERSION};
use outlive_protocol::shim::StateNotice;

use crate::clock::millis;
use crate::kernel::runs::RunKey;
pub(crate) use channel::Happened;
use channel::{Channel, SayError};
pub(crate) use content::Piece;
use tasks::{Standing, Tasks};
use watch::Watch;

/// The newest version of the protocol that is spoken; absent: not started by Outlive, or without a channel.
pub(crate) const VERSION_VARIABLE: &str = "OUTLIVE_RUNNER";
/// The member's name.
pub(crate) const NAME_VARIABLE: &str = "OUTLIVE_RUNNER_NAME";

/// What the driver has to tell.
#[derive(Debug)]
pub(crate) enum Said {
    /// Output of a task.
    Output {
        run: RunId,
        piece: Piece,
    },
    /// A task can be continued from here, once this is on the disk.
    Checkpoint {
        key: RunKey,
        content: Bytes,
        mime: &'static str,
    },
    /// It takes tasks.
    Ready,
    State(StateNotice),
}

/// How far the conversation is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Talk {
    Greeting,
    Talking,
    Ended,
    Broken,
}

/// Whether it should end by itself, since when, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leaving {
    No,
    Since(Tick, Farewell),
    /// That it lives on was told.
    Told(Tick, Farewell),
}

/// Why nobody can give it work any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Farewell {
    SaidEnd,
    Closed,
}

/// What is known of a runner's end before it comes.
#[derive(Debug, Default)]
pub(crate) struct Testimony {
    pub(crate) last_words: Option<LastWords>,
    /// An exception that ended a thread of it only.
    pub(crate) of_a_thread: Option<LastWords>,
    pub(crate) stall: Option<StallEvidence>,
    pub(crate) violation: Option<String>,
    /// It closed its channel so long ago, and that was told.
    pub(crate) channel_closed_ms: Option<u64>,
}

/// A runner's channel, phase and tasks.
pub(crate) struct Runner {
    channel: Channel,
    talk: Talk,
    leaving: Leaving,
    phase: Phase,
    tasks: Tasks,
    watch: Watch,
    progress: Throttle,
    said: VecDeque<Said>,
    /// Evidence of its end as far as it is known.
    testimony: Testimony,
    violations: u32,
    pings: u64,
}

/// Progress that is not told yet because something was told a moment ago.
#[derive(Debug, Default)]
struct Throttle {
    quiet_until: Tick,
    waiting: Option<Progress>,
}

impl Runner {
    /// Greets a runner that was just started.
    pub(crate) fn new(
        pipes: Pipes,
        name: String,
        incarnation: Incarnation,
        limits: Watchdogs,
        now: Tick,
    ) -> Self {
        let mut runner = Self {
            channel: Channel::new(pipes),
            talk: Talk::Greeting,
            leaving: Leaving::No,
            phase: Phase::Connecting,
            tasks: Tasks::default(),
            watch: Watch::new(limits, now),
            progress: Throttle::default(),
            said: VecDeque::new(),
            testimony: Testimony::default(),
            violations: 0,
            pings: 0,
        };
        let (line_max, bytes_max) = (RUNNER_LINE_BYTES_MAX, RUNNER_BYTES_MAX);
        let hello = ToRunner::Hello {
            version: VERSION,
            runner: name,
            incarnation: incarnation.0,
            line_max,
            bytes_max,
        };
        if let Err(error) = runner.tell(hello) {
            tracing::warn!(%error, "the runner could not be greeted");
        }
        runner
    }

    fn tell(&mut self, frame: ToRunner) -> Result<(), SayError> {
        self.channel.say(&Framed { frame, bytes: None })
    }

    /// Waits for the next thing. Nothing is read unless `is_reading`. Cancel-safe.
    pub(crate) async fn next(&mut self, is_reading: bool) -> Happened {
        self.channel.next(is_reading).await
    }

    /// Takes in what happened; whether it is a sign of life.
    pub(crate) fn take(&mut self, happened: Happened, now: Tick) -> bool {
        match happened {
            Happened::Waiting | Happened::Told(Ok(())) => false,
            Happened::Told(Err(error)) => {
                tracing::info!(%error, "the runner does not read its channel any more");
                self.channel.stop_telling();
                self.closed(now);
                false
            }
            Happened::Heard(Ok(count)) if count > 0 => {
                self.channel.heard(count);
                true
            }
            Happened::Heard(read) => {
                self.ended(read, now);
                false
            }
        }
    }

    fn ended(&mut self, read: io::Result<usize>, now: Tick) {
        if let Err(error) = read {
            tracing::warn!(%error, "the channel could not be read");
        }
        self.channel.ended();
        self.closed(now);
    }

    fn closed(&mut self, now: Tick) {
        if self.leaving == Leaving::No {
            self.leaving = Leaving::Since(now, Farewell::Closed);
        }
    }

    /// Everything that is in its channel now is taken in; it has ended.
    pub(crate) fn drain(&mut self) {
        self.channel.drain();
    }

    /// The next thing to tell. One at a time, so that the driver may stop in between.
    pub(crate) fn say(&mut self, now: Tick) -> Option<Said> {
        loop {
            if let Some(said) = self.said.pop_front() {
                return Some(said);
            }
            match self.channel.next_frame() {
                Ok(Some(framed)) => self.understand(framed, now),
                Ok(None) => return None,
                Err(violation) => self.break_off(violation.to_string()),
            }
        }
    }

    /// Whether there may be something to tell.
    pub(crate) fn has_more(&self) -> bool {
        !self.said.is_empty() || self.channel.is_behind()
    }

    /// The stream cannot be trusted any more.
    fn break_off(&mut self, what: String) {
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

    fn understand(&mut self, Framed { frame, bytes }: Framed<FromRunner>, now: Tick) {
        match (self.talk, frame) {
            (Talk::Broken | Talk::Ended, frame) => tracing::debug!(?frame, "after the end; dropped"),
            // One that cannot even begin may say why.
            (_, FromRunner::LastWords { exception, id, thread }) => self.last_words(&exception, id, thread),
            (_, FromRunner::End) => {
                (self.talk, self.leaving) = (Talk::Ended, Leaving::Since(now, Farewell::SaidEnd));
                self.enter(Phase::ShuttingDown, Progress::default(), now);
            }
            (Talk::Greeting, FromRunner::Hello { version, tasks, capabilities, concurrency, sdk }) => {
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
                        Ok(piece) => self.said.push_back(Said::Output { run: id, piece }),
                        Err(why) => self.complain(format!("{why}, of task {id}")),
                    }
                }
            }
            FromRunner::Progress { id, attempt, progress } => {
                if self.is_about((id, attempt), what, now) {
                    self.said.push_back(Said::Output { run: id, piece: content::progress(&progress) });
                }
            }
            FromRunner::Checkpoint { id, attempt, state } => {
                if self.is_about((id, attempt), what, now) {
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
            FromRunner::LastWords { .. } | FromRunner::End => unreachable!("understood before"),
        }
    }

    /// Whether a frame is about a task that is open. It counts as progress of it.
    fn is_about(&mut self, key: RunKey, what: &str, now: Tick) -> bool {
        match self.tasks.standing(key) {
            Standing::Open(open) => {
                (open.awaited, open.since) = (tasks::Awaited::Next, Some(now));
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

    fn raise(&mut self, key: RunKey, what: &str, exception: &Exception) {
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

    fn phase_name(&self) -> &'static str {
        match self.phase {
            Phase::Connecting => "connecting",
            Phase::Loading => "loading",
            Phase::WarmingUp => "warming_up",
            Phase::Ready if self.tasks.is_empty() => "ready",
            Phase::Ready => "running",
            Phase::ShuttingDown => "shutting_down",
        }
    }

    fn enter(&mut self, phase: Phase, progress: Progress, now: Tick) {
        let is_news = self.phase != phase;
        self.phase = phase;
        self.watch.loading(matches!(phase, Phase::Connecting | Phase::Loading | Phase::WarmingUp), now);
        if is_news && phase == Phase::Ready {
            self.said.push_back(Said::Ready);
        }
        self.progress.waiting = Some(progress);
        if is_news || now >= self.progress.quiet_until {
            self.tell_progress(now);
        }
    }

    fn tell_progress(&mut self, now: Tick) {
        if let Some(progress) = self.progress.waiting.take() {
            self.progress.quiet_until = now + Duration::from_millis(PROGRESS_MS);
            self.said.push_back(Said::State(StateNotice::Entered { phase: self.phase, progress }));
        }
    }

    /// It has ended: what was held back is told.
    pub(crate) fn release(&mut self, now: Tick) {
        self.tell_progress(now);
    }

    /// When [`Self::expire`] wants to be called.
    pub(crate) fn next_deadline(&self) -> Option<Tick> {
        let progress = self.progress.waiting.as_ref().map(|_| self.progress.quiet_until);
        [progress, self.leaving_deadline(), self.watch.next_deadline(&self.tasks)].into_iter().flatten().min()
    }

    fn leaving_deadline(&self) -> Option<Tick> {
        let (at, wait_ms) = match self.leaving {
            Leaving::Since(at, Farewell::SaidEnd) => (at, RUNNER_SAID_END_MS),
            Leaving::Since(at, Farewell::Closed) => (at, CHANNEL_CLOSED_MS),
            Leaving::No | Leaving::Told(..) => return None,
        };
        (!self.watch.is_stopped()).then(|| at + Duration::from_millis(wait_ms))
    }

    /// The deadline has come.
    pub(crate) fn expire(&mut self, now: Tick) {
        if self.progress.waiting.is_some() && now >= self.progress.quiet_until {
            self.tell_progress(now);
        }
        if let Some(at) = self.leaving_deadline()
            && now >= at
        {
            self.lives_on(now);
        }
        for (stall, run) in self.watch.expire(&mut self.tasks, now) {
            self.said.push_back(Said::State(StateNotice::Stalled { stall, run }));
        }
    }

    /// Nobody can give it work any more, and it does not end.
    fn lives_on(&mut self, now: Tick) {
        let Leaving::Since(at, farewell) = self.leaving else { return };
        self.leaving = Leaving::Told(at, farewell);
        self.watch.stop();
        let what = match farewell {
            Farewell::SaidEnd => {
                let what = format!("it said `end` and lives on, {} ms later", millis(now.since(at)));
                self.testimony.violation = Some(what.clone());
                what
            }
            Farewell::Closed => "it closed its channel without saying `end`, and lives on".to_owned(),
        };
        self.said.push_back(Said::State(StateNotice::Violated { what, is_fatal: true }));
    }

    /// It is not listened to for now, or again: then it has as much time as if it had just shown progress.
    pub(crate) fn hold(&mut self, is_held: bool, now: Tick) {
        self.watch.hold(is_held, &mut self.tasks, now);
    }

    pub(crate) const fn is_held(&self) -> bool {
        self.watch.is_held()
    }

    /// We ourselves stood still.
    pub(crate) fn restart_watchdogs(&mut self, now: Tick) {
        self.watch.restart(&mut self.tasks, now);
    }

    /// It is being stopped: what it does not do any more is nobody's business.
    pub(crate) fn stop_watchdogs(&mut self) {
        self.watch.stop();
    }

    /// Gives it a task. One that was given before is ignored; one that cannot be sent ends at once.
    pub(crate) fn give(&mut self, key: RunKey, order: TaskOrder, now: Tick) {
        let TaskOrder { task, input, key: idempotency, checkpoint } = order;
        if !self.tasks.give(key, task.clone(), now) {
            return;
        }
        let (id, attempt) = key;
        let frame = |input| ToRunner::Task { id, attempt, task, key: idempotency, input, checkpoint };
        let mut framed = Framed { frame: frame(Some(input)), bytes: None };
        let mut refused = self.channel.say(&framed);
        if matches!(refused, Err(SayError::TooLarge(RunnerCodecError::LineTooLong { .. })))
            && let ToRunner::Task { input, .. } = &mut framed.frame
        {
            framed.bytes = input.take().map(|input| input.to_string().into_bytes());
            refused = self.channel.say(&framed);
        }
        if let Err(error) = refused {
            let kind = match error {
                SayError::TooLarge(_) => "FrameTooLarge",
                SayError::Full { .. } => "RunnerBusy",
            };
            self.raise(key, "task", &content::own_exception(kind, error.to_string()));
        }
    }

    /// Tells it to stop a task, once.
    pub(crate) fn cancel(&mut self, key @ (id, attempt): (RunId, Attempt)) {
        let Standing::Open(open) = self.tasks.standing(key) else { return };
        if std::mem::replace(&mut open.is_cancelled, true) {
            return;
        }
        if let Err(error) = self.tell(ToRunner::Cancel { id, attempt }) {
            tracing::warn!(%error, run = %id, "the runner could not be told to stop a task");
        }
    }

    /// Sends a ping. One that does not read what it was told before is not told more.
    pub(crate) fn ping(&mut self) {
        self.pings += 1;
        if !self.channel.is_slow() {
            let _full_and_so_silent = self.tell(ToRunner::Ping { n: self.pings });
        }
    }

    /// Asks it to end; `false` when it cannot be asked.
    pub(crate) fn shut_down(&mut self, grace_ms: u64) -> bool {
        self.talk == Talk::Talking && self.tell(ToRunner::Shutdown { grace_ms }).is_ok()
    }

    /// Whether nothing more is to be heard of it, so that its silence says nothing.
    pub(crate) fn has_left(&self) -> bool {
        self.talk == Talk::Broken || self.leaving != Leaving::No
    }

    pub(crate) const fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// What is known of its end.
    pub(crate) fn testimony(&self, now: Tick) -> Testimony {
        let channel_closed_ms = match self.leaving {
            Leaving::Told(at, Farewell::Closed) => Some(millis(now.since(at))),
            Leaving::Told(_, Farewell::SaidEnd) | Leaving::Since(..) | Leaving::No => None,
        };
        Testimony {
            last_words: self.testimony.last_words.clone(),
            of_a_thread: self.testimony.of_a_thread.clone(),
            stall: self.watch.stall().cloned(),
            violation: self.testimony.violation.clone(),
            channel_closed_ms,
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
        FromRunner::LastWords { .. } => "last_words",
        FromRunner::End => "end",
    }
}
