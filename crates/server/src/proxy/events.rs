//! The events of another node, carried to a client: whole ones only, so that there is always a place for a last word.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use outlive_core::limits::{OWNER_EVENT_BYTES_MAX, OWNER_SILENCE_MS};
use outlive_node::api::Api;
use outlive_protocol::http::Problem;
use tokio::time::timeout;

use super::owner::Owner;
use super::refusal::Trouble;
use crate::openai;
use crate::stream::{Line, problem_event};

/// How a stream says that it is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dialect {
    /// By an event `end` or `problem`.
    Native,
    /// By `data: [DONE]`.
    OpenAi,
}

impl Dialect {
    /// The last word when there is none.
    pub(super) fn cut(self) -> fn(Problem) -> Bytes {
        match self {
            Self::Native => problem_event,
            Self::OpenAi => openai::cut,
        }
    }

    fn is_last(self, block: &[u8]) -> bool {
        let last: &[&[u8]] = match self {
            Self::Native => &[b"event: end", b"event: problem"],
            Self::OpenAi => &[b"data: [DONE]"],
        };
        block.split(|byte| *byte == b'\n').any(|line| last.contains(&line))
    }
}

/// The events of a stream, as they come.
pub(super) struct Blocks {
    body: Incoming,
    owner: Owner,
    lost: BoxFuture<'static, ()>,
    dialect: Dialect,
    /// What has come and is no whole event yet.
    rest: BytesMut,
    /// How much of it was searched for an event's end.
    searched: usize,
}

/// Some whole events, byte for byte, and whether the last of the stream is among them.
pub(super) struct Block {
    pub bytes: Bytes,
    pub is_last: bool,
}

impl Blocks {
    pub(super) fn new(body: Incoming, owner: Owner, api: Arc<dyn Api>, dialect: Dialect) -> Self {
        let node = owner.node;
        let lost = Box::pin(async move { api.until_lost(node).await });
        Self { body, owner, lost, dialect, rest: BytesMut::new(), searched: 0 }
    }

    /// What comes next, at least one event. Comments are left out: whoever carries the events makes its own.
    ///
    /// # Errors
    /// The owner is silent, or gone before its last word.
    pub(super) async fn next(&mut self) -> Result<Block, Problem> {
        self.heard().await.map_err(|trouble| trouble.of_stream(&self.owner))
    }

    async fn heard(&mut self) -> Result<Block, Trouble> {
        loop {
            if let Some(block) = self.whole() {
                return Ok(block);
            }
            if self.rest.len() > OWNER_EVENT_BYTES_MAX {
                return Err(Trouble::Garbled("an event of its stream has no end".to_owned()));
            }
            let next = timeout(Duration::from_millis(OWNER_SILENCE_MS), self.body.frame());
            let frame = tokio::select! {
                biased;
                frame = next => frame.map_err(|_| Trouble::Silent)?,
                () = &mut self.lost => return Err(Trouble::Lost),
            };
            match frame {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.rest.extend_from_slice(&data);
                    }
                }
                // Its last word has not come: it was killed, or cut off.
                Some(Err(_)) | None => return Err(Trouble::Lost),
            }
        }
    }

    /// The whole events among what has come.
    fn whole(&mut self) -> Option<Block> {
        // The end may be cut in two.
        let from = self.searched.saturating_sub(1);
        let end = self.rest[from..].windows(2).rposition(|pair| pair == b"\n\n").map(|at| from + at + 2);
        self.searched = self.rest.len();
        let all = self.rest.split_to(end?).freeze();
        self.searched -= all.len();
        let (mut at, mut kept, mut is_last) = (0, BytesMut::new(), false);
        while at < all.len() && !is_last {
            let length =
                all[at..].windows(2).position(|pair| pair == b"\n\n").map_or(all.len() - at, |end| end + 2);
            let block = &all[at..at + length];
            at += length;
            if !block.starts_with(b":") {
                is_last = self.dialect.is_last(block);
                kept.extend_from_slice(block);
            }
        }
        (!kept.is_empty()).then(|| Block { bytes: kept.freeze(), is_last })
    }
}

/// The events as a stream's lines, with a last word whatever happens.
pub(super) fn lines(blocks: Blocks) -> BoxStream<'static, Line> {
    stream::unfold(Some(blocks), async |blocks| {
        let mut blocks = blocks?;
        Some(match blocks.next().await {
            Ok(Block { bytes, is_last: false }) => (Line::More(bytes), Some(blocks)),
            Ok(Block { bytes, is_last: true }) => (Line::Last(bytes), None),
            Err(problem) => {
                tracing::info!(
                    code = problem.code,
                    owner = blocks.owner.name,
                    "a stream of another node was cut"
                );
                (Line::Last(blocks.dialect.cut()(problem)), None)
            }
        })
    })
    .boxed()
}
