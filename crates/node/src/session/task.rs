//! The task that owns a session.
//!
//! ```text
//!  shim's records ─┐
//!  timers ─────────┤► one input ─► decide ─► facts to the log ─► apply ─► effects ─► advance … ─► view
//!  mailbox ────────┘   (in this order, and the others before more output)
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use outlive_core::id::{ProcessKey, ReportId, RunId};
use outlive_core::log::fold::Effect as LogEffect;
use outlive_core::log::{Entry, FencedBody, Record, RunRecord, Source};
use outlive_core::runtime::StopWhy;
use outlive_core::session::input::{Effect, ProcessInput, Timer};
use outlive_core::session::spec::Workload;
use outlive_core::session::state::RunState;
use outlive_core::session::{
    Decision, Denied, Fact, Input, Session, advance, apply, decide, recover, timers,
};
use outlive_core::time::Tick;
use outlive_protocol::http::{Problem, SessionView, SubmitRuns};
use outlive_protocol::shim::{Numbered, ToShim};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::handle::{Answer, Ask, Message, Peers, denied};
use super::intake::{self, Step};
use super::journal::{Journal, WriteError};
use super::notebook::NotebookFile;
use super::view;
use crate::context::Context;
use crate::seams::{FromLink, LaunchOrder, Link};

/// How many records of a shim are taken into one round, so that commands are answered in between.
const ROUND_RECORDS_MAX: usize = 512;

/// A session and all that its task holds for it.
pub(super) struct Task {
    pub(super) context: Arc<Context>,
    pub(super) session: Session,
    pub(super) journal: Journal,
    pub(super) notebook: Option<NotebookFile>,
    pub(super) link: Option<Link>,
    pub(super) timers: BTreeMap<Timer, Tick>,
    pub(super) mailbox: mpsc::Receiver<Message>,
    pub(super) view: watch::Sender<Arc<SessionView>>,
    pub(super) peers: Arc<Peers>,
    pub(super) blobs: String,
    pub(super) stop: CancellationToken,
    pub(super) life: Life,
}

/// Whether the task goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Life {
    /// It does.
    Going,
    /// The last save is due.
    LastSave,
    /// The session has ended.
    Over,
}

/// Who is heard first when several have something. After output it is the others' turn: a program that prints for
/// ever delays a wish or a deadline by one round of its output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum First {
    Shim,
    Others,
}

/// What woke the task.
enum Woken {
    Link(Option<FromLink>),
    Timer(Timer),
    Saved,
    SaveDue,
    Asked(Option<Message>),
    Stopped,
}

impl Task {
    /// Runs until the session has ended, the daemon stops, or the session is lost to somebody else.
    pub(super) async fn run(mut self) {
        let id = self.session.spec.id;
        let result = self.drive().await;
        match &result {
            Ok(()) => {}
            Err(WriteError::Fenced) => {
                tracing::warn!(session = %id, "fenced: somebody else owns the session; its processes are stopped");
                self.disown().await;
                self.context.broken(id, "another daemon owns it".to_owned());
            }
            Err(error) => {
                tracing::error!(session = %id, error = %super::notebook::with_sources(error), "the session cannot go on");
                self.context.broken(id, super::notebook::with_sources(error));
            }
        }
        self.context.bus.close(id);
    }

    async fn drive(&mut self) -> Result<(), WriteError> {
        self.settle().await?;
        let mut first = First::Shim;
        loop {
            match self.life {
                Life::Going => {}
                Life::LastSave => {
                    self.save_finally().await?;
                    continue;
                }
                Life::Over => return self.finish().await,
            }
            let woken = self.wait(first).await;
            first = if matches!(woken, Woken::Link(_)) { First::Others } else { First::Shim };
            match woken {
                Woken::Link(event) => self.linked(event).await?,
                Woken::Timer(timer) => {
                    self.timers.remove(&timer);
                    self.input(Input::Timer(timer), None).await?.ok();
                }
                Woken::Saved => self.show(),
                Woken::SaveDue => {
                    if let Some(notebook) = &mut self.notebook {
                        notebook.begin_save(self.context.clock.now().tick);
                    }
                }
                Woken::Asked(Some(message)) => self.asked(message).await?,
                Woken::Asked(None) | Woken::Stopped => return self.leave().await,
            }
        }
    }

    async fn wait(&mut self, first: First) -> Woken {
        let timer = self.timers.iter().min_by_key(|(_, at)| **at).map(|(timer, at)| (*timer, *at));
        let save = self.notebook.as_ref().and_then(NotebookFile::save_due);
        let clock = Arc::clone(&self.context.clock);
        let shim = async {
            match &mut self.link {
                Some(link) => Woken::Link(link.from.recv().await),
                None => std::future::pending().await,
            }
        };
        let others = async {
            tokio::select! {
                biased;
                timer = async {
                    match timer {
                        Some((timer, at)) => { clock.until(at).await; timer }
                        None => std::future::pending().await,
                    }
                } => Woken::Timer(timer),
                () = async {
                    match &mut self.notebook {
                        Some(notebook) => notebook.saved().await,
                        None => std::future::pending().await,
                    }
                } => Woken::Saved,
                () = async {
                    match save {
                        Some(at) => clock.until(at).await,
                        None => std::future::pending().await,
                    }
                } => Woken::SaveDue,
                message = self.mailbox.recv() => Woken::Asked(message),
            }
        };
        match first {
            First::Shim => tokio::select! {
                biased;
                () = self.stop.cancelled() => Woken::Stopped,
                woken = shim => woken,
                woken = others => woken,
            },
            First::Others => tokio::select! {
                biased;
                () = self.stop.cancelled() => Woken::Stopped,
                woken = others => woken,
                woken = shim => woken,
            },
        }
    }

    /// Decides one input, stores and applies what follows, and all that follows from that.
    async fn input(
        &mut self,
        input: Input,
        source: Option<Source>,
    ) -> Result<Result<(), Denied>, WriteError> {
        let now = self.context.clock.now();
        let decision = match decide(&self.session, input, now) {
            Ok(decision) => decision,
            Err(denied) => return Ok(Err(denied)),
        };
        self.carry_out(decision, source).await?;
        self.settle().await?;
        Ok(Ok(()))
    }

    /// Carries out what follows from the state until nothing does, then shows the state.
    async fn settle(&mut self) -> Result<(), WriteError> {
        loop {
            let decision = advance(&self.session, self.context.clock.now());
            if decision.is_none() {
                break;
            }
            self.carry_out(decision, None).await?;
        }
        let now = self.context.clock.now();
        let wanted = timers(&self.session, now);
        self.timers.retain(|timer, _| wanted.iter().any(|(wanted, _)| wanted == timer));
        for (timer, after) in wanted {
            self.timers.entry(timer).or_insert(now.tick + after);
        }
        self.show();
        Ok(())
    }

    /// Facts first, effects after. The records of the shim are accounted for by the last fact.
    async fn carry_out(&mut self, decision: Decision, source: Option<Source>) -> Result<(), WriteError> {
        let last = decision.facts.len();
        for (n, fact) in decision.facts.iter().enumerate() {
            let source = source.filter(|_| n + 1 == last);
            let entry = self.journal.fact(fact, source).await?;
            apply(&mut self.session, fact);
            self.project(&entry, fact);
        }
        for effect in decision.effects {
            self.effect(effect).await;
        }
        Ok(())
    }

    fn project(&mut self, entry: &Entry, fact: &Fact) {
        let Some(notebook) = &mut self.notebook else { return };
        let now = self.context.clock.now().tick;
        let effect = match (fact, &entry.record) {
            (
                Fact::RunOpened { run, .. },
                Record::Fenced(outlive_core::log::Fenced {
                    body: FencedBody::Run(RunRecord::Open { attempt, base, .. }),
                    ..
                }),
            ) => LogEffect::Opened { run: *run, attempt: *attempt, base: *base, truncated_from: *base },
            (Fact::RunEnded { run, .. }, _) => LogEffect::Ended {
                run: *run,
                attempt: outlive_core::id::Attempt(0),
                last_seq: self.journal.head(*run),
            },
            _ => return,
        };
        notebook.apply(entry, &effect, &self.session, now);
    }

    async fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Launch(process) => {
                self.link = Some(self.context.runtimes.launch(self.launch_order(process)));
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

    pub(super) fn launch_order(&self, process: ProcessKey) -> LaunchOrder {
        LaunchOrder {
            session: self.session.spec.id,
            process,
            spec: self.session.spec.launch.clone(),
            blobs: self.blobs.clone(),
        }
    }

    /// An order to a process that is gone has lost its point: its end is reported already.
    async fn order(&mut self, process: ProcessKey, order: ToShim) {
        if let Some(link) = self.link.as_ref().filter(|link| link.process == process) {
            let _gone = link.to.send(order).await;
        }
    }

    async fn linked(&mut self, event: Option<FromLink>) -> Result<(), WriteError> {
        match event {
            Some(FromLink::Record(record)) => {
                let mut records = vec![record];
                let mut after = None;
                if let Some(link) = &mut self.link {
                    while records.len() < ROUND_RECORDS_MAX {
                        match link.from.try_recv() {
                            Ok(FromLink::Record(record)) => records.push(record),
                            Ok(other) => {
                                after = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                }
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
                Ok(())
            }
            FromLink::Gone { report } => self.gone(report.map(|report| *report)).await,
        }
    }

    /// The shim is gone. If it had said all, nothing is left to say; else this is the end of the process.
    async fn gone(&mut self, report: Option<outlive_core::runtime::ExitReport>) -> Result<(), WriteError> {
        let Some(link) = self.link.take() else { return Ok(()) };
        let Some(report) = report else { return Ok(()) };
        let process = link.process;
        let evidence = Box::new(report.evidence.clone());
        let exited = ProcessInput::Exited { report: Box::new(report), id: report_id() };
        self.input(Input::Process(process, exited), None).await?.ok();
        self.input(Input::Process(process, ProcessInput::Drained(evidence)), None).await?.ok();
        Ok(())
    }

    async fn records(&mut self, records: Vec<Numbered>) -> Result<(), WriteError> {
        let Some(process) = self.link.as_ref().map(|link| link.process) else { return Ok(()) };
        let acked = self.journal.acked(process);
        let records: Vec<_> = records.into_iter().filter(|record| record.src > acked).collect();
        let last = intake::last(&records);
        for step in intake::steps(process, records, self.peers.attended(), report_id) {
            match step {
                Step::Output { run, chunks, source } => self.output(process, run, chunks, source).await?,
                Step::Decide { input, source } => {
                    let drained = matches!(&input, Input::Process(_, ProcessInput::Drained(_)));
                    self.input(input, Some(source)).await?.ok();
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
        Ok(())
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

    fn show(&self) {
        let mut view = view::session(&self.session, self.journal.position(), self.peers.attached());
        if view.save_problem.is_none() {
            view.save_problem = self.notebook.as_ref().and_then(NotebookFile::problem).map(str::to_owned);
        }
        self.view.send_replace(Arc::new(view));
    }

    async fn save_finally(&mut self) -> Result<(), WriteError> {
        self.life = Life::Going;
        let problem = match &mut self.notebook {
            Some(notebook) => notebook.save_finally(self.context.clock.now().tick).await,
            None => None,
        };
        self.input(Input::Saved { problem }, None).await?.ok();
        Ok(())
    }

    /// The session has ended: its log is closed, its path free.
    async fn finish(&mut self) -> Result<(), WriteError> {
        self.notebook = None;
        self.journal.close().await?;
        let view = Arc::clone(&self.view.borrow());
        self.context.closed(&view).await;
        Ok(())
    }

    /// The daemon stops and the processes go on: what can be saved is saved.
    async fn leave(&mut self) -> Result<(), WriteError> {
        if let Some(notebook) = &mut self.notebook
            && let Some(problem) = notebook.save_finally(self.context.clock.now().tick).await
        {
            tracing::warn!(session = %self.session.spec.id, problem, "not saved at the daemon's end");
        }
        Ok(())
    }

    async fn disown(&mut self) {
        let stop = ToShim::Stop { why: StopWhy::Disowned, from: outlive_core::runtime::StopStep::Term };
        self.order(self.session.process(), stop).await;
    }

    async fn asked(&mut self, message: Message) -> Result<(), WriteError> {
        let answer = self.answer(message.ask).await?;
        // Whoever asked may have gone; what was asked is done all the same.
        let _gone = message.answer.send(answer);
        Ok(())
    }

    async fn answer(&mut self, ask: Ask) -> Result<Result<Answer, Problem>, WriteError> {
        let input = match ask {
            Ask::Runs => return Ok(Ok(Answer::Runs(view::runs(&self.session, self.journal.fold())))),
            Ask::Reports => return Ok(Ok(Answer::Reports(self.session.reports.clone()))),
            Ask::Submit(work) => return self.submit(work).await,
            Ask::Restart { run_all } => {
                match self.runs_of(if run_all { Some(SubmitRuns::All) } else { None }) {
                    Ok(runs) => Input::Restart(runs),
                    Err(problem) => return Ok(Err(problem)),
                }
            }
            Ask::Interrupt => Input::Interrupt,
            Ask::Stop { why, from } => Input::Stop { why, from },
            Ask::Cancel(run) => Input::Cancel(run),
            Ask::Answer { run, value } => Input::Answer { run, value },
        };
        let id = self.session.spec.id;
        Ok(match self.input(input, None).await? {
            Ok(()) => Ok(Answer::Done(self.view.borrow().clone())),
            Err(why) => Err(denied(id, &why)),
        })
    }

    async fn submit(&mut self, work: SubmitRuns) -> Result<Result<Answer, Problem>, WriteError> {
        let runs = match self.runs_of(Some(work)) {
            Ok(runs) => runs,
            Err(problem) => return Ok(Err(problem)),
        };
        let ids: Vec<_> = runs.iter().map(|run| run.id).collect();
        let id = self.session.spec.id;
        Ok(match self.input(Input::Queue(runs), None).await? {
            Ok(()) => Ok(Answer::Runs(
                ids.iter().filter_map(|run| view::run(&self.session, self.journal.fold(), *run)).collect(),
            )),
            Err(why) => Err(denied(id, &why)),
        })
    }

    fn runs_of(
        &self,
        work: Option<SubmitRuns>,
    ) -> Result<Vec<outlive_core::session::event::NewRun>, Problem> {
        let tolerant = matches!(self.session.spec.workload, Workload::Notebook { allow_errors: true, .. });
        super::open::runs_of(self.notebook.as_ref(), tolerant, work)
    }
}

/// A fresh id for a report.
pub(super) fn report_id() -> ReportId {
    ReportId::from_uuid(Uuid::now_v7())
}
