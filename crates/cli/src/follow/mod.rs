//! Following a session: events are shown as they come, questions are asked, signals make the client leave while the
//! work goes on.
//!
//! ```text
//!  stream ──► watch (nothing twice) ──► screen (bars, plain lines, raw bytes, JSON)
//!  signals ─► Ctrl-C: detach, interrupt, stop or continue?    SIGTERM, SIGHUP: detach
//!  terminal ► answers to the program's questions
//! ```

pub mod arrival;
mod ask;
mod bars;
pub mod board;
pub mod cell;
pub mod changes;
pub mod group;
pub mod keys;
pub mod members;
pub mod notebook;
mod output;
pub mod screen;
pub mod state;
mod subject;
mod tail;
pub mod task;
mod updates;
pub mod verdict;
pub mod watch;

use std::collections::BTreeSet;

use outlive_core::id::{RunId, Seq};
use outlive_core::time::WallTime;
use outlive_protocol::http::{Question, SessionState, StreamEvent};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::ask::{Ask, Manner};
use self::screen::Screen;
use self::subject::Chosen;
pub use self::subject::{OnInterrupt, Subject, Task};
use self::watch::Watch;
use crate::client::attached::{Attached, Next};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::select::short;
use crate::terminal;

/// When following is over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Until {
    /// The stream has ended: the session is closed, or only what there is was asked for.
    End,
    /// Or all work that was queued is done, though the session stays open.
    WorkDone,
    /// Or all of these have ended; nothing is shown of others.
    Runs(BTreeSet<RunId>),
}

impl Until {
    /// Whether an event is about what is followed.
    pub fn concerns(&self, event: &StreamEvent) -> bool {
        let Self::Runs(runs) = self else { return true };
        match event {
            StreamEvent::Run { run } => runs.contains(&run.id),
            StreamEvent::Output { run, .. } => run.is_some_and(|run| runs.contains(&run)),
            StreamEvent::Reset { run, .. } => runs.contains(run),
            StreamEvent::Session { .. }
            | StreamEvent::PathChanged { .. }
            | StreamEvent::Stalled { .. }
            | StreamEvent::Report { .. }
            | StreamEvent::Gap { .. }
            | StreamEvent::End { .. }
            | StreamEvent::Problem { .. }
            | StreamEvent::Unknown => true,
        }
    }

    /// Whether all of it was seen.
    pub fn is_reached(&self, watch: &Watch) -> bool {
        match self {
            Self::End => false,
            Self::WorkDone => watch.is_work_done(),
            Self::Runs(runs) => runs.iter().all(|run| watch.has_ended(*run)),
        }
    }
}

/// How following ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// Everything was seen.
    Seen,
    /// The user left; the work goes on. The signal that it is reported as.
    Detached(Exit),
}

/// A follower.
pub struct Follow<'a> {
    /// Where events come from.
    pub attached: Attached<'a>,
    /// What is followed.
    pub subject: Subject,
    /// How events are shown.
    pub screen: Box<dyn Screen>,
    /// Whether somebody is there to be asked.
    pub interactive: bool,
    /// When it is over.
    pub until: Until,
    /// Only what came at this time or later is shown.
    pub since: Option<WallTime>,
}

/// What the terminal is asked.
enum Dialogue {
    /// Nothing.
    None,
    /// What Ctrl-C means.
    Menu(Ask),
    /// The program's question.
    Question(Question, Ask),
}

/// What follows from an answer.
enum Then {
    /// The user leaves.
    Leave,
    /// Go on.
    Wait,
    /// Go on, and ask what the program asks now.
    Ask,
}

/// What happened next.
enum Happened {
    Interrupt,
    Leave(u8),
    Typed(std::io::Result<Option<String>>),
    Came(Result<Next, Failure>),
}

impl Follow<'_> {
    /// Follows to the end, or until the user leaves.
    pub async fn run(mut self) -> Result<(Watch, Left), Failure> {
        let mut signals = Signals::new()?;
        let mut watch = Watch::default();
        let mut dialogue = Dialogue::None;
        // What Ctrl-C echoes would move the cursor away from the bars.
        let _quiet = self.interactive.then(ask::quiet);
        loop {
            let is_menu = matches!(dialogue, Dialogue::Menu(_));
            let happened = tokio::select! {
                biased;
                _ = signals.interrupt.recv() => Happened::Interrupt,
                _ = signals.terminate.recv() => Happened::Leave(15),
                _ = signals.hangup.recv() => Happened::Leave(1),
                typed = dialogue.typed() => Happened::Typed(typed),
                // While the menu stands there, output waits: the daemon keeps it, and a stream that it cuts for
                // being slow is opened again where it was.
                next = self.attached.next(), if !is_menu => Happened::Came(next),
            };
            match happened {
                Happened::Leave(number) => {
                    if self.subject.take_cancel() {
                        self.cancel().await;
                    }
                    let left = self.detach(dialogue, &watch, Exit::Signal(number));
                    return Ok((watch, left));
                }
                Happened::Interrupt if self.subject.take_cancel() => {
                    self.screen.say("cancelling; Ctrl-C again leaves");
                    self.cancel().await;
                }
                Happened::Interrupt => match self.interrupt(dialogue) {
                    Some(menu) => dialogue = menu,
                    None => {
                        let left = self.detach(Dialogue::None, &watch, Exit::INTERRUPTED);
                        return Ok((watch, left));
                    }
                },
                Happened::Typed(typed) => {
                    let typed = typed.unwrap_or(None);
                    match self.typed(std::mem::replace(&mut dialogue, Dialogue::None), typed, &watch).await {
                        Then::Leave => {
                            let left = self.detach(Dialogue::None, &watch, Exit::INTERRUPTED);
                            return Ok((watch, left));
                        }
                        Then::Wait => self.screen.resume(),
                        Then::Ask => {
                            self.screen.resume();
                            dialogue = self.question(&watch, Dialogue::None);
                        }
                    }
                }
                Happened::Came(next) => match next? {
                    Next::Notice(text) => self.screen.say(&text),
                    Next::End => break,
                    Next::Event(event) => {
                        let is_end = matches!(event, StreamEvent::End { .. });
                        if !self.until.concerns(&event) {
                            continue;
                        }
                        self.say_if_stalled(&event);
                        let Some(mut event) = watch.admit(event) else { continue };
                        if self.screen.wants_large() {
                            self.attached.fill(self.subject.session(), &mut event).await?;
                        }
                        let is_view = matches!(event, StreamEvent::Session { .. });
                        if let Some(event) = recent(event, self.since) {
                            self.screen.show(&event, &watch)?;
                        }
                        if is_view {
                            dialogue = self.question(&watch, dialogue);
                        }
                        if is_end || self.until.is_reached(&watch) {
                            break;
                        }
                    }
                },
            }
        }
        drop(dialogue);
        self.screen.finish(&watch)?;
        Ok((watch, Left::Seen))
    }

    fn say_if_stalled(&mut self, event: &StreamEvent) {
        if let StreamEvent::Stalled { why } = event {
            self.screen.say(&stalled(why.as_deref()));
        }
    }

    fn detach(&mut self, dialogue: Dialogue, watch: &Watch, exit: Exit) -> Left {
        drop(dialogue);
        self.screen.pause();
        let is_idle = watch.session.as_ref().is_some_and(|session| session.state == SessionState::Idle);
        crate::terminal::talk(self.subject.farewell(is_idle));
        Left::Detached(exit)
    }

    /// Cancels the task that is followed; what comes of it comes by the stream.
    async fn cancel(&mut self) {
        if let Err(error) = self.subject.carry_out(Chosen::Cancel, self.attached.client(), None).await {
            self.screen.say(&format!("that failed: {error}"));
        }
    }

    /// Ctrl-C: the menu; `None` when the user leaves (a second Ctrl-C, or nobody to be asked).
    fn interrupt(&mut self, dialogue: Dialogue) -> Option<Dialogue> {
        if matches!(dialogue, Dialogue::Menu(_)) || !self.interactive || !self.subject.asks() {
            return None;
        }
        drop(dialogue);
        self.screen.pause();
        let ask = Ask::new(self.subject.menu(), Manner::Key).ok()?;
        Some(Dialogue::Menu(ask))
    }

    /// Does what was answered.
    async fn typed(&mut self, dialogue: Dialogue, typed: Option<String>, watch: &Watch) -> Then {
        match dialogue {
            Dialogue::None => Then::Wait,
            Dialogue::Menu(ask) => {
                drop(ask);
                let chosen = self.subject.chosen(typed.as_deref());
                if chosen == Chosen::Leave {
                    return Then::Leave;
                }
                let client = self.attached.client();
                let done = self.subject.carry_out(chosen, client, watch.session.as_ref()).await;
                if let Err(error) = done {
                    self.screen.say(&format!("that failed: {error}"));
                }
                // The program may have asked before the menu came, and its question was taken back.
                Then::Ask
            }
            Dialogue::Question(question, ask) => {
                drop(ask);
                // The end of the terminal's input is no answer; somebody else may give one.
                let Some(value) = typed else { return Then::Wait };
                match self.attached.client().input(self.subject.session(), question.run, value).await {
                    Ok(_) => Then::Wait,
                    Err(error) => {
                        self.screen.say(&format!("the answer was not taken: {error}"));
                        Then::Ask
                    }
                }
            }
        }
    }

    /// Brings the dialogue in line with what the program asks now.
    fn question(&mut self, watch: &Watch, dialogue: Dialogue) -> Dialogue {
        let asked = watch.session.as_ref().and_then(|session| session.question.clone());
        match (dialogue, asked) {
            (Dialogue::Menu(ask), _) => Dialogue::Menu(ask),
            (Dialogue::Question(standing, ask), Some(asked)) if standing == asked => {
                Dialogue::Question(standing, ask)
            }
            (Dialogue::Question(_, ask), asked) => {
                drop(ask);
                self.screen.resume();
                if asked.is_none() {
                    self.screen.say("(answered elsewhere)");
                }
                self.ask(asked)
            }
            (Dialogue::None, asked) => self.ask(asked),
        }
    }

    fn ask(&mut self, asked: Option<Question>) -> Dialogue {
        let Some(asked) = asked else { return Dialogue::None };
        if !self.interactive {
            let id = short(self.subject.session());
            self.screen.say(&format!(
                "the program asks {:?} and nobody is here to answer: `outlive attach {id}` at a terminal",
                asked.prompt
            ));
            return Dialogue::None;
        }
        self.screen.pause();
        let manner = if asked.password { Manner::Secret } else { Manner::Line };
        match Ask::new(&asked.prompt, manner) {
            Ok(ask) => Dialogue::Question(asked, ask),
            Err(error) => {
                self.screen.resume();
                self.screen.say(&format!(
                    "the program asks {:?}, and the terminal cannot be used: {error}",
                    asked.prompt
                ));
                Dialogue::None
            }
        }
    }
}

/// That a session waits for its store, or goes on.
pub fn stalled(why: Option<&str>) -> String {
    match why {
        Some(why) => format!("it waits, and nothing is lost: {}", terminal::one_line(why)),
        None => "it goes on: the store takes what it writes".to_owned(),
    }
}

/// What of an event came at a time or later.
fn recent(event: StreamEvent, since: Option<WallTime>) -> Option<StreamEvent> {
    let Some(since) = since else { return Some(event) };
    match event {
        StreamEvent::Output { run, attempt, first, mut chunks } => {
            let old = chunks.iter().take_while(|chunk| chunk.at < since).count();
            chunks.drain(..old);
            let first = Seq(first.0 + old as u64);
            (!chunks.is_empty()).then_some(StreamEvent::Output { run, attempt, first, chunks })
        }
        StreamEvent::Run { ref run } if run.ended_at.is_some_and(|at| at < since) => None,
        StreamEvent::Report { ref report } if report.at < since => None,
        event => Some(event),
    }
}

impl Dialogue {
    /// What was typed; waits for ever when nothing is asked. Cancel-safe.
    async fn typed(&mut self) -> std::io::Result<Option<String>> {
        match self {
            Self::None => std::future::pending().await,
            Self::Menu(ask) | Self::Question(_, ask) => ask.answer().await,
        }
    }
}

/// The signals that make a client leave.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// Listens to them.
    pub fn new() -> Result<Self, Failure> {
        let on = |kind| {
            signal(kind)
                .map_err(|error| Failure::new(Exit::Failed, format!("signals cannot be received: {error}")))
        };
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    /// How somebody who looks on leaves with the next one: with Ctrl-C as they like. Cancel-safe.
    pub async fn left(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Ok,
            _ = self.terminate.recv() => Exit::Signal(15),
            _ = self.hangup.recv() => Exit::Signal(1),
        }
    }
}
