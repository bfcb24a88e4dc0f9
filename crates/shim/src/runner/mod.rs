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
mod frames;
mod orders;
mod tasks;
mod watch;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use outlive_core::diagnosis::evidence::{LastWords, StallEvidence};
use outlive_core::id::{Incarnation, RunId};
use outlive_core::limits::{
    CHANNEL_CLOSED_MS, PROGRESS_MS, RUNNER_BYTES_MAX, RUNNER_LINE_BYTES_MAX, RUNNER_SAID_END_MS,
};
use outlive_core::runtime::runner::{Phase, Progress, Watchdogs};
use outlive_core::time::Tick;
use outlive_process::Channel as Pipes;
use outlive_protocol::runner::{ToRunner, VERSION};
use outlive_protocol::shim::StateNotice;

use crate::clock::millis;
use crate::kernel::runs::RunKey;
use channel::Channel;
pub(crate) use channel::Happened;
pub(crate) use content::Piece;
use tasks::Tasks;
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
    /// It was told that its tasks go on elsewhere.
    hands_over: bool,
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
            hands_over: false,
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
