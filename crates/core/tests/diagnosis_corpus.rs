//! A12: each file of `fixtures/stderr/` is what a program wrote before its end, with the causes that must be drawn
//! from it in its header. Decoys are texts that speak of an error which was not the cause.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use outlive_core::diagnosis::evidence::Phase;
use outlive_core::diagnosis::{Cause, CauseCode, Evidence, diagnose};
use outlive_core::limits::EVIDENCE_LINES_MAX;
use outlive_core::runtime::ExitStatus;

struct Sample {
    name: String,
    status: ExitStatus,
    expect: String,
    also: Vec<String>,
    never: Vec<CauseCode>,
    text: String,
}

impl Sample {
    fn causes(&self) -> Vec<Cause> {
        let evidence = Evidence { phase: Phase::Busy, stderr_tail: self.text.clone(), ..Evidence::default() };
        diagnose(&evidence, Some(self.status))
    }
}

fn samples() -> Vec<Sample> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/stderr");
    let mut samples: Vec<Sample> = fs::read_dir(&folder)
        .expect("fixtures/stderr")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "txt"))
        .map(|path| parse(&path))
        .collect();
    samples.sort_by(|a, b| a.name.cmp(&b.name));
    samples
}

fn parse(path: &Path) -> Sample {
    let content = fs::read_to_string(path).expect("readable");
    let (head, text) = content.split_once("---\n").expect("a header, `---`, the text");
    let field = |key: &str| -> Vec<String> {
        let lines = head.lines().filter_map(|line| line.strip_prefix("#: "));
        lines.filter_map(|line| line.strip_prefix(key)).map(|value| value.trim().to_owned()).collect()
    };
    let status = match field("status ").pop().expect("a status").split_once(' ') {
        Some(("code", code)) => ExitStatus::Code { code: code.parse().expect("a number") },
        Some(("signal", number)) => {
            ExitStatus::Signal { number: number.parse().expect("a number"), core_dumped: false }
        }
        _ => ExitStatus::Unknown,
    };
    Sample {
        name: path.file_stem().expect("a name").to_string_lossy().into_owned(),
        status,
        expect: field("expect ").pop().expect("an expected cause"),
        also: field("also "),
        never: field("never ").iter().map(|code| code.parse().expect("a cause code")).collect(),
        text: text.to_owned(),
    }
}

#[test]
fn every_sample_gives_its_cause() {
    let samples = samples();
    assert!(samples.len() >= 30, "the corpus is there");
    let mut wrong = String::new();
    for sample in &samples {
        let causes = sample.causes();
        let found: Vec<String> = causes.iter().map(|c| format!("{} {}", c.code, c.confidence)).collect();
        let right = found[0] == sample.expect
            && sample.also.iter().all(|also| found[1..].contains(also))
            && causes.iter().all(|cause| !sample.never.contains(&cause.code));
        if !right {
            let Sample { name, expect, also, never, .. } = sample;
            writeln!(wrong, "{name}: expected {expect} (also {also:?}, never {never:?}), found:").unwrap();
            for cause in &causes {
                writeln!(wrong, "    {} {}: {}", cause.code, cause.confidence, cause.summary).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_cause_is_fit_to_be_shown() {
    for sample in samples() {
        for cause in sample.causes() {
            let name = format!("{}: {}", sample.name, cause.code);
            assert!(!cause.summary.contains('\n') && !cause.summary.is_empty(), "{name}: one sentence");
            assert!(!cause.remedy.is_empty(), "{name}: a remedy");
            assert!(!cause.evidence.is_empty(), "{name}: evidence");
            assert!(cause.evidence.len() <= EVIDENCE_LINES_MAX, "{name}: bounded");
        }
    }
}

/// Repeats are one line with their number, and the words of the message are kept.
#[test]
fn repeats_collapse() {
    let sample = samples().into_iter().find(|sample| sample.name == "ring-errno").unwrap();
    let causes = sample.causes();
    let lines: Vec<&str> = causes[0].evidence.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(lines[0], "[ring] Receiving from socket 7 failed with errno 54 … (×3)");
}

/// Of many threads the one that crashed is named, not the first that is printed.
#[test]
fn the_thread_that_crashed_is_named() {
    let sample = samples().into_iter().find(|sample| sample.name == "faulthandler-threads").unwrap();
    let cause = &sample.causes()[0];
    assert!(cause.summary.ends_with("in string_at (__init__.py line 519)"), "{}", cause.summary);
    let lines: Vec<&str> = cause.evidence.iter().map(|line| line.text.trim()).collect();
    assert_eq!(lines[0], "Fatal Python error: Segmentation fault");
    assert!(lines[1].starts_with("Current thread"), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("in decode")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("parentpoller")), "{lines:?}");
}
