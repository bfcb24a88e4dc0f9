//! A notebook that is edited over WebSockets.

use std::time::Duration;

use outlive_node::api::Api as _;
use outlive_protocol::http::{CellEdit, Close, EditNotebook};
use outlive_server::Bounds;
use tokio_tungstenite::tungstenite::protocol::Message;
use yrs::sync::{Message as Frame, SyncMessage};

use crate::editor::Editor;
use crate::world::{World, document, in_time};

#[tokio::test]
async fn editors_see_each_other_and_what_others_ask_for() {
    let world = World::start().await;
    let id = world.notebook().await;
    let mut ada = Editor::join(world.websocket(&document(id)).await).await;
    let mut bob = Editor::join(world.websocket_over_tcp(&document(id)).await).await;
    let before = ada.sources().len();
    ada.append("first", "x = 1\né😀").await;
    bob.until(|bob| bob.sources().len() > before).await;
    let at = u32::try_from(before).unwrap();
    bob.type_into(at, "# ").await;
    ada.until(|ada| ada.sources()[before].starts_with("# ")).await;
    let seen = world.node.notebook(id, false).await.unwrap();
    assert_eq!(seen.cells[before].source, "# x = 1\né😀");
    let edit = CellEdit::SetSource {
        cell: "first".to_owned(),
        source: "y = 2".to_owned(),
        expected: Some("# x = 1\né😀".to_owned()),
    };
    world.node.edit(id, EditNotebook { edits: vec![edit] }).await.unwrap();
    for sources in [
        {
            ada.until(|ada| ada.sources()[before] == "y = 2").await;
            ada.sources()
        },
        {
            bob.until(|bob| bob.sources()[before] == "y = 2").await;
            bob.sources()
        },
    ] {
        assert_eq!(sources.len(), before + 1);
    }
    ada.show("Ada").await;
    bob.until(|bob| bob.others() == 1).await;
    assert_eq!(world.node.session(id).await.unwrap().peers, 2);
    drop(ada);
    bob.until(|bob| bob.others() == 0).await;
    world.stop().await;
}

/// A tab that is closed in mid-word: what it had sent was typed, though nothing can be said to it any more.
#[tokio::test]
async fn what_an_editor_typed_before_it_was_gone_is_there_for_the_others() {
    const WORDS: usize = 20;
    let world = World::start().await;
    let id = world.notebook().await;
    let mut ada = Editor::join(world.websocket(&document(id)).await).await;
    let cell = u32::try_from(ada.sources().len()).unwrap();
    ada.append("shared", "").await;
    for round in 0..20 {
        let mut bob = Editor::join(world.websocket(&document(id)).await).await;
        bob.until(|bob| bob.sources().len() > cell as usize).await;
        for word in 0..WORDS {
            // So that there is something to be said to who is gone.
            ada.type_into(cell, &format!("ada{round}.{word};")).await;
            bob.type_into(cell, &format!("bob{round}.{word};")).await;
        }
        drop(bob);
        let words: Vec<_> = (0..WORDS).map(|word| format!("bob{round}.{word};")).collect();
        ada.until(|ada| words.iter().all(|word| ada.sources()[cell as usize].contains(word))).await;
    }
    world.stop().await;
}

// B2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_editor_that_is_ten_thousand_edits_behind_is_told_and_ends_equal() {
    const EDITS: usize = 10_000;
    let world = World::start().await;
    let id = world.notebook().await;
    let mut fast = Editor::join(world.websocket(&document(id)).await).await;
    fast.append("c", "").await;
    let mut slow = Editor::join(world.websocket(&document(id)).await).await;
    let cell = u32::try_from(fast.sources().len() - 1).unwrap();
    // More than its socket and its queue hold.
    let word = "x".repeat(600);
    for _ in 0..EDITS {
        fast.type_into(cell, &word).await;
    }
    let mut witness = Editor::join(world.websocket(&document(id)).await).await;
    let all = EDITS * word.len();
    witness.until(|witness| witness.sources()[cell as usize].len() == all).await;
    slow.until(|slow| slow.sources()[cell as usize].len() == all).await;
    assert!(slow.events.iter().any(|event| event["event"] == "gap" && event["skipped"].as_u64() > Some(0)));
    assert_eq!(slow.sources(), fast.sources());
    // It goes on as everybody does.
    slow.type_into(cell, "é").await;
    fast.until(|fast| fast.sources()[cell as usize].starts_with('é')).await;
    world.stop().await;
}

// B5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_editor_that_takes_nothing_is_let_go_and_told_why() {
    let bounds = Bounds { stream_stall: Duration::from_millis(500), ..Bounds::default() };
    let world = World::start_with(bounds).await;
    let id = world.notebook().await;
    let mut fast = Editor::join(world.websocket(&document(id)).await).await;
    fast.append("c", "").await;
    let mut stuck = Editor::join(world.websocket(&document(id)).await).await;
    let cell = u32::try_from(fast.sources().len() - 1).unwrap();
    for _ in 0..600 {
        fast.type_into(cell, &"x".repeat(1_000)).await;
    }
    let gone = async {
        while world.node.session(id).await.unwrap().peers > 1 {
            tokio::task::yield_now().await;
        }
    };
    in_time(gone).await;
    assert_eq!(stuck.until_closed().await, (4008, "slow-peer".to_owned()));
    assert_eq!(stuck.events.last().unwrap()["problem"]["code"], "slow-peer");
    fast.type_into(cell, "still here").await;
    let mut back = Editor::join(world.websocket(&document(id)).await).await;
    back.until(|back| back.sources() == fast.sources()).await;
    world.stop().await;
}

// B1
#[tokio::test]
async fn what_is_no_edit_ends_that_editor_with_a_reason_and_no_other() {
    let world = World::start().await;
    let id = world.notebook().await;
    let mut other = Editor::join(world.websocket(&document(id)).await).await;
    let forged = Frame::Sync(SyncMessage::Update(vec![0xff; 64]));
    let large = vec![0; outlive_core::limits::PEER_FRAME_BYTES_MAX + 1];
    for (message, code, reason) in [
        (Message::text("{}"), 1003, "text-frame"),
        (Message::binary(large), 1009, "message-too-large"),
        (Message::binary(yrs::updates::encoder::Encode::encode_v1(&forged)), 4400, "forged-update"),
    ] {
        let mut editor = Editor::join(world.websocket(&document(id)).await).await;
        let sent = in_time(futures_util::SinkExt::send(&mut editor.socket, message)).await;
        assert!(sent.is_ok(), "{reason}");
        assert_eq!(editor.until_closed().await, (code, reason.to_owned()));
        let problem = &editor.events.last().unwrap()["problem"];
        assert!(problem["detail"].is_string() && problem["hint"].is_string(), "{problem}");
    }
    other.append("after", "all is well").await;
    let mut back = Editor::join(world.websocket(&document(id)).await).await;
    back.until(|back| back.sources() == other.sources()).await;
    world.stop().await;
}

#[tokio::test]
async fn the_end_of_the_session_and_of_the_daemon_are_told_apart() {
    let world = World::start().await;
    let (closed, left) = (world.notebook().await, world.notebook().await);
    let mut of_closed = Editor::join(world.websocket(&document(closed)).await).await;
    let mut of_left = Editor::join(world.websocket(&document(left)).await).await;
    of_left.append("kept", "in the store").await;
    world.node.close(closed, Close { discard: true }).await.unwrap();
    assert_eq!(of_closed.until_closed().await, (4409, "session-ended".to_owned()));
    let sources = of_left.sources();
    let mut witness = Editor::join(world.websocket(&document(left)).await).await;
    witness.until(|witness| witness.sources() == sources).await;
    let (world, told) = tokio::join!(world.restart(), of_left.until_closed());
    assert_eq!(told, (1001, "shutting-down".to_owned()));
    // By the id that it has, with the document that it has.
    let mut back = Editor::join(world.websocket(&document(left)).await).await;
    back.until(|back| back.sources() == sources).await;
    world.stop().await;
}
