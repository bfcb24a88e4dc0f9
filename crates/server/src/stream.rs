//! Events to one reader, as Server-Sent Events.
//!
//! ```text
//!  node ──Events──► pump (a task) ──batches, bounded──► body ──► hyper ──► socket
//!                     │  quiet: a comment, if in touch    │
//!                     └─ the end: a last word ────────────┘
//! ```
//! The pump writes what is ready into one batch, so that a flood costs few writes, and never waits to fill one, so that
//! a single event is not delayed. When the reader does not read, the queue fills, the pump waits, and the node's stream
//! is not read on: back-pressure. A reader that takes nothing for too long is detached.
//!
//! Invariant: a stream ends with an `end` or a `problem` event, whatever happens (tests/api/streams.rs).

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, Response};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, StreamExt as _, future};
use outlive_core::limits::{SSE_BATCH_BYTES, SSE_BATCHES_MAX, SSE_COMMENT_MS};
use outlive_node::api::{Delivered, Events};
use outlive_protocol::http::{Problem, StreamEvent};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::farewell::Farewell;
use crate::problem;

/// The media type of an event stream.
pub const MEDIA_TYPE: &str = "text/event-stream";

/// A line that says nothing but that somebody is there.
const COMMENT: &[u8] = b":\n\n";
/// Tells an EventSource how long to wait before it comes back, in milliseconds: as long as a comment takes.
const RETRY: &[u8] = b"retry: 250\n\n";
const _: () = assert!(SSE_COMMENT_MS == 250, "RETRY says so");

/// What all event streams of a server share.
#[derive(Clone)]
pub(crate) struct Streams {
    /// Owns the pumps.
    pub tasks: TaskTracker,
    /// Ends them.
    pub farewell: Farewell,
    /// How long a reader may take nothing.
    pub stall: Duration,
}

/// What a stream says next.
#[derive(Debug)]
pub(crate) enum Line {
    /// More follows.
    More(Bytes),
    /// Its last word.
    Last(Bytes),
}

impl Streams {
    /// The answer that carries `events`. Dropping it detaches.
    pub(crate) fn respond(&self, events: Events) -> Response<Body> {
        self.begin(events, Some(RETRY), write_event, problem_event)
    }

    /// The answer that carries the events of another dialect; `cut` makes its last word of a problem.
    pub(crate) fn carry(&self, lines: BoxStream<'static, Line>, cut: fn(Problem) -> Bytes) -> Response<Body> {
        self.begin(lines, None, write_line, cut)
    }

    fn begin<T: Send + 'static>(
        &self,
        events: BoxStream<'static, T>,
        prelude: Option<&'static [u8]>,
        write: Write<T>,
        cut: fn(Problem) -> Bytes,
    ) -> Response<Body> {
        let (queue, batches) = mpsc::channel(SSE_BATCHES_MAX);
        let (farewell, last_word) = oneshot::channel();
        let Self { tasks, farewell: end, stall } = self.clone();
        tasks.spawn(async move {
            let ending = pump(events, write, &queue, &end, stall).await;
            // A body that is gone needs no last word.
            let _ = farewell.send(ending);
        });
        let prelude = stream::iter(prelude.map(Bytes::from_static)).map(Ok);
        let mut response = Response::new(Body::from_stream(prelude.chain(body(batches, last_word, cut))));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // Proxies (nginx) must not collect it.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        response
    }
}

/// Writes an event; true when it is the stream's last.
type Write<T> = fn(&T, &mut BytesMut) -> bool;

/// How a pump ended.
enum Ending {
    /// The node's own last event was the last word.
    Complete,
    /// This has still to be said.
    Cut(Problem),
}

fn body(
    batches: mpsc::Receiver<Bytes>,
    last_word: oneshot::Receiver<Ending>,
    cut: fn(Problem) -> Bytes,
) -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    let batches = stream::unfold(batches, async |mut batches| Some((batches.recv().await?, batches)));
    let last_word = stream::once(last_word).filter_map(move |ending| {
        future::ready(match ending {
            Ok(Ending::Complete) => None,
            Ok(Ending::Cut(problem)) => Some(cut(problem)),
            Err(_panicked) => Some(cut(problem::bug("The task that carried this stream panicked."))),
        })
    });
    batches.chain(last_word).map(Ok)
}

async fn pump<T>(
    events: BoxStream<'static, T>,
    write: Write<T>,
    queue: &mpsc::Sender<Bytes>,
    farewell: &Farewell,
    stall: Duration,
) -> Ending {
    let mut events = events.fuse();
    loop {
        let next = tokio::select! {
            biased;
            () = queue.closed() => return Ending::Complete,
            problem = farewell.said() => return Ending::Cut(problem),
            next = timeout(Duration::from_millis(SSE_COMMENT_MS), events.next()) => next,
        };
        let first = match next {
            // A full queue is no quiet stream.
            Err(_quiet) if !farewell.is_there() => continue,
            Err(_quiet) => {
                let _ = queue.try_send(Bytes::from_static(COMMENT));
                continue;
            }
            Ok(Some(first)) => first,
            Ok(None) => return Ending::Cut(unfinished()),
        };
        let (batch, is_over) = collect(first, &mut events, write);
        let sent = tokio::select! {
            biased;
            sent = timeout(stall, queue.send(batch)) => sent,
            problem = farewell.said() => return Ending::Cut(problem),
        };
        match sent {
            Err(_stalled) => {
                tracing::info!(
                    stall_ms = stall.as_millis(),
                    "a reader was detached: it took nothing of its stream"
                );
                return Ending::Cut(problem::slow_reader(stall.as_millis()));
            }
            Ok(Err(_gone)) => return Ending::Complete,
            Ok(Ok(())) if is_over => return Ending::Complete,
            Ok(Ok(())) => {}
        }
    }
}

/// One batch of Server-Sent Events. True when it holds the stream's last event.
fn collect<T>(first: T, events: &mut stream::Fuse<BoxStream<'static, T>>, write: Write<T>) -> (Bytes, bool) {
    let mut out = BytesMut::new();
    let is_over = batch(first, events, |event| {
        let before = out.len();
        let is_last = write(event, &mut out);
        (out.len() - before, is_last)
    });
    (out.freeze(), is_over)
}

/// Gives `each` the first event and what is ready behind it, as long as the bytes that `each` makes of them are not
/// too many. `each` says how many, and whether it was the stream's last event; true when that was among them.
pub(crate) fn batch<T>(
    first: T,
    events: &mut stream::Fuse<BoxStream<'static, T>>,
    mut each: impl FnMut(&T) -> (usize, bool),
) -> bool {
    let mut bytes = 0;
    let mut next = Some(first);
    while let Some(event) = next {
        let (size, is_last) = each(&event);
        bytes += size;
        if is_last {
            return true;
        }
        if bytes >= SSE_BATCH_BYTES {
            break;
        }
        next = pin!(events.next()).now_or_never().flatten();
    }
    false
}

/// Whether nothing follows.
pub(crate) const fn is_last(event: &StreamEvent) -> bool {
    matches!(event, StreamEvent::End { .. } | StreamEvent::Problem { .. })
}

fn write_line(line: &Line, out: &mut BytesMut) -> bool {
    let (Line::More(bytes) | Line::Last(bytes)) = line;
    out.put_slice(bytes);
    matches!(line, Line::Last(_))
}

/// `id:` (for events that are a place to come back to), `event:`, `data:` with one line of JSON.
fn write_event(Delivered { cursor, event }: &Delivered, out: &mut BytesMut) -> bool {
    // A line break would end the field; our cursors are digits and dots.
    if let Some(cursor) = cursor.as_deref().filter(|cursor| !cursor.contains(['\n', '\r', '\0'])) {
        out.put_slice(b"id: ");
        out.put_slice(cursor.as_bytes());
        out.put_u8(b'\n');
    }
    out.put_slice(b"event: ");
    out.put_slice(event.name().as_bytes());
    out.put_slice(b"\ndata: ");
    serde_json::to_writer(out.writer(), event).expect("events have string keys, and memory does not fail");
    out.put_slice(b"\n\n");
    is_last(event)
}

pub(crate) fn problem_event(problem: Problem) -> Bytes {
    let mut out = BytesMut::new();
    write_event(&Delivered { cursor: None, event: StreamEvent::Problem { problem } }, &mut out);
    out.freeze()
}

pub(crate) fn unfinished() -> Problem {
    problem::bug("The stream ended without saying how; come back with the last id.")
}
