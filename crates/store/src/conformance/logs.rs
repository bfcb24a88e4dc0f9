//! What every engine promises of logs.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use outlive_core::id::{Position, SessionId};
use outlive_core::limits::{RECORD_BYTES_MAX, TRIM_BYTES_MIN};
use outlive_core::log::fold::{Fold, Verdict};
use outlive_core::log::{Entry, Lane, Record, Request};
use outlive_protocol::log::encode;

use super::records::{claim, data, document, end, journal, one_of_each, open, release, run, session};
use crate::engine::{Durability, Engine, Guard, LaneFilter, ReadLimit};
use crate::error::AppendError;

const ZERO: Position = Position(0);

/// Reads everything there is, page by page.
async fn read_all(engine: &impl Engine, session: SessionId, lanes: &LaneFilter) -> Vec<Entry> {
    let mut all = Vec::new();
    let mut after = ZERO;
    loop {
        let page = engine.read(session, after, lanes, ReadLimit::default()).await.expect("it can be read");
        all.extend(page.entries);
        if page.through == after {
            return all;
        }
        after = page.through;
    }
}

/// The guard that an append to this lane takes from the owner.
fn guard(lane: Lane, claim: Position) -> Guard {
    match lane {
        Lane::Control => Guard::Previous(claim),
        Lane::Requests => Guard::None,
        Lane::Journal | Lane::Document | Lane::Run(_) | Lane::Runtime => Guard::Claim(claim),
    }
}

async fn put(
    engine: &impl Engine,
    session: SessionId,
    lane: Lane,
    at: Position,
    record: &Record,
) -> Position {
    let appended = engine.append(session, lane, guard(lane, at), record, Durability::Written).await;
    appended.expect("the guard holds and there is room")
}

async fn claimed(engine: &impl Engine) -> (SessionId, Position) {
    let session = session();
    let position = put(engine, session, Lane::Control, ZERO, &claim(ZERO, 1)).await;
    (session, position)
}

pub(super) async fn an_empty_session_reads_empty(engine: &impl Engine) {
    let session = session();
    let page = engine
        .read(session, ZERO, &LaneFilter::All, ReadLimit::default())
        .await
        .expect("nothing is no error");
    assert!(page.entries.is_empty() && page.through == ZERO);
    assert_eq!(*engine.head(session).await.expect("a head without a log").borrow(), ZERO);
    assert!(engine.sessions().await.expect("a list").is_empty(), "looking at a session does not make it");
    assert!(engine.dropped(session).await.expect("a list").is_empty());
}

pub(super) async fn every_kind_of_record_comes_back_as_it_was(engine: &impl Engine) {
    let session = session();
    let first = claim(ZERO, 1);
    let position = put(engine, session, Lane::Control, ZERO, &first).await;
    let mut expected = vec![Entry { position, lane: Lane::Control, record: first }];
    for (lane, record) in one_of_each(position, run()) {
        let position = put(engine, session, lane, position, &record).await;
        expected.push(Entry { position, lane, record });
    }
    let last = release(position);
    let position = put(engine, session, Lane::Control, position, &last).await;
    expected.push(Entry { position, lane: Lane::Control, record: last });
    assert_eq!(read_all(engine, session, &LaneFilter::All).await, expected);
    engine.close_session(session).await;
    assert_eq!(read_all(engine, session, &LaneFilter::All).await, expected, "also after it was closed");
}

pub(super) async fn positions_rise_over_all_lanes(engine: &impl Engine) {
    let (session, at) = claimed(engine).await;
    let mut last = at;
    for _ in 0..50 {
        for (lane, record) in one_of_each(at, run()) {
            let position = put(engine, session, lane, at, &record).await;
            assert!(position > last, "{position} after {last}");
            last = position;
        }
    }
    let read = read_all(engine, session, &LaneFilter::All).await;
    assert!(read.windows(2).all(|pair| pair[0].position < pair[1].position), "reading keeps the order");
    assert_eq!(read.len(), 1 + 50 * 9);
}

pub(super) async fn control_is_compare_and_swap(engine: &impl Engine) {
    let (session, first) = claimed(engine).await;
    let append = |previous, record| async move {
        engine.append(session, Lane::Control, Guard::Previous(previous), &record, Durability::Synced).await
    };
    let refused = append(ZERO, claim(ZERO, 1)).await;
    assert!(
        matches!(refused, Err(AppendError::Conflict { last_control }) if last_control == first),
        "{refused:?}"
    );
    put(engine, session, Lane::Journal, first, &journal(first)).await;
    let second = append(first, claim(first, 2)).await.expect("other lanes do not move the control lane");
    let refused = append(first, release(first)).await;
    assert!(
        matches!(refused, Err(AppendError::Conflict { last_control }) if last_control == second),
        "{refused:?}"
    );
    let control = read_all(engine, session, &LaneFilter::Only(vec![Lane::Control])).await;
    assert_eq!(control.iter().map(|entry| entry.position).collect::<Vec<_>>(), [first, second]);
}

pub(super) async fn one_of_many_claimants_wins(engine: &impl Engine) {
    let session = session();
    let claims: Vec<_> = (0..20).map(|_| claim(ZERO, 1)).collect();
    let tries = claims.iter().map(|record| {
        engine.append(session, Lane::Control, Guard::Previous(ZERO), record, Durability::Synced)
    });
    let outcomes = join_all(tries).await;
    let won: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
    assert_eq!(won.len(), 1, "{outcomes:?}");
    for outcome in &outcomes {
        if let Err(error) = outcome {
            let AppendError::Conflict { last_control } = error else { panic!("{error}") };
            assert_eq!(last_control, won[0], "a loser is told who won");
        }
    }
}

pub(super) async fn a_stale_claim_writes_nothing(engine: &impl Engine) {
    let (session, first) = claimed(engine).await;
    let second = put(engine, session, Lane::Control, first, &claim(first, 2)).await;
    let before = read_all(engine, session, &LaneFilter::All).await;
    for (lane, record) in one_of_each(first, run()) {
        if lane == Lane::Requests {
            continue;
        }
        let refused = engine.append(session, lane, Guard::Claim(first), &record, Durability::Written).await;
        assert!(matches!(refused, Err(AppendError::Conflict { last_control }) if last_control == second));
    }
    assert_eq!(read_all(engine, session, &LaneFilter::All).await, before);
    let released = put(engine, session, Lane::Control, second, &release(second)).await;
    let stale = journal(second);
    let refused =
        engine.append(session, Lane::Journal, Guard::Claim(second), &stale, Durability::Written).await;
    assert!(
        matches!(refused, Err(AppendError::Conflict { last_control }) if last_control == released),
        "released"
    );
    // Requests are anybody's, whoever owns the session.
    put(engine, session, Lane::Requests, ZERO, &Record::Request(Request::Interrupt)).await;
}

pub(super) async fn a_record_over_the_limit_is_refused_and_the_largest_is_not(engine: &impl Engine) {
    let (session, at) = claimed(engine).await;
    let overhead = encode(&document(at, Vec::new())).expect("a small record").body.len();
    let largest = document(at, vec![7; RECORD_BYTES_MAX - overhead]);
    let too_large = document(at, vec![7; RECORD_BYTES_MAX - overhead + 1]);
    let append =
        |record| engine.append(session, Lane::Document, Guard::Claim(at), record, Durability::Written);
    let refused = append(&too_large).await;
    let expected = RECORD_BYTES_MAX + 1;
    assert!(
        matches!(refused, Err(AppendError::TooLarge { size, max: RECORD_BYTES_MAX }) if size == expected),
        "{refused:?}"
    );
    let position = append(&largest).await.expect("the largest record fits every engine");
    let page =
        engine.read(session, at, &LaneFilter::All, ReadLimit::default()).await.expect("it can be read");
    assert_eq!(page.entries, [Entry { position, lane: Lane::Document, record: largest }], "nothing is cut");
}

pub(super) async fn a_writer_reads_what_was_acknowledged(engine: &impl Engine) {
    let (session, at) = claimed(engine).await;
    let mut before = at;
    for (n, durability) in [Durability::Written, Durability::Synced].into_iter().cycle().take(40).enumerate()
    {
        let record = document(at, vec![n as u8]);
        let position = engine.append(session, Lane::Document, Guard::Claim(at), &record, durability).await;
        let position = position.expect("the guard holds");
        let page =
            engine.read(session, before, &LaneFilter::All, ReadLimit::default()).await.expect("readable");
        assert_eq!(page.entries, [Entry { position, lane: Lane::Document, record }]);
        assert!(page.through >= position);
        before = position;
    }
}

pub(super) async fn a_reader_never_sees_the_past_change(engine: &impl Engine) {
    let (session, at) = claimed(engine).await;
    let records: Vec<_> = (0..300_u32).map(|n| document(at, n.to_le_bytes().to_vec())).collect();
    let writers = join_all(records.iter().enumerate().map(|(n, record)| {
        let durability = if n % 3 == 0 { Durability::Synced } else { Durability::Written };
        engine.append(session, Lane::Document, Guard::Claim(at), record, durability)
    }));
    let reader = async {
        let mut head = engine.head(session).await.expect("a head");
        let mut seen = Vec::new();
        let mut after = at;
        while seen.len() < records.len() {
            let upto = *head.wait_for(|head| *head > after).await.expect("the session stays");
            let page =
                engine.read(session, after, &LaneFilter::All, ReadLimit::default()).await.expect("readable");
            assert!(page.through >= upto, "the head only shows what can be read");
            after = page.through;
            seen.extend(page.entries);
        }
        seen
    };
    let (written, seen) = tokio::join!(writers, reader);
    let written: BTreeSet<_> =
        written.into_iter().map(|position| position.expect("the guard holds")).collect();
    assert_eq!(written.len(), records.len(), "each has its own position");
    // Read along the way and read at the end are the same: nothing was inserted behind a reader's back.
    assert_eq!(seen, read_all(engine, session, &LaneFilter::Only(vec![Lane::Document])).await);
    assert_eq!(seen.iter().map(|entry| entry.position).collect::<BTreeSet<_>>(), written);
}

pub(super) async fn pages_are_bounded_and_filtered(engine: &impl Engine) {
    let (session, at) = claimed(engine).await;
    let run = run();
    put(engine, session, Lane::Run(run), at, &open(at, 1)).await;
    for n in 1..=100 {
        put(engine, session, Lane::Run(run), at, &data(at, n, &"x".repeat(1_000))).await;
        put(engine, session, Lane::Document, at, &document(at, vec![1; 5_000])).await;
    }
    let lanes = LaneFilter::Only(vec![Lane::Control, Lane::Run(run)]);
    let mut after = ZERO;
    let mut read = Vec::new();
    loop {
        let limit = ReadLimit { records: 7, bytes: 3_000 };
        let page = engine.read(session, after, &lanes, limit).await.expect("readable");
        let bytes: usize =
            page.entries.iter().map(|e| encode(&e.record).expect("it was read").body.len()).sum();
        assert!(page.entries.len() <= 7 && (bytes <= 3_000 || page.entries.len() == 1), "{bytes} bytes");
        assert!(page.entries.last().is_none_or(|entry| entry.position <= page.through));
        if page.through == after {
            break;
        }
        after = page.through;
        read.extend(page.entries);
    }
    assert_eq!(read.len(), 102);
    assert!(read.iter().all(|entry| lanes.wants(entry.lane)));
    let tiny = ReadLimit { records: 1, bytes: 1 };
    let page = engine.read(session, ZERO, &LaneFilter::All, tiny).await.expect("readable");
    assert_eq!(page.entries.len(), 1, "a page holds at least one record, however small the limit");
}

pub(super) async fn the_head_tells_of_each_append(engine: &impl Engine) {
    let session = session();
    let mut head = engine.head(session).await.expect("a head before the first record");
    let at = put(engine, session, Lane::Control, ZERO, &claim(ZERO, 1)).await;
    head.changed().await.expect("the session is there");
    assert_eq!(*head.borrow_and_update(), at);
    let next =
        engine.append(session, Lane::Journal, Guard::Claim(at), &journal(at), Durability::Synced).await;
    head.changed().await.expect("the session is there");
    assert_eq!(*head.borrow_and_update(), next.expect("the guard holds"));
    engine.drop_session(session).await.expect("it can be dropped");
    while head.changed().await.is_ok() {}
}

pub(super) async fn sessions_are_apart_and_can_be_dropped(engine: &impl Engine) {
    let (one, at_one) = claimed(engine).await;
    let (two, at_two) = claimed(engine).await;
    put(engine, one, Lane::Document, at_one, &document(at_one, vec![1; 10_000])).await;
    put(engine, two, Lane::Document, at_two, &document(at_two, vec![2; 10])).await;
    let mut both = [one, two];
    both.sort_unstable();
    assert_eq!(engine.sessions().await.expect("a list"), both);
    assert!(engine.usage(one).await.expect("a size").log_bytes > 10_000);
    assert!(engine.usage(two).await.expect("a size").log_bytes < 10_000);
    engine.drop_session(one).await.expect("it can be dropped");
    assert_eq!(engine.sessions().await.expect("a list"), [two]);
    assert!(read_all(engine, one, &LaneFilter::All).await.is_empty());
    assert_eq!(read_all(engine, two, &LaneFilter::All).await.len(), 2);
    let stale = journal(at_one);
    let refused = engine.append(one, Lane::Journal, Guard::Claim(at_one), &stale, Durability::Written);
    assert!(
        matches!(refused.await, Err(AppendError::Conflict { last_control: ZERO })),
        "its owner is fenced"
    );
    engine.drop_session(one).await.expect("nothing is left to drop");
}

pub(super) async fn a_closed_session_goes_on(engine: &impl Engine) {
    let (session, at) = claimed(engine).await;
    for n in 0..20 {
        let position = put(engine, session, Lane::Document, at, &document(at, vec![n])).await;
        engine.close_session(session).await;
        let page =
            engine.read(session, ZERO, &LaneFilter::All, ReadLimit::default()).await.expect("readable");
        assert_eq!(page.entries.last().map(|entry| entry.position), Some(position));
        assert_eq!(page.entries.len(), usize::from(n) + 2);
    }
    engine.flush().await.expect("it can be made durable");
}

pub(super) async fn trimming_takes_one_lane_only(engine: &impl Engine) {
    let (session, at) = claimed(engine).await;
    for n in 1..=20 {
        put(engine, session, Lane::Document, at, &document(at, vec![n; 100])).await;
        put(engine, session, Lane::Journal, at, &journal(at)).await;
    }
    let before = read_all(engine, session, &LaneFilter::All).await;
    let middle = before[20].position;
    engine.trim(session, &[Lane::Document].into(), middle).await.expect("it can be trimmed");
    engine.trim(session, &[Lane::Control].into(), middle).await.expect("to no effect");
    let after = read_all(engine, session, &LaneFilter::All).await;
    // An engine may trim less than it was told to, never more.
    let must_stay = |entry: &&Entry| entry.lane != Lane::Document || entry.position >= middle;
    let stays = |entries: &[Entry]| entries.iter().filter(must_stay).cloned().collect::<Vec<_>>();
    assert_eq!(stays(&after), stays(&before));
    assert!(after.iter().all(|entry| before.contains(entry)));
    put(engine, session, Lane::Journal, at, &journal(at)).await;
}

pub(super) async fn trimming_takes_several_runs_at_once_and_no_other(engine: &impl Engine) {
    let (session, at) = claimed(engine).await;
    let lanes: Vec<_> = (0..3).map(|_| Lane::Run(run())).collect();
    for _ in 0..5 {
        for lane in &lanes {
            put(engine, session, *lane, at, &open(at, 1)).await;
        }
        put(engine, session, Lane::Journal, at, &journal(at)).await;
    }
    let before = read_all(engine, session, &LaneFilter::All).await;
    let (gone, kept) = ([lanes[0], lanes[2]], before.last().expect("there is one").position);
    engine.trim(session, &gone.into(), kept).await.expect("they can be trimmed");
    let after = read_all(engine, session, &LaneFilter::All).await;
    let stays = |entries: &[Entry]| {
        entries.iter().filter(|entry| !gone.contains(&entry.lane)).cloned().collect::<Vec<_>>()
    };
    assert_eq!(stays(&after), stays(&before));
    assert!(after.iter().all(|entry| before.contains(entry)));
    put(engine, session, lanes[1], at, &open(at, 1)).await;
}

pub(super) async fn trimming_a_document_frees_its_space(engine: &impl Engine) {
    let (session, at) = claimed(engine).await;
    put(engine, session, Lane::Journal, at, &journal(at)).await;
    // Ten times: edits, then a snapshot that makes those before it superfluous.
    let edits = usize::try_from(TRIM_BYTES_MIN).expect("it is small") / 20_000;
    let mut most = 0;
    let mut expected = None;
    for round in 1..=10 {
        for _ in 0..2 * edits {
            put(engine, session, Lane::Document, at, &document(at, vec![round; 20_000])).await;
        }
        let snapshot = document(at, vec![round; 50_000]);
        let position = put(engine, session, Lane::Document, at, &snapshot).await;
        put(engine, session, Lane::Journal, at, &journal(at)).await;
        let freed =
            engine.trim(session, &[Lane::Document].into(), position).await.expect("it can be trimmed");
        assert!(freed >= TRIM_BYTES_MIN, "{freed} bytes in round {round}");
        most = most.max(engine.usage(session).await.expect("a size").log_bytes);
        expected = Some((position, snapshot));
    }
    assert!(most < 4 * TRIM_BYTES_MIN, "{most} bytes: it grows with the number of edits");
    for reopened in [false, true] {
        if reopened {
            engine.close_session(session).await;
        }
        let entries = read_all(engine, session, &LaneFilter::All).await;
        assert_eq!(entries.iter().filter(|entry| entry.lane == Lane::Journal).count(), 11);
        let last = entries.iter().rfind(|entry| entry.lane == Lane::Document);
        assert_eq!(last.map(|entry| (entry.position, entry.record.clone())), expected);
    }
}

pub(super) async fn the_fold_of_what_was_written_counts_all_of_it(engine: &impl Engine) {
    let (session, at) = claimed(engine).await;
    let run = run();
    put(engine, session, Lane::Run(run), at, &open(at, 1)).await;
    for n in 1..=30 {
        put(engine, session, Lane::Run(run), at, &data(at, n, "line\n")).await;
    }
    put(engine, session, Lane::Run(run), at, &end(at, 30)).await;
    let mut fold = Fold::default();
    for entry in read_all(engine, session, &LaneFilter::All).await {
        let verdict = fold.push(&entry);
        assert!(matches!(verdict, Verdict::Counted(_)), "{entry:?}: {verdict:?}");
    }
    assert!(fold.is_current(at));
    assert!(fold.run(run).is_some_and(|run| run.ended().is_some()));
}
