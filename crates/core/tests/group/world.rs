//! A group, its log, and a witness that reads nothing but the log and knows what must never stand in it.

use std::collections::{BTreeMap, BTreeSet};

use outlive_core::diagnosis::Evidence;
use outlive_core::diagnosis::evidence::{Phase as At, StopEvidence};
use outlive_core::failover::{Member, TakenWhy, Takeover};
use outlive_core::group::event::{GroupEvent, RunnerLost};
use outlive_core::group::input::RunnerInput;
use outlive_core::group::outlook::{Outlook, outlook, waits_until};
use outlive_core::group::spec::NewTask;
use outlive_core::group::state::TaskState;
use outlive_core::group::{
    Decision, Denied, Effect, Group, GroupSpec, Input, MemberSpec, Strategy, Timer, advance, apply,
    can_release, decide, recover, timers,
};
use outlive_core::id::{
    Attempt, BootId, Epoch, Incarnation, NodeId, ProcessKey, ReportId, RunId, RuntimeId, Seq, SessionId,
};
use outlive_core::limits::TASK_ATTEMPTS_MAX;
use outlive_core::log::chunk::Payload;
use outlive_core::runtime::runner::{Greeting, Phase, Speaks, Watchdogs};
use outlive_core::runtime::{ExitReport, ExitStatus, LaunchSpec, Program, RestartPolicy, StopStep, StopWhy};
use outlive_core::session::event::{AfterExit, Happened};
use outlive_core::session::input::ProcessInput;
use outlive_core::session::spec::HangPolicy;
use outlive_core::session::state::{Life, Status};
use outlive_core::session::{Fact, RunOutcome};
use outlive_core::time::{Now, WallTime};
use uuid::Uuid;

/// No chain of consequences is longer than this for so few tasks.
pub const STEPS_MAX: usize = 512;

/// How long a task waits, in milliseconds, when it waits.
pub const WAIT_MS: u64 = 60_000;

/// How long a cancelled task may take, in milliseconds.
pub const GRACE_MS: u64 = 5_000;

pub fn runtime(n: usize) -> RuntimeId {
    RuntimeId::from_uuid(Uuid::from_u128(10 + n as u128))
}

/// A group of so many runners, `llm-0` and so on.
pub fn spec(members: usize, strategy: Strategy, restart: RestartPolicy) -> GroupSpec {
    let member = |n| MemberSpec {
        runtime: runtime(n),
        name: format!("llm-{n}"),
        launch: LaunchSpec {
            program: Program::Runner {
                name: format!("llm-{n}"),
                argv: vec!["serve".to_owned()],
                speaks: Speaks::Protocol,
                watch: Watchdogs::default(),
            },
            cwd: "/".to_owned(),
            env: BTreeMap::new(),
            memory_bytes_max: None,
            ready_timeout_ms: 1_000,
        },
    };
    GroupSpec {
        id: SessionId::from_uuid(Uuid::from_u128(1)),
        name: "llm".to_owned(),
        members: (0..members).map(member).collect(),
        strategy,
        restart,
        on_hang: HangPolicy::Restart,
        on_node_loss: None,
        wait_ms: WAIT_MS,
        cancel_grace_ms: GRACE_MS,
        created_at: WallTime(0),
    }
}

pub fn greeting(tasks: &[&str], concurrency: u32) -> Greeting {
    let tasks = tasks.iter().map(|task| (*task).to_owned()).collect();
    Greeting { tasks, capabilities: BTreeSet::new(), concurrency, exact: BTreeSet::new(), sdk: None }
}

/// What the log says, and nothing else: each fact is looked at before the group has folded it.
#[derive(Clone, Debug, Default)]
struct Witness {
    /// Launched and not drained.
    live: BTreeSet<ProcessKey>,
    exited: BTreeMap<ProcessKey, Option<ReportId>>,
    /// What each process has said, and not taken back.
    greeted: BTreeMap<ProcessKey, Greeting>,
    entered: BTreeMap<ProcessKey, Phase>,
    answers: BTreeSet<ProcessKey>,
    leaving: BTreeSet<ProcessKey>,
    /// Those that end because the group goes to another node.
    displaced: BTreeSet<ProcessKey>,
    queued: BTreeMap<RunId, NewTask>,
    given: BTreeMap<RunId, ProcessKey>,
    open: BTreeMap<RunId, ProcessKey>,
    ending: BTreeSet<RunId>,
    attempts: BTreeMap<RunId, Attempt>,
    checkpoints: BTreeMap<RunId, Seq>,
    told: BTreeMap<(RunId, Attempt), ReportId>,
    /// How many attempts ended because of their node.
    excused: BTreeMap<RunId, u64>,
    /// Stopped at a step, so that nothing of them is done twice.
    stepped: BTreeSet<RunId>,
    ended: BTreeSet<RunId>,
    /// Members that fell together and were not started since.
    fallen: bool,
    noted: BTreeMap<ProcessKey, usize>,
}

impl Witness {
    fn see(&mut self, fact: &Fact, strategy: Strategy) {
        match fact {
            Fact::Journal(event) => match &event.what {
                Happened::Group(event) => self.event(event),
                what => self.happened(what, strategy),
            },
            Fact::RunOpened { run, attempt, base, .. } => self.opened(*run, *attempt, *base),
            Fact::RunTold { run, chunks } => {
                let Payload::Inline(bytes) = &chunks[0].payload else { panic!("it is short") };
                let content: serde_json::Value = serde_json::from_slice(bytes).unwrap();
                let report = content["report"].as_str().unwrap().parse().unwrap();
                assert!(self.open.contains_key(run), "told although nobody works on it");
                let before = self.told.insert((*run, self.attempts[run]), report);
                assert_eq!(before, None, "told of its death twice");
            }
            Fact::RunCheckpointed { run, seq, .. } => {
                self.checkpoints.insert(*run, *seq);
            }
            Fact::RunEnded { run, outcome, report, .. } => self.ended(*run, outcome, report.as_deref()),
        }
    }

    fn happened(&mut self, what: &Happened, strategy: Strategy) {
        match what {
            Happened::RuntimeLaunching(process) => {
                let of_this = |live: &&ProcessKey| live.runtime == process.runtime;
                assert_eq!(self.live.iter().find(of_this), None, "launched before the last is drained");
                if strategy == Strategy::OneForAll && std::mem::take(&mut self.fallen) {
                    assert!(self.live.is_empty(), "launched before all are drained: {:?}", self.live);
                }
                assert!(self.live.insert(*process));
            }
            Happened::RuntimeReady(process) | Happened::RuntimeRecovered(process) => {
                self.answers.insert(*process);
            }
            Happened::RuntimeUnresponsive { process, .. } => {
                self.answers.remove(process);
            }
            Happened::RuntimeStopping { process, why, .. } => {
                self.leaving.insert(*process);
                if *why == StopWhy::Drain {
                    self.displaced.insert(*process);
                }
            }
            Happened::RuntimeExited { process, report, .. } => {
                self.leaving.insert(*process);
                let id = report.as_ref().map(|report| report.id);
                if report.as_ref().is_some_and(|report| report.evidence.node_lost.is_some()) {
                    self.displaced.insert(*process);
                }
                let before = self.exited.insert(*process, id);
                assert_eq!(before, None, "{process} dies twice");
                for (run, _) in self.open.iter().filter(|(_, on)| *on == process) {
                    let told = self.told.get(&(*run, self.attempts[run])).copied();
                    let wished = self.ending.contains(run);
                    let new = &self.queued[run];
                    let exact = self.greeted.get(process).is_some_and(|it| it.exact.contains(&new.task));
                    let may_go_on = (self.displaced.contains(process) || exact) && new.idempotent;
                    assert!(
                        wished || told == id || (may_go_on && told.is_none()),
                        "{run} was told {told:?}, the report is {id:?}"
                    );
                }
            }
            Happened::RuntimeDrained { process, .. } => {
                assert!(self.live.remove(process), "{process} is drained twice");
            }
            _ => {}
        }
    }

    fn event(&mut self, event: &GroupEvent) {
        match event {
            GroupEvent::TaskQueued(new) => {
                assert!(self.queued.insert(new.id, (**new).clone()).is_none(), "queued twice");
            }
            GroupEvent::TaskGiven { run, process } => {
                self.given.insert(*run, *process);
            }
            GroupEvent::Greeted { process, greeting } => {
                self.greeted.insert(*process, greeting.clone());
            }
            GroupEvent::Entered { process, phase } => {
                self.entered.insert(*process, *phase);
            }
            GroupEvent::AllDown { .. } => self.fallen = true,
            GroupEvent::TaskEnding { run, .. } => {
                assert!(self.ending.insert(*run), "ended before its time twice");
            }
            GroupEvent::CancelIgnored { run } => {
                assert!(self.ending.contains(run));
                self.leaving.insert(self.open[run]);
            }
            GroupEvent::TaskWaitsAgain { run, lost } => {
                let process = self.open.remove(run).expect("it was worked on");
                assert!(!self.ending.contains(run), "somebody has cancelled it");
                *self.excused.entry(*run).or_default() += u64::from(*lost != RunnerLost::Ended);
                if *lost == RunnerLost::HandedOver && self.live.contains(&process) {
                    assert!(self.leaving.contains(&process), "taken back from one that goes on");
                    self.stepped.insert(*run);
                    return;
                }
                assert!(!self.live.contains(&process), "taken back before all is known that was said");
                assert!(self.queued[run].idempotent, "it must not be done twice");
                self.stepped.remove(run);
            }
            GroupEvent::Noted { report } => {
                let noted = self.noted.entry(report.process.unwrap()).or_default();
                *noted += 1;
                assert!(*noted <= 10, "its reports fill the log");
            }
            GroupEvent::TasksForgotten { runs, .. } => {
                assert!(runs.iter().all(|run| self.ended.contains(run)), "forgotten alive");
            }
            GroupEvent::Created(_)
            | GroupEvent::StartAsked { .. }
            | GroupEvent::StopAsked { .. }
            | GroupEvent::RestartDue { .. } => {}
        }
    }

    fn opened(&mut self, run: RunId, attempt: Attempt, base: Option<Seq>) {
        let process = self.given[&run];
        let new = &self.queued[&run];
        assert!(!self.ended.contains(&run), "begun after its end");
        assert!(self.live.contains(&process) && !self.leaving.contains(&process), "given to one that goes");
        assert!(self.answers.contains(&process), "given to one that does not answer");
        assert_eq!(self.entered.get(&process), Some(&Phase::Ready), "given to one that is not ready");
        let greeting = &self.greeted[&process];
        assert!(greeting.tasks.contains(&new.task), "given to one that cannot do it");
        let busy = self.open.values().filter(|on| **on == process).count();
        assert!(busy < greeting.concurrency.max(1) as usize, "given to one that is full");
        assert_eq!(self.open.insert(run, process), None, "on two processes at once");
        let before = self.attempts.insert(run, attempt).unwrap_or_default();
        assert_eq!(attempt, before.next());
        if attempt > Attempt(1) {
            let excused = self.excused.get(&run).copied().unwrap_or_default();
            assert!(new.idempotent || self.stepped.contains(&run), "it must not be done twice");
            assert!(attempt.0 - excused <= TASK_ATTEMPTS_MAX, "{attempt}, of which {excused} do not count");
            let kept = self.checkpoints.get(&run).copied().unwrap_or_default();
            let replays = greeting.exact.contains(&new.task);
            assert!(base == Some(kept) || (base.is_none() && replays), "it goes on at {base:?}");
        }
    }

    fn ended(
        &mut self,
        run: RunId,
        outcome: &RunOutcome,
        report: Option<&outlive_core::diagnosis::FailureReport>,
    ) {
        assert!(self.ended.insert(run), "a second terminal");
        let process = self.open.remove(&run);
        if let RunOutcome::Failed { report: named, .. } = outcome {
            let process = process.expect("a task that nobody had does not fail");
            assert!(!self.live.contains(&process), "its terminal stands before what was said");
            assert_eq!(self.exited[&process], Some(*named), "the death has one report");
            assert_eq!(report.map(|report| report.id), Some(*named));
        }
    }
}

/// A group, its log, and what its shims were told.
pub struct World {
    pub now: Now,
    pub log: Vec<Fact>,
    pub group: Group,
    /// What was carried out since somebody looked last.
    pub effects: Vec<Effect>,
    witness: Witness,
    ids: u128,
    /// How long the log was when each owner claimed it.
    claims: Vec<usize>,
}

impl World {
    pub fn new(spec: GroupSpec) -> Self {
        let mut world = Self {
            now: Now::default(),
            log: Vec::new(),
            group: Group::new(spec),
            effects: Vec::new(),
            witness: Witness::default(),
            ids: 1_000,
            claims: Vec::new(),
        };
        world.settle(usize::MAX);
        world
    }

    /// All members are up and take tasks called `chat`, so many at a time.
    pub fn ready(spec: GroupSpec, concurrency: u32) -> Self {
        let mut world = Self::new(spec);
        for member in 0..world.group.members.len() {
            world.gets_ready(member, &["chat"], concurrency);
        }
        world
    }

    pub fn id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128(self.ids)
    }

    pub fn task(&mut self, task: &str) -> NewTask {
        let id = RunId::from_uuid(self.id());
        NewTask {
            id,
            task: task.to_owned(),
            input: serde_json::Value::Null,
            key: id.to_string(),
            idempotent: false,
            wait_ms: WAIT_MS,
            limit_ms: None,
        }
    }

    // ---- what is given to it -----------------------------------------------------------------------------------

    /// Stores and applies facts; after `budget` of them the daemon dies. Returns what is left of the budget.
    fn store(&mut self, facts: Vec<Fact>, mut budget: usize) -> usize {
        for fact in facts {
            if budget == 0 {
                return 0;
            }
            budget -= 1;
            self.witness.see(&fact, self.group.spec.strategy);
            apply(&mut self.group, &fact);
            assert_eq!(self.group.waiting, by_name(&self.group), "each that waits is counted under its name");
            self.log.push(fact);
        }
        budget
    }

    fn settle(&mut self, mut budget: usize) -> usize {
        for _ in 0..STEPS_MAX {
            if budget == 0 {
                return 0;
            }
            let Decision { facts, effects } = advance(&self.group, self.now);
            if facts.is_empty() && effects.is_empty() {
                return budget;
            }
            assert!(!facts.is_empty(), "what changes nothing follows for ever: {effects:?}");
            budget = self.store(facts, budget);
            if budget > 0 {
                self.effects.extend(effects);
            }
        }
        panic!("what follows from the state does not end: {:?}", self.group);
    }

    /// One input.
    pub fn give(&mut self, input: Input) -> Result<(), Denied> {
        self.give_until(input, usize::MAX)
    }

    /// One input; the daemon dies after `budget` facts, and a new one folds the log.
    pub fn give_until(&mut self, input: Input, budget: usize) -> Result<(), Denied> {
        self.passes(1);
        let before = self.group.clone();
        let Decision { facts, effects } = match decide(&self.group, input, self.now) {
            Err(denied) => {
                assert_eq!(before, self.group, "a refused input changes nothing");
                return Err(denied);
            }
            Ok(decision) => decision,
        };
        let left = self.store(facts, budget);
        if left > 0 {
            self.effects.extend(effects);
        }
        if self.settle(left) == 0 {
            self.come_back();
        }
        self.check();
        Ok(())
    }

    /// Something that does not come from an input: the owner appends it by itself.
    pub fn append(&mut self, fact: Fact) {
        self.store(vec![fact], usize::MAX);
        self.settle(usize::MAX);
    }

    /// The next owner, on this node or another, claims the log and folds it.
    pub fn come_back(&mut self) {
        self.claims.push(self.log.len());
        self.group.claimed();
        let mut folded = Group::new(self.group.spec.clone());
        for n in 0..=self.log.len() {
            if self.claims.contains(&n) {
                folded.claimed();
            }
            if let Some(fact) = self.log.get(n) {
                apply(&mut folded, fact);
            }
        }
        assert_eq!(folded, self.group, "the fold of the facts is the state");
        self.effects.extend(recover(&folded));
        self.settle(usize::MAX);
    }

    /// The node is lost, and another takes the group over; `budget` as in [`Self::give_until`].
    pub fn is_lost(&mut self, budget: usize) {
        self.come_back();
        let takeover = Takeover {
            from: node(1),
            from_name: "one".to_owned(),
            to: node(2),
            to_name: "two".to_owned(),
            epoch: Epoch(2),
            why: TakenWhy::Silent,
            last_heard: Some(self.now.wall),
            noticed_at: WallTime(self.now.wall.0 + 400_000),
            claimed_at: WallTime(self.now.wall.0 + 401_000),
            resumed_at: WallTime(0),
            resumed: Vec::new(),
        };
        self.give_until(Input::TakenOver(Box::new(takeover)), budget).unwrap();
        for member in 0..self.group.members.len() {
            self.is_nowhere(member);
        }
    }

    /// The member's process is found nowhere.
    fn is_nowhere(&mut self, member: usize) {
        let (process, runtime) = (self.process(member), &self.group.members[member].runtime);
        if !runtime.has_process() {
            return;
        }
        let report = Box::new(runtime.nowhere(process, self.now.wall));
        let id = ReportId::from_uuid(self.id());
        self.said(member, ProcessInput::Exited { report, id });
        self.drains(member);
    }

    /// It is to be given away: its processes end when they are told to, and then it can be.
    pub fn is_handed_over(&mut self) {
        self.give(Input::HandOver).unwrap();
        for _ in 0..STEPS_MAX {
            if can_release(&self.group) {
                return;
            }
            for member in 0..self.group.members.len() {
                match self.status(member) {
                    Status::Stopping { .. } => {
                        self.exits(member, ExitStatus::Code { code: 0 });
                        self.drains(member);
                    }
                    Status::Draining { .. } => self.drains(member),
                    Status::Down | Status::Exited(_) | Status::Backoff { .. } | Status::GaveUp { .. } => {}
                    Status::Launching | Status::Ready(_) => panic!("it is not stopped: {:#?}", self.group),
                }
            }
        }
        panic!("it cannot be given away: {:#?}", self.group);
    }

    pub fn passes(&mut self, ms: u64) {
        self.now.wall.0 += ms * 1_000;
        self.now.tick = self.now.tick + std::time::Duration::from_millis(ms);
    }

    /// The deadline that comes first comes.
    pub fn next_timer(&mut self) -> Option<Timer> {
        let (timer, after) = timers(&self.group, self.now).into_iter().min_by_key(|(_, after)| *after)?;
        self.passes(u64::try_from(after.as_millis()).unwrap() + 1);
        self.give(Input::Timer(timer)).unwrap();
        Some(timer)
    }

    // ---- what members say --------------------------------------------------------------------------------------

    pub fn process(&self, member: usize) -> ProcessKey {
        self.group.members[member].process()
    }

    /// The same, or an earlier one.
    pub fn process_before(&self, member: usize, back: u64) -> ProcessKey {
        let present = self.process(member);
        ProcessKey { incarnation: Incarnation(present.incarnation.0.saturating_sub(back)), ..present }
    }

    pub fn said(&mut self, member: usize, what: ProcessInput) {
        let process = self.process(member);
        self.give(Input::Process(process, what)).unwrap();
    }

    pub fn runner_said(&mut self, member: usize, what: RunnerInput) {
        let process = self.process(member);
        self.give(Input::Runner(process, what)).unwrap();
    }

    pub fn gets_ready(&mut self, member: usize, tasks: &[&str], concurrency: u32) {
        self.said(member, ProcessInput::Spawned { pid: 7 });
        self.runner_said(member, RunnerInput::Greeted(greeting(tasks, concurrency)));
        self.runner_said(member, RunnerInput::Entered(Phase::Ready));
        self.said(member, ProcessInput::Ready);
    }

    pub fn exit_of(&mut self, process: ProcessKey, status: ExitStatus, evidence: Evidence) -> Input {
        let member = self.group.members.iter().find(|member| member.id == process.runtime).unwrap();
        let stop = match member.runtime.status {
            Status::Stopping { why, step } => Some(StopEvidence { why, step }),
            _ => None,
        };
        let evidence = Evidence { phase: At::Busy, stop, ..evidence };
        let (started_at, exited_at) = (member.runtime.launched_at, self.now.wall);
        let report = ExitReport { process, pid: Some(7), started_at, exited_at, status, evidence };
        let id = ReportId::from_uuid(self.id());
        Input::Process(process, ProcessInput::Exited { report: Box::new(report), id })
    }

    pub fn exits(&mut self, member: usize, status: ExitStatus) {
        let process = self.process(member);
        let exit = self.exit_of(process, status, Evidence::default());
        self.give(exit).unwrap();
    }

    pub fn drains(&mut self, member: usize) {
        self.said(member, ProcessInput::Drained(Box::default()));
    }

    /// It ends, and all that it wrote is known.
    pub fn dies(&mut self, member: usize) {
        self.exits(member, ExitStatus::Code { code: 1 });
        self.drains(member);
    }

    /// Its wait before a restart passes, and it takes tasks again.
    pub fn rises(&mut self, member: usize) {
        let incarnation = self.group.members[member].runtime.incarnation;
        while self.group.members[member].runtime.incarnation == incarnation {
            self.next_timer().expect("its restart is due some time");
        }
        self.gets_ready(member, &["chat"], 1);
    }

    pub fn finishes(&mut self, run: RunId, outcome: RunOutcome) {
        let TaskState::Running { process, .. } = self.group.tasks[&run].state else {
            panic!("nobody has it")
        };
        let attempt = self.group.tasks[&run].attempt;
        let finished = ProcessInput::RunFinished { run, attempt, outcome, execution_count: None };
        self.give(Input::Process(process, finished)).unwrap();
    }

    // ---- what is known of it -----------------------------------------------------------------------------------

    pub fn submits(&mut self, new: NewTask) -> RunId {
        let id = new.id;
        self.give(Input::Submit(new)).unwrap();
        id
    }

    /// A task called `chat` that may be begun again, or not.
    pub fn chat(&mut self, idempotent: bool) -> RunId {
        let new = NewTask { idempotent, ..self.task("chat") };
        self.submits(new)
    }

    pub fn outcome(&self, run: RunId) -> Option<&RunOutcome> {
        match &self.group.tasks[&run].state {
            TaskState::Ended(outcome) => Some(outcome),
            TaskState::Queued | TaskState::Running { .. } => None,
        }
    }

    /// The member that has it, by number.
    pub fn has(&self, run: RunId) -> Option<usize> {
        self.group.members.iter().position(|member| member.running.contains(&run))
    }

    pub fn status(&self, member: usize) -> &Status {
        &self.group.members[member].runtime.status
    }

    pub fn stops(&mut self) -> Vec<(usize, StopWhy, StopStep)> {
        let effects = std::mem::take(&mut self.effects);
        let number = |process: ProcessKey| self.group.member(process.runtime).unwrap().0;
        let stop = |effect| match effect {
            Effect::Stop { process, why, from } => Some((number(process), why, from)),
            Effect::Launch(_) | Effect::Task { .. } | Effect::Cancel { .. } | Effect::Finish => None,
        };
        effects.into_iter().filter_map(stop).collect()
    }

    /// Nothing waits for what will not come, and nothing is counted twice.
    fn check(&self) {
        let group = &self.group;
        assert_eq!(advance(group, self.now), Decision::default());
        let armed: BTreeSet<Timer> = timers(group, self.now).into_iter().map(|(timer, _)| timer).collect();
        for member in &group.members {
            if let Status::Backoff { .. } = member.runtime.status {
                assert!(armed.contains(&Timer::Backoff(member.id, member.runtime.incarnation)));
            }
            for run in &member.running {
                assert!(
                    self.witness.live.contains(&member.process()),
                    "{run} is with a process that is gone"
                );
                let task = &group.tasks[run];
                let TaskState::Running { process, ending } = &task.state else { panic!("{task:?}") };
                assert_eq!(*process, member.process());
                if ending.is_some() && member.runtime.is_up() {
                    assert!(armed.contains(&Timer::CancelGrace(*run, task.attempt)), "it may never end");
                }
            }
        }
        let mut waits = false;
        for run in &group.queue {
            let task = &group.tasks[run];
            match outlook(group, &task.new.task) {
                // The next owner says so.
                Outlook::Never if group.hand_over.is_some() => {}
                Outlook::Never => panic!("{task:?} waits for nobody"),
                Outlook::Waits(_) => waits = true,
                Outlook::Ready => {
                    let able = group.members.iter().filter(|member| {
                        member.is_ready() && member.has_handler(&task.new.task) == Some(true)
                    });
                    for member in able {
                        assert!(!member.has_room() && !member.running.is_empty(), "{task:?} is not given");
                    }
                }
            }
        }
        assert_eq!(waits, armed.iter().any(|timer| matches!(timer, Timer::Wait(_))), "a bound is missing");
        let known: usize = group.members.iter().map(|member| member.running.len()).sum();
        let open = group.tasks.values().filter(|task| !matches!(task.state, TaskState::Ended(_))).count();
        assert_eq!(open, group.queue.len() + known, "what has not ended waits or is worked on");
        let count = group.ended;
        assert_eq!(self.witness.ended.len(), (count.succeeded + count.failed + count.cancelled) as usize);
        assert_eq!(self.witness.open.len(), known);
    }

    // ---- to the end --------------------------------------------------------------------------------------------

    /// Every process dies as soon as it is there, and time passes: all work comes to its end.
    pub fn everything_dies(&mut self) {
        self.come_back();
        for _ in 0..STEPS_MAX {
            if self.group.is_settled() {
                return;
            }
            for member in 0..self.group.members.len() {
                match self.status(member) {
                    Status::Launching | Status::Ready(_) | Status::Stopping { .. } => self.dies(member),
                    Status::Draining { .. } => self.drains(member),
                    Status::Down | Status::Exited(_) | Status::Backoff { .. } | Status::GaveUp { .. } => {}
                }
            }
            self.next_timer();
        }
        panic!("work outlives everybody: {:#?}", self.group);
    }

    /// A process that is on its way out goes.
    pub fn goes_away(&mut self, member: usize) {
        match self.status(member) {
            Status::Stopping { .. } => self.dies(member),
            Status::Draining { .. } => self.drains(member),
            status => panic!("it is not on its way out: {status:?}"),
        }
    }

    /// It is ended, and its processes end when they are told to.
    pub fn closes(&mut self) {
        self.give(Input::Close { why: StopWhy::User, from: StopStep::Ask }).unwrap();
        for member in 0..self.group.members.len() {
            match self.status(member) {
                Status::Stopping { .. } => {
                    self.exits(member, ExitStatus::Signal { number: 15, core_dumped: false });
                    self.drains(member);
                }
                Status::Draining { .. } => self.drains(member),
                Status::Down | Status::Exited(_) | Status::GaveUp { .. } => {}
                Status::Launching | Status::Ready(_) | Status::Backoff { .. } => {
                    panic!("it was to end: {:?}", self.status(member))
                }
            }
        }
        assert!(matches!(self.group.life, Life::Closed { .. }), "{:?}", self.group);
        assert!(self.group.is_settled() && self.witness.live.is_empty());
        assert_eq!(self.witness.ended.len(), self.witness.queued.len(), "each task has its terminal");
    }

    /// When the first that waits has waited enough.
    pub fn waits_until(&self, run: RunId) -> Option<WallTime> {
        let task = &self.group.tasks[&run];
        waits_until(&self.group, task, &outlook(&self.group, &task.new.task))
    }

    /// What follows the member's end, while what it wrote is read.
    pub fn follows(&self, member: usize) -> &AfterExit {
        match self.status(member) {
            Status::Draining { then, .. } => then,
            status => panic!("it has not just ended: {status:?}"),
        }
    }
}

fn node(n: u128) -> Member {
    Member { node: NodeId::from_uuid(Uuid::from_u128(n)), boot: BootId::from_uuid(Uuid::from_u128(n)) }
}

/// How many tasks of each name are in the queue.
fn by_name(group: &Group) -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for id in &group.queue {
        *names.entry(group.tasks[id].new.task.clone()).or_default() += 1;
    }
    names
}
