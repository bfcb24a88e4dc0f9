//! A stream that survives its daemon and its node: silence, a broken connection, a daemon's death and a session that
//! changes its node all end in coming back with the last cursor.
//!
//! ```text
//!            open ──event──► shown, cursor kept ──► …  ──► end
//!             ▲ │ lost, silent, cut as a slow reader, a node that hands over or is cut off
//!             │ ▼
//!   the same daemon, else another node, else a daemon that is started again; until patience ends
//! ```

mod seek;

use std::time::Duration;

use outlive_core::id::{RunId, SessionId};
use outlive_core::log::{Chunk, Payload};
use outlive_protocol::http::{ChunkView, Problem, StreamEvent};

use tokio::time::Instant;

use self::seek::{Found, Sought};
use super::way::Way;
use super::{CallError, Client, EventStream, Twice};
use crate::daemon::{self, Daemon};
use crate::exit::Exit;
use crate::failure::Failure;

/// Streams in a row that broke off without an event, after which the next one is waited for a while.
const FRUITLESS_MAX: u32 = 2;
/// That wait: a daemon on a full disk answers again when there is space.
const PAUSE: Duration = Duration::from_secs(1);

/// What is attached to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Everything that happens in a session.
    Session {
        /// Which.
        id: SessionId,
        /// Whether somebody is there who can answer a program's question.
        interactive: bool,
    },
    /// What happens in a session from now on.
    FromNow {
        /// Which.
        id: SessionId,
    },
    /// How a session is, from now on: what its runs print is left out.
    States {
        /// Which.
        id: SessionId,
    },
    /// The output of one run.
    Run {
        /// Its session.
        id: SessionId,
        /// Which.
        run: RunId,
    },
}

/// What comes out of a stream.
#[derive(Clone, PartialEq, Debug)]
pub enum Next {
    /// An event.
    Event(StreamEvent),
    /// Something about the way to the daemon that the user wants to know.
    Notice(String),
    /// The stream is complete.
    End,
}

/// A stream with its place.
pub struct Attached<'a> {
    daemon: &'a Daemon,
    client: Client,
    target: Target,
    follow: bool,
    /// The last event that is a place to come back to.
    cursor: Option<String>,
    link: Link,
    /// How often it broke off since the last event, and since when.
    fruitless: u32,
    lost_at: Option<Instant>,
    /// Who may go on with it, as the last one said.
    hinted: Option<Way>,
}

enum Link {
    Open(Box<EventStream>),
    /// To be opened again.
    Lost(Why),
    /// As before, and the user was told.
    Seeking(Why),
    /// Open, and somebody else serves it than before, which is told first.
    Moved(Box<EventStream>),
    Ended,
}

/// Why a stream broke off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Why {
    /// The daemon died, hangs or is out of reach.
    Gone,
    /// The daemon said that it is shutting down, or gives its sessions to other nodes.
    Goodbye,
    /// The daemon is cut off from the other nodes.
    Isolated,
    /// The node that has the session does not answer, or nobody has it at the moment.
    Moving,
    /// The store does not answer.
    Store,
    /// The daemon ended this stream and lives on: we read too slowly, or it has too much to do.
    Cut,
}

impl Why {
    fn of(code: &str) -> Self {
        match code {
            "shutting-down" | "draining" => Self::Goodbye,
            "node-isolated" | "isolated" => Self::Isolated,
            "owner-silent" | "owner-unreachable" | "session-moving" | "elsewhere" => Self::Moving,
            "store-unavailable" => Self::Store,
            _ => Self::Cut,
        }
    }
}

impl<'a> Attached<'a> {
    /// Opens a stream from a cursor, or from the first line.
    pub async fn open(
        daemon: &'a Daemon,
        client: Client,
        target: Target,
        follow: bool,
        cursor: Option<String>,
    ) -> Result<Self, Failure> {
        let opened = client.events(&path(target, follow, cursor.as_deref())).await;
        let mut attached = Self {
            daemon,
            client,
            target,
            follow,
            cursor,
            link: Link::Ended,
            fruitless: 0,
            lost_at: None,
            hinted: None,
        };
        match opened {
            Ok(stream) => attached.link = Link::Open(Box::new(stream)),
            Err(CallError::Refused(problem)) if problem.status == 503 => attached.turned_away(&problem),
            Err(error) if error.is_daemon_gone() => attached.lose(Why::Gone),
            Err(error) => return Err(error.into()),
        }
        Ok(attached)
    }

    /// The way to the daemon that serves the stream now.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Puts what an event's large chunks refer to into them. What is gone by now stays a reference.
    pub async fn fill(&mut self, session: SessionId, event: &mut StreamEvent) -> Result<(), Failure> {
        let StreamEvent::Output { chunks, .. } = event else { return Ok(()) };
        for chunk in chunks {
            let Some(sha256) = chunk.blob.as_ref().map(|blob| blob.sha256.clone()) else { continue };
            let Some(bytes) = self.blob(session, &sha256).await? else { continue };
            let payload = Payload::Inline(bytes.into());
            *chunk = ChunkView::from(&Chunk { kind: chunk.kind.clone(), at: chunk.at, payload });
        }
        Ok(())
    }

    async fn blob(&mut self, session: SessionId, sha256: &str) -> Result<Option<Vec<u8>>, Failure> {
        let ask = async |client: Client| client.blob(session, sha256).await;
        let daemon = self.daemon;
        match daemon.persist(&mut self.client, Twice::Harmless, &mut daemon::silent, ask).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(CallError::Refused(problem)) if problem.status == 404 => Ok(None),
            Err(error) => Err(Failure::from(error).hint(self.afterwards())),
        }
    }

    /// The next event. Cancel-safe: what was not returned is not lost.
    pub async fn next(&mut self) -> Result<Next, Failure> {
        loop {
            match &mut self.link {
                Link::Ended => return Ok(Next::End),
                Link::Lost(why) => {
                    let why = *why;
                    self.link = Link::Seeking(why);
                    if let Some(notice) = self.notice(why) {
                        return Ok(Next::Notice(notice));
                    }
                }
                Link::Seeking(why) => {
                    let why = *why;
                    self.come_back(why).await?;
                }
                Link::Moved(_) => {
                    if let Link::Moved(stream) = std::mem::replace(&mut self.link, Link::Ended) {
                        self.link = Link::Open(stream);
                    }
                    return Ok(Next::Notice(format!("goes on by {}", self.client.way())));
                }
                Link::Open(stream) => match stream.next().await {
                    Ok(Some((cursor, event))) => {
                        if let Some(event) = self.received(cursor, event)? {
                            return Ok(Next::Event(event));
                        }
                    }
                    // A stream ends with an `end` or a `problem`; a bare end of file is a daemon that died.
                    Ok(None) => self.lose(Why::Gone),
                    Err(error) if error.is_daemon_gone() => self.lose(Why::Gone),
                    Err(error) => return Err(error.into()),
                },
            }
        }
    }

    fn received(
        &mut self,
        cursor: Option<String>,
        event: StreamEvent,
    ) -> Result<Option<StreamEvent>, Failure> {
        match event {
            StreamEvent::Problem { problem } if problem.status == 503 || problem.elsewhere.is_some() => {
                self.turned_away(&problem);
                Ok(None)
            }
            StreamEvent::Problem { problem } => Err(problem.into()),
            event => {
                (self.fruitless, self.lost_at, self.hinted) = (0, None, None);
                if cursor.is_some() {
                    self.cursor = cursor;
                }
                if matches!(event, StreamEvent::End { .. }) {
                    self.link = Link::Ended;
                }
                Ok(Some(event))
            }
        }
    }

    /// Whoever serves it does not go on, and may say who does.
    fn turned_away(&mut self, problem: &Problem) {
        let url = problem.elsewhere.as_ref().and_then(|node| node.url.as_deref());
        self.hinted = url.and_then(|url| Way::url(url, None).ok());
        self.lose(Why::of(&problem.code));
    }

    fn lose(&mut self, why: Why) {
        self.fruitless += 1;
        self.lost_at.get_or_insert_with(Instant::now);
        self.link = Link::Lost(why);
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a person waits at a terminal; nothing else tells when to try again"
    )]
    async fn come_back(&mut self, why: Why) -> Result<(), Failure> {
        let since = *self.lost_at.get_or_insert_with(Instant::now);
        let deadline = since + self.daemon.patience();
        if Instant::now() >= deadline {
            return Err(self.given_up(None));
        }
        if self.fruitless > FRUITLESS_MAX {
            tokio::time::sleep(PAUSE).await;
        }
        let path = path(self.target, self.follow, self.cursor.as_deref());
        let hinted = self.hinted.clone();
        let sought = Sought { path: &path, last: &self.client, hinted, why, deadline };
        match seek::seek(self.daemon, sought).await? {
            Found::Stream(client, stream) => {
                let has_moved = client.way() != self.client.way();
                self.client = client;
                self.link = if has_moved { Link::Moved(stream) } else { Link::Open(stream) };
                Ok(())
            }
            Found::Nobody(last) => Err(self.given_up(last)),
        }
    }

    /// Nobody had the stream in time.
    fn given_up(&self, last: Option<CallError>) -> Failure {
        let seconds = self.daemon.patience().as_secs();
        let why = match last {
            Some(CallError::Refused(problem)) => format!("; the last word was: {problem}"),
            Some(error) => format!("; {error}"),
            None => String::new(),
        };
        Failure::new(Exit::Daemon, format!("nobody goes on with the stream within {seconds} s{why}"))
            .hint(self.afterwards())
    }

    /// What the user is told; nothing where it is back in a moment.
    fn notice(&self, why: Why) -> Option<String> {
        let has_others = self.daemon.has_others();
        let waits = why == Why::Goodbye || !self.daemon.may_start();
        let (what, then) = match why {
            Why::Gone if has_others => ("the node does not answer", "looking for another one"),
            Why::Gone if waits => ("the daemon does not answer", "waiting for it"),
            Why::Gone => ("the daemon does not answer", "looking for it again"),
            Why::Goodbye if has_others => ("the node hands its work over", "moving with it"),
            Why::Goodbye => ("the daemon is shutting down", "waiting for it"),
            Why::Isolated => ("the node is cut off from the others", "looking for another one"),
            Why::Moving => {
                ("the node that has the session does not answer", "waiting for another to take it over")
            }
            Why::Store => ("the store does not answer", "waiting for it"),
            Why::Cut => return None,
        };
        // Said once, however often it breaks off before the next event.
        (self.fruitless <= 1).then(|| format!("{what}; {then} (what runs goes on)"))
    }

    fn afterwards(&self) -> String {
        let (Target::Session { id, .. }
        | Target::FromNow { id }
        | Target::States { id }
        | Target::Run { id, .. }) = self.target;
        format!("what runs goes on: `outlive attach {}` comes back to it", crate::select::short(id))
    }
}

fn path(target: Target, follow: bool, cursor: Option<&str>) -> String {
    match target {
        Target::Session { id, interactive } => {
            let after = cursor.unwrap_or("0");
            format!("/v1/sessions/{id}/attach?after={after}&interactive={interactive}&follow={follow}")
        }
        Target::FromNow { id } => {
            let after = cursor.unwrap_or("head");
            format!("/v1/sessions/{id}/attach?after={after}&follow={follow}")
        }
        Target::States { id } => {
            let after = cursor.unwrap_or("head");
            format!("/v1/sessions/{id}/attach?after={after}&follow={follow}&outputs=false")
        }
        Target::Run { id, run } => {
            let cursor = cursor.unwrap_or("0.0");
            format!("/v1/sessions/{id}/runs/{run}/attach?cursor={cursor}&follow={follow}")
        }
    }
}
