//! Many runs, and large ones: what is queued together is queued whole, whatever it takes; what ended long ago is forgotten,
//! and the session is the same again from a log that it has left.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use std::collections::{BTreeMap, BTreeSet};

use outlive_core::id::{RunId, RuntimeId, SessionId};
use outlive_core::limits::{
    QUEUED_TOGETHER_BYTES_MAX, RECORD_BYTES_MAX, RUNS_FORGOTTEN_AT_ONCE, RUNS_REMEMBERED_MAX,
};
use outlive_core::runtime::{LaunchSpec, Program, RestartPolicy};
use outlive_core::session::event::{Happened, NewRun, OnRaise, SessionEvent};
use outlive_core::session::spec::{AfterWork, HangPolicy, OnNodeLoss, Place, StartWhen, Trust, Workload};
use outlive_core::session::state::RunState;
use outlive_core::session::{Fact, Input, RunOutcome, Session, SessionSpec, advance, apply, decide};
use outlive_core::time::{Now, WallTime};
use uuid::Uuid;

fn spec(after_work: AfterWork) -> SessionSpec {
    let program = Program::Kernel {
        name: "python3".to_owned(),
        display_name: "Python 3".to_owned(),
        language: "python".to_owned(),
        argv: vec!["python3".to_owned()],
        resource_dir: None,
        interrupt_mode: outlive_core::runtime::InterruptMode::Signal,
        transport: outlive_core::runtime::spec::Transport::Tcp,
    };
    SessionSpec {
        id: SessionId::from_uuid(Uuid::from_u128(1)),
        runtime: RuntimeId::from_uuid(Uuid::from_u128(2)),
        workload: Workload::Kernel,
        launch: LaunchSpec {
            program,
            cwd: "/".to_owned(),
            env: BTreeMap::new(),
            memory_bytes_max: None,
            ready_timeout_ms: 1_000,
        },
        restart: RestartPolicy::temporary(),
        on_hang: HangPolicy::Report,
        on_node_loss: OnNodeLoss::default(),
        after_work,
        start: StartWhen::AtOnce,
        place: Place::Fixed,
        trust: Trust::Trusted,
        parameters: BTreeMap::new(),
        created_at: WallTime(0),
    }
}

fn new_run(id: RunId, source: &str) -> NewRun {
    NewRun { id, cell: None, cell_id: None, source: source.to_owned(), on_raise: OnRaise::Stop }
}

/// A session with a kernel, and its log.
struct World {
    session: Session,
    log: Vec<Fact>,
    queued: u128,
}

impl World {
    fn new(after_work: AfterWork) -> Self {
        let mut world = Self { session: Session::new(spec(after_work)), log: Vec::new(), queued: 0 };
        world.settle();
        let process = world.session.process();
        world.happens(Happened::RuntimeReady(process));
        world
    }

    fn happens(&mut self, what: Happened) {
        self.store(Fact::Journal(SessionEvent { at: WallTime(1), what }));
    }

    fn store(&mut self, fact: Fact) {
        apply(&mut self.session, &fact);
        self.log.push(fact);
    }

    fn settle(&mut self) {
        loop {
            let decision = advance(&self.session, Now::default());
            if decision.is_none() {
                return;
            }
            decision.facts.into_iter().for_each(|fact| self.store(fact));
        }
    }

    /// So many runs, one after the other; what is forgotten is forgotten meanwhile.
    fn runs(&mut self, number: usize) {
        for _ in 0..number {
            self.queued += 1;
            let id = RunId::from_uuid(Uuid::from_u128(1_000 + self.queued));
            let queued = decide(&self.session, Input::Queue(vec![new_run(id, "1")]), Now::default()).unwrap();
            queued.facts.into_iter().for_each(|fact| self.store(fact));
            self.settle();
            assert_eq!(self.session.running, Some(id));
            let (outcome, report, at) = (RunOutcome::Succeeded, None, WallTime(2));
            self.store(Fact::RunEnded { run: id, outcome, report, execution_count: None, at });
            self.settle();
        }
    }

    fn forgotten(&self) -> BTreeSet<RunId> {
        let forgotten = self.log.iter().filter_map(|fact| match fact {
            Fact::Journal(SessionEvent { what: Happened::RunsForgotten { runs, .. }, .. }) => Some(runs),
            _ => None,
        });
        forgotten.flatten().copied().collect()
    }

    /// The session as it is folded from a log that these runs have left.
    fn without(&self, gone: &BTreeSet<RunId>) -> Session {
        let mut session = Session::new(self.session.spec.clone());
        for fact in &self.log {
            match fact {
                Fact::RunOpened { run, .. } | Fact::RunEnded { run, .. } if gone.contains(run) => {}
                fact => apply(&mut session, fact),
            }
        }
        session
    }
}

#[test]
fn the_oldest_runs_are_forgotten_and_counted_and_the_others_stay() {
    let mut world = World::new(AfterWork::Keep);
    world.runs(RUNS_REMEMBERED_MAX);
    assert!(world.forgotten().is_empty());
    world.runs(RUNS_FORGOTTEN_AT_ONCE + 1);
    let (session, forgotten) = (&world.session, world.forgotten());
    assert_eq!(forgotten.len(), 2 * RUNS_FORGOTTEN_AT_ONCE);
    assert_eq!(session.ended.succeeded as usize, RUNS_REMEMBERED_MAX + RUNS_FORGOTTEN_AT_ONCE + 1);
    assert_eq!(session.runs.len(), session.order.len());
    assert!(session.runs.len() <= RUNS_REMEMBERED_MAX);
    assert!(session.runs.keys().all(|id| !forgotten.contains(id)));
    assert!(session.runs.values().all(|run| matches!(run.state, RunState::Ended(_))));
    let indexes: BTreeSet<u32> = session.runs.values().map(|run| run.index).collect();
    assert_eq!(indexes.len(), session.runs.len(), "no place is given twice");
    assert_eq!(indexes.last().map(|last| last + 1), Some(session.queued));
    let first = indexes.first().copied().map(|first| first as usize);
    assert_eq!(first, Some(forgotten.len()), "the oldest have gone");
}

#[test]
fn a_log_that_they_have_left_folds_to_the_same_session() {
    let mut world = World::new(AfterWork::Keep);
    world.runs(RUNS_REMEMBERED_MAX + 1);
    // While the log says of them only that they were queued, all that waits was dropped once.
    world.happens(Happened::Interrupted);
    world.runs(RUNS_FORGOTTEN_AT_ONCE + 2);
    let forgotten = world.forgotten();
    assert!(!forgotten.is_empty());
    let mut again = world.without(&forgotten);
    again.generation = world.session.generation;
    assert_eq!(again, world.session);
}

#[test]
fn a_session_that_ends_with_its_work_remembers_all_of_it() {
    let mut world = World::new(AfterWork::Close);
    let ids: Vec<_> =
        (0..RUNS_REMEMBERED_MAX as u128 + 2).map(|n| RunId::from_uuid(Uuid::from_u128(n + 9))).collect();
    let new = |id: &RunId| new_run(*id, "1");
    world.happens(Happened::RunsQueued(ids.iter().map(new).collect()));
    world.settle();
    for id in &ids {
        let (outcome, report, at) = (RunOutcome::Succeeded, None, WallTime(2));
        world.store(Fact::RunEnded { run: *id, outcome, report, execution_count: None, at });
        world.settle();
    }
    assert_eq!(world.session.runs.len(), ids.len(), "its verdict is about all of them");
}

#[test]
fn what_is_too_large_for_one_record_is_queued_by_its_last_part_and_as_one() {
    let large = "x".repeat(QUEUED_TOGETHER_BYTES_MAX / 3);
    let ids = |from: u128| (from..from + 7).map(|n| RunId::from_uuid(Uuid::from_u128(n))).collect::<Vec<_>>();
    let wish = |ids: &[RunId]| Input::Queue(ids.iter().map(|id| new_run(*id, &large)).collect());
    let mut world = World::new(AfterWork::Keep);
    // A daemon that dies before the last part has queued nothing.
    let given_up = decide(&world.session, wish(&ids(100)), Now::default()).unwrap().facts;
    assert!(given_up.len() > 2, "{}", given_up.len());
    for fact in given_up.into_iter().rev().skip(1).rev() {
        let Fact::Journal(event) = &fact else { panic!("{fact:?}") };
        assert!(serde_json::to_vec(event).unwrap().len() < RECORD_BYTES_MAX);
        world.store(fact);
    }
    assert!(world.session.runs.is_empty() && world.session.queue.is_empty());
    let all = ids(200);
    let facts = decide(&world.session, wish(&all), Now::default()).unwrap().facts;
    facts.into_iter().for_each(|fact| world.store(fact));
    assert_eq!(world.session.order, all, "those of the next wish, and no other");
    let batches: BTreeSet<u32> = world.session.runs.values().map(|run| run.batch).collect();
    assert_eq!(batches.len(), 1, "one of them that fails takes the others along");
}
