//! How a task failed, as OpenAI's clients read it: with its cause, what shows it, and where more of it is.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response};
use bytes::{BufMut as _, Bytes, BytesMut};
use outlive_core::diagnosis::{ExplainOptions, FailureReport, explain};
use outlive_core::id::ReportId;
use outlive_core::limits::TASK_ERROR_LINES_MAX;
use outlive_core::session::{CancelWhy, RunOutcome};
use outlive_protocol::http::{ChatDiagnostics, ChatError, ChatRefusal, Problem};
use serde_json::Value;

use super::refusal;
use crate::problem;

/// Tells OpenAI's clients whether to send the request again by themselves.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// The code of an exception that a handler raised.
const RAISED: &str = "raised";
/// The last event of a stream, by OpenAI's convention.
pub(super) const DONE: &[u8] = b"data: [DONE]\n\n";

/// A failure.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Fault {
    status: u16,
    error: ChatError,
}

impl Fault {
    /// An exception that the handler raised, or the end of its runner, from the error chunk that tells of it.
    pub(super) fn of_chunk(model: &str, content: &Value) -> Self {
        let text = |name: &str| content.get(name).and_then(Value::as_str).unwrap_or_default();
        let report = content.get("report").and_then(|id| serde_json::from_value::<ReportId>(id.clone()).ok());
        let lines = content.get("traceback").and_then(Value::as_array).into_iter().flatten();
        let lines: Vec<&str> = lines.filter_map(Value::as_str).collect();
        match report {
            Some(_) => Self::failed(model, text("ename"), text("evalue").to_owned(), report, &lines),
            None => Self::raised(model, text("ename"), text("evalue"), &lines),
        }
    }

    /// How a task ended, unless it succeeded. `told` is what its error chunk said.
    pub(super) fn of_end(
        model: &str,
        outcome: RunOutcome,
        told: Option<Self>,
        report: Option<Box<FailureReport>>,
    ) -> Result<(), Box<Self>> {
        let fault = match outcome {
            RunOutcome::Succeeded => return Ok(()),
            RunOutcome::Raised { ename, evalue } => {
                told.unwrap_or_else(|| Self::raised(model, &ename, &evalue, &[]))
            }
            RunOutcome::Failed { code, summary, report: id } => match report {
                Some(report) => Self::explained(model, &report),
                None => told.unwrap_or_else(|| Self::failed(model, code.as_str(), summary, Some(id), &[])),
            },
            RunOutcome::TimedOut { limit_ms } => {
                let message = format!("The task took longer than its limit of {limit_ms} ms.");
                Self::new(504, "timed-out", message, model, &[])
            }
            RunOutcome::Unserved { reason } => {
                Self::new(503, "nobody-ready", format!("No runner of {model} took it: {reason}"), model, &[])
            }
            RunOutcome::Cancelled { why } => {
                Self::new(409, "cancelled", cancelled(why).to_owned(), model, &[])
            }
        };
        Err(Box::new(fault))
    }

    /// As the error chunk says it, with what was learned since and what to do.
    fn explained(model: &str, report: &FailureReport) -> Self {
        let text = explain(report, &ExplainOptions::default());
        let lines: Vec<&str> = text.lines().collect();
        let cause = report.cause();
        let summary = cause.summary.clone();
        let mut fault = Self::failed(model, cause.code.as_str(), summary, Some(report.id), &lines);
        fault.error.hint = Some(cause.remedy.clone()).filter(|remedy| !remedy.is_empty());
        fault
    }

    /// The stream of a task that goes on was cut.
    pub(super) fn cut(problem: &Problem) -> Self {
        Self { status: problem.status, error: refusal::refusal(problem).error }
    }

    /// Another runner began the task again and says something else than the client has been shown.
    pub(super) fn differs(model: &str) -> Self {
        let message =
            "The runner died, and the one that began the task again says something else than was sent \
            before: this answer cannot be completed."
                .to_owned();
        let mut fault = Self::new(500, "output-differs", message, model, &[]);
        fault.error.hint = Some(
            "Ask again; with a fixed `seed`, or checkpoints in the runner, an answer can be gone on with."
                .to_owned(),
        );
        fault
    }

    /// An answer that is not streamed is too large to be held.
    pub(super) fn too_large(model: &str, max: usize) -> Self {
        let message = format!("The answer is longer than the {max} bytes that are held for one.");
        let mut fault = Self::new(500, "answer-too-large", message, model, &[]);
        fault.error.hint = Some("Ask with `stream: true`, which has no such limit.".to_owned());
        fault
    }

    fn raised(model: &str, ename: &str, evalue: &str, lines: &[&str]) -> Self {
        let message = if evalue.is_empty() { ename.to_owned() } else { format!("{ename}: {evalue}") };
        // The last lines say where it was raised.
        let last = lines.len().saturating_sub(TASK_ERROR_LINES_MAX);
        Self::new(500, RAISED, message, model, &lines[last..])
    }

    fn failed(model: &str, cause: &str, summary: String, report: Option<ReportId>, lines: &[&str]) -> Self {
        let mut fault = Self::new(502, cause, summary, model, lines);
        if let Some(diagnostics) = &mut fault.error.diagnostics {
            diagnostics.report = report;
        }
        fault
    }

    fn new(status: u16, code: &str, message: String, model: &str, lines: &[&str]) -> Self {
        let evidence = lines.iter().take(TASK_ERROR_LINES_MAX).map(|line| (*line).to_owned()).collect();
        let explain = format!("outlive explain {model}");
        Self {
            status,
            error: ChatError {
                message,
                kind: refusal::kind(status).to_owned(),
                param: None,
                code: code.to_owned(),
                hint: None,
                cause: Some(code.to_owned()),
                diagnostics: Some(ChatDiagnostics { evidence, report: None, explain }),
            },
        }
    }

    /// Whether a handler raised; its runner lives on.
    pub(super) fn is_raised(&self) -> bool {
        self.error.code == RAISED
    }

    /// As an answer of its own. OpenAI's clients repeat a request after most statuses by themselves; this one has been
    /// carried out, so they are told not to.
    pub(super) fn response(self) -> Response<Body> {
        let json = self.json();
        let mut response = problem::with_headers(self.status, "application/json", json);
        response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        response
    }

    /// As the last events of a stream. OpenAI's clients raise at an `error`; others, which read on, want a `[DONE]`.
    pub(super) fn last_events(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_slice(b"data: ");
        out.put_slice(&self.json());
        out.put_slice(b"\n\n");
        out.put_slice(DONE);
        out.freeze()
    }

    fn json(&self) -> Vec<u8> {
        let refusal = ChatRefusal { error: self.error.clone() };
        serde_json::to_vec(&refusal).expect("an error holds strings only")
    }
}

const fn cancelled(why: CancelWhy) -> &'static str {
    match why {
        CancelWhy::User => "The task was cancelled.",
        CancelWhy::EarlierFailure => "The task was not begun: one before it failed.",
        CancelWhy::Interrupted => "The task was interrupted.",
        CancelWhy::Stopped => "The task was not run to its end: its runner was stopped.",
        CancelWhy::NodeDrained => "The task was not run to its end: its node gave its work to others.",
    }
}
