//! A change of a session's node in words: who noticed it, when, why, how long each step took, what was resumed.

use outlive_protocol::http::TakeoverView;

use crate::table;
use crate::terminal::{self, Ink, Paint};

/// How the loss of a node was noticed, after its name.
fn why(code: &str) -> &str {
    match code {
        "silent" => "was silent, and did not answer when it was asked",
        "disconnected" => "lost its connection to NATS, and did not answer when it was asked",
        "left" => "left",
        "drained" => "was drained",
        "reborn" => "was started again, and did not take it up",
        other => other,
    }
}

/// `0.36 s` from one moment to a later one; none when the clock went back between them.
fn took(from: u64, to: u64) -> String {
    let micros = to.saturating_sub(from);
    if micros < 1_000_000 { format!("{} ms", micros.div_ceil(1_000)) } else { terminal::span(micros) }
}

/// How long the session was without a node, from when the old one was heard last to when the new one went on.
pub fn gap(takeover: &TakeoverView) -> String {
    let from = takeover.last_heard.unwrap_or(takeover.noticed_at);
    took(from.0, takeover.resumed_at.0)
}

/// Several lines, each ended by a line feed.
pub fn text(takeover: &TakeoverView, now: u64, paint: Paint) -> String {
    let [from, to] = [&takeover.from_name, &takeover.to_name].map(|name| terminal::one_line(name));
    let (noticed, claimed, resumed) = (takeover.noticed_at.0, takeover.claimed_at.0, takeover.resumed_at.0);
    let ago = table::age(now.saturating_sub(resumed));
    let mut lines =
        vec![format!("{} {ago} ago", paint.text(Ink::Bold, format!("moved from {from} to {to}")))];
    let mut row = |name: &str, text: String| {
        lines.push(format!("  {} {text}", paint.text(Ink::Dim, format!("{name:8}"))))
    };
    row("why", format!("{from} {}", why(&terminal::one_line(&takeover.why))));
    let heard = takeover.last_heard.map(|heard| took(heard.0, noticed));
    row(
        "noticed",
        match heard {
            Some(heard) => format!("by {to}, {heard} after it was heard last"),
            None => format!("by {to}"),
        },
    );
    row("claimed", format!("{} after that (epoch {})", took(noticed, claimed), takeover.epoch.0));
    row("resumed", format!("{} after that, {} in all", took(claimed, resumed), gap(takeover)));
    for line in &takeover.resumed {
        row("", terminal::one_line(line));
    }
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
pub mod tests {
    use serde_json::json;

    use super::*;

    /// Node a was lost, and b has its session.
    pub fn lost() -> TakeoverView {
        let id = uuid::Uuid::from_u128(0x1a2b_3c4d << 96);
        serde_json::from_value(json!({
            "session": id, "title": "train.ipynb", "from": id, "from_name": "a", "to": id, "to_name": "b", "epoch": 3,
            "why": "silent", "last_heard": 10_000_000, "noticed_at": 10_360_000, "claimed_at": 10_372_001,
            "resumed_at": 11_500_000, "resumed": ["cell 3 ended as node-lost", "kernel started again"],
        }))
        .expect("a takeover")
    }

    #[test]
    fn each_step_has_its_time() {
        let expected = "\
moved from a to b 2m ago
  why      a was silent, and did not answer when it was asked
  noticed  by b, 360 ms after it was heard last
  claimed  13 ms after that (epoch 3)
  resumed  1.1 s after that, 1.5 s in all
           cell 3 ended as node-lost
           kernel started again
";
        assert_eq!(text(&lost(), 131_500_000, Paint::OFF), expected);
    }

    #[test]
    fn what_another_version_says_is_shown_as_it_is() {
        let mut other = lost();
        (other.why, other.last_heard, other.from_name) =
            ("eclipsed\n".to_owned(), None, "\u{1b}[2J".to_owned());
        let text = text(&other, 0, Paint::OFF);
        assert!(text.contains("eclipsed") && !text.contains('\u{1b}'), "{text}");
        assert!(text.contains("noticed  by b\n"), "{text}");
    }
}
