//! The native API of one daemon, over its Unix socket or TCP: one HTTP/1.1 connection for each call.

mod again;
mod agent;
pub mod attached;
mod cluster;
mod notebook;
pub mod runners;
mod sse;
pub mod way;

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use outlive_core::diagnosis::FailureReport;
use outlive_core::id::{RunId, SessionId};
use outlive_protocol::http::{
    API_VERSION, CreateSession, DoctorView, Input, NodeView, Problem, Restart, RunView, SessionView, Stop,
    StopNode, StreamEvent,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::again::Twice;
use self::way::{Connection, Way};
use crate::exit::Exit;
use crate::failure::Failure;

/// Longest wait for an answer. The daemon answers at once; only a stopped or overloaded one takes seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for a daemon that stops many sessions one after the other.
const STOP_TIMEOUT: Duration = Duration::from_secs(600);
/// Largest answer, in bytes: a list of ten thousand runs with their sources.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Silence after which a stream counts as dead where other nodes can go on with it: four of the server's comments.
const SILENCE: Duration = Duration::from_millis(4 * outlive_core::limits::SSE_COMMENT_MS);
/// The same where nobody else can: a daemon that is merely slow is not asked twice for nothing.
const SILENCE_ALONE: Duration = Duration::from_millis(8 * outlive_core::limits::SSE_COMMENT_MS);
/// How long a node that is asked whether it lives may take to say so.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// A call that has no answer to show.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens there: no daemon runs. Nothing was sent.
    #[error("no daemon listens on {at}")]
    NotRunning {
        /// Where.
        at: Way,
    },
    /// The socket or address cannot be used. Nothing was sent.
    #[error("the way to the daemon, {at}, cannot be used: {source}")]
    Connect {
        /// Where.
        at: Way,
        /// Why.
        source: io::Error,
    },
    /// The connection broke, or no answer came in time: whether it was done is unknown.
    #[error("the daemon's answer was lost: {reason}")]
    Lost {
        /// What broke.
        reason: String,
    },
    /// It took the request and said nothing: it is suspended, or somebody else listens there.
    #[error("the daemon behind {at} has not answered for {seconds} s; it may be suspended")]
    Silent {
        /// Where.
        at: Way,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The answer is not what this version of the API says.
    #[error("the daemon's answer to {what} cannot be read: {reason}")]
    Unreadable {
        /// The call.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The daemon refused.
    #[error(transparent)]
    Refused(#[from] Box<Problem>),
}

impl CallError {
    fn lost(reason: impl ToString) -> Self {
        Self::Lost { reason: reason.to_string() }
    }

    /// Whether a daemon has to be found again before anything else.
    pub const fn is_daemon_gone(&self) -> bool {
        matches!(self, Self::NotRunning { .. } | Self::Lost { .. } | Self::Silent { .. })
    }

    /// Whether nothing was done, and what stands in the way passes by itself: a session changes its node, a node hands
    /// over or is cut off, the store does not answer.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Refused(problem) if problem.status == 503 && PASSING.contains(&problem.code.as_str()))
    }

    /// Whether the node died that the call was handed on to: nobody knows whether it was done.
    pub fn is_owner_lost(&self) -> bool {
        matches!(self, Self::Refused(problem) if problem.code == "owner-lost")
    }
}

/// Codes of what passes by itself in a cluster.
const PASSING: [&str; 9] = [
    "session-moving",
    "owner-unreachable",
    "owner-silent",
    "node-isolated",
    "isolated",
    "joining",
    "draining",
    "shutting-down",
    "store-unavailable",
];

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let text = error.to_string();
        match error {
            CallError::Refused(problem) => Self::from(*problem),
            CallError::NotRunning { at: Way::Tcp { .. } } => {
                Self::new(Exit::Daemon, text).hint("look at that machine, or name other nodes in OUTLIVE_URL, with commas between them")
            }
            CallError::NotRunning { at: Way::Socket(_) } => {
                Self::new(Exit::Daemon, text).hint("start one with `outlive serve`, or by any `outlive run`")
            }
            CallError::Connect { .. } => {
                Self::new(Exit::Daemon, text).hint("`outlive doctor` looks at the directories")
            }
            CallError::Lost { .. } => Self::new(Exit::Daemon, text)
                .hint("see what happened with `outlive ps`; the daemon's log is in the state directory"),
            CallError::Silent { .. } => Self::new(Exit::Daemon, text).hint(
                "its pid is in `lock` in the state directory: `kill -CONT PID` wakes it, `kill -KILL PID` ends it and what runs goes on",
            ),
            CallError::Unreadable { .. } => Self::new(Exit::Daemon, text)
                .hint("daemon and client may be of different versions: `outlive daemon stop --keep-runtimes`, then try again"),
        }
    }
}

/// A daemon that is asked.
#[derive(Clone, Debug)]
pub struct Client {
    way: Way,
    company: Company,
}

/// Whether other nodes can be asked when this daemon does not answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Company {
    /// Nobody else can: it is waited for patiently.
    Alone,
    /// One that gives no sign of life for a second is given up.
    Among,
}

impl Client {
    /// A client for one daemon. Nothing is sent yet.
    pub const fn new(way: Way, company: Company) -> Self {
        Self { way, company }
    }

    /// Where it is.
    pub const fn way(&self) -> &Way {
        &self.way
    }

    /// Who answers.
    pub async fn node(&self) -> Result<NodeView, CallError> {
        self.get(LIVE).await
    }

    /// Stops the daemon. It answers when everything that it ran has ended, each in its own deadlines.
    pub async fn stop_node(&self, how: StopNode) -> Result<(), CallError> {
        self.exchange(Method::POST, "/v1/node/stop", Some(&how), STOP_TIMEOUT).await.map(drop)
    }

    /// What the daemon finds wrong.
    pub async fn doctor(&self) -> Result<DoctorView, CallError> {
        self.get("/v1/doctor").await
    }

    /// The open sessions, or all that are remembered.
    pub async fn sessions(&self, all: bool) -> Result<Vec<SessionView>, CallError> {
        self.get(if all { "/v1/sessions?all=true" } else { "/v1/sessions" }).await
    }

    /// Makes a session. Asking again with the same id is harmless.
    pub async fn create(&self, request: &CreateSession) -> Result<SessionView, CallError> {
        self.ask(Method::POST, "/v1/sessions", Some(request)).await
    }

    /// Forgets an ended session.
    pub async fn forget(&self, id: SessionId) -> Result<(), CallError> {
        let path = format!("/v1/sessions/{id}");
        self.exchange::<()>(Method::DELETE, &path, None, ANSWER_TIMEOUT).await.map(drop)
    }

    /// Interrupts what runs.
    pub async fn interrupt(&self, id: SessionId) -> Result<SessionView, CallError> {
        self.ask::<(), _>(Method::POST, &format!("/v1/sessions/{id}/interrupt"), None).await
    }

    /// Restarts the runtime.
    pub async fn restart(&self, id: SessionId, how: Restart) -> Result<SessionView, CallError> {
        self.ask(Method::POST, &format!("/v1/sessions/{id}/restart"), Some(&how)).await
    }

    /// Stops the runtime and closes the session, whatever of its notebook is in no file.
    async fn stop(&self, id: SessionId, how: Stop) -> Result<SessionView, CallError> {
        self.ask(Method::POST, &format!("/v1/sessions/{id}/stop"), Some(&how)).await
    }

    /// A session's runs, in order.
    pub async fn runs(&self, id: SessionId) -> Result<Vec<RunView>, CallError> {
        self.get(&format!("/v1/sessions/{id}/runs")).await
    }

    /// Answers a run's question.
    pub async fn input(&self, id: SessionId, run: RunId, value: String) -> Result<RunView, CallError> {
        self.ask(Method::POST, &format!("/v1/sessions/{id}/runs/{run}/input"), Some(&Input { value })).await
    }

    /// A session's failures, oldest first.
    pub async fn reports(&self, id: SessionId) -> Result<Vec<FailureReport>, CallError> {
        self.get(&format!("/v1/sessions/{id}/reports")).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        self.ask::<(), T>(Method::GET, path, None).await
    }

    /// A call with an answer.
    async fn ask<B, T>(&self, method: Method, path: &str, body: Option<&B>) -> Result<T, CallError>
    where
        B: Serialize + Sync,
        T: DeserializeOwned,
    {
        let what = format!("{method} {path}");
        let bytes = self.exchange(method, path, body, ANSWER_TIMEOUT).await?;
        parsed(&what, &bytes)
    }

    async fn exchange<B: Serialize + Sync>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        patience: Duration,
    ) -> Result<Bytes, CallError> {
        self.answered(method, path, body, patience).await.map(|(_, bytes)| bytes)
    }

    /// A call with the status of its answer.
    async fn answered<B: Serialize + Sync>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        patience: Duration,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let request = self.request(method, path, body, "application/json");
        let answer = async {
            let mut connection = self.way.connect().await?;
            let response = connection.sender.send_request(request).await.map_err(CallError::lost)?;
            let (head, body) = response.into_parts();
            let bytes = collect(body).await?;
            if head.status.is_success() {
                Ok((head.status, bytes))
            } else {
                Err(refused(head.status.as_u16(), &bytes))
            }
        };
        // What asks for a sign of life is not asked for one itself.
        let patience = if path == LIVE && self.company == Company::Among { SIGN_OF_LIFE } else { patience };
        self.while_alive(patience, answer).await
    }

    /// Waits for an answer: in the company of others only while the daemon gives signs of life.
    async fn while_alive<T>(
        &self,
        patience: Duration,
        answer: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        let mut answer = pin!(answer);
        let silent = |waited: Duration| CallError::Silent { at: self.way.clone(), seconds: waited.as_secs() };
        let mut waited = Duration::ZERO;
        while self.company == Company::Among && waited + SIGN_OF_LIFE < patience {
            if let Ok(answered) = tokio::time::timeout(SIGN_OF_LIFE, &mut answer).await {
                return answered;
            }
            waited += SIGN_OF_LIFE;
            tokio::select! {
                biased;
                answered = &mut answer => return answered,
                gives_sign = self.gives_sign() => if !gives_sign {
                    return Err(silent(waited + SIGN_OF_LIFE));
                },
            }
        }
        let rest = patience.saturating_sub(waited);
        tokio::time::timeout(rest, answer).await.unwrap_or_else(|_| Err(silent(patience)))
    }

    /// Whether it answers at all, in time.
    async fn gives_sign(&self) -> bool {
        let request = self.request::<()>(Method::GET, LIVE, None, "application/json");
        let answer = async {
            let mut connection = self.way.connect().await?;
            connection.sender.send_request(request).await.map_err(CallError::lost)
        };
        matches!(tokio::time::timeout(SIGN_OF_LIFE, answer).await, Ok(Ok(_)))
    }

    /// Opens a stream of events.
    async fn events(&self, path: &str) -> Result<EventStream, CallError> {
        let request = self.request::<()>(Method::GET, path, None, "text/event-stream");
        let opening = async {
            let mut connection = self.way.connect().await?;
            let response: Response<Incoming> =
                connection.sender.send_request(request).await.map_err(CallError::lost)?;
            let (head, body) = response.into_parts();
            if !head.status.is_success() {
                return Err(refused(head.status.as_u16(), &collect(body).await?));
            }
            Ok(EventStream {
                body,
                reader: sse::Reader::default(),
                ready: Vec::new().into(),
                silence: match self.company {
                    Company::Alone => SILENCE_ALONE,
                    Company::Among => SILENCE,
                },
                _connection: connection,
            })
        };
        self.while_alive(ANSWER_TIMEOUT, opening).await
    }

    fn request<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        accept: &str,
    ) -> Request<Full<Bytes>> {
        let mut builder = Request::builder().method(method).uri(path);
        builder = builder.header(HOST, self.way.host()).header(ACCEPT, accept);
        builder = builder.header("outlive-api", API_VERSION);
        if let Some(authorization) = self.way.authorization() {
            builder = builder.header(AUTHORIZATION, authorization);
        }
        let bytes = match body {
            None => Bytes::new(),
            Some(body) => {
                builder = builder.header(CONTENT_TYPE, "application/json");
                serde_json::to_vec(body).expect("API bodies have string keys and finite numbers").into()
            }
        };
        builder
            .body(Full::new(bytes))
            .expect("paths are literals, ids and numbers; hosts and tokens were checked")
    }
}

/// Says who answers, whatever else is wrong.
const LIVE: &str = "/v1/live";

/// An answer as its type.
fn parsed<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, CallError> {
    serde_json::from_slice(bytes)
        .map_err(|error| CallError::Unreadable { what: what.to_owned(), reason: error.to_string() })
}

async fn collect(body: Incoming) -> Result<Bytes, CallError> {
    Limited::new(body, ANSWER_BYTES_MAX).collect().await.map(|all| all.to_bytes()).map_err(CallError::lost)
}

fn refused(status: u16, body: &[u8]) -> CallError {
    let problem = serde_json::from_slice(body).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        Problem::new(status, "unexplained", &format!("The daemon answered with status {status}"), text)
    });
    CallError::Refused(Box::new(problem))
}

/// One open stream.
struct EventStream {
    body: Incoming,
    reader: sse::Reader,
    ready: std::collections::VecDeque<sse::Frame>,
    /// How long it may say nothing.
    silence: Duration,
    _connection: Connection,
}

impl EventStream {
    /// The next event with its cursor; `None` when the server closed the stream. Cancel-safe.
    async fn next(&mut self) -> Result<Option<(Option<String>, StreamEvent)>, CallError> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                let event = serde_json::from_str(&frame.data).map_err(|error| CallError::Unreadable {
                    what: "an event".to_owned(),
                    reason: error.to_string(),
                })?;
                return Ok(Some((frame.id, event)));
            }
            let silent = || CallError::lost(format!("silent for {} s", self.silence.as_secs()));
            match tokio::time::timeout(self.silence, self.body.frame()).await.map_err(|_| silent())? {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(bytes) = frame.map_err(CallError::lost)?.into_data() {
                        self.ready.extend(self.reader.push(&bytes).map_err(CallError::lost)?);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
