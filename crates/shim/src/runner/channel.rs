//! The bytes of a runner's channel, both ways. What came waits in the decoder, what goes waits here; both are bounded.

use std::io;

use bytes::{Buf, BytesMut};
use outlive_core::limits::RUNNER_OUTBOX_BYTES_MAX;
use outlive_process::{Channel as Pipes, Pipe, PipeWriter};
use outlive_protocol::runner::{Decoder, Framed, FromRunner, RunnerCodecError, ToRunner, Violation, encode};

/// How much is read at once, in bytes.
const READ_BYTES: usize = 65_536;

/// What came of a channel.
#[derive(Debug)]
pub(crate) enum Happened {
    /// Bytes have come, or its end (0), or an error.
    Heard(io::Result<usize>),
    /// Some of what waits to be told was written, or cannot be.
    Told(io::Result<()>),
    /// What was read before can be looked at now.
    Waiting,
}

/// Why a frame was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SayError {
    /// It is too large. The channel lives.
    #[error(transparent)]
    TooLarge(#[from] RunnerCodecError),
    /// The runner does not read what it is told.
    #[error("{waiting} bytes wait for the runner to read them; at most {RUNNER_OUTBOX_BYTES_MAX} can")]
    Full { waiting: usize },
}

/// A runner's descriptors.
pub(crate) struct Channel {
    /// `None` after its end.
    from: Option<Pipe>,
    /// One that is not read any more.
    unread: Option<Pipe>,
    /// `None` when nobody reads it any more.
    to: Option<PipeWriter>,
    buffer: Box<[u8]>,
    decoder: Decoder<FromRunner>,
    /// Whether the decoder may have a whole frame.
    is_behind: bool,
    outbox: BytesMut,
}

impl Channel {
    pub(crate) fn new(pipes: Pipes) -> Self {
        Self {
            from: Some(pipes.from),
            unread: None,
            to: Some(pipes.to),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            decoder: Decoder::default(),
            is_behind: false,
            outbox: BytesMut::new(),
        }
    }

    /// Waits for the next thing. Nothing is read unless `is_reading`. Cancel-safe: read(2) and write(2) and the return
    /// are one turn.
    pub(crate) async fn next(&mut self, is_reading: bool) -> Happened {
        if is_reading && self.is_behind {
            return Happened::Waiting;
        }
        let Self { from, to, buffer, outbox, .. } = self;
        let hear = async {
            match from {
                Some(pipe) if is_reading => pipe.read(buffer).await,
                Some(_) | None => std::future::pending().await,
            }
        };
        let tell = async {
            match to {
                Some(pipe) if !outbox.is_empty() => pipe.write(outbox).await,
                Some(_) | None => std::future::pending().await,
            }
        };
        tokio::select! {
            read = hear => Happened::Heard(read),
            written = tell => Happened::Told(written.map(|count| outbox.advance(count))),
        }
    }

    /// Bytes were read into the buffer.
    pub(crate) fn heard(&mut self, count: usize) {
        self.decoder.push(&self.buffer[..count]);
        self.is_behind = true;
    }

    /// Takes in everything that is in the pipe now.
    pub(crate) fn drain(&mut self) {
        let Self { from: Some(from), decoder, .. } = self else { return };
        if let Err(error) = from.drain(|bytes| decoder.push(bytes)) {
            tracing::warn!(%error, "the channel could not be read to its end");
        }
        self.is_behind = true;
    }

    /// The next frame that has come.
    ///
    /// # Errors
    /// [`Violation`]; then there are no more.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Framed<FromRunner>>, Violation> {
        let found = self.decoder.next_frame();
        self.is_behind = matches!(found, Ok(Some(_)));
        found
    }

    pub(crate) const fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Tells it something.
    ///
    /// # Errors
    /// [`SayError`]; then nothing of it is sent.
    pub(crate) fn say(&mut self, framed: &Framed<ToRunner>) -> Result<(), SayError> {
        let frame = encode(framed)?;
        if self.outbox.len() + frame.len() > RUNNER_OUTBOX_BYTES_MAX {
            return Err(SayError::Full { waiting: self.outbox.len() });
        }
        self.outbox.extend_from_slice(&frame);
        Ok(())
    }

    /// Whether it has not read all that it was told.
    pub(crate) fn is_slow(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// It has come to its end.
    pub(crate) fn ended(&mut self) {
        self.from = None;
    }

    /// What it says is not read any more. The pipe stays open: the runner shall wait, and not die of a closed one.
    pub(crate) fn stop_reading(&mut self) {
        self.unread = self.from.take();
    }

    /// Nobody reads what is told.
    pub(crate) fn stop_telling(&mut self) {
        self.to = None;
        self.outbox = BytesMut::new();
    }
}
