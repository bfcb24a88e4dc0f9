//! `outlive watch`: a session's notebook live, until it ends or somebody leaves. Looking changes nothing.

use std::time::Duration;

use outlive_protocol::http::{RunState, StreamEvent};

use super::attach::quietly;
use crate::client::Client;
use crate::client::attached::{Attached, Next, Target};
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::follow::board::{self, Board};
use crate::follow::{self, notebook, state};
use crate::select;
use crate::terminal::{self, Paint};

/// How often the screen is drawn at most.
const DRAW_PERIOD: Duration = Duration::from_millis(100);
/// How often the cells are looked at: what people type is told to those who edit, and to nobody else.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

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
        let target = Target::FromNow { id: session.id };
        let attached = Attached::open(daemon, client, target, session.closed_at.is_none(), None).await?;
        if self.plain || !terminal::out_is_terminal() {
            lines(attached).await
        } else {
            screen(attached, session.id, session.kind == "notebook").await
        }
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

async fn screen(
    mut attached: Attached<'_>,
    id: outlive_core::id::SessionId,
    is_notebook: bool,
) -> Result<Exit, Failure> {
    let mut screen = Screen::begin()?;
    let mut board = Board::default();
    let mut look = tokio::time::interval(LOOK_PERIOD);
    let mut draw = tokio::time::interval(DRAW_PERIOD);
    draw.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut is_stale, mut is_changed) = (is_notebook, true);
    loop {
        tokio::select! {
            biased;
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.map_err(|error| Failure::new(Exit::Failed, format!("Ctrl-C cannot be heard: {error}")))?;
                return Ok(Exit::Ok);
            }
            _ = look.tick() => is_stale = is_notebook,
            _ = draw.tick(), if is_changed || is_stale => {
                if std::mem::take(&mut is_stale) {
                    refresh(&mut board, attached.client(), id).await?;
                }
                is_changed = false;
                let (height, width) = console::Term::stdout().size_checked().unwrap_or((24, 80));
                let lines = board.lines(usize::from(width), usize::from(height), Paint::out());
                screen.draw(&board.title(), &lines)?;
            }
            next = attached.next() => match next? {
                Next::Event(StreamEvent::End { .. }) | Next::End => break,
                Next::Event(event) => {
                    is_stale |= board.take(event) && is_notebook;
                    is_changed = true;
                }
                Next::Notice(_) => {}
            },
        }
    }
    drop(screen);
    let title = board.session().map_or_else(String::new, |session| terminal::one_line(&session.title));
    terminal::talk(format!("the session {title} has ended"));
    Ok(Exit::Ok)
}

/// A daemon that is away for a moment leaves the cells as they were.
async fn refresh(board: &mut Board, client: &Client, id: outlive_core::id::SessionId) -> Result<(), Failure> {
    match client.notebook(id, false).await {
        Ok(notebook) => board.set_cells(notebook.cells),
        Err(error) if error.is_daemon_gone() || error.is_passing() => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// For files and pipes: what changes, a line each.
async fn lines(mut attached: Attached<'_>) -> Result<Exit, Failure> {
    let mut shown = String::new();
    loop {
        let text = tokio::select! {
            biased;
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.map_err(|error| Failure::new(Exit::Failed, format!("Ctrl-C cannot be heard: {error}")))?;
                return Ok(Exit::Ok);
            }
            next = attached.next() => match next? {
                Next::End | Next::Event(StreamEvent::End { .. }) => return Ok(Exit::Ok),
                Next::Notice(text) => Some(text),
                Next::Event(event) => line(&event, &mut shown),
            },
        };
        if let Some(text) = text {
            terminal::line(text)?;
        }
    }
}

fn line(event: &StreamEvent, shown: &mut String) -> Option<String> {
    match event {
        StreamEvent::Session { session } => {
            let (_, saved) = board::saved(session.saved.as_ref());
            let text = format!("kernel {}, {saved}", state::runtime(&session.runtime.state));
            (*shown != text).then(|| {
                shown.clone_from(&text);
                text
            })
        }
        StreamEvent::PathChanged { path, .. } => Some(format!("path {}", terminal::one_line(path))),
        StreamEvent::Run { run } => {
            let cell =
                run.cell_id.as_deref().map_or_else(|| "code".to_owned(), |cell| format!("cell {cell}"));
            let word = match &run.state {
                RunState::Queued => "queued".to_owned(),
                RunState::Running => "running".to_owned(),
                RunState::Ended { outcome } => notebook::in_words(run, outcome).1,
                RunState::Unknown => return None,
            };
            Some(format!("{} {word}", terminal::one_line(&cell)))
        }
        StreamEvent::Output { chunks, .. } => {
            let text: String = chunks.iter().filter_map(|chunk| chunk.text.as_deref()).collect();
            let text = text.trim_end();
            (!text.is_empty()).then(|| text.lines().map(terminal::one_line).collect::<Vec<_>>().join("\n"))
        }
        StreamEvent::Report { report } => Some(terminal::one_line(&report.cause().summary)),
        StreamEvent::Gap { skipped } => Some(format!("… {skipped} changes were not shown")),
        StreamEvent::Problem { problem } => Some(terminal::one_line(&problem.detail)),
        StreamEvent::Stalled { why } => Some(follow::stalled(why.as_deref())),
        StreamEvent::Reset { .. } | StreamEvent::End { .. } | StreamEvent::Unknown => None,
    }
}
