//! What leaves the log with the tasks that a group forgets.

use std::path::{Path, PathBuf};

use outlive_core::group::input::RunnerInput;
use outlive_core::group::spec::NewTask;
use outlive_core::group::{GroupSpec, MemberSpec, Strategy};
use outlive_core::id::{Attempt, BootId, NodeId, RuntimeId, SessionId, Src};
use outlive_core::log::{Chunk, ChunkKind, Lane};
use outlive_core::runtime::runner::{Greeting, Phase};
use outlive_core::runtime::{LaunchSpec, Program, RestartPolicy};
use outlive_core::session::RunOutcome;
use outlive_core::session::input::ProcessInput;
use outlive_core::session::spec::HangPolicy;
use outlive_core::time::WallTime;
use outlive_store::{Engine, LaneFilter, Memory, ReadLimit};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::*;
use crate::budget::Budgets;
use crate::bus::LocalBus;
use crate::clock::SystemClock;
use crate::context::Seams;
use crate::files::LocalFiles;
use crate::group::open::{read_beginning, task, write_beginning};
use crate::runtimes::LocalRuntimes;
use crate::seams::Identity;

fn context(store: Memory) -> Arc<Context> {
    let (node, boot) = (NodeId::from_uuid(Uuid::from_u128(1)), BootId::from_uuid(Uuid::now_v7()));
    let (who, clock) = (Identity { node, boot }, Arc::new(SystemClock::default()));
    let nowhere = PathBuf::from("/nonexistent");
    let runtimes =
        LocalRuntimes::new(nowhere.clone(), nowhere.clone(), who, clock.clone(), TaskTracker::new());
    let seams = Seams {
        clock,
        engine: Arc::new(store),
        bus: Arc::new(LocalBus::default()),
        runtimes: Arc::new(runtimes),
        files: Arc::new(LocalFiles::new(nowhere)),
        cluster: None,
    };
    Arc::new(Context::new(who, seams, Budgets::default()))
}

fn spec() -> GroupSpec {
    let program = Program::Runner {
        name: "a".to_owned(),
        argv: vec!["a-runner".to_owned()],
        speaks: Default::default(),
        watch: Default::default(),
    };
    let (cwd, env) = ("/".to_owned(), BTreeMap::new());
    let launch = LaunchSpec { program, cwd, env, memory_bytes_max: None, ready_timeout_ms: 60_000 };
    let runtime = RuntimeId::from_uuid(Uuid::from_u128(5));
    GroupSpec {
        id: SessionId::from_uuid(Uuid::from_u128(3)),
        name: "g".to_owned(),
        members: vec![MemberSpec { runtime, name: "a".to_owned(), launch }],
        strategy: Strategy::OneForOne,
        restart: RestartPolicy::permanent(),
        on_hang: HangPolicy::Report,
        on_node_loss: None,
        wait_ms: 60_000,
        cancel_grace_ms: 1_000,
        created_at: WallTime(0),
    }
}

fn id(n: usize) -> RunId {
    RunId::from_uuid(Uuid::from_u128(100 + n as u128))
}

fn new(n: usize) -> NewTask {
    NewTask {
        id: id(n),
        task: "echo".to_owned(),
        input: serde_json::Value::Null,
        key: id(n).to_string(),
        idempotent: false,
        wait_ms: 60_000,
        limit_ms: None,
    }
}

async fn served(task: &mut Task, process: ProcessKey, n: usize, src: &mut u64) {
    task.input(Input::Submit(new(n)), None).await.unwrap().unwrap();
    let mut source = || {
        *src += 1;
        Source { process, through: Src(*src) }
    };
    let chunks = vec![Chunk::inline(ChunkKind::Text, WallTime(0), *b"x")];
    task.journal.output(id(n), chunks, Some(source())).await.unwrap();
    let (run, attempt, outcome) = (id(n), Attempt(1), RunOutcome::Succeeded);
    let finished = ProcessInput::RunFinished { run, attempt, outcome, execution_count: None };
    task.input(Input::Process(process, finished), Some(source())).await.unwrap().unwrap();
}

async fn runs_in(store: &Memory, session: SessionId) -> BTreeSet<RunId> {
    let (mut runs, mut after) = (BTreeSet::new(), Position(0));
    loop {
        let page = store.read(session, after, &LaneFilter::All, ReadLimit::default()).await.unwrap();
        if page.through <= after {
            return runs;
        }
        after = page.through;
        runs.extend(page.entries.iter().filter_map(|entry| match entry.lane {
            Lane::Run(run) => Some(run),
            _ => None,
        }));
    }
}

#[tokio::test]
async fn forgotten_tasks_leave_the_log_and_what_was_accounted_for_stays_so() {
    let store = Memory::default();
    let context = context(store.clone());
    let session = spec().id;
    let (group, journal) = write_beginning(&context, spec()).await.unwrap();
    let (mut task, _handle) = task(&context, group, journal, Path::new("/nonexistent"));
    task.settle().await.unwrap();
    let process = task.group.members[0].process();
    let greeting = Greeting { tasks: ["echo".to_owned()].into(), concurrency: 1, ..Greeting::default() };
    for said in [
        Input::Process(process, ProcessInput::Spawned { pid: 1 }),
        Input::Runner(process, RunnerInput::Greeted(greeting)),
        Input::Runner(process, RunnerInput::Entered(Phase::Ready)),
        Input::Process(process, ProcessInput::Ready),
    ] {
        task.input(said, None).await.unwrap().unwrap();
    }
    let mut src = 0;
    for n in 0..RUNS_TRIMMED_AT_ONCE + 2 {
        served(&mut task, process, n, &mut src).await;
    }
    // What the last ones said is accounted for by nothing but what goes.
    let few = Input::Forget((2..12).map(id).collect());
    task.input(few, None).await.unwrap().unwrap();
    assert_eq!(task.forgotten.len(), 10, "they leave the log with many others");
    let rest = Input::Forget((12..RUNS_TRIMMED_AT_ONCE + 2).map(id).collect());
    task.input(rest, None).await.unwrap().unwrap();
    context.tasks.close();
    context.tasks.wait().await;
    let stays: BTreeSet<_> = [id(0), id(1)].into();
    assert_eq!(runs_in(&store, session).await, stays);
    assert_eq!(task.journal.acked(process), Src(src));
    drop(task);
    let claimed = Journal::claim(session, &context, None).await.unwrap();
    let (group, journal, _) = read_beginning(&context, session, claimed).await.unwrap();
    assert_eq!(group.tasks.keys().copied().collect::<BTreeSet<_>>(), stays);
    assert_eq!(group.ended.succeeded as usize, RUNS_TRIMMED_AT_ONCE + 2, "they are counted all the same");
    assert_eq!(journal.acked(process), Src(src), "its shim tells nothing again");
}

#[tokio::test]
async fn tasks_that_were_forgotten_and_not_trimmed_are_the_next_daemons() {
    let store = Memory::default();
    let context = context(store.clone());
    let (group, journal) = write_beginning(&context, spec()).await.unwrap();
    let (mut task, _handle) = task(&context, group, journal, Path::new("/nonexistent"));
    task.settle().await.unwrap();
    for n in 0..3 {
        task.input(Input::Submit(new(n)), None).await.unwrap().unwrap();
        task.input(Input::Cancel(id(n)), None).await.unwrap().unwrap();
    }
    task.input(Input::Forget(vec![id(0), id(2)]), None).await.unwrap().unwrap();
    drop(task);
    let claimed = Journal::claim(spec().id, &context, None).await.unwrap();
    let (group, journal, _) = read_beginning(&context, spec().id, claimed).await.unwrap();
    let (task, _handle) = super::super::open::task(&context, group, journal, Path::new("/nonexistent"));
    assert_eq!(task.forgotten, [id(0), id(2)].into());
}
