//! From what a process writes to records.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use outlive_core::id::{RunId, Src};
use outlive_core::limits::{BLOB_BYTES_MAX, CHUNK_BYTES_MAX};
use outlive_core::log::{BlobRef, Chunk, ChunkKind, Payload};
use outlive_core::time::{Now, WallTime};
use outlive_process::Pipe;
use outlive_protocol::shim::{Notice, OpenQuestion, StateNotice};
use tokio::task::JoinHandle;

use super::work::Work;
use super::{Driver, Life};
use crate::blob;
use crate::kernel::runs::RunKey;
use crate::kernel::{Effect, Happened};
use crate::tail::Tail;

/// How much is read from a pipe at once, in bytes; below [`CHUNK_BYTES_MAX`].
const READ_BYTES: usize = 65_536;
/// What a kernel's messages are.
const JSON: &str = "application/json";
/// How many of a kernel's messages are taken in one turn, so that its queue shrinks faster than it grows.
const MESSAGES_A_TURN: usize = 256;

/// One of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// Bytes have come, or the stream's end (0), or an error.
#[derive(Debug)]
pub(super) struct Piped {
    stream: Stream,
    result: io::Result<usize>,
}

/// Standard output and error with their tails.
pub(super) struct Pipes {
    stdout: Source,
    stderr: Source,
}

struct Source {
    /// `None` after its end.
    pipe: Option<Pipe>,
    buffer: Box<[u8]>,
    tail: Tail,
}

impl Source {
    fn new(pipe: Pipe) -> Self {
        Self { pipe: Some(pipe), buffer: vec![0; READ_BYTES].into_boxed_slice(), tail: Tail::default() }
    }

    async fn next(&mut self) -> io::Result<usize> {
        match &self.pipe {
            Some(pipe) => pipe.read(&mut self.buffer).await,
            None => std::future::pending().await,
        }
    }
}

impl Pipes {
    pub(super) fn new(stdout: Pipe, stderr: Pipe) -> Self {
        Self { stdout: Source::new(stdout), stderr: Source::new(stderr) }
    }

    /// The next bytes of either. Cancel-safe: read(2) and the return are one turn.
    pub(super) async fn next(&mut self) -> Piped {
        let Self { stdout, stderr } = self;
        tokio::select! {
            result = stdout.next() => Piped { stream: Stream::Stdout, result },
            result = stderr.next() => Piped { stream: Stream::Stderr, result },
        }
    }

    fn source(&mut self, stream: Stream) -> &mut Source {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Everything that is in them now, in pieces.
    pub(super) fn drain(&mut self, mut take: impl FnMut(Stream, &[u8])) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let Source { pipe, tail, .. } = self.source(stream);
            let Some(pipe) = pipe else { continue };
            let drained = pipe.drain(|bytes| {
                tail.push(bytes);
                take(stream, bytes);
            });
            if let Err(error) = drained {
                tracing::warn!(?stream, %error, "a pipe could not be read to its end");
            }
        }
    }

    pub(super) const fn stdout_tail(&self) -> &Tail {
        &self.stdout.tail
    }

    pub(super) const fn stderr_tail(&self) -> &Tail {
        &self.stderr.tail
    }
}

/// A blob that is being written; what comes after it waits.
pub(super) struct PendingBlob {
    task: JoinHandle<io::Result<BlobRef>>,
    becomes: Becomes,
    at: WallTime,
    size: u64,
}

/// What a blob is for.
pub(super) enum Becomes {
    Output { run: Option<RunId>, kind: ChunkKind },
    Checkpoint(RunKey),
}

impl PendingBlob {
    pub(super) async fn written(&mut self) -> BlobWritten {
        (&mut self.task).await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

pub(super) type BlobWritten = io::Result<BlobRef>;

impl Driver {
    pub(super) fn on_piped(&mut self, piped: Piped, now: Now) {
        let Life::Supervising(supervised) = &mut self.life else { return };
        let run = supervised.work.command_run();
        let source = supervised.pipes.source(piped.stream);
        match piped.result {
            Ok(count) if count > 0 => {
                let bytes = &source.buffer[..count];
                source.tail.push(bytes);
                let notice = written(run, piped.stream, bytes, now);
                self.journal.append(now.wall, notice);
            }
            Ok(_) => source.pipe = None,
            Err(error) => {
                tracing::warn!(stream = ?piped.stream, %error, "a pipe could not be read");
                source.pipe = None;
            }
        }
    }

    /// Everything that the process has written to its pipes becomes records.
    pub(super) fn drain_pipes(&mut self, now: Now) {
        let Life::Supervising(supervised) = &mut self.life else { return };
        let run = supervised.work.command_run();
        let journal = &mut self.journal;
        supervised.pipes.drain(|stream, bytes| {
            journal.append(now.wall, written(run, stream, bytes, now));
        });
    }

    pub(super) fn on_kernel(&mut self, happened: Happened, now: Now) {
        let mut next = Some(happened);
        for _ in 0..MESSAGES_A_TURN {
            let Life::Supervising(supervised) = &mut self.life else { return };
            let Some(kernel) = supervised.work.kernel_mut() else { return };
            let Some(happened) = next.take().or_else(|| kernel.said()) else { return };
            if let Some(effect) = kernel.take(happened, now) {
                self.on_effect(effect, now);
                self.deliver_interrupt(now);
            }
            // Contents keep their order behind a blob, and a kernel that can wait does when there is no room.
            if self.is_kernel_paused() {
                return;
            }
        }
    }

    fn is_kernel_paused(&self) -> bool {
        let Life::Supervising(supervised) = &self.life else { return true };
        let can_wait = supervised.work.kernel().is_some_and(crate::kernel::Kernel::can_wait);
        supervised.blob.is_some() || (can_wait && supervised.is_alive() && self.journal.is_full())
    }

    /// Stops the reading of a kernel that waits, or of a runner, or goes on with it.
    pub(super) fn hold_or_release(&mut self, now: Now) {
        let is_kernel_paused = self.is_kernel_paused();
        let is_full = self.journal.is_full();
        let Life::Supervising(supervised) = &mut self.life else { return };
        if !supervised.is_alive() {
            return;
        }
        let is_writing = supervised.blob.is_some();
        match &mut supervised.work {
            Work::Kernel(kernel) => kernel.hold(is_kernel_paused || kernel.is_ahead()),
            Work::Runner(runner) => runner.hold(is_full || is_writing, now.tick),
            Work::Command(_) | Work::Mute => {}
        }
    }

    pub(super) fn on_effect(&mut self, effect: Effect, now: Now) {
        match effect {
            Effect::Ready { kernel_info } => self.set_ready(kernel_info, now),
            Effect::Output { run, kind, pieces } => {
                for piece in pieces {
                    self.output(run, kind.clone(), piece, now);
                }
            }
            Effect::Asks { content, notice, run } => {
                let chunk = Chunk::inline(ChunkKind::InputRequest, now.wall, cut_question(&content));
                self.journal.append(now.wall, Notice::Output { run: Some(run.0), chunks: vec![chunk] });
                if let StateNotice::InputRequested { run, prompt, password } = &notice {
                    let (run, prompt, password) = (*run, prompt.clone(), *password);
                    self.asked =
                        Some(OpenQuestion { src: self.journal.last().next(), run, prompt, password });
                }
                self.record(notice, now);
            }
            Effect::State(notice) => {
                // What a run has lost is said before its end: nobody reads on after that.
                if let StateNotice::RunFinished { .. } = notice {
                    self.close_gap(now);
                }
                self.record(notice, now);
            }
            Effect::Failed(failed) => self.on_launch_failure(failed, now),
            Effect::Echo => {
                if let Life::Supervising(supervised) = &mut self.life
                    && supervised.pulse.echo(now.tick)
                {
                    self.record(StateNotice::Responsive, now);
                }
            }
        }
    }

    fn output(&mut self, run: Option<RunKey>, kind: ChunkKind, content: Bytes, now: Now) {
        let Life::Supervising(supervised) = &mut self.life else { return };
        if supervised.lost.is_none() && supervised.is_alive() && self.journal.is_full() {
            // A kernel that can wait is not read then, so this one would drop what we do not read, and would drop
            // its status with it. We read on, and say where output is missing.
            supervised.lost = Some((self.journal.last(), run));
        }
        if supervised.lost.is_some() {
            if self.journal.is_full() {
                return;
            }
            self.close_gap(now);
        }
        if content.len() <= CHUNK_BYTES_MAX {
            let chunk = Chunk::inline(kind, now.wall, Arc::<[u8]>::from(&content[..]));
            self.journal
                .append(now.wall, Notice::Output { run: run.map(|(run, _)| run), chunks: vec![chunk] });
        } else {
            self.begin_blob(Becomes::Output { run: run.map(|(run, _)| run), kind }, content, JSON, now);
        }
    }

    /// Says that output is missing up to here, if it is.
    pub(super) fn close_gap(&mut self, now: Now) {
        let Life::Supervising(supervised) = &mut self.life else { return };
        if let Some((since, run)) = supervised.lost.take() {
            let reason =
                "no daemon took this kernel's output until memory and spool were full, and this kernel \
                          cannot be made to wait"
                    .to_owned();
            // The chunk is for whoever reads the run's output.
            self.gap_chunk(run.map(|(run, _)| run), since, &reason, now);
            self.record(StateNotice::Gap { since, reason }, now);
        }
    }

    pub(super) fn begin_blob(&mut self, becomes: Becomes, content: Bytes, mime: &'static str, now: Now) {
        let size = content.len() as u64;
        if size > BLOB_BYTES_MAX {
            let reason = format!("one message of {size} bytes is over the limit of {BLOB_BYTES_MAX}");
            return self.blob_lost(becomes, &reason, now);
        }
        let directory = PathBuf::from(&self.launch.blobs);
        let task = tokio::task::spawn_blocking(move || blob::write(&directory, &content, mime));
        let Life::Supervising(supervised) = &mut self.life else { return };
        supervised.blob = Some(PendingBlob { task, becomes, at: now.wall, size });
    }

    pub(super) fn on_blob(&mut self, written: BlobWritten, now: Now) {
        let Life::Supervising(supervised) = &mut self.life else { return };
        let Some(PendingBlob { becomes, at, size, .. }) = supervised.blob.take() else { return };
        match (written, becomes) {
            (Ok(blob), becomes) => {
                self.journal.count_blob(blob.size);
                match becomes {
                    Becomes::Output { run, kind } => {
                        let chunks = vec![Chunk { kind, at, payload: Payload::Blob(blob) }];
                        self.journal.append(now.wall, Notice::Output { run, chunks });
                    }
                    Becomes::Checkpoint((run, attempt)) => {
                        self.record(StateNotice::Checkpointed { run, attempt, blob }, now);
                    }
                }
            }
            (Err(error), becomes) => {
                let reason = format!("{size} bytes could not be written to {}: {error}", self.launch.blobs);
                self.blob_lost(becomes, &reason, now);
            }
        }
    }

    /// Output is missing then. A checkpoint is not: the next attempt begins at the one before.
    fn blob_lost(&mut self, becomes: Becomes, reason: &str, now: Now) {
        tracing::warn!(reason, "a large content is lost");
        match becomes {
            Becomes::Output { run, .. } => self.gap_chunk(run, self.journal.last(), reason, now),
            Becomes::Checkpoint(_) => {}
        }
    }

    /// One output is missing, and its run is known.
    pub(super) fn gap_chunk(&mut self, run: Option<RunId>, since: Src, reason: &str, now: Now) {
        let json = serde_json::json!({ "since": since, "reason": reason }).to_string();
        let chunks = vec![Chunk::inline(ChunkKind::Gap, now.wall, json.into_bytes())];
        self.journal.append(now.wall, Notice::Output { run, chunks });
    }
}

fn written(run: Option<RunKey>, stream: Stream, bytes: &[u8], now: Now) -> Notice {
    let kind = match stream {
        Stream::Stdout => ChunkKind::Stdout,
        Stream::Stderr => ChunkKind::Stderr,
    };
    let chunk = Chunk::inline(kind, now.wall, bytes.to_vec());
    Notice::Output { run: run.map(|(run, _)| run), chunks: vec![chunk] }
}

/// A question is for people: one of more than a chunk is shown without its text.
fn cut_question(content: &Bytes) -> Vec<u8> {
    if content.len() <= CHUNK_BYTES_MAX {
        content.to_vec()
    } else {
        br#"{"prompt": "(a question that is too long to be shown)", "password": false}"#.to_vec()
    }
}

const _: () = assert!(READ_BYTES <= CHUNK_BYTES_MAX, "a read is a chunk");
