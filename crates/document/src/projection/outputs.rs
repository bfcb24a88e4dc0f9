//! The outputs of one run, bounded in number and size.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use outlive_core::id::RunId;
use outlive_core::limits::{NOTEBOOK_OUTPUTS_MAX, NOTEBOOK_RICH_BYTES_MAX, NOTEBOOK_STREAM_BYTES_MAX};

use super::Blobs;
use super::output::{self, Failure, Output, Rich};
use super::text::{self, CutText, StreamName};
use crate::json::{Style, format};

/// How much of the first text is kept, in bytes.
const HEAD_BYTES_MAX: usize = NOTEBOOK_STREAM_BYTES_MAX / 2;
/// How much of the last text is kept at least, in bytes. It is cut back to this when it is twice as long.
const TAIL_BYTES_MAX: usize = NOTEBOOK_STREAM_BYTES_MAX / 4;
/// Errors are taken beyond the number of outputs, up to this many.
const FAILURES_MAX: usize = 16;

static LIVES: AtomicU64 = AtomicU64::new(0);

/// Invariant: an index is in `tails` iff that output's tail is not empty; `tail_bytes` is the sum of the tails
/// (test `text_of_any_size_is_bounded_and_says_so`).
#[derive(Clone, Debug)]
pub(super) struct Outputs {
    pub run: RunId,
    /// Tells it from what the cell showed before: no two have the same.
    pub life: u64,
    items: Vec<Output>,
    clears_at_next: bool,
    /// Of each stream: the begin of a character whose rest has not come.
    carry: [Vec<u8>; 2],
    /// Of each stream: its last output.
    last: [Option<usize>; 2],
    head_left: usize,
    tail_bytes: usize,
    tails: VecDeque<usize>,
    rich_bytes: usize,
    left_out: LeftOut,
}

/// Rich outputs that were one too many.
#[derive(Clone, Debug, Default)]
struct LeftOut {
    count: u64,
    bytes: u64,
}

impl Outputs {
    pub fn new(run: RunId) -> Self {
        Self {
            run,
            life: LIVES.fetch_add(1, Ordering::Relaxed),
            items: Vec::new(),
            clears_at_next: false,
            carry: Default::default(),
            last: [None; 2],
            head_left: HEAD_BYTES_MAX,
            tail_bytes: 0,
            tails: VecDeque::new(),
            rich_bytes: 0,
            left_out: LeftOut::default(),
        }
    }

    pub fn clear_at_next(&mut self) {
        self.clears_at_next = true;
    }

    pub fn must_clear(&self) -> bool {
        self.clears_at_next
    }

    pub fn items(&self) -> &[Output] {
        &self.items
    }

    pub fn display_ids(&self) -> impl Iterator<Item = &str> {
        self.items.iter().filter_map(Output::display_id)
    }

    pub fn push_text(&mut self, name: StreamName, bytes: &[u8]) {
        let carry = std::mem::take(&mut self.carry[name as usize]);
        let joined;
        let bytes = if carry.is_empty() {
            bytes
        } else {
            joined = [&carry, bytes].concat();
            &joined
        };
        let (text, rest) = text::decode(bytes);
        self.carry[name as usize] = rest.to_vec();
        if !text.is_empty() {
            self.push_str(name, &text);
        }
    }

    /// No more text will come: what is left of a character is shown as wrong.
    pub fn end_text(&mut self) {
        for name in [StreamName::Stdout, StreamName::Stderr] {
            let rest = std::mem::take(&mut self.carry[name as usize]);
            if !rest.is_empty() {
                self.push_str(name, &String::from_utf8_lossy(&rest));
            }
        }
    }

    /// A remark of Outlive's own.
    pub fn push_notice(&mut self, what: &str) {
        let text = text::notice(what, self.run);
        self.push_str(StreamName::Stderr, &text);
    }

    fn push_str(&mut self, name: StreamName, text: &str) {
        let index = self.stream(name);
        let Output::Stream { text: kept, .. } = &mut self.items[index] else {
            unreachable!("stream gives the index of a stream")
        };
        let mut rest = text;
        if self.head_left > 0 {
            let taken = rest.floor_char_boundary(self.head_left);
            kept.head.push_str(&rest[..taken]);
            // A character that does not fit ends the head for good.
            self.head_left = if taken == rest.len() { self.head_left - taken } else { 0 };
            rest = &rest[taken..];
        }
        if rest.is_empty() {
            return;
        }
        if kept.tail.is_empty() {
            self.tails.push_back(index);
        }
        kept.tail.push_str(rest);
        self.tail_bytes += rest.len();
        if self.tail_bytes > 2 * TAIL_BYTES_MAX {
            self.cut_tails();
        }
    }

    /// The output that takes the next text of a stream: the last one, or a new one; when there are too many outputs
    /// the last one of this stream, wherever it is.
    fn stream(&mut self, name: StreamName) -> usize {
        if let Some(index) = self.last[name as usize]
            && (index + 1 == self.items.len() || self.items.len() >= NOTEBOOK_OUTPUTS_MAX)
        {
            return index;
        }
        self.items.push(Output::Stream { name, text: CutText::default() });
        self.last[name as usize] = Some(self.items.len() - 1);
        self.items.len() - 1
    }

    fn cut_tails(&mut self) {
        while self.tail_bytes > TAIL_BYTES_MAX {
            let Some(&index) = self.tails.front() else { return };
            let Output::Stream { text, .. } = &mut self.items[index] else {
                unreachable!("only streams have tails")
            };
            let excess = text.tail.ceil_char_boundary(self.tail_bytes - TAIL_BYTES_MAX);
            let cut = match text.tail[excess..].find('\n') {
                Some(line) if excess < text.tail.len() => excess + line + 1,
                _ => excess,
            };
            text.left_out += cut as u64;
            self.tail_bytes -= cut;
            text.tail.drain(..cut);
            if text.tail.is_empty() {
                text.tail = String::new();
                self.tails.pop_front();
            }
        }
    }

    /// Adds a rich output; gives its index, or `None` when it is one too many.
    pub fn push_rich(&mut self, output: Output) -> Option<usize> {
        let bytes = output.memory();
        if self.items.len() >= NOTEBOOK_OUTPUTS_MAX || self.rich_bytes + bytes > NOTEBOOK_RICH_BYTES_MAX {
            self.leave_out(&output);
            return None;
        }
        self.rich_bytes += bytes;
        self.items.push(output);
        Some(self.items.len() - 1)
    }

    fn leave_out(&mut self, output: &Output) {
        self.left_out.count += 1;
        self.left_out.bytes += output.size();
    }

    /// Replaces the content of a display.
    pub fn update(&mut self, index: usize, rich: &Rich) {
        let Some(Output::Rich { content, revision, .. }) = self.items.get_mut(index) else { return };
        let others = self.rich_bytes - content.memory();
        if others + rich.memory() > NOTEBOOK_RICH_BYTES_MAX {
            self.left_out.count += 1;
            self.left_out.bytes += rich.size();
            return;
        }
        self.rich_bytes = others + rich.memory();
        *content = rich.clone();
        *revision += 1;
    }

    pub fn push_failure(&mut self, failure: Failure) {
        if self.items.len() < NOTEBOOK_OUTPUTS_MAX + FAILURES_MAX {
            self.items.push(Output::Failure(failure));
        }
    }

    /// Writes the list of outputs, whose bracket stands at the level of a cell's members.
    pub fn write(&self, out: &mut String, style: &Style, blobs: &dyn Blobs) {
        let level = crate::cell::MEMBER_LEVEL;
        let remark = (self.left_out.count > 0).then(|| {
            let what = format!(
                "{} outputs of {} in all are left out of the notebook file here: a cell keeps {} outputs of {}",
                self.left_out.count,
                text::size(self.left_out.bytes),
                NOTEBOOK_OUTPUTS_MAX,
                text::size(NOTEBOOK_RICH_BYTES_MAX as u64),
            );
            let head = text::notice(&what, self.run);
            Output::Stream { name: StreamName::Stderr, text: CutText { head, ..CutText::default() } }
        });
        let shown: Vec<&Output> = self.items.iter().chain(&remark).collect();
        format::write_list(out, ('[', ']'), &shown, style, level, |out, item| {
            output::write(out, item, self.run, style, level + 1, blobs);
        });
    }
}
