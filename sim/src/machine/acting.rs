//! What a process does, and what its shim says of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use outlive_core::diagnosis::Evidence;
use outlive_core::diagnosis::evidence::StopEvidence;
use outlive_core::id::{Attempt, ProcessKey, RunId};
use outlive_core::log::{Chunk, ChunkKind};
use outlive_core::runtime::{ExitReport, ExitStatus, Program, StopStep, StopWhy};
use outlive_core::session::RunOutcome;
use outlive_core::session::outcome::CancelWhy;
use outlive_core::time::WallTime;
use outlive_node::seams::FromLink;
use outlive_protocol::shim::{Notice, Numbered, StateNotice};
use serde_json::{Value, json};

use super::script::{self, How, Script};
use super::{Emitted, Shim, State, Work, later, send, step_after};
use crate::store::short;
use crate::world::World;

/// A process that does something.
pub(super) struct Acting<'a> {
    pub(super) world: &'a Arc<World>,
    pub(super) node: usize,
    pub(super) key: ProcessKey,
    pub(super) shim: &'a mut Shim,
    pub(super) emitted: &'a mut BTreeMap<RunId, Vec<Emitted>>,
}

impl Acting<'_> {
    pub(super) fn says(&mut self, notice: Notice) {
        self.shim.last = self.shim.last.next();
        let record = Numbered { src: self.shim.last, at: self.wall(), notice };
        self.shim.records.insert(record.src, record.clone());
        send(self.world, self.node, self.key, self.shim, FromLink::Record(record));
    }

    pub(super) fn state(&mut self, state: StateNotice) {
        self.says(Notice::State(state));
    }

    pub(super) fn wall(&self) -> WallTime {
        self.world.wall(self.node)
    }

    pub(super) fn output(&mut self, run: RunId, kind: ChunkKind, text: &str) {
        let chunks = vec![Chunk::inline(kind, self.wall(), text.as_bytes())];
        self.says(Notice::Output { run: Some(run), chunks });
    }

    pub(super) fn execute(&mut self, run: RunId, attempt: Attempt, code: String) {
        if self.shim.process.state == State::Ended || !self.shim.process.known.insert((run, attempt)) {
            return;
        }
        match &self.shim.order.spec.program {
            Program::Command { argv } => {
                let script = Script::of_command(argv);
                self.state(StateNotice::Spawned { pid: 1, pid_start: 1 });
                self.state(StateNotice::RunStarted { run, attempt });
                self.state(StateNotice::Ready { kernel_info: Value::Null });
                self.start(run, attempt, script);
            }
            Program::Kernel { .. } | Program::OfNotebook { .. } | Program::Runner { .. } => {
                self.shim.process.waiting.push_back((run, attempt, code));
                self.next_code();
            }
        }
    }

    pub(super) fn next_code(&mut self) {
        if !self.shim.process.works.is_empty() {
            return;
        }
        let Some((run, attempt, code)) = self.shim.process.waiting.pop_front() else { return };
        self.state(StateNotice::RunStarted { run, attempt });
        self.start(run, attempt, Script::of_code(&code));
    }

    pub(super) fn begin(&mut self, run: RunId, attempt: Attempt, script: Script) {
        if self.shim.process.state != State::Ended && self.shim.process.known.insert((run, attempt)) {
            self.start(run, attempt, script);
        }
    }

    pub(super) fn start(&mut self, run: RunId, attempt: Attempt, script: Script) {
        self.world.tell(
            Some(self.node),
            format_args!("{} begins {} attempt {attempt}", short(self.key), short(run)),
        );
        let step = script.from;
        let wait = script.every;
        self.shim.process.works.insert(run, Work { attempt, script, step });
        step_after(self.world, self.node, self.key, wait, run, attempt);
    }

    pub(super) fn step(&mut self, run: RunId, attempt: Attempt) {
        let process = &mut self.shim.process;
        match process.state {
            State::Ended => return,
            State::Frozen => return process.missed.push((run, attempt)),
            State::Runs => {}
        }
        let Some(work) = process.works.get_mut(&run).filter(|work| work.attempt == attempt) else { return };
        if work.script.how == How::Holds {
            return;
        }
        work.step += 1;
        let (step, script) = (work.step, work.script.clone());
        if step > script.n {
            return self.end(run, &script);
        }
        if script.how == How::Dies && attempt == Attempt(1) && step == script.n / 2 + 1 {
            return self.dies(ExitStatus::Signal { number: 11, core_dumped: false }, None);
        }
        let text = script.text(run, attempt, step);
        let (at, node, process) = (self.world.schedule.now(), self.node, self.key);
        let emitted = Emitted { at, node, process, attempt, step, text: text.clone() };
        self.emitted.entry(run).or_default().push(emitted);
        self.output(run, script.kind, &text);
        if script.how == How::Saves && step.is_multiple_of(3) {
            let blob = self.world.saved.clone();
            self.state(StateNotice::Checkpointed { run, attempt, blob });
        }
        step_after(self.world, self.node, self.key, script.every, run, attempt);
    }

    pub(super) fn end(&mut self, run: RunId, script: &Script) {
        match script.code {
            Some(code) => {
                self.shim.process.works.remove(&run);
                self.dies(ExitStatus::Code { code }, None);
            }
            None => self.finish(run, RunOutcome::Succeeded),
        }
    }

    pub(super) fn finish(&mut self, run: RunId, outcome: RunOutcome) {
        let Some(work) = self.shim.process.works.remove(&run) else { return };
        self.shim.process.count += 1;
        let execution_count = Some(self.shim.process.count);
        if outcome.is_success() && work.script.kind == ChunkKind::Text {
            self.output(run, ChunkKind::Result, &json!(work.script.n).to_string());
        }
        let attempt = work.attempt;
        self.state(StateNotice::RunFinished { run, attempt, outcome, execution_count });
        self.next_code();
    }

    pub(super) fn cancel(&mut self, run: RunId, attempt: Attempt) {
        if self.shim.process.works.get(&run).is_some_and(|work| work.attempt == attempt) {
            self.finish(run, RunOutcome::Cancelled { why: CancelWhy::User });
        }
    }

    pub(super) fn interrupt(&mut self) {
        let running: Vec<RunId> = self.shim.process.works.keys().copied().collect();
        for run in running {
            if matches!(self.shim.order.spec.program, Program::Command { .. }) {
                return self.dies(ExitStatus::Signal { number: 2, core_dumped: false }, None);
            }
            let (ename, evalue) = ("KeyboardInterrupt".to_owned(), String::new());
            self.finish(run, RunOutcome::Raised { ename, evalue });
        }
    }

    pub(super) fn freeze(&mut self, by_guard: bool) {
        if self.shim.process.state == State::Runs {
            self.shim.process.state = State::Frozen;
            self.world.tell(
                Some(self.node),
                format_args!("{} is frozen, by its guard: {by_guard}", short(self.key)),
            );
            self.state(StateNotice::Frozen { by_guard });
        }
    }

    pub(super) fn thaw(&mut self) {
        self.shim.heard = self.world.schedule.now();
        if self.shim.process.state != State::Frozen {
            return;
        }
        self.shim.process.state = State::Runs;
        self.world.tell(Some(self.node), format_args!("{} is thawed", short(self.key)));
        for (run, attempt) in std::mem::take(&mut self.shim.process.missed) {
            step_after(self.world, self.node, self.key, Duration::from_micros(50), run, attempt);
        }
        self.state(StateNotice::Thawed);
    }

    pub(super) fn refuse(&mut self) {
        self.shim.is_refused = true;
        let stop = StopEvidence { why: StopWhy::Disowned, step: StopStep::Kill };
        later(self.world, self.node, self.key, Duration::from_millis(5), move |mut acting| {
            acting.dies(ExitStatus::Code { code: 0 }, Some(stop));
        });
    }

    pub(super) fn dies(&mut self, status: ExitStatus, stop: Option<StopEvidence>) {
        if std::mem::replace(&mut self.shim.process.state, State::Ended) == State::Ended {
            return;
        }
        self.world.tell(Some(self.node), format_args!("{} ends: {status}", short(self.key)));
        self.shim.process.works.clear();
        self.shim.process.waiting.clear();
        let evidence = Evidence { stop, ..Evidence::default() };
        let report = ExitReport {
            process: self.key,
            pid: Some(1),
            started_at: WallTime(0),
            exited_at: self.wall(),
            status,
            evidence: evidence.clone(),
        };
        self.state(StateNotice::Exited { report: Box::new(report) });
        self.state(StateNotice::Drained { evidence: Box::new(evidence) });
    }
}

impl Acting<'_> {
    pub(super) fn boots(&mut self, program: &Program) {
        if self.shim.process.state == State::Ended {
            return;
        }
        match program {
            Program::Command { .. } => {}
            Program::Kernel { .. } | Program::OfNotebook { .. } => {
                self.state(StateNotice::Spawned { pid: 1, pid_start: 1 });
                self.state(StateNotice::Ready { kernel_info: Value::Null });
            }
            Program::Runner { .. } => {
                self.state(StateNotice::Spawned { pid: 1, pid_start: 1 });
                self.state(StateNotice::Greeted { greeting: script::greeting() });
                let (phase, progress) = (outlive_core::runtime::runner::Phase::Ready, Default::default());
                self.state(StateNotice::Entered { phase, progress });
                self.state(StateNotice::Ready { kernel_info: Value::Null });
            }
        }
    }
}
