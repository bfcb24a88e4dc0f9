//! What programs print before they die names the cause.

use outlive_e2e::process::Signal;
use outlive_e2e::{World, report};
use serde_json::{Value, json};

use crate::explained;

/// What was printed, and the cause that it names. The wording is that of the real programs.
const SIGNATURES: [(&str, &str); 10] = [
    (
        "[METAL] Command buffer execution failed: Caused GPU Timeout Error (00000002:kIOGPUCommandBufferCallbackErrorTimeout)",
        "gpu-fault",
    ),
    ("[ring] Receiving from socket 7 failed with errno 54", "transport-failed"),
    (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB",
        "gpu-out-of-memory",
    ),
    ("RuntimeError: CUDA error: device-side assert triggered", "gpu-fault"),
    (
        "[rank1]:[E ProcessGroupNCCL.cpp:616] [Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=41, OpType=ALLREDUCE) ran for 600029 milliseconds before timing out.",
        "transport-failed",
    ),
    ("OSError: [Errno 28] No space left on device: '/data/checkpoint-7'", "disk-full"),
    ("ModuleNotFoundError: No module named 'flash_attn'", "missing-module"),
    (
        "OSError: [Errno 98] error while attempting to bind on address ('127.0.0.1', 8000): address already in use",
        "address-in-use",
    ),
    ("OSError: [Errno 24] Too many open files: '/proc/self/stat'", "too-many-open-files"),
    (
        "thread 'main' panicked at src/main.rs:7:5:\\nindex out of bounds: the len is 3 but the index is 7",
        "panic",
    ),
];

/// Prints lines to standard error, not through Python's own buffer.
fn prints(line: &str) -> String {
    format!("os.write(2, '''{line}\\n'''.encode())")
}

// A12: a known line on standard error, and then an end with an exit code: the cause has its name, the line is evidence,
// and the task is told.
#[test]
fn known_lines_name_the_cause() {
    let world = World::new();
    let _daemon = world.daemon();
    let mut config = world.group_config(1);
    config["restart"]["restarts_max"] = json!(50);
    config["restart"]["backoff_ms"] = json!(1);
    let group = outlive_e2e::Group::up(&world.api(), "g", &config);
    for (line, code) in SIGNATURES {
        // As the runtime of the language ends: Rust's after a panic with 101.
        let status = if code == "panic" { 101 } else { 1 };
        let ended = group.run(&format!("{}\nos._exit({status})", prints(line)));
        let report = explained(&group, &ended);
        assert_eq!(report::code(&report), code, "{line}: {report:#}");
        let first = line.split("\\n").next().unwrap_or_default();
        assert!(report::evidence(&report).contains(&first[..40]), "{line} is shown: {report:#}");
    }
}

// A12: a line that is printed a thousand times is told once, and how often.
#[test]
fn repeats_are_collapsed() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(1);
    let line = "OSError: [Errno 28] No space left on device: 'x'";
    let ended = group.run(&format!("for _ in range(100): {}\nos._exit(1)", prints(line)));
    let report = explained(&group, &ended);
    assert_eq!(report::code(&report), "disk-full", "{report:#}");
    let evidence = report["causes"][0]["evidence"].as_array().cloned().unwrap_or_default();
    let shown = evidence.iter().filter(|found| found["text"].to_string().contains("No space left"));
    assert_eq!(shown.count(), 1, "{evidence:#?}");
    assert!(report::evidence(&report).contains("×"), "{report:#}");
}

// A12: the root goes before what followed from it.
#[test]
fn the_root_goes_before_its_consequence() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(1);
    let lines = [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB",
        "[rank0]: torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:1970, remote process exited or there was a network error",
    ];
    let code: Vec<String> = lines.iter().map(|line| prints(line)).collect();
    let ended = group.run(&format!("{}\nos._exit(1)", code.join("\n")));
    let report = explained(&group, &ended);
    let codes: Vec<&Value> =
        report["causes"].as_array().into_iter().flatten().map(|cause| &cause["code"]).collect();
    assert_eq!(codes.first().map(|code| code.as_str()), Some(Some("gpu-out-of-memory")), "{report:#}");
    assert!(codes.iter().any(|code| *code == "transport-failed"), "the consequence is kept: {codes:?}");
}

// A12: a ring abort of a runner that lives on, and is killed for something else later: the ring is the cause, and our own
// KILL is not called out-of-memory.
#[test]
fn a_ring_abort_that_leaves_it_hanging() {
    let world = World::new();
    let _daemon = world.daemon();
    let mut config = world.group_config(1);
    config["members"][0]["launch"]["program"]["watch"] =
        json!({"load_ms": null, "first_chunk_ms": null, "between_chunks_ms": 1000});
    let group = outlive_e2e::Group::up(&world.api(), "g", &config);
    let ring = "libc++abi: terminating due to uncaught exception of type std::runtime_error: [ring] Receiving from socket 5 failed with errno 54";
    // The library has given up, the program waits for it, and does not end when it is asked to.
    let code = format!("text('one')\n{}\nhears.discard('shutdown')\nforever()", prints(ring));
    let ended = group.run(&code);
    let report = explained(&group, &ended);
    assert_eq!(report::code(&report), "transport-failed", "{report:#}");
    assert!(report::evidence(&report).contains("errno 54"), "{report:#}");
    let codes = report["causes"].to_string();
    assert!(!codes.contains("\"out-of-memory\""), "{codes}");

    // Killed by somebody else, who does not say why: the ring is still what the program said.
    group.wait_incarnation(0, 2);
    let task = group.submit(&format!("{}\ntext('hangs'); forever()", prints(ring)));
    task.wait_said("hangs");
    group.signal(0, Signal::KILL);
    let report = explained(&group, &task.outcome());
    assert_eq!(report::code(&report), "transport-failed", "{report:#}");
}

// A12: transient errors before a clean end are no failure, and nobody is told of one.
#[test]
fn a_clean_end_after_transient_errors_reports_nothing() {
    let world = World::new();
    let _daemon = world.daemon();
    let start = "os.write(2, b'ConnectionRefusedError: [Errno 111] Connection refused, trying again\\n' * 5)\n\
                 os.write(2, b'CUDA out of memory. Tried to allocate 2 GiB; falling back to the CPU\\n')\n\
                 hello(); ready(); send('end'); sys.exit(0)";
    let mut config = world.group_of(vec![world.raw_member("m-0", start)]);
    config["restart"]["restart"] = json!("transient");
    let group = outlive_e2e::Group::up(&world.api(), "g", &config);
    let view = group.wait_member(0, "exited");
    assert_eq!(view["runtime"]["state"]["status"], json!({"kind": "code", "code": 0}), "{view}");
    assert!(view["runtime"]["state"]["cause"].is_null(), "{view}");
    assert_eq!(view["runtime"]["incarnation"], 1, "it is not started again: {view}");
    assert!(group.reports().is_empty(), "{:#?}", group.reports());
}

// A12: an unknown tail is kept as it is.
#[test]
fn an_unknown_tail_is_kept() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(1);
    let ended = group.run(&format!("{}\nos._exit(9)", prints("the flux is misaligned by 3 units")));
    let report = explained(&group, &ended);
    assert_eq!(report::code(&report), "exit-code", "{report:#}");
    assert!(report.to_string().contains("the flux is misaligned by 3 units"), "{report:#}");
}
