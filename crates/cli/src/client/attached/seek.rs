//! Coming back: the same daemon is asked first, then the others, a moment apart; the first that has the stream wins.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, timeout_at};

use super::super::way::Way;
use super::super::{CallError, Client, EventStream};
use super::Why;
use crate::daemon::Daemon;
use crate::failure::Failure;

/// How much later the next node is asked than the one before it; also the wait before all of them are asked again.
const PACE: Duration = Duration::from_millis(150);

/// What is sought.
pub(super) struct Sought<'a> {
    /// The stream.
    pub path: &'a str,
    /// Who had it.
    pub last: &'a Client,
    /// Who may have it now, as the last one said.
    pub hinted: Option<Way>,
    /// Why it was lost.
    pub why: Why,
    /// When it is given up.
    pub deadline: Instant,
}

/// What seeking came to.
pub(super) enum Found {
    /// The stream, and who has it.
    Stream(Client, Box<EventStream>),
    /// Nobody has it in time. Why the last of them does not, if one said so.
    Nobody(Option<CallError>),
}

/// Asks until somebody has the stream. A refusal that time does not mend is an error.
pub(super) async fn seek(daemon: &Daemon, sought: Sought<'_>) -> Result<Found, Failure> {
    let may_start = daemon.may_start() && sought.why != Why::Goodbye;
    let ask = async |client: Client, starts: bool| {
        if starts
            && matches!(client.way(), Way::Socket(_))
            && let Err(failure) = daemon.find_or_start().await
        {
            return (client, Err(Refused::Start(failure)));
        }
        let opened = client.events(sought.path).await;
        (client, opened.map_err(Refused::Call))
    };
    let mut order = order(daemon, &sought, &[])?;
    let is_alone = order.len() == 1;
    // One of several is started only when none of the others has the stream: it may be the one that has it.
    let mut starts = may_start && is_alone;
    let mut asked = FuturesUnordered::new();
    let mut waited_for: Vec<Way> = Vec::new();
    let mut last = None;
    loop {
        if let Some(client) = order.pop_front() {
            waited_for.push(client.way().clone());
            asked.push(ask(client, starts));
        }
        let answer = async {
            match asked.next().await {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        };
        match timeout_at(sought.deadline.min(Instant::now() + PACE), answer).await {
            Ok((client, Ok(stream))) => return Ok(Found::Stream(client, Box::new(stream))),
            Ok((client, Err(refused))) => {
                waited_for.retain(|way| way != client.way());
                let is_known = sought.hinted.as_ref().is_none_or(|hinted| !hinted.is_at(client.way()))
                    || daemon.clients()?.iter().any(|known| known.way() == client.way());
                // One that is known by hearsay alone may have another token.
                match refused.passing(is_alone) {
                    Err(_) if !is_known => {}
                    passing => last = passing?.or(last),
                }
            }
            Err(_) if Instant::now() >= sought.deadline => return Ok(Found::Nobody(last)),
            Err(_) if order.is_empty() => {
                starts = may_start;
                order = self::order(daemon, &sought, &waited_for)?;
            }
            Err(_) => {}
        }
    }
}

/// Why somebody does not have the stream.
enum Refused {
    Call(CallError),
    Start(Failure),
}

impl Refused {
    /// What time may mend, or another node; else it is final.
    fn passing(self, is_alone: bool) -> Result<Option<CallError>, Failure> {
        match self {
            Self::Start(failure) if is_alone => Err(failure),
            Self::Start(_) => Ok(None),
            Self::Call(CallError::Refused(problem)) if problem.status == 503 => {
                Ok(Some(CallError::Refused(problem)))
            }
            Self::Call(error) if error.is_daemon_gone() || matches!(error, CallError::Connect { .. }) => {
                Ok(Some(error))
            }
            Self::Call(error) => Err(error.into()),
        }
    }
}

/// Whom to ask, in order: who was named, who had it, then the others; but those that are waited for already.
fn order(daemon: &Daemon, sought: &Sought<'_>, waited_for: &[Way]) -> Result<VecDeque<Client>, Failure> {
    let mut order: VecDeque<Client> = VecDeque::new();
    let known = daemon.clients()?;
    let at = |way: &Way| known.iter().find(|known| known.way().is_at(way)).cloned();
    let hinted = sought.hinted.as_ref().and_then(|way| at(way).or_else(|| daemon.at(&way.to_string()).ok()));
    for client in hinted.into_iter().chain(at(sought.last.way())).chain(known.iter().cloned()) {
        let is_new = order.iter().all(|other| other.way() != client.way());
        if is_new && !waited_for.contains(client.way()) {
            order.push_back(client);
        }
    }
    Ok(order)
}
