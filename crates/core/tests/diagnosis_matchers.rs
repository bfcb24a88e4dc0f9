//! Files of matchers: what is wrong with one is told with its line, and what a match weighs.

use std::time::Instant;

use outlive_core::diagnosis::evidence::{HangEvidence, LastWords, LastWordsCause, Phase, StopEvidence};
use outlive_core::diagnosis::{
    Cause, CauseCode, Confidence, Evidence, MatcherError, Matchers, diagnose, diagnose_with,
};
use outlive_core::limits::{MATCHERS_BYTES_MAX, MATCHERS_MAX, STDERR_TAIL_BYTES_MAX};
use outlive_core::runtime::{ExitStatus, StopStep, StopWhy};
use proptest::prelude::*;

const FAILED: Option<ExitStatus> = Some(ExitStatus::Code { code: 1 });
const KILLED: Option<ExitStatus> = Some(ExitStatus::Signal { number: 9, core_dumped: false });
const ABORTED: Option<ExitStatus> = Some(ExitStatus::Signal { number: 6, core_dumped: false });

fn said(stderr: &str) -> Evidence {
    Evidence { phase: Phase::Busy, stderr_tail: stderr.to_owned(), ..Evidence::default() }
}

fn stopped(stderr: &str, why: StopWhy) -> Evidence {
    let stop = Some(StopEvidence { why, step: StopStep::Kill });
    Evidence { phase: Phase::Stopping, stop, ..said(stderr) }
}

fn codes(causes: &[Cause]) -> Vec<CauseCode> {
    causes.iter().map(|cause| cause.code).collect()
}

fn matcher(more: &str) -> String {
    format!("[[matcher]]\nname = \"x\"\nanchors = ['boom (?P<n>\\d+)']\nremedy = [\"r\"]\n{more}")
}

fn causes_of(file: &str, evidence: &Evidence, status: Option<ExitStatus>) -> Vec<Cause> {
    diagnose_with(evidence, status, &Matchers::parse(file).expect("a file of matchers"))
}

#[test]
fn a_mistake_is_told_with_its_line() {
    for (file, line, part) in [
        ("[[matcher]]\nname = 'x'\nanchors = ['(a']\nremedy = ['r']", 3, "unclosed group"),
        ("[[matcher]]\nname = 'x'\nanchors = ['a(?=b)']\nremedy = ['r']", 3, "look-around"),
        ("\n[[matcher]]\nname = 'x'\nanchors = []\nremedy = ['r']", 3, "has no anchors"),
        ("\n[[matcher]]\nname = 'x'\nanchors = ['a']\nremedy = []", 3, "has no remedy"),
        ("[[matcher]]\nname = 'x'\nanchors = ['a*']\nremedy = ['r']", 2, "matches every line"),
        (
            "[[matcher]]\nname = 'x'\nanchors = ['a']\nremedy = ['r']\ntitle = ['{port} is taken']",
            5,
            "{port}",
        ),
        ("[[matcher]]\nname = 'x'\nanchor = ['a']\nremedy = ['r']", 3, "unknown field `anchor`"),
        ("[[matcher]]\nname = 'x'\ncode = 'oops'\nanchors = ['a']\nremedy = ['r']", 3, "oops"),
        ("[[matcher]\nname = 'x'", 1, "docs/matchers.md"),
        ("[[matcher]]\nname = 'x'\nanchors = ['a']", 1, "remedy"),
        (&format!("{0}\n{0}", matcher("")), 7, "another name"),
        ("[[matcher]]\nname = 'x'\nanchors = ['(a{9999}){9999}']\nremedy = ['r']", 3, "size limit"),
    ] {
        let error = Matchers::parse(file).expect_err(file).to_string();
        assert!(error.starts_with(&format!("line {line}: ")) && error.contains(part), "{file}\n{error}");
    }
    let many = "a".repeat(MATCHERS_BYTES_MAX + 1);
    assert_eq!(Matchers::parse(&many).unwrap_err(), MatcherError::TooLarge);
    let many: String = (0..=MATCHERS_MAX)
        .map(|n| format!("[[matcher]]\nname = '{n}'\nanchors = ['a']\nremedy = ['r']\n"))
        .collect();
    assert_eq!(Matchers::parse(&many).unwrap_err(), MatcherError::TooLarge);
    assert!(Matchers::parse("").unwrap().is_empty());
}

#[test]
fn the_users_matchers_go_first_and_replace_ours() {
    let user = Matchers::parse(
        "[[matcher]]\nname = 'gpu-out-of-memory'\ncode = 'gpu-out-of-memory'\nanchors = ['CUDA out of memory']\n\
         title = ['ours is full']\nremedy = ['ask Ada']\n\
         [[matcher]]\nname = 'disk'\nanchors = ['scratch is full']\nremedy = ['clean /scratch']",
    )
    .unwrap();
    let all = Matchers::builtin().with(&user).unwrap();
    assert_eq!(all.len(), Matchers::builtin().len() + 1, "one is new, one takes the place of ours");
    let cause =
        &diagnose_with(&said("RuntimeError: CUDA out of memory. Tried to allocate 2 GiB"), FAILED, &all)[0];
    assert_eq!((cause.summary.as_str(), cause.remedy.as_str()), ("ours is full", "ask Ada"));
    let cause = &diagnose_with(&said("error: scratch is full"), FAILED, &all)[0];
    assert_eq!((cause.label(), cause.code, cause.name.as_deref()), ("disk", CauseCode::Custom, Some("disk")));
}

#[test]
fn what_a_matcher_may_say() {
    let file = |more: &str| matcher(&format!("code = 'disk-full'\n{more}"));
    let first = |more: &str, text: &str| causes_of(&file(more), &said(text), FAILED).remove(0);
    // title, captures, errno
    let cause = first("title = ['{x} of {n}', 'errno {n:errno}']\ndetails = ['of (?P<x>\\w+)']", "boom 32");
    assert_eq!(cause.summary, "errno 32 (EPIPE, the other side has closed)");
    let cause = first("title = ['{x} of {n}']\ndetails = ['of (?P<x>\\w+)']", "boom 32 of wood");
    assert_eq!(cause.summary, "wood of 32");
    // not, also, unless
    assert_eq!(first("not = ['test']", "boom 1 in a test").code, CauseCode::ExitCode);
    assert_eq!(first("also = ['^frame']", "boom 1").code, CauseCode::ExitCode);
    assert_eq!(first("also = ['^frame']", "boom 1\nframe 3").code, CauseCode::DiskFull);
    assert_eq!(
        first("unless = ['recovered']", "boom 1\nrecovered").confidence,
        Confidence::Certain,
        "exit code"
    );
    // codes
    assert_eq!(first("codes = [7]", "boom 1").code, CauseCode::ExitCode);
    assert_eq!(first("codes = [1]", "boom 1").code, CauseCode::DiskFull);
    // after
    let cause = first("after = 1", "boom 1\n  because of rain\nother");
    let shown: Vec<&str> = cause.evidence.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(shown, ["boom 1", "  because of rain"]);
    // confidence, stream
    assert_eq!(first("confidence = 'certain'", "boom 1").confidence, Confidence::Certain);
    let out = Evidence { stdout_tail: "boom 1".to_owned(), ..said("") };
    let cause = causes_of(&file("confidence = 'certain'\nstream = 'both'"), &out, FAILED).remove(0);
    assert_eq!((cause.code, cause.confidence), (CauseCode::DiskFull, Confidence::Likely));
    assert_eq!(cause.evidence[0].source, "stdout");
    assert_eq!(causes_of(&file(""), &out, FAILED)[0].code, CauseCode::ExitCode);
    let printed = "Traceback (most recent call last):\n  File \"a.py\", line 1, in f\nValueError: boom 1\n";
    let out = Evidence { stdout_tail: printed.to_owned(), ..said("") };
    assert_eq!(causes_of(&file(""), &out, FAILED)[0].code, CauseCode::DiskFull, "who prints everything");
}

/// A12: after transient errors an end with code 0 has no cause in the text.
#[test]
fn a_clean_exit_has_no_cause_in_its_text() {
    for line in ["[ring] Too many send/recv errors. Aborting...", "CUDA out of memory", "EMFILE", "panic: x"]
    {
        let evidence = Evidence { stdout_tail: line.to_owned(), ..said(line) };
        let causes = diagnose(&evidence, Some(ExitStatus::Code { code: 0 }));
        assert_eq!(codes(&causes), [CauseCode::ExitCode], "{line}");
    }
}

/// A12: the root before its consequence, the special before the general.
#[test]
fn the_root_goes_before_its_consequence() {
    let text = "[rank1]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n\
                [rank0]: NCCL error: ncclRemoteError: remote process exited or there was a network error\n\
                OSError: [Errno 111] Connection refused";
    let causes = diagnose(&said(text), FAILED);
    assert_eq!(codes(&causes)[..2], [CauseCode::GpuOutOfMemory, CauseCode::TransportFailed]);
}

/// A12: a ring that aborts can leave its process hanging. The KILL that follows is ours: no want of memory, and the
/// ring is why.
#[test]
fn what_was_said_before_a_hang_is_its_cause() {
    let text = "[ring] Receiving from socket 51 failed with errno 14\n".repeat(10)
        + "[ring] Too many send/recv errors. Aborting...\n";
    for why in [StopWhy::Hung, StopWhy::Stalled, StopWhy::Timeout, StopWhy::NeverReady] {
        let mut evidence = stopped(&text, why);
        evidence.hang = Some(HangEvidence { silent_ms: 9_000, misses: 15, cpu_ms: None, state: Some('S') });
        evidence.memory.host_oom_kills = 1;
        evidence.memory.rss_bytes_peak = Some(99);
        evidence.memory.host_bytes_total = Some(100);
        let causes = diagnose(&evidence, KILLED);
        assert_eq!(causes[0].code, CauseCode::TransportFailed, "{why:?} {causes:#?}");
        assert!(
            causes[0].summary.contains("socket 51 failed with errno 14 (EFAULT"),
            "{}",
            causes[0].summary
        );
        assert!(!codes(&causes).contains(&CauseCode::OutOfMemory), "our own KILL: {causes:#?}");
        assert!(causes[0].evidence[0].text.ends_with("errno 14 … (×10)"), "{causes:#?}");
        assert_eq!(causes.len(), 2, "and the verdict behind it: {causes:#?}");
    }
    // Somebody's wish is the cause whatever was said; what is not `live` may have been survived.
    assert_eq!(diagnose(&stopped(&text, StopWhy::User), KILLED)[0].code, CauseCode::KilledByOperator);
    let causes = diagnose(&stopped("bind: Address already in use", StopWhy::Hung), KILLED);
    assert_eq!(codes(&causes), [CauseCode::Hung, CauseCode::AddressInUse]);
    assert_eq!(causes[1].confidence, Confidence::Possible);
}

fn last_words() -> LastWords {
    LastWords {
        exception_type: "myapp.LoadError".to_owned(),
        message: "shard 3\nis broken".to_owned(),
        repr: "LoadError('shard 3')".to_owned(),
        traceback:
            "Traceback (most recent call last):\n  File \"/app/serve.py\", line 7, in load\n    read(3)\n\
                    myapp.LoadError: shard 3\nis broken\n"
                .to_owned(),
        causes: vec![
            LastWordsCause {
                exception_type: "KeyError".to_owned(),
                message: "'w'".to_owned(),
                ..Default::default()
            },
            LastWordsCause {
                exception_type: "EOFError".to_owned(),
                message: "cut".to_owned(),
                ..Default::default()
            },
        ],
        phase: "loading".to_owned(),
        task: None,
    }
}

/// A11: what a runner says before its end is the cause, with its chain; a native crash is what it died of all the same.
#[test]
fn last_words_are_believed() {
    let evidence = Evidence { last_words: Some(last_words()), ..said("noise\n") };
    let causes = diagnose(&evidence, FAILED);
    let cause = &causes[0];
    assert_eq!((cause.code, cause.confidence), (CauseCode::PythonException, Confidence::Certain));
    assert_eq!(cause.summary, "uncaught myapp.LoadError: shard 3 while loading");
    let shown: Vec<&str> = cause.evidence.iter().map(|line| line.text.trim()).collect();
    assert_eq!(
        shown,
        [
            "File \"/app/serve.py\", line 7, in load",
            "read(3)",
            "myapp.LoadError: shard 3",
            "is broken",
            "caused by KeyError: 'w'",
            "caused by EOFError: cut"
        ]
    );
    assert!(cause.remedy.contains("/app/serve.py line 7"), "{}", cause.remedy);

    let in_task = LastWords { task: Some("0197".to_owned()), phase: "running".to_owned(), ..last_words() };
    let evidence = Evidence { last_words: Some(in_task), ..said("") };
    assert!(diagnose(&evidence, FAILED)[0].summary.ends_with("shard 3 in task 0197"));

    let crash = "Fatal Python error: Segmentation fault\n\nCurrent thread 0x1 (most recent call first):\n  \
                 File \"/app/a.py\", line 3 in boom\n";
    let evidence = Evidence { last_words: Some(last_words()), ..said(crash) };
    let causes = diagnose(&evidence, Some(ExitStatus::Signal { number: 11, core_dumped: true }));
    assert_eq!(codes(&causes)[..2], [CauseCode::NativeCrash, CauseCode::PythonException]);

    // A better name, and a runner that said it and then did not end.
    let memory = LastWords { exception_type: "MemoryError".to_owned(), ..LastWords::default() };
    for (evidence, status) in [(said(""), FAILED), (stopped("", StopWhy::Violation), KILLED)] {
        let causes = diagnose(&Evidence { last_words: Some(memory.clone()), ..evidence }, status);
        assert_eq!(causes[0].code, CauseCode::OutOfMemory, "{causes:#?}");
    }
    let evidence = Evidence { last_words: Some(last_words()), ..stopped("", StopWhy::Stalled) };
    assert_eq!(codes(&diagnose(&evidence, KILLED)), [CauseCode::PythonException, CauseCode::Stalled]);
    let refused = LastWords {
        exception_type: "ConnectionRefusedError".to_owned(),
        message: "[Errno 111] Connection refused".to_owned(),
        ..LastWords::default()
    };
    let evidence = Evidence { last_words: Some(refused), ..said("") };
    let causes = diagnose(&evidence, FAILED);
    assert_eq!(causes[0].code, CauseCode::ConnectionRefused);
    assert_eq!(causes[0].evidence[0].source, "last words");
}

/// A13: hostile text takes linear time, whatever the patterns: a full tail of it takes milliseconds, and a machine that is
/// busy with much else still finishes long before a pattern that backtracks would.
#[test]
#[expect(clippy::disallowed_methods, reason = "the time it takes is what is tested")]
fn a_hostile_tail_takes_linear_time() {
    let pieces = [
        "RESOURCE_EXHAUSTED: ",
        "a",
        "thread '' panicked at '",
        "[ring] errno ",
        "port ",
        "/",
        ": ",
        "NCCL ",
    ];
    for piece in pieces {
        for unit in [piece.to_owned(), format!("{piece}\n")] {
            let tail: String = unit.chars().cycle().take(STDERR_TAIL_BYTES_MAX).collect();
            let began = Instant::now();
            let causes = diagnose(&said(&tail), FAILED);
            assert!(began.elapsed().as_secs() < 20, "{piece:?}: {:?}", began.elapsed());
            let size: usize = causes.iter().map(|cause| format!("{cause:?}").len()).sum();
            assert!(size < 200_000, "bounded: {size}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A13: any bytes as a tail: no panic, bounded findings, never without a cause.
    #[test]
    fn any_bytes_are_survived(
        bytes in prop::collection::vec(any::<u8>(), 0..4_096),
        stdout in prop::collection::vec(any::<u8>(), 0..512),
        signal in 0..40_i32,
    ) {
        let evidence = Evidence {
            stdout_tail: String::from_utf8_lossy(&stdout).into_owned(),
            ..said(&String::from_utf8_lossy(&bytes))
        };
        let status = if signal == 0 { ABORTED } else { Some(ExitStatus::Code { code: signal }) };
        let causes = diagnose(&evidence, status);
        prop_assert!(!causes.is_empty());
        prop_assert!(causes.iter().all(|cause| cause.evidence.len() <= 12 && cause.summary.len() < 3_000));
    }

    /// Any text as a file of matchers: an error or matchers, never a panic.
    #[test]
    fn any_file_is_survived(text in "\\PC{0,200}", pattern in "\\PC{0,40}", title in "\\PC{0,40}") {
        let _ = Matchers::parse(&text);
        let file = format!("[[matcher]]\nname='x'\nanchors=['''x{pattern}''']\ntitle=['''{title}''']\nremedy=['r']");
        if let Ok(matchers) = Matchers::parse(&file) {
            prop_assert!(!diagnose_with(&said(&pattern), FAILED, &matchers).is_empty());
        }
    }
}
