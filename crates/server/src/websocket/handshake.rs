//! From an HTTP request to a WebSocket (RFC 6455 §4.2).

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use outlive_protocol::http::Problem;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::socket::{Patience, Socket};
use crate::problem;

/// The subprotocol that we answer with when a client offers it. A browser that offers any wants one of them back.
pub(crate) const PROTOCOL: &str = "outlive";
/// A browser cannot set headers on a WebSocket: it offers its token as a second subprotocol, behind this.
pub(crate) const TOKEN_PROTOCOL: &str = "outlive.token.";

/// What a connection goes on with once its last answer is sent.
type Conversation = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where a handler leaves the conversation that its connection goes on with.
#[derive(Clone, Default)]
pub(crate) struct Sequel(Arc<Mutex<Option<Conversation>>>);

impl Sequel {
    fn leave(&self, conversation: Conversation) {
        *self.0.lock().expect("nothing panics while it holds a sequel") = Some(conversation);
    }

    /// The conversation, if a handler has left one.
    pub(crate) fn take(&self) -> Option<Conversation> {
        self.0.lock().expect("nothing panics while it holds a sequel").take()
    }
}

/// A request for a WebSocket that can be granted.
pub(crate) struct Handshake {
    upgrade: OnUpgrade,
    sequel: Sequel,
    accept: HeaderValue,
    speaks_ours: bool,
}

impl Handshake {
    /// What a request asks for: `None` when it asks for no WebSocket.
    ///
    /// # Errors
    /// When it asks for one in a way that nobody can grant.
    pub(crate) fn asked(headers: &HeaderMap, extensions: &mut Extensions) -> Result<Option<Self>, Problem> {
        if !names(headers, &UPGRADE, "websocket") {
            return Ok(None);
        }
        if !names(headers, &SEC_WEBSOCKET_VERSION, "13") {
            return Err(problem::websocket_version());
        }
        let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| key.len() == 24);
        let key = key.ok_or_else(|| {
            problem::bad_handshake("The header Sec-WebSocket-Key is missing or no 16 bytes in base64.")
        })?;
        let connected = names(headers, &CONNECTION, "upgrade").then_some(());
        let (Some(upgrade), Some(sequel), Some(())) =
            (extensions.remove::<OnUpgrade>(), extensions.remove::<Sequel>(), connected)
        else {
            return Err(problem::bad_handshake(
                "The request asks for an upgrade, but not as HTTP/1.1 does: a GET with the header `Connection: Upgrade`.",
            ));
        };
        let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).expect("base64");
        let speaks_ours = names(headers, &SEC_WEBSOCKET_PROTOCOL, PROTOCOL);
        Ok(Some(Self { upgrade, sequel, accept, speaks_ours }))
    }

    /// Grants it; `talk` begins when the answer is sent.
    pub(crate) fn grant<F>(
        self,
        config: WebSocketConfig,
        patience: Patience,
        talk: impl FnOnce(Socket) -> F + Send + 'static,
    ) -> Response<Body>
    where
        F: Future<Output = ()> + Send,
    {
        let upgrade = self.upgrade;
        self.sequel.leave(Box::pin(async move {
            match upgrade.await {
                Ok(upgraded) => talk(Socket::new(upgraded, Role::Server, config, patience).await).await,
                Err(error) => tracing::debug!(%error, "a client left before its WebSocket was there"),
            }
        }));
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept);
        if self.speaks_ours {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
        }
        response
    }
}

/// Whether a header that is a list of names has this one.
fn names(headers: &HeaderMap, header: &HeaderName, name: &str) -> bool {
    listed(headers, header).any(|one| one.eq_ignore_ascii_case(name))
}

fn listed<'a>(headers: &'a HeaderMap, header: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(header).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// The token among the subprotocols that a client offers.
pub(crate) fn offered_token(headers: &HeaderMap) -> Option<&[u8]> {
    listed(headers, &SEC_WEBSOCKET_PROTOCOL)
        .find_map(|one| one.strip_prefix(TOKEN_PROTOCOL))
        .map(str::as_bytes)
}
