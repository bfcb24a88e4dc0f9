//! Hang suspicion: a miss is no death, k of them in a row are told once, an echo ends it (A4, A5).

use std::time::Duration;

use outlive_core::limits::{HEARTBEAT_MISSES, SUSPENDED_MS};
use outlive_core::runtime::{Heartbeat, Suspicion, Verdict};
use outlive_core::time::Tick;
use proptest::prelude::*;

const HEARTBEAT: Heartbeat =
    Heartbeat { period: Duration::from_millis(100), timeout: Duration::from_millis(80), misses: 3 };

fn at(ms: u64) -> Tick {
    Tick(ms * 1_000_000)
}

/// What is done to the machine.
#[derive(Clone, Copy, Debug)]
enum Input {
    Ready,
    Expire,
    Echo,
    Reset,
    Stop,
}

/// Applies inputs in order and tells what came of each, with the next deadline in milliseconds.
fn run(inputs: &[(u64, Input)]) -> Vec<(Option<Verdict>, Option<u64>)> {
    let mut machine = Suspicion::new(HEARTBEAT);
    let apply = |&(ms, input): &(u64, Input)| {
        let verdict = match input {
            Input::Ready => {
                machine.ready(at(ms));
                None
            }
            Input::Expire => machine.expire(at(ms)),
            Input::Echo => machine.echo(at(ms)),
            Input::Reset => {
                machine.reset(at(ms));
                None
            }
            Input::Stop => {
                machine.stop();
                None
            }
        };
        (verdict, machine.next_deadline().map(|tick| tick.0 / 1_000_000))
    };
    inputs.iter().map(apply).collect()
}

use Input::{Echo, Expire, Ready, Reset, Stop};

const BEAT: Option<Verdict> = Some(Verdict::Beat);

#[test]
fn no_beat_before_ready() {
    assert_eq!(run(&[(0, Expire), (5, Echo), (6, Reset)]), [(None, None), (None, None), (None, None)]);
    assert_eq!(run(&[(7, Ready), (7, Expire)]), [(None, Some(7)), (BEAT, Some(87))]);
    assert_eq!(run(&[(7, Ready), (9, Ready)]), [(None, Some(7)), (None, Some(7))], "ready is said once");
}

#[test]
fn answered_beats_keep_their_period() {
    assert_eq!(
        run(&[(0, Ready), (0, Expire), (3, Echo), (99, Expire), (100, Expire), (110, Echo)]),
        [
            (None, Some(0)),
            (BEAT, Some(80)),
            (None, Some(100)),
            (None, Some(100)),
            (BEAT, Some(180)),
            (None, Some(200))
        ]
    );
}

#[test]
fn misses_in_a_row_are_told_once_and_an_echo_ends_them() {
    let silent = Some(Verdict::Unresponsive { silent_ms: 280, misses: 3 });
    let back = Some(Verdict::Responsive { silent_ms: 470 });
    let inputs = [
        (0, Ready),
        (0, Expire),
        (80, Expire),
        (100, Expire), // first miss
        (180, Expire),
        (200, Expire), // second
        (280, Expire), // third: told, and a beat goes out
        (360, Expire),
        (380, Expire), // the fourth is not told again
        (470, Echo),
        (471, Echo),
    ];
    let expected = [
        (None, Some(0)),
        (BEAT, Some(80)),
        (None, Some(100)),
        (BEAT, Some(180)),
        (None, Some(200)),
        (BEAT, Some(280)),
        (silent, Some(360)),
        (None, Some(380)),
        (BEAT, Some(460)),
        (back, Some(480)),
        (None, Some(480)),
    ];
    assert_eq!(run(&inputs), expected);
}

#[test]
fn an_echo_between_misses_starts_the_count_anew() {
    let inputs =
        [(0, Ready), (0, Expire), (80, Expire), (100, Expire), (180, Expire), (200, Expire), (210, Echo)];
    assert!(run(&inputs).iter().all(|(verdict, _)| matches!(verdict, None | Some(Verdict::Beat))));
    let mut more = inputs.to_vec();
    more.extend([(300, Expire), (380, Expire), (400, Expire), (480, Expire)]);
    assert!(run(&more).iter().all(|(verdict, _)| matches!(verdict, None | Some(Verdict::Beat))));
}

#[test]
fn a_machine_that_stood_still_accuses_nobody() {
    let woken = 180 + SUSPENDED_MS + 1;
    let inputs =
        [(0, Ready), (0, Expire), (80, Expire), (100, Expire), (woken, Expire), (woken + 80, Expire)];
    let answers = run(&inputs);
    assert_eq!(answers[4], (BEAT, Some(woken + 80)), "the count starts anew, with a beat");
    assert_eq!(answers[5].0, None, "one miss");
}

#[test]
fn a_frozen_process_that_is_thawed_gets_its_full_time() {
    let inputs = [
        (0, Ready),
        (0, Expire),
        (80, Expire),
        (100, Expire),
        (180, Expire),
        (190, Reset),
        (190, Expire),
        (270, Expire),
    ];
    let answers = run(&inputs);
    assert_eq!(answers[6], (BEAT, Some(270)));
    assert_eq!(answers[7], (None, Some(290)));
    assert_eq!(
        run(&[(0, Ready), (0, Expire), (10, Stop), (80, Expire)])[3],
        (None, None),
        "a stopped one is left alone"
    );
}

#[test]
fn the_budget_of_p2_is_kept() {
    // A4: by the limits, from the last sign of life to the verdict
    let mut machine = Suspicion::new(Heartbeat::default());
    machine.ready(at(0));
    let mut now = at(0);
    let mut echoed = false;
    let verdict = loop {
        match machine.expire(now) {
            Some(Verdict::Beat) if !echoed => {
                echoed = true;
                assert_eq!(machine.echo(now + Duration::from_millis(1)), None);
            }
            Some(verdict @ Verdict::Unresponsive { .. }) => break verdict,
            Some(Verdict::Beat | Verdict::Responsive { .. }) | None => {}
        }
        now = machine.next_deadline().expect("beats go on");
    };
    let Verdict::Unresponsive { silent_ms, misses } = verdict else { panic!("{verdict:?}") };
    assert_eq!(misses, HEARTBEAT_MISSES);
    assert!(silent_ms <= 3_000, "{silent_ms} ms");
}

proptest! {
    /// In any order of inputs: unresponsive and responsive alternate; suspicion needs as many misses as configured
    /// since the last echo; the machine never stops beating while it is ready.
    #[test]
    fn verdicts_alternate(steps in prop::collection::vec((0_u64..300, 0..10_u8), 1..400)) {
        let mut machine = Suspicion::new(HEARTBEAT);
        let mut now = at(0);
        let mut suspected = false;
        let mut expiries = 0;
        machine.ready(now);
        for (ms, what) in steps {
            now = now + Duration::from_millis(ms);
            match what {
                0 => {
                    let verdict = machine.echo(now);
                    prop_assert_eq!(verdict.is_some(), suspected);
                    (suspected, expiries) = (false, 0);
                }
                1 => {
                    machine.reset(now);
                    expiries = 0;
                }
                _ => {
                    expiries += 1;
                    match machine.expire(now) {
                        Some(Verdict::Unresponsive { misses, .. }) => {
                            prop_assert!(!suspected, "told twice");
                            prop_assert!(misses >= HEARTBEAT.misses && expiries > HEARTBEAT.misses);
                            suspected = true;
                        }
                        Some(Verdict::Responsive { .. }) => prop_assert!(false, "no echo came"),
                        Some(Verdict::Beat) | None => {}
                    }
                }
            }
            prop_assert_eq!(machine.silence(now).is_some(), suspected);
            let deadline = machine.next_deadline().expect("it is ready");
            prop_assert!(deadline <= now + HEARTBEAT.period);
        }
    }
}
