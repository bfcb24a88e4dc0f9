//! A14: a crash loop backs off, then is given up with a visible reason; healthy time starts anew.

use outlive_core::diagnosis::Evidence;
use outlive_core::diagnosis::evidence::StopEvidence;
use outlive_core::id::{Incarnation, ProcessKey, RuntimeId};
use outlive_core::runtime::{
    Ended, EndedHow, ExitReport, ExitStatus, RestartDecision, RestartHistory, RestartPolicy, RestartType,
    StopStep, StopWhy,
};
use outlive_core::time::WallTime;
use proptest::prelude::*;
use uuid::Uuid;

const CRASHED: Ended = Ended { how: EndedHow::Abnormal, lived_ms: 10 };

fn at(ms: u64) -> WallTime {
    WallTime(ms * 1_000)
}

#[test]
fn which_ends_are_followed_by_a_restart() {
    use EndedHow::{Abnormal, Asked, Normal};
    for (policy, how, restarted) in [
        (RestartPolicy::permanent(), Abnormal, true),
        (RestartPolicy::permanent(), Normal, true),
        (RestartPolicy::permanent(), Asked, false),
        (RestartPolicy::transient(), Abnormal, true),
        (RestartPolicy::transient(), Normal, false),
        (RestartPolicy::transient(), Asked, false),
        (RestartPolicy::temporary(), Abnormal, false),
        (RestartPolicy::temporary(), Normal, false),
        (RestartPolicy::temporary(), Asked, false),
    ] {
        let decision = policy.decide(&RestartHistory::default(), Ended { how, lived_ms: 10 }, at(0));
        assert_eq!(decision != RestartDecision::No, restarted, "{:?} {how:?}", policy.restart);
    }
}

#[test]
fn a_crash_loop_backs_off_and_is_given_up() {
    let policy = RestartPolicy::transient();
    let mut history = RestartHistory::default();
    let mut now = 0;
    for (nth, wait) in [(1, 200), (2, 400), (3, 800)] {
        let decision = policy.decide(&history, CRASHED, at(now));
        assert_eq!(decision, RestartDecision::Restart { after_ms: wait, nth, of: 3 });
        history.restarted(at(now), nth);
        now += wait + 10;
    }
    let RestartDecision::GiveUp { reason } = policy.decide(&history, CRASHED, at(now)) else {
        panic!("the fourth death within the period")
    };
    assert_eq!(reason, "it ended again after 3 restarts within 60 s, and its policy allows 3");
    // By hand, and the count starts anew.
    history.reset();
    assert!(matches!(policy.decide(&history, CRASHED, at(now)), RestartDecision::Restart { nth: 1, .. }));
}

#[test]
fn healthy_time_starts_anew() {
    let policy = RestartPolicy::transient();
    let mut history = RestartHistory::default();
    for nth in 1..=3 {
        history.restarted(at(nth), u32::try_from(nth).unwrap());
    }
    let healthy = Ended { lived_ms: policy.period_ms, ..CRASHED };
    let first = RestartDecision::Restart { after_ms: policy.backoff_ms, nth: 1, of: 3 };
    assert_eq!(policy.decide(&history, healthy, at(70_000)), first);
    // Also when the wall clock was set back meanwhile: what counts is how long it lived.
    assert_eq!(policy.decide(&history, healthy, at(0)), first);
    history.restarted(at(0), 1);
    assert!(matches!(policy.decide(&history, CRASHED, at(10)), RestartDecision::Restart { nth: 2, .. }));
}

#[test]
fn the_report_tells_how_it_ended() {
    let report = |status, pid, why: Option<StopWhy>| ExitReport {
        process: ProcessKey {
            runtime: RuntimeId::from_uuid(Uuid::from_u128(2)),
            incarnation: Incarnation(1),
        },
        pid,
        started_at: at(0),
        exited_at: at(1_500),
        status,
        evidence: Evidence {
            stop: why.map(|why| StopEvidence { why, step: StopStep::Kill }),
            ..Evidence::default()
        },
    };
    let ok = ExitStatus::Code { code: 0 };
    assert_eq!(Ended::of(&report(ok, Some(1), None)), Ended { how: EndedHow::Normal, lived_ms: 1_500 });
    assert_eq!(Ended::of(&report(ok, None, None)).how, EndedHow::Abnormal, "never spawned");
    assert_eq!(Ended::of(&report(ExitStatus::Unknown, Some(1), None)).how, EndedHow::Abnormal);
    for why in [
        StopWhy::User,
        StopWhy::Restart,
        StopWhy::Finished,
        StopWhy::Eviction,
        StopWhy::Drain,
        StopWhy::Disowned,
    ] {
        assert_eq!(Ended::of(&report(ok, Some(1), Some(why))).how, EndedHow::Asked, "{why:?}");
    }
    for why in [StopWhy::Hung, StopWhy::NeverReady, StopWhy::Timeout] {
        assert_eq!(Ended::of(&report(ok, Some(1), Some(why))).how, EndedHow::Abnormal, "{why:?}");
    }
}

proptest! {
    /// Whatever the rhythm of deaths: never more restarts within a period than allowed; waits grow with each restart
    /// of a series and stay within their bounds; a death after a healthy life is always followed by a restart.
    #[test]
    fn intensity_is_never_exceeded(
        lives in prop::collection::vec(0_u64..90_000, 1..60),
        restarts_max in 1_u32..6,
        backoff_ms in 1_u64..500,
    ) {
        let policy = RestartPolicy { restart: RestartType::Permanent, restarts_max, period_ms: 60_000, backoff_ms, backoff_ms_max: 5_000 };
        let mut history = RestartHistory::default();
        let (mut now, mut restarts, mut last_wait) = (0_u64, Vec::new(), 0);
        for lived_ms in lives {
            now += lived_ms;
            match policy.decide(&history, Ended { how: EndedHow::Abnormal, lived_ms }, at(now)) {
                RestartDecision::Restart { after_ms, nth, of } => {
                    prop_assert!(nth >= 1 && nth <= of && of == restarts_max);
                    prop_assert!(after_ms >= backoff_ms && after_ms <= 5_000.max(backoff_ms));
                    prop_assert!(nth == 1 || after_ms >= last_wait || nth <= u32::try_from(restarts.len()).unwrap());
                    history.restarted(at(now), nth);
                    restarts.push(now);
                    let recent = restarts.iter().filter(|then| now - **then < 60_000).count();
                    prop_assert!(recent <= restarts_max as usize);
                    last_wait = after_ms;
                    now += after_ms;
                }
                RestartDecision::GiveUp { reason } => {
                    prop_assert!(lived_ms < 60_000, "healthy, and given up");
                    prop_assert!(reason.contains("within 60 s"));
                    return Ok(());
                }
                RestartDecision::No => prop_assert!(false, "permanent"),
            }
        }
    }
}
