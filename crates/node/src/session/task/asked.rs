//! What the task answers to those who ask.

use outlive_core::runtime::{StopStep, StopWhy};
use outlive_core::session::spec::{Place, StartWhen, Trust, Workload};
use outlive_core::session::state::{Life as SessionLife, Status};
use outlive_core::session::{Input, effective};
use outlive_protocol::http::{Problem, SubmitRuns};

use super::super::handle::{Answer, Ask, Giving, Message, denied, ended, known_run};
use super::super::journal::WriteError;
use super::super::{open, view};
use super::Task;
use crate::hosted::Hosted;
use crate::problem;

impl Task {
    pub(super) async fn asked(&mut self, message: Message) -> Result<(), WriteError> {
        let Some(message) = self.wait_for_edits(message) else { return Ok(()) };
        if let Ask::File(ask) = message.ask {
            return self.asked_file(ask, message.answer).await;
        }
        if let Ask::HandOver { grace_ms, to } = message.ask {
            return self.asked_to_hand_over(grace_ms, Giving { to, answer: message.answer }).await;
        }
        let answer = self.answer(message.ask).await?;
        // Whoever asked may have gone; what was asked is done all the same.
        let _gone = message.answer.send(answer);
        Ok(())
    }

    async fn answer(&mut self, ask: Ask) -> Result<Result<Answer, Problem>, WriteError> {
        let input = match ask {
            Ask::Runs => return Ok(Ok(Answer::Runs(view::runs(&self.session, self.journal.fold())))),
            Ask::Run(run) => {
                let fold = self.journal.fold();
                let view = view::run(&self.session, fold, run);
                return Ok(known_run(self.session.spec.id, fold, run, view));
            }
            Ask::Group(_) => return Ok(Err(problem::not_runners(self.session.spec.id))),
            Ask::State => {
                let hosted = Hosted::Session(Box::new(self.session.clone()));
                let state = (hosted, self.journal.fold().clone());
                return Ok(Ok(Answer::State(Box::new(state))));
            }
            Ask::Reports => return Ok(Ok(Answer::Reports(self.session.reports.clone()))),
            Ask::Submit(work) => return self.submit(work).await,
            Ask::Restart { run_all } => {
                match self.runs_of(if run_all { Some(SubmitRuns::All { required: None }) } else { None }) {
                    Ok(runs) => Input::Restart(runs),
                    Err(problem) => return Ok(Err(problem)),
                }
            }
            Ask::Document(ask) => return self.asked_document(ask).await,
            Ask::File(_) | Ask::HandOver { .. } => unreachable!("answered by `asked`"),
            Ask::Rest { why, from } => Input::Rest { why, from },
            Ask::Drain => return self.drain().await,
            Ask::Join { start, trust } => return self.joined(start, trust).await,
            Ask::Trust(trust) => return self.asked_to_trust(trust).await,
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

    /// What nobody has saved must not be ended with the daemon.
    async fn drain(&mut self) -> Result<Result<Answer, Problem>, WriteError> {
        let stays = self.session.spec.place == Place::Notebook;
        let input = match stays {
            true => Input::Rest { why: StopWhy::Rest, from: StopStep::Ask },
            false => Input::Stop { why: StopWhy::User, from: StopStep::Ask },
        };
        Ok(match self.input(input, None).await? {
            Ok(()) if stays => Ok(Answer::Resting),
            Ok(()) => Ok(Answer::Done(self.view.borrow().clone())),
            Err(why) => Err(denied(self.session.spec.id, &why)),
        })
    }

    /// Somebody opens the session: nobody joins one that is ending, and a kernel that is down is started if they wish it
    /// and it may be.
    async fn joined(
        &mut self,
        start: Option<StartWhen>,
        trust: Option<Trust>,
    ) -> Result<Result<Answer, Problem>, WriteError> {
        if self.session.life != SessionLife::Open {
            return Ok(Err(ended(self.session.spec.id)));
        }
        if trust == Some(Trust::Trusted)
            && self.session.trust == Trust::Untrusted
            && let Err(problem) = self.asked_to_trust(Trust::Trusted).await?
        {
            return Ok(Err(problem));
        }
        let is_down = self.session.runtime.status == Status::Down;
        if start == Some(StartWhen::AtOnce) && is_down && self.session.trust == Trust::Trusted {
            // Refused to a command alone, which is its run.
            self.input(Input::Restart(Vec::new()), None).await?.ok();
        }
        Ok(Ok(Answer::Done(self.view.borrow().clone())))
    }

    async fn submit(&mut self, work: SubmitRuns) -> Result<Result<Answer, Problem>, WriteError> {
        let runs = match self.runs_of(Some(work)) {
            // A cell that waits already keeps the id under which it waits.
            Ok(runs) => effective(&self.session, runs),
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
        &mut self,
        work: Option<SubmitRuns>,
    ) -> Result<Vec<outlive_core::session::event::NewRun>, Problem> {
        let tolerant = matches!(self.session.spec.workload, Workload::Notebook { allow_errors: true, .. });
        open::runs_of(self.notebook.as_mut().map(|notebook| &mut notebook.document), tolerant, work)
    }
}
