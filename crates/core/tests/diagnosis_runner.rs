//! What only runners do wrong, and how it ranks among what else was seen (A4, A11, and bad input on a channel).

use outlive_core::diagnosis::evidence::{
    LastWords, LastWordsCause, Phase, SiblingEvidence, StallEvidence, StopEvidence,
};
use outlive_core::diagnosis::{
    Cause, CauseCode, Confidence, Evidence, ExplainOptions, Failure, FailureReport, NextStep, diagnose,
    explain,
};
use outlive_core::id::{ReportId, SessionId};
use outlive_core::limits::{EVIDENCE_LINES_MAX, LAST_WORDS_CAUSES_MAX};
use outlive_core::runtime::{ExitStatus, StopStep, StopWhy};
use outlive_core::time::WallTime;
use uuid::Uuid;

const KILLED: Option<ExitStatus> = Some(ExitStatus::Signal { number: 9, core_dumped: false });
const FAILED: Option<ExitStatus> = Some(ExitStatus::Code { code: 1 });

fn ended_for(why: StopWhy) -> Evidence {
    let stop = Some(StopEvidence { why, step: StopStep::Kill });
    let mut evidence = Evidence { phase: Phase::Stopping, stop, ..Evidence::default() };
    evidence.memory.host_oom_kills = 1; // somebody else's
    evidence
}

fn codes(causes: &[Cause]) -> Vec<CauseCode> {
    causes.iter().map(|cause| cause.code).collect()
}

#[track_caller]
fn only(evidence: &Evidence, status: Option<ExitStatus>, code: CauseCode) -> Cause {
    let mut causes = diagnose(evidence, status);
    assert_eq!(codes(&causes), [code], "{causes:#?}");
    assert_eq!(causes[0].confidence, Confidence::Certain);
    assert!(!causes[0].evidence.is_empty() && !causes[0].remedy.is_empty());
    causes.remove(0)
}

fn report(evidence: Evidence, status: Option<ExitStatus>) -> String {
    let report = FailureReport::build(Failure {
        id: ReportId::from_uuid(Uuid::nil()),
        session: SessionId::from_uuid(Uuid::nil()),
        process: None,
        subject: "runner llm-0 (pid 4711)".into(),
        at: WallTime(0),
        lived_ms: Some(1_000),
        status,
        evidence,
        interrupted: Vec::new(),
        interrupted_names: Vec::new(),
        next: NextStep::Nothing,
    });
    explain(&report, &ExplainOptions::default())
}

/// Our own KILL is never out-of-memory: each verdict is the whole cause.
#[test]
fn each_verdict_is_named() {
    let stall = StallEvidence { phase: "first chunk".to_owned(), silent_ms: 61_000, limit_ms: 60_000 };
    let stalled = Evidence { stall: Some(stall), ..ended_for(StopWhy::Stalled) };
    let cause = only(&stalled, KILLED, CauseCode::Stalled);
    assert_eq!(
        cause.summary,
        "made no progress for 1 min 1 s (first chunk; the limit is 1 min 0 s), and was ended for it"
    );
    only(&ended_for(StopWhy::Stalled), KILLED, CauseCode::Stalled);
    assert!(report(stalled, KILLED).starts_with("runner llm-0 (pid 4711) made no progress: stalled\n"));

    let said = Some("a line that is no JSON object: `Loading…`".to_owned());
    let violated = Evidence { violation: said, ..ended_for(StopWhy::Violation) };
    let cause = only(&violated, KILLED, CauseCode::ProtocolViolation);
    assert!(cause.summary.ends_with("a line that is no JSON object: `Loading…`"), "{}", cause.summary);

    let closed = Evidence { channel_closed_ms: Some(5_000), ..ended_for(StopWhy::Violation) };
    assert!(only(&closed, KILLED, CauseCode::ChannelClosed).summary.contains("lived on for 5 s"));

    only(&ended_for(StopWhy::IgnoredCancel), KILLED, CauseCode::IgnoredCancel);
    only(&ended_for(StopWhy::Sibling), KILLED, CauseCode::GroupSibling);
    let sibling = SiblingEvidence {
        name: "train-3".to_owned(),
        cause: CauseCode::GpuOutOfMemory,
        summary: "the graphics processor's memory ran out".to_owned(),
        report: None,
    };
    let with = Evidence { sibling: Some(sibling), ..ended_for(StopWhy::Sibling) };
    let cause = only(&with, KILLED, CauseCode::GroupSibling);
    assert_eq!(cause.summary, "stopped because train-3 of its group died of gpu-out-of-memory");
    assert_eq!(cause.evidence[0].source, "train-3");
}

/// A frame that makes no sense does not end a runner: reported while it lives, and no cause of a later end that has
/// its own.
#[test]
fn a_violation_that_was_survived_is_an_event_among_others() {
    let violated = Evidence { violation: Some("a second end of task 7".to_owned()), ..Evidence::default() };
    only(&violated, None, CauseCode::ProtocolViolation);
    let survived = report(violated.clone(), None);
    assert!(survived.contains("broke a rule: protocol-violation"), "{survived}");
    assert!(survived.contains("it goes on") && !survived.contains("started again"), "{survived}");
    let raised = "Traceback (most recent call last):\n  File \"a.py\", line 1, in f\nMemoryError\n";
    let causes = diagnose(&Evidence { stderr_tail: raised.to_owned(), ..violated.clone() }, FAILED);
    assert_eq!(codes(&causes)[..2], [CauseCode::OutOfMemory, CauseCode::ProtocolViolation]);
    let causes = diagnose(&Evidence { stop: ended_for(StopWhy::User).stop, ..violated }, KILLED);
    assert_eq!(codes(&causes), [CauseCode::KilledByOperator]);
}

/// A ring that broke when its sibling died is the sibling's doing.
#[test]
fn the_sibling_goes_before_what_its_end_broke() {
    let ring = "[ring] Receiving from socket 7 failed with errno 54\n".to_owned();
    let causes = diagnose(&Evidence { stderr_tail: ring, ..ended_for(StopWhy::Sibling) }, KILLED);
    assert_eq!(codes(&causes), [CauseCode::GroupSibling, CauseCode::TransportFailed]);
}

/// A11: of a long chain the exception, its own frame and every cause are shown, the root among them.
#[test]
fn a_long_chain_is_shown_to_its_root() {
    let frames: String =
        (1..9).map(|n| format!("  File \"/app/a.py\", line {n}, in f{n}\n    f{n}()\n")).collect();
    let causes = (0..LAST_WORDS_CAUSES_MAX + 3).map(|n| LastWordsCause {
        exception_type: "KeyError".to_owned(),
        message: format!("key {n}"),
        ..LastWordsCause::default()
    });
    let words = LastWords {
        exception_type: "LoadError".to_owned(),
        message: "one\ntwo\nthree".to_owned(),
        traceback: format!("Traceback (most recent call last):\n{frames}LoadError: one\ntwo\nthree\n"),
        causes: causes.collect(),
        phase: "loading".to_owned(),
        ..LastWords::default()
    };
    let evidence = Evidence { last_words: Some(words), ..Evidence::default() };
    let cause = &diagnose(&evidence, FAILED)[0];
    assert!(cause.evidence.len() <= EVIDENCE_LINES_MAX);
    let text = report(evidence, FAILED);
    for shown in
        ["LoadError: one", "caused by KeyError: key 0", "caused by KeyError: key 7", "/app/a.py line 8"]
    {
        assert!(text.contains(shown), "{shown} is missing:\n{text}");
    }
}
