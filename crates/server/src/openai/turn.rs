//! One answer as it comes: from the events of a run to pieces, rewinds and one ending.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::StreamExt as _;
use outlive_core::diagnosis::FailureReport;
use outlive_core::id::Seq;
use outlive_core::log::ChunkKind;
use outlive_node::api::{Api, Events};
use outlive_protocol::http::{ChunkView, Problem, RunView, StreamEvent, from_base64};
use serde_json::{Map, Value};

use super::fault::Fault;
use super::piece::Piece;
use crate::native::blob;
use crate::stream::unfinished;

/// What a task says.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Heard {
    /// More of the answer, and the number of the chunk.
    Piece(Seq, Piece),
    /// Another attempt begins: what came after this chunk does not count any more.
    Rewound(Seq),
    /// It has ended; nothing follows.
    Over(Result<(), Box<Fault>>),
}

/// When an error chunk is the end of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Patience {
    /// At once: nobody begins the task again, and nothing is cancelled by leaving.
    None,
    /// When the task cannot be begun again: when its handler raised.
    ForRetry,
    /// With the task's own end: leaving before would cancel what has failed.
    ForEnd,
}

/// A reader of one task.
pub(super) struct Turn {
    source: Source,
    events: Events,
    patience: Patience,
    /// Chunks of the last event that were not looked at yet.
    pending: VecDeque<(Seq, ChunkView)>,
    /// What an error chunk said.
    fault: Option<Fault>,
    report: Option<Box<FailureReport>>,
}

/// Whose task it is, and where its large chunks are.
struct Source {
    api: Arc<dyn Api>,
    run: RunView,
    model: String,
}

impl Turn {
    pub(super) fn new(api: Arc<dyn Api>, run: RunView, model: String, events: Events, cancels: bool) -> Self {
        let patience = match (cancels, may_be_begun_again(&run)) {
            (true, _) => Patience::ForEnd,
            (false, true) => Patience::ForRetry,
            (false, false) => Patience::None,
        };
        Self {
            source: Source { api, run, model },
            events,
            patience,
            pending: VecDeque::new(),
            fault: None,
            report: None,
        }
    }

    pub(super) const fn run(&self) -> &RunView {
        &self.source.run
    }

    pub(super) fn model(&self) -> &str {
        &self.source.model
    }

    /// Whether another runner may begin the task again.
    pub(super) fn may_retry(&self) -> bool {
        may_be_begun_again(&self.source.run)
    }

    /// What comes next. Cancel-safe. Not to be asked again after [`Heard::Over`].
    pub(super) async fn next(&mut self) -> Heard {
        loop {
            while let Some((seq, chunk)) = self.pending.front() {
                let seq = *seq;
                let read = self.source.read(chunk).await;
                self.pending.pop_front();
                match read {
                    Ok(Some(Read::Piece(piece))) => return Heard::Piece(seq, piece),
                    Ok(Some(Read::Fault(fault))) => {
                        if self.is_last_word(&fault) {
                            return Heard::Over(Err(fault));
                        }
                        self.fault = Some(*fault);
                    }
                    Ok(None) => {}
                    Err(problem) => return Heard::Over(Err(Box::new(Fault::cut(&problem)))),
                }
            }
            let Some(delivered) = self.events.next().await else {
                return Heard::Over(Err(Box::new(Fault::cut(&unfinished()))));
            };
            if let Some(heard) = self.hear(delivered.event) {
                return heard;
            }
        }
    }

    fn hear(&mut self, event: StreamEvent) -> Option<Heard> {
        match event {
            StreamEvent::Output { first, chunks, .. } => {
                let numbers = (first.0..).map(Seq);
                self.pending.extend(numbers.zip(chunks));
                None
            }
            StreamEvent::Reset { keep, .. } => {
                self.fault = None;
                Some(Heard::Rewound(keep))
            }
            StreamEvent::Report { report } => {
                self.report = Some(report);
                None
            }
            StreamEvent::End { outcome: Some(outcome) } => {
                let ended = Fault::of_end(&self.source.model, outcome, self.fault.take(), self.report.take());
                Some(Heard::Over(ended))
            }
            StreamEvent::End { outcome: None } => Some(Heard::Over(Err(Box::new(Fault::cut(&unfinished()))))),
            StreamEvent::Problem { problem } => Some(Heard::Over(Err(Box::new(Fault::cut(&problem))))),
            StreamEvent::Session { .. }
            | StreamEvent::Run { .. }
            | StreamEvent::PathChanged { .. }
            | StreamEvent::Stalled { .. }
            | StreamEvent::Gap { .. }
            | StreamEvent::Unknown => None,
        }
    }

    fn is_last_word(&self, fault: &Fault) -> bool {
        match self.patience {
            Patience::None => true,
            Patience::ForRetry => fault.is_raised(),
            Patience::ForEnd => false,
        }
    }
}

fn may_be_begun_again(run: &RunView) -> bool {
    run.task.as_ref().is_none_or(|task| task.idempotent)
}

impl Source {
    /// What a chunk is for a chat: `None` for progress, bytes, and JSON that is no delta.
    async fn read(&self, chunk: &ChunkView) -> Result<Option<Read>, Problem> {
        Ok(match chunk.kind {
            ChunkKind::Text => {
                let text = match &chunk.text {
                    Some(text) => text.clone(),
                    None => String::from_utf8_lossy(&self.bytes(chunk).await?).into_owned(),
                };
                Some(Read::Piece(Piece::Text(text)))
            }
            ChunkKind::Json => delta(self.json(chunk).await?).map(Piece::Delta).map(Read::Piece),
            ChunkKind::Result => Some(Read::Piece(Piece::Result(self.json(chunk).await?))),
            ChunkKind::Error => {
                let content = self.json(chunk).await?;
                Some(Read::Fault(Box::new(Fault::of_chunk(&self.model, &content))))
            }
            ChunkKind::Stdout
            | ChunkKind::Stderr
            | ChunkKind::DisplayData
            | ChunkKind::UpdateDisplayData
            | ChunkKind::ExecuteResult
            | ChunkKind::ClearOutput
            | ChunkKind::Started
            | ChunkKind::InputRequest
            | ChunkKind::Bytes
            | ChunkKind::Progress
            | ChunkKind::Gap
            | ChunkKind::Other => None,
        })
    }

    async fn json(&self, chunk: &ChunkView) -> Result<Value, Problem> {
        match &chunk.content {
            Some(content) => Ok(content.clone()),
            None => Ok(serde_json::from_slice(&self.bytes(chunk).await?).unwrap_or_default()),
        }
    }

    /// The content of a chunk that is not at hand: it is large, or not what it should be.
    async fn bytes(&self, chunk: &ChunkView) -> Result<Vec<u8>, Problem> {
        if let Some(blob) = &chunk.blob {
            let file = self.api.blob(self.run.session, &blob.sha256).await?;
            return blob::read(&blob.sha256, file).await;
        }
        Ok(chunk.base64.as_deref().and_then(from_base64).unwrap_or_default())
    }
}

/// What a chunk says.
enum Read {
    Piece(Piece),
    Fault(Box<Fault>),
}

fn delta(content: Value) -> Option<Map<String, Value>> {
    match content {
        Value::Object(mut fields) => match fields.remove("delta") {
            Some(Value::Object(delta)) => Some(delta),
            _ => None,
        },
        _ => None,
    }
}
