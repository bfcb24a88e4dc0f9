//! A stream that survives its daemon: silence, a broken connection and a daemon's death all end in coming back with
//! the last cursor.
//!
//! ```text
//!            open ──event──► shown, cursor kept ──► …  ──► end
//!             ▲ │ lost, silent for 2 s, cut as a slow reader
//!             │ ▼
//!   a daemon (found, or started again) ◄── waited for, when it said that it is shutting down
//! ```

use std::time::Duration;

use outlive_core::id::{RunId, SessionId};
use outlive_core::log::{Chunk, Payload};
use outlive_protocol::http::{ChunkView, StreamEvent};

use super::{CallError, Client, EventStream};
use crate::daemon::{self, Daemon};
use crate::exit::Exit;
use crate::failure::Failure;

/// Reconnections in a row without one event in between, after which something is wrong that time does not mend.
const FRUITLESS_MAX: u32 = 20;
/// The wait before each but the first two of them: a daemon on a full disk answers again when there is space.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a daemon that shut down is waited for: an upgrade or a restart of its service.
const RETURN_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a blob is asked for, when the daemon dies meanwhile.
const BLOB_TRIES: usize = 3;

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
    fruitless: u32,
}

enum Link {
    Open(Box<EventStream>),
    /// To be opened again.
    Lost(Why),
    /// As before, and the user was told.
    Seeking(Why),
    Ended,
}

/// Why a stream broke off.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// The daemon died, hangs or is out of reach.
    Gone,
    /// The daemon said that it is shutting down.
    Goodbye,
    /// The daemon ended this stream and lives on: we read too slowly, or it has too much to do.
    Cut,
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
        let stream = client.events(&path(target, follow, cursor.as_deref())).await?;
        Ok(Self { daemon, client, target, follow, cursor, link: Link::Open(Box::new(stream)), fruitless: 0 })
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
        for _ in 0..BLOB_TRIES {
            match self.client.blob(session, sha256).await {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(CallError::Refused(problem)) if problem.status == 404 => return Ok(None),
                Err(error) if error.is_daemon_gone() => {
                    self.client = self.daemon.connect_or_start(&mut daemon::silent).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Failure::new(Exit::Daemon, "the daemon breaks off while it sends a large piece of output")
            .hint(self.afterwards()))
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
                Link::Open(stream) => match stream.next().await {
                    Ok(Some((cursor, event))) => {
                        if let Some(event) = self.received(cursor, event)? {
                            return Ok(Next::Event(event));
                        }
                    }
                    // A stream ends with an `end` or a `problem`; a bare end of file is a daemon that died.
                    Ok(None) => self.lose(Why::Gone)?,
                    Err(error) if error.is_daemon_gone() => self.lose(Why::Gone)?,
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
            StreamEvent::Problem { problem } if problem.status == 503 => {
                self.lose(if problem.code == "shutting-down" { Why::Goodbye } else { Why::Cut })?;
                Ok(None)
            }
            StreamEvent::Problem { problem } => Err(problem.into()),
            event => {
                self.fruitless = 0;
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

    fn lose(&mut self, why: Why) -> Result<(), Failure> {
        self.fruitless += 1;
        if self.fruitless > FRUITLESS_MAX {
            return Err(Failure::new(Exit::Daemon, "the daemon's stream breaks off again and again")
                .hint(format!("look at its log, {}; {}", self.daemon.log().display(), self.afterwards())));
        }
        self.link = Link::Lost(why);
        Ok(())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a person waits at a terminal; nothing else tells when to try again"
    )]
    async fn come_back(&mut self, why: Why) -> Result<(), Failure> {
        if self.fruitless > 2 {
            tokio::time::sleep(PAUSE).await;
        }
        let found = if why == Why::Goodbye || !self.daemon.may_start() {
            tokio::time::timeout(RETURN_TIMEOUT, self.daemon.wait_for()).await.unwrap_or_else(|_| {
                let what = format!("no daemon came back within {} s", RETURN_TIMEOUT.as_secs());
                Err(Failure::new(Exit::Daemon, what).hint(self.afterwards()))
            })
        } else {
            self.daemon.connect_or_start(&mut daemon::silent).await
        };
        self.client = found?;
        match self.client.events(&path(self.target, self.follow, self.cursor.as_deref())).await {
            Ok(stream) => {
                self.link = Link::Open(Box::new(stream));
                Ok(())
            }
            Err(CallError::Refused(problem)) if problem.status == 503 => self.lose(why),
            Err(error) if error.is_daemon_gone() => self.lose(Why::Gone),
            Err(error) => Err(error.into()),
        }
    }

    fn notice(&self, why: Why) -> Option<String> {
        let what = match why {
            Why::Gone => "the daemon does not answer",
            Why::Goodbye => "the daemon is shutting down",
            Why::Cut => return None,
        };
        let waits = why == Why::Goodbye || !self.daemon.may_start();
        let then = if waits { "waiting for it" } else { "looking for it again" };
        Some(format!("{what}; {then} (what runs goes on)"))
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
