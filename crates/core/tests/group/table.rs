//! What a group answers to everything, in every state that it can come to.
//!
//! The walk begins with a group that was just made and gives each state every input there is, so that the states of the
//! tables are those that exist: also those in which a daemon that died between two facts leaves its group. States that differ
//! only in numbers are one. Each table is a snapshot to be read line by line:
//!
//! ```text
//! members · life · work                                  [timers that run] {what a daemon that comes back does again}
//!   input   facts; EFFECTS ⇒ facts; EFFECTS that follow from the state alone = the state after it, if it is another
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use outlive_core::diagnosis::Evidence;
use outlive_core::diagnosis::evidence::{HangEvidence, StallEvidence, StopEvidence};
use outlive_core::group::event::{GroupEvent, TaskEndingWhy};
use outlive_core::group::input::RunnerInput;
use outlive_core::group::spec::NewTask;
use outlive_core::group::state::{Member, Task, TaskState};
use outlive_core::group::{
    Decision, Denied, Effect, Group, GroupSpec, Input, Strategy, Timer, advance, apply, decide, recover,
    timers,
};
use outlive_core::id::{Attempt, ProcessKey, ReportId, RunId};
use outlive_core::runtime::runner::Phase;
use outlive_core::runtime::{ExitReport, ExitStatus, RestartPolicy, StopStep, StopWhy};
use outlive_core::session::event::{AfterExit, Happened};
use outlive_core::session::input::ProcessInput;
use outlive_core::session::state::{Health, Life, Status, Wanted};
use outlive_core::session::{CancelWhy, Fact, RunOutcome};
use outlive_core::time::{Now, WallTime};
use uuid::Uuid;

use crate::world::{STEPS_MAX, greeting, runtime, spec};

/// All that a group can be told of its members, in words; those about a member are about each of them.
const OF_MEMBERS: [&str; 22] = [
    "start",
    "stop",
    "stop hard",
    "restart",
    "spawned",
    "loads",
    "gets ready",
    "shuts down",
    "finished",
    "raised",
    "cancelled",
    "silent",
    "answers again",
    "stops at TERM",
    "stalls",
    "task stalls",
    "breaks its channel",
    "breaks a rule",
    "exits 0",
    "exits 1",
    "drained",
    "backoff over",
];

/// What concerns the whole group or one of its tasks.
const OF_GROUP: [&str; 8] =
    ["submit", "submit now", "cancel running", "cancel waiting", "limit", "grace over", "waited", "close"];

/// What tells most, of two members.
const OF_RANKS: [&str; 9] =
    ["start", "stop", "restart", "spawned", "gets ready", "exits 0", "exits 1", "drained", "backoff over"];
const OF_THEIR_GROUP: [&str; 3] = ["submit", "cancel running", "close"];

#[derive(Clone, Copy)]
struct Kind {
    members: usize,
    strategy: Strategy,
    restart: RestartPolicy,
    idempotent: bool,
    /// No more than so many at a time: more would say nothing new.
    tasks_max: usize,
}

/// A service whose work may be done twice.
const SERVICE: Kind = Kind {
    members: 1,
    strategy: Strategy::OneForOne,
    restart: RestartPolicy::permanent(),
    idempotent: true,
    tasks_max: 2,
};

/// A runner whose work must not be done twice, and which may end.
const ONCE: Kind = Kind { restart: RestartPolicy::transient(), idempotent: false, ..SERVICE };

/// The ranks of one model.
const RANKS: Kind = Kind { members: 2, strategy: Strategy::OneForAll, tasks_max: 1, ..SERVICE };

const KINDS: [Kind; 3] = [SERVICE, ONCE, RANKS];

fn group(kind: Kind) -> GroupSpec {
    spec(kind.members, kind.strategy, kind.restart)
}

// ---- inputs ----------------------------------------------------------------------------------------------------

fn now() -> Now {
    Now { wall: WallTime(1_000_000), ..Now::default() }
}

/// So late that every bound is over.
fn late() -> Now {
    Now { wall: WallTime(1_000_000_000_000), ..Now::default() }
}

fn new_task(group: &Group, kind: Kind, wait_ms: u64) -> Option<NewTask> {
    let open = group.tasks.values().filter(|task| !matches!(task.state, TaskState::Ended(_))).count();
    let id = RunId::from_uuid(Uuid::from_u128(1_001 + u128::from(group.queued)));
    let (task, input) = ("chat".to_owned(), serde_json::Value::Null);
    let key = id.to_string();
    let new = NewTask { id, task, input, key, idempotent: kind.idempotent, wait_ms, limit_ms: Some(60_000) };
    (open < kind.tasks_max).then_some(new)
}

fn exit(member: &Member, code: i32) -> ProcessInput {
    let stop = match member.runtime.status {
        Status::Stopping { why, step } => Some(StopEvidence { why, step }),
        _ => None,
    };
    let report = Box::new(ExitReport {
        process: member.process(),
        pid: Some(7),
        started_at: now().wall,
        exited_at: now().wall,
        status: ExitStatus::Code { code },
        evidence: Evidence { stop, ..Evidence::default() },
    });
    ProcessInput::Exited { report, id: ReportId::from_uuid(Uuid::from_u128(3)) }
}

/// The inputs of this name about this member, in order; none where it cannot be made, since there is no such task.
fn of_member(name: &str, group: &Group, number: usize) -> Vec<Input> {
    let member = &group.members[number];
    let (id, process) = (member.id, member.process());
    let which = (group.members.len() > 1).then_some(id);
    let said = |what| vec![Input::Process(process, what)];
    let told = |what| vec![Input::Runner(process, what)];
    let first = member.running.first().copied();
    let finished = |outcome| {
        let Some(run) = first else { return Vec::new() };
        let attempt = group.tasks[&run].attempt;
        vec![Input::Process(
            process,
            ProcessInput::RunFinished { run, attempt, outcome, execution_count: None },
        )]
    };
    let stalls =
        |run| vec![Input::Runner(process, RunnerInput::Stalled { stall: StallEvidence::default(), run })];
    let breaks = |is_fatal| {
        let id = ReportId::from_uuid(Uuid::from_u128(4));
        vec![Input::Runner(process, RunnerInput::Violated { what: "garbage".to_owned(), is_fatal, id })]
    };
    match name {
        "start" => vec![Input::Start(which)],
        "stop" => vec![Input::Stop(which, StopStep::Ask)],
        "stop hard" => vec![Input::Stop(which, StopStep::Kill)],
        "restart" => vec![Input::Restart(which)],
        "spawned" => said(ProcessInput::Spawned { pid: 7 }),
        "loads" => told(RunnerInput::Entered(Phase::Loading)),
        // A shim says that there is a process before it says more about it.
        "gets ready" if member.runtime.pid.is_none() => Vec::new(),
        "gets ready" => vec![
            Input::Runner(process, RunnerInput::Greeted(greeting(&["chat"], 1))),
            Input::Runner(process, RunnerInput::Entered(Phase::Ready)),
            Input::Process(process, ProcessInput::Ready),
        ],
        "shuts down" => told(RunnerInput::Entered(Phase::ShuttingDown)),
        "finished" => finished(RunOutcome::Succeeded),
        "raised" => finished(RunOutcome::Raised { ename: "E".to_owned(), evalue: String::new() }),
        "cancelled" => finished(RunOutcome::Cancelled { why: CancelWhy::User }),
        "silent" => said(ProcessInput::Unresponsive(HangEvidence::default())),
        "answers again" => said(ProcessInput::Responsive),
        "stops at TERM" => said(ProcessInput::Stopping { why: StopWhy::User, step: StopStep::Term }),
        "stalls" => stalls(None),
        "task stalls" => first.map_or_else(Vec::new, |run| stalls(Some(run))),
        "breaks its channel" => breaks(true),
        "breaks a rule" if group.reports.len() < 3 => breaks(false),
        "breaks a rule" => Vec::new(),
        "exits 0" => said(exit(member, 0)),
        "exits 1" => said(exit(member, 1)),
        "drained" => said(ProcessInput::Drained(Box::default())),
        "backoff over" => vec![Input::Timer(Timer::Backoff(id, member.runtime.incarnation))],
        _ => panic!("no input is called {name}"),
    }
}

fn of_group(name: &str, group: &Group, kind: Kind) -> Option<Input> {
    let running = group.members.iter().find_map(|member| member.running.first().copied());
    let attempt = running.map_or(Attempt(1), |run| group.tasks[&run].attempt);
    match name {
        "submit" => new_task(group, kind, 60_000).map(Input::Submit),
        "submit now" => new_task(group, kind, 0).map(Input::Submit),
        "cancel running" => running.map(Input::Cancel),
        "cancel waiting" => group.queue.front().copied().map(Input::Cancel),
        "limit" => running.map(|run| Input::Timer(Timer::Limit(run, attempt))),
        "grace over" => running.map(|run| Input::Timer(Timer::CancelGrace(run, attempt))),
        "waited" => group.queue.front().copied().map(|run| Input::Timer(Timer::Wait(run))),
        "close" => Some(Input::Close { why: StopWhy::User, from: StopStep::Ask }),
        _ => panic!("no input is called {name}"),
    }
}

/// Every input there is in this state, with its name.
fn inputs(group: &Group, kind: Kind) -> Vec<(String, Vec<Input>)> {
    let mut inputs: Vec<(String, Vec<Input>)> = Vec::new();
    let (of_groups, of_members): (&[&str], &[&str]) =
        if kind.members > 1 { (&OF_THEIR_GROUP, &OF_RANKS) } else { (&OF_GROUP, &OF_MEMBERS) };
    for name in of_groups {
        inputs.extend(of_group(name, group, kind).map(|input| ((*name).to_owned(), vec![input])));
    }
    for number in 0..group.members.len() {
        for name in of_members {
            let named = if kind.members > 1 { format!("{name} {number}") } else { (*name).to_owned() };
            let said = of_member(name, group, number);
            inputs.extend((!said.is_empty()).then_some((named, said)));
        }
    }
    inputs
}

// ---- the walk --------------------------------------------------------------------------------------------------

/// What one input does to one state.
enum Answer {
    /// It is refused.
    Denied(Denied),
    /// It has this answer: what was decided, and what follows from the state alone.
    Given { decisions: Vec<Decision>, after: Box<Group> },
}

/// Answers inputs in their order; `between` sees the states in which a daemon that dies would leave the group.
fn answer(group: &Group, inputs: Vec<Input>, between: &mut impl FnMut(&Group)) -> Answer {
    let mut after = group.clone();
    let mut decisions = Vec::new();
    for input in inputs {
        let at = if matches!(input, Input::Timer(Timer::Wait(_))) { late() } else { now() };
        match decide(&after, input, at) {
            Ok(decision) => decisions.push(store(&mut after, decision, between)),
            Err(denied) => return Answer::Denied(denied),
        }
        for step in 0.. {
            let decision = advance(&after, now());
            if decision.is_none() {
                break;
            }
            assert!(step < STEPS_MAX && !decision.facts.is_empty(), "what follows does not end: {after:#?}");
            decisions.push(store(&mut after, decision, between));
        }
    }
    decisions.retain(|decision| !decision.is_none());
    Answer::Given { decisions, after: Box::new(after) }
}

fn store(group: &mut Group, decision: Decision, between: &mut impl FnMut(&Group)) -> Decision {
    for fact in &decision.facts {
        apply(group, fact);
        between(group);
    }
    decision
}

/// What follows from a state alone, until nothing does.
fn settled(mut group: Group) -> Group {
    for _ in 0..STEPS_MAX {
        let decision = advance(&group, now());
        if decision.is_none() {
            return group;
        }
        decision.facts.iter().for_each(|fact| apply(&mut group, fact));
    }
    panic!("what follows does not end: {group:#?}");
}

/// Every state that a group of this kind can come to, in the order in which they are found.
fn states(kind: Kind) -> Vec<(String, Group)> {
    let mut seen = BTreeSet::new();
    let mut states: Vec<(String, Group)> = Vec::new();
    let mut waiting = VecDeque::from(beginnings(kind));
    while let Some(group) = waiting.pop_front() {
        if !seen.insert(shape(&group)) {
            continue;
        }
        for (_, input) in inputs(&group, kind) {
            // A daemon that dies between two facts comes back to what follows from those that are stored.
            let mut between = |crashed: &Group| waiting.push_back(settled(crashed.clone()));
            if let Answer::Given { after, .. } = answer(&group, input, &mut between) {
                waiting.push_back(*after);
            }
        }
        states.push((shape(&group), group));
    }
    states
}

/// A group that was just made, and one on its way through as many deaths as its policy allows.
fn beginnings(kind: Kind) -> Vec<Group> {
    let mut beginnings = vec![settled(Group::new(group(kind)))];
    for _ in 0..=kind.restart.restarts_max {
        for name in ["exits 1", "drained", "backoff over"] {
            for number in 0..kind.members {
                let group = beginnings.last().expect("the first is there").clone();
                if let Answer::Given { after, .. } =
                    answer(&group, of_member(name, &group, number), &mut |_| {})
                {
                    beginnings.push(*after);
                }
            }
        }
    }
    beginnings
}

// ---- words -----------------------------------------------------------------------------------------------------

fn shape(group: &Group) -> String {
    let members: Vec<String> = group.members.iter().map(|member| standing(group, member)).collect();
    let falling = if group.falling.is_some() { " (falling)" } else { "" };
    format!("{}{falling} · {} · {}", members.join(" | "), life(group), waiting(group))
}

fn standing(group: &Group, member: &Member) -> String {
    let status = match &member.runtime.status {
        Status::Down if member.runtime.wanted == Wanted::Down => "stopped".to_owned(),
        Status::Down => "down".to_owned(),
        Status::Launching if member.runtime.pid.is_none() => "launching".to_owned(),
        Status::Launching => format!("launched, {}", word(&member.phase)),
        Status::Ready(Health::Unresponsive(_)) => "unresponsive".to_owned(),
        Status::Ready(Health::Responsive) if member.ignores_cancel => "deaf".to_owned(),
        Status::Ready(Health::Responsive) if member.is_ready() => "ready".to_owned(),
        Status::Ready(Health::Responsive) => format!("up, {}", word(&member.phase)),
        Status::Stopping { why, .. } => match why {
            StopWhy::Hung | StopWhy::Stalled | StopWhy::Violation | StopWhy::IgnoredCancel => {
                "stopping for a fault".to_owned()
            }
            why => format!("stopping for {}", word(why)),
        },
        Status::Draining { then, .. } => format!("draining, then {}", follows(then)),
        Status::Exited(_) => "exited".to_owned(),
        Status::Backoff { .. } => "backoff".to_owned(),
        Status::GaveUp { .. } => "gave up".to_owned(),
    };
    let work: Vec<&str> = member.running.iter().map(|run| with(&group.tasks[run])).collect();
    if work.is_empty() { status } else { format!("{status} with {}", work.join(" and ")) }
}

fn with(task: &Task) -> &'static str {
    match &task.state {
        TaskState::Running { ending: Some(_), .. } => "a task that is being ended",
        TaskState::Running { ending: None, .. } => "a task",
        TaskState::Queued | TaskState::Ended(_) => panic!("{task:?} is not running"),
    }
}

fn ending(why: TaskEndingWhy) -> &'static str {
    match why {
        TaskEndingWhy::Cancelled => "being cancelled",
        TaskEndingWhy::TimedOut => "over its limit",
    }
}

fn follows(then: &AfterExit) -> String {
    match then {
        AfterExit::Stay => "nothing".to_owned(),
        AfterExit::Rest => "rest".to_owned(),
        AfterExit::Restart { .. } => "restart".to_owned(),
        AfterExit::GiveUp { .. } => "give up".to_owned(),
    }
}

fn life(group: &Group) -> &'static str {
    match &group.life {
        Life::Open => "open",
        Life::Closing(_) => "closing",
        Life::Saving(_) => "saving",
        Life::Closed { .. } => "closed",
    }
}

fn waiting(group: &Group) -> &'static str {
    if group.queue.is_empty() { "nothing waits" } else { "waiting" }
}

fn word(what: &impl std::fmt::Debug) -> String {
    format!("{what:?}").to_lowercase()
}

fn name(run: &RunId) -> String {
    format!("t{}", run.as_uuid().as_u128() - 1_000)
}

fn number(process: &ProcessKey) -> String {
    let member = (0..9).find(|n| runtime(*n) == process.runtime).expect("one of ours");
    format!("{member}#{}", process.incarnation)
}

fn outcome(outcome: &RunOutcome) -> String {
    match outcome {
        RunOutcome::Failed { code, .. } => format!("failed ({})", code.as_str()),
        RunOutcome::Raised { .. } => "raised".to_owned(),
        RunOutcome::Succeeded => "succeeded".to_owned(),
        RunOutcome::TimedOut { .. } => "timed out".to_owned(),
        RunOutcome::Unserved { .. } => "unserved".to_owned(),
        RunOutcome::Cancelled { why: CancelWhy::User } => "cancelled".to_owned(),
        RunOutcome::Cancelled { .. } => "stopped".to_owned(),
    }
}

fn fact(fact: &Fact) -> String {
    match fact {
        Fact::RunOpened { run, attempt, base, .. } => {
            let base = base.map_or_else(String::new, |base| format!(" after {base}"));
            format!("{} begins try {attempt}{base}", name(run))
        }
        Fact::RunTold { run, .. } => format!("{} told", name(run)),
        Fact::RunCheckpointed { run, .. } => format!("{} saved", name(run)),
        Fact::RunEnded { run, outcome: how, .. } => format!("{} {}", name(run), outcome(how)),
        Fact::Journal(event) => match &event.what {
            Happened::Group(event) => of_groups(event),
            what => of_process(what),
        },
    }
}

fn of_process(what: &Happened) -> String {
    match what {
        Happened::RuntimeLaunching(process) => format!("launching {}", number(process)),
        Happened::RuntimeSpawned { .. } => "spawned".to_owned(),
        Happened::RuntimeReady(_) => "ready".to_owned(),
        Happened::RuntimeUnresponsive { .. } => "unresponsive".to_owned(),
        Happened::RuntimeRecovered(_) => "recovered".to_owned(),
        Happened::RuntimeStopping { process, why, step } => {
            format!("{} stopping for {} at {}", number(process), word(why), word(step))
        }
        Happened::RuntimeExited { report, then, .. } => {
            let why = report.as_ref().map_or("no failure", |report| report.cause().code.as_str());
            format!("exited ({why}), then {}", follows(then))
        }
        Happened::RuntimeDrained { .. } => "drained".to_owned(),
        Happened::Closing(_) => "closing".to_owned(),
        Happened::Closed { .. } => "closed".to_owned(),
        other => panic!("not of a group: {other:?}"),
    }
}

fn of_groups(event: &GroupEvent) -> String {
    match event {
        GroupEvent::Created(_) => "created".to_owned(),
        GroupEvent::TaskQueued(new) => format!("{} queued", name(&new.id)),
        GroupEvent::TaskGiven { run, process } => format!("{} to {}", name(run), number(process)),
        GroupEvent::Greeted { .. } => "greeted".to_owned(),
        GroupEvent::Entered { phase, .. } => word(phase),
        GroupEvent::StartAsked { .. } => "start asked".to_owned(),
        GroupEvent::StopAsked { .. } => "stop asked".to_owned(),
        GroupEvent::RestartDue { .. } => "restart due".to_owned(),
        GroupEvent::AllDown { .. } => "all down".to_owned(),
        GroupEvent::TaskEnding { run, why } => format!("{} {}", name(run), ending(*why)),
        GroupEvent::CancelIgnored { run } => format!("{} goes on", name(run)),
        GroupEvent::TaskWaitsAgain { run, .. } => format!("{} waits again", name(run)),
        GroupEvent::Noted { .. } => "noted".to_owned(),
        GroupEvent::TasksForgotten { .. } => "forgotten".to_owned(),
    }
}

fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Launch(process) => format!("LAUNCH {}", number(process)),
        Effect::Task { process, run, attempt, .. } => {
            format!("TASK {} try {attempt} to {}", name(run), number(process))
        }
        Effect::Cancel { run, .. } => format!("CANCEL {}", name(run)),
        Effect::Stop { process, why, from } => {
            format!("STOP {} for {} from {}", number(process), word(why), word(from))
        }
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
        Timer::Backoff(..) => "backoff",
        Timer::Wait(_) => "wait",
        Timer::Limit(..) => "limit",
        Timer::CancelGrace(..) => "grace",
    }
}

fn list(words: impl Iterator<Item = String>, around: [&str; 2]) -> String {
    let words: BTreeSet<String> = words.collect();
    if words.is_empty() {
        return String::new();
    }
    format!("  {}{}{}", around[0], words.into_iter().collect::<Vec<_>>().join(", "), around[1])
}

fn table(kind: Kind) -> String {
    let mut table = String::new();
    for (before, group) in states(kind) {
        let armed = list(timers(&group, now()).iter().map(|(t, _)| timer(t).to_owned()), ["[", "]"]);
        let again = list(recover(&group).iter().map(effect), ["{", "}"]);
        writeln!(table, "{before}{armed}{again}").unwrap();
        let (mut nothing, mut denied) = (Vec::new(), BTreeMap::<&str, Vec<String>>::new());
        for (name, input) in inputs(&group, kind) {
            match answer(&group, input, &mut |_| {}) {
                Answer::Denied(why) => denied.entry(reason(&why)).or_default().push(name),
                Answer::Given { decisions, .. } if decisions.is_empty() => nothing.push(name),
                Answer::Given { decisions, after } => {
                    let words: Vec<String> = decisions.iter().map(decision).collect();
                    let after = shape(&after);
                    let changed = if after == before { String::new() } else { format!(" = {after}") };
                    writeln!(table, "  {name:<19}{}{changed}", words.join(" ⇒ ")).unwrap();
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

fn reason(denied: &Denied) -> &'static str {
    match denied {
        Denied::Closed => "closed",
        Denied::NoSuchTask(_) => "no such task",
        Denied::TaskEnded(_) => "the task has ended",
        Denied::NoSuchMember => "no such member",
        Denied::NobodyReady(_) => "nobody is ready",
        Denied::UnknownTask { .. } => "nobody has a handler",
        Denied::QueueFull { .. } => "the queue is full",
    }
}

// ---- tables ----------------------------------------------------------------------------------------------------

#[test]
fn a_runner_whose_work_may_be_done_twice() {
    insta::assert_snapshot!(table(SERVICE));
}

// ---- what was accepted comes true ------------------------------------------------------------------------------

/// Gives the input to each state that accepts it, then lets processes end and time pass until `done`.
fn comes_true(states: &[(String, Group)], wish: &Input, done: impl Fn(&Group, &Group) -> bool) {
    for (shape, before) in states {
        let Answer::Given { after, .. } = answer(before, vec![wish.clone()], &mut |_| {}) else { continue };
        let mut present = *after;
        for _ in 0..STEPS_MAX {
            if done(before, &present) || !happens(&mut present) {
                break;
            }
        }
        assert!(done(before, &present), "{shape}: {wish:?} was accepted and did not come true: {present:#?}");
    }
}

/// What is on its way out ends; then the first deadline passes. Nothing else happens by itself.
fn happens(group: &mut Group) -> bool {
    let ends = group.members.iter().enumerate().find_map(|(number, member)| match member.runtime.status {
        Status::Stopping { .. } => Some(of_member("exits 1", group, number)),
        Status::Draining { .. } => Some(of_member("drained", group, number)),
        Status::Down
        | Status::Launching
        | Status::Ready(_)
        | Status::Exited(_)
        | Status::Backoff { .. }
        | Status::GaveUp { .. } => None,
    });
    let backoff = |(timer, _): &(Timer, _)| matches!(timer, Timer::Backoff(..) | Timer::CancelGrace(..));
    let due = || timers(group, now()).into_iter().find(backoff).map(|(timer, _)| vec![Input::Timer(timer)]);
    let Some(inputs) = ends.or_else(due) else { return false };
    match answer(group, inputs, &mut |_| {}) {
        Answer::Given { after, .. } => *group = *after,
        Answer::Denied(why) => panic!("{}: {why}", shape(group)),
    }
    true
}

/// That it has another process than before, unless it was to have one anyway.
fn is_anew(before: &Member, member: &Member) -> bool {
    let was_about_to = before.runtime.status == Status::Down && before.runtime.wanted == Wanted::Up;
    let is_new = member.runtime.incarnation > before.runtime.incarnation;
    (is_new || was_about_to) && member.runtime.status == Status::Launching
}

/// That it has no process, and none follows.
fn is_down(before: &Member, member: &Member) -> bool {
    assert_eq!(before.runtime.incarnation, member.runtime.incarnation, "it is started");
    !member.runtime.has_process() && !matches!(member.runtime.status, Status::Backoff { .. })
}

// A9
#[test]
fn what_was_accepted_comes_true_in_every_state() {
    let of_each = |is: fn(&Member, &Member) -> bool| {
        move |before: &Group, group: &Group| {
            before.members.iter().zip(&group.members).all(|(before, member)| is(before, member))
        }
    };
    let mut statuses = BTreeSet::new();
    for kind in KINDS {
        let states = states(kind);
        statuses.extend(states.iter().flat_map(|(_, group)| &group.members).map(|member| {
            let status = word(&member.runtime.status);
            status.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
        }));
        comes_true(&states, &Input::Start(None), of_each(|_, member| member.runtime.is_up()));
        comes_true(&states, &Input::Restart(None), of_each(is_anew));
        comes_true(&states, &Input::Stop(None, StopStep::Ask), of_each(is_down));
        let close = Input::Close { why: StopWhy::User, from: StopStep::Ask };
        let is_closed = |_: &Group, group: &Group| matches!(group.life, Life::Closed { .. });
        comes_true(&states, &close, |before, group| is_closed(before, group) && group.is_settled());
    }
    let all = ["backoff", "down", "draining", "exited", "gaveup", "launching", "ready", "stopping"];
    assert_eq!(statuses, all.map(str::to_owned).into(), "the tables are whole");
}
