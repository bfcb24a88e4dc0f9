//! Runs that are to see an edit which is still on its way: the asker has made it over another connection. They wait for
//! it without keeping anybody else waiting.

use std::time::Duration;

use outlive_core::limits::{REQUIRED_WAIT_MS, REQUIRED_WAITING_MAX};
use outlive_core::time::Tick;
use outlive_protocol::http::{Problem, SubmitRuns, from_base64};

use super::super::handle::{Ask, Message};
use super::super::journal::WriteError;
use super::Task;
use crate::problem;

/// A wish that waits for edits.
pub(in super::super) struct Waiting {
    message: Message,
    required: Vec<u8>,
    until: Tick,
}

impl Task {
    /// Keeps a wish that must wait; gives back one that need not.
    pub(super) fn wait_for_edits(&mut self, message: Message) -> Option<Message> {
        let Some(required) = required(&message.ask) else { return Some(message) };
        let Some(plane) = &mut self.notebook else { return Some(message) };
        let vector = from_base64(required);
        let known = vector.as_deref().map(|vector| plane.document.live().contains(vector));
        let problem = match known {
            Some(Ok(true)) => return Some(message),
            Some(Ok(false)) if self.waiting.len() < REQUIRED_WAITING_MAX => {
                let until = self.context.clock.now().tick + Duration::from_millis(REQUIRED_WAIT_MS);
                self.waiting.push(Waiting { message, required: vector.unwrap_or_default(), until });
                return None;
            }
            Some(Ok(false)) => Problem::new(
                503,
                "busy",
                "The session is busy",
                format!("too many wait for edits of session {}", self.session.spec.id),
            )
            .hint("try again in a moment"),
            Some(Err(_)) | None => problem::bad_request("`required` is no state vector in base64"),
        };
        let _gone = message.answer.send(Err(problem));
        None
    }

    /// When the first of those who wait is told that its edits have not come.
    pub(super) fn waiting_until(&self) -> Option<Tick> {
        self.waiting.iter().map(|waiting| waiting.until).min()
    }

    /// Goes on with those whose edits have come, and refuses those that have waited long enough.
    pub(super) async fn release_waiting(&mut self) -> Result<(), WriteError> {
        let now = self.context.clock.now().tick;
        for waiting in std::mem::take(&mut self.waiting) {
            let has = |plane: &mut super::super::notebook::NotebookPlane| {
                plane.document.live().contains(&waiting.required).unwrap_or(false)
            };
            if self.notebook.as_mut().is_none_or(has) {
                self.asked(waiting.message).await?;
            } else if waiting.until <= now {
                let _gone = waiting.message.answer.send(Err(document_behind(self.session.spec.id)));
            } else {
                self.waiting.push(waiting);
            }
        }
        Ok(())
    }
}

fn required(ask: &Ask) -> Option<&str> {
    match ask {
        Ask::Submit(SubmitRuns::All { required } | SubmitRuns::CellIds { required, .. }) => {
            required.as_deref()
        }
        _ => None,
    }
}

fn document_behind(id: outlive_core::id::SessionId) -> Problem {
    let detail = format!(
        "session {id} has not got the edits that the run is to see within {} s; nothing was run",
        REQUIRED_WAIT_MS / 1_000
    );
    Problem::new(409, "document-behind", "The notebook lacks your edits", detail)
        .hint("send the edits first and run again, or run without `required`")
}
