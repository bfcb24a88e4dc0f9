//! The fold against a model that is written the other way round: it keeps the outputs themselves.
//!
//! Nodes claim, write and retry from what they last read of the log, and the log admits everything that reaches it, in
//! any order, twice or never: worse than any engine. Whatever comes of it, every reader ends with the same output.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use std::collections::BTreeMap;

use outlive_core::id::{
    Attempt, BootId, Cursor, Epoch, Incarnation, NodeId, Position, ProcessKey, RunId, RuntimeId, Seq, Src,
};
use outlive_core::log::fold::{AlarmWhy, Effect, Fold, Ownership, Verdict, VoidWhy};
use outlive_core::log::follow::{Follower, Step};
use outlive_core::log::record::ControlChange;
use outlive_core::log::{
    Chunk, ChunkKind, Control, Entry, Fenced, FencedBody, Lane, Payload, Record, RunRecord, Source,
};
use outlive_core::session::event::Happened;
use outlive_core::session::{RunOutcome, SessionEvent};
use outlive_core::time::WallTime;
use proptest::prelude::*;
use uuid::Uuid;

const NODES: usize = 3;
const RUNS: usize = 2;

fn node(n: usize) -> NodeId {
    NodeId::from_uuid(Uuid::from_u128(n as u128 + 1))
}

fn run(n: usize) -> RunId {
    RunId::from_uuid(Uuid::from_u128(n as u128 + 100))
}

fn process(n: usize) -> ProcessKey {
    ProcessKey {
        runtime: RuntimeId::from_uuid(Uuid::from_u128(n as u128 + 200)),
        incarnation: Incarnation(1),
    }
}

fn control(prev: Position, change: ControlChange) -> Record {
    Record::Control(Control { prev, change })
}

fn claim(prev: Position, epoch: Epoch, n: usize) -> Record {
    control(prev, ControlChange::Claim { epoch, node: node(n), boot: BootId::from_uuid(Uuid::from_u128(7)) })
}

fn fenced(claim: Position, body: RunRecord) -> Record {
    Record::Fenced(Fenced { claim, source: None, body: FencedBody::Run(body) })
}

fn chunks(texts: &[String]) -> Vec<Chunk> {
    texts.iter().map(|t| Chunk::inline(ChunkKind::Stdout, WallTime(0), t.as_bytes())).collect()
}

fn text(chunk: &Chunk) -> String {
    match &chunk.payload {
        Payload::Inline(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        Payload::Blob(_) => unreachable!("these tests make no blobs"),
    }
}

fn open(attempt: u64, base: u64) -> RunRecord {
    RunRecord::Open { attempt: Attempt(attempt), base: Seq(base), at: WallTime(0) }
}

fn data(attempt: u64, first: u64, texts: &[&str]) -> RunRecord {
    let texts: Vec<_> = texts.iter().map(|t| (*t).to_owned()).collect();
    RunRecord::Data { attempt: Attempt(attempt), first: Seq(first), chunks: chunks(&texts) }
}

fn end(attempt: u64, last_seq: u64) -> RunRecord {
    RunRecord::End {
        attempt: Attempt(attempt),
        outcome: RunOutcome::Succeeded,
        last_seq: Seq(last_seq),
        report: None,
        execution_count: None,
        at: WallTime(0),
    }
}

/// A log that admits everything.
#[derive(Default, Clone)]
struct Log(Vec<Entry>);

impl Log {
    fn append(&mut self, lane: Lane, record: Record) -> Position {
        // Positions may skip.
        let position =
            Position(self.0.last().map_or(0, |entry| entry.position.0) + 1 + self.0.len() as u64 % 3);
        self.0.push(Entry { position, lane, record });
        position
    }

    fn fold(&self) -> Fold {
        let mut fold = Fold::default();
        for entry in &self.0 {
            fold.push(entry);
        }
        fold
    }
}

// ---- the model -------------------------------------------------------------------------------------------------

#[derive(Default, PartialEq, Debug)]
struct ModelRun {
    attempt: u64,
    output: Vec<String>,
    ends: u64,
}

/// What a log means, by keeping everything.
#[derive(Default)]
struct Model {
    runs: BTreeMap<RunId, ModelRun>,
    owner: Option<Position>,
    last_control: Position,
    epoch: u64,
    owners: BTreeMap<u64, Position>,
    acked: BTreeMap<ProcessKey, Src>,
}

impl Model {
    fn of(log: &Log) -> Self {
        let mut model = Self::default();
        for entry in &log.0 {
            match &entry.record {
                Record::Control(control) => model.control(entry.position, control),
                Record::Fenced(fenced) if model.owner == Some(fenced.claim) => {
                    model.fenced(entry.lane, fenced)
                }
                _ => {}
            }
        }
        model
    }

    fn control(&mut self, position: Position, control: &Control) {
        if control.prev != self.last_control {
            return;
        }
        match control.change {
            ControlChange::Claim { epoch, .. } if epoch.0 == self.epoch + 1 => {
                self.epoch += 1;
                self.owner = Some(position);
                assert!(self.owners.insert(self.epoch, position).is_none(), "one owner for each epoch");
            }
            ControlChange::Release { claim, .. } | ControlChange::Close { claim }
                if self.owner == Some(claim) =>
            {
                self.owner = None;
            }
            _ => return,
        }
        self.last_control = position;
    }

    fn fenced(&mut self, lane: Lane, fenced: &Fenced) {
        let (Lane::Run(id), FencedBody::Run(record)) = (lane, &fenced.body) else { return };
        let state = self.runs.entry(id).or_default();
        if state.ends > 0 {
            return;
        }
        let head = state.output.len() as u64;
        let counted = match record {
            RunRecord::Open { attempt, base, .. } if attempt.0 == state.attempt + 1 && base.0 <= head => {
                state.attempt += 1;
                state.output.truncate(base.0 as usize);
                true
            }
            RunRecord::Data { attempt, first, chunks } if attempt.0 == state.attempt && state.attempt > 0 => {
                let mut new = false;
                for (i, chunk) in chunks.iter().enumerate() {
                    if first.0 + i as u64 == state.output.len() as u64 + 1 {
                        state.output.push(text(chunk));
                        new = true;
                    }
                }
                new
            }
            RunRecord::End { attempt, last_seq, .. } if attempt.0 == state.attempt && last_seq.0 == head => {
                state.ends += 1;
                true
            }
            _ => false,
        };
        if let (true, Some(source)) = (counted, fenced.source) {
            let acked = self.acked.entry(source.process).or_default();
            *acked = source.through.max(*acked);
        }
    }
}

// ---- what happens ----------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug)]
enum Act {
    /// A node reads the whole log.
    Read,
    Claim,
    Release,
    /// Opens the next attempt, keeping so many tenths of the output.
    Open(u64),
    /// Writes so many chunks, the first ones of which are there already.
    Data {
        n: u64,
        overlap: u64,
    },
    End,
    /// The oldest record that a node has made reaches the log.
    Deliver,
    /// The newest record overtakes the others.
    Overtake,
    /// A record that the log has, or a node has made, arrives again.
    Again(usize),
}

fn act() -> impl Strategy<Value = (usize, usize, Act)> {
    let act = prop_oneof![
        3 => Just(Act::Read),
        3 => Just(Act::Claim),
        1 => Just(Act::Release),
        3 => (0..=10_u64).prop_map(Act::Open),
        10 => (1..5_u64, 0..3_u64).prop_map(|(n, overlap)| Act::Data { n, overlap }),
        1 => Just(Act::End),
        20 => Just(Act::Deliver),
        2 => Just(Act::Overtake),
        3 => any::<usize>().prop_map(Act::Again),
    ];
    (0..NODES, 0..RUNS, act)
}

/// One node: what it believes, and what it has sent.
#[derive(Default)]
struct Node {
    /// What it last read, and what it has added since, as if all of it had arrived.
    belief: Fold,
    outbox: Vec<(Lane, Record)>,
    src: u64,
}

impl Node {
    fn send(&mut self, lane: Lane, record: Record) {
        self.belief.push(&Entry { position: self.belief.position().next(), lane, record: record.clone() });
        self.outbox.push((lane, record));
    }
}

fn play(acts: &[(usize, usize, Act)]) -> Log {
    let mut log = Log::default();
    let mut nodes: Vec<Node> = (0..NODES).map(|_| Node::default()).collect();
    for (step, (n, r, act)) in acts.iter().enumerate() {
        let me = &mut nodes[*n];
        let fold = &me.belief;
        let lane = Lane::Run(run(*r));
        let state = fold.run(run(*r)).cloned().unwrap_or_default();
        // A node that was not told otherwise writes under the last claim that it made or heard of.
        let mine = fold.claim().map_or(Position(0), |claim| claim.position);
        match act {
            Act::Read => me.belief = log.fold(),
            Act::Claim => {
                let record = claim(fold.control_prev(), fold.epoch().next(), *n);
                me.send(Lane::Control, record);
            }
            Act::Release => {
                let release = control(fold.control_prev(), ControlChange::Release { claim: mine, to: None });
                me.send(Lane::Control, release);
            }
            Act::Open(tenths) => {
                me.send(lane, fenced(mine, open(state.attempt().0 + 1, state.head().0 * tenths / 10)));
            }
            Act::Data { n: count, overlap } => {
                let first = (state.head().0 + 1).saturating_sub(*overlap).max(1);
                let texts: Vec<_> = (0..*count)
                    .map(|i| format!("node {n} attempt {} step {step} seq {}", state.attempt(), first + i))
                    .collect();
                me.src += 1;
                let body =
                    RunRecord::Data { attempt: state.attempt(), first: Seq(first), chunks: chunks(&texts) };
                let source = Some(Source { process: process(*n), through: Src(me.src) });
                me.send(lane, Record::Fenced(Fenced { claim: mine, source, body: FencedBody::Run(body) }));
            }
            Act::End => me.send(lane, fenced(mine, end(state.attempt().0, state.head().0))),
            Act::Deliver if !me.outbox.is_empty() => {
                let (lane, record) = me.outbox.remove(0);
                log.append(lane, record);
                // Whoever claims reads the log up to its claim before it does anything else.
                if lane == Lane::Control {
                    me.belief = log.fold();
                    me.outbox.clear();
                }
            }
            Act::Overtake => {
                if let Some((lane, record)) = me.outbox.pop() {
                    log.append(lane, record);
                }
            }
            Act::Again(which) if !log.0.is_empty() => {
                let Entry { lane, record, .. } = log.0[which % log.0.len()].clone();
                log.append(lane, record);
            }
            Act::Deliver | Act::Again(_) => {}
        }
    }
    log
}

/// A reader of one run: what it was given, and its cursor.
#[derive(Default)]
struct Reader {
    output: Vec<String>,
    attempt: Attempt,
    ended: bool,
}

impl Reader {
    /// Connects when the log has `known` records, reads up to `upto` of them, and is cut off.
    fn connect(&mut self, log: &Log, id: RunId, known: usize, upto: usize) {
        let mut so_far = Fold::default();
        for entry in &log.0[..known] {
            so_far.push(entry);
        }
        let known = so_far.run(id).cloned().unwrap_or_default();
        let cursor = Cursor { attempt: self.attempt, seq: Seq(self.output.len() as u64) };
        let seen = known.attempt();
        let (mut follower, resume) = Follower::new(id, known, cursor);
        assert_eq!(resume.reset, resume.keep < cursor.seq);
        self.output.truncate(resume.keep.0 as usize);
        let mut fold = Fold::default();
        for entry in &log.0[..upto] {
            if let Verdict::Counted(effect) = fold.push(entry) {
                let step = follower.push(&effect);
                if let (Step::Reset { .. }, Effect::Opened { attempt, .. }) = (step, effect) {
                    assert!(attempt > seen, "what was known when it connected is not told again");
                }
                self.step(step, entry);
            }
        }
        self.attempt = follower.cursor().attempt;
        assert_eq!(follower.cursor().seq.0, self.output.len() as u64);
    }

    fn step(&mut self, step: Step, entry: &Entry) {
        match step {
            Step::Nothing => {}
            Step::Reset { keep } => {
                assert!((keep.0 as usize) < self.output.len(), "a reset is told only to who has more");
                self.output.truncate(keep.0 as usize);
            }
            Step::Take { attempt: _, first, skip, n } => {
                assert!(!self.ended, "nothing comes after the end");
                assert_eq!(first.0, self.output.len() as u64 + 1, "nothing twice, nothing missing");
                let Record::Fenced(Fenced { body: FencedBody::Run(RunRecord::Data { chunks, .. }), .. }) =
                    &entry.record
                else {
                    panic!("output comes from data: {entry:?}")
                };
                let taken = &chunks[skip as usize..(skip + n) as usize];
                self.output.extend(taken.iter().map(text));
            }
            Step::End => self.ended = true,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    // E12 (the part of it that the fold decides)
    #[test]
    fn every_reader_ends_with_what_the_log_means(
        acts in proptest::collection::vec(act(), 0..150),
        visits in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..6),
    ) {
        let log = play(&acts);
        let model = Model::of(&log);
        let fold = log.fold();
        for r in 0..RUNS {
            let id = run(r);
            let expected = model.runs.get(&id);
            let output: &[String] = expected.map_or(&[], |run| &run.output);
            let state = fold.run(id).cloned().unwrap_or_default();
            prop_assert_eq!(state.head().0, output.len() as u64);
            prop_assert_eq!(state.attempt().0, expected.map_or(0, |run| run.attempt));
            prop_assert_eq!(state.ended().is_some(), expected.is_some_and(|run| run.ends == 1));
            let mut reader = Reader::default();
            for (known, upto) in &visits {
                let known = known.index(log.0.len() + 1);
                // A reader sees at least what its state was made from.
                let upto = known + upto.index(log.0.len() - known + 1);
                reader.connect(&log, id, known, upto);
                if reader.ended {
                    break;
                }
            }
            if !reader.ended {
                reader.connect(&log, id, log.0.len(), log.0.len());
            }
            prop_assert_eq!(&reader.output[..], output);
            prop_assert_eq!(reader.ended, state.ended().is_some());
        }
        for n in 0..NODES {
            prop_assert_eq!(fold.acked(process(n)), model.acked.get(&process(n)).copied().unwrap_or_default());
        }
        prop_assert_eq!(fold.claim().map(|claim| claim.position), model.owner);
        prop_assert_eq!(fold.epoch().0, model.epoch);
    }

    #[test]
    fn what_counts_was_written_by_the_owner_and_ends_once(acts in proptest::collection::vec(act(), 0..150)) {
        let log = play(&acts);
        let mut fold = Fold::default();
        let mut ended = BTreeMap::new();
        let mut epochs = BTreeMap::new();
        for entry in &log.0 {
            let owner = fold.claim();
            match (fold.push(entry), &entry.record) {
                (Verdict::Counted(Effect::Claimed(claim)), _) => {
                    prop_assert!(epochs.insert(claim.epoch, claim.position).is_none(), "one claim for each epoch");
                }
                (Verdict::Counted(effect), Record::Fenced(fenced)) => {
                    prop_assert_eq!(Some(fenced.claim), owner.map(|claim| claim.position));
                    let Lane::Run(id) = entry.lane else { continue };
                    prop_assert!(!ended.contains_key(&id), "nothing of a run counts after its end");
                    if matches!(effect, Effect::Ended { .. }) {
                        ended.insert(id, entry.position);
                    }
                }
                _ => {}
            }
        }
    }

    #[test]
    fn pages_may_overlap_and_other_lanes_may_be_left_out(
        acts in proptest::collection::vec(act(), 0..120),
        overlap in 0..5_usize,
    ) {
        let log = play(&acts);
        let whole = log.fold();
        let mut paged = Fold::default();
        for start in 0..log.0.len() {
            for entry in &log.0[start.saturating_sub(overlap)..=start] {
                paged.push(entry);
            }
        }
        prop_assert_eq!(&paged, &whole);
        let mut filtered = Fold::default();
        for entry in log.0.iter().filter(|entry| [Lane::Control, Lane::Run(run(0))].contains(&entry.lane)) {
            filtered.push(entry);
        }
        prop_assert_eq!(filtered.run(run(0)), whole.run(run(0)));
        prop_assert_eq!(filtered.ownership(), whole.ownership());
    }

    #[test]
    fn whatever_happened_the_next_owner_can_finish(acts in proptest::collection::vec(act(), 0..150)) {
        let mut log = play(&acts);
        let fold = log.fold();
        let prev = fold.control_prev();
        let mine = log.append(Lane::Control, claim(prev, fold.epoch().next(), 0));
        for r in 0..RUNS {
            let state = fold.run(run(r)).cloned().unwrap_or_default();
            if state.ended().is_some() {
                continue;
            }
            let (attempt, head) = (state.attempt().0 + 1, state.head().0);
            log.append(Lane::Run(run(r)), fenced(mine, open(attempt, head)));
            log.append(Lane::Run(run(r)), fenced(mine, data(attempt, head + 1, &["last"])));
            log.append(Lane::Run(run(r)), fenced(mine, end(attempt, head + 1)));
        }
        let fold = log.fold();
        prop_assert!(fold.is_current(mine));
        prop_assert!(fold.runs().all(|(_, run)| run.ended().is_some()));
        prop_assert_eq!(fold.runs().count(), RUNS);
    }
}

// ---- the rules, one by one -------------------------------------------------------------------------------------

/// A log that one node owns, and the claim's position.
fn owned() -> (Log, Position) {
    let mut log = Log::default();
    let mine = log.append(Lane::Control, claim(Position(0), Epoch(1), 0));
    (log, mine)
}

/// What the fold says of each record of a run, all written by the owner.
fn verdicts(records: Vec<RunRecord>) -> Vec<Verdict> {
    let (mut log, mine) = owned();
    for record in records {
        log.append(Lane::Run(run(0)), fenced(mine, record));
    }
    let mut fold = Fold::default();
    log.0.iter().map(|entry| fold.push(entry)).skip(1).collect()
}

fn appended(attempt: u64, first: u64, skip: u64, n: u64) -> Verdict {
    Verdict::Counted(Effect::Appended { run: run(0), attempt: Attempt(attempt), first: Seq(first), skip, n })
}

fn opened(attempt: u64, base: u64, from: u64) -> Verdict {
    let (attempt, base, truncated_from) = (Attempt(attempt), Seq(base), Seq(from));
    Verdict::Counted(Effect::Opened { run: run(0), attempt, base, truncated_from })
}

#[test]
fn retries_are_ignored_overlaps_count_with_what_is_new_and_holes_raise_an_alarm() {
    let said = verdicts(vec![
        data(0, 1, &["before any open"]),
        open(1, 0),
        data(1, 1, &["a", "b"]),
        data(1, 1, &["a", "b"]),
        data(1, 2, &["b", "c", "d"]),
        data(1, 6, &["f"]),
        data(2, 5, &["of an attempt that is not open"]),
        data(1, 5, &[]),
        data(1, 5, &["e"]),
    ]);
    let hole = AlarmWhy::Hole { head: Seq(4), found: Seq(6) };
    assert_eq!(
        said,
        [
            Verdict::Void(VoidWhy::WrongAttempt),
            opened(1, 0, 0),
            appended(1, 1, 0, 2),
            Verdict::Void(VoidWhy::Retry),
            appended(1, 3, 1, 2),
            Verdict::Alarm(hole),
            Verdict::Void(VoidWhy::WrongAttempt),
            Verdict::Void(VoidWhy::Retry),
            appended(1, 5, 0, 1),
        ]
    );
}

#[test]
fn a_journal_record_that_is_stored_twice_counts_once() {
    let (mut log, claim) = owned();
    for at in [1, 1, 2, 2, 1] {
        let event = SessionEvent { at: WallTime(at), what: Happened::Settled };
        let body = FencedBody::Journal(vec![event]);
        log.append(Lane::Journal, Record::Fenced(Fenced { claim, source: None, body }));
    }
    let mut fold = Fold::default();
    let verdicts: Vec<_> = log.0.iter().map(|entry| fold.push(entry)).skip(1).collect();
    let (counted, retry) = (Verdict::Counted(Effect::Journal), Verdict::Void(VoidWhy::Retry));
    assert_eq!(verdicts, [counted.clone(), retry.clone(), counted.clone(), retry, counted]);
}

#[test]
fn an_open_cuts_the_output_back_to_its_base() {
    let said = verdicts(vec![
        open(1, 0),
        data(1, 1, &["a", "b", "c"]),
        open(2, 4),
        open(3, 1),
        open(1, 0),
        open(2, 1),
        data(1, 4, &["of the attempt before"]),
        data(2, 2, &["B"]),
    ]);
    assert_eq!(
        said[2..],
        [
            Verdict::Alarm(AlarmWhy::BaseBeyondHead { head: Seq(3), base: Seq(4) }),
            Verdict::Void(VoidWhy::WrongAttempt),
            Verdict::Void(VoidWhy::Retry),
            opened(2, 1, 3),
            Verdict::Void(VoidWhy::WrongAttempt),
            appended(2, 2, 0, 1),
        ]
    );
}

#[test]
fn the_first_end_at_the_head_is_final() {
    let ended = Verdict::Counted(Effect::Ended { run: run(0), attempt: Attempt(1), last_seq: Seq(1) });
    let said = verdicts(vec![open(1, 0), data(1, 1, &["a"]), end(1, 0), end(1, 1), end(1, 1), open(2, 0)]);
    assert_eq!(
        said[2..],
        [
            Verdict::Alarm(AlarmWhy::EndNotAtHead { head: Seq(1), last_seq: Seq(0) }),
            ended,
            Verdict::Void(VoidWhy::RunEnded),
            Verdict::Void(VoidWhy::RunEnded),
        ]
    );
}

#[test]
fn a_run_that_was_cancelled_before_it_began_can_end() {
    let said = verdicts(vec![end(0, 0)]);
    let ended = Effect::Ended { run: run(0), attempt: Attempt(0), last_seq: Seq(0) };
    assert_eq!(said, [Verdict::Counted(ended)]);
}

#[test]
fn a_checkpoint_of_output_that_was_cut_off_is_gone() {
    let checkpoint =
        |attempt, seq| RunRecord::Checkpoint { attempt: Attempt(attempt), seq: Seq(seq), blob: None };
    let (mut log, mine) = owned();
    let mut at = |record| {
        log.append(Lane::Run(run(0)), fenced(mine, record));
        let state = log.fold().run(run(0)).cloned().unwrap();
        state.checkpoint().map(|checkpoint| checkpoint.seq.0)
    };
    at(open(1, 0));
    assert_eq!(at(data(1, 1, &["a", "b", "c"])), None);
    assert_eq!(at(checkpoint(1, 4)), None, "beyond the head");
    assert_eq!(at(checkpoint(1, 2)), Some(2));
    assert_eq!(at(checkpoint(1, 1)), Some(2), "an older one is a retry");
    assert_eq!(at(open(2, 2)), Some(2), "the attempt goes on from it");
    assert_eq!(at(open(3, 1)), None);
}

#[test]
fn a_cursor_keeps_what_no_later_attempt_has_cut_off() {
    let (mut log, mine) = owned();
    for record in [
        open(1, 0),
        data(1, 1, &["a", "b", "c", "d"]),
        open(2, 2),
        data(2, 3, &["C", "D", "E"]),
        open(3, 4),
        data(3, 5, &["E3"]),
    ] {
        log.append(Lane::Run(run(0)), fenced(mine, record));
    }
    let fold = log.fold();
    let state = fold.run(run(0)).unwrap();
    let keep = |attempt, seq| {
        let resume = state.resume(Cursor { attempt: Attempt(attempt), seq: Seq(seq) });
        (resume.keep.0, resume.reset)
    };
    assert_eq!(keep(0, 0), (0, false), "a new reader");
    assert_eq!(keep(1, 1), (1, false));
    assert_eq!(keep(1, 4), (2, true));
    assert_eq!(keep(2, 4), (4, false), "continuing is invisible");
    assert_eq!(keep(2, 5), (4, true));
    assert_eq!(keep(3, 5), (5, false));
    assert_eq!(keep(3, 9), (5, true), "past the head: power was lost");
    assert_eq!(keep(4, 5), (0, true), "an attempt that the log does not have");
}

#[test]
fn a_claim_that_was_admitted_beside_another_is_void_and_so_is_what_it_writes() {
    let (mut log, mine) = owned();
    let other = log.append(Lane::Control, claim(Position(0), Epoch(1), 1));
    log.append(Lane::Run(run(0)), fenced(other, open(1, 0)));
    log.append(Lane::Run(run(0)), fenced(mine, open(1, 0)));
    let mut fold = Fold::default();
    let said: Vec<_> = log.0.iter().map(|entry| fold.push(entry)).skip(1).collect();
    let stale = Verdict::Void(VoidWhy::StaleClaim);
    assert_eq!(said, [Verdict::Void(VoidWhy::LostRace), stale, opened(1, 0, 0)]);
    assert!(fold.is_current(mine));
    // The owner can go on: the engine compares with what is stored, the fold with what counts.
    assert_eq!((fold.control_guard(), fold.control_prev()), (other, mine));
}

#[test]
fn a_claim_counts_only_with_the_next_epoch() {
    for epoch in [0, 1, 3] {
        let (mut log, mine) = owned();
        log.append(Lane::Control, claim(mine, Epoch(epoch), 1));
        let fold = log.fold();
        assert!(fold.is_current(mine) && fold.epoch() == Epoch(1), "epoch {epoch}");
    }
}

#[test]
fn after_a_release_only_a_new_claim_writes() {
    let (mut log, mine) = owned();
    let released =
        log.append(Lane::Control, control(mine, ControlChange::Release { claim: mine, to: Some(node(2)) }));
    log.append(Lane::Run(run(0)), fenced(mine, open(1, 0)));
    let mut fold = log.fold();
    assert_eq!(fold.ownership(), Ownership::Released { to: Some(node(2)) });
    assert!(fold.run(run(0)).is_none());
    let next = log.append(Lane::Control, claim(released, Epoch(2), 2));
    fold.push(log.0.last().unwrap());
    assert_eq!(fold.claim().map(|claim| (claim.position, claim.node)), Some((next, node(2))));
    let close = log.append(Lane::Control, control(next, ControlChange::Close { claim: mine }));
    assert_eq!(fold.push(log.0.last().unwrap()), Verdict::Void(VoidWhy::StaleClaim));
    assert_eq!((fold.control_prev(), fold.control_guard()), (next, close));
}

#[test]
fn a_record_on_a_lane_that_is_not_its_own_is_void() {
    let (mut log, mine) = owned();
    log.append(Lane::Journal, fenced(mine, open(1, 0)));
    log.append(Lane::Runtime, claim(mine, Epoch(2), 1));
    log.append(Lane::Journal, Record::Unknown { kind: 99 });
    let mut fold = Fold::default();
    let said: Vec<_> = log.0.iter().map(|entry| fold.push(entry)).skip(1).collect();
    let wrong = Verdict::Void(VoidWhy::WrongLane);
    assert_eq!(said, [wrong.clone(), wrong, Verdict::Void(VoidWhy::UnknownKind)]);
    assert!(fold.is_current(mine));
}

#[test]
fn who_reads_one_run_alone_may_begin_before_its_first_record() {
    let (mut log, mine) = owned();
    for n in 0..3 {
        let lane = Lane::Run(run(n));
        log.append(lane, fenced(mine, open(1, 0)));
        log.append(lane, fenced(mine, data(1, 1, &["a"])));
    }
    let next = log.append(Lane::Control, claim(mine, Epoch(2), 2));
    log.append(Lane::Run(run(1)), fenced(mine, data(1, 2, &["void"])));
    log.append(Lane::Run(run(1)), fenced(next, data(1, 2, &["b", "c"])));
    log.append(Lane::Run(run(3)), fenced(next, open(1, 0)));
    let whole = log.fold();
    for n in [1, 3, 4] {
        let mut alone = whole.before(run(n));
        let from = alone.position();
        for entry in log.0.iter().filter(|entry| entry.position > from) {
            if matches!(entry.lane, Lane::Control) || entry.lane == Lane::Run(run(n)) {
                alone.push(entry);
            }
        }
        assert_eq!(alone.run(run(n)), whole.run(run(n)), "run {n}");
    }
    assert_eq!(whole.before(run(4)).position(), whole.position(), "it has no record yet");
    assert!(whole.before(run(1)).position() > whole.before(run(0)).position());
}

#[test]
fn a_run_that_is_forgotten_is_not_there_and_what_is_left_of_it_does_not_count() {
    let (mut log, mine) = owned();
    for record in [open(1, 0), data(1, 1, &["a"]), data(1, 2, &["b"]), end(1, 2)] {
        log.append(Lane::Run(run(0)), fenced(mine, record));
    }
    let mut fold = log.fold();
    fold.forget(run(0));
    assert!(fold.run(run(0)).is_none());
    // A trim may leave some of its records, the last of a segment for instance.
    for left in 1..4 {
        let mut trimmed = log.clone();
        trimmed.0.drain(1..=left);
        assert!(trimmed.fold().run(run(0)).is_none(), "without the first {left}");
    }
}
