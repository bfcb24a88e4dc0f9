//! Who owns a session, against a model: claimants that read, claim, write and end as a journal does, over a log that takes
//! an append as an engine does, in every order, with a crash after any step, with answers and requests that are lost, and
//! with wrong suspicions. Whatever comes of it: one effective writer for each epoch, one end, and who is fenced knows it
//! from its next append.

use outlive_core::failover::{Claimable, Deposes, Member, claimable};
use outlive_core::id::{Attempt, BootId, NodeId, Position, RunId, Seq};
use outlive_core::log::fold::{Claim, Effect, Fold, Ownership, Verdict};
use outlive_core::log::record::ControlChange;
use outlive_core::log::{Chunk, ChunkKind, Control, Entry, Fenced, FencedBody, Lane, Record, RunRecord};
use outlive_core::session::RunOutcome;
use outlive_core::time::WallTime;
use proptest::prelude::*;
use uuid::Uuid;

fn run() -> RunId {
    RunId::from_uuid(Uuid::from_u128(9))
}

/// The store: it checks each guard in the same step in which it appends.
#[derive(Clone, Default)]
struct Log {
    entries: Vec<Entry>,
}

impl Log {
    fn last_control(&self) -> Position {
        let last = self.entries.iter().rev().find(|entry| entry.lane == Lane::Control);
        last.map_or(Position(0), |entry| entry.position)
    }

    fn append(&mut self, lane: Lane, guard: Position, record: Record) -> Result<Position, ()> {
        if guard != self.last_control() {
            return Err(());
        }
        let position = Position(self.entries.len() as u64 + 1);
        self.entries.push(Entry { position, lane, record });
        Ok(position)
    }
}

/// What becomes of an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Net {
    Answered,
    /// It is done if it may be, and nobody hears of it.
    LostAnswer,
    LostRequest,
}

/// What a claimant is doing.
#[derive(Clone, PartialEq, Debug)]
enum Doing {
    /// It wants the session.
    Wants,
    /// It has a claim, as far as it knows, and does what is next.
    Owns { claim: Position, next: Next },
    /// It knows that it has nothing to do here any more.
    Out,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    Open,
    Data(u64),
    End,
    Close,
}

#[derive(Clone)]
struct Claimant {
    me: Member,
    fold: Fold,
    doing: Doing,
    /// An append without an answer, which is looked for first.
    doubt: Option<Record>,
    /// The epoch of a claim that it has tried.
    tried: Option<u64>,
    data: u64,
}

impl Claimant {
    fn new(n: u128, data: u64) -> Self {
        let me = Member {
            node: NodeId::from_uuid(Uuid::from_u128(n + 1)),
            boot: BootId::from_uuid(Uuid::from_u128(n + 101)),
        };
        Self { me, fold: Fold::default(), doing: Doing::Wants, doubt: None, tried: None, data }
    }

    /// Its next life: it remembers nothing.
    fn reborn(&mut self) {
        let boot = BootId::from_uuid(Uuid::from_u128(self.me.boot.as_uuid().as_u128() + 1_000));
        *self = Self {
            me: Member { boot, ..self.me },
            ..Self::new(self.me.node.as_uuid().as_u128() - 1, self.data)
        };
    }

    fn read(&mut self, log: &Log) -> bool {
        let mut found = false;
        for entry in &log.entries {
            let counted = matches!(self.fold.push(entry), Verdict::Counted(_));
            found |= counted && self.doubt.as_ref() == Some(&entry.record);
        }
        found
    }

    /// Does one thing. `suspects` are those whom it takes for dead.
    fn step(&mut self, log: &mut Log, net: Net, suspects: &[Member]) {
        match self.doing.clone() {
            Doing::Wants => self.claim(log, net, suspects),
            Doing::Owns { claim, next } => self.write(log, net, claim, next),
            Doing::Out => {}
        }
    }

    fn claim(&mut self, log: &mut Log, net: Net, suspects: &[Member]) {
        self.read(log);
        if let (Some(claim), Some(tried)) = (self.fold.claim(), self.tried)
            && (claim.node, claim.boot) == (self.me.node, self.me.boot)
            && claim.epoch.0 >= tried
        {
            self.own(claim.position);
            return;
        }
        let owner = self.fold.claim().map(|claim| Member { node: claim.node, boot: claim.boot });
        let deposes = owner.filter(|owner| suspects.contains(owner)).map_or(Deposes::Itself, Deposes::Member);
        match claimable(self.fold.ownership(), self.me, deposes) {
            Claimable::Now | Claimable::AfterGrace { .. } => {}
            Claimable::Taken(claim) => {
                let owner = Member { node: claim.node, boot: claim.boot };
                assert!(
                    owner.node != self.me.node && !suspects.contains(&owner),
                    "it could have been deposed"
                );
                return;
            }
            Claimable::Closed => {
                self.doing = Doing::Out;
                return;
            }
        }
        let epoch = self.fold.epoch().next();
        self.tried = Some(epoch.0);
        let change = ControlChange::Claim { epoch, node: self.me.node, boot: self.me.boot };
        let record = Record::Control(Control { prev: self.fold.control_prev(), change });
        if let Some(Ok(position)) = send(log, net, Lane::Control, self.fold.control_guard(), record) {
            self.own(position);
        }
    }

    fn own(&mut self, claim: Position) {
        self.doing = Doing::Owns { claim, next: Next::Open };
    }

    fn write(&mut self, log: &mut Log, net: Net, claim: Position, next: Next) {
        let known = self.fold.position();
        if self.read(log) {
            self.doubt = None;
            self.doing = Doing::Owns { claim, next: after(next, self.data) };
            return;
        }
        // An owner does not look before each append: it looks after a refusal, a lost answer, and at its beginning.
        if known > Position(0) && !self.fold.is_current(claim) {
            self.doing = Doing::Out;
            return;
        }
        self.doubt = None;
        let run_fold = self.fold.run(run());
        if run_fold.is_some_and(|run| run.ended().is_some()) && next != Next::Close {
            self.doing = Doing::Owns { claim, next: Next::Close };
            return;
        }
        let attempt = run_fold.map_or(Attempt(0), |run| run.attempt());
        let head = run_fold.map_or(Seq(0), |run| run.head());
        let at = WallTime(0);
        let (lane, guard, record) = match next {
            Next::Close => {
                let change = ControlChange::Close { claim };
                let record = Record::Control(Control { prev: self.fold.control_prev(), change });
                (Lane::Control, self.fold.control_guard(), record)
            }
            Next::Open => (
                Lane::Run(run()),
                claim,
                fenced(claim, RunRecord::Open { attempt: Attempt(attempt.0 + 1), base: head, at }),
            ),
            Next::Data(_) => {
                let text = self.me.boot.to_string();
                let chunks = vec![Chunk::inline(ChunkKind::Text, at, text.as_bytes())];
                (
                    Lane::Run(run()),
                    claim,
                    fenced(claim, RunRecord::Data { attempt, first: head.next(), chunks }),
                )
            }
            Next::End => (
                Lane::Run(run()),
                claim,
                fenced(
                    claim,
                    RunRecord::End {
                        attempt,
                        outcome: RunOutcome::Succeeded,
                        last_seq: head,
                        report: None,
                        execution_count: None,
                        at,
                    },
                ),
            ),
        };
        match send(log, net, lane, guard, record.clone()) {
            Some(Ok(_)) => self.doing = Doing::Owns { claim, next: after(next, self.data) },
            // Refused or unanswered: it looks before it does anything else.
            Some(Err(())) | None => self.doubt = Some(record),
        }
    }
}

fn after(next: Next, data: u64) -> Next {
    match next {
        Next::Open if data > 0 => Next::Data(data),
        Next::Data(left) if left > 1 => Next::Data(left - 1),
        Next::Open | Next::Data(_) => Next::End,
        Next::End | Next::Close => Next::Close,
    }
}

fn fenced(claim: Position, body: RunRecord) -> Record {
    Record::Fenced(Fenced { claim, source: None, body: FencedBody::Run(body) })
}

/// The answer, if there is one.
fn send(
    log: &mut Log,
    net: Net,
    lane: Lane,
    guard: Position,
    record: Record,
) -> Option<Result<Position, ()>> {
    match net {
        Net::LostRequest => None,
        Net::Answered => Some(log.append(lane, guard, record)),
        Net::LostAnswer => {
            let _nobody_hears = log.append(lane, guard, record);
            None
        }
    }
}

/// What must hold of every log.
fn check(log: &Log) {
    let mut fold = Fold::default();
    let mut claims: Vec<Claim> = Vec::new();
    let (mut ends, mut closes) = (0, 0);
    for entry in &log.entries {
        let owner = fold.claim();
        let Verdict::Counted(effect) = fold.push(entry) else {
            // A guard that held and a record that does not count would be an owner that is wrong about itself; only
            // what the run's own state refuses may stand here.
            assert_ne!(entry.lane, Lane::Control, "a control record that passed its guard counts: {entry:?}");
            continue;
        };
        match effect {
            Effect::Claimed(claim) => {
                assert!(claims.iter().all(|before| before.epoch < claim.epoch), "an epoch has one claim");
                claims.push(claim);
            }
            Effect::Appended { .. } => {
                let Record::Fenced(Fenced {
                    claim,
                    body: FencedBody::Run(RunRecord::Data { chunks, .. }),
                    ..
                }) = &entry.record
                else {
                    panic!("data is data");
                };
                let owner = owner.expect("what counts has an owner");
                assert_eq!(owner.position, *claim);
                let expected = Chunk::inline(ChunkKind::Text, WallTime(0), owner.boot.to_string().as_bytes());
                assert_eq!(chunks[0], expected, "only the owner of the moment writes");
            }
            Effect::Ended { .. } => ends += 1,
            Effect::Closed => closes += 1,
            Effect::Released { .. }
            | Effect::Journal
            | Effect::Document
            | Effect::Runtime
            | Effect::Request
            | Effect::Opened { .. }
            | Effect::Checkpointed { .. }
            | Effect::Noted { .. } => {}
        }
    }
    assert!(ends <= 1 && closes <= 1, "{ends} ends, {closes} closes");
}

/// Both run to their end, in whatever order; what was begun is finished by whoever is left.
fn finish(log: &mut Log, claimants: &mut [Claimant]) {
    for _ in 0..64 {
        let owner = {
            let mut fold = Fold::default();
            for entry in &log.entries {
                fold.push(entry);
            }
            fold.ownership()
        };
        if owner == Ownership::Closed {
            return;
        }
        for claimant in &mut *claimants {
            let dead: Vec<Member> = match owner {
                Ownership::Claimed(claim) => {
                    let owner = Member { node: claim.node, boot: claim.boot };
                    // It is out of the game, or has another life: then somebody has noticed.
                    vec![owner].into_iter().filter(|owner| *owner != claimant.me).collect()
                }
                Ownership::Unclaimed | Ownership::Released { .. } | Ownership::Closed => Vec::new(),
            };
            for _ in 0..12 {
                claimant.step(log, Net::Answered, &dead);
            }
        }
    }
    panic!("nobody brought it to its end");
}

/// Every order of two claimants' steps, with the death of each after any of them and its next life behind it.
#[test]
fn of_two_claimants_in_any_order_with_a_crash_after_any_step_one_effective_writer_and_one_end() {
    const STEPS: u32 = 6;
    let both = [Claimant::new(0, 1), Claimant::new(1, 1)];
    let mut orders = 0;
    for order in 0_u32..1 << (2 * STEPS) {
        if order.count_ones() != STEPS {
            continue;
        }
        for crash in 0..=2 * STEPS {
            let (mut log, mut claimants) = (Log::default(), both.clone());
            let all = [claimants[0].me, claimants[1].me];
            for step in 0..2 * STEPS {
                let who = usize::from(order & (1 << step) != 0);
                // Each takes the other for dead: the worst suspicion there is.
                claimants[who].step(&mut log, Net::Answered, &all);
                if step == crash {
                    claimants[who].reborn();
                }
            }
            check(&log);
            finish(&mut log, &mut claimants);
            check(&log);
            orders += 1;
        }
    }
    assert_eq!(orders, 924 * 13);
}

#[derive(Clone, Debug)]
enum Step {
    Do { who: usize, net: Net, suspects: Vec<usize> },
    Crash(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let net = prop_oneof![
        6 => Just(Net::Answered),
        1 => Just(Net::LostAnswer),
        1 => Just(Net::LostRequest),
    ];
    let suspects = proptest::collection::vec(0_usize..3, 0..2);
    let step = prop_oneof![
        12 => (0_usize..3, net, suspects).prop_map(|(who, net, suspects)| Step::Do { who, net, suspects }),
        1 => (0_usize..3).prop_map(Step::Crash),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn of_three_with_lost_answers_crashes_and_wrong_suspicions_one_effective_writer_and_one_end(steps in steps()) {
        let mut log = Log::default();
        let mut claimants: Vec<Claimant> = (0..3).map(|n| Claimant::new(n, 2)).collect();
        for step in steps {
            match step {
                Step::Do { who, net, suspects } => {
                    let suspects: Vec<Member> = suspects.iter().map(|n| claimants[*n].me).collect();
                    claimants[who].step(&mut log, net, &suspects);
                }
                Step::Crash(who) => claimants[who].reborn(),
            }
        }
        check(&log);
        finish(&mut log, &mut claimants);
        check(&log);
    }
}

#[test]
fn who_may_claim_is_answered_for_every_ownership() {
    let (me, other) = (Claimant::new(0, 0).me, Claimant::new(1, 0).me);
    let claim = |member: Member| Claim {
        position: Position(3),
        epoch: outlive_core::id::Epoch(2),
        node: member.node,
        boot: member.boot,
    };
    let reborn = Member { boot: BootId::from_uuid(Uuid::from_u128(77)), ..me };
    let taken = |member: Member| Claimable::Taken(claim(member));
    let to = |member: Member| Ownership::Released { to: Some(member.node) };
    let rows = [
        (Ownership::Unclaimed, Deposes::Itself, Claimable::Now),
        (Ownership::Released { to: None }, Deposes::Itself, Claimable::Now),
        (to(me), Deposes::Itself, Claimable::Now),
        (to(other), Deposes::Itself, Claimable::AfterGrace { to: other.node }),
        (to(other), Deposes::Anybody, Claimable::Now),
        (Ownership::Closed, Deposes::Anybody, Claimable::Closed),
        (Ownership::Claimed(claim(me)), Deposes::Itself, Claimable::Now),
        (Ownership::Claimed(claim(reborn)), Deposes::Itself, Claimable::Now),
        (Ownership::Claimed(claim(other)), Deposes::Itself, taken(other)),
        (Ownership::Claimed(claim(other)), Deposes::Anybody, Claimable::Now),
        (Ownership::Claimed(claim(other)), Deposes::Member(other), Claimable::Now),
        // E7
        (
            Ownership::Claimed(claim(Member { boot: reborn.boot, ..other })),
            Deposes::Member(other),
            taken(Member { boot: reborn.boot, ..other }),
        ),
    ];
    for (ownership, deposes, expected) in rows {
        assert_eq!(claimable(ownership, me, deposes), expected, "{ownership:?}, {deposes:?}");
    }
}
