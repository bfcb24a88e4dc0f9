//! From a kernel's message to what a log holds. Pure.
//!
//! Contents stay the bytes that the kernel sent; only a stream's text is taken out of its JSON.

use std::borrow::Cow;

use bytes::Bytes;
use outlive_core::limits::CHUNK_BYTES_MAX;
use outlive_core::log::ChunkKind;
use outlive_core::session::RunOutcome;
use outlive_core::session::outcome::CancelWhy;
use outlive_jupyter::message::{Channel, Message};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::runs::{Reply, RunKey, parse_message_id};

/// Longest text of a state notice, in bytes: an exception's message can be a whole data frame.
const NOTICE_TEXT_BYTES_MAX: usize = 16_384;

/// What a message means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Output; more than one piece only where a long text was split.
    Output { run: Option<RunKey>, kind: ChunkKind, pieces: Vec<Bytes> },
    /// A run's request is being worked on.
    Busy(RunKey),
    /// A run's request is done, and all its output was sent.
    Idle(RunKey),
    /// A run's reply.
    Replied(RunKey, Reply),
    /// A run asks for input.
    Asks { run: RunKey, prompt: String, is_password: bool },
    /// The reply to one of our own requests: its message id.
    Answer(String),
    /// Nothing for anybody.
    Nothing,
}

/// Reads a message.
pub(crate) fn meaning(channel: Channel, message: &Message) -> Meaning {
    let run = message.parent_id().and_then(parse_message_id);
    match channel {
        Channel::Iopub => published(message, run),
        Channel::Shell | Channel::Control => match run {
            Some(run) if message.header.msg_type == "execute_reply" => Meaning::Replied(run, reply(message)),
            _ => Meaning::Answer(message.parent_id().unwrap_or_default().to_owned()),
        },
        Channel::Stdin => match run {
            Some(run) if message.header.msg_type == "input_request" => asks(message, run),
            _ => Meaning::Nothing,
        },
    }
}

fn published(message: &Message, run: Option<RunKey>) -> Meaning {
    // What our own requests cause (kernel_info, probes) is nobody's output.
    let is_ours = run.is_none() && message.parent_id().is_some_and(super::is_own_request);
    let content = |kind| Meaning::Output { run, kind, pieces: vec![message.raw.content.clone()] };
    match message.header.msg_type.as_str() {
        "status" => status(message, run),
        "iopub_welcome" => Meaning::Nothing,
        _ if is_ours => Meaning::Nothing,
        "stream" => stream(message, run),
        "execute_input" => started(message, run),
        "display_data" => content(ChunkKind::DisplayData),
        "update_display_data" => content(ChunkKind::UpdateDisplayData),
        "execute_result" => content(ChunkKind::ExecuteResult),
        "error" => content(ChunkKind::Error),
        "clear_output" => content(ChunkKind::ClearOutput),
        other => Meaning::Output {
            run,
            kind: ChunkKind::Other,
            pieces: vec![wrapped(other, &message.raw.content)],
        },
    }
}

fn status(message: &Message, run: Option<RunKey>) -> Meaning {
    #[derive(Deserialize)]
    struct Status<'a> {
        #[serde(borrow)]
        execution_state: Cow<'a, str>,
    }
    let Ok(Status { execution_state }) = serde_json::from_slice(&message.raw.content) else {
        return Meaning::Nothing;
    };
    match (execution_state.as_ref(), run) {
        ("busy", Some(run)) => Meaning::Busy(run),
        ("idle", Some(run)) => Meaning::Idle(run),
        _ => Meaning::Nothing,
    }
}

fn stream(message: &Message, run: Option<RunKey>) -> Meaning {
    #[derive(Deserialize)]
    struct Stream<'a> {
        #[serde(borrow)]
        name: Cow<'a, str>,
        #[serde(borrow)]
        text: Cow<'a, str>,
    }
    let Ok(Stream { name, text }) = serde_json::from_slice(&message.raw.content) else {
        // Not lost, though it has no form that we know.
        let pieces = vec![wrapped("stream", &message.raw.content)];
        return Meaning::Output { run, kind: ChunkKind::Other, pieces };
    };
    let kind = if name == "stderr" { ChunkKind::Stderr } else { ChunkKind::Stdout };
    Meaning::Output { run, kind, pieces: split_text(&text) }
}

/// Pieces of at most [`CHUNK_BYTES_MAX`], cut between characters; none of nothing.
fn split_text(mut text: &str) -> Vec<Bytes> {
    let mut pieces = Vec::with_capacity(text.len() / CHUNK_BYTES_MAX + 1);
    while !text.is_empty() {
        let (piece, rest) = text.split_at(text.floor_char_boundary(CHUNK_BYTES_MAX));
        pieces.push(Bytes::copy_from_slice(piece.as_bytes()));
        text = rest;
    }
    pieces
}

fn started(message: &Message, run: Option<RunKey>) -> Meaning {
    #[derive(Deserialize)]
    struct Input {
        execution_count: Option<u32>,
    }
    let count = message.content::<Input>().ok().and_then(|input| input.execution_count);
    let json = serde_json::json!({ "execution_count": count }).to_string();
    Meaning::Output { run, kind: ChunkKind::Started, pieces: vec![json.into()] }
}

/// `{"msg_type", "content"}`, with the content as it came when it is JSON at all.
fn wrapped(msg_type: &str, content: &Bytes) -> Bytes {
    let content: Option<&RawValue> = serde_json::from_slice(content).ok();
    #[derive(serde::Serialize)]
    struct Wrapped<'a> {
        msg_type: &'a str,
        content: Option<&'a RawValue>,
    }
    serde_json::to_vec(&Wrapped { msg_type, content }).expect("strings and JSON become JSON").into()
}

fn reply(message: &Message) -> Reply {
    #[derive(Deserialize)]
    struct Content {
        #[serde(default)]
        status: String,
        #[serde(default)]
        ename: String,
        #[serde(default)]
        evalue: String,
        #[serde(default)]
        execution_count: Option<u32>,
    }
    let Ok(content) = message.content::<Content>() else {
        let evalue = "the kernel's execute_reply has no form that is known".to_owned();
        let outcome = RunOutcome::Raised { ename: "InvalidReply".to_owned(), evalue };
        return Reply { outcome, execution_count: None };
    };
    let outcome = match content.status.as_str() {
        "ok" => RunOutcome::Succeeded,
        // `abort` was the word before protocol 5.1.
        "aborted" | "abort" => RunOutcome::Cancelled { why: CancelWhy::EarlierFailure },
        _ => RunOutcome::Raised { ename: cut(content.ename), evalue: cut(content.evalue) },
    };
    Reply { outcome, execution_count: content.execution_count }
}

fn asks(message: &Message, run: RunKey) -> Meaning {
    #[derive(Deserialize)]
    struct Question {
        #[serde(default)]
        prompt: String,
        #[serde(default)]
        password: bool,
    }
    match message.content::<Question>() {
        Ok(Question { prompt, password }) => {
            Meaning::Asks { run, prompt: cut(prompt), is_password: password }
        }
        Err(_) => Meaning::Asks { run, prompt: String::new(), is_password: false },
    }
}

fn cut(mut text: String) -> String {
    if text.len() > NOTICE_TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(NOTICE_TEXT_BYTES_MAX));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use outlive_core::id::{Attempt, RunId};
    use outlive_core::time::WallTime;
    use outlive_jupyter::request::Client;
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::super::runs::message_id;
    use super::*;

    const RUN: RunKey = (RunId::from_uuid(Uuid::from_u128(1)), Attempt(2));

    fn said(parent: &str, msg_type: &str, content: &Value) -> Message {
        let client = Client { session: "s".into(), username: "u".into() };
        let request = client.message(parent, "execute_request", &json!({}), WallTime(0));
        client.reply_to(Some(&request), "answer", msg_type, content, WallTime(0))
    }

    fn iopub(msg_type: &str, content: &Value) -> Meaning {
        meaning(Channel::Iopub, &said(&message_id(RUN), msg_type, content))
    }

    #[test]
    fn output_names_its_run_and_keeps_its_bytes() {
        let text = json!({"name": "stderr", "text": "a\u{1b}[1m\nü"});
        let pieces = vec![Bytes::from("a\u{1b}[1m\nü")];
        assert_eq!(
            iopub("stream", &text),
            Meaning::Output { run: Some(RUN), kind: ChunkKind::Stderr, pieces }
        );

        let content = json!({"data": {"text/plain": "1"}, "metadata": {}, "unknown": [1, 2.50]});
        let pieces = vec![Bytes::from(content.to_string())];
        let expected = Meaning::Output { run: Some(RUN), kind: ChunkKind::DisplayData, pieces };
        assert_eq!(iopub("display_data", &content), expected);

        match iopub("comm_open", &json!({"comm_id": "c"})) {
            Meaning::Output { kind: ChunkKind::Other, pieces, .. } => {
                let value: Value = serde_json::from_slice(&pieces[0]).unwrap();
                assert_eq!(value, json!({"msg_type": "comm_open", "content": {"comm_id": "c"}}));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_nothing_is_lost() {
        // B3
        let text = "aü€".repeat(200_000);
        let pieces = split_text(&text);
        assert!(pieces.len() > 1 && pieces.iter().all(|piece| piece.len() <= CHUNK_BYTES_MAX));
        let joined: String = pieces.iter().map(|piece| std::str::from_utf8(piece).unwrap()).collect();
        assert_eq!(joined, text);
        assert!(split_text("").is_empty());
    }

    #[test]
    fn status_and_replies_are_read() {
        assert_eq!(iopub("status", &json!({"execution_state": "busy"})), Meaning::Busy(RUN));
        assert_eq!(iopub("status", &json!({"execution_state": "idle"})), Meaning::Idle(RUN));
        assert_eq!(iopub("status", &json!({"execution_state": "starting"})), Meaning::Nothing);
        let reply = |content: Value| match meaning(
            Channel::Shell,
            &said(&message_id(RUN), "execute_reply", &content),
        ) {
            Meaning::Replied(RUN, reply) => reply.outcome,
            other => panic!("{other:?}"),
        };
        assert_eq!(reply(json!({"status": "ok", "execution_count": 4})), RunOutcome::Succeeded);
        let raised = RunOutcome::Raised { ename: "E".into(), evalue: "v".into() };
        assert_eq!(reply(json!({"status": "error", "ename": "E", "evalue": "v"})), raised);
        assert!(matches!(reply(json!({"status": "aborted"})), RunOutcome::Cancelled { .. }));
        // An exception whose message is a whole data frame still fits a record.
        match reply(json!({"status": "error", "ename": "E", "evalue": "ü".repeat(1_000_000)})) {
            RunOutcome::Raised { evalue, .. } => assert!(evalue.len() <= NOTICE_TEXT_BYTES_MAX + 3),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn our_own_requests_leave_no_output() {
        let message = said("outlive-probe", "stream", &json!({"name": "stdout", "text": "x"}));
        assert_eq!(meaning(Channel::Iopub, &message), Meaning::Nothing);
    }
}
