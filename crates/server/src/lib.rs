//! HTTP: what a node offers to its clients, on a Unix socket and optionally on TCP.
//!
//! The way of a request through this crate:
//!
//! 1. `listen` binds the sockets and accepts connections: bounded in number, never spinning, each task owned;
//! 2. `door` decides who may come in: peer credentials or token, Host, Origin, the API's version;
//! 3. `native` takes the request apart by its route, calls [`outlive_node::api::Api`] and puts the answer together.
//!    Its one route table makes the router and the OpenAPI document. `openai` does so for OpenAI's chat API;
//! 4. `stream` carries events to one reader: batched, bounded, always with a last word; `websocket` does so too, and
//!    carries the frames of those who edit a notebook live.
//!
//! `front` is for nodes that come later than their server, and for those that are one of several; `proxy` then asks another
//! node for what it has. `farewell` is the end.
//!
//! Whatever is refused is refused with a [`Problem`](outlive_protocol::http::Problem); all of them stand in
//! [`problem`]. Jupyter's own API gets its place beside `native`.

mod door;
mod farewell;
mod front;
mod listen;
pub mod native;
mod openai;
pub mod problem;
mod proxy;
mod serve;
mod stream;
mod websocket;

pub use door::token::{Token, TokenError};
pub use door::{API_VERSION_HEADER, TcpPolicy};
pub use front::Front;
pub use listen::bind::{BindError, BoundTcp, BoundUnix, bind_tcp, bind_unix};
pub use serve::{Bounds, Listeners, serve, serve_front, serve_with};
