//! Evidence in, causes out: the rows of ACCEPTANCE part A that are decided here. The texts that programs write have a
//! corpus of their own (`diagnosis_corpus.rs`).

use std::fs;
use std::path::Path;

use outlive_core::diagnosis::evidence::{
    CgroupMemory, DiskEvidence, HangEvidence, LaunchEvidence, LaunchStep, MachineRestart, MemoryEvidence,
    Phase, ProgramException, ShimLostEvidence, StopEvidence,
};
use outlive_core::diagnosis::{
    Cause, CauseCode, Confidence, Evidence, Failure, FailureReport, NextStep, diagnose,
};
use outlive_core::id::{ReportId, SessionId};
use outlive_core::limits::EVIDENCE_LINES_MAX;
use outlive_core::runtime::{ExitStatus, StopStep, StopWhy};
use outlive_core::time::WallTime;
use proptest::prelude::*;
use uuid::Uuid;

const SIGKILL: ExitStatus = ExitStatus::Signal { number: 9, core_dumped: false };
const SIGTERM: ExitStatus = ExitStatus::Signal { number: 15, core_dumped: false };
const SIGSEGV: ExitStatus = ExitStatus::Signal { number: 11, core_dumped: false };
const SIGBUS: ExitStatus = ExitStatus::Signal { number: 7, core_dumped: false };

const GIB: u64 = 1 << 30;

fn code(code: i32) -> ExitStatus {
    ExitStatus::Code { code }
}

fn busy() -> Evidence {
    Evidence { phase: Phase::Busy, ..Evidence::default() }
}

fn stopped(why: StopWhy, step: StopStep) -> Evidence {
    Evidence { phase: Phase::Stopping, stop: Some(StopEvidence { why, step }), ..Evidence::default() }
}

fn cgroup(oom_kills: u64) -> MemoryEvidence {
    let cgroup = CgroupMemory {
        version: 2,
        path: "/outlive/x".to_owned(),
        oom_kills,
        limit_hits: 3 * oom_kills,
        limit_bytes: Some(GIB),
        peak_bytes: Some(GIB),
    };
    MemoryEvidence { cgroup: Some(cgroup), ..MemoryEvidence::default() }
}

fn launch(step: LaunchStep, errno: Option<i32>, waited_ms: Option<u64>) -> Evidence {
    let launch = LaunchEvidence {
        step,
        errno,
        path: errno.map(|_| "/opt/x".to_owned()),
        message: "what the system said".to_owned(),
        waited_ms,
    };
    Evidence { launch: Some(launch), ..Evidence::default() }
}

fn first(evidence: &Evidence, status: impl Into<Option<ExitStatus>>) -> Cause {
    diagnose(evidence, status.into()).remove(0)
}

fn codes(evidence: &Evidence, status: impl Into<Option<ExitStatus>>) -> Vec<CauseCode> {
    diagnose(evidence, status.into()).iter().map(|cause| cause.code).collect()
}

#[track_caller]
fn assert_first(
    evidence: &Evidence,
    status: impl Into<Option<ExitStatus>>,
    code: CauseCode,
    sure: Confidence,
) -> Cause {
    let status = status.into();
    let cause = first(evidence, status);
    assert_eq!((cause.code, cause.confidence), (code, sure), "{:#?}", diagnose(evidence, status));
    cause
}

#[test]
fn exit_codes() {
    // A1: a cell that calls os._exit(1) writes nothing
    let cause = assert_first(&busy(), code(1), CauseCode::ExitCode, Confidence::Certain);
    assert_eq!(cause.summary, "exited with code 1 in the middle of work");
    assert_eq!(codes(&busy(), code(1)), [CauseCode::ExitCode], "nothing else is suspected");
    // A10
    let cause = assert_first(&busy(), code(0), CauseCode::ExitCode, Confidence::Certain);
    assert!(cause.summary.contains("in the middle of work"));
    // A7: exits before ready
    let cause = assert_first(&Evidence::default(), code(3), CauseCode::ExitCode, Confidence::Certain);
    assert!(cause.summary.contains("before it was ready"));
    let cause = first(&busy(), code(137));
    assert!(cause.summary.contains("SIGKILL"), "{}", cause.summary);
}

#[test]
fn signals() {
    // A2
    for (number, name) in [(9, "SIGKILL"), (11, "SIGSEGV"), (6, "SIGABRT"), (15, "SIGTERM"), (2, "SIGINT")] {
        let status = ExitStatus::Signal { number, core_dumped: false };
        let cause = assert_first(&busy(), status, CauseCode::Signal, Confidence::Certain);
        assert!(cause.summary.starts_with(&format!("ended by {name}")), "{}", cause.summary);
    }
    let killed = first(&busy(), SIGKILL);
    assert!(
        killed.evidence.iter().any(|line| line.source == "OOM killer" && line.text.starts_with("not seen"))
    );
    let sent = Evidence { signal_sender: Some(77), ..busy() };
    assert_eq!(first(&sent, SIGKILL).summary, "ended by SIGKILL, sent by process 77");

    // SIGSEGV without a word may be a crash; sent by somebody it is none.
    assert_eq!(codes(&busy(), SIGSEGV), [CauseCode::Signal, CauseCode::NativeCrash]);
    assert_eq!(codes(&sent, SIGSEGV), [CauseCode::Signal]);
    let logged = Evidence {
        kernel_log: vec![
            "python3[4711]: segfault at 0 ip 00007f sp 00007f error 4 in libfoo.so[7f0+1000]".to_owned(),
        ],
        ..busy()
    };
    let cause = assert_first(&logged, SIGSEGV, CauseCode::NativeCrash, Confidence::Certain);
    assert!(cause.summary.contains("libfoo.so"), "{}", cause.summary);
}

#[test]
fn memory() {
    // A3, from the strongest fact to the weakest
    let counted = Evidence { memory: cgroup(1), ..busy() };
    let cause = assert_first(&counted, SIGKILL, CauseCode::OutOfMemory, Confidence::Certain);
    assert_eq!(cause.summary, "killed by the OOM killer at 1 GiB of 1 GiB");
    assert_first(&counted, code(137), CauseCode::OutOfMemory, Confidence::Certain);
    assert_first(&counted, code(1), CauseCode::OutOfMemory, Confidence::Likely);
    assert_eq!(codes(&counted, code(0)), [CauseCode::ExitCode], "a child that was killed and survived");

    let log =
        "Out of memory: Killed process 4711 (python3) total-vm:9000000kB, anon-rss:8000000kB".to_owned();
    let logged = Evidence { kernel_log: vec![log], ..busy() };
    assert_first(&logged, SIGKILL, CauseCode::OutOfMemory, Confidence::Certain);

    let mut host = busy();
    host.memory.host_oom_kills = 1;
    host.memory.rss_bytes_peak = Some(7 * GIB);
    let cause = assert_first(&host, SIGKILL, CauseCode::OutOfMemory, Confidence::Likely);
    assert!(cause.summary.contains("7 GiB"), "{}", cause.summary);
    host.signal_sender = Some(77);
    assert_first(&host, SIGKILL, CauseCode::Signal, Confidence::Certain);
    host.signal_sender = None;
    host.memory.host_bytes_total = Some(24 * GIB);
    host.memory.host_bytes_available = Some(GIB);
    assert_first(&host, SIGKILL, CauseCode::OutOfMemory, Confidence::Likely);
    // Somebody else's limit was hit: the machine had memory to spare.
    host.memory.host_bytes_available = Some(22 * GIB);
    assert_first(&host, SIGKILL, CauseCode::Signal, Confidence::Certain);
    assert!(codes(&host, SIGKILL).contains(&CauseCode::OutOfMemory), "it is still named as possible");

    let near = Evidence { memory: cgroup(0), ..busy() };
    assert_first(&near, SIGKILL, CauseCode::OutOfMemory, Confidence::Possible);
    let mut far = near.clone();
    far.memory.cgroup.as_mut().unwrap().peak_bytes = Some(GIB / 2);
    assert_eq!(codes(&far, SIGKILL), [CauseCode::Signal]);

    let mut limited = busy();
    limited.memory.rlimit_as_bytes = Some(GIB);
    limited.stderr_tail =
        "Traceback (most recent call last):\n  File \"a.py\", line 1, in <module>\nMemoryError\n".to_owned();
    let cause = assert_first(&limited, code(1), CauseCode::OutOfMemory, Confidence::Certain);
    assert!(cause.summary.contains("1 GiB (RLIMIT_AS)"), "{}", cause.summary);
}

#[test]
fn what_we_end_is_never_a_crash() {
    // A9
    let wishes = [
        StopWhy::User,
        StopWhy::Restart,
        StopWhy::Finished,
        StopWhy::Eviction,
        StopWhy::Drain,
        StopWhy::Disowned,
    ];
    for why in wishes {
        for step in [StopStep::Ask, StopStep::Term, StopStep::Kill] {
            for status in [code(0), code(1), code(143), SIGTERM, SIGKILL] {
                let mut evidence = stopped(why, step);
                evidence.memory = cgroup(2);
                evidence.memory.host_oom_kills = 5;
                assert_eq!(
                    codes(&evidence, status),
                    [CauseCode::KilledByOperator],
                    "{why:?} {step:?} {status}"
                );
            }
        }
    }
    let killed = first(&stopped(StopWhy::User, StopStep::Kill), SIGKILL);
    assert!(killed.summary.contains("was killed"), "the escalation is visible: {}", killed.summary);
    // A crash while it was stopping is told after the wish.
    assert_eq!(
        codes(&stopped(StopWhy::User, StopStep::Ask), SIGSEGV)[..2],
        [CauseCode::KilledByOperator, CauseCode::Signal]
    );
}

#[test]
fn hangs_and_limits() {
    // A4
    let mut hung = stopped(StopWhy::Hung, StopStep::Kill);
    hung.hang = Some(HangEvidence { silent_ms: 3_100, misses: 4, cpu_ms: Some(0), state: Some('T') });
    let cause = assert_first(&hung, SIGKILL, CauseCode::Hung, Confidence::Certain);
    assert!(cause.summary.contains("3.1 s") && cause.summary.contains("SIGSTOP"), "{}", cause.summary);
    assert_eq!(codes(&hung, SIGKILL), [CauseCode::Hung]);
    hung.memory = cgroup(1);
    assert_eq!(codes(&hung, SIGKILL), [CauseCode::Hung, CauseCode::OutOfMemory], "why it hung, perhaps");
    // A5: computing is told apart from waiting
    hung.hang = Some(HangEvidence { silent_ms: 3_000, misses: 4, cpu_ms: Some(2_900), state: Some('R') });
    assert!(first(&hung, SIGKILL).summary.contains("computing"));

    let mut late = stopped(StopWhy::Timeout, StopStep::Term);
    late.time_limit_ms = Some(90_000);
    let cause = assert_first(&late, SIGTERM, CauseCode::Timeout, Confidence::Certain);
    assert!(cause.summary.contains("1 min 30 s"), "{}", cause.summary);

    let mut slow = launch(LaunchStep::Ready, None, Some(60_000));
    slow.stop = Some(StopEvidence { why: StopWhy::NeverReady, step: StopStep::Kill });
    let cause = assert_first(&slow, SIGKILL, CauseCode::NeverReady, Confidence::Certain);
    assert!(cause.summary.contains("1 min 0 s"), "{}", cause.summary);
    slow.stderr_tail =
        "Traceback (most recent call last):\n  File \"k.py\", line 1, in <module>\nModuleNotFoundError: No \
                        module named 'zmq'\n"
            .to_owned();
    assert_eq!(codes(&slow, SIGKILL)[..2], [CauseCode::MissingModule, CauseCode::NeverReady]);
}

#[test]
fn launches_that_fail() {
    // A7: each step
    for errno in [2, 8, 13, 20] {
        let evidence = launch(LaunchStep::Exec, Some(errno), None);
        assert_eq!(codes(&evidence, None), [CauseCode::MissingInterpreter], "errno {errno}");
    }
    for step in
        [LaunchStep::Shim, LaunchStep::Prepare, LaunchStep::Contain, LaunchStep::Exec, LaunchStep::Connect]
    {
        assert_first(&launch(step, Some(28), None), None, CauseCode::DiskFull, Confidence::Certain);
        assert_first(&launch(step, Some(98), None), None, CauseCode::AddressInUse, Confidence::Certain);
        assert_first(&launch(step, Some(12), None), None, CauseCode::OutOfMemory, Confidence::Certain);
    }
    for (step, expected) in [
        (LaunchStep::Kernelspec, CauseCode::MissingKernel),
        (LaunchStep::Shim, CauseCode::LaunchFailed),
        (LaunchStep::Prepare, CauseCode::LaunchFailed),
        (LaunchStep::Contain, CauseCode::LaunchFailed),
        (LaunchStep::Exec, CauseCode::LaunchFailed),
        (LaunchStep::Connect, CauseCode::NeverReady),
        (LaunchStep::Ready, CauseCode::NeverReady),
    ] {
        let evidence = launch(step, Some(24), None);
        let cause = assert_first(&evidence, None, expected, Confidence::Certain);
        let shown =
            cause.summary.clone() + &cause.evidence.iter().map(|line| line.text.as_str()).collect::<String>();
        assert!(shown.contains("what the system said"), "{shown}");
    }
    // It ended by itself while it was waited for: the end is the cause.
    assert_first(
        &launch(LaunchStep::Ready, None, Some(90)),
        code(3),
        CauseCode::ExitCode,
        Confidence::Certain,
    );
}

#[test]
fn what_held_it_is_gone() {
    // A15
    let mut lost = busy();
    lost.shim_lost =
        Some(ShimLostEvidence { shim_pid: Some(9), shim_status: Some(SIGKILL), killed: 2, refused: None });
    let cause = assert_first(&lost, ExitStatus::Unknown, CauseCode::ShimLost, Confidence::Certain);
    assert!(cause.summary.contains("SIGKILL"), "{}", cause.summary);
    let mut refused = lost.clone();
    refused.shim_lost.as_mut().unwrap().refused = Some("it speaks version 9 of the protocol".to_owned());
    let cause = assert_first(&refused, ExitStatus::Unknown, CauseCode::ShimLost, Confidence::Certain);
    assert!(cause.summary.contains("version 9") && cause.remedy.contains("upgrade"), "{cause:?}");
    lost.machine_restart = Some(MachineRestart { boot_before: "a".to_owned(), boot_now: "b".to_owned() });
    assert_first(&lost, ExitStatus::Unknown, CauseCode::MachineRestarted, Confidence::Certain);
    lost.bug = Some("panicked at crates/node/src/x.rs:1\nindex out of bounds".to_owned());
    assert_first(&lost, ExitStatus::Unknown, CauseCode::Bug, Confidence::Certain);
}

#[test]
fn what_a_program_tells_of_itself() {
    // A11: on a channel; the traceback has a chain and colours
    let mut evidence = busy();
    evidence.exception = Some(ProgramException {
        exception_type: "RuntimeError".to_owned(),
        message: "cannot load".to_owned(),
        traceback: "Traceback (most recent call last):\n  File \"a.py\", line 3, in load\nKeyError: 'w'\n\nThe above \
                    exception was the direct cause of the following exception:\n\nTraceback (most recent call last):\n  \
                    File \"\u{1b}[32ma.py\u{1b}[0m\", line 9, in <module>\nRuntimeError: cannot load\n"
            .to_owned(),
    });
    let cause = assert_first(&evidence, code(1), CauseCode::PythonException, Confidence::Certain);
    let lines: Vec<&str> = cause.evidence.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(
        lines,
        ["  File \"a.py\", line 9, in <module>", "RuntimeError: cannot load", "caused by KeyError: 'w'"]
    );
    evidence.exception.as_mut().unwrap().exception_type = "MemoryError".to_owned();
    assert_first(&evidence, code(1), CauseCode::OutOfMemory, Confidence::Likely);
}

#[test]
fn full_disks() {
    let full = DiskEvidence { path: "/dev/shm".to_owned(), free_bytes: 0, free_inodes: 12 };
    let evidence = Evidence { disk: vec![full], ..busy() };
    let cause = assert_first(&evidence, SIGBUS, CauseCode::DiskFull, Confidence::Likely);
    assert!(cause.remedy.contains("--shm-size"), "{}", cause.remedy);
    assert_eq!(codes(&evidence, code(1)), [CauseCode::ExitCode, CauseCode::DiskFull], "only a suspicion");
    let said = Evidence { stderr_tail: "write: No space left on device\n".to_owned(), ..evidence };
    assert_first(&said, code(1), CauseCode::DiskFull, Confidence::Certain);
}

#[test]
fn late_evidence_amends_one_report() {
    let failure = Failure {
        id: ReportId::from_uuid(Uuid::from_u128(1)),
        session: SessionId::from_uuid(Uuid::from_u128(2)),
        process: None,
        subject: "command train".to_owned(),
        at: WallTime(5),
        lived_ms: Some(9),
        status: Some(SIGKILL),
        evidence: busy(),
        interrupted: Vec::new(),
        interrupted_names: Vec::new(),
        next: NextStep::Nothing,
    };
    let mut report = FailureReport::build(failure);
    assert_eq!(report.cause().code, CauseCode::Signal);
    let before = report.clone();
    let late = Evidence { memory: cgroup(1), ..Evidence::default() };
    report.amend(late.clone());
    assert_eq!(report.cause().code, CauseCode::OutOfMemory);
    let once = report.clone();
    report.amend(late);
    assert_eq!(report, once, "the same evidence twice changes nothing");
    assert_eq!(
        (report.id, report.at, report.status),
        (before.id, before.at, before.status),
        "it is one death"
    );
}

#[test]
fn every_code_is_written_once_and_has_its_page() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for code in CauseCode::ALL {
        assert_eq!(code.as_str().parse(), Ok(code));
        assert_eq!(serde_json::to_value(code).unwrap(), code.as_str(), "one spelling everywhere");
        let page = fs::read_to_string(folder.join(code.page()))
            .unwrap_or_else(|_| panic!("{} is missing", code.page()));
        for part in
            [&format!("# {code}"), "## What it means", "## How it is found", "## What to do", "## Fixture"]
        {
            assert!(page.contains(part), "{}: no {part}", code.page());
        }
        for fixture in page.split('`').filter(|word| word.starts_with("fixtures/")) {
            assert!(folder.join(fixture).exists(), "{}: {fixture} does not exist", code.page());
        }
    }
    let pages = fs::read_dir(folder.join("docs/causes")).unwrap().count();
    assert_eq!(pages, CauseCode::ALL.len() + 1, "a page for each code, and a README");
    assert!("out-of-luck".parse::<CauseCode>().is_err());
}

/// A full tail does not grow: the newer one has been read by whoever counts more bytes.
#[test]
fn the_newer_tail_is_kept() {
    let tail = |text: &str, stderr_bytes| Evidence {
        stderr_tail: text.to_owned(),
        stderr_bytes,
        ..Evidence::default()
    };
    let mut known = tail("xxxx early", 65_536);
    known.merge(tail("xxx late", 70_000));
    assert_eq!(known.stderr_tail, "xxx late");
    known.merge(tail("xxxx early", 65_536));
    assert_eq!(known.stderr_tail, "xxx late");
}

fn any_status() -> impl Strategy<Value = Option<ExitStatus>> {
    prop_oneof![
        Just(None),
        Just(Some(ExitStatus::Unknown)),
        (0..256_i32).prop_map(|n| Some(code(n))),
        (1..65_i32, any::<bool>())
            .prop_map(|(number, core_dumped)| Some(ExitStatus::Signal { number, core_dumped })),
    ]
}

/// Text made of what engines look for, and of anything else.
fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("Traceback (most recent call last):\n".to_owned()),
        Just("  File \"a.py\", line 1, in f\n".to_owned()),
        Just("    code()\n".to_owned()),
        Just("ValueError: x\n".to_owned()),
        Just("MemoryError\n".to_owned()),
        Just("  + Exception Group Traceback (most recent call last):\n".to_owned()),
        Just("\nDuring handling of the above exception, another exception occurred:\n\n".to_owned()),
        Just("Fatal Python error: Aborted\n".to_owned()),
        Just("OSError: [Errno 28] No space left on device: '/x'\n".to_owned()),
        Just("[ring] errno 54\n".to_owned()),
        Just("listen: address already in use: 8080\n".to_owned()),
        Just("No module named '".to_owned()),
        "\\PC{0,40}",
        "(?s).{0,20}",
    ];
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// Whatever was gathered: at least one cause, each code once, all of it bounded and in one line.
    #[test]
    fn never_empty_never_doubled(text in any_text(), told in prop::option::of(any_text()), status in any_status(), oom in 0_u64..2, asked: bool) {
        let mut evidence = Evidence { stderr_tail: text, memory: cgroup(oom), ..Evidence::default() };
        evidence.exception = told.map(|traceback| ProgramException {
            exception_type: "E".to_owned(), message: "m\nn".to_owned(), traceback,
        });
        if asked {
            evidence.stop = Some(StopEvidence { why: StopWhy::User, step: StopStep::Kill });
        }
        let causes = diagnose(&evidence, status);
        prop_assert!(!causes.is_empty());
        prop_assert!(!asked || causes[0].code == CauseCode::KilledByOperator);
        for (i, cause) in causes.iter().enumerate() {
            prop_assert!(!causes[..i].iter().any(|other| other.code == cause.code));
            prop_assert!(cause.evidence.len() <= EVIDENCE_LINES_MAX);
            prop_assert!(!cause.summary.chars().any(char::is_control));
            prop_assert!(!cause.remedy.is_empty());
        }
    }

    /// A report that is amended in any two steps ends as one that knew all at once, as far as causes go.
    #[test]
    fn merging_is_idempotent(text in any_text(), later in any_text(), oom in 0_u64..3) {
        let mut known = Evidence { stderr_tail: text, ..Evidence::default() };
        let late = Evidence { stderr_tail: later, memory: cgroup(oom), ..Evidence::default() };
        known.merge(late.clone());
        let once = known.clone();
        known.merge(late);
        prop_assert_eq!(known, once);
    }
}
