//! What a notice about a process says of its runtime, and what a fact makes of it: the same for the one process of a
//! session and for each member of a group.

use super::event::{AfterExit, Happened};
use super::input::ProcessInput;
use super::state::{Displaced, Health, Runtime, Status, Wanted};
use crate::diagnosis::evidence::{NodeLostEvidence, Phase, ShimLostEvidence};
use crate::diagnosis::{Evidence, FailureReport, NextStep};
use crate::id::{Incarnation, ProcessKey};
use crate::runtime::restart::{Ended, RestartDecision, RestartHistory};
use crate::runtime::{ExitReport, ExitStatus, RestartPolicy, RestartType, StopStep, StopWhy};
use crate::time::{Now, WallTime};

/// What an order to stop does now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stops {
    /// Its end begins.
    Begins,
    /// Its end goes on with a harder rung.
    Harder,
    /// Nothing: there is no process, or it is stopped as hard already.
    Not,
}

impl Runtime {
    /// One that has had no process.
    pub(crate) fn new(wanted: Wanted, at: WallTime) -> Self {
        Self {
            wanted,
            incarnation: Incarnation(0),
            status: Status::Down,
            since: at,
            pid: None,
            launched_at: at,
            history: RestartHistory::default(),
            displaced: None,
        }
    }

    /// Whether there is a process that a lost node takes along. One that had ended before is not lost with it.
    pub(crate) const fn can_be_lost(&self) -> bool {
        match self.status {
            Status::Launching | Status::Ready(_) | Status::Stopping { .. } => true,
            Status::Down
            | Status::Draining { .. }
            | Status::Exited(_)
            | Status::Backoff { .. }
            | Status::GaveUp { .. } => false,
        }
    }

    /// The node of the present process is lost, if there is one that lived; of several losses the first took it.
    pub(crate) fn lost(&mut self, evidence: NodeLostEvidence) {
        if self.can_be_lost() && self.displaced.is_none() {
            self.displaced = Some(Displaced::Lost(evidence));
        }
    }

    /// The report of a process that is nowhere to be found: it was lost with its node, or with its shim.
    #[must_use]
    pub fn nowhere(&self, process: ProcessKey, now: WallTime) -> ExitReport {
        let shim_lost = ShimLostEvidence { shim_pid: None, shim_status: None, killed: 0, refused: None };
        let (pid, started_at, evidence) = match &self.displaced {
            Some(Displaced::Lost(lost)) => {
                let evidence = Evidence { node_lost: Some(lost.clone()), ..Evidence::default() };
                (self.pid, self.launched_at, evidence)
            }
            Some(Displaced::Drained) | None => {
                (None, now, Evidence { shim_lost: Some(shim_lost), ..Evidence::default() })
            }
        };
        ExitReport { process, pid, started_at, exited_at: now, status: ExitStatus::Unknown, evidence }
    }

    /// The fact in a notice about the present process, where it follows from the runtime alone.
    pub(crate) fn noticed(&self, process: ProcessKey, what: &ProcessInput) -> Option<Happened> {
        match what {
            ProcessInput::Spawned { pid } => self.spawned(process, *pid),
            ProcessInput::Ready => {
                (self.status == Status::Launching).then_some(Happened::RuntimeReady(process))
            }
            ProcessInput::Unresponsive(hang) => matches!(self.status, Status::Ready(_))
                .then(|| Happened::RuntimeUnresponsive { process, hang: hang.clone() }),
            ProcessInput::Responsive => matches!(self.status, Status::Ready(Health::Unresponsive(_)))
                .then_some(Happened::RuntimeRecovered(process)),
            ProcessInput::Stopping { why, step } => self.stopping(process, *why, *step),
            ProcessInput::RunFinished { .. }
            | ProcessInput::InputRequested { .. }
            | ProcessInput::Exited { .. }
            | ProcessInput::Drained(_) => None,
        }
    }

    fn spawned(&self, process: ProcessKey, pid: i32) -> Option<Happened> {
        match (&self.status, self.pid) {
            (Status::Launching | Status::Ready(_) | Status::Stopping { .. }, None) => {
                Some(Happened::RuntimeSpawned { process, pid })
            }
            (
                Status::Launching
                | Status::Ready(_)
                | Status::Stopping { .. }
                | Status::Down
                | Status::Draining { .. }
                | Status::Exited(_)
                | Status::Backoff { .. }
                | Status::GaveUp { .. },
                _,
            ) => None,
        }
    }

    /// The shim tells each rung that it reaches; the one that we asked for is known already, and so is why: it may be
    /// a restart that was asked for meanwhile.
    fn stopping(&self, process: ProcessKey, why: StopWhy, step: StopStep) -> Option<Happened> {
        match self.status {
            Status::Stopping { step: known, .. } if known >= step => None,
            Status::Stopping { why, .. } => Some(Happened::RuntimeStopping { process, why, step }),
            Status::Launching | Status::Ready(_) => Some(Happened::RuntimeStopping { process, why, step }),
            Status::Down
            | Status::Draining { .. }
            | Status::Exited(_)
            | Status::Backoff { .. }
            | Status::GaveUp { .. } => None,
        }
    }

    /// What an order to stop from this rung does; a softer rung than the present one changes nothing.
    pub(crate) fn stops(&self, from: StopStep) -> Stops {
        match &self.status {
            Status::Launching | Status::Ready(_) => Stops::Begins,
            Status::Stopping { step, .. } if from > *step => Stops::Harder,
            Status::Stopping { .. }
            | Status::Down
            | Status::Draining { .. }
            | Status::Exited(_)
            | Status::Backoff { .. }
            | Status::GaveUp { .. } => Stops::Not,
        }
    }

    /// How far the process was when it ended, and what it was stopped for; `None` when its end is known already.
    pub(crate) fn ends(&self, works: bool) -> Option<(Phase, Option<StopWhy>)> {
        match &self.status {
            Status::Stopping { why, .. } => Some((Phase::Stopping, Some(*why))),
            Status::Launching => Some((Phase::Launching, None)),
            Status::Ready(_) if works => Some((Phase::Busy, None)),
            Status::Ready(_) => Some((Phase::Idle, None)),
            Status::Down
            | Status::Draining { .. }
            | Status::Exited(_)
            | Status::Backoff { .. }
            | Status::GaveUp { .. } => None,
        }
    }

    /// The fact that all is known which the process wrote; its report goes with it when something was found late.
    pub(crate) fn drains(
        &self,
        process: ProcessKey,
        report: Option<&FailureReport>,
        evidence: Evidence,
    ) -> Option<Happened> {
        if !matches!(self.status, Status::Draining { .. }) {
            return None;
        }
        let report = report.and_then(|report| {
            let mut amended = report.clone();
            amended.amend(evidence);
            (amended != *report).then(|| Box::new(amended))
        });
        Some(Happened::RuntimeDrained { process, report })
    }

    /// Whether there is a process, or is about to be one.
    #[must_use]
    pub const fn has_process(&self) -> bool {
        match self.status {
            Status::Launching | Status::Ready(_) | Status::Stopping { .. } | Status::Draining { .. } => true,
            Status::Down | Status::Exited(_) | Status::Backoff { .. } | Status::GaveUp { .. } => false,
        }
    }

    /// Whether there is a process, or is about to be one, that can still do what it is asked.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        match self.status {
            Status::Launching | Status::Ready(_) => true,
            Status::Down
            | Status::Stopping { .. }
            | Status::Draining { .. }
            | Status::Exited(_)
            | Status::Backoff { .. }
            | Status::GaveUp { .. } => false,
        }
    }

    /// Enters a status.
    pub(crate) fn enter(&mut self, at: WallTime, status: Status) {
        self.status = status;
        self.since = at;
    }

    /// Folds what happened to the present process between its launch and its end.
    pub(crate) fn follow(&mut self, at: WallTime, what: &Happened) {
        match what {
            Happened::RuntimeLaunching(process) => {
                self.displaced = None;
                self.incarnation = process.incarnation;
                self.launched_at = at;
                self.pid = None;
                self.wanted = Wanted::Up;
                self.enter(at, Status::Launching);
            }
            Happened::RuntimeSpawned { pid, .. } => self.pid = Some(*pid),
            Happened::RuntimeReady(_) if self.status == Status::Launching => {
                self.enter(at, Status::Ready(Health::Responsive));
            }
            Happened::RuntimeUnresponsive { hang, .. } => {
                self.enter(at, Status::Ready(Health::Unresponsive(hang.clone())));
            }
            Happened::RuntimeRecovered(_) => self.enter(at, Status::Ready(Health::Responsive)),
            Happened::RuntimeStopping { why, step, .. } => {
                self.enter(at, Status::Stopping { why: *why, step: *step });
            }
            Happened::RuntimeExited { status, then, .. } => {
                if *then == AfterExit::Rest {
                    self.wanted = Wanted::Down;
                }
                if let Status::Stopping { why: StopWhy::Drain, .. } = self.status {
                    self.displaced.get_or_insert(Displaced::Drained);
                }
                self.enter(at, Status::Draining { status: *status, then: then.clone() });
            }
            Happened::RestartDue => self.enter(at, Status::Down),
            Happened::RuntimeReady(_)
            | Happened::Created(_)
            | Happened::RunsQueued(_)
            | Happened::RunsQueuedInParts { .. }
            | Happened::TakenOver(_)
            | Happened::HandOverAsked { .. }
            | Happened::RunWaitsAgain { .. }
            | Happened::RunsForgotten { .. }
            | Happened::RuntimeDrained { .. }
            | Happened::RestartAsked
            | Happened::Interrupted
            | Happened::RestAsked
            | Happened::RunEnding { .. }
            | Happened::QuestionAsked { .. }
            | Happened::QuestionAnswered { .. }
            | Happened::PathClaimed { .. }
            | Happened::PathReleased { .. }
            | Happened::PathChanged { .. }
            | Happened::TrustChanged(_)
            | Happened::Group(_)
            | Happened::Closing(_)
            | Happened::Settled
            | Happened::Closed { .. } => {}
        }
    }

    /// All that the process wrote is known: what follows its end begins. In what is ending nothing is started again.
    pub(crate) fn drained(&mut self, at: WallTime, goes_on: bool) {
        let Status::Draining { status, then } = &self.status else { return };
        let next = match then {
            AfterExit::Restart { after_ms, nth: _ } if goes_on => Status::Backoff { after_ms: *after_ms },
            AfterExit::Rest => Status::Down,
            AfterExit::Stay | AfterExit::Restart { .. } => Status::Exited(*status),
            AfterExit::GiveUp { reason } => Status::GaveUp { reason: reason.clone() },
        };
        self.pid = None;
        self.enter(at, next);
    }

    /// It is to be up, and the count of its restarts begins anew.
    pub(crate) fn start_asked(&mut self) {
        self.history.reset();
        self.wanted = Wanted::Up;
        if let Status::Draining { then, .. } = &mut self.status {
            *then = AfterExit::Restart { after_ms: 0, nth: 0 };
        }
    }

    /// It is to be down. A process that is to be started again is not; one that is up has its end asked for beside
    /// this.
    pub(crate) fn rest_asked(&mut self, at: WallTime) {
        self.wanted = Wanted::Down;
        match &mut self.status {
            Status::Draining { then: then @ AfterExit::Restart { .. }, .. } => *then = AfterExit::Rest,
            Status::Backoff { .. } => self.enter(at, Status::Down),
            Status::Draining {
                then: AfterExit::Stay | AfterExit::Rest | AfterExit::GiveUp { .. }, ..
            }
            | Status::Down
            | Status::Launching
            | Status::Ready(_)
            | Status::Stopping { .. }
            | Status::Exited(_)
            | Status::GaveUp { .. } => {}
        }
    }
}

/// What follows an end that is nobody's fault: it is started again at once, and that does not count.
pub(crate) fn begun_elsewhere() -> (AfterExit, NextStep) {
    (AfterExit::Restart { after_ms: 0, nth: 0 }, NextStep::Restart { after_ms: 0, nth: 0, of: 0 })
}

/// What follows an end by the policy. One that was ended because it hung is started again whatever the policy.
pub(crate) fn by_policy(
    policy: RestartPolicy,
    history: &RestartHistory,
    ended: Ended,
    stop: Option<StopWhy>,
    now: Now,
) -> (AfterExit, NextStep) {
    let mut policy = policy;
    if stop == Some(StopWhy::Hung) {
        policy.restart = RestartType::Permanent;
    }
    match policy.decide(history, ended, now.wall) {
        RestartDecision::No => (AfterExit::Stay, NextStep::Nothing),
        RestartDecision::Restart { after_ms, nth, of } => {
            (AfterExit::Restart { after_ms, nth }, NextStep::Restart { after_ms, nth, of })
        }
        RestartDecision::GiveUp { reason } => {
            (AfterExit::GiveUp { reason: reason.clone() }, NextStep::GiveUp { reason })
        }
    }
}
