//! The daemon that this code runs in; and, where it is one of several nodes, the one that has what is asked for.

use std::sync::Arc;

use async_trait::async_trait;
use outlive_core::diagnosis::FailureReport;
use outlive_core::id::{Cursor, RunId, SessionId};
use outlive_node::api::{Api, AttachRun, AttachSession, Errand, Events, From, Others};
use outlive_protocol::http::{
    Close, EditNotebook, Edited, Elsewhere, NewSession, NotebookView, OpenSession, Opened, Problem, Restart,
    RunView, SaveSession, SessionView, SubmitRuns,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;

use crate::host::{Caller, Host};

/// The node that this code runs in.
pub(crate) struct InProcess {
    pub(crate) api: Arc<dyn Api>,
    /// The way to the other nodes, where there are any.
    pub(crate) others: Option<Arc<dyn Others>>,
    pub(crate) caller: Caller,
}

/// How a request that belongs to another node is put there.
enum Away<'a> {
    /// It is not another node's, or there is no way to it: this is what is answered.
    Here(Problem),
    /// To this node.
    There(&'a dyn Others, Box<Elsewhere>),
}

impl InProcess {
    /// Where to go with what was refused here. Nothing was done.
    fn away(&self, refused: Problem) -> Away<'_> {
        match (&self.others, &refused.elsewhere) {
            (Some(others), Some(there)) if refused.code == "elsewhere" => {
                Away::There(&**others, there.clone())
            }
            _ => Away::Here(refused),
        }
    }

    /// What was answered here; what the other node answers, where it is another node's to answer.
    async fn answered<T: DeserializeOwned + Send>(
        &self,
        answer: Result<T, Problem>,
        errand: impl FnOnce() -> Errand + Send,
    ) -> Result<T, Problem> {
        let refused = match answer {
            Ok(answer) => return Ok(answer),
            Err(refused) => refused,
        };
        match self.away(refused) {
            Away::Here(refused) => Err(refused),
            Away::There(others, there) => {
                let answer = others.ask(&there, errand()).await?;
                serde_json::from_slice(&answer).map_err(|error| unreadable(&there, &error))
            }
        }
    }

    /// The same for events.
    async fn attached(&self, events: Result<Events, Problem>, path: String) -> Result<Events, Problem> {
        let refused = match events {
            Ok(events) => return Ok(events),
            Err(refused) => refused,
        };
        match self.away(refused) {
            Away::Here(refused) => Err(refused),
            Away::There(others, there) => others.attach(&there, path).await,
        }
    }
}

#[async_trait]
impl Host for InProcess {
    fn caller(&self) -> &Caller {
        &self.caller
    }

    async fn new_session(&self, request: NewSession) -> Result<Opened, Problem> {
        let answer = self.api.new_session(request.clone()).await;
        self.answered(answer, || Errand::post("/v1/sessions/new".to_owned(), &request)).await
    }

    async fn open(&self, request: OpenSession) -> Result<Opened, Problem> {
        let answer = self.api.open(request.clone()).await;
        // A file that another node has open may have another path there: it is asked for by its session.
        let session = answer.as_ref().err().and_then(|refused| refused.facts.get("session")?.parse().ok());
        let there = match session {
            Some(session) => OpenSession { path: None, id: Some(session), ..request },
            None => request,
        };
        self.answered(answer, || Errand::post("/v1/sessions/open".to_owned(), &there)).await
    }

    async fn save(&self, id: SessionId, how: SaveSession) -> Result<Opened, Problem> {
        let answer = self.api.save(id, how.clone()).await;
        self.answered(answer, || post(id, "save", &how)).await
    }

    async fn close(&self, id: SessionId, how: Close) -> Result<SessionView, Problem> {
        self.answered(self.api.close(id, how).await, || post(id, "close", &how)).await
    }

    async fn sessions(&self, all: bool) -> Result<Vec<SessionView>, Problem> {
        self.api.sessions(all).await
    }

    async fn session(&self, id: SessionId) -> Result<SessionView, Problem> {
        self.answered(self.api.session(id).await, || Errand::get(format!("/v1/sessions/{id}"))).await
    }

    async fn notebook(&self, id: SessionId) -> Result<NotebookView, Problem> {
        self.answered(self.api.notebook(id, false).await, || get(id, "notebook")).await
    }

    async fn cell_outputs(&self, id: SessionId, cell: String) -> Result<Vec<Value>, Problem> {
        let answer = self.api.cell_outputs(id, cell.clone()).await;
        self.answered(answer, || get(id, &format!("cells/{}/outputs", segment(&cell)))).await
    }

    async fn edit(&self, id: SessionId, edits: EditNotebook) -> Result<Edited, Problem> {
        let answer = self.api.edit(id, edits.clone()).await;
        self.answered(answer, || post(id, "notebook", &edits)).await
    }

    async fn submit(&self, id: SessionId, work: SubmitRuns) -> Result<Vec<RunView>, Problem> {
        let answer = self.api.submit(id, work.clone()).await;
        self.answered(answer, || post(id, "runs", &work)).await
    }

    async fn runs(&self, id: SessionId) -> Result<Vec<RunView>, Problem> {
        self.answered(self.api.runs(id).await, || get(id, "runs")).await
    }

    async fn run(&self, id: SessionId, run: RunId) -> Result<RunView, Problem> {
        self.runs(id).await?.into_iter().find(|view| view.id == run).ok_or_else(|| {
            let detail = format!("session {id} has no run {run}");
            Problem::new(404, "no-such-run", "There is no such run", detail)
                .hint("the session's list of runs has those that there are")
        })
    }

    async fn run_output(&self, id: SessionId, run: RunId, after: Cursor) -> Result<Events, Problem> {
        let how = AttachRun { cursor: after, follow: false, cancel: false };
        let path = format!("/v1/sessions/{id}/runs/{run}/attach?cursor={after}&follow=false");
        self.attached(self.api.attach_run(id, run, how).await, path).await
    }

    async fn watch(&self, id: SessionId) -> Result<Events, Problem> {
        let how = AttachSession { from: From::Head, interactive: false, follow: true, outputs: false };
        let path = format!("/v1/sessions/{id}/attach?after=head&outputs=false");
        self.attached(self.api.attach(id, how).await, path).await
    }

    async fn blob(&self, id: SessionId, sha256: &str, bytes_max: u64) -> Result<Vec<u8>, Problem> {
        let file = match self.api.blob(id, sha256).await {
            Ok(file) => file,
            Err(refused) => match self.away(refused) {
                Away::Here(refused) => return Err(refused),
                Away::There(others, there) => {
                    let mut content: Vec<u8> =
                        others.ask(&there, get(id, &format!("blobs/{}", segment(sha256)))).await?.into();
                    content.truncate(usize::try_from(bytes_max).unwrap_or(usize::MAX));
                    return Ok(content);
                }
            },
        };
        let read = async {
            let mut content = Vec::new();
            tokio::fs::File::from_std(file).take(bytes_max).read_to_end(&mut content).await?;
            Ok::<_, std::io::Error>(content)
        };
        read.await.map_err(|error| {
            Problem::new(
                500,
                "blob-unreadable",
                "A blob cannot be read",
                format!("blob {sha256} of session {id}: {error}"),
            )
            .hint("`outlive doctor` looks at the daemon's directories")
        })
    }

    async fn interrupt(&self, id: SessionId) -> Result<SessionView, Problem> {
        let answer = self.api.interrupt(id).await;
        self.answered(answer, || Errand { body: None, ..post(id, "interrupt", &()) }).await
    }

    async fn restart(&self, id: SessionId, how: Restart) -> Result<SessionView, Problem> {
        self.answered(self.api.restart(id, how).await, || post(id, "restart", &how)).await
    }

    async fn reports(&self, id: SessionId) -> Result<Vec<FailureReport>, Problem> {
        self.answered(self.api.reports(id).await, || get(id, "reports")).await
    }
}

fn get(id: SessionId, what: &str) -> Errand {
    Errand::get(format!("/v1/sessions/{id}/{what}"))
}

fn post(id: SessionId, what: &str, body: &impl Serialize) -> Errand {
    Errand::post(format!("/v1/sessions/{id}/{what}"), body)
}

/// One segment of a path (RFC 3986 §2.3), whatever is in it. A dot is written as a code too: `..` would be another path.
fn segment(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~');
    let code = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(code).collect()
}

fn unreadable(there: &Elsewhere, error: &serde_json::Error) -> Problem {
    Problem::new(
        502,
        "owner-garbled",
        "The node's answer cannot be used",
        format!("Node {} answered something else than was asked for: {error}.", there.name),
    )
    .hint("Look whether all nodes have the same version: `outlive nodes`.")
}
