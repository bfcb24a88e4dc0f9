//! The programs of `fixtures/causes/`, run for real: what they write and how they end must give the cause that their
//! first comment promises. (End to end the same programs run under the daemon, with all evidence.)

use std::fs;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use outlive_core::diagnosis::evidence::{LaunchEvidence, LaunchStep, Phase};
use outlive_core::diagnosis::{Cause, CauseCode, Evidence, Matchers, diagnose, diagnose_with};
use outlive_core::runtime::ExitStatus;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/causes").join(name)
}

fn python(name: &str) -> Command {
    let mut command = Command::new("python3");
    command.arg(fixture(name));
    command
}

fn diagnosed(output: &Output, mut evidence: Evidence) -> Vec<Cause> {
    let status = match (output.status.code(), output.status.signal()) {
        (Some(code), _) => ExitStatus::Code { code },
        (None, Some(number)) => ExitStatus::Signal { number, core_dumped: output.status.core_dumped() },
        (None, None) => ExitStatus::Unknown,
    };
    evidence.phase = Phase::Busy;
    evidence.stderr_tail = String::from_utf8_lossy(&output.stderr).into_owned();
    diagnose(&evidence, Some(status))
}

#[track_caller]
fn assert_cause(command: &mut Command, expected: CauseCode) -> Cause {
    let output = command.output().expect("the fixture starts");
    let mut causes = diagnosed(&output, Evidence::default());
    assert_eq!(causes[0].code, expected, "{causes:#?}\n{}", String::from_utf8_lossy(&output.stderr));
    causes.remove(0)
}

#[test]
fn programs_give_their_causes() {
    // A1, A2, A10, A11, A12
    for (name, expected) in [
        ("exit_code.py", CauseCode::ExitCode),
        ("exit_zero.py", CauseCode::ExitCode),
        ("kill_self.py", CauseCode::Signal),
        ("python_exception.py", CauseCode::PythonException),
        ("native_crash.py", CauseCode::NativeCrash),
        ("abort.py", CauseCode::NativeCrash),
        ("disk_full.py", CauseCode::DiskFull),
        ("missing_module.py", CauseCode::MissingModule),
        ("address_in_use.py", CauseCode::AddressInUse),
        ("gpu_out_of_memory.py", CauseCode::GpuOutOfMemory),
        ("gpu_fault.py", CauseCode::GpuFault),
        ("too_many_open_files.py", CauseCode::TooManyOpenFiles),
        ("connection_refused.py", CauseCode::ConnectionRefused),
        ("missing_library.py", CauseCode::MissingLibrary),
        ("missing_file.py", CauseCode::MissingFile),
        ("missing_weights.py", CauseCode::MissingWeights),
        ("permission_denied.py", CauseCode::PermissionDenied),
        ("assertion_failed.py", CauseCode::AssertionFailed),
    ] {
        let about = fs::read_to_string(fixture(name)).expect("the fixture");
        assert!(about.contains(&format!("Cause: {expected}")), "{name} says what it provokes");
        assert_cause(&mut python(name), expected);
    }
    assert_cause(&mut Command::new(fixture("transport_failed.sh")), CauseCode::TransportFailed);
    assert_cause(&mut Command::new(fixture("panic.sh")), CauseCode::Panic);
    let crash = assert_cause(&mut python("native_crash.py"), CauseCode::NativeCrash);
    assert!(
        crash.evidence.iter().any(|line| line.text.contains("in boom")),
        "the stack is shown: {crash:#?}"
    );
}

/// A12: the user's own matchers go first, and their name is the cause's.
#[test]
fn a_matcher_of_the_users_own_is_used() {
    let file = fs::read_to_string(fixture("custom.toml")).expect("the fixture");
    let matchers = Matchers::builtin().with(&Matchers::parse(&file).unwrap()).unwrap();
    let output = Command::new(fixture("custom.sh")).output().expect("the fixture starts");
    let evidence = Evidence {
        phase: Phase::Busy,
        stderr_tail: String::from_utf8_lossy(&output.stderr).into_owned(),
        ..Evidence::default()
    };
    let status = ExitStatus::Code { code: output.status.code().expect("it exits") };
    let ours = &diagnose(&evidence, Some(status))[0];
    assert_eq!(ours.code, CauseCode::ExitCode, "nobody else knows these words");
    let cause = &diagnose_with(&evidence, Some(status), &matchers)[0];
    assert_eq!((cause.code, cause.label()), (CauseCode::Custom, "license-server-away"));
    assert_eq!(cause.summary, "the license server lic01:27000 did not answer");
    assert_eq!(cause.remedy, "Check the VPN, then `lmstat -c lic01:27000`.");
    assert!(cause.evidence[0].text.starts_with("FATAL: license server"));
}

#[test]
fn every_signal_is_named() {
    // A2
    for name in ["KILL", "TERM", "HUP", "SEGV", "BUS", "FPE", "ILL", "USR1"] {
        let cause = assert_cause(python("kill_self.py").arg(name), CauseCode::Signal);
        assert!(cause.summary.contains(&format!("SIG{name}")), "{}", cause.summary);
    }
}

#[test]
fn a_memory_limit_is_named() {
    // A3, without a cgroup
    let script = format!("ulimit -v 400000; exec python3 '{}'", fixture("out_of_memory.py").display());
    let output = Command::new("sh").arg("-c").arg(script).output().expect("sh");
    let mut evidence = Evidence::default();
    evidence.memory.rlimit_as_bytes = Some(400_000 << 10);
    let causes = diagnosed(&output, evidence);
    assert_eq!(causes[0].code, CauseCode::OutOfMemory, "{causes:#?}");
    assert!(causes[0].summary.contains("390.6 MiB"), "{}", causes[0].summary);
}

#[test]
fn what_cannot_be_executed_is_named() {
    // A7
    for (name, kind) in
        [("missing_interpreter", ErrorKind::NotFound), ("not_executable", ErrorKind::PermissionDenied)]
    {
        let path = fixture(name);
        let error = Command::new(&path).output().expect_err("cannot be executed");
        assert_eq!(error.kind(), kind, "{name}");
        let launch = LaunchEvidence {
            step: LaunchStep::Exec,
            errno: error.raw_os_error(),
            path: Some(path.display().to_string()),
            message: error.to_string(),
            waited_ms: None,
        };
        let causes = diagnose(&Evidence { launch: Some(launch), ..Evidence::default() }, None);
        assert_eq!(causes[0].code, CauseCode::MissingInterpreter, "{causes:#?}");
        // The same by way of a shell, which tells it in words.
        let shell = Command::new("sh").arg("-c").arg(format!("'{}'", path.display())).output().expect("sh");
        let causes = diagnosed(&shell, Evidence::default());
        assert_eq!(causes[0].code, CauseCode::MissingInterpreter, "{causes:#?}");
    }
}
