//! A12: each file of `fixtures/stderr/` is what a program wrote before its end, with the cause that must be drawn from
//! it in its header. Decoys are texts that speak of an error which was not the cause. What the halves are for stands in
//! `fixtures/stderr/README.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use outlive_core::diagnosis::evidence::Phase;
use outlive_core::diagnosis::{Cause, CauseCode, Evidence, diagnose};
use outlive_core::limits::EVIDENCE_LINES_MAX;
use outlive_core::runtime::ExitStatus;

/// The two halves of the corpus.
const WRITTEN: &str = "written";
const HELD_OUT: &str = "held-out";
/// Below this, precision or recall on the half that the matchers were not written for is a defect.
const HELD_OUT_FLOOR: f64 = 0.85;

struct Sample {
    name: String,
    status: ExitStatus,
    /// A cause, and how sure it must be when that is part of what is expected.
    expect: String,
    also: Vec<String>,
    never: Vec<CauseCode>,
    /// It is the standard output; else the standard error.
    stdout: bool,
    /// Where its words are from; the first samples do not say.
    from: Option<String>,
    text: String,
}

impl Sample {
    fn causes(&self) -> Vec<Cause> {
        let text = self.text.clone();
        let (stderr_tail, stdout_tail) =
            if self.stdout { (String::new(), text) } else { (text, String::new()) };
        let evidence = Evidence { phase: Phase::Busy, stderr_tail, stdout_tail, ..Evidence::default() };
        diagnose(&evidence, Some(self.status))
    }

    fn expected(&self) -> CauseCode {
        self.expect.split(' ').next().and_then(|code| code.parse().ok()).expect("a cause code")
    }

    /// What is wrong with what was found, if anything is.
    fn judge(&self, causes: &[Cause]) -> Option<String> {
        let shown: Vec<String> = causes.iter().map(|c| format!("{} {}", c.code, c.confidence)).collect();
        let right = (shown[0] == self.expect || causes[0].code.as_str() == self.expect)
            && self.also.iter().all(|also| shown[1..].contains(also))
            && causes.iter().all(|cause| !self.never.contains(&cause.code));
        if right {
            return None;
        }
        let Self { name, expect, also, never, .. } = self;
        let mut wrong = format!("{name}: expected {expect} (also {also:?}, never {never:?}), found:\n");
        for cause in causes {
            writeln!(wrong, "    {} {}: {}", cause.code, cause.confidence, cause.summary).expect("a string");
        }
        Some(wrong)
    }
}

fn samples(half: &str) -> Vec<Sample> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/stderr").join(half);
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
        stdout: field("stream ").iter().any(|stream| stream == "stdout"),
        from: field("from ").pop(),
        text: text.to_owned(),
    }
}

/// How well a half is told: over causes that have a name (an exit code, a signal or an exception that nothing explains
/// better is the answer when there is none).
struct Score {
    samples: usize,
    right: usize,
    per_code: BTreeMap<CauseCode, Counts>,
}

#[derive(Default)]
struct Counts {
    hits: usize,
    false_alarms: usize,
    missed: usize,
}

impl Counts {
    #[expect(clippy::cast_precision_loss, reason = "a few hundred samples")]
    fn precision(&self) -> f64 {
        let named = self.hits + self.false_alarms;
        if named == 0 { 1.0 } else { self.hits as f64 / named as f64 }
    }

    #[expect(clippy::cast_precision_loss, reason = "a few hundred samples")]
    fn recall(&self) -> f64 {
        let there = self.hits + self.missed;
        if there == 0 { 1.0 } else { self.hits as f64 / there as f64 }
    }
}

impl Score {
    fn of(half: &str) -> Self {
        let mut score = Self { samples: 0, right: 0, per_code: BTreeMap::new() };
        for sample in samples(half) {
            let causes = sample.causes();
            let (expected, found) = (sample.expected(), causes[0].code);
            score.samples += 1;
            score.right += usize::from(sample.judge(&causes).is_none());
            if expected == found {
                score.count(found, |counts| counts.hits += 1);
            } else {
                score.count(found, |counts| counts.false_alarms += 1);
                score.count(expected, |counts| counts.missed += 1);
            }
        }
        score
    }

    fn count(&mut self, code: CauseCode, count: impl Fn(&mut Counts)) {
        let unnamed =
            [CauseCode::ExitCode, CauseCode::Signal, CauseCode::PythonException, CauseCode::Unknown];
        if !unnamed.contains(&code) {
            count(self.per_code.entry(code).or_default());
        }
    }

    /// Precision and recall: all samples alike, then all causes alike.
    #[expect(clippy::cast_precision_loss, reason = "a few dozen causes")]
    fn figures(&self) -> [f64; 4] {
        let all = self.per_code.values().fold(Counts::default(), |sum, one| Counts {
            hits: sum.hits + one.hits,
            false_alarms: sum.false_alarms + one.false_alarms,
            missed: sum.missed + one.missed,
        });
        let codes = self.per_code.len() as f64;
        let mean = |of: fn(&Counts) -> f64| self.per_code.values().map(of).sum::<f64>() / codes;
        [all.precision(), all.recall(), mean(Counts::precision), mean(Counts::recall)]
    }

    #[expect(clippy::print_stdout, reason = "the figures are what a reader of the test wants")]
    fn print(&self, half: &str) {
        let [precision, recall, macro_precision, macro_recall] = self.figures();
        println!(
            "{half}: {} of {} samples right; {} named causes; precision {precision:.3}, recall {recall:.3}; \
             by cause: precision {macro_precision:.3}, recall {macro_recall:.3}",
            self.right,
            self.samples,
            self.per_code.len()
        );
    }
}

#[test]
fn every_written_sample_gives_its_cause() {
    let samples = samples(WRITTEN);
    let wrong: String = samples.iter().filter_map(|sample| sample.judge(&sample.causes())).collect();
    let score = Score::of(WRITTEN);
    score.print(WRITTEN);
    assert!(samples.len() >= 60 && wrong.is_empty(), "{wrong}");
}

/// What the matchers were not written for: a floor, not perfection. The figures are in `fixtures/stderr/README.md`.
#[test]
fn the_held_out_half_is_scored() {
    let score = Score::of(HELD_OUT);
    score.print(HELD_OUT);
    assert!(score.samples >= 40, "the corpus is there");
    for figure in score.figures() {
        assert!(figure >= HELD_OUT_FLOOR, "below the floor of {HELD_OUT_FLOOR}");
    }
}

/// Nobody chose which sample goes where: the bytes of its name do. (The first samples were there before the split.)
#[test]
fn the_halves_are_made_by_a_rule() {
    let mut names = BTreeSet::new();
    for half in [WRITTEN, HELD_OUT] {
        for Sample { name, from, .. } in samples(half) {
            let odd = name.bytes().map(u32::from).sum::<u32>() % 2 == 1;
            let place = if odd && from.is_some() { HELD_OUT } else { WRITTEN };
            assert_eq!(half, place, "{name}: an odd sum of its bytes is held out");
            assert!(names.insert(name.clone()), "{name} is there twice");
        }
    }
}

#[test]
fn every_cause_is_fit_to_be_shown() {
    for sample in samples(WRITTEN).into_iter().chain(samples(HELD_OUT)) {
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
    let sample = samples(WRITTEN).into_iter().find(|sample| sample.name == "ring-errno").unwrap();
    let causes = sample.causes();
    let lines: Vec<&str> = causes[0].evidence.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(lines[0], "[ring] Receiving from socket 7 failed with errno 54 … (×3)");
}

/// Of many threads the one that crashed is named, not the first that is printed.
#[test]
fn the_thread_that_crashed_is_named() {
    let sample = samples(WRITTEN).into_iter().find(|sample| sample.name == "faulthandler-threads").unwrap();
    let cause = &sample.causes()[0];
    assert!(cause.summary.ends_with("in string_at (__init__.py line 519)"), "{}", cause.summary);
    let lines: Vec<&str> = cause.evidence.iter().map(|line| line.text.trim()).collect();
    assert_eq!(lines[0], "Fatal Python error: Segmentation fault");
    assert!(lines[1].starts_with("Current thread"), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("in decode")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("parentpoller")), "{lines:?}");
}
