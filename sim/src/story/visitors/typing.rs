//! Those who edit live: they come, write, lose their connection or close the page, and come back with what they have.

use std::collections::BTreeMap;
use std::time::Duration;

use super::marks::{lacking, text_of};
use super::tab::{Parted, Tab};
use super::{NODE, Visitor};
use crate::schedule::Place;
use crate::store::short;
use crate::world::{Called, Live};
use outlive_core::id::SessionId;
use outlive_protocol::http::{Problem, SubmitRuns, base64};

impl Visitor {
    /// Edits one notebook after the other, each for a while.
    pub(super) async fn types(mut self) {
        let done = self.name.clone();
        self.client.ledger.begin(&done);
        self.client.wait(0..1_000).await;
        while self.client.is_time_left() {
            if let Some(session) = self.comes().await {
                let client = 1_000 + self.marks.number();
                let mut tab = Tab::new(session, client);
                for _ in 0..self.client.random.of(1..6) {
                    if !self.sits_at(&mut tab).await || !self.client.is_time_left() {
                        break;
                    }
                    self.types_offline(&mut tab);
                    self.stays_away().await;
                }
                tab.part();
                self.marks.lay_down(tab);
            }
            self.stays_away().await;
        }
        self.client.ledger.done(&done);
    }

    fn types_offline(&mut self, tab: &mut Tab) {
        tab.part();
        if self.client.random.happens(300) {
            let nth = self.client.random.place(5);
            tab.write(&self.marks.fresh(), Some(nth));
        }
    }

    /// Is connected for a while; whether there is any use in coming back.
    async fn sits_at(&mut self, tab: &mut Tab) -> bool {
        let session = tab.session;
        let wanted = self.marks.acknowledged(session);
        let live = match self.connects(session).await {
            Ok(Some(live)) => live,
            Ok(None) => return true,
            Err(problem) => {
                self.refused(session, "joining", &problem, &[]);
                return false;
            }
        };
        tab.connect(live);
        let parted = self.edits_live(tab, &wanted).await;
        tab.part();
        match parted {
            Ok(()) | Err(Parted::Lost) => true,
            Err(Parted::Cut(problem)) => {
                self.tell(format!("is cut from {}: {}", short(session), problem.code));
                // A session does not leave while somebody is there.
                let is_passing = problem.code == "shutting-down";
                if !is_passing {
                    self.refused(session, "editing", &problem, &[]);
                }
                is_passing
            }
        }
    }

    /// Joins; `None`: nobody is there now.
    pub(super) async fn connects(&mut self, session: SessionId) -> Result<Option<Live>, Problem> {
        for _ in 0..100 {
            match self.world.join(NODE, &mut self.client.random, session).await {
                Called::Answered(Ok(live)) => {
                    self.tell(format!("joins {}", short(session)));
                    return Ok(Some(live));
                }
                Called::Answered(Err(problem)) if problem.status == 503 => {}
                Called::Answered(Err(problem)) => return Err(problem),
                Called::Nobody | Called::Lost => {}
            }
            self.client.wait(10..300).await;
        }
        Ok(None)
    }

    async fn edits_live(
        &mut self,
        tab: &mut Tab,
        wanted: &std::collections::BTreeSet<String>,
    ) -> Result<(), Parted> {
        let (world, session) = (std::sync::Arc::clone(&self.world), tab.session);
        tab.exchange(&world).await?;
        let missing = lacking(&text_of(&tab.shows()), wanted);
        if !missing.is_empty() {
            self.note(format!("comes to {} and does not see {missing:?}", short(session)));
        }
        for _ in 0..self.client.random.of(0..4) {
            if self.client.random.happens(700) {
                let nth = self.client.random.happens(800).then(|| self.client.random.place(5));
                tab.write(&self.marks.fresh(), nth);
                tab.flush();
            }
            if self.client.random.happens(80) {
                self.runs_what_it_sees(tab).await;
            }
            let wait = self.client.random.micros(50..250_000);
            tab.listen(&world, wait).await?;
        }
        // Now and then it goes without having heard that anything was taken.
        if self.client.random.happens(800) {
            let marks = tab.assure(&world, self.unsafe_for).await?;
            self.marks.acknowledge(session, marks);
        }
        Ok(())
    }

    /// Runs a cell with all that was written here, which may still be on its way.
    async fn runs_what_it_sees(&mut self, tab: &Tab) {
        let (session, cells) = (tab.session, tab.shows());
        let Some((cell, _)) = cells.first() else { return };
        let required = Some(base64(&tab.state_vector()));
        self.submits(
            session,
            SubmitRuns::CellIds { cells: vec![cell.clone()], required, expected: BTreeMap::new() },
        )
        .await;
    }

    /// Brings what an editor holds that was laid down; it is connected then.
    pub(super) async fn takes_up(&mut self, tab: &mut Tab) -> bool {
        for _ in 0..20 {
            let live = match self.connects(tab.session).await {
                Ok(Some(live)) => live,
                Ok(None) => return false,
                Err(problem) => {
                    self.refused(tab.session, "joining", &problem, &[]);
                    return false;
                }
            };
            tab.connect(live);
            // The first exchange brings what the node lacks, the second tells that it has it.
            if tab.exchange(&self.world).await.is_ok()
                && let Ok(marks) = tab.assure(&self.world, self.unsafe_for).await
            {
                self.marks.acknowledge(tab.session, marks);
                return true;
            }
            tab.part();
            self.world.schedule.sleep(Duration::from_millis(100), Place::Clients).await;
        }
        false
    }
}
