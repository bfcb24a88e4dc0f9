//! The calls that only an agent's tools make.

use futures_util::{StreamExt as _, stream};
use hyper::Method;
use outlive_core::id::{Cursor, RunId, SessionId};
use outlive_node::api::{Delivered, Events};
use outlive_protocol::http::{EditNotebook, Edited, Problem, SessionView, StreamEvent};
use serde_json::Value;

use super::{ANSWER_TIMEOUT, CallError, Client, EventStream};
use crate::failure::Failure;

impl Client {
    /// One session.
    pub async fn session(&self, id: SessionId) -> Result<SessionView, CallError> {
        self.get(&format!("/v1/sessions/{id}")).await
    }

    /// Edits a notebook, all or nothing.
    pub async fn edit(&self, id: SessionId, edits: &EditNotebook) -> Result<Edited, CallError> {
        self.ask(Method::POST, &format!("/v1/sessions/{id}/notebook"), Some(edits)).await
    }

    /// The outputs of a cell, in nbformat's form.
    pub async fn cell_outputs(&self, id: SessionId, cell: &str) -> Result<Vec<Value>, CallError> {
        self.get(&format!("/v1/sessions/{id}/cells/{}/outputs", segment(cell))).await
    }

    /// The content of a blob.
    pub async fn blob(&self, id: SessionId, sha256: &str) -> Result<Vec<u8>, CallError> {
        let path = format!("/v1/sessions/{id}/blobs/{}", segment(sha256));
        self.exchange::<()>(Method::GET, &path, None, ANSWER_TIMEOUT).await.map(Into::into)
    }

    /// What a run has printed so far, behind a cursor.
    pub async fn run_output(&self, id: SessionId, run: RunId, after: Cursor) -> Result<Events, CallError> {
        let path = format!("/v1/sessions/{id}/runs/{run}/attach?cursor={after}&follow=false");
        self.events(&path).await.map(delivered)
    }

    /// What becomes of a session and its runs from now on, without output.
    pub async fn watch_state(&self, id: SessionId) -> Result<Events, CallError> {
        let path = format!("/v1/sessions/{id}/attach?after=head&interactive=false&follow=true&outputs=false");
        self.events(&path).await.map(delivered)
    }
}

/// A stream that says how it broke off, if it did.
fn delivered(events: EventStream) -> Events {
    let next = |events: Option<EventStream>| async move {
        let mut events = events?;
        match events.next().await {
            Ok(Some((cursor, event))) => Some((Delivered { cursor, event }, Some(events))),
            Ok(None) => None,
            Err(error) => {
                let event = StreamEvent::Problem { problem: error.into() };
                Some((Delivered { cursor: None, event }, None))
            }
        }
    };
    stream::unfold(Some(events), next).boxed()
}

/// One segment of a path (RFC 3986 §2.3), whatever is in it.
fn segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => segment.push(char::from(byte)),
            // A dot too: `..` would be another path.
            _ => segment.push_str(&format!("%{byte:02X}")),
        }
    }
    segment
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        let (code, title) = match error {
            CallError::Refused(problem) => return *problem,
            CallError::NotRunning { .. } | CallError::Connect { .. } => {
                ("no-daemon", "No daemon can be reached")
            }
            CallError::Lost { .. } => ("answer-lost", "The answer was lost: whether it was done is unknown"),
            CallError::Silent { .. } => ("daemon-silent", "The daemon does not answer"),
            CallError::Unreadable { .. } => ("version-mismatch", "The answer cannot be read"),
        };
        let Failure { what, hint, .. } = error.into();
        Self { hint, ..Self::new(503, code, title, what) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::way::Way;
    use super::*;

    #[test]
    fn whatever_a_cell_is_called_it_is_one_segment() {
        assert_eq!(segment("a-B_9~"), "a-B_9~");
        assert_eq!(segment("../x?y=ä"), "%2E%2E%2Fx%3Fy%3D%C3%A4");
    }

    #[test]
    fn an_agent_is_told_what_a_user_would_be() {
        let problem: Problem = CallError::NotRunning { at: Way::Socket("/run/x.sock".into()) }.into();
        assert_eq!(
            (problem.code.as_str(), problem.detail.as_str()),
            ("no-daemon", "no daemon listens on /run/x.sock")
        );
        assert!(problem.hint.expect("a hint").contains("outlive serve"));
    }
}
