//! What a session answers to everything, in every state that it can come to.
//!
//! The walk begins with a session that was just created and gives each state every input there is, so that the
//! states of the tables are those that exist: also those in which a daemon that died between two facts leaves its
//! session. States that differ only in numbers are one. Each table is a snapshot to be read line by line:
//!
//! ```text
//! status · life · work                                   [timers that run] {what a daemon that comes back does again}
//!   input   facts; EFFECTS ⇒ facts; EFFECTS that follow from the state alone = the state after it, if it is another
//! ```
//! Beside the snapshot the walk holds what no state may break: nothing waits for nothing, no timer fires twice, and
//! a restart, a cancel or a stop that was accepted comes true, whatever the process does meanwhile.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use outlive_core::diagnosis::Evidence;
use outlive_core::diagnosis::evidence::{HangEvidence, Phase, ShimLostEvidence, StopEvidence};
use outlive_core::id::{Attempt, Incarnation, ProcessKey, ReportId, RunId, RuntimeId, SessionId};
use outlive_core::runtime::spec::Transport;
use outlive_core::runtime::{
    ExitReport, ExitStatus, InterruptMode, LaunchSpec, Program, RestartPolicy, StopStep, StopWhy,
};
use outlive_core::session::event::{AfterExit, EndingWhy, Happened, NewRun, OnRaise, PathWhy};
use outlive_core::session::input::{Decision, Effect, ProcessInput};
use outlive_core::session::spec::{AfterWork, HangPolicy, OnNodeLoss, Place, StartWhen, Trust, Workload};
use outlive_core::session::state::{Health, Life, RunState, Status};
use outlive_core::session::{
    CancelWhy, Denied, Fact, Input, RunOutcome, Session, SessionSpec, Timer, advance, apply, decide, recover,
    timers,
};
use outlive_core::time::{Now, WallTime};
use uuid::Uuid;

/// No chain of consequences, and no way to an end, is longer than this.
const STEPS_MAX: usize = 64;

/// All that a session can be told, in words. `input` makes each fit the state.
const INPUTS: [&str; 29] = [
    "queue",
    "queue waiting cell",
    "interrupt",
    "cancel running",
    "cancel waiting",
    "answer",
    "restart",
    "restart with work",
    "stop",
    "stop hard",
    "rest",
    "evict",
    "spawned",
    "ready",
    "finished",
    "raised",
    "asks somebody",
    "asks nobody",
    "silent",
    "answers again",
    "stops at TERM",
    "exits 0",
    "exits 1",
    "drained",
    "run limit",
    "ending grace",
    "backoff over",
    "saved",
    "not saved",
];

/// What concerns the notebook's file, which does nothing to its runtime.
const FILE_INPUTS: [&str; 8] = [
    "claim path",
    "release path",
    "saved as claimed",
    "saved unclaimed",
    "renamed",
    "renamed to claimed",
    "stop",
    "saved",
];

/// Those that are refused in every state that has them, and those that do nothing in any.
const REFUSED: [&str; 2] = ["cancel ended", "cancel unknown"];
const IGNORED: [&str; 3] = ["finished earlier try", "exit of earlier", "drained earlier"];

#[derive(Clone, Copy)]
struct Kind {
    command: bool,
    restart: RestartPolicy,
    on_hang: HangPolicy,
    after_work: AfterWork,
    start: StartWhen,
    trust: Trust,
}

/// A notebook that somebody works with.
const KEPT_NOTEBOOK: Kind = Kind {
    command: false,
    restart: RestartPolicy::transient(),
    on_hang: HangPolicy::Report,
    after_work: AfterWork::Keep,
    start: StartWhen::AtOnce,
    trust: Trust::Trusted,
};

/// A notebook that somebody opened: its kernel comes with the first run.
const OPENED_NOTEBOOK: Kind = Kind { start: StartWhen::FirstRun, ..KEPT_NOTEBOOK };

/// A notebook that came from elsewhere.
const UNTRUSTED_NOTEBOOK: Kind = Kind { trust: Trust::Untrusted, ..KEPT_NOTEBOOK };

/// `outlive run --on-hang restart NOTEBOOK`.
const BATCH_NOTEBOOK: Kind = Kind {
    command: false,
    restart: RestartPolicy::temporary(),
    on_hang: HangPolicy::Restart,
    after_work: AfterWork::Close,
    start: StartWhen::AtOnce,
    trust: Trust::Trusted,
};

/// `outlive run --restart permanent -- COMMAND`.
const SERVICE: Kind = Kind {
    command: true,
    restart: RestartPolicy::permanent(),
    on_hang: HangPolicy::Report,
    after_work: AfterWork::Close,
    start: StartWhen::AtOnce,
    trust: Trust::Trusted,
};

/// The same, kept when its work is done.
const KEPT_COMMAND: Kind = Kind {
    command: true,
    restart: RestartPolicy::transient(),
    on_hang: HangPolicy::Report,
    after_work: AfterWork::Keep,
    start: StartWhen::AtOnce,
    trust: Trust::Trusted,
};

const KINDS: [Kind; 6] =
    [KEPT_NOTEBOOK, OPENED_NOTEBOOK, UNTRUSTED_NOTEBOOK, BATCH_NOTEBOOK, SERVICE, KEPT_COMMAND];

fn spec(kind: Kind) -> SessionSpec {
    let argv = vec!["python3".to_owned()];
    let (program, workload) = if kind.command {
        (Program::Command { argv }, Workload::Command { timeout_ms: Some(60_000) })
    } else {
        let program = Program::Kernel {
            name: "python3".to_owned(),
            display_name: "Python 3".to_owned(),
            language: "python".to_owned(),
            argv,
            resource_dir: None,
            interrupt_mode: InterruptMode::Signal,
            transport: Transport::Tcp,
        };
        let (source, path) = (Some("/a.ipynb".to_owned()), Some("/a.ipynb".to_owned()));
        let cell_timeout_ms = Some(60_000);
        (program, Workload::Notebook { source, path, allow_errors: false, cell_timeout_ms })
    };
    SessionSpec {
        id: SessionId::from_uuid(Uuid::from_u128(1)),
        runtime: RuntimeId::from_uuid(Uuid::from_u128(2)),
        workload,
        launch: LaunchSpec {
            program,
            cwd: "/".to_owned(),
            env: BTreeMap::new(),
            memory_bytes_max: None,
            ready_timeout_ms: 1_000,
        },
        restart: kind.restart,
        on_hang: kind.on_hang,
        on_node_loss: OnNodeLoss::default(),
        after_work: kind.after_work,
        start: kind.start,
        place: Place::Notebook,
        trust: kind.trust,
        parameters: BTreeMap::new(),
        created_at: WallTime(0),
    }
}

// ---- inputs ----------------------------------------------------------------------------------------------------

fn now() -> Now {
    Now { wall: WallTime(1_000_000), ..Now::default() }
}

fn run_id(n: usize) -> RunId {
    RunId::from_uuid(Uuid::from_u128(1_000 + n as u128))
}

fn new_runs(session: &Session, n: usize) -> Vec<NewRun> {
    let first = session.order.len() + 1;
    let new = |n| NewRun {
        id: run_id(n),
        cell: None,
        cell_id: session.is_notebook().then(|| format!("cell {n}")),
        source: "1".to_owned(),
        on_raise: OnRaise::Stop,
    };
    (first..first + n).map(new).collect()
}

/// The cell that waits first, asked for again with another source.
fn waiting_cell(session: &Session) -> Option<NewRun> {
    let waiting = session.queue.iter().find_map(|id| session.runs[id].new.cell_id.clone())?;
    let new = new_runs(session, 1).remove(0);
    Some(NewRun { cell_id: Some(waiting), source: "2".to_owned(), ..new })
}

fn exit(session: &Session, process: ProcessKey, code: i32) -> ProcessInput {
    let stop = match session.runtime.status {
        Status::Stopping { why, step } => Some(StopEvidence { why, step }),
        _ => None,
    };
    let report = Box::new(ExitReport {
        process,
        pid: Some(7),
        started_at: now().wall,
        exited_at: now().wall,
        status: ExitStatus::Code { code },
        evidence: Evidence { stop, ..Evidence::default() },
    });
    ProcessInput::Exited { report, id: ReportId::from_uuid(Uuid::from_u128(3)) }
}

/// The input of this name; `None` where it cannot be made, since there is no such run.
fn input(name: &str, session: &Session) -> Option<Input> {
    // A command's end is the end of its run, and it asks nobody.
    if session.is_command()
        && ["finished", "raised", "asks somebody", "asks nobody", "answer"].contains(&name)
    {
        return None;
    }
    let process = session.process();
    let earlier = ProcessKey { incarnation: Incarnation(process.incarnation.0.saturating_sub(1)), ..process };
    let present = |what| Some(Input::Process(process, what));
    let running = session.running.or_else(|| session.order.last().copied());
    let attempt = running.and_then(|id| session.runs.get(&id)).map_or(Attempt(1), |run| run.attempt);
    let finished = |attempt, outcome| {
        let run = running?;
        present(ProcessInput::RunFinished { run, attempt, outcome, execution_count: Some(1) })
    };
    let raised = RunOutcome::Raised { ename: "E".to_owned(), evalue: String::new() };
    let asks = |attended| {
        let (run, prompt) = (running?, "?".to_owned());
        present(ProcessInput::InputRequested { run, prompt, password: false, attended })
    };
    let ended =
        session.order.iter().find(|id| matches!(session.runs[*id].state, RunState::Ended(_))).copied();
    match name {
        "queue" => Some(Input::Queue(new_runs(session, 2))),
        "queue waiting cell" => waiting_cell(session).map(|cell| Input::Queue(vec![cell])),
        "interrupt" => Some(Input::Interrupt),
        "cancel running" => session.running.map(Input::Cancel),
        "cancel waiting" => session.queue.front().copied().map(Input::Cancel),
        "cancel ended" => ended.map(Input::Cancel),
        "cancel unknown" => Some(Input::Cancel(run_id(0))),
        "answer" => running.map(|run| Input::Answer { run, value: "yes".to_owned() }),
        "restart" => Some(Input::Restart(Vec::new())),
        "restart with work" => Some(Input::Restart(new_runs(session, 1))),
        "stop" => Some(Input::Stop { why: StopWhy::User, from: StopStep::Ask }),
        "stop hard" => Some(Input::Stop { why: StopWhy::User, from: StopStep::Kill }),
        "rest" => Some(Input::Rest { why: StopWhy::Rest, from: StopStep::Ask }),
        "evict" => Some(Input::Rest { why: StopWhy::Eviction, from: StopStep::Ask }),
        "claim path" => Some(Input::ClaimPath { path: "/b.ipynb".to_owned(), sha256: "00".to_owned() }),
        "release path" => Some(Input::ReleasePath { path: "/b.ipynb".to_owned() }),
        "saved as claimed" => {
            let path = session.claiming.as_ref()?.path.clone();
            Some(Input::TakePath { path, why: PathWhy::SavedAs })
        }
        "saved unclaimed" => Some(Input::TakePath { path: "/c.ipynb".to_owned(), why: PathWhy::SavedAs }),
        "renamed" => Some(Input::TakePath { path: "/d.ipynb".to_owned(), why: PathWhy::Renamed }),
        "renamed to claimed" => {
            let path = session.claiming.as_ref()?.path.clone();
            Some(Input::TakePath { path, why: PathWhy::Renamed })
        }
        "trust" => Some(Input::Trust(Trust::Trusted)),
        "distrust" => Some(Input::Trust(Trust::Untrusted)),
        "spawned" => present(ProcessInput::Spawned { pid: 7 }),
        // A shim says that there is a process before it says more about it.
        "ready" => session.runtime.pid.and_then(|_| present(ProcessInput::Ready)),
        "finished" => finished(attempt, RunOutcome::Succeeded),
        "raised" => finished(attempt, raised),
        "finished earlier try" => finished(Attempt(attempt.0.wrapping_sub(1)), RunOutcome::Succeeded),
        "asks somebody" => asks(true),
        "asks nobody" => asks(false),
        "silent" => present(ProcessInput::Unresponsive(HangEvidence::default())),
        "answers again" => present(ProcessInput::Responsive),
        "stops at TERM" => present(ProcessInput::Stopping { why: StopWhy::User, step: StopStep::Term }),
        "exits 0" => present(exit(session, process, 0)),
        "exits 1" => present(exit(session, process, 1)),
        "drained" => present(ProcessInput::Drained(Box::default())),
        "exit of earlier" => Some(Input::Process(earlier, exit(session, earlier, 1))),
        "drained earlier" => Some(Input::Process(earlier, ProcessInput::Drained(Box::default()))),
        "run limit" => running.map(|run| Input::Timer(Timer::RunLimit(run, attempt))),
        "ending grace" => running.map(|run| Input::Timer(Timer::EndingGrace(run, attempt))),
        "backoff over" => Some(Input::Timer(Timer::Backoff(session.runtime.incarnation))),
        "saved" => Some(Input::Saved { problem: None }),
        "not saved" => Some(Input::Saved { problem: Some("disk full".to_owned()) }),
        _ => panic!("no input is called {name}"),
    }
}

// ---- the walk --------------------------------------------------------------------------------------------------

/// What one input does to one state.
enum Answer {
    /// It is refused.
    Denied(Denied),
    /// It has this answer.
    Given {
        decided: Decision,
        /// What follows from the state alone.
        followed: Vec<Decision>,
        after: Box<Session>,
    },
}

/// Answers an input; `between` sees the states in which a daemon that dies would leave the session.
fn answer(session: &Session, input: Input, between: &mut impl FnMut(&Session)) -> Answer {
    let decided = match decide(session, input, now()) {
        Ok(decided) => decided,
        Err(denied) => return Answer::Denied(denied),
    };
    let mut after = session.clone();
    let mut store = |after: &mut Session, facts: &[Fact]| {
        for fact in facts {
            apply(after, fact);
            between(after);
        }
    };
    store(&mut after, &decided.facts);
    let mut followed = Vec::new();
    loop {
        let decision = advance(&after, now());
        if decision.is_none() {
            return Answer::Given { decided, followed, after: Box::new(after) };
        }
        assert!(followed.len() < STEPS_MAX, "what follows does not end: {after:#?}");
        assert!(!decision.facts.is_empty(), "what changes nothing follows for ever: {decision:?}");
        store(&mut after, &decision.facts);
        followed.push(decision);
    }
}

/// What follows from a state alone, until nothing does.
fn settled(mut session: Session) -> Session {
    for _ in 0..STEPS_MAX {
        let decision = advance(&session, now());
        if decision.is_none() {
            return session;
        }
        decision.facts.iter().for_each(|fact| apply(&mut session, fact));
    }
    panic!("what follows does not end: {session:#?}");
}

/// Every state that a session of this kind can come to, in the order in which they are found.
fn states(kind: Kind) -> Vec<(String, Session)> {
    walk(beginnings(kind), &INPUTS, shape)
}

/// Every state that these inputs lead to, where those of one shape are one.
fn walk(
    beginnings: Vec<Session>,
    inputs: &[&str],
    shape: impl Fn(&Session) -> String,
) -> Vec<(String, Session)> {
    let mut seen = BTreeSet::new();
    let mut states: Vec<(String, Session)> = Vec::new();
    let mut waiting = VecDeque::from(beginnings);
    while let Some(session) = waiting.pop_front() {
        if !seen.insert(shape(&session)) {
            continue;
        }
        for name in inputs {
            let Some(input) = input(name, &session) else { continue };
            // A daemon that dies between two facts comes back to what follows from those that are stored.
            let mut between = |crashed: &Session| waiting.push_back(settled(crashed.clone()));
            if let Answer::Given { after, .. } = answer(&session, input, &mut between) {
                waiting.push_back(*after);
            }
        }
        states.push((shape(&session), session));
    }
    states
}

/// A session that was just created, and one on its way through as many deaths as its policy allows.
fn beginnings(kind: Kind) -> Vec<Session> {
    let mut session = Session::new(spec(kind));
    if kind.command {
        let runs = vec![NewRun { on_raise: OnRaise::Stop, ..new_runs(&session, 1).remove(0) }];
        apply(
            &mut session,
            &Fact::Journal(outlive_core::session::SessionEvent {
                at: WallTime(0),
                what: Happened::RunsQueued(runs),
            }),
        );
    }
    let mut beginnings = vec![settled(session)];
    for _ in 0..=kind.restart.restarts_max {
        for name in ["exits 1", "drained", "backoff over"] {
            let session = beginnings.last().expect("the first is there").clone();
            let input = input(name, &session).expect("it needs no run");
            if let Answer::Given { after, .. } = answer(&session, input, &mut |_| {}) {
                beginnings.push(*after);
            }
        }
    }
    beginnings
}

// ---- words -----------------------------------------------------------------------------------------------------

fn shape(session: &Session) -> String {
    format!("{} · {} · {}", status(session), life(session), work(session))
}

fn status(session: &Session) -> String {
    match &session.runtime.status {
        Status::Down => "down".to_owned(),
        Status::Launching if session.runtime.pid.is_none() => "launching".to_owned(),
        Status::Launching => "launched".to_owned(),
        Status::Ready(Health::Responsive) => "ready".to_owned(),
        Status::Ready(Health::Unresponsive(_)) => "unresponsive".to_owned(),
        Status::Stopping { why, .. } => format!("stopping for {}", word(why)),
        Status::Draining { then: AfterExit::Stay, .. } => "draining, then nothing".to_owned(),
        Status::Draining { then: AfterExit::Rest, .. } => "draining, then rest".to_owned(),
        Status::Draining { then: AfterExit::Restart { .. }, .. } => "draining, then restart".to_owned(),
        Status::Draining { then: AfterExit::GiveUp { .. }, .. } => "draining, then give up".to_owned(),
        Status::Exited(_) => "exited".to_owned(),
        Status::Backoff { .. } => "backoff".to_owned(),
        Status::GaveUp { .. } => "gave up".to_owned(),
    }
}

fn life(session: &Session) -> String {
    match &session.life {
        Life::Open => "open".to_owned(),
        Life::Closing(_) => "closing".to_owned(),
        Life::Saving(_) => "saving".to_owned(),
        Life::Closed { .. } => "closed".to_owned(),
    }
}

fn work(session: &Session) -> String {
    let running = session.running.and_then(|id| session.runs.get(&id)).map(|run| match &run.state {
        RunState::Running { ending: Some((why, _)), .. } => format!("ending ({})", ending(*why)),
        RunState::Running { ending: None, .. } if session.question.is_some() => "asking".to_owned(),
        RunState::Running { ending: None, .. } => "running".to_owned(),
        RunState::Queued | RunState::Ended(_) => panic!("{:?} is not running", run.state),
    });
    let waiting =
        session.queue.front().and_then(|id| session.runs.get(id)).map(|run| {
            if run.from > session.runtime.incarnation { "waiting for the next" } else { "waiting" }
        });
    match (running, waiting) {
        (None, None) => "idle".to_owned(),
        (Some(running), None) => running,
        (None, Some(waiting)) => waiting.to_owned(),
        (Some(running), Some(waiting)) => format!("{running} + {waiting}"),
    }
}

fn word(what: &impl std::fmt::Debug) -> String {
    format!("{what:?}").to_lowercase()
}

fn ending(why: EndingWhy) -> &'static str {
    match why {
        EndingWhy::Cancelled => "cancelled",
        EndingWhy::TimedOut => "timed out",
        EndingWhy::NobodyToAsk => "nobody to ask",
    }
}

fn name(run: &RunId) -> String {
    format!("r{}", run.as_uuid().as_u128() - 1_000)
}

fn outcome(outcome: &RunOutcome) -> String {
    match outcome {
        RunOutcome::Succeeded => "succeeded".to_owned(),
        RunOutcome::Raised { ename, .. } => format!("raised {ename}"),
        RunOutcome::Failed { code, .. } => format!("failed ({})", code.as_str()),
        RunOutcome::TimedOut { .. } => "timed out".to_owned(),
        RunOutcome::Unserved { .. } => "unserved".to_owned(),
        RunOutcome::Cancelled { why: CancelWhy::User } => "cancelled".to_owned(),
        RunOutcome::Cancelled { why: CancelWhy::EarlierFailure } => "skipped".to_owned(),
        RunOutcome::Cancelled { why: CancelWhy::Interrupted } => "cleared".to_owned(),
        RunOutcome::Cancelled { why: CancelWhy::Stopped } => "stopped".to_owned(),
        RunOutcome::Cancelled { why: CancelWhy::NodeDrained } => "drained".to_owned(),
    }
}

fn fact(fact: &Fact) -> String {
    let event = match fact {
        Fact::Journal(event) => &event.what,
        Fact::RunOpened { run, attempt, .. } => return format!("{} begins try {attempt}", name(run)),
        Fact::RunTold { run, .. } | Fact::RunCheckpointed { run, .. } => {
            return format!("{} told", name(run));
        }
        Fact::RunEnded { run, outcome: how, .. } => return format!("{} {}", name(run), outcome(how)),
    };
    match event {
        Happened::Created(_) => "created".to_owned(),
        Happened::RunsQueued(runs) | Happened::RunsQueuedInParts { runs, .. } => {
            format!("queued {}", runs.iter().map(|run| name(&run.id)).collect::<Vec<_>>().join(" "))
        }
        Happened::RuntimeLaunching(process) => format!("launching #{}", process.incarnation),
        Happened::RuntimeSpawned { .. } => "spawned".to_owned(),
        Happened::RuntimeReady(_) => "ready".to_owned(),
        Happened::RuntimeUnresponsive { .. } => "unresponsive".to_owned(),
        Happened::RuntimeRecovered(_) => "recovered".to_owned(),
        Happened::RuntimeStopping { why, step, .. } => {
            format!("stopping for {} at {}", word(why), word(step))
        }
        Happened::RuntimeExited { report, then, .. } => {
            let why = report.as_ref().map_or("no failure", |report| report.cause().code.as_str());
            let then = match then {
                AfterExit::Stay => "nothing".to_owned(),
                AfterExit::Rest => "rest".to_owned(),
                AfterExit::Restart { after_ms, .. } => format!("restart in {after_ms} ms"),
                AfterExit::GiveUp { .. } => "give up".to_owned(),
            };
            format!("exited ({why}), then {then}")
        }
        Happened::RuntimeDrained { .. } => "drained".to_owned(),
        Happened::TakenOver(_) => "taken over".to_owned(),
        Happened::HandOverAsked { .. } => "hand-over asked".to_owned(),
        Happened::RunsForgotten { runs, .. } => format!("forgets {} runs", runs.len()),
        Happened::RunWaitsAgain { run } => format!("{} waits again", name(run)),
        Happened::RestartDue => "restart due".to_owned(),
        Happened::RestartAsked => "restart asked".to_owned(),
        Happened::Interrupted => "interrupted".to_owned(),
        Happened::RestAsked => "rest asked".to_owned(),
        Happened::PathClaimed { .. } => "path claimed".to_owned(),
        Happened::PathReleased { .. } => "path released".to_owned(),
        Happened::PathChanged { why, .. } => format!("path changed ({})", word(why)),
        Happened::TrustChanged(trust) => word(trust),
        Happened::RunEnding { run, why } => format!("{} ending ({})", name(run), ending(*why)),
        Happened::QuestionAsked { run, .. } => format!("{} asks", name(run)),
        Happened::QuestionAnswered { run } => format!("{} answered", name(run)),
        Happened::Closing(why) => format!("closing for {}", word(why)),
        Happened::Group(_) => "of a group".to_owned(),
        Happened::Settled => "settled".to_owned(),
        Happened::Closed { save_problem: None } => "closed".to_owned(),
        Happened::Closed { save_problem: Some(_) } => "closed unsaved".to_owned(),
    }
}

fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Launch(process) => format!("LAUNCH #{}", process.incarnation),
        Effect::Execute { run, attempt, .. } => format!("EXECUTE {} try {attempt}", name(run)),
        Effect::Interrupt(_) => "INTERRUPT".to_owned(),
        Effect::Answer { run, .. } => format!("ANSWER {}", name(run)),
        Effect::Stop { why, from, .. } => format!("STOP for {} from {}", word(why), word(from)),
        Effect::SaveFinally => "SAVE".to_owned(),
        Effect::Finish => "FINISH".to_owned(),
    }
}

fn decision(decision: &Decision) -> String {
    let facts = decision.facts.iter().map(fact).collect::<Vec<_>>().join(", ");
    let effects = decision.effects.iter().map(effect).collect::<Vec<_>>().join(", ");
    match (facts.is_empty(), effects.is_empty()) {
        (_, true) => facts,
        (true, false) => effects,
        (false, false) => format!("{facts}; {effects}"),
    }
}

fn timer(timer: &Timer) -> &'static str {
    match timer {
        Timer::RunLimit(..) => "run limit",
        Timer::EndingGrace(..) => "ending grace",
        Timer::Backoff(_) => "backoff",
        Timer::HandOver => "hand-over grace",
    }
}

fn list(words: impl Iterator<Item = String>, around: [&str; 2]) -> String {
    let words: Vec<String> = words.collect();
    if words.is_empty() {
        return String::new();
    }
    format!("  {}{}{}", around[0], words.join(", "), around[1])
}

fn table(kind: Kind) -> String {
    let states = states(kind);
    let mut table = rows(&states, &INPUTS, shape);
    writeln!(table, "never:").unwrap();
    for line in unreached(&states) {
        writeln!(table, "  {line}").unwrap();
    }
    table
}

fn rows(states: &[(String, Session)], inputs: &[&str], shape: impl Fn(&Session) -> String) -> String {
    let mut table = String::new();
    for (shape_before, session) in states {
        let armed = list(timers(session, now()).iter().map(|(t, _)| timer(t).to_owned()), ["[", "]"]);
        let again = list(recover(session).iter().map(effect), ["{", "}"]);
        writeln!(table, "{shape_before}{armed}{again}").unwrap();
        let (mut nothing, mut denied) = (Vec::new(), BTreeMap::<String, Vec<&str>>::new());
        for name in inputs.iter().copied() {
            let Some(input) = input(name, session) else { continue };
            match answer(session, input, &mut |_| {}) {
                Answer::Denied(why) => denied.entry(reason(&why)).or_default().push(name),
                Answer::Given { decided, followed, .. } if decided.is_none() && followed.is_empty() => {
                    nothing.push(name);
                }
                Answer::Given { decided, followed, after } => {
                    let mut line = decision(&decided);
                    for next in &followed {
                        write!(line, " ⇒ {}", decision(next)).unwrap();
                    }
                    let after = shape(&after);
                    if after != *shape_before {
                        write!(line, " = {after}").unwrap();
                    }
                    writeln!(table, "  {name:<21}{line}").unwrap();
                }
            }
        }
        for (why, names) in denied {
            writeln!(table, "  denied, {why}: {}", names.join(", ")).unwrap();
        }
        writeln!(table, "  nothing: {}\n", nothing.join(", ")).unwrap();
    }
    table
}

/// Where the notebook is, and is about to be.
fn place(session: &Session) -> String {
    let path = session.path.as_deref().unwrap_or("untitled");
    let claiming = session.claiming.as_ref().map(|claiming| format!(", claiming {}", claiming.path));
    format!("{path}{} · {}", claiming.unwrap_or_default(), life(session))
}

fn reason(denied: &Denied) -> String {
    match denied {
        Denied::Closed => "closed".to_owned(),
        Denied::NoSuchRun(_) => "no such run".to_owned(),
        Denied::RunEnded(_) => "the run has ended".to_owned(),
        Denied::NothingRuns => "nothing runs".to_owned(),
        Denied::RuntimeDown(_) => "the runtime is down".to_owned(),
        Denied::QueueFull { .. } => "the queue is full".to_owned(),
        Denied::NoQuestion(_) => "nobody asked".to_owned(),
        Denied::CommandOnly => "a command only".to_owned(),
        Denied::NoNotebook => "no notebook".to_owned(),
        Denied::PathBeingTaken(_) => "a path is being taken".to_owned(),
        Denied::Works => "it works".to_owned(),
        Denied::PathNotClaimed(_) => "not claimed".to_owned(),
    }
}

/// Status × life × with or without a running run: what no session of this kind comes to rest in.
fn unreached(states: &[(String, Session)]) -> Vec<String> {
    const STATUSES: [&str; 10] = [
        "down",
        "launching",
        "launched",
        "ready",
        "unresponsive",
        "stopping",
        "draining",
        "exited",
        "backoff",
        "gave up",
    ];
    let coarse = |session: &Session| {
        let status = status(session);
        let status = STATUSES.iter().find(|s| status.starts_with(**s)).expect("all are listed");
        (*status, life(session), session.running.is_some())
    };
    let reached: BTreeSet<_> = states.iter().map(|(_, session)| coarse(session)).collect();
    let mut lines = Vec::new();
    for life in ["open", "closing", "saving", "closed"] {
        for (running, words) in [(false, "nothing running"), (true, "a run running")] {
            let missing = STATUSES.iter().filter(|s| !reached.contains(&(**s, life.to_owned(), running)));
            let missing: Vec<_> = missing.copied().collect();
            if !missing.is_empty() {
                lines.push(format!("{life}, {words}: {}", missing.join(", ")));
            }
        }
    }
    lines
}

// ---- the tables ------------------------------------------------------------------------------------------------

#[test]
fn a_notebook_that_is_kept() {
    insta::assert_snapshot!(table(KEPT_NOTEBOOK));
}

#[test]
fn a_command_that_is_always_restarted() {
    insta::assert_snapshot!(table(SERVICE));
}

/// What is answered until the first process; from then on it is as in the notebook that is kept.
fn rows_before_the_first_process(kind: Kind) -> String {
    let inputs: Vec<&str> = INPUTS.into_iter().chain(["trust", "distrust"]).collect();
    let trusted = |session: &Session| format!("{} · {}", shape(session), word(&session.trust));
    let states = walk(beginnings(kind), &inputs, trusted);
    let first: Vec<_> =
        states.into_iter().filter(|(_, session)| session.runtime.incarnation.0 == 0).collect();
    rows(&first, &inputs, trusted)
}

#[test]
fn a_notebook_whose_kernel_comes_with_the_first_run() {
    insta::assert_snapshot!(rows_before_the_first_process(OPENED_NOTEBOOK));
}

#[test]
fn a_notebook_that_nobody_has_vouched_for() {
    insta::assert_snapshot!(rows_before_the_first_process(UNTRUSTED_NOTEBOOK));
}

// C1, C3, C4: a path changes by a claim that was written, or with its file.
#[test]
fn where_an_untitled_notebook_goes() {
    let mut spec = spec(OPENED_NOTEBOOK);
    if let Workload::Notebook { source, path, .. } = &mut spec.workload {
        (*source, *path) = (None, None);
    }
    let states = walk(vec![settled(Session::new(spec))], &FILE_INPUTS, place);
    insta::assert_snapshot!(rows(&states, &FILE_INPUTS, place));
}

// ---- what holds in all of them ---------------------------------------------------------------------------------

#[test]
fn what_concerns_an_earlier_process_or_an_ended_run_changes_nothing() {
    // A6
    for (shape, session) in KINDS.into_iter().flat_map(states) {
        for name in REFUSED {
            let Some(input) = input(name, &session) else { continue };
            assert!(decide(&session, input, now()).is_err(), "{shape}: `{name}` is not refused");
        }
        for name in IGNORED {
            let Some(input) = input(name, &session) else { continue };
            assert_eq!(decide(&session, input, now()), Ok(Decision::none()), "{shape}: `{name}`");
        }
    }
}

// A15: nobody but the session knows what a process was at whose shim is gone.
#[test]
fn a_lost_shim_took_a_kernel_in_the_middle_of_its_work() {
    let mut deaths = BTreeSet::new();
    for (shape, session) in KINDS.into_iter().flat_map(states) {
        let ProcessInput::Exited { mut report, id } = exit(&session, session.process(), 0) else {
            unreachable!("it makes nothing else")
        };
        report.status = ExitStatus::Unknown;
        report.evidence.shim_lost =
            Some(ShimLostEvidence { shim_pid: Some(9), shim_status: None, killed: 1, refused: None });
        let lost = Input::Process(session.process(), ProcessInput::Exited { report, id });
        let decision = decide(&session, lost, now()).expect("a death is not refused");
        let phase = decision.facts.iter().find_map(|fact| match fact {
            Fact::Journal(event) => match &event.what {
                Happened::RuntimeExited { report: Some(report), .. } => Some(report.evidence.phase),
                _ => None,
            },
            _ => None,
        });
        let Some(phase) = phase else { continue };
        let expected = match (&session.runtime.status, session.running) {
            (Status::Launching, _) => Phase::Launching,
            (Status::Ready(_), Some(_)) => Phase::Busy,
            (Status::Ready(_), None) => Phase::Idle,
            _ => Phase::Stopping,
        };
        assert_eq!(phase, expected, "{shape}");
        deaths.insert(format!("{phase:?}"));
    }
    assert_eq!(deaths.len(), 4, "only {deaths:?} were seen");
}

#[test]
fn nothing_waits_for_nothing() {
    for (shape, session) in KINDS.into_iter().flat_map(states) {
        let is_timed = !timers(&session, now()).is_empty();
        let moves = session.has_process() || is_timed;
        assert!(session.is_settled() || moves, "{shape}: work waits for a process that nobody starts");
        match session.life {
            Life::Open => {}
            Life::Closing(_) => assert!(moves, "{shape}: a session that closes waits for nothing"),
            Life::Saving(_) | Life::Closed { .. } => {
                assert!(
                    session.is_settled() && !session.has_process(),
                    "{shape}: it ends with work or a process"
                );
            }
        }
    }
}

#[test]
fn a_timer_that_ran_out_is_not_wanted_again_at_once() {
    for (shape, session) in KINDS.into_iter().flat_map(states) {
        for (timer, after) in timers(&session, now()) {
            let due = now();
            let late = Now { wall: WallTime(due.wall.0 + after.as_micros() as u64), ..due };
            let mut after = session.clone();
            let decision = decide(&session, Input::Timer(timer), late).unwrap();
            decision.facts.iter().for_each(|fact| apply(&mut after, fact));
            let again = timers(&settled(after), late);
            let spins = again.iter().any(|(again, wait)| *again == timer && wait.is_zero());
            assert!(!spins, "{shape}: {timer:?} fires for ever");
        }
    }
}

/// Lets a process that reacts to nothing go on by itself: timers run out, a process that is stopped ends. Returns
/// whether something was left to happen.
fn happens(session: &mut Session) -> bool {
    let next = match session.runtime.status {
        Status::Stopping { .. } => input("exits 1", session),
        Status::Draining { .. } => input("drained", session),
        Status::Down
        | Status::Launching
        | Status::Ready(_)
        | Status::Exited(_)
        | Status::Backoff { .. }
        | Status::GaveUp { .. } => match session.life {
            Life::Saving(_) => input("saved", session),
            Life::Open | Life::Closing(_) | Life::Closed { .. } => {
                timers(session, now()).first().map(|(timer, _)| Input::Timer(*timer))
            }
        },
    };
    let Some(input) = next else { return false };
    match answer(session, input, &mut |_| {}) {
        Answer::Given { after, .. } => *session = *after,
        Answer::Denied(why) => panic!("{}: {why}", shape(session)),
    }
    true
}

/// Gives the input, then lets things happen until `done`.
fn comes_true(shape: &str, session: &Session, wish: &str, done: impl Fn(&Session) -> bool) {
    let Some(input) = input(wish, session) else { return };
    let Answer::Given { after, .. } = answer(session, input, &mut |_| {}) else { return };
    let mut session = *after;
    for _ in 0..STEPS_MAX {
        if done(&session) {
            return;
        }
        if !happens(&mut session) {
            break;
        }
    }
    panic!(
        "{shape}: `{wish}` was accepted and did not come true: {} ({:?})",
        self::shape(&session),
        session.runs
    );
}

#[test]
fn a_restart_that_was_accepted_brings_a_new_process_and_keeps_the_work_asked_for_with_it() {
    for (shape, session) in KINDS.into_iter().flat_map(states) {
        for wish in ["restart", "restart with work"] {
            // Without work, a session that is not kept has nothing to start it for.
            if wish == "restart" && session.spec.after_work == AfterWork::Close {
                continue;
            }
            let before = session.runtime.incarnation;
            let asked_for = session.order.len();
            comes_true(&shape, &session, wish, |session| {
                let lost = |id| matches!(session.runs[id].state, RunState::Ended(_));
                assert!(!session.order[asked_for..].iter().any(lost), "{shape}: `{wish}` loses its work");
                session.runtime.incarnation > before && session.runtime.status == Status::Launching
            });
        }
    }
}

#[test]
fn a_cancel_that_was_accepted_ends_the_run_before_another_try() {
    for (shape, session) in KINDS.into_iter().flat_map(states) {
        for (wish, run) in
            [("cancel running", session.running), ("cancel waiting", session.queue.front().copied())]
        {
            let Some(id) = run else { continue };
            let attempt = session.runs[&id].attempt;
            comes_true(&shape, &session, wish, |session| {
                assert_eq!(session.runs[&id].attempt, attempt, "{shape}: it is tried again");
                matches!(session.runs[&id].state, RunState::Ended(_))
            });
        }
    }
}

// A9
#[test]
fn a_rest_that_was_accepted_leaves_no_process_until_somebody_asks_for_work() {
    for (shape, session) in KINDS.into_iter().flat_map(states) {
        for wish in ["rest", "evict"] {
            // What is down for good stays so, and is not brought up by it either.
            let before = session.runtime.incarnation;
            comes_true(&shape, &session, wish, |session| {
                assert_eq!(session.runtime.incarnation, before, "{shape}: `{wish}` starts it");
                !session.has_process()
                    && session.is_settled()
                    && !matches!(session.runtime.status, Status::Backoff { .. })
            });
        }
    }
}

#[test]
fn what_is_asked_for_after_a_rest_is_run_by_a_new_process() {
    for (shape, session) in KINDS.into_iter().flat_map(states) {
        let Some(rest) = input("rest", &session) else { continue };
        let Answer::Given { after, .. } = answer(&session, rest, &mut |_| {}) else { continue };
        let (first, before) = (after.order.len(), after.runtime.incarnation);
        comes_true(&shape, &after, "queue", |session| {
            let lost = |id| matches!(session.runs[id].state, RunState::Ended(_));
            assert!(!session.order[first..].iter().any(lost), "{shape}: it is lost");
            session.runtime.incarnation > before && session.runtime.status == Status::Launching
        });
    }
}

#[test]
fn an_eviction_never_takes_work() {
    for (shape, session) in KINDS.into_iter().flat_map(states) {
        let Some(evict) = input("evict", &session) else { continue };
        if let Answer::Given { after, .. } = answer(&session, evict, &mut |_| {}) {
            assert_eq!(after.ended, session.ended, "{shape}");
            assert_eq!(after.runs, session.runs, "{shape}");
        }
    }
}

#[test]
fn an_interrupt_that_was_accepted_leaves_nothing_waiting() {
    for (shape, session) in KINDS.into_iter().flat_map(states) {
        let Answer::Given { after, .. } = answer(&session, Input::Interrupt, &mut |_| {}) else { continue };
        assert!(after.queue.is_empty(), "{shape}");
        assert_eq!(after.running, session.running, "{shape}");
    }
}

#[test]
fn a_cell_that_waits_is_one_run_however_often_it_is_asked_for() {
    for (shape, session) in KINDS.into_iter().flat_map(states) {
        let Some(again) = input("queue waiting cell", &session) else { continue };
        let Answer::Given { after, .. } = answer(&session, again, &mut |_| {}) else { continue };
        assert_eq!(after.queue, session.queue, "{shape}");
        assert_eq!(after.order, session.order, "{shape}");
        assert_eq!(after.runs[&after.queue[0]].new.source, "2", "{shape}: it is run as it was seen last");
    }
}

// A9
#[test]
fn a_stop_that_was_accepted_closes_the_session() {
    for (shape, session) in KINDS.into_iter().flat_map(states) {
        for wish in ["stop", "stop hard"] {
            comes_true(&shape, &session, wish, |session| {
                matches!(session.life, Life::Closed { .. }) && session.is_settled()
            });
        }
    }
}
