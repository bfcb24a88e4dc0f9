//! Peers: what they send and are sent.

use outlive_core::limits::{PEER_FRAME_BYTES_MAX, PEER_STALL_MS};
use outlive_document::live::wire::Message;
use tokio::task::JoinSet;
use yrs::{Array, Map, MapPrelim, MapRef, Text};

use super::editor::{Heard, insert_cell, source_of};
use super::{ask, joined, peer, settle};
use crate::session::handle::Ask;
use crate::session::task::file::tests::world::{World, life};
use outlive_core::runtime::{StopStep, StopWhy};

#[test]
fn what_one_types_all_others_see_and_the_notebook_has_it() {
    let world = World::new();
    life(async {
        let daemon = world.daemon();
        let id = daemon.new_notebook("x = 1").await;
        let mut editors = vec![joined(&daemon, id, 1).await, joined(&daemon, id, 2).await];
        assert_eq!(editors[1].sources(), ["x = 1"]);
        editors[0].type_into(0, "\ny = 'é😀'").await;
        editors[1].edit(|txn, cells| insert_cell(txn, cells, 1, "mine", "z = 3"));
        settle(&mut editors).await;
        let expected = ["x = 1\ny = 'é😀'", "z = 3"];
        assert_eq!(editors[0].sources(), expected);
        assert_eq!(editors[0].shows(), editors[1].shows());
        assert_eq!(daemon.sources(id).await, expected);
        assert_eq!(daemon.notebook(id).await.cells[1].id, "mine");
    });
}

#[test]
fn a_peer_ten_thousand_edits_behind_is_told_of_a_gap_and_ends_with_what_everybody_has() {
    // B2
    let world = World::new();
    life(async {
        let daemon = world.daemon();
        let id = daemon.new_notebook("").await;
        let (mut writer, mut reader) = (joined(&daemon, id, 1).await, joined(&daemon, id, 2).await);
        let mut sleeper = joined(&daemon, id, 3).await;
        let line = "# a line that somebody pastes, as long as lines are, again and again ".repeat(8);
        for n in 0..10_000 {
            writer.edit(|txn, cells| {
                let source = source_of(txn, cells, 0);
                // What is written over does not grow the document.
                let length = source.len(txn);
                source.remove_range(txn, 0, length);
                source.insert(txn, 0, &format!("{line}{n}"));
            });
            writer.flush().await;
            if n % 50 == 0 {
                reader.sync().await;
            }
        }
        let mut awake = [writer, reader];
        settle(&mut awake).await;
        assert!(awake[1].gaps.is_empty(), "who reads misses nothing");
        sleeper.sync().await;
        assert_eq!(sleeper.gaps.len(), 1);
        assert!(sleeper.gaps[0] > 1 << 20, "{:?} bytes were left out", sleeper.gaps);
        assert!(sleeper.updates < 100, "{} updates were sent again one by one", sleeper.updates);
        assert_eq!(sleeper.shows(), awake[0].shows());
        // It goes on as all others.
        awake[0].type_into(0, "!").await;
        awake[0].sync().await;
        // The answer to what it asked before it knew of the gap is still on its way.
        sleeper.sync().await;
        sleeper.sync().await;
        assert_eq!(sleeper.sources(), awake[0].sources());
        assert_eq!(sleeper.sources(), daemon.sources(id).await);
    });
}

#[test]
fn a_peer_that_takes_nothing_is_cut_for_it_and_nobody_else() {
    // B5
    let world = World::new();
    life(async {
        let daemon = world.daemon();
        let id = daemon.new_notebook("").await;
        let mut writer = joined(&daemon, id, 1).await;
        let mut idle = joined(&daemon, id, 2).await;
        idle.sync().await;
        let mut sleeper = joined(&daemon, id, 3).await;
        sleeper.send(Message::Awareness(&awareness(3, 1, "{\"name\":\"s\"}")).encode()).await;
        sleeper.sync().await;
        writer.type_into(0, "a").await;
        writer.sync().await;
        idle.sync().await;
        daemon.clock.advance(PEER_STALL_MS / 2);
        writer.type_into(0, "b").await;
        writer.sync().await;
        idle.sync().await;
        daemon.clock.advance(PEER_STALL_MS / 2 + 1);
        daemon.until(id, |view| view.peers == 2).await;
        assert_eq!(sleeper.until_cut().await.code, "slow-peer");
        idle.sync().await;
        assert_eq!(idle.sources(), ["ab"]);
        assert!(idle.awareness.last().unwrap().ends_with(b"\x04null"), "its cursor goes with it");
        // Idle is not slow: nothing waits for it.
        daemon.clock.advance(PEER_STALL_MS * 10);
        idle.type_into(0, "c").await;
        idle.sync().await;
        assert_eq!(daemon.sources(id).await, ["abc"]);
    });
}

#[test]
fn who_sends_rubbish_is_cut_and_nobody_else_sees_any_of_it() {
    let world = World::new();
    life(async {
        let daemon = world.daemon();
        let id = daemon.new_notebook("x = 1").await;
        let mut good = joined(&daemon, id, 1).await;
        let forged = [
            vec![0],
            vec![0, 2, 0xff, 0xff, 0xff, 0xff, 0x0f],
            vec![0, 7, 0],
            Message::Update(b"no update").encode(),
            Message::Update(&[1, 1, 1, 0, 4, 1, 5, 99, 101, 108, 108, 115, 0xff, 0xff, 0xff, 0xff, 0x0f])
                .encode(),
            Message::Step1(&[0xff, 0xff, 0x03]).encode(),
            Message::Awareness(&[9]).encode(),
        ];
        for frame in forged {
            let mut bad = joined(&daemon, id, 66).await;
            bad.send(frame.clone()).await;
            let problem = bad.until_cut().await;
            assert_eq!(problem.code, "forged-update", "{frame:?}: {problem}");
            assert!(bad.peer().input.send(vec![0].into()).await.is_err(), "it is let go");
        }
        let mut huge = joined(&daemon, id, 67).await;
        let refused = huge.peer().input.send(vec![0; PEER_FRAME_BYTES_MAX + 1].into()).await.unwrap_err();
        assert_eq!(refused.code, "message-too-large");
        assert_eq!(huge.until_cut().await.code, "message-too-large");
        // A later version's message is no rubbish.
        good.send(vec![77, 1, 2, 3]).await;
        good.type_into(0, "0").await;
        good.sync().await;
        assert_eq!(daemon.sources(id).await, ["x = 10"]);
        daemon.until(id, |view| view.peers == 1).await;
    });
}

#[test]
fn an_update_that_breaks_the_document_costs_its_sender_alone() {
    let world = World::new();
    life(async {
        let daemon = world.daemon();
        let id = daemon.new_notebook("x = 1").await;
        let mut good = joined(&daemon, id, 1).await;
        good.type_into(0, "2").await;
        good.sync().await;
        let before = good.shows();
        let mut bad = joined(&daemon, id, 2).await;
        bad.nest_too_deep();
        bad.flush().await;
        assert_eq!(bad.until_cut().await.code, "forged-update");
        good.type_into(0, "3").await;
        good.sync().await;
        assert_eq!(good.sources(), ["x = 123"]);
        assert_ne!(good.shows(), before);
        let mut late = joined(&daemon, id, 3).await;
        late.sync().await;
        assert_eq!(late.shows(), good.shows());
        assert_eq!(daemon.sources(id).await, ["x = 123"]);
    });
    // Nothing of it is in the log.
    life(async {
        let daemon = world.daemon();
        for row in daemon.context.all_indexed().await.unwrap() {
            assert_eq!(daemon.sources(row.view.id).await, ["x = 123"]);
        }
    });
}

#[test]
fn everybody_knows_where_the_others_are_until_they_leave() {
    let world = World::new();
    life(async {
        let daemon = world.daemon();
        let id = daemon.new_notebook("").await;
        let mut first = joined(&daemon, id, 1).await;
        let (mine, theirs) = (awareness(1, 5, "{\"at\":1}"), awareness(2, 1, "{\"at\":2}"));
        first.send(Message::Awareness(&mine).encode()).await;
        first.sync().await;
        let mut second = joined(&daemon, id, 2).await;
        assert_eq!(second.awareness, [mine], "who comes is told who is there");
        second.send(Message::Awareness(&theirs).encode()).await;
        second.sync().await;
        first.sync().await;
        assert_eq!(first.awareness, [theirs]);
        second.send(Message::AwarenessQuery.encode()).await;
        assert!(matches!(second.hear().await, Heard::Awareness));
        second.part();
        first.until_aware().await;
        assert_eq!(*first.awareness.last().unwrap(), awareness(2, 1, "null"));
        daemon.until(id, |view| view.peers == 1).await;
        // Who comes again after a broken connection is not taken away by the end of the old one.
        let mut again = joined(&daemon, id, 1).await;
        again.send(Message::Awareness(&awareness(1, 6, "{\"at\":3}")).encode()).await;
        again.sync().await;
        first.part();
        daemon.until(id, |view| view.peers == 1).await;
        let third = joined(&daemon, id, 3).await;
        assert_eq!(third.awareness, [awareness(1, 6, "{\"at\":3}")]);
    });
}

#[test]
fn a_peer_is_told_when_its_session_ends() {
    let world = World::new();
    life(async {
        let daemon = world.daemon();
        let id = daemon.new_notebook("").await;
        let mut editor = joined(&daemon, id, 1).await;
        let stop = Ask::Stop { why: StopWhy::User, from: StopStep::Kill };
        ask(&daemon, id, stop).await.unwrap();
        assert_eq!(editor.until_cut().await.code, "session-ended");
        let id = daemon.new_notebook("").await;
        let mut editor = joined(&daemon, id, 1).await;
        daemon.context.stop.cancel();
        assert_eq!(editor.until_cut().await.code, "shutting-down");
    });
}

#[test]
fn who_sends_without_end_keeps_nobody_waiting() {
    let world = World::new();
    life(async {
        let daemon = world.daemon();
        let id = daemon.new_notebook("").await;
        let flood = peer(&daemon, id).await;
        let mut writers = JoinSet::new();
        writers.spawn(async move {
            let query: bytes::Bytes = Message::Step1(&[0]).encode().into();
            let mut sent = 0_u32;
            while flood.input.send(query.clone()).await.is_ok() {
                sent += 1;
            }
            (flood.output, sent)
        });
        for n in 0..20 {
            daemon.set_source(id, &daemon.notebook(id).await.cells[0].id, &format!("n = {n}")).await;
        }
        assert_eq!(daemon.sources(id).await, ["n = 19"]);
        assert!(writers.try_join_next().is_none(), "it sends on and on");
        daemon.clock.advance(PEER_STALL_MS + 1);
        daemon.until(id, |view| view.peers == 0).await;
        let (_, sent) = writers.join_next().await.unwrap().unwrap();
        assert!(sent > 100, "{sent}");
    });
}

#[test]
fn a_large_paste_goes_beside_the_log_and_comes_back() {
    let world = World::new();
    let text = "z".repeat(3 << 20);
    let id = life(async {
        let daemon = world.daemon();
        let id = daemon.new_notebook("").await;
        let mut editor = joined(&daemon, id, 1).await;
        editor.edit(|txn, cells| {
            let metadata: MapRef = insert_cell(txn, cells, 1, "large", &text);
            metadata.insert(txn, "attachments", MapPrelim::default());
        });
        editor.flush().await;
        editor.sync().await;
        id
    });
    life(async {
        let daemon = world.daemon();
        assert_eq!(daemon.sources(id).await[1], text);
        let editor = joined(&daemon, id, 2).await;
        assert_eq!(editor.cells.len(&yrs::Transact::transact(&editor.doc)), 2);
        assert_eq!(editor.sources()[1], text);
    });
}

/// One client's awareness, as y-protocols has it.
fn awareness(client: u8, clock: u8, state: &str) -> Vec<u8> {
    let mut bytes = vec![1, client, clock, u8::try_from(state.len()).unwrap()];
    bytes.extend_from_slice(state.as_bytes());
    bytes
}
