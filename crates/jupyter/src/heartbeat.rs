//! The kernel's echo. Whether silence means anything is decided in `outlive_core::runtime::suspicion`.
//!
//! A REQ socket refuses to ask again once an answer was not waited for; a DEALER with an empty delimiter frame asks
//! as often as it likes, and the kernel's REP (or ROUTER) does not see the difference.

use std::time::Duration;

use bytes::Bytes;
use zeromq::{DealerSocket, SocketRecv as _, SocketSend as _, ZmqError, ZmqMessage};

/// No echo.
#[derive(Debug, thiserror::Error)]
pub enum BeatError {
    /// Not within the time: the kernel is stopped, or the machine is overloaded.
    #[error("no echo within {0:?}")]
    Missed(Duration),
    /// The socket is gone: the kernel has died or is dying.
    #[error("the heartbeat socket is disconnected")]
    Disconnected(#[source] ZmqError),
}

/// The heartbeat socket of one process.
pub struct Heartbeat {
    socket: DealerSocket,
    beats: u64,
}

impl Heartbeat {
    pub(crate) fn new(socket: DealerSocket) -> Self {
        Self { socket, beats: 0 }
    }

    /// Asks once and waits for the echo of this very question: a late answer to an earlier one does not count.
    ///
    /// Dropping the future loses nothing; the next beat is independent.
    ///
    /// # Errors
    /// When no echo comes in time, or the socket is disconnected.
    pub async fn beat(&mut self, timeout: Duration) -> Result<(), BeatError> {
        self.beats += 1;
        let payload = Bytes::from(format!("outlive-{}", self.beats));
        tokio::time::timeout(timeout, self.echo(payload))
            .await
            .map_err(|_| BeatError::Missed(timeout))?
            .map_err(BeatError::Disconnected)
    }

    async fn echo(&mut self, payload: Bytes) -> Result<(), ZmqError> {
        let mut question = ZmqMessage::from(payload.clone());
        question.push_front(Bytes::new());
        self.socket.send(question).await?;
        loop {
            let answer = self.socket.recv().await?;
            if answer.iter().next_back() == Some(&payload) {
                return Ok(());
            }
        }
    }
}
