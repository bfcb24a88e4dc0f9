//! Owners that write by the rules, over a store that loses answers, stores twice and admits what it should refuse:
//! what was written counts once, in order, and the run ends once. (E12, the part of it that the log decides.)

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use std::sync::{Arc, Mutex};

use outlive_core::id::{Attempt, BootId, NodeId, Position, RunId, Seq, SessionId};
use outlive_core::log::fold::{Effect, Fold, Verdict};
use outlive_core::log::record::ControlChange;
use outlive_core::log::{
    Chunk, ChunkKind, Control, Entry, Fenced, FencedBody, Lane, Payload, Record, RunRecord,
};
use outlive_core::session::RunOutcome;
use outlive_core::time::WallTime;
use outlive_store::{
    AppendError, Durability, Engine, Fault, Faulty, Guard, LaneFilter, Memory, Operation, ReadLimit,
};
use proptest::prelude::*;
use uuid::Uuid;

const CHUNKS: u64 = 6;

fn session() -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(1))
}

fn run() -> RunId {
    RunId::from_uuid(Uuid::from_u128(2))
}

/// One node, which owns the session until it is told otherwise.
struct Owner<E> {
    engine: Arc<Faulty<E>>,
    node: NodeId,
    fold: Fold,
}

/// Somebody else owns the session.
#[derive(Debug)]
struct FencedOff;

impl<E: Engine> Owner<E> {
    fn new(engine: &Arc<Faulty<E>>, n: u128) -> Self {
        let node = NodeId::from_uuid(Uuid::from_u128(n));
        Self { engine: Arc::clone(engine), node, fold: Fold::default() }
    }

    /// Reads on, and tells what counted.
    async fn catch_up(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        loop {
            let after = self.fold.position();
            let page = self.engine.read(session(), after, &LaneFilter::All, ReadLimit::default()).await;
            let Ok(page) = page else { continue };
            if page.entries.is_empty() {
                return effects;
            }
            for entry in &page.entries {
                if let Verdict::Counted(effect) = self.fold.push(entry) {
                    effects.push(effect);
                }
            }
        }
    }

    /// Claims the session, however often the store has to be asked.
    async fn claim(&mut self) -> Position {
        loop {
            self.catch_up().await;
            let (prev, epoch, boot) = (self.fold.control_prev(), self.fold.epoch().next(), self.boot());
            let change = ControlChange::Claim { epoch, node: self.node, boot };
            let guard = Guard::Previous(self.fold.control_guard());
            let record = Record::Control(Control { prev, change });
            // Whatever the answer is, the log knows.
            let _ = self.engine.append(session(), Lane::Control, guard, &record, Durability::Synced).await;
            self.catch_up().await;
            match self.fold.claim() {
                Some(claim) if claim.node == self.node && claim.epoch == epoch => return claim.position,
                _ => {}
            }
        }
    }

    fn boot(&self) -> BootId {
        BootId::from_uuid(*self.node.as_uuid())
    }

    /// Writes until the log says that it counts. `done` recognises that.
    async fn write(
        &mut self,
        claim: Position,
        record: RunRecord,
        done: impl Fn(&Fold) -> bool,
    ) -> Result<(), FencedOff> {
        let record = Record::Fenced(Fenced { claim, source: None, body: FencedBody::Run(record) });
        loop {
            let guard = Guard::Claim(self.fold.control_guard());
            let answer =
                self.engine.append(session(), Lane::Run(run()), guard, &record, Durability::Written).await;
            if let Err(AppendError::TooLarge { .. } | AppendError::Corrupt { .. }) = answer {
                panic!("{answer:?}");
            }
            self.catch_up().await;
            if done(&self.fold) {
                return Ok(());
            }
            if !self.fold.is_current(claim) {
                return Err(FencedOff);
            }
        }
    }

    /// Takes the run over and goes on with it; ends it when it has all its chunks.
    async fn work(&mut self, upto: u64) -> Result<(), FencedOff> {
        let claim = self.claim().await;
        let state = self.fold.run(run()).cloned().unwrap_or_default();
        if state.ended().is_some() {
            return Ok(());
        }
        let attempt = Attempt(state.attempt().0 + 1);
        let open = RunRecord::Open { attempt, base: state.head(), at: WallTime(0) };
        self.write(claim, open, |fold| fold.run(run()).is_some_and(|run| run.attempt() == attempt)).await?;
        for seq in state.head().0 + 1..=upto {
            let text = format!("chunk {seq} of attempt {attempt}");
            let chunks = vec![Chunk::inline(ChunkKind::Stdout, WallTime(0), text.as_bytes())];
            let data = RunRecord::Data { attempt, first: Seq(seq), chunks };
            self.write(claim, data, |fold| fold.run(run()).is_some_and(|run| run.head() >= Seq(seq))).await?;
            // Where the other node runs on.
            tokio::task::yield_now().await;
        }
        if upto < CHUNKS {
            return Ok(());
        }
        let end = RunRecord::End {
            attempt,
            outcome: RunOutcome::Succeeded,
            last_seq: Seq(upto),
            report: None,
            execution_count: None,
            at: WallTime(0),
        };
        self.write(claim, end, |fold| fold.run(run()).is_some_and(|run| run.ended().is_some())).await
    }
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        6 => Just(Fault::None),
        1 => Just(Fault::LostAck),
        1 => Just(Fault::LostRequest),
        1 => Just(Fault::Unavailable),
        1 => Just(Fault::Duplicate),
        1 => Just(Fault::DoubleAdmit),
        1 => (0..50_u64).prop_map(|ms| Fault::Delay(std::time::Duration::from_millis(ms))),
    ]
}

/// Every record, and what the fold says of it.
async fn everything(engine: &impl Engine) -> Vec<(Entry, Verdict)> {
    let limit = ReadLimit { records: usize::MAX, bytes: usize::MAX };
    let page = engine.read(session(), Position(0), &LaneFilter::All, limit).await.unwrap();
    let mut fold = Fold::default();
    page.entries.into_iter().map(|entry| (entry.clone(), fold.push(&entry))).collect()
}

async fn two_owners(faults: Vec<Fault>, first_does: u64) {
    let memory = Memory::default();
    let script = Mutex::new(faults.into_iter());
    let plan = move |_: Operation<'_>| script.lock().unwrap().next().unwrap_or_default();
    let engine = Arc::new(Faulty::new(memory.clone(), plan));
    let (mut one, mut two) = (Owner::new(&engine, 1), Owner::new(&engine, 2));
    // Each may take the session from the other while that one is at work.
    let (_, _) = tokio::join!(one.work(first_does), two.work(CHUNKS));
    // Whoever was fenced off last left an owner, or one that gave up in the middle: it is finished by a third.
    let mut three = Owner::new(&engine, 3);
    three.work(CHUNKS).await.expect("nobody takes it from the last one");

    let log = everything(&memory).await;
    let mut output = Vec::new();
    let mut ends = 0;
    for (entry, verdict) in &log {
        assert!(
            !matches!(verdict, Verdict::Alarm(_)),
            "an owner that re-reads never leaves a hole: {entry:?}"
        );
        let Verdict::Counted(effect) = verdict else { continue };
        assert!(ends == 0 || entry.lane != Lane::Run(run()), "nothing counts after the end");
        match effect {
            Effect::Appended { first, skip, n, .. } => {
                assert_eq!((first.0, *skip, *n), (output.len() as u64 + 1, 0, 1));
                let Record::Fenced(Fenced { body: FencedBody::Run(RunRecord::Data { chunks, .. }), .. }) =
                    &entry.record
                else {
                    panic!("{entry:?}")
                };
                let Payload::Inline(bytes) = &chunks[0].payload else { panic!("{entry:?}") };
                output.push(String::from_utf8(bytes.to_vec()).unwrap());
            }
            Effect::Ended { .. } => ends += 1,
            _ => {}
        }
    }
    assert_eq!(ends, 1, "exactly one end");
    assert_eq!(output.len() as u64, CHUNKS);
    for (i, text) in output.iter().enumerate() {
        assert!(text.starts_with(&format!("chunk {} of", i + 1)), "{output:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_owners_write_counts_once_whatever_the_store_does(
        faults in proptest::collection::vec(fault(), 0..120),
        first_does in 0..=CHUNKS,
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(two_owners(faults, first_does));
    }
}

#[tokio::test]
async fn a_lost_answer_is_unknown_and_the_record_is_there() {
    let mut faults = vec![Fault::LostAck, Fault::LostRequest].into_iter();
    let engine = Faulty::new(Memory::default(), move |operation| match operation {
        Operation::Append { .. } => faults.next().unwrap_or_default(),
        Operation::Read { .. } | Operation::TableRead | Operation::TableWrite => Fault::None,
    });
    let record = Record::Request(outlive_core::log::Request::Interrupt);
    let append = || engine.append(session(), Lane::Requests, Guard::None, &record, Durability::Written);
    assert!(matches!(append().await, Err(AppendError::Unknown)));
    assert_eq!(everything(&engine).await.len(), 1, "only reading tells");
    assert!(matches!(append().await, Err(AppendError::Unknown)));
    assert_eq!(everything(&engine).await.len(), 1);
    append().await.unwrap();
    assert_eq!(everything(&engine).await.len(), 2);
}

#[tokio::test]
async fn records_lost_with_the_power_give_no_position_to_others() {
    let memory = Memory::default();
    let record = Record::Request(outlive_core::log::Request::Interrupt);
    let append = || memory.append(session(), Lane::Requests, Guard::None, &record, Durability::Written);
    let (first, second) = (append().await.unwrap(), append().await.unwrap());
    memory.lose_behind(session(), first);
    assert_eq!(everything(&memory).await.len(), 1);
    assert!(append().await.unwrap() > second);
}
