//! Reads Python's last words: the last traceback of standard error, with its chain.
//!
//! The format is that of CPython's `traceback` module: a header line, frames indented by two, the exception's line at
//! the margin, its further lines, and between chained exceptions one of two fixed sentences. What other programs put
//! before each line (`[rank0]: `, the bars of an exception group) is taken as a margin and removed.

use std::ops::Range;

use super::evidence::{LastWords, ProgramException};
use super::lines;
use crate::limits::LAST_WORDS_CAUSES_MAX;

const HEADER: &str = "Traceback (most recent call last):";
const GROUP: &str = "+ Exception Group ";
const CAUSED: &str = "The above exception was the direct cause of the following exception:";
const DURING: &str = "During handling of the above exception, another exception occurred:";

/// How many frames of an exception are kept, from the innermost outwards.
const FRAMES_MAX: usize = 3;
/// How many lines of an exception's message are kept.
const MESSAGE_LINES_MAX: usize = 4;
/// How many lines may follow last words: what a launcher or an exit hook adds.
const LINES_AFTER_MAX: usize = 3;

/// A chain of exceptions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Traceback {
    /// Oldest first; the last is the one that nobody caught. Never empty.
    pub(super) links: Vec<Link>,
    /// Where it came to light.
    pub(super) place: Place,
    /// Whether nothing of weight was written after it.
    pub(super) last_words: bool,
    /// The index of the line behind it; 0 when it was told and not read.
    pub(super) end: usize,
}

/// One exception of a chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Link {
    /// Its type with its module, for instance `json.decoder.JSONDecodeError`.
    pub(super) exception_type: String,
    /// The first line of its message.
    pub(super) message: String,
    /// Its innermost frames.
    pub(super) frames: Vec<String>,
    /// Its own lines, type and message.
    pub(super) words: Vec<String>,
    /// How it led to the next one.
    pub(super) joint: Joint,
}

/// How an exception led to the next of its chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Joint {
    /// `raise … from …`: it is the reason.
    Cause,
    /// Another one was raised while it was handled: it may be the reason.
    Context,
    /// It is the last.
    End,
}

/// Where an exception came to light.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// In the main thread, as far as can be seen, or told by the program on a channel.
    Main,
    /// In a log line: handled there, unless it was logged on the way out.
    Logged,
    /// In another thread, task, callback or child process: the program may have lived on.
    Aside,
    /// In a finalizer or a log call: Python itself went on.
    Ignored,
}

impl Link {
    /// The type without its module.
    pub(super) fn short_type(&self) -> &str {
        self.exception_type.rsplit('.').next().unwrap_or(&self.exception_type)
    }

    /// Frames, then its own lines.
    pub(super) fn lines(&self) -> impl Iterator<Item = &str> {
        self.frames.iter().chain(&self.words).map(String::as_str)
    }

    /// Type and message, as Python writes them.
    pub(super) fn headline(&self) -> String {
        if self.message.is_empty() {
            self.exception_type.clone()
        } else {
            format!("{}: {}", self.exception_type, self.message)
        }
    }
}

impl Traceback {
    /// The exception that nobody caught.
    pub(super) fn uncaught(&self) -> &Link {
        self.links.last().expect("a traceback has at least one link")
    }

    /// The chain from its end towards the root, each with whether everything after it is its consequence for
    /// certain.
    pub(super) fn towards_root(&self) -> impl Iterator<Item = (&Link, bool)> {
        let mut sure = true;
        self.links.iter().rev().map(move |link| {
            sure &= link.joint != Joint::Context;
            (link, sure)
        })
    }

    /// What a program told of its exception on a channel.
    pub(super) fn told(exception: &ProgramException) -> Self {
        let ProgramException { exception_type, message, traceback } = exception;
        let (mut links, told) = told_link(exception_type, message, traceback);
        links.push(told);
        Self { links, place: Place::Main, last_words: true, end: 0 }
    }

    /// What a runner said of its own end, with what it came from.
    pub(super) fn last_words(words: &LastWords) -> Self {
        let causes = words.causes.iter().take(LAST_WORDS_CAUSES_MAX).rev();
        let links = causes.map(|cause| {
            let (_, link) = told_link(&cause.exception_type, &cause.message, &cause.traceback);
            Link { joint: Joint::Cause, ..link }
        });
        let mut links: Vec<Link> = links.collect();
        let (before, told) = told_link(&words.exception_type, &words.message, &words.traceback);
        if links.is_empty() {
            links = before; // a runner may print the chain in its traceback instead of telling it
        }
        links.push(told);
        Self { links, place: Place::Main, last_words: true, end: 0 }
    }

    /// Whether the program may have died of it, as far as its place tells.
    pub(super) fn is_final(&self) -> bool {
        self.last_words && may_be_final(self.place)
    }

    /// The last chain in these lines: of the main thread if there is one, else of any other place.
    pub(super) fn last(text: &[String]) -> Option<Self> {
        let chains = chains(text);
        let main = chains.iter().rev().find(|chain| may_be_final(chain.place));
        let chain = main.or_else(|| chains.iter().rev().find(|chain| chain.place == Place::Aside))?;
        let noise = chains
            .iter()
            .find(|later| later.span.start >= chain.span.end && later.place == Place::Ignored)
            .map_or(text.len(), |later| later.span.start.saturating_sub(1));
        let after = text[chain.span.end..noise.max(chain.span.end)]
            .iter()
            .filter(|line| !line.trim().is_empty() && !says_goodbye(line));
        Some(Self {
            links: chain.links.clone(),
            place: chain.place,
            last_words: after.count() <= LINES_AFTER_MAX,
            end: chain.span.end,
        })
    }
}

/// An exception whose parts were told, and the links before it that its traceback shows.
fn told_link(exception_type: &str, message: &str, traceback: &str) -> (Vec<Link>, Link) {
    let text = lines::clean(traceback);
    let mut links = Traceback::last(&text).map(|parsed| parsed.links).unwrap_or_default();
    let frames = match links.pop() {
        Some(link) => link.frames,
        None => {
            let shown: Vec<String> = text.into_iter().filter(|line| !line.trim().is_empty()).collect();
            shown[shown.len().saturating_sub(2 * FRAMES_MAX)..].to_vec()
        }
    };
    let mut message = lines::clean(message).into_iter();
    let mut told = Link {
        exception_type: lines::clean(exception_type).into_iter().next().unwrap_or_default(),
        message: message.next().unwrap_or_default(),
        frames,
        words: Vec::new(),
        joint: Joint::End,
    };
    told.words.push(told.headline());
    told.words.extend(message.take(MESSAGE_LINES_MAX - 1));
    told.frames.retain(|line| !told.words.contains(line));
    (links, told)
}

const fn may_be_final(place: Place) -> bool {
    match place {
        Place::Main | Place::Logged => true,
        Place::Aside | Place::Ignored => false,
    }
}

/// Whether a log line only tells of the end: a server says a lot on its way out.
fn says_goodbye(line: &str) -> bool {
    const WORDS: [&str; 8] =
        ["exiting", "exited", "shutting down", "shutdown", "stopping", "stopped", "terminat", "failed to "];
    let lower = line.to_lowercase();
    is_logged(line) && WORDS.iter().any(|word| lower.contains(word))
}

/// A chain and the lines it takes.
struct Chain {
    links: Vec<Link>,
    place: Place,
    span: Range<usize>,
}

fn chains(text: &[String]) -> Vec<Chain> {
    let mut chains: Vec<Chain> = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let Some((link, end)) = parse_link(text, at) else {
            at += 1;
            continue;
        };
        let joined = chains.last_mut().and_then(|chain| Some((joint(&text[chain.span.end..at])?, chain)));
        match joined {
            Some((joint, chain)) => {
                chain.links.last_mut().expect("a chain has at least one link").joint = joint;
                chain.links.push(link);
                chain.span.end = end;
            }
            None => {
                chains.push(Chain { links: vec![link], place: place(&text[..at], &text[at]), span: at..end })
            }
        }
        at = end;
    }
    chains
}

/// The sentence between two exceptions of a chain.
fn joint(between: &[String]) -> Option<Joint> {
    between.iter().find_map(|line| {
        if line.ends_with(CAUSED) {
            Some(Joint::Cause)
        } else if line.ends_with(DURING) {
            Some(Joint::Context)
        } else {
            None
        }
    })
}

fn place(before: &[String], header: &str) -> Place {
    const ASIDE: [&str; 8] = [
        "Exception in thread ",
        "Exception in callback ",
        "Task exception was never retrieved",
        "Future exception was never retrieved",
        "Unhandled exception in event loop",
        "Process Process-",
        "Process ForkProcess-",
        "Process SpawnProcess-",
    ];
    if is_logged(header) {
        return Place::Logged;
    }
    for (nth, line) in before.iter().rev().filter(|line| !line.trim().is_empty()).take(2).enumerate() {
        let line = line.trim_start();
        if line.contains("Exception ignored in") || line.contains("--- Logging error ---") {
            return Place::Ignored;
        }
        if ASIDE.iter().any(|start| line.contains(start)) {
            return Place::Aside;
        }
        let error = ["ERROR", "CRITICAL", "FATAL", "[E "].iter().any(|level| line.contains(level));
        if nth == 0 && error && is_logged(line) {
            return Place::Logged;
        }
    }
    Place::Main
}

/// Whether a line was written by a logger: it begins with a level, a date or a bracketed prefix that holds one.
pub(super) fn is_logged(line: &str) -> bool {
    const LEVELS: [&str; 7] = ["DEBUG", "INFO", "WARNING", "WARN", "ERROR", "CRITICAL", "FATAL"];
    let line = line.trim_start();
    let start = line.trim_start_matches('[');
    let level = LEVELS.iter().any(|level| {
        start.strip_prefix(level).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
    });
    let digits =
        |from: usize, to: usize| start.get(from..to).is_some_and(|s| s.bytes().all(|b| b.is_ascii_digit()));
    let dated = digits(0, 4) && start.get(4..5) == Some("-") && digits(5, 7);
    let jupyter = line.starts_with('[') && start.get(1..2) == Some(" ") && digits(2, 6);
    level || dated || jupyter
}

/// Parses the exception whose header stands at `at`; gives it with the line after it.
fn parse_link(text: &[String], at: usize) -> Option<(Link, usize)> {
    let Some(head) = text[at].strip_suffix(HEADER) else { return parse_syntax_error(text, at) };
    let margin = margin(head, text.get(at + 1)?);
    let body = |i: usize| text.get(i).and_then(|line| without(line, &margin));

    let mut next = at + 1;
    let mut frames: Vec<Range<usize>> = Vec::new();
    while let Some(line) = body(next).filter(|line| line.starts_with("  ")) {
        if line.starts_with("  File \"") {
            frames.push(next..next + 1);
        } else if let Some(frame) = frames.last_mut() {
            frame.end = next + 1;
        }
        next += 1;
    }
    let (exception_type, message) = exception_line(body(next)?)?;
    let own_end = message_end(next + 1, &body);

    let from = frames.len().saturating_sub(FRAMES_MAX);
    let take = |lines: &mut dyn Iterator<Item = usize>| -> Vec<String> {
        lines.filter_map(body).filter(|line| !is_marker(line)).map(str::to_owned).collect()
    };
    let frames = take(&mut frames[from..].iter().cloned().flatten());
    let words = take(&mut (next..own_end.min(next + MESSAGE_LINES_MAX)));
    Some((Link { exception_type, message, frames, words, joint: Joint::End }, own_end))
}

/// A syntax error of the main script has no header: `  File …`, the line, a caret, the exception.
fn parse_syntax_error(text: &[String], at: usize) -> Option<(Link, usize)> {
    if !text[at].starts_with("  File \"") {
        return None;
    }
    let end = (at + 1..text.len().min(at + 5)).find(|&i| !text[i].starts_with(' '))?;
    let (exception_type, message) = exception_line(&text[end])?;
    if !matches!(exception_type.as_str(), "SyntaxError" | "IndentationError" | "TabError") {
        return None;
    }
    let frames = text[at..end].iter().filter(|line| !is_marker(line)).cloned().collect();
    Some((
        Link { exception_type, message, frames, words: vec![text[end].clone()], joint: Joint::End },
        end + 1,
    ))
}

/// What stands before each line of a traceback, judged by what stands before its header and the line after it.
fn margin(head: &str, next: &str) -> String {
    let margin = match head.strip_suffix(GROUP) {
        Some(indent) => format!("{indent}| "),
        None => head.to_owned(),
    };
    if next.starts_with(margin.trim_end()) { margin } else { String::new() }
}

fn without<'a>(line: &'a str, margin: &str) -> Option<&'a str> {
    line.strip_prefix(margin).or_else(|| (line.trim_end() == margin.trim_end()).then_some(""))
}

/// `module.Type: message` or `module.Type`.
fn exception_line(line: &str) -> Option<(String, String)> {
    let (name, message) = line.split_once(':').unwrap_or((line, ""));
    let is_name = name.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '<' | '>'));
    is_name.then(|| (name.to_owned(), message.trim().to_owned()))
}

/// Where the further lines of an exception's message end: at a blank line, a log line or another traceback.
fn message_end<'a>(from: usize, body: &impl Fn(usize) -> Option<&'a str>) -> usize {
    let belongs = |line: &&str| !line.trim().is_empty() && !line.ends_with(HEADER) && !is_logged(line);
    (from..).find(|&i| body(i).filter(belongs).is_none()).unwrap_or(from)
}

/// The lines with carets under a source line.
fn is_marker(line: &str) -> bool {
    !line.trim().is_empty() && line.trim().chars().all(|c| matches!(c, '^' | '~' | ' '))
}
