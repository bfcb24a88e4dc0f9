//! What nodes tell each other, byte by byte: nodes of different versions run together.

use std::borrow::Cow;

use outlive_core::failover::Member;
use outlive_core::id::{BootId, NodeId};
use outlive_core::time::WallTime;
use outlive_protocol::http::NodeState;
use outlive_protocol::node::{Beat, NodeMessage, NodeRow};
use uuid::Uuid;

fn member() -> Member {
    Member { node: NodeId::from_uuid(Uuid::from_u128(1)), boot: BootId::from_uuid(Uuid::from_u128(2)) }
}

const MEMBER: &str =
    r#"{"node":"00000000-0000-0000-0000-000000000001","boot":"00000000-0000-0000-0000-000000000002"}"#;

#[test]
fn each_message_has_its_bytes() {
    let beat = Beat {
        member: member(),
        seq: 7,
        name: "compute-1".into(),
        url: Some("http://10.0.0.1:8787".into()),
        version: "0.5.0".into(),
        state: NodeState::Alive,
        wall: WallTime(9),
    };
    let rows = [
        (
            NodeMessage::Beat(beat),
            r#"{"beat":{"member":MEMBER,"seq":7,"name":"compute-1","url":"http://10.0.0.1:8787","version":"0.5.0","state":"alive","wall":9}}"#,
        ),
        (NodeMessage::Goodbye { member: member(), seq: 8 }, r#"{"goodbye":{"member":MEMBER,"seq":8}}"#),
        (NodeMessage::Probe { from: member() }, r#"{"probe":{"from":MEMBER}}"#),
        (NodeMessage::Answer { from: member() }, r#"{"answer":{"from":MEMBER}}"#),
        (NodeMessage::Dead { member: member(), by: member() }, r#"{"dead":{"member":MEMBER,"by":MEMBER}}"#),
    ];
    for (message, text) in rows {
        let text = text.replace("MEMBER", MEMBER);
        assert_eq!(String::from_utf8(message.encode()).expect("it is JSON"), text);
        assert_eq!(NodeMessage::decode(text.as_bytes()), Some(message));
    }
}

#[test]
fn a_beat_is_read_without_copies_and_with_what_a_later_version_adds() {
    let text = format!(
        r#"{{"beat":{{"member":{MEMBER},"seq":1,"name":"a","version":"9","state":"draining","wall":1,"load":[1,2]}}}}"#
    );
    let Some(NodeMessage::Beat(beat)) = NodeMessage::decode(text.as_bytes()) else { panic!("it is a beat") };
    assert!(matches!(beat.name, Cow::Borrowed("a")) && beat.url.is_none());
    assert_eq!(beat.state, NodeState::Draining);
}

#[test]
fn what_is_no_message_is_left_alone() {
    let beat = r#"{"beat":{"member":1}}"#;
    for text in ["", "{}", "null", r#"{"vote":{"for":1}}"#, beat, "\u{0}", "[[[[[["] {
        assert_eq!(NodeMessage::decode(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn a_row_of_a_name_has_its_bytes() {
    let row = NodeRow {
        member: member(),
        url: None,
        version: "0.5.0".to_owned(),
        started_at: WallTime(3),
        pid: 42,
    };
    let text = format!(r#"{{"member":{MEMBER},"version":"0.5.0","started_at":3,"pid":42}}"#);
    assert_eq!(serde_json::to_string(&row).expect("a row is plain data"), text);
    assert_eq!(serde_json::from_str::<NodeRow>(&text).expect("it is read"), row);
}
