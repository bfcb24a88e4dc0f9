//! Those who edit a notebook live: what each sends, and a queue of what each is sent, bounded by bytes.

use bytes::Bytes;
use outlive_protocol::http::Problem;
use tokio::sync::mpsc;

/// A place among those who edit a notebook live. Dropping it leaves.
#[derive(Debug)]
pub struct DocumentPeer {
    /// To the session: frames of the y-sync and awareness protocols.
    pub input: PeerInput,
    /// From the session.
    pub output: PeerOutput,
}

/// The way to the session.
#[derive(Debug)]
pub struct PeerInput {
    frames: mpsc::Sender<Bytes>,
}

impl PeerInput {
    /// Sends a frame; waits while the session is busy.
    ///
    /// # Errors
    /// When the session has let this peer go; [`PeerOutput::next`] says why.
    pub async fn send(&self, frame: Bytes) -> Result<(), Problem> {
        let _ = self.frames.send(frame).await;
        Ok(())
    }
}

/// The way from the session.
#[derive(Debug)]
pub struct PeerOutput {
    frames: mpsc::Receiver<Outgoing>,
}

impl PeerOutput {
    /// What comes next; `None` after [`Outgoing::Cut`]. Cancel-safe.
    pub async fn next(&mut self) -> Option<Outgoing> {
        self.frames.recv().await
    }
}

/// What a peer is sent.
#[derive(Debug)]
pub enum Outgoing {
    /// A frame of the y-sync and awareness protocols.
    Frame(Bytes),
    /// The peer fell behind and so many bytes were not sent to it: all that the notebook holds follows.
    Gap {
        /// In bytes.
        skipped: u64,
    },
    /// The last: the peer is let go for this reason.
    Cut(Problem),
}
