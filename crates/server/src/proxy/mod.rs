//! Any node serves any client: what another node has is asked of that node, and its answer carried through.
//!
//! ```text
//!  client ──► this node: Api ──`elsewhere`──► proxy ──HTTP, cluster's token──► the owner
//!    ◄───────── answer, events, WebSocket ◄────┘◄─────────────────────────────────┘
//! ```
//! 1. `copy` keeps a request as it comes, while its handler takes it apart;
//! 2. the handler's refusal `elsewhere` names the owner, and nothing was done;
//! 3. `wire` sends the request there, once: one that has come from another node is never sent on, so there are no loops;
//! 4. the answer is carried as it is: plain ones here, streams in `events`, WebSockets in `socket`. Back-pressure passes
//!    through: what the client does not take is not read.
//!
//! `errands` does the same for surfaces that call the node themselves. Nobody waits for an owner that is gone: a stream is
//! over after a second of silence (its comments and pings come four times as often), any wait is over when the cluster
//! says that the owner is lost, and an owner that says nothing is asked whether it is there. `refusal` has what clients
//! are told then.
//!
//! Invariant: a stream ends with `end` or `problem`, also when its owner is killed in the middle of an event
//! (tests/api/proxy).

mod copy;
pub(crate) mod errands;
mod events;
mod owner;
mod refusal;
mod socket;
pub(crate) mod wire;

use std::io;

use axum::body::Body;
use axum::http::header::{
    CONNECTION, CONTENT_TYPE, PROXY_AUTHENTICATE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use futures_util::stream;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use outlive_protocol::http::Problem;

pub(crate) use copy::Copy;
use owner::Owner;
use refusal::Trouble;
use wire::Wire;

use crate::openai;
use crate::problem;
use crate::stream::{MEDIA_TYPE, Streams};
use crate::websocket::handshake::Handshake;
use crate::websocket::socket::Patience;

/// Names the node that a request comes from, when it comes from a node.
pub(crate) const HOP_HEADER: HeaderName = HeaderName::from_static("outlive-hop");

/// Headers that are between two ends of one connection (RFC 9110 §7.6.1), and nobody else's.
const OF_ONE_CONNECTION: [HeaderName; 8] = [
    CONNECTION,
    PROXY_AUTHENTICATE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// A refusal that says that another node has what was asked for; it goes with the answer from the handler to here.
#[derive(Clone)]
pub(crate) struct Away(pub Problem);

/// Asks other nodes on behalf of this one's clients.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub wire: Wire,
    pub streams: Streams,
    pub patience: Patience,
    pub api: std::sync::Arc<dyn outlive_node::api::Api>,
}

impl Proxy {
    /// The owner's answer to a request that was refused here as `elsewhere`.
    pub(crate) async fn forward(&self, copy: Copy, away: Away) -> Response<Body> {
        let path = copy.path().to_owned();
        self.carry(copy, away.0).await.unwrap_or_else(|refused| {
            tracing::info!(
                code = refused.code,
                owner = refused.facts.get("owner"),
                "another node was asked in vain"
            );
            problem::response(&path, &refused)
        })
    }

    async fn carry(&self, mut copy: Copy, away: Problem) -> Result<Response<Body>, Problem> {
        if copy.has_hopped() {
            return Err(refusal::session_moving());
        }
        let owner = Owner::of(&away)?;
        if let Some(handshake) = copy.handshake()? {
            return self.join(owner, &copy, handshake).await;
        }
        let speaks_openai = openai::speaks(copy.path());
        let request = copy.toward(&owner, &away);
        let method = request.method().clone();
        let sending = self.wire.send(&owner, request);
        let answer = wire::patient(&self.wire, &*self.api, &owner, sending).await.flatten();
        let answer = answer.map_err(|trouble| trouble.of_request(&owner, &method))?;
        let answer = checked(&owner, answer).await?;
        let is_stream = answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == MEDIA_TYPE);
        if !is_stream {
            return Ok(self.whole(owner, answer));
        }
        let (head, body) = answer.into_parts();
        let dialect = if speaks_openai { events::Dialect::OpenAi } else { events::Dialect::Native };
        let blocks = events::Blocks::new(body, owner, self.api.clone(), dialect);
        let mut carried = self.streams.carry(events::lines(blocks), dialect.cut());
        // What the answer says of itself beside its events, for instance which task it belongs to.
        for (name, value) in &head.headers {
            if !is_of_one_connection(name) && !carried.headers().contains_key(name) {
                carried.headers_mut().append(name, value.clone());
            }
        }
        Ok(carried)
    }

    /// A WebSocket: first with the owner, then with the client, so that the owner's refusal is an answer as every other.
    async fn join(&self, owner: Owner, copy: &Copy, handshake: Handshake) -> Result<Response<Body>, Problem> {
        let opening = self.wire.open_socket(&owner, copy);
        let opened = wire::patient(&self.wire, &*self.api, &owner, opening).await.flatten();
        let upgraded = match opened.map_err(|trouble| trouble.of_stream(&owner))? {
            wire::Opened::Socket(upgraded) => upgraded,
            wire::Opened::Refused(answer) => {
                let answer = checked(&owner, answer).await?;
                return Ok(self.whole(owner, answer));
            }
        };
        let (patience, api) = (self.patience.clone(), self.api.clone());
        Ok(handshake.grant(socket::config(), patience.clone(), move |client| {
            socket::relay(client, upgraded, owner, api, patience)
        }))
    }

    /// An answer that is no stream of events, byte for byte.
    fn whole(&self, owner: Owner, answer: Response<Incoming>) -> Response<Body> {
        let (mut head, body) = answer.into_parts();
        for name in &OF_ONE_CONNECTION {
            head.headers.remove(name);
        }
        if body.is_end_stream() {
            return Response::from_parts(head, Body::empty());
        }
        let state = (body, owner, self.clone());
        let pieces = stream::try_unfold(state, async |(mut body, owner, proxy)| {
            loop {
                let frame = wire::patient(&proxy.wire, &*proxy.api, &owner, body.frame()).await;
                let frame = frame.map_err(|trouble| io::Error::other(trouble.of_stream(&owner)))?;
                let Some(frame) = frame else { return Ok::<_, io::Error>(None) };
                if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
                    return Ok(Some((data, (body, owner, proxy))));
                }
            }
        });
        // A body that breaks off breaks the connection off, as it would have from the owner.
        Response::from_parts(head, Body::from_stream(pieces))
    }
}

fn is_of_one_connection(name: &HeaderName) -> bool {
    OF_ONE_CONNECTION.contains(name)
}

/// An answer that is a node's, and meant for the client. What the owner says to us is told as ours to solve.
async fn checked(owner: &Owner, answer: Response<Incoming>) -> Result<Response<Incoming>, Problem> {
    let speaks_ours = answer.headers().get(crate::API_VERSION_HEADER).is_some_and(is_our_version);
    if !speaks_ours {
        let why = "what answers there is no daemon of this version's API";
        return Err(Trouble::Garbled(why.to_owned()).of_stream(owner));
    }
    match answer.status() {
        StatusCode::UNAUTHORIZED => {
            Err(Trouble::Refused("it does not take the cluster's token".to_owned()).of_stream(owner))
        }
        StatusCode::MISDIRECTED_REQUEST => Err(refusal::session_moving()),
        StatusCode::FORBIDDEN => {
            let (head, body) = answer.into_parts();
            let told = wire::refusal(&head, body, owner).await;
            // The owner's door may refuse us; the client's own doing (`not-writable`) is the client's to know.
            let is_ours = told.code == "foreign-host";
            Err(if is_ours { Trouble::Refused(told.detail).of_stream(owner) } else { told })
        }
        _ => Ok(answer),
    }
}

fn is_our_version(version: &HeaderValue) -> bool {
    *version == HeaderValue::from(outlive_protocol::http::API_VERSION)
}
