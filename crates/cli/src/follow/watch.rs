//! What a reader has seen: nothing is shown twice, whatever a stream repeats after coming back.

use std::collections::{BTreeMap, BTreeSet};

use outlive_core::diagnosis::FailureReport;
use outlive_core::id::{Attempt, Cursor, ReportId, RunId, Seq};
use outlive_core::session::{CancelWhy, RunOutcome};
use outlive_protocol::http::{RunState, RunView, SessionView, StreamEvent};

/// The state of a session as its events tell it.
#[derive(Default, Debug)]
pub struct Watch {
    /// The newest view of the session.
    pub session: Option<SessionView>,
    /// The newest view of each run, by id.
    pub runs: BTreeMap<RunId, RunView>,
    /// The failures, in order.
    pub reports: Vec<FailureReport>,
    /// How the target ended, as the stream's last event says.
    pub outcome: Option<RunOutcome>,
    heads: BTreeMap<RunId, Cursor>,
    /// How many chunks the last reset took back of what was shown.
    withdrawn: u64,
    reported: BTreeSet<ReportId>,
}

impl Watch {
    /// Takes an event; gives what of it is new.
    pub fn admit(&mut self, event: StreamEvent) -> Option<StreamEvent> {
        match event {
            StreamEvent::Session { session } => {
                if self.session.as_ref().is_some_and(|known| known.generation >= session.generation) {
                    return None;
                }
                self.session = Some((*session).clone());
                Some(StreamEvent::Session { session })
            }
            StreamEvent::Run { run } => {
                let known = self.runs.get(&run.id);
                let settled = known.is_some_and(|known| matches!(known.state, RunState::Ended { .. }));
                if settled || known == Some(&*run) {
                    return None;
                }
                self.runs.insert(run.id, (*run).clone());
                Some(StreamEvent::Run { run })
            }
            StreamEvent::Output { run: Some(run), attempt, first, chunks } if attempt != Attempt(0) => {
                let head = self.heads.entry(run).or_default();
                if attempt < head.attempt {
                    return None;
                }
                let known = if attempt == head.attempt { head.seq.0 + 1 } else { first.0 };
                let skip = usize::try_from(known.saturating_sub(first.0)).unwrap_or(usize::MAX);
                let chunks: Vec<_> = chunks.into_iter().skip(skip).collect();
                if chunks.is_empty() {
                    return None;
                }
                let first = Seq(first.0 + skip as u64);
                *head = Cursor { attempt, seq: Seq(first.0 + chunks.len() as u64 - 1) };
                Some(StreamEvent::Output { run: Some(run), attempt, first, chunks })
            }
            StreamEvent::Reset { run, attempt, keep } => {
                let head = self.heads.entry(run).or_default();
                if attempt <= head.attempt {
                    return None;
                }
                self.withdrawn = head.seq.0.saturating_sub(keep.0);
                *head = Cursor { attempt, seq: keep.min(head.seq) };
                (self.withdrawn > 0).then_some(StreamEvent::Reset { run, attempt, keep })
            }
            StreamEvent::Report { report } => {
                if !self.reported.insert(report.id) {
                    return None;
                }
                self.reports.push((*report).clone());
                Some(StreamEvent::Report { report })
            }
            StreamEvent::End { outcome } => {
                self.outcome.clone_from(&outcome);
                Some(StreamEvent::End { outcome })
            }
            // Output of nobody has no numbers: the cursor alone keeps it from coming twice.
            event @ (StreamEvent::Output { .. }
            | StreamEvent::Gap { .. }
            | StreamEvent::Problem { .. }
            | StreamEvent::PathChanged { .. }
            | StreamEvent::Stalled { .. }
            | StreamEvent::Unknown) => Some(event),
        }
    }

    /// What the last reset has taken back of what was shown, in words.
    pub fn void(&self, keep: Seq) -> String {
        match (keep.0, self.withdrawn) {
            (0, _) => "its output so far is void".to_owned(),
            (_, 1) => "its last piece of output is void".to_owned(),
            (_, count) => format!("its last {count} pieces of output are void"),
        }
    }

    /// Whether every run that the session has was seen to its end, and there is at least one.
    pub fn is_work_done(&self) -> bool {
        let Some(session) = &self.session else { return false };
        let counts = session.runs;
        let settled = counts.succeeded + counts.failed + counts.cancelled;
        let seen = self.runs.values().filter(|run| matches!(run.state, RunState::Ended { .. })).count();
        settled > 0 && counts.queued + counts.running == 0 && seen >= settled as usize
    }

    /// Whether a run was seen to its end.
    pub fn has_ended(&self, run: RunId) -> bool {
        self.runs.get(&run).is_some_and(|run| matches!(run.state, RunState::Ended { .. }))
    }

    /// Whether a run is running, as far as was seen.
    pub fn is_running(&self) -> bool {
        self.runs.values().any(|run| run.state == RunState::Running)
    }

    /// What went wrong first: how the first run ended that neither succeeded, nor raised where it may, nor was
    /// skipped because of another.
    pub fn first_failure(&self) -> Option<&RunOutcome> {
        let mut runs: Vec<_> = self.runs.values().collect();
        runs.sort_by_key(|run| run.index);
        runs.into_iter().find_map(|run| match &run.state {
            RunState::Ended { outcome } => match outcome {
                RunOutcome::Succeeded | RunOutcome::Cancelled { why: CancelWhy::EarlierFailure } => None,
                RunOutcome::Raised { .. } if run.may_raise => None,
                RunOutcome::Raised { .. }
                | RunOutcome::Failed { .. }
                | RunOutcome::TimedOut { .. }
                | RunOutcome::Unserved { .. }
                | RunOutcome::Cancelled {
                    why: CancelWhy::User | CancelWhy::Interrupted | CancelWhy::Stopped | CancelWhy::NodeDrained,
                } => Some(outcome),
            },
            RunState::Queued | RunState::Running | RunState::Unknown => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use outlive_core::log::ChunkKind;
    use outlive_core::time::WallTime;
    use outlive_protocol::http::ChunkView;

    use super::*;

    fn output(attempt: u64, first: u64, texts: &[&str]) -> StreamEvent {
        let chunk = |text: &&str| ChunkView {
            kind: ChunkKind::Stdout,
            at: WallTime(0),
            text: Some((*text).to_owned()),
            base64: None,
            content: None,
            blob: None,
        };
        StreamEvent::Output {
            run: Some(RunId::from_uuid(uuid::Uuid::nil())),
            attempt: Attempt(attempt),
            first: Seq(first),
            chunks: texts.iter().map(chunk).collect(),
        }
    }

    fn text(event: Option<StreamEvent>) -> String {
        match event {
            Some(StreamEvent::Output { chunks, .. }) => {
                chunks.into_iter().filter_map(|chunk| chunk.text).collect()
            }
            _ => String::new(),
        }
    }

    #[test]
    fn what_comes_again_is_cut_off_chunk_by_chunk() {
        let mut watch = Watch::default();
        assert_eq!(text(watch.admit(output(1, 1, &["a", "b"]))), "ab");
        assert_eq!(
            text(watch.admit(output(1, 2, &["b", "c"]))),
            "c",
            "coalesced differently the second time"
        );
        assert_eq!(watch.admit(output(1, 1, &["a", "b", "c"])), None);
        assert_eq!(text(watch.admit(output(1, 4, &["d"]))), "d");
    }

    #[test]
    fn a_new_attempt_starts_after_what_is_kept_and_the_old_one_is_over() {
        let mut watch = Watch::default();
        let reset = StreamEvent::Reset {
            run: RunId::from_uuid(uuid::Uuid::nil()),
            attempt: Attempt(2),
            keep: Seq(1),
        };
        watch.admit(output(1, 1, &["a", "b", "c"]));
        assert!(watch.admit(reset.clone()).is_some());
        assert_eq!(watch.void(Seq(1)), "its last 2 pieces of output are void");
        assert_eq!(watch.void(Seq(0)), "its output so far is void");
        assert_eq!(watch.admit(reset), None, "said once");
        assert_eq!(text(watch.admit(output(2, 2, &["B"]))), "B");
        assert_eq!(watch.admit(output(1, 4, &["stale"])), None);
    }

    #[test]
    fn late_prints_and_output_of_nobody_have_no_numbers() {
        let mut watch = Watch::default();
        assert_eq!(text(watch.admit(output(0, 0, &["late"]))), "late");
        assert_eq!(text(watch.admit(output(0, 0, &["later"]))), "later");
    }
}
