//! The task and its process: orders out, records in.

use std::path::Path;

use outlive_core::failover::Takeover;
use outlive_core::failover::isolation::Verdict;
use outlive_core::id::{ProcessKey, RunId};
use outlive_core::log::Source;
use outlive_core::log::fold::Effect as LogEffect;
use outlive_core::runtime::{ExitReport, Program};
use outlive_core::session::Input;
use outlive_core::session::input::{Effect, ProcessInput};
use outlive_core::session::spec::Place;
use outlive_core::session::state::RunState;
use outlive_core::session::{decide, recover};
use outlive_protocol::shim::{Numbered, OpenQuestion, ToShim};

use super::super::intake::{self, Step};
use super::super::journal::WriteError;
use super::{Life, Task, report_id};
use crate::cluster::owned;
use crate::seams::{FromLink, LaunchOrder};

impl Task {
    pub(super) async fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Launch(process) => {
                let order = self.launch_order(process);
                self.link = Some(self.context.runtimes.launch(order));
            }
            Effect::Execute { process, run, attempt, code } => {
                let allow_stdin = self.peers.attended();
                self.order(process, ToShim::Execute { run, attempt, code, allow_stdin, silent: false }).await;
            }
            Effect::Interrupt(process) => self.order(process, ToShim::Interrupt).await,
            Effect::Answer { process, run, value } => self.order(process, ToShim::Input { run, value }).await,
            Effect::Stop { process, why, from } => self.order(process, ToShim::Stop { why, from }).await,
            Effect::SaveFinally => self.life = Life::LastSave,
            Effect::Finish => self.life = Life::Over,
        }
    }

    pub(in super::super) fn launch_order(&mut self, process: ProcessKey) -> LaunchOrder {
        let mut spec = self.session.spec.launch.clone();
        let beside = self.session.path.as_deref().and_then(|path| Path::new(path).parent());
        if let (Place::Notebook, Some(folder)) = (self.session.spec.place, beside) {
            spec.cwd = folder.to_string_lossy().into_owned();
        }
        if let (Program::OfNotebook { metadata, .. }, Some(notebook)) =
            (&mut spec.program, &mut self.notebook)
        {
            *metadata = notebook.document.notebook().kernel_metadata();
        }
        let (session, trust) = (self.session.spec.id, self.session.trust);
        LaunchOrder { session, process, spec, blobs: self.blobs.clone(), trust }
    }

    /// An order to a process that is gone has lost its point: its end is reported already.
    pub(super) async fn order(&mut self, process: ProcessKey, order: ToShim) {
        if let Some(link) = self.link.as_ref().filter(|link| link.process == process) {
            let _gone = link.to.send(order).await;
        }
    }

    pub(super) async fn linked(&mut self, event: Option<FromLink>) -> Result<(), WriteError> {
        match event {
            Some(FromLink::Record(record)) => {
                let link = &mut self.link;
                let next = || link.as_mut()?.from.try_recv().ok();
                let (records, after) = intake::round(record, next);
                self.records(records).await?;
                match after {
                    Some(event) => self.link_said(event).await,
                    None => Ok(()),
                }
            }
            Some(event) => self.link_said(event).await,
            None => self.link_said(FromLink::Gone { report: None }).await,
        }
    }

    async fn link_said(&mut self, event: FromLink) -> Result<(), WriteError> {
        match event {
            FromLink::Record(record) => self.records(vec![record]).await,
            // The shim may have missed orders of a daemon that died, or of a connection that broke.
            FromLink::Welcome(welcome) => {
                tracing::debug!(process = %welcome.identity.process, last = %welcome.last_src, "a shim is linked");
                for effect in recover(&self.session) {
                    match effect {
                        Effect::SaveFinally | Effect::Finish => {}
                        effect => self.effect(effect).await,
                    }
                }
                if welcome.frozen {
                    self.thaw().await?;
                }
                self.ask_again(welcome.asks).await
            }
            FromLink::Gone { report } => self.gone(report.map(|report| *report)).await,
        }
    }

    /// The answer to a question was lost with the daemon that had it: whoever is there is asked again. The answer is
    /// in no log, it may be a password (docs/decisions). Somebody was there, or it would not have been answered.
    async fn ask_again(&mut self, asks: Option<OpenQuestion>) -> Result<(), WriteError> {
        let Some(OpenQuestion { src, run, prompt, password }) = asks else { return Ok(()) };
        let process = self.session.process();
        if self.session.question.is_none() && src <= self.journal.acked(process) {
            let asked = ProcessInput::InputRequested { run, prompt, password, attended: true };
            self.input(Input::Process(process, asked), None).await?.ok();
        }
        Ok(())
    }

    /// The shim is gone. If it had said all, nothing is left to say; else this is the end of the process.
    async fn gone(&mut self, report: Option<ExitReport>) -> Result<(), WriteError> {
        let Some(link) = self.link.take() else { return Ok(()) };
        let Some(report) = report else { return Ok(()) };
        let process = link.process;
        if let Some(reason) = report.evidence.shim_lost.as_ref().and_then(|lost| lost.refused.as_ref()) {
            self.context.note_refused(process, self.session.spec.id, reason);
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

    /// The session comes from another node, and its process did not come along.
    pub(super) async fn taken_over(&mut self, takeover: Box<Takeover>) -> Result<(), WriteError> {
        let now = self.context.clock.now();
        if let Ok(decision) = decide(&self.session, Input::TakenOver(takeover), now) {
            // Nothing that follows from it is begun before the process is known to be lost.
            self.carry_out(decision, None).await?;
        }
        if let (Some(cluster), Some(takeover)) = (&self.context.cluster, self.session.takeovers.back()) {
            cluster.has_taken_over(self.session.spec.id, &self.view.borrow().title, takeover);
        }
        if self.session.has_process() {
            let process = self.session.process();
            let report = self.session.runtime.nowhere(process, now.wall);
            self.ended(process, report).await?;
        }
        self.take_up(Vec::new());
        Ok(())
    }

    async fn records(&mut self, records: Vec<Numbered>) -> Result<(), WriteError> {
        let Some(process) = self.link.as_ref().map(|link| link.process) else { return Ok(()) };
        let acked = self.journal.acked(process);
        let records: Vec<_> = records.into_iter().filter(|record| record.src > acked).collect();
        let (last, was_frozen) = (intake::last(&records), intake::was_frozen(&records));
        let attended = self.peers.attended();
        // What only runners say has no meaning for a notebook or a command.
        let decided = |state| intake::of_process(state, attended, report_id).ok().flatten();
        for step in intake::steps(process, records, decided) {
            match step {
                Step::Output { run, chunks, source } => self.output(process, run, chunks, source).await?,
                Step::Decide { input, source } => {
                    let drained = matches!(&input, ProcessInput::Drained(_));
                    self.input(Input::Process(process, input), Some(source)).await?.ok();
                    if drained {
                        self.order(process, ToShim::Goodbye).await;
                    }
                }
                Step::Nothing => {}
            }
        }
        if let Some(through) = last {
            self.order(process, ToShim::Ack { through }).await;
        }
        if was_frozen { self.thaw().await } else { Ok(()) }
    }

    /// A process that is frozen goes on if its session is ours.
    async fn thaw(&mut self) -> Result<(), WriteError> {
        match owned::known(&self.context, self.session.spec.id).await {
            Verdict::Mine => {
                self.order(self.session.process(), ToShim::Thaw).await;
                Ok(())
            }
            Verdict::NotMine => Err(WriteError::Fenced),
        }
    }

    /// Output of an open run goes to its lane; what comes after the run's end, or belongs to none, to the runtime's.
    async fn output(
        &mut self,
        process: ProcessKey,
        run: Option<RunId>,
        chunks: Vec<outlive_core::log::Chunk>,
        source: Source,
    ) -> Result<(), WriteError> {
        let open = run.filter(|run| {
            self.session.runs.get(run).is_some_and(|run| matches!(run.state, RunState::Running { .. }))
        });
        let n = chunks.len() as u64;
        let (entry, effect) = match open {
            Some(run) => {
                let first = self.journal.head(run).next();
                let entry = self.journal.output(run, chunks, Some(source)).await?;
                let attempt = self.session.runs.get(&run).map(|run| run.attempt).unwrap_or_default();
                (entry, LogEffect::Appended { run, attempt, first, skip: 0, n })
            }
            None => (self.journal.stray(process, run, chunks, Some(source)).await?, LogEffect::Runtime),
        };
        if let Some(notebook) = &mut self.notebook {
            notebook.apply(&entry, &effect, &self.session, self.context.clock.now().tick);
        }
        Ok(())
    }
}
