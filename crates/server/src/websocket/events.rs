//! The events of a session or run as text frames: the same as over Server-Sent Events.

use std::panic::AssertUnwindSafe;

use futures_util::{FutureExt as _, StreamExt as _, stream};
use outlive_core::limits::{SSE_BATCH_BYTES, WEBSOCKET_READ_BUFFER_BYTES};
use outlive_node::api::Events;
use outlive_protocol::http::StreamEvent;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::close_code;
use super::socket::{Ending, Mouth, Patience, Socket, text};
use crate::problem;
use crate::stream::{batch, is_last, unfinished};

/// What a client may say here: nothing but pings and its close. What it says all the same is read and ignored.
pub(crate) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(WEBSOCKET_READ_BUFFER_BYTES)
        .write_buffer_size(SSE_BATCH_BYTES)
        .max_message_size(Some(WEBSOCKET_READ_BUFFER_BYTES))
        .max_frame_size(Some(WEBSOCKET_READ_BUFFER_BYTES))
}

/// Tells `events` until their end.
pub(crate) async fn converse(mut socket: Socket, events: Events, patience: Patience) {
    let Socket { ear, mouth, .. } = &mut socket;
    let ending = tokio::select! {
        biased;
        problem = patience.farewell.said() => Ending::Cut(problem),
        ending = ear.ignore() => ending,
        // A panic in the node's stream does not end in silence either.
        ending = AssertUnwindSafe(tell(mouth, events, &patience)).catch_unwind() => {
            ending.unwrap_or_else(|_| Ending::Cut(problem::bug("The task that carried this stream panicked.")))
        }
    };
    socket.end(ending).await;
}

async fn tell(mouth: &mut Mouth, events: Events, patience: &Patience) -> Ending {
    let mut events = events.fuse();
    let mut pings = patience.pings();
    loop {
        let said = tokio::select! {
            biased;
            ping = patience.ping(&mut pings) => mouth.say(ping).await.map(|()| None),
            next = events.next() => match next {
                Some(first) => say(mouth, first, &mut events).await,
                None => Err(Ending::Cut(unfinished())),
            },
        };
        match said {
            Ok(None) => {}
            Ok(Some(ending)) | Err(ending) => return ending,
        }
    }
}

/// Says an event and what is ready behind it.
async fn say(
    mouth: &mut Mouth,
    first: outlive_node::api::Delivered,
    events: &mut stream::Fuse<Events>,
) -> Result<Option<Ending>, Ending> {
    let mut messages = Vec::new();
    let mut last = None;
    batch(first, events, |delivered| {
        match &delivered.event {
            StreamEvent::Problem { problem } => {
                last = Some(Ending::Said(close_code(problem), "problem".into()))
            }
            StreamEvent::End { .. } => last = Some(Ending::Said(1000, "end".into())),
            _ => {}
        }
        let message = text(&delivered.event, delivered.cursor.as_deref());
        let bytes = message.len();
        messages.push(message);
        (bytes, is_last(&delivered.event))
    });
    for message in messages {
        mouth.put(message).await?;
    }
    mouth.flush().await?;
    Ok(last)
}
