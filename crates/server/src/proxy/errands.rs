//! What surfaces ask of other nodes that call the node themselves, for instance an agent's tools.

use std::sync::Arc;

use async_trait::async_trait;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, Request, Response};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use outlive_core::limits::OWNER_EVENT_BYTES_MAX;
use outlive_node::api::{Api, Delivered, Errand, Events, Others};
use outlive_protocol::http::{Elsewhere, Problem, StreamEvent};

use super::checked;
use super::events::{Block, Blocks, Dialect};
use super::owner::Owner;
use super::refusal::Trouble;
use super::wire::{self, Wire};
use crate::stream::MEDIA_TYPE;

/// Asks other nodes in this one's name.
pub(crate) struct Errands {
    wire: Wire,
    api: Arc<dyn Api>,
}

impl Errands {
    pub(crate) fn new(wire: Wire, api: Arc<dyn Api>) -> Self {
        Self { wire, api }
    }

    async fn send(&self, owner: &Owner, errand: Errand) -> Result<Response<Incoming>, Problem> {
        let method = method_of(&errand);
        let Errand { path, body, .. } = errand;
        let told = |trouble: Trouble| trouble.of_request(owner, &method);
        let path =
            path.parse().map_err(|_| told(Trouble::Garbled("the request's path is none".to_owned())))?;
        let mut request = Request::new(Full::new(body.map(Bytes::from).unwrap_or_default()));
        *request.method_mut() = method.clone();
        *request.uri_mut() = owner.uri(path);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("*/*"));
        let sending = self.wire.send(owner, request);
        let answer = wire::patient(&self.wire, &*self.api, owner, sending).await.flatten().map_err(told)?;
        let answer = checked(owner, answer).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let (head, body) = answer.into_parts();
        Err(wire::refusal(&head, body, owner).await)
    }
}

#[async_trait]
impl Others for Errands {
    async fn ask(&self, there: &Elsewhere, errand: Errand) -> Result<Bytes, Problem> {
        let owner = Owner::at(there)?;
        let method = method_of(&errand);
        let answer = self.send(&owner, errand).await?;
        let body = Limited::new(answer.into_body(), OWNER_EVENT_BYTES_MAX).collect();
        let body = wire::patient(&self.wire, &*self.api, &owner, body).await.and_then(|body| {
            body.map_err(|error| match error.downcast_ref::<hyper::Error>() {
                Some(_) => Trouble::Lost,
                None => Trouble::Garbled(format!("its answer has more than {OWNER_EVENT_BYTES_MAX} bytes")),
            })
        });
        Ok(body.map_err(|trouble| trouble.of_request(&owner, &method))?.to_bytes())
    }

    async fn attach(&self, there: &Elsewhere, path: String) -> Result<Events, Problem> {
        let owner = Owner::at(there)?;
        let answer = self.send(&owner, Errand::get(path)).await?;
        if answer.headers().get(CONTENT_TYPE).is_none_or(|kind| kind != MEDIA_TYPE) {
            let why = "it did not answer with a stream of events";
            return Err(Trouble::Garbled(why.to_owned()).of_stream(&owner));
        }
        let blocks = Blocks::new(answer.into_body(), owner, Arc::clone(&self.api), Dialect::Native);
        Ok(stream::unfold(Some(blocks), async |blocks| {
            let mut blocks = blocks?;
            let (events, blocks) = match blocks.next().await {
                Ok(Block { bytes, is_last }) => (delivered(&bytes), (!is_last).then_some(blocks)),
                Err(problem) => (vec![said(problem)], None),
            };
            Some((stream::iter(events), blocks))
        })
        .flatten()
        .boxed())
    }
}

fn method_of(errand: &Errand) -> Method {
    Method::from_bytes(errand.method.as_bytes()).expect("a method that we wrote")
}

/// The events among whole ones as another node writes them: each field in one line.
fn delivered(bytes: &[u8]) -> Vec<Delivered> {
    let text = String::from_utf8_lossy(bytes);
    let blocks = text.split("\n\n").filter_map(|block| {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        let event = serde_json::from_str(field("data: ")?).unwrap_or(StreamEvent::Unknown);
        Some(Delivered { cursor: field("id: ").map(str::to_owned), event })
    });
    blocks.collect()
}

fn said(problem: Problem) -> Delivered {
    Delivered { cursor: None, event: StreamEvent::Problem { problem } }
}
