//! The messages that Outlive itself makes. The caller gives each its message id, so that a run's id can be it.
//!
//! Shapes: jupyter_client documentation, "Messaging in Jupyter", protocol 5.4.

use bytes::Bytes;
use outlive_core::time::WallTime;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::message::{Header, Message, Raw};
use crate::timestamp::iso8601;

/// The version of the message protocol that Outlive speaks.
pub const PROTOCOL_VERSION: &str = "5.4";

/// Who asks: the part of a header that is the same for all requests of one client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Client {
    /// The header's `session`, unique for each connection.
    pub session: String,
    /// The header's `username`.
    pub username: String,
}

/// What is to be executed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Execute<'a> {
    /// The source.
    pub code: &'a str,
    /// No output, no history, no count.
    pub silent: bool,
    /// Whether `input_request` may be sent.
    pub allow_stdin: bool,
    /// Whether the kernel drops what is queued behind an error (it aborts those requests).
    pub stop_on_error: bool,
}

impl Client {
    /// A request of any type.
    #[must_use]
    pub fn message(&self, msg_id: &str, msg_type: &str, content: &Value, at: WallTime) -> Message {
        self.reply_to(None, msg_id, msg_type, content, at)
    }

    /// `execute_request`, for the shell.
    #[must_use]
    pub fn execute(&self, msg_id: &str, execute: &Execute<'_>, at: WallTime) -> Message {
        let Execute { code, silent, allow_stdin, stop_on_error } = *execute;
        let content = json!({
            "code": code,
            "silent": silent,
            "store_history": !silent,
            "user_expressions": {},
            "allow_stdin": allow_stdin,
            "stop_on_error": stop_on_error,
        });
        self.message(msg_id, "execute_request", &content, at)
    }

    /// `kernel_info_request`, for the shell or control.
    #[must_use]
    pub fn kernel_info(&self, msg_id: &str, at: WallTime) -> Message {
        self.message(msg_id, "kernel_info_request", &json!({}), at)
    }

    /// `interrupt_request`, for control.
    #[must_use]
    pub fn interrupt(&self, msg_id: &str, at: WallTime) -> Message {
        self.message(msg_id, "interrupt_request", &json!({}), at)
    }

    /// `shutdown_request`, for control.
    #[must_use]
    pub fn shutdown(&self, msg_id: &str, restart: bool, at: WallTime) -> Message {
        self.message(msg_id, "shutdown_request", &json!({ "restart": restart }), at)
    }

    /// `input_reply` to an `input_request`, for stdin.
    #[must_use]
    pub fn input_reply(&self, request: &Message, msg_id: &str, value: &str, at: WallTime) -> Message {
        self.reply_to(Some(request), msg_id, "input_reply", &json!({ "value": value }), at)
    }

    /// `comm_msg`, for the shell.
    #[must_use]
    pub fn comm_message(&self, msg_id: &str, comm_id: &str, data: &Value, at: WallTime) -> Message {
        self.message(msg_id, "comm_msg", &json!({ "comm_id": comm_id, "data": data }), at)
    }

    /// `comm_info_request`, for the shell.
    #[must_use]
    pub fn comm_info(&self, msg_id: &str, at: WallTime) -> Message {
        self.message(msg_id, "comm_info_request", &json!({}), at)
    }

    /// A message with a parent; with a client's name it can also be what a kernel says (Outlive tells clients of a
    /// death in the kernel's own words).
    #[must_use]
    pub fn reply_to(
        &self,
        parent: Option<&Message>,
        msg_id: &str,
        msg_type: &str,
        content: &Value,
        at: WallTime,
    ) -> Message {
        let header = Header {
            msg_id: msg_id.to_owned(),
            msg_type: msg_type.to_owned(),
            session: Some(self.session.clone()),
            username: Some(self.username.clone()),
            date: Some(iso8601(at)),
            version: Some(PROTOCOL_VERSION.to_owned()),
            subshell_id: None,
        };
        let raw = Raw {
            header: json_bytes(&header_json(&header)),
            parent_header: parent
                .map_or_else(|| Bytes::from_static(b"{}"), |parent| parent.raw.header.clone()),
            metadata: Bytes::from_static(b"{}"),
            content: json_bytes(content),
        };
        Message {
            identities: Vec::new(),
            header,
            parent: parent.map(|parent| parent.header.clone()),
            raw,
            buffers: Vec::new(),
        }
    }
}

fn header_json(header: &Header) -> Map<String, Value> {
    let Header { msg_id, msg_type, session, username, date, version, subshell_id } = header;
    let mut object = Map::new();
    object.insert("msg_id".into(), json!(msg_id));
    object.insert("msg_type".into(), json!(msg_type));
    for (name, value) in [
        ("session", session),
        ("username", username),
        ("date", date),
        ("version", version),
        ("subshell_id", subshell_id),
    ] {
        if let Some(value) = value {
            object.insert(name.into(), json!(value));
        }
    }
    object
}

fn json_bytes(value: &impl Serialize) -> Bytes {
    Bytes::from(serde_json::to_vec(value).expect("a JSON value has string keys only"))
}
