//! What there is, and what went wrong: sessions, explain.

use outlive_core::diagnosis::explain::{ExplainOptions, explain as as_text};
use outlive_core::diagnosis::{self, EvidenceLine, FailureReport};
use outlive_core::id::{ReportId, RunId, SessionId};
use outlive_core::limits::{MCP_LISTED_MAX, MCP_REPORTS_MAX};
use outlive_core::time::WallTime;
use outlive_protocol::http::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::brief::Session;
use crate::tool::{Call, Reply};
use crate::words::in_tools;

/// `sessions`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// Also those that have ended.
    #[serde(default)]
    all: bool,
}

/// Sessions.
#[derive(Serialize, JsonSchema)]
pub struct Sessions {
    /// The newest first.
    sessions: Vec<Session>,
    /// How many more there are.
    left_out: usize,
}

pub async fn sessions(call: Call, input: List) -> Result<Reply<Sessions>, Problem> {
    let mut views = call.host.sessions(input.all).await?;
    let left_out = views.len().saturating_sub(MCP_LISTED_MAX);
    views.truncate(MCP_LISTED_MAX);
    let sessions: Vec<Session> = views.into_iter().map(Session::from).collect();
    let mut text: String = sessions.iter().map(Session::text).collect();
    if sessions.is_empty() {
        text.push_str("no session is open\n");
    }
    if left_out > 0 {
        text.push_str(&format!("[{left_out} older ones are left out]\n"));
    }
    Ok(Reply::new(Sessions { sessions, left_out }, text))
}

/// `explain`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Explain {
    /// The session's id.
    session: SessionId,
}

/// The failures of a session.
#[derive(Serialize, JsonSchema)]
pub struct Failures {
    /// The latest ones, oldest first.
    failures: Vec<Failure>,
    /// How many older ones there are.
    left_out: usize,
    /// How many runs failed by an exception of their own, of which nothing stands here.
    runs_failed: u32,
}

/// A failure.
#[derive(Serialize, JsonSchema)]
struct Failure {
    /// The report's id.
    report: ReportId,
    /// What died.
    subject: String,
    /// When, in microseconds since 1970.
    at: WallTime,
    /// Why, most likely first.
    causes: Vec<Cause>,
    /// The runs that it ended.
    interrupted: Vec<RunId>,
}

/// A cause.
#[derive(Serialize, JsonSchema)]
struct Cause {
    /// Stable, for instance `out-of-memory`; docs/causes has a page for each.
    code: String,
    /// One sentence.
    summary: String,
    /// The lines that show it.
    evidence: Vec<EvidenceLine>,
    /// What to do about it.
    remedy: String,
}

impl From<diagnosis::Cause> for Cause {
    fn from(cause: diagnosis::Cause) -> Self {
        let diagnosis::Cause { code, summary, evidence, remedy, .. } = cause;
        Self { code: code.to_string(), summary, evidence, remedy }
    }
}

pub async fn explain(call: Call, input: Explain) -> Result<Reply<Failures>, Problem> {
    let session = call.host.session(input.session).await?;
    let mut reports = call.host.reports(input.session).await?;
    let left_out = reports.len().saturating_sub(MCP_REPORTS_MAX);
    reports.drain(..left_out);
    for cause in reports.iter_mut().flat_map(|report| &mut report.causes) {
        cause.remedy = in_tools(&cause.remedy);
    }
    let options = ExplainOptions::default();
    let mut text = reports.iter().map(|report| as_text(report, &options)).collect::<Vec<_>>().join("\n");
    if reports.is_empty() {
        text.push_str("nothing has died in this session\n");
    }
    if left_out > 0 {
        text.push_str(&format!("[{left_out} earlier failures are left out]\n"));
    }
    let runs_failed = session.runs.failed;
    if runs_failed > 0 {
        text.push_str(&format!("{runs_failed} runs have failed; `runs` lists them, `outputs` shows how\n"));
    }
    let failures = reports.into_iter().map(failure).collect();
    Ok(Reply::new(Failures { failures, left_out, runs_failed }, text))
}

fn failure(report: FailureReport) -> Failure {
    let FailureReport { id, subject, at, causes, interrupted, .. } = report;
    let causes = causes.into_iter().map(Cause::from).collect();
    Failure { report: id, subject, at, causes, interrupted }
}
