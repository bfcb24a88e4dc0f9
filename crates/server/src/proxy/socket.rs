//! A WebSocket of another node, carried to a client: message by message, each side with its own pings and its own end.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use hyper::upgrade::Upgraded;
use outlive_core::limits::{
    OWNER_EVENT_BYTES_MAX, OWNER_SILENCE_MS, PEER_FRAME_BYTES_MAX, SSE_BATCH_BYTES,
    WEBSOCKET_READ_BUFFER_BYTES,
};
use outlive_node::api::Api;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::owner::Owner;
use super::refusal::Trouble;
use crate::websocket::socket::{Ear, Ending, Message, Mouth, Patience, Socket, Unheard, converse};

/// What a client may send: what it may send to the owner, which knows better.
pub(super) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(WEBSOCKET_READ_BUFFER_BYTES)
        .write_buffer_size(SSE_BATCH_BYTES)
        .max_message_size(Some(PEER_FRAME_BYTES_MAX))
        .max_frame_size(Some(PEER_FRAME_BYTES_MAX))
}

/// Carries messages both ways until one side ends.
pub(super) async fn relay(
    mut client: Socket,
    upgraded: Upgraded,
    owner: Owner,
    api: Arc<dyn Api>,
    patience: Patience,
) {
    let of_owner =
        config().max_message_size(Some(OWNER_EVENT_BYTES_MAX)).max_frame_size(Some(OWNER_EVENT_BYTES_MAX));
    let with_owner = Patience { silence: Duration::from_millis(OWNER_SILENCE_MS), ..patience.clone() };
    let mut there = Socket::new(upgraded, Role::Client, of_owner, with_owner).await;
    let ending = {
        let (ours, theirs) = (&mut client, &mut there);
        let telling = tell(&mut theirs.ear, &mut ours.mouth, &owner, &patience);
        let listening = listen(&mut ours.ear, &mut theirs.mouth, &owner);
        tokio::select! {
            biased;
            ending = converse(telling, listening, &patience) => ending,
            () = api.until_lost(owner.node) => Ending::Cut(Trouble::Lost.of_stream(&owner)),
        }
    };
    tokio::join!(client.end(ending), there.end(Ending::Said(1000, "".into())));
}

/// From the owner to the client.
async fn tell(ear: &mut Ear, mouth: &mut Mouth, owner: &Owner, patience: &Patience) -> Ending {
    let mut pings = patience.pings();
    loop {
        let heard = tokio::select! {
            biased;
            ping = patience.ping(&mut pings) => Ok(ping),
            heard = ear.frame() => heard,
        };
        let mut next = Some(heard);
        // What is ready behind it goes with it.
        while let Some(heard) = next {
            let message = match heard {
                Ok(Message::Close(Some(frame))) => {
                    return Ending::Said(frame.code.into(), frame.reason.as_str().to_owned().into());
                }
                Ok(message @ (Message::Text(_) | Message::Binary(_) | Message::Ping(_))) => message,
                Ok(Message::Pong(_) | Message::Frame(_)) => break,
                Ok(Message::Close(None)) | Err(Unheard::Gone) => {
                    return Ending::Cut(Trouble::Lost.of_stream(owner));
                }
                Err(Unheard::Silent) => return Ending::Cut(Trouble::Silent.of_stream(owner)),
                Err(Unheard::Refused(problem)) => {
                    return Ending::Cut(Trouble::Garbled(problem.detail).of_stream(owner));
                }
            };
            if let Err(ending) = mouth.put(message).await {
                return ending;
            }
            next = ear.frame().now_or_never();
        }
        if let Err(ending) = mouth.flush().await {
            return ending;
        }
    }
}

/// From the client to the owner.
async fn listen(ear: &mut Ear, mouth: &mut Mouth, owner: &Owner) -> Ending {
    loop {
        let message = match ear.hear().await {
            Ok(message) => message,
            Err(ending) => return ending,
        };
        match mouth.say(message).await {
            Ok(()) => {}
            // It has said why, and that is on its way to the client.
            Err(Ending::Left) => return std::future::pending().await,
            Err(_) => return Ending::Cut(Trouble::Silent.of_stream(owner)),
        }
    }
}
