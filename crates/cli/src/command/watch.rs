//! `outlive watch`: a session's notebook live, until it ends or somebody leaves. Looking changes nothing.

use std::time::Duration;

use outlive_core::id::SessionId;
use outlive_protocol::http::{CellView, RunView, StreamEvent};

use super::attach::quietly;
use crate::client::attached::{Attached, Next, Target};
use crate::client::{CallError, Client};
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::follow::Signals;
use crate::follow::board::Board;
use crate::follow::changes::Changes;
use crate::follow::keys::{Key, Keys};
use crate::select;
use crate::terminal::{self, Paint};

/// How often the screen is drawn at most.
const DRAW_PERIOD: Duration = Duration::from_millis(100);
/// How often the cells are looked at: what people type is told to those who edit, and to nobody else.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// How many chunks are shown of what a run has printed before.
const CHUNKS_BEFORE: u64 = 100;

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Session: id or its beginning, title or file name [default: the latest]
    #[arg(value_name = "SESSION", add = crate::complete::sessions())]
    session: Option<String>,
    /// Print a line for each change instead of a screen
    #[arg(long)]
    plain: bool,
}

impl Args {
    /// Does it.
    pub async fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        let client = quietly(daemon).await?;
        let session = select::session(&client, self.session.as_deref()).await?;
        if let Some(group) = session.group.as_ref().filter(|_| session.closed_at.is_none()) {
            return super::runners::live(daemon, client, Some(&group.name)).await;
        }
        let (id, is_open) = (session.id, session.closed_at.is_none());
        let is_notebook = session.kind == "notebook";
        let attached = Attached::open(daemon, client.clone(), Target::FromNow { id }, is_open, None).await?;
        // After that, so that nothing is missed between the two.
        let before = if is_open && is_notebook { Before::of(&client, id).await? } else { Before::default() };
        if self.plain || !terminal::out_is_terminal() {
            return lines(attached, &before).await;
        }
        let mut board = Board::default();
        board.begin(before.runs, before.cells);
        printed(&mut board, daemon, &client, id).await?;
        let (signals, screen) = (Signals::new()?, Screen::begin()?);
        let keys = Keys::new();
        let live = Live { attached, client, id, board, stale: Stale::Picture, signals, keys, screen };
        live.run(is_notebook).await
    }
}

/// The alternate screen with the cursor hidden and the window's title remembered; all as before when it goes.
pub struct Screen(());

impl Screen {
    /// Takes the terminal.
    pub fn begin() -> Result<Self, Failure> {
        terminal::data(b"\x1b[22;0t\x1b[?1049h\x1b[?25l")?;
        Ok(Self(()))
    }

    /// Shows these lines and nothing else; the window gets a title.
    pub fn draw(&mut self, title: &str, lines: &[String]) -> Result<(), Failure> {
        let mut text = format!("\x1b]0;{title}\x07\x1b[H");
        for (n, line) in lines.iter().enumerate() {
            let end = if n == 0 { "" } else { "\r\n" };
            text.push_str(&format!("{end}{line}\x1b[K"));
        }
        text.push_str("\x1b[J");
        terminal::data(text.as_bytes())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        drop(terminal::data(b"\x1b[?25h\x1b[?1049l\x1b[23;0t"));
    }
}

/// A session on the whole terminal.
struct Live<'a> {
    attached: Attached<'a>,
    client: Client,
    id: SessionId,
    board: Board,
    /// Whether the cells are to be looked at again, and whether there is something new to draw.
    stale: Stale,
    signals: Signals,
    keys: Option<Keys>,
    screen: Screen,
}

/// What of the screen is out of date.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Stale {
    Nothing,
    Picture,
    Cells,
}

impl Live<'_> {
    async fn run(mut self, is_notebook: bool) -> Result<Exit, Failure> {
        let mut look = tokio::time::interval(LOOK_PERIOD);
        let mut draw = tokio::time::interval(DRAW_PERIOD);
        draw.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let all = if is_notebook { Stale::Cells } else { Stale::Picture };
        loop {
            let next = {
                // It goes on looking for a daemon that is away while the screen is drawn.
                let mut coming = std::pin::pin!(self.attached.next());
                loop {
                    tokio::select! {
                        biased;
                        exit = self.signals.left() => return Ok(exit),
                        keys = pressed(&mut self.keys) => {
                            if keys.contains(&Key::Leave) {
                                return Ok(Exit::Ok);
                            }
                            keys.into_iter().for_each(|key| self.board.go(key));
                            self.stale = self.stale.max(Stale::Picture);
                        }
                        _ = look.tick() => self.stale = all,
                        _ = draw.tick(), if self.stale > Stale::Nothing => {
                            if self.stale == Stale::Cells {
                                let looked = refresh(&mut self.board, &self.client, self.id);
                                // A daemon that stands still does not keep anybody from leaving.
                                tokio::time::timeout(LOOK_PERIOD, looked).await.unwrap_or(Ok(()))?;
                            }
                            self.stale = Stale::Nothing;
                            let (height, width) = console::Term::stdout().size_checked().unwrap_or((24, 80));
                            let lines = self.board.lines(usize::from(width), usize::from(height), Paint::out());
                            self.screen.draw(&self.board.title(), &lines)?;
                        }
                        next = &mut coming => break next?,
                    }
                }
            };
            let has_cells_changed = match next {
                Next::Event(StreamEvent::End { .. }) | Next::End => break,
                Next::Event(event) => self.board.take(event) && is_notebook,
                Next::Notice(text) => {
                    self.board.is_away(text);
                    false
                }
            };
            self.stale = self.stale.max(if has_cells_changed { Stale::Cells } else { Stale::Picture });
            self.client = self.attached.client().clone();
        }
        let title =
            self.board.session().map_or_else(String::new, |session| terminal::one_line(&session.title));
        drop((self.keys, self.screen));
        terminal::talk(format!("the session {title} has ended"));
        Ok(Exit::Ok)
    }
}

/// What somebody presses; waits for ever without a terminal. Cancel-safe.
async fn pressed(keys: &mut Option<Keys>) -> Vec<Key> {
    match keys {
        Some(keys) => keys.next().await,
        None => std::future::pending().await,
    }
}

/// What there was when somebody began to look.
#[derive(Default)]
struct Before {
    runs: Vec<RunView>,
    cells: Vec<CellView>,
}

impl Before {
    /// Nothing of a session that is over by now, or where the daemon is away.
    async fn of(client: &Client, id: SessionId) -> Result<Self, Failure> {
        let cells = match client.notebook(id, true).await {
            Ok(notebook) => notebook.cells,
            Err(error) => return passed(error).map(|()| Self::default()),
        };
        match client.runs(id).await {
            Ok(runs) => Ok(Self { runs, cells }),
            Err(error) => passed(error).map(|()| Self::default()),
        }
    }
}

/// What a run has printed last, before somebody began to look.
async fn printed(board: &mut Board, daemon: &Daemon, client: &Client, id: SessionId) -> Result<(), Failure> {
    let Some(run) = board.running() else { return Ok(()) };
    let seq = run.head.0.saturating_sub(CHUNKS_BEFORE);
    let (target, from) = (Target::Run { id, run: run.id }, format!("{}.{seq}", run.attempt.0));
    let mut attached = Attached::open(daemon, client.clone(), target, false, Some(from)).await?;
    loop {
        match attached.next().await? {
            Next::End | Next::Event(StreamEvent::End { .. }) => return Ok(()),
            Next::Event(event) => drop(board.take(event)),
            Next::Notice(_) => {}
        }
    }
}

/// A daemon that is away for a moment leaves the cells as they were, and so does the end of the session.
async fn refresh(board: &mut Board, client: &Client, id: SessionId) -> Result<(), Failure> {
    match client.notebook(id, false).await {
        Ok(notebook) => {
            board.set_cells(notebook.cells);
            Ok(())
        }
        Err(error) => passed(error),
    }
}

/// Of what passes by itself, or what the stream says in a moment, nothing is said here.
fn passed(error: CallError) -> Result<(), Failure> {
    match error {
        error if error.is_daemon_gone() || error.is_passing() => Ok(()),
        CallError::Refused(problem) if problem.code == "session-ended" => Ok(()),
        error => Err(error.into()),
    }
}

/// For files and pipes: what changes, a line each.
async fn lines(mut attached: Attached<'_>, before: &Before) -> Result<Exit, Failure> {
    Changes::before(&before.runs, &before.cells).into_iter().try_for_each(terminal::line)?;
    let mut changes = Changes::default();
    let mut signals = Signals::new()?;
    loop {
        let texts = tokio::select! {
            biased;
            exit = signals.left() => return Ok(exit),
            next = attached.next() => match next? {
                Next::End | Next::Event(StreamEvent::End { .. }) => return Ok(Exit::Ok),
                Next::Notice(text) => vec![text],
                Next::Event(event) => changes.of(&event),
            },
        };
        texts.into_iter().try_for_each(terminal::line)?;
    }
}
