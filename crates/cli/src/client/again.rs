//! Calls that may be made again: through a daemon's death, and while a session changes its node.

use std::time::Duration;

use tokio::time::Instant;

use super::{CallError, Client};
use crate::daemon::Daemon;

/// The wait between two tries: nothing tells when a session has its new node.
const PACE: Duration = Duration::from_millis(250);

/// Whether a call may have been carried out although its answer was lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Twice {
    /// Making it twice is as good as once: it only looks, or it carries an id.
    Harmless,
    /// It is made again only when it was certainly not carried out.
    Never,
}

impl Daemon {
    /// Makes a call until it is answered, or patience ends. `client` is who answered.
    pub async fn persist<T, F>(
        &self,
        client: &mut Client,
        twice: Twice,
        talk: &mut (dyn FnMut(&str) + Send),
        call: impl Fn(Client) -> F + Send,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, CallError>> + Send,
        T: Send,
    {
        let deadline = Instant::now() + self.patience();
        loop {
            let error = match call(client.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let was_not_done = error.is_passing() || matches!(error, CallError::NotRunning { .. });
            let is_unknown = error.is_daemon_gone() || error.is_owner_lost();
            let may_again = was_not_done || twice == Twice::Harmless && is_unknown;
            if !may_again || Instant::now() + PACE >= deadline {
                return Err(error);
            }
            if matches!(error, CallError::Refused(_)) {
                pause().await;
            }
            // Who refuses is there, and may be cut off for long: others are asked in turn.
            if error.is_passing()
                && let Some(next) = self.behind(client.way())
            {
                *client = next;
                continue;
            }
            match self.connect_or_start(talk).await {
                Ok(found) => *client = found,
                // What the call itself met says more than that nobody could be found afterwards.
                Err(_) if Instant::now() + PACE < deadline && self.has_others() => pause().await,
                Err(_) => return Err(error),
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "nothing else tells when to try again")]
async fn pause() {
    tokio::time::sleep(PACE).await;
}
