//! Somebody who watches a run to its end, whatever happens to the nodes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use outlive_core::id::{Cursor, RunId, Seq, SessionId};
use outlive_core::session::RunOutcome;
use outlive_node::api::{Api as _, AttachRun};
use outlive_protocol::http::StreamEvent;
use tokio::sync::mpsc::UnboundedReceiver;

use super::ledger::{Ledger, Watched};
use crate::schedule::Place;
use crate::seed::Random;
use crate::store::short;
use crate::world::{Called, Told, World, node_id};

/// A server that says nothing for so long is left.
const SILENCE: Duration = Duration::from_secs(1);

/// A watcher of one run.
pub(super) struct Watcher {
    pub(super) world: Arc<World>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) session: SessionId,
    pub(super) run: RunId,
    pub(super) who: String,
    pub(super) random: Random,
    chunks: Vec<String>,
    cursor: Cursor,
    outcome: Option<RunOutcome>,
    /// The node to ask next, if somebody has said which.
    hint: Option<usize>,
}

/// Why a stream is left.
enum Over {
    /// The run has ended.
    Run,
    /// Another one is wanted.
    Stream,
}

impl Watcher {
    pub(super) fn new(
        world: &Arc<World>,
        ledger: &Arc<Ledger>,
        (session, run): (SessionId, RunId),
        who: String,
    ) -> Self {
        let random = world.seed.draw(("watcher", run, &who));
        let (world, ledger) = (Arc::clone(world), Arc::clone(ledger));
        let cursor = Cursor::default();
        Self {
            world,
            ledger,
            session,
            run,
            who,
            random,
            chunks: Vec::new(),
            cursor,
            outcome: None,
            hint: None,
        }
    }

    fn name(&self) -> String {
        format!("watcher {} of run {} in {}", self.who, short(self.run), short(self.session))
    }

    /// Watches until the end of the run.
    pub(super) async fn watch(mut self) {
        let name = self.name();
        self.ledger.begin(&name);
        loop {
            let nodes = self.world.setup.nodes;
            let node = self.hint.take().unwrap_or_else(|| self.random.place(nodes));
            let (session, run, cursor) = (self.session, self.run, self.cursor);
            let how = AttachRun { cursor, follow: true, cancel: false };
            let called = self
                .world
                .follow(node, &mut self.random, move |node: Arc<outlive_node::Node>| async move {
                    node.attach_run(session, run, how).await
                })
                .await;
            let now = self.world.schedule.now();
            let came = match &called {
                Called::Answered(Ok(_)) => "listens to",
                Called::Answered(Err(_)) => "is refused by",
                Called::Nobody | Called::Lost => "does not reach",
            };
            self.world.trace.remark(
                now,
                None,
                format_args!("{} {came} n{node} from {cursor} on", self.name()),
            );
            match called {
                Called::Answered(Ok(mut heard)) => {
                    let patience = self.random.happens(150).then(|| self.random.millis(10..1_500));
                    match self.read(&mut heard, patience).await {
                        Over::Run => break,
                        Over::Stream => {}
                    }
                }
                // It went with the power, and whoever asked for it was told so soon that it may have.
                Called::Answered(Err(problem))
                    if problem.status == 404 && self.world.store.is_torn(self.session) =>
                {
                    return self.ledger.done(&name);
                }
                Called::Answered(Err(problem)) => {
                    self.hint = problem.elsewhere.and_then(|at| (0..nodes).find(|n| node_id(*n) == at.node));
                    let wait = self.random.millis(20..200);
                    self.world.schedule.sleep(wait, Place::Clients).await;
                }
                Called::Nobody | Called::Lost => {
                    let wait = self.random.millis(20..200);
                    self.world.schedule.sleep(wait, Place::Clients).await;
                }
            }
        }
        let Self { ledger, run, who, chunks, outcome, .. } = self;
        ledger.watched(run, Watched { who, chunks, outcome });
        ledger.done(&name);
    }

    async fn read(&mut self, heard: &mut UnboundedReceiver<Told>, patience: Option<Duration>) -> Over {
        let leaves = patience.map(|patience| self.world.schedule.now() + patience);
        loop {
            let until = self.world.schedule.now() + SILENCE;
            let until = leaves.map_or(until, |leaves| leaves.min(until));
            let quiet = self.world.schedule.until(until, Place::Clients);
            let next = std::pin::pin!(heard.recv());
            match select(next, quiet).await {
                Either::Left((Some(Told::Event(told)), _)) => {
                    if let Some(cursor) = &told.cursor {
                        match cursor.parse() {
                            Ok(cursor) => self.cursor = cursor,
                            Err(error) => self.ledger.note(format!("{}: {error}", self.name())),
                        }
                    }
                    if let Some(over) = self.told(told.event) {
                        return over;
                    }
                }
                Either::Left((Some(Told::Comment), _)) => {}
                Either::Left((Some(Told::End) | None, _)) | Either::Right(_) => return Over::Stream,
            }
        }
    }

    fn told(&mut self, event: StreamEvent) -> Option<Over> {
        match event {
            StreamEvent::Output { first, chunks, .. } => {
                if first != Seq(self.chunks.len() as u64 + 1) {
                    let has = self.chunks.len();
                    self.ledger.note(format!("{} has {has} chunks and is told from {first} on", self.name()));
                }
                self.chunks.extend(chunks.into_iter().map(|chunk| {
                    let content = chunk.content.map(|content| content.to_string());
                    chunk.text.or(content).unwrap_or_default()
                }));
            }
            StreamEvent::Reset { keep, .. } => {
                let keep = usize::try_from(keep.0).unwrap_or(usize::MAX);
                if keep > self.chunks.len() {
                    let has = self.chunks.len();
                    self.ledger.note(format!("{} has {has} chunks and is reset to {keep}", self.name()));
                }
                self.chunks.truncate(keep);
            }
            StreamEvent::End { outcome } => {
                self.outcome = outcome;
                return Some(Over::Run);
            }
            StreamEvent::Problem { .. } => return Some(Over::Stream),
            _ => {}
        }
        None
    }
}
