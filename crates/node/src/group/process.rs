//! The task and its processes: orders out, records in.

use std::path::Path;

use outlive_core::failover::Takeover;
use outlive_core::failover::isolation::Verdict;
use outlive_core::group::input::RunnerInput;
use outlive_core::group::state::TaskState;
use outlive_core::group::{Effect, Input, decide, recover_member};
use outlive_core::id::{Attempt, ProcessKey, RunId, Seq};
use outlive_core::limits::STORE_RETRY_MS;
use outlive_core::log::{BlobRef, Chunk, Source};
use outlive_core::runtime::ExitReport;
use outlive_core::runtime::runner::{Phase, Progress, Replay, Saved, TaskOrder};
use outlive_core::session::Fact;
use outlive_core::session::input::ProcessInput;
use outlive_core::session::spec::Trust;
use outlive_protocol::shim::{Numbered, StateNotice, ToShim};
use outlive_store::BlobError;

use super::task::{Life, Task};
use crate::blobs;
use crate::cluster::owned;
use crate::seams::{FromLink, LaunchOrder};
use crate::session::intake::{self, Step};
use crate::session::journal::WriteError;
use crate::session::{report_id, with_sources};

/// What a shim says that is not output.
enum Said {
    /// Something to decide.
    Input(Input),
    /// How far a runner is.
    Entered(Phase, Progress),
    /// A task can go on from here.
    Checkpointed { run: RunId, attempt: Attempt, blob: BlobRef },
}

impl Task {
    pub(super) async fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Launch(process) => {
                if let Some(order) = self.launch_order(process) {
                    let link = self.context.runtimes.launch(order);
                    self.links.insert(link);
                }
            }
            Effect::Task { process, run, attempt, order } => {
                let checkpoint = self.saved(run).await;
                let order = TaskOrder { checkpoint, replay: self.replay(run), ..order };
                self.links.order(process, ToShim::Task { run, attempt, order });
            }
            Effect::Cancel { process, run, attempt } => {
                self.links.order(process, ToShim::CancelTask { run, attempt });
            }
            Effect::Stop { process, why, from } => self.links.order(process, ToShim::Stop { why, from }),
            Effect::Finish => self.life = Life::Over,
        }
    }

    /// What the last attempt of a task has saved: on this machine, wherever it was saved.
    async fn saved(&self, run: RunId) -> Option<Saved> {
        let (seq, blob) = self.group.tasks.get(&run)?.checkpoint.as_ref()?;
        let (blob, folder) = (blob.as_ref()?, Path::new(&self.blobs));
        let (id, engine) = (self.group.spec.id, &*self.context.engine);
        while let Err(error) = blobs::bring(engine, id, folder, blob).await {
            tracing::warn!(session = %id, %run, error = %with_sources(&error), "what a task has saved is not had");
            if let BlobError::Missing { .. } = error {
                // The runner says so when it looks for it.
                break;
            }
            if !self.context.pause(STORE_RETRY_MS).await {
                break;
            }
        }
        Some(Saved { seq: *seq, file: folder.join(&blob.sha256).display().to_string() })
    }

    /// What the present attempt of a task says first is known already, if it continues one that it replays.
    fn replay(&self, run: RunId) -> Option<Replay> {
        let task = self.group.tasks.get(&run).filter(|task| task.is_exact && task.attempt > Attempt(1))?;
        let kept = task.checkpoint.as_ref().map_or(Seq(0), |(seq, _)| *seq);
        self.replays.of(run, kept, self.journal.head(run))
    }

    pub(super) fn launch_order(&self, process: ProcessKey) -> Option<LaunchOrder> {
        let (rank, _) = self.group.member(process.runtime)?;
        let mut spec = self.group.spec.members.get(rank)?.launch.clone();
        let count = self.group.spec.members.len();
        for (name, value) in [("OUTLIVE_RUNNER_RANK", rank), ("OUTLIVE_RUNNER_COUNT", count)] {
            spec.env.entry(name.to_owned()).or_insert_with(|| value.to_string());
        }
        let (session, blobs) = (self.group.spec.id, self.blobs.clone());
        Some(LaunchOrder { session, process, spec, blobs, trust: Trust::Trusted })
    }

    pub(super) async fn linked(
        &mut self,
        process: ProcessKey,
        event: Option<FromLink>,
    ) -> Result<(), WriteError> {
        let record = match event {
            Some(FromLink::Record(record)) => record,
            Some(event) => return self.link_said(process, event).await,
            None => return self.link_said(process, FromLink::Gone { report: None }).await,
        };
        let (records, after) = intake::round(record, || self.links.try_next(process));
        self.records(process, records).await?;
        match after {
            Some(event) => self.link_said(process, event).await,
            None => Ok(()),
        }
    }

    async fn link_said(&mut self, process: ProcessKey, event: FromLink) -> Result<(), WriteError> {
        match event {
            FromLink::Record(record) => self.records(process, vec![record]).await,
            // The shim may have missed orders of a daemon that died, or of a connection that broke.
            FromLink::Welcome(welcome) => {
                tracing::debug!(%process, last = %welcome.last_src, "a runner's shim is linked");
                for effect in recover_member(&self.group, process) {
                    self.effect(effect).await;
                }
                if welcome.frozen { self.thaw(process).await } else { Ok(()) }
            }
            FromLink::Gone { report } => self.gone(process, report.map(|report| *report)).await,
        }
    }

    /// The shim is gone. If it had said all, nothing is left to say; else this is the end of the process.
    async fn gone(&mut self, process: ProcessKey, report: Option<ExitReport>) -> Result<(), WriteError> {
        self.links.remove(process);
        let Some(report) = report else { return Ok(()) };
        if let Some(reason) = report.evidence.shim_lost.as_ref().and_then(|lost| lost.refused.as_ref()) {
            self.context.note_refused(process, self.group.spec.id, reason);
        }
        self.ended(process, report).await
    }

    /// All that there is to be said of a process has been said.
    async fn ended(&mut self, process: ProcessKey, report: ExitReport) -> Result<(), WriteError> {
        let evidence = Box::new(report.evidence.clone());
        let exited = ProcessInput::Exited { report: Box::new(report), id: report_id() };
        self.input(Input::Process(process, exited), None).await?.ok();
        self.input(Input::Process(process, ProcessInput::Drained(evidence)), None).await?.ok();
        Ok(())
    }

    /// The group comes from another node, and its processes did not come along.
    pub(super) async fn taken_over(&mut self, takeover: Box<Takeover>) -> Result<(), WriteError> {
        let now = self.context.clock.now();
        if let Ok(decision) = decide(&self.group, Input::TakenOver(takeover), now) {
            // Nothing that follows from it is begun before the processes are known to be lost.
            self.carry_out(decision, None).await?;
        }
        if let (Some(cluster), Some(takeover)) = (&self.context.cluster, self.group.takeovers.back()) {
            cluster.has_taken_over(self.group.spec.id, &self.group.spec.name, takeover);
        }
        let lost: Vec<_> = self.group.members.iter().filter(|member| member.runtime.has_process()).collect();
        let lost: Vec<_> = lost
            .into_iter()
            .map(|member| (member.process(), member.runtime.nowhere(member.process(), now.wall)))
            .collect();
        for (process, report) in lost {
            self.ended(process, report).await?;
        }
        Ok(())
    }

    async fn records(&mut self, process: ProcessKey, records: Vec<Numbered>) -> Result<(), WriteError> {
        let acked = self.journal.acked(process);
        let records: Vec<_> = records.into_iter().filter(|record| record.src > acked).collect();
        let (last, was_frozen) = (intake::last(&records), intake::was_frozen(&records));
        for step in intake::steps(process, records, |state| said(process, state)) {
            match step {
                Step::Output { run, chunks, source } => self.output(process, run, chunks, source).await?,
                Step::Decide { input, source } => self.heard(process, input, source).await?,
                Step::Nothing => {}
            }
        }
        if let Some(through) = last {
            self.links.order(process, ToShim::Ack { through });
        }
        if was_frozen { self.thaw(process).await } else { Ok(()) }
    }

    /// A process that is frozen goes on if its group is ours.
    async fn thaw(&mut self, process: ProcessKey) -> Result<(), WriteError> {
        match owned::known(&self.context, self.group.spec.id).await {
            Verdict::Mine => {
                self.links.order(process, ToShim::Thaw);
                Ok(())
            }
            Verdict::NotMine => Err(WriteError::Fenced),
        }
    }

    async fn heard(&mut self, process: ProcessKey, said: Said, source: Source) -> Result<(), WriteError> {
        match said {
            Said::Input(input) => {
                let drained = matches!(&input, Input::Process(_, ProcessInput::Drained(_)));
                self.input(input, Some(source)).await?.ok();
                if drained {
                    self.links.order(process, ToShim::Goodbye);
                }
            }
            Said::Entered(phase, progress) => {
                self.loading.insert(process.runtime, progress);
                let entered = Input::Runner(process, RunnerInput::Entered(phase));
                self.input(entered, Some(source)).await?.ok();
            }
            Said::Checkpointed { run, attempt, blob } => {
                let is_current = self.group.tasks.get(&run).is_some_and(|task| task.attempt == attempt);
                if is_current && self.has(process, run) {
                    let seq = self.journal.head(run);
                    let fact = Fact::RunCheckpointed { run, attempt, seq, blob: Some(blob) };
                    let entry = self.journal.fact(&fact, Some(source)).await?;
                    self.follow(&fact, entry.position).await?;
                }
            }
        }
        Ok(())
    }

    /// Whether this process runs the task.
    fn has(&self, process: ProcessKey, run: RunId) -> bool {
        self.group.tasks.get(&run).is_some_and(
            |task| matches!(&task.state, TaskState::Running { process: holder, .. } if *holder == process),
        )
    }

    /// Output of a task that the process has goes to its lane; what comes after the task's end, or belongs to none, to
    /// the runtime's.
    async fn output(
        &mut self,
        process: ProcessKey,
        run: Option<RunId>,
        chunks: Vec<Chunk>,
        source: Source,
    ) -> Result<(), WriteError> {
        match run.filter(|run| self.has(process, *run)) {
            Some(run) => {
                self.replays.appended(run, chunks.iter());
                self.journal.output(run, chunks, Some(source)).await?
            }
            None => self.journal.stray(process, run, chunks, Some(source)).await?,
        };
        Ok(())
    }
}

fn said(process: ProcessKey, state: StateNotice) -> Option<Said> {
    let runner = |what| Some(Said::Input(Input::Runner(process, what)));
    match intake::of_process(state, false, report_id) {
        Ok(said) => said.map(|said| Said::Input(Input::Process(process, said))),
        Err(StateNotice::Greeted { greeting }) => runner(RunnerInput::Greeted(greeting)),
        Err(StateNotice::Entered { phase, progress }) => Some(Said::Entered(phase, progress)),
        Err(StateNotice::Checkpointed { run, attempt, blob }) => {
            Some(Said::Checkpointed { run, attempt, blob })
        }
        Err(StateNotice::Stalled { stall, run }) => runner(RunnerInput::Stalled { stall, run }),
        Err(StateNotice::Violated { what, is_fatal }) => {
            runner(RunnerInput::Violated { what, is_fatal, id: report_id() })
        }
        Err(_) => None,
    }
}
