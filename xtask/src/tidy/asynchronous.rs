//! What clippy does not see in async code: guards of `tokio::sync` held over an await, and calls that block a thread.
//!
//! Both are heuristics over text. A line that is right in spite of one says why in a comment on it or before it:
//! `// held: …` or `// blocks: …`.

use std::ops::Range;

use super::Finding;
use super::source::{Source, closing};

/// How a guard of `tokio::sync::{Mutex, RwLock}` is got.
const GUARDS: [&str; 3] = [".lock().await", ".read().await", ".write().await"];
/// Calls that wait for a disk or a timer.
const BLOCKING: [&str; 5] =
    ["std::fs::", "File::open(", "File::create(", "thread::sleep(", "std::thread::sleep("];
/// Where blocking is right: `blocking(` is what our own wrappers of `spawn_blocking` are called.
const OFFLOADED: [&str; 3] = ["blocking(", "block_in_place(", "thread::spawn("];
/// A closure with a name runs where it is called.
const NAMED_CLOSURE: &str = "= move ||";

pub fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for body in async_bodies(&source.code) {
        if source.is_test(body.start) {
            continue;
        }
        findings.extend(held_guards(source, &body));
        findings.extend(blocking_calls(source, &body));
    }
    // A block inside an async function is looked at twice.
    findings.sort();
    findings.dedup();
    findings
}

/// The braces of each `async fn` and each async block.
fn async_bodies(code: &str) -> Vec<Range<usize>> {
    let mut bodies = Vec::new();
    for (at, _) in code.match_indices("async ") {
        let rest = &code[at + "async ".len()..];
        let open = if rest.starts_with("fn ") {
            // A declaration in a trait ends in a semicolon; a length in an array type is not one.
            rest.find(['{', ';']).filter(|offset| rest.as_bytes()[*offset] == b'{')
        } else if rest.starts_with('{') || rest.starts_with("move {") {
            rest.find('{')
        } else {
            None
        };
        if let Some(offset) = open {
            let open = at + "async ".len() + offset;
            bodies.push(open..closing(code, open));
        }
    }
    bodies
}

fn held_guards(source: &Source, body: &Range<usize>) -> Vec<Finding> {
    let code = &source.code[body.clone()];
    let mut findings = Vec::new();
    for pattern in GUARDS {
        for (at, _) in code.match_indices(pattern) {
            if code[..at].ends_with("self") {
                // A method of our own that happens to be called so.
                continue;
            }
            let start = code[..at].rfind([';', '{', '}']).map_or(0, |before| before + 1);
            let after = at + pattern.len();
            let statement_end = code[after..].find(';').map_or(code.len(), |offset| after + offset);
            let rest_of_statement = &code[after..statement_end];
            let name = bound_name(&code[start..at]);
            let held = match name {
                // `let guard = x.lock().await;` lives to the end of its block or to its drop.
                Some(name) if rest_of_statement.trim().is_empty() => {
                    let block_end = block_end(code, statement_end);
                    let dropped = code[statement_end..block_end].find(&format!("drop({name})"));
                    let end = dropped.map_or(block_end, |offset| statement_end + offset);
                    code[statement_end..end].contains(".await")
                }
                // A temporary lives to the end of its statement.
                _ => rest_of_statement.contains(".await"),
            };
            let line = source.line(body.start + at);
            if held && !excused(source, line, "held:") {
                findings.push(Finding::new(
                    &source.path,
                    line,
                    "a guard is held over an await: give the state to one task, or end the guard before",
                ));
            }
        }
    }
    findings
}

/// The variable of `let [mut] NAME = …`.
fn bound_name(statement: &str) -> Option<&str> {
    let rest = statement.trim_start().strip_prefix("let ")?.trim_start();
    let rest = rest.strip_prefix("mut ").unwrap_or(rest);
    let name = rest.split([' ', ':', '=']).next()?;
    (!name.is_empty()).then_some(name)
}

/// Where the block that `at` stands in ends.
fn block_end(code: &str, at: usize) -> usize {
    let mut depth = 0_i64;
    for (offset, byte) in code.as_bytes()[at..].iter().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 0 => return at + offset,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

fn blocking_calls(source: &Source, body: &Range<usize>) -> Vec<Finding> {
    let code = &source.code[body.clone()];
    let offloaded: Vec<Range<usize>> = OFFLOADED
        .iter()
        .flat_map(|call| code.match_indices(call).map(|(at, _)| at..closing(code, at + call.len() - 1)))
        .chain(code.match_indices(NAMED_CLOSURE).filter_map(|(at, _)| {
            let open = at + code[at..].find('{')?;
            Some(at..closing(code, open))
        }))
        .collect();
    let imports_fs = source.code.contains("use std::fs;") || source.code.contains("use std::fs::{self");
    let imports_file = source.code.contains("use std::fs::File") || source.code.contains("use std::fs::{");
    let mut findings = Vec::new();
    let mut look = |pattern: &str| {
        for (at, _) in code.match_indices(pattern) {
            let begins_path =
                !code[..at].ends_with([':', '_']) && !code[..at].ends_with(char::is_alphanumeric);
            let line = source.line(body.start + at);
            if begins_path
                && !offloaded.iter().any(|range| range.contains(&at))
                && !excused(source, line, "blocks:")
            {
                findings.push(Finding::new(
                    &source.path,
                    line,
                    format!("`{pattern}` blocks a thread of the runtime: use tokio::fs, or spawn_blocking"),
                ));
            }
        }
    };
    for pattern in BLOCKING {
        if pattern.starts_with("File::") && !imports_file {
            continue;
        }
        look(pattern);
    }
    if imports_fs {
        look("fs::");
    }
    findings
}

/// Whether the line or the one before it gives a reason.
fn excused(source: &Source, line: usize, word: &str) -> bool {
    let first = line.saturating_sub(2);
    source
        .text
        .lines()
        .skip(first)
        .take(line - first)
        .any(|text| text.split_once("//").is_some_and(|(_, comment)| comment.trim_start().starts_with(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        check(&Source::new("crates/x/src/a.rs", text)).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_guard_held_over_an_await_is_found() {
        assert_eq!(lines("async fn a() {\n let mut g = m.lock().await;\n b().await;\n}"), [2]);
        assert_eq!(lines("async fn a() {\n m.lock().await.send(1).await;\n}"), [2]);
        assert_eq!(
            lines("fn a() { spawn(async move {\n let g = m.read().await;\n if x { b().await; }\n}) }"),
            [2]
        );
    }

    #[test]
    fn a_guard_that_ends_before_the_await_passes() {
        assert!(lines("async fn a() {\n let g = m.lock().await;\n drop(g);\n b().await;\n}").is_empty());
        assert!(lines("async fn a() {\n { let g = m.lock().await; g.x(); }\n b().await;\n}").is_empty());
        assert!(lines("async fn a() {\n let n = m.lock().await.len();\n b().await;\n}").is_empty());
        assert!(
            lines("async fn a() {\n // held: one writer by design\n let g = m.lock().await;\n b().await;\n}")
                .is_empty()
        );
    }

    #[test]
    fn blocking_calls_in_async_code_are_found() {
        assert_eq!(lines("async fn a() {\n std::fs::read(p);\n}"), [2]);
        assert_eq!(lines("use std::fs;\nasync fn a() {\n fs::read(p);\n}"), [3]);
        assert_eq!(lines("async fn a() {\n std::thread::sleep(d);\n}"), [2]);
        assert_eq!(lines("use std::thread;\nasync fn a() {\n thread::sleep(d);\n}"), [3]);
    }

    #[test]
    fn blocking_calls_elsewhere_pass() {
        assert!(lines("fn a() {\n std::fs::read(p);\n}").is_empty());
        assert!(lines("async fn a() {\n tokio::fs::read(p).await;\n}").is_empty());
        assert!(lines("async fn a() {\n spawn_blocking(move || std::fs::read(p)).await;\n}").is_empty());
        assert!(
            lines("async fn a() {\n let l = move || { std::fs::read(p) };\n blocking(l).await;\n}")
                .is_empty()
        );
        assert!(lines("async fn a() {\n // blocks: /proc is memory\n std::fs::read(p);\n}").is_empty());
        assert!(lines("#[cfg(test)]\nmod tests {\n async fn a() { std::fs::read(p); }\n}").is_empty());
    }
}
