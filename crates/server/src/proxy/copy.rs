//! A request as it came, for the case that it has to be sent to another node.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::header::{
    AUTHORIZATION, CONTENT_LENGTH, EXPECT, HOST, ORIGIN, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
};
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, Request};
use bytes::{Bytes, BytesMut};
use http_body_util::Full;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use outlive_core::limits::REQUEST_BYTES_MAX;
use outlive_protocol::http::{OpenSession, Problem};

use super::owner::Owner;
use super::{HOP_HEADER, OF_ONE_CONNECTION};
use crate::websocket::handshake::Handshake;

/// What was between the client and us, and is not the owner's: how the client came in, and how its connection is used.
const OURS: [HeaderName; 9] = [
    AUTHORIZATION,
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    ORIGIN,
    SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION,
];

/// A request that a handler takes apart meanwhile.
pub(crate) struct Copy {
    head: Parts,
    read: Read,
}

/// What the handler has read of the body. Pieces are shared with it, not copied.
type Read = Arc<Mutex<Pieces>>;

#[derive(Default)]
struct Pieces {
    bytes: usize,
    pieces: Vec<Bytes>,
}

impl Copy {
    /// Takes a copy of a request.
    pub(crate) fn of(request: Request<Body>) -> (Request<Body>, Self) {
        let (head, body) = request.into_parts();
        let read = Read::default();
        let body = Body::new(Watched { body, read: Arc::clone(&read) });
        (Request::from_parts(head.clone(), body), Self { head, read })
    }

    pub(crate) fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// Whether a node sends it on behalf of its client.
    pub(super) fn has_hopped(&self) -> bool {
        self.head.headers.contains_key(HOP_HEADER)
    }

    /// The WebSocket that it asks for, if it does.
    ///
    /// # Errors
    /// As [`Handshake::asked`].
    pub(super) fn handshake(&mut self) -> Result<Option<Handshake>, Problem> {
        Handshake::asked(&self.head.headers, &mut self.head.extensions)
    }

    /// The request as it is sent to the owner, without what [`super::wire`] adds.
    pub(super) fn toward(self, owner: &Owner, away: &Problem) -> Request<Full<Bytes>> {
        let body = self.body();
        let body = session_of(self.path(), away, &body).unwrap_or(body);
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = owner.uri(self.path_and_query());
        *request.headers_mut() = self.headers();
        request
    }

    /// The headers that are the owner's business.
    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = self.head.headers.clone();
        for name in OURS.iter().chain(&OF_ONE_CONNECTION) {
            headers.remove(name);
        }
        headers
    }

    /// What is asked for, without the client's token.
    pub(super) fn path_and_query(&self) -> PathAndQuery {
        let (path, query) = (self.head.uri.path(), self.head.uri.query().unwrap_or(""));
        let kept: Vec<_> =
            query.split('&').filter(|pair| !pair.starts_with("token=") && !pair.is_empty()).collect();
        let text = if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) };
        text.parse().expect("parts of a valid path and query")
    }

    fn body(&self) -> Bytes {
        let mut read = self.read.lock().expect("nothing panics while it holds a body");
        match &mut read.pieces[..] {
            [] => Bytes::new(),
            [whole] => whole.clone(),
            pieces => pieces
                .iter()
                .fold(BytesMut::new(), |mut body, piece| {
                    body.extend_from_slice(piece);
                    body
                })
                .freeze(),
        }
    }
}

/// A file that another node has open may have another path there: it is asked for by its session, where that is said.
fn session_of(path: &str, away: &Problem, body: &[u8]) -> Option<Bytes> {
    if path != "/v1/sessions/open" {
        return None;
    }
    let session = away.facts.get("session")?.parse().ok()?;
    let asked: OpenSession = serde_json::from_slice(body).ok()?;
    let there = OpenSession { path: None, id: Some(session), ..asked };
    serde_json::to_vec(&there).ok().map(Bytes::from)
}

/// A body that keeps what is read of it.
struct Watched {
    body: Body,
    read: Read,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            let mut read = self.read.lock().expect("nothing panics while it holds a body");
            read.bytes += data.len();
            // One that is too large is refused, and sent nowhere.
            if read.bytes <= REQUEST_BYTES_MAX {
                read.pieces.push(data.clone());
            } else {
                read.pieces.clear();
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
