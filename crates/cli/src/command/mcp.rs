//! `outlive mcp`: notebooks for an agent, over standard input and output. The daemon does the work; this stands between
//! it and the agent, resolves the agent's paths, and finds or starts the daemon when it is not there.

use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use outlive_core::diagnosis::FailureReport;
use outlive_core::id::{Cursor, RunId, SessionId};
use outlive_mcp::{Caller, Host};
use outlive_node::api::Events;
use outlive_protocol::http::{
    Close, EditNotebook, Edited, NewSession, NotebookView, OpenSession, Opened, Problem, Restart, RunView,
    SaveSession, SessionView, SubmitRuns,
};
use serde_json::Value;

use super::open::variables;
use crate::client::{CallError, Client, Twice};
use crate::config::Config;
use crate::daemon::{self, Daemon};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::launch;

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {}

impl Args {
    /// Serves until standard input ends.
    pub async fn run(self, config: &Config) -> Result<Exit, Failure> {
        let directory = launch::utf8(&launch::absolute(Path::new("."))?)?;
        let caller = Caller { directory: Some(directory.into()), variables: Some(variables()?) };
        let daemon = Daemon::new(config.clone());
        let client = daemon.clients()?.swap_remove(0);
        let host = Arc::new(Proxy { daemon, client: Mutex::new(client), caller });
        outlive_mcp::stdio(host, tokio::io::stdin(), tokio::io::stdout()).await.map_err(|error| {
            Failure::new(Exit::Failed, error.to_string())
                .hint("an MCP client starts `outlive mcp`; see docs/mcp.md")
        })?;
        Ok(Exit::Ok)
    }
}

/// The daemon behind its socket.
struct Proxy {
    daemon: Daemon,
    client: Mutex<Client>,
    caller: Caller,
}

impl Proxy {
    /// A call, and again if nobody could take it: then a daemon or another node is found, or one is started first.
    async fn call<T, F>(&self, call: impl Fn(Client) -> F + Send + Sync) -> Result<T, Problem>
    where
        F: Future<Output = Result<T, CallError>> + Send,
        T: Send,
    {
        let mut client = self.client.lock().expect("nothing panics while it is held").clone();
        let answered = self.daemon.persist(&mut client, Twice::Never, &mut daemon::silent, call).await;
        *self.client.lock().expect("nothing panics while it is held") = client;
        answered.map_err(Problem::from)
    }
}

#[async_trait]
impl Host for Proxy {
    fn caller(&self) -> &Caller {
        &self.caller
    }

    async fn new_session(&self, request: NewSession) -> Result<Opened, Problem> {
        let request = &request;
        self.call(|client| async move { client.new_session(request).await }).await
    }

    async fn open(&self, request: OpenSession) -> Result<Opened, Problem> {
        let request = &request;
        self.call(|client| async move { client.open(request).await }).await
    }

    async fn save(&self, id: SessionId, how: SaveSession) -> Result<Opened, Problem> {
        let how = &how;
        self.call(|client| async move { client.save(id, how).await }).await
    }

    async fn close(&self, id: SessionId, how: Close) -> Result<SessionView, Problem> {
        self.call(|client| async move { client.close(id, how).await }).await
    }

    async fn sessions(&self, all: bool) -> Result<Vec<SessionView>, Problem> {
        self.call(|client| async move { client.sessions(all).await }).await
    }

    async fn session(&self, id: SessionId) -> Result<SessionView, Problem> {
        self.call(|client| async move { client.session(id).await }).await
    }

    async fn notebook(&self, id: SessionId) -> Result<NotebookView, Problem> {
        self.call(|client| async move { client.notebook(id, false).await }).await
    }

    async fn cell_outputs(&self, id: SessionId, cell: String) -> Result<Vec<Value>, Problem> {
        let cell = cell.as_str();
        self.call(|client| async move { client.cell_outputs(id, cell).await }).await
    }

    async fn edit(&self, id: SessionId, edits: EditNotebook) -> Result<Edited, Problem> {
        let edits = &edits;
        self.call(|client| async move { client.edit(id, edits).await }).await
    }

    async fn submit(&self, id: SessionId, work: SubmitRuns) -> Result<Vec<RunView>, Problem> {
        let work = &work;
        self.call(|client| async move { client.submit(id, work).await }).await
    }

    async fn runs(&self, id: SessionId) -> Result<Vec<RunView>, Problem> {
        self.call(|client| async move { client.runs(id).await }).await
    }

    async fn run(&self, id: SessionId, run: RunId) -> Result<RunView, Problem> {
        self.call(|client| async move { client.run(id, run).await }).await
    }

    async fn run_output(&self, id: SessionId, run: RunId, after: Cursor) -> Result<Events, Problem> {
        self.call(|client| async move { client.run_output(id, run, after).await }).await
    }

    async fn watch(&self, id: SessionId) -> Result<Events, Problem> {
        self.call(|client| async move { client.watch_state(id).await }).await
    }

    async fn blob(&self, id: SessionId, sha256: &str, bytes_max: u64) -> Result<Vec<u8>, Problem> {
        let mut content = self.call(|client| async move { client.blob(id, sha256).await }).await?;
        content.truncate(usize::try_from(bytes_max).unwrap_or(usize::MAX));
        Ok(content)
    }

    async fn interrupt(&self, id: SessionId) -> Result<SessionView, Problem> {
        self.call(|client| async move { client.interrupt(id).await }).await
    }

    async fn restart(&self, id: SessionId, how: Restart) -> Result<SessionView, Problem> {
        self.call(|client| async move { client.restart(id, how).await }).await
    }

    async fn reports(&self, id: SessionId) -> Result<Vec<FailureReport>, Problem> {
        self.call(|client| async move { client.reports(id).await }).await
    }
}
