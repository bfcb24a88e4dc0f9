//! Requests over the one connection: each ends with its answer, in time, or when the connection does.
//!
//! The library's own requests know nothing of a lost connection and remember unanswered ones for ever; these end at once
//! and leave nothing. They also take several answers, which is how pages are read.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_nats::{HeaderMap, Message, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt;
use outlive_core::limits::NATS_ANSWER_MS;
use outlive_store::Connection;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

/// Why a request has no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum CallError {
    /// It never left.
    NotSent(String),
    /// There is nobody to take it: it had no effect.
    Nobody,
    /// It left, and its answer did not come: it may have had its effect.
    Lost(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(why) => write!(f, "NATS cannot be reached ({why})"),
            Self::Nobody => write!(
                f,
                "NATS has nobody to answer: a leader is elected, JetStream is down, or the stream was removed"
            ),
            Self::Lost(why) => write!(f, "NATS did not answer ({why})"),
        }
    }
}

impl std::error::Error for CallError {}

/// Requests that wait for answers, by the last token of their inbox.
#[derive(Debug, Default)]
struct Calls {
    waiting: HashMap<u64, mpsc::Sender<Message>>,
    last: u64,
}

/// The connection, as the parts of the engine use it.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    client: async_nats::Client,
    inbox: Arc<str>,
    calls: Pending,
    connection: watch::Receiver<Connection>,
}

/// Ends all requests when the connection is cut.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending(Arc<Mutex<Calls>>);

impl Pending {
    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// Their answers will not come any more.
    pub(crate) fn cut(&self) {
        self.lock().waiting.clear();
    }

    /// Hands answers to those who wait for them, until the subscription ends.
    async fn dispatch(self, mut answers: async_nats::Subscriber) {
        while let Some(message) = answers.next().await {
            let token = message.subject.rsplit('.').next().and_then(|token| token.parse().ok());
            let Some(token) = token else { continue };
            if let Some(caller) = self.lock().waiting.get(&token) {
                // It takes as many as it asked for; nobody sends more.
                let _ = caller.try_send(message);
            }
        }
    }
}

impl Wire {
    /// Begins to listen for answers; what is returned with it does that and has to be run.
    pub(crate) async fn new(
        client: async_nats::Client,
        calls: Pending,
        connection: watch::Receiver<Connection>,
    ) -> Result<(Self, impl Future<Output = ()> + Send + 'static), async_nats::SubscribeError> {
        let inbox = client.new_inbox();
        let answers = client.subscribe(format!("{inbox}.*")).await?;
        let run = calls.clone().dispatch(answers);
        Ok((Self { client, inbox: inbox.into(), calls, connection }, run))
    }

    pub(crate) fn client(&self) -> &async_nats::Client {
        &self.client
    }

    pub(crate) fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.clone()
    }

    /// Sends a request and gives its one answer.
    pub(crate) async fn call(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<Message, CallError> {
        let mut answers = self.begin(subject, headers, payload, 1).await?;
        answers.next().await
    }

    /// Sends a request that has up to `most` answers.
    pub(crate) async fn begin(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
        most: usize,
    ) -> Result<Answers, CallError> {
        let deadline = Instant::now() + Duration::from_millis(NATS_ANSWER_MS);
        let (caller, receiver) = mpsc::channel(most);
        let token = {
            let mut calls = self.calls.lock();
            calls.last += 1;
            let token = calls.last;
            calls.waiting.insert(token, caller);
            token
        };
        let answers = Answers { calls: self.calls.clone(), token, receiver, deadline };
        // After the caller is known, so that a cut between the two is not missed.
        if let Connection::Down { why } = &*self.connection.borrow() {
            return Err(CallError::NotSent(why.clone()));
        }
        let reply = format!("{}.{token}", self.inbox);
        let send = async {
            match headers {
                Some(headers) => {
                    self.client.publish_with_reply_and_headers(subject, reply, headers, payload).await
                }
                None => self.client.publish_with_reply(subject, reply, payload).await,
            }
        };
        match timeout_at(deadline, send).await {
            Ok(Ok(())) => Ok(answers),
            Ok(Err(error)) => Err(CallError::NotSent(error.to_string())),
            Err(_) => Err(CallError::NotSent("the connection takes nothing".to_owned())),
        }
    }
}

/// The answers to one request. Dropped, it is forgotten.
#[derive(Debug)]
pub(crate) struct Answers {
    calls: Pending,
    token: u64,
    receiver: mpsc::Receiver<Message>,
    deadline: Instant,
}

impl Answers {
    /// The next answer.
    pub(crate) async fn next(&mut self) -> Result<Message, CallError> {
        match timeout_at(self.deadline, self.receiver.recv()).await {
            Ok(Some(message)) if message.status == Some(StatusCode::NO_RESPONDERS) => Err(CallError::Nobody),
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(CallError::Lost("the connection was cut".to_owned())),
            Err(_) => Err(CallError::Lost(format!("not within {NATS_ANSWER_MS} ms"))),
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.calls.lock().waiting.remove(&self.token);
    }
}
