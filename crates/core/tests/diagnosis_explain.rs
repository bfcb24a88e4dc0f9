//! What a person reads after a failure, in 80 columns.

use insta::assert_snapshot;
use outlive_core::diagnosis::evidence::{CgroupMemory, LaunchEvidence, LaunchStep, Phase, StopEvidence};
use outlive_core::diagnosis::explain::Role;
use outlive_core::diagnosis::{
    Evidence, ExplainOptions, Failure, FailureReport, NextStep, explain, explain_lines,
};
use outlive_core::id::{Incarnation, ProcessKey, ReportId, RunId, RuntimeId, SessionId};
use outlive_core::runtime::{ExitReport, ExitStatus, StopStep, StopWhy};
use outlive_core::time::WallTime;
use uuid::Uuid;

fn failure(pid: Option<i32>, status: ExitStatus, evidence: Evidence) -> Failure {
    let exit = ExitReport {
        process: ProcessKey {
            runtime: RuntimeId::from_uuid(Uuid::from_u128(2)),
            incarnation: Incarnation(1),
        },
        pid,
        started_at: WallTime(1_795_301_523_000_000 - 4_331_000_000),
        exited_at: WallTime(1_795_301_523_000_000),
        status,
        evidence,
    };
    let id = ReportId::from_uuid(Uuid::from_u128(7));
    Failure::of_exit(id, SessionId::from_uuid(Uuid::from_u128(1)), "kernel python3", exit)
}

fn runs(n: u128) -> Vec<RunId> {
    (0..n).map(|i| RunId::from_uuid(Uuid::from_u128(0x0193_5000_7000_8000 << 64 | i))).collect()
}

fn page(failure: Failure) -> String {
    explain(&FailureReport::build(failure), &ExplainOptions::default())
}

#[test]
fn out_of_memory() {
    // A3
    let mut evidence = Evidence {
        phase: Phase::Busy,
        argv: ["/opt/venv/bin/python", "-m", "ipykernel_launcher", "-f", "/run/user/1000/outlive/k.json"]
            .map(str::to_owned)
            .to_vec(),
        stderr_tail: "loading shard 1\nloading shard 2\n".to_owned(),
        ..Evidence::default()
    };
    evidence.memory.cgroup = Some(CgroupMemory {
        version: 2,
        path: "/user.slice/outlive/0193".to_owned(),
        oom_kills: 1,
        limit_hits: 42,
        limit_bytes: Some(2 << 30),
        peak_bytes: Some(2_147_000_000),
    });
    evidence.memory.rss_bytes_peak = Some(2_040_000_000);
    let mut failure = failure(Some(4711), ExitStatus::Signal { number: 9, core_dumped: false }, evidence);
    failure.interrupted = runs(5);
    failure.next = NextStep::Restart { after_ms: 200, nth: 1, of: 3 };
    assert_snapshot!(page(failure), @r#"
    kernel python3 (pid 4711) died: out-of-memory

      Killed by the OOM killer at 2 GiB of 2 GiB (certain).

      when         2026-11-21 22:52:03 UTC, after 1 h 12 min
      status       SIGKILL
      command      /opt/venv/bin/python -m ipykernel_launcher -f
                   /run/user/1000/outlive/k.json
      interrupted  5 runs: 01935000-7000-8000-0000-000000000000,
                   01935000-7000-8000-0000-000000000001,
                   01935000-7000-8000-0000-000000000002 and 2 more
      next         it is started again in 200 ms (restart 1 of 3)

    Evidence
      wait status           SIGKILL
      cgroup memory.events  oom_kill 1, limit hit 42 times
      cgroup                peak 2 GiB, limit 2 GiB (/user.slice/outlive/0193)
      getrusage             largest resident set 1.9 GiB

    What to do
      Load less at a time (chunks, smaller types, `del` what is done with), or raise
      its limit of 2 GiB.

    Also seen
      signal  ended by SIGKILL (certain)

    Last lines of standard error
      │ loading shard 1
      │ loading shard 2

      More about this cause: docs/causes/out-of-memory.md
    "#);
}

#[test]
fn python_exception() {
    let tail = "\u{1b}[31mepoch 3\u{1b}[0m\nTraceback (most recent call last):\n  File \"/home/ada/train.py\", line 88, in \
                <module>\n    main()\n  File \"/home/ada/train.py\", line 61, in main\n    total / count\n    \
                ~~~~~~^~~~~~~\nZeroDivisionError: division by zero\n";
    let evidence = Evidence {
        phase: Phase::Busy,
        argv: vec!["python3".to_owned(), "train.py".to_owned()],
        stderr_tail: tail.to_owned(),
        ..Evidence::default()
    };
    let mut failure = failure(Some(99), ExitStatus::Code { code: 1 }, evidence);
    failure.interrupted = runs(1);
    assert_snapshot!(page(failure), @r#"
    kernel python3 (pid 99) died: python-exception

      Uncaught ZeroDivisionError: division by zero (certain).

      when         2026-11-21 22:52:03 UTC, after 1 h 12 min
      status       exit code 1
      command      python3 train.py
      interrupted  run 01935000-7000-8000-0000-000000000000
      next         nothing is started again by itself

    Evidence
      stderr    File "/home/ada/train.py", line 88, in <module>
                  main()
                File "/home/ada/train.py", line 61, in main
                  total / count
              ZeroDivisionError: division by zero

    What to do
      Correct or catch it at /home/ada/train.py line 61. The whole traceback is in
      `outlive logs`.

    Also seen
      exit-code  exited with code 1 in the middle of work (certain)

      More about this cause: docs/causes/python-exception.md
    "#);
}

#[test]
fn a_launch_that_found_no_program() {
    // A7
    let evidence = Evidence {
        argv: vec!["/opt/gone/bin/python".to_owned(), "-m".to_owned(), "ipykernel_launcher".to_owned()],
        launch: Some(LaunchEvidence {
            step: LaunchStep::Exec,
            errno: Some(2),
            path: Some("/opt/gone/bin/python".to_owned()),
            message: "cannot execute /opt/gone/bin/python: No such file or directory".to_owned(),
            waited_ms: None,
        }),
        ..Evidence::default()
    };
    let mut failure = failure(None, ExitStatus::Unknown, evidence);
    failure.next = NextStep::GiveUp { reason: "it ended again after 3 restarts within 60 s".to_owned() };
    failure.interrupted = runs(2);
    assert_snapshot!(page(failure), @r#"
    kernel python3 did not start: missing-interpreter

      Cannot execute /opt/gone/bin/python: No such file or directory (certain).

      when         2026-11-21 22:52:03 UTC
      command      /opt/gone/bin/python -m ipykernel_launcher
      interrupted  2 runs: 01935000-7000-8000-0000-000000000000,
                   01935000-7000-8000-0000-000000000001
      next         Outlive gives up: it ended again after 3 restarts within 60 s

    Evidence
      execve  errno 2 (ENOENT, no such file or directory)
      launch  cannot execute /opt/gone/bin/python: No such file or directory

    What to do
      Check the name and PATH (`command -v /opt/gone/bin/python`), and `head -1` of
      a script. An environment that was moved or deleted leaves such paths behind:
      create it again.

      More about this cause: docs/causes/missing-interpreter.md
    "#);
}

#[test]
fn a_stop_that_somebody_asked_for() {
    // A9
    let evidence = Evidence {
        phase: Phase::Stopping,
        stop: Some(StopEvidence { why: StopWhy::User, step: StopStep::Kill }),
        ..Evidence::default()
    };
    assert_snapshot!(page(failure(Some(5), ExitStatus::Signal { number: 9, core_dumped: false }, evidence)), @r#"
    kernel python3 (pid 5) was stopped: killed-by-operator

      Stopped because somebody asked for it; it did not end when asked, and was
      killed (certain).

      when         2026-11-21 22:52:03 UTC, after 1 h 12 min
      status       SIGKILL
      interrupted  nothing
      next         nothing is started again by itself

    Evidence
      stop         asked by user, last step kill
      wait status  SIGKILL

    What to do
      Nothing is wrong. `outlive restart` starts it again.

      More about this cause: docs/causes/killed-by-operator.md
    "#);
}

#[test]
fn an_unknown_signal_says_where_it_looked() {
    // A2
    let evidence = Evidence { phase: Phase::Idle, ..Evidence::default() };
    assert_snapshot!(page(failure(Some(5), ExitStatus::Signal { number: 9, core_dumped: false }, evidence)), @r#"
    kernel python3 (pid 5) died: signal

      Ended by SIGKILL (certain).

      when         2026-11-21 22:52:03 UTC, after 1 h 12 min
      status       SIGKILL
      interrupted  nothing
      next         nothing is started again by itself

    Evidence
      wait status  signal 9, SIGKILL
      OOM killer   not seen: looked in /proc/vmstat (oom_kill rose by 0), the kernel
                   log where readable (no line)

    What to do
      Somebody or something outside killed it: a person, a batch system, a
      container's runtime, or a memory guard such as systemd-oomd or earlyoom
      (`journalctl -e`). It was not Outlive.

      More about this cause: docs/causes/signal.md
    "#);
}

/// No line is wider than the page, whatever the program wrote, and roles tell what may be coloured.
#[test]
fn fits_the_page() {
    let tail = format!("{}\n{} {}\n", "x".repeat(500), "word ".repeat(60), "é".repeat(90));
    for width in [1, 40, 72, 80, 200] {
        let evidence = Evidence { phase: Phase::Busy, stderr_tail: tail.clone(), ..Evidence::default() };
        let mut failure = failure(Some(5), ExitStatus::Code { code: 3 }, evidence);
        failure.interrupted = runs(9);
        let options = ExplainOptions { width, tail_lines: 3, utc_offset_s: 5 * 3_600 + 1_800 };
        let report = FailureReport::build(failure);
        for line in explain(&report, &options).lines() {
            assert!(line.chars().count() <= width.max(40), "{width}: {line}");
        }
        let lines = explain_lines(&report, &options);
        assert_eq!(lines[0].last().map(|span| span.role), Some(Role::Heading));
        assert!(explain(&report, &options).contains("+05:30"));
    }
}
