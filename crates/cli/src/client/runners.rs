//! The calls about runners and their tasks. Names are checked when they are read from the command line.

use hyper::{Method, StatusCode};
use outlive_core::id::RunId;
use outlive_protocol::http::{GroupConfig, Members, RunView, SessionView, Stop, SubmitTask};

use super::{ANSWER_TIMEOUT, CallError, Client, parsed};

/// What is wished of runners that are there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// Those that are down come up.
    Start,
    /// They go down; the group stays.
    Stop,
    /// They are started anew.
    Restart,
}

impl Client {
    /// The groups that are up, by name.
    pub async fn groups(&self) -> Result<Vec<SessionView>, CallError> {
        self.get("/v1/runners").await
    }

    /// A group that is up.
    pub async fn group(&self, name: &str) -> Result<SessionView, CallError> {
        self.get(&format!("/v1/runners/{name}")).await
    }

    /// Brings a group up; whether it was made now. Asking again with the same configuration is harmless.
    pub async fn up(&self, name: &str, config: &GroupConfig) -> Result<(SessionView, bool), CallError> {
        let path = format!("/v1/runners/{name}");
        let (status, bytes) = self.answered(Method::PUT, &path, Some(config), ANSWER_TIMEOUT).await?;
        Ok((parsed(&path, &bytes)?, status == StatusCode::CREATED))
    }

    /// Stops all members of a group and ends it.
    pub async fn down(&self, name: &str, force: bool) -> Result<SessionView, CallError> {
        self.ask(Method::DELETE, &format!("/v1/runners/{name}"), Some(&Stop { force })).await
    }

    /// Starts, stops or restarts members of a group.
    pub async fn members(&self, name: &str, wish: Wish, which: &Members) -> Result<SessionView, CallError> {
        let word = match wish {
            Wish::Start => "start",
            Wish::Stop => "stop",
            Wish::Restart => "restart",
        };
        self.ask(Method::POST, &format!("/v1/runners/{name}/{word}"), Some(which)).await
    }

    /// The tasks of a group that it remembers, in the order in which they were queued.
    pub async fn tasks(&self, name: &str) -> Result<Vec<RunView>, CallError> {
        self.get(&format!("/v1/runners/{name}/tasks")).await
    }

    /// Queues a task. Asking again with the same id is harmless.
    pub async fn submit_task(&self, name: &str, task: &SubmitTask) -> Result<RunView, CallError> {
        self.ask(Method::POST, &format!("/v1/runners/{name}/tasks"), Some(task)).await
    }

    /// Cancels a task; one that has ended is left alone.
    pub async fn cancel_task(&self, name: &str, run: RunId) -> Result<RunView, CallError> {
        self.ask::<(), _>(Method::DELETE, &format!("/v1/runners/{name}/tasks/{run}"), None).await
    }
}
