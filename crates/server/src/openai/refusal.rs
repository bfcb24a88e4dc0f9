//! Refusals as OpenAI's clients read them: `{"error": {"message", "type", "param", "code"}}`.

use axum::body::Body;
use axum::http::Response;
use outlive_protocol::http::{ChatError, ChatRefusal, Problem};

use crate::problem;

/// A problem as an answer.
pub(crate) fn response(problem: &Problem) -> Response<Body> {
    let json = serde_json::to_vec(&refusal(problem)).expect("an error holds strings only");
    problem::with_headers(problem.status, "application/json", json)
}

/// A problem in their words.
pub(super) fn refusal(problem: &Problem) -> ChatRefusal {
    ChatRefusal {
        error: ChatError {
            message: problem.detail.clone(),
            kind: kind(problem.status).to_owned(),
            param: problem.facts.get(problem::FIELD).cloned(),
            code: problem.code.clone(),
            hint: problem.hint.clone(),
            cause: None,
            diagnostics: None,
        },
    }
}

/// Their name for what a status means.
pub(super) const fn kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    }
}
