//! The messages that Outlive itself makes. The caller gives each its message id, so that a run's id can be it.
//!
//! Shapes: jupyter_client documentation, "Messaging in Jupyter", protocol 5.4.

use bytes::Bytes;
use outlive_core::time::WallTime;
use serde_json::{Value, json};

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

/// How a cell is executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExecuteMode {
    /// As a user's cell: `input_request` may come, because somebody can answer it.
    Interactive,
    /// As a user's cell; `input()` raises.
    Unattended,
    /// Without output, history or count: Outlive's own probes.
    Silent,
}

impl Client {
    /// A request of any type.
    #[must_use]
    pub fn message(&self, msg_id: &str, msg_type: &str, content: &Value, at: WallTime) -> Message {
        self.reply_to(None, msg_id, msg_type, content, at)
    }

    /// `execute_request`, for the shell. The kernel goes on after an error: what follows one is decided by
    /// Outlive's own queue, which the kernel does not see.
    #[must_use]
    pub fn execute(&self, msg_id: &str, code: &str, mode: ExecuteMode, at: WallTime) -> Message {
        let silent = mode == ExecuteMode::Silent;
        let content = json!({
            "code": code,
            "silent": silent,
            "store_history": !silent,
            "user_expressions": {},
            "allow_stdin": mode == ExecuteMode::Interactive,
            "stop_on_error": false,
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
        let header = json!({
            "msg_id": msg_id,
            "msg_type": msg_type,
            "session": self.session,
            "username": self.username,
            "date": iso8601(at),
            "version": PROTOCOL_VERSION,
        });
        let raw = Raw {
            header: json_bytes(&header),
            parent_header: parent
                .map_or_else(|| Bytes::from_static(b"{}"), |parent| parent.raw.header.clone()),
            metadata: Bytes::from_static(b"{}"),
            content: json_bytes(content),
        };
        Message {
            identities: Vec::new(),
            header: Header {
                msg_id: msg_id.to_owned(),
                msg_type: msg_type.to_owned(),
                session: Some(self.session.clone()),
                subshell_id: None,
            },
            parent: parent.map(|parent| parent.header.clone()),
            raw,
            buffers: Vec::new(),
        }
    }
}

fn json_bytes(value: &Value) -> Bytes {
    Bytes::from(serde_json::to_vec(value).expect("a JSON value has string keys only"))
}
