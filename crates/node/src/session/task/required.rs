//! Runs that are to see what their asker has seen, which may still be on its way over another connection. They wait for
//! it without keeping anybody else waiting: who asks later and needs nothing goes first.

use std::collections::BTreeMap;
use std::time::Duration;

use outlive_core::id::SessionId;
use outlive_core::limits::{REQUIRED_WAIT_MS, REQUIRED_WAITING_MAX, SOURCE_QUOTED_CHARS_MAX};
use outlive_core::time::Tick;
use outlive_document::CellKey;
use outlive_protocol::http::{Problem, SubmitRuns, from_base64};

use super::super::handle::{Ask, Message};
use super::super::journal::WriteError;
use super::super::notebook::Document;
use super::super::notebook::document::no_such_cell;
use super::Task;
use crate::problem;

/// What stands before a Yjs snapshot, which names deletions too. No base64 has a colon.
const SNAPSHOT: &str = "snapshot:";

/// A wish that waits.
pub(in super::super) struct Waiting {
    message: Message,
    until: Tick,
}

/// What a notebook is not yet as its asker has seen it.
enum Lack {
    /// Edits are missing.
    Edits,
    /// This cell reads otherwise, or (`None`) is not there.
    Cell { cell: String, expected: String, present: Option<String> },
}

impl Task {
    /// Keeps a wish that must wait; gives back one that need not.
    pub(super) fn wait_for_edits(&mut self, message: Message) -> Option<Message> {
        let Some(plane) = &mut self.notebook else { return Some(message) };
        let problem = match lack(&mut plane.document, &message.ask) {
            Ok(None) => return Some(message),
            Ok(Some(_)) if self.waiting.len() < REQUIRED_WAITING_MAX => {
                let until = self.context.clock.now().tick + Duration::from_millis(REQUIRED_WAIT_MS);
                self.waiting.push(Waiting { message, until });
                return None;
            }
            Ok(Some(_)) => Problem::new(
                503,
                "busy",
                "The session is busy",
                format!("too many wait for edits of session {}", self.session.spec.id),
            )
            .hint("try again in a moment"),
            Err(problem) => problem,
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
        let (id, now) = (self.session.spec.id, self.context.clock.now().tick);
        for waiting in std::mem::take(&mut self.waiting) {
            let lack = match &mut self.notebook {
                Some(plane) => lack(&mut plane.document, &waiting.message.ask),
                None => Ok(None),
            };
            match lack {
                Ok(None) => self.asked(waiting.message).await?,
                Ok(Some(lack)) if waiting.until <= now => {
                    let _gone = waiting.message.answer.send(Err(lack.problem(id)));
                }
                Ok(Some(_)) => self.waiting.push(waiting),
                Err(problem) => drop(waiting.message.answer.send(Err(problem))),
            }
        }
        Ok(())
    }
}

/// What of that which the asker has seen is not there.
fn lack(document: &mut Document, ask: &Ask) -> Result<Option<Lack>, Problem> {
    let none = BTreeMap::new();
    let (required, expected) = match ask {
        Ask::Submit(SubmitRuns::All { required }) => (required, &none),
        Ask::Submit(SubmitRuns::CellIds { required, expected, .. }) => (required, expected),
        _ => return Ok(None),
    };
    if let Some(required) = required
        && !has(document, required)?
    {
        return Ok(Some(Lack::Edits));
    }
    for (cell, expected) in expected {
        let present = document.notebook().cell(&CellKey::new(cell.clone())).map(|cell| cell.source());
        if present.as_ref() != Some(expected) {
            return Ok(Some(Lack::Cell { cell: cell.clone(), expected: expected.clone(), present }));
        }
    }
    Ok(None)
}

/// Whether all that a `required` names is in the notebook.
fn has(document: &mut Document, required: &str) -> Result<bool, Problem> {
    let live = document.live();
    let is_there = match required.strip_prefix(SNAPSHOT) {
        Some(snapshot) => from_base64(snapshot).map(|bytes| live.contains_snapshot(&bytes)),
        None => from_base64(required).map(|bytes| live.contains(&bytes)),
    };
    let neither = "`required` is no state vector in base64, nor `snapshot:` and a Yjs snapshot in base64";
    is_there.and_then(Result::ok).ok_or_else(|| problem::bad_request(neither))
}

impl Lack {
    fn problem(self, id: SessionId) -> Problem {
        match self {
            Self::Edits => document_behind(id),
            Self::Cell { cell, present: None, .. } => no_such_cell(&cell),
            Self::Cell { cell, expected, present: Some(present) } => {
                let detail = format!("cell {cell} {}; nothing was run", difference(&present, &expected));
                Problem::new(409, "cell-changed", "The cell was changed by somebody else", detail)
                    .hint("look at the cell's present source, which comes with this answer, and run it again")
                    .fact("cell", cell)
                    .fact("source", present)
            }
        }
    }
}

/// The first line that differs, in both versions.
fn difference(present: &str, expected: &str) -> String {
    let (mut ours, mut theirs) = (present.split('\n'), expected.split('\n'));
    let mut line = 1;
    let (is, was) = loop {
        match (ours.next(), theirs.next()) {
            (Some(is), Some(was)) if is == was => line += 1,
            differing => break differing,
        }
    };
    let quoted = |text: Option<&str>| match text {
        None => "not there".to_owned(),
        Some(text) if text.chars().count() <= SOURCE_QUOTED_CHARS_MAX => format!("{text:?}"),
        Some(text) => {
            format!("{:?} …", text.chars().take(SOURCE_QUOTED_CHARS_MAX).collect::<String>())
        }
    };
    format!("is not what was to be run: line {line} is {}, expected: {}", quoted(is), quoted(was))
}

fn document_behind(id: SessionId) -> Problem {
    let detail = format!(
        "session {id} has not got the edits that the run is to see within {} s; nothing was run",
        REQUIRED_WAIT_MS / 1_000
    );
    Problem::new(409, "document-behind", "The notebook lacks your edits", detail)
        .hint("send the edits first and run again, or run without `required`")
}
