//! A notebook that is edited live: the frames of the y-sync and awareness protocols, each a binary message, as
//! y-websocket's providers speak them. What is ours goes in text frames, which those providers ignore.

use outlive_core::limits::{PEER_FRAME_BYTES_MAX, WEBSOCKET_READ_BUFFER_BYTES};
use outlive_node::session::peers::{DocumentPeer, Outgoing, PeerInput, PeerOutput};
use outlive_protocol::http::StreamEvent;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::socket::{self, Ear, Ending, Message, Mouth, Patience, Socket, text};
use crate::problem;

/// What a peer may send.
pub(crate) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(WEBSOCKET_READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(PEER_FRAME_BYTES_MAX))
        .max_frame_size(Some(PEER_FRAME_BYTES_MAX))
}

/// Carries frames both ways until one side ends.
pub(crate) async fn converse(mut socket: Socket, peer: DocumentPeer, patience: Patience) {
    let DocumentPeer { input, mut output } = peer;
    let Socket { ear, mouth, .. } = &mut socket;
    let ending = socket::converse(tell(mouth, &mut output, &patience), listen(ear, &input), &patience).await;
    // The session is left before the last word is said: nobody waits for that.
    drop((input, output));
    socket.end(ending).await;
}

async fn tell(mouth: &mut Mouth, output: &mut PeerOutput, patience: &Patience) -> Ending {
    let mut pings = patience.pings();
    loop {
        let message = tokio::select! {
            biased;
            ping = patience.ping(&mut pings) => ping,
            next = output.next() => match next {
                Some(Outgoing::Frame(frame)) => Message::Binary(frame),
                Some(Outgoing::Gap { skipped }) => text(&StreamEvent::Gap { skipped }, None),
                Some(Outgoing::Cut(mut problem)) => {
                    patience.farewell.direct(&mut problem);
                    return Ending::Cut(problem);
                }
                None => return Ending::Cut(problem::bug("The session let this peer go without a reason.")),
            },
        };
        if let Err(ending) = mouth.say(message).await {
            return match ending {
                Ending::Cut(_) => Ending::Cut(problem::slow_peer(patience.stall.as_millis())),
                ending => ending,
            };
        }
    }
}

async fn listen(ear: &mut Ear, input: &PeerInput) -> Ending {
    loop {
        let frame = match ear.hear().await {
            Ok(Message::Binary(frame)) => frame,
            Ok(_) => return Ending::Cut(problem::text_frame()),
            Err(ending) => return ending,
        };
        if input.send(frame).await.is_err() {
            // It was let go. Why is the last that it is told, behind all that waits for it.
            return std::future::pending().await;
        }
    }
}
