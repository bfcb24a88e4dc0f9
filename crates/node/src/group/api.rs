//! What surfaces ask of groups.

use async_trait::async_trait;
use outlive_core::id::RunId;
use outlive_protocol::http::{GroupConfig, Members, Problem, RunView, SessionView, Stop, SubmitTask};

use crate::api::{Groups, MemberWish, Up};
use crate::node::Node;
use crate::problem;

#[async_trait]
impl Groups for Node {
    async fn groups(&self) -> Result<Vec<SessionView>, Problem> {
        Ok(Vec::new())
    }
    async fn group(&self, name: &str) -> Result<SessionView, Problem> {
        Err(problem::bad_request(name))
    }
    async fn up(&self, name: &str, _config: GroupConfig) -> Result<(SessionView, Up), Problem> {
        Err(problem::bad_request(name))
    }
    async fn down(&self, name: &str, _how: Stop) -> Result<SessionView, Problem> {
        Err(problem::bad_request(name))
    }
    async fn members(&self, name: &str, _what: MemberWish, _which: Members) -> Result<SessionView, Problem> {
        Err(problem::bad_request(name))
    }
    async fn submit_task(&self, name: &str, _task: SubmitTask) -> Result<RunView, Problem> {
        Err(problem::bad_request(name))
    }
    async fn cancel_task(&self, name: &str, _run: RunId) -> Result<RunView, Problem> {
        Err(problem::bad_request(name))
    }
}
