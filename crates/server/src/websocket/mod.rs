//! WebSockets: a notebook that is edited live, and event streams for clients that cannot read Server-Sent Events.
//!
//! 1. `handshake` answers the request, or refuses it as any other one, with a problem and before anything is upgraded;
//! 2. `socket` is the conversation's two halves: an ear that never allocates what it has not checked, and a mouth that
//!    notices when nothing is taken;
//! 3. `document` and `events` are the two conversations.
//!
//! A conversation runs in its connection's task, so that it is counted, ended and joined as any other answer. It ends
//! with a close frame: its reason is the code of a problem, and the problem itself stands in the text frame before it.
//!
//! | close code | why |
//! |---|---|
//! | 1000 | the stream is complete |
//! | 1001 | `shutting-down` |
//! | 1002 | `bad-frame`: what came is no WebSocket frame |
//! | 1003 | `text-frame`: text where only binary frames belong |
//! | 1009 | `message-too-large` |
//! | 1011 | `bug` |
//! | 4008 | `slow-peer`, `slow-reader`: it did not take what it was sent |
//! | 4400 | `forged-update`: what it sent is no edit of this notebook |
//! | 4000 + status | any other problem, for instance 4404 `no-such-session`, 4409 `session-ended` |

pub(crate) mod document;
pub(crate) mod events;
pub(crate) mod handshake;
pub(crate) mod socket;

use outlive_protocol::http::Problem;

/// Applications' own close codes begin here (RFC 6455 §7.4.2).
const PRIVATE_CODES: u16 = 4000;

/// The close code that belongs to a problem.
fn close_code(problem: &Problem) -> u16 {
    match problem.code.as_str() {
        "shutting-down" => 1001,
        "bad-frame" => 1002,
        "text-frame" => 1003,
        "message-too-large" => 1009,
        "bug" => 1011,
        "slow-peer" | "slow-reader" => 4008,
        "forged-update" => 4400,
        _ => PRIVATE_CODES + problem.status.min(599),
    }
}
