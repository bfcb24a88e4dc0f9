//! Text as a terminal would have left it, for readers who are none.

/// Without escape sequences (ECMA-48: CSI, OSC and two-byte ones): colours and cursor movements say nothing here.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('\x1b') {
        plain.push_str(&rest[..start]);
        rest = behind_escape(&rest[start + 1..]);
    }
    plain.push_str(rest);
    plain
}

fn behind_escape(text: &str) -> &str {
    let mut chars = text.chars();
    match chars.next() {
        Some('[') => {
            let after = chars.as_str();
            after.find(|c| ('@'..='~').contains(&c)).map_or("", |end| &after[end + 1..])
        }
        Some(']') => {
            let after = chars.as_str();
            let end = after.find(['\x07', '\x1b']).unwrap_or(after.len());
            after[end..].strip_prefix('\x07').or_else(|| after[end..].strip_prefix("\x1b\\")).unwrap_or("")
        }
        _ => chars.as_str(),
    }
}

/// Each line as its last `\r` left it: of a progress bar the last state. A `\r` at the end waits for what comes.
pub fn fold_lines(text: &mut String, from: usize) {
    let start = text[..from].rfind('\n').map_or(0, |end| end + 1);
    if !text[start..].contains('\r') {
        return;
    }
    let tail = text.split_off(start);
    for line in tail.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        let shown = line.trim_end_matches('\r');
        text.push_str(shown.rsplit('\r').next().unwrap_or(shown));
        text.push_str(if end.is_empty() && shown.len() < line.len() { "\r" } else { end });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_go() {
        assert_eq!(
            plain("\x1b[0;31mred\x1b[0m and \x1b]8;;http://x\x07link\x1b]8;;\x1b\\ é"),
            "red and link é"
        );
        assert_eq!(plain("cut \x1b["), "cut ");
        assert_eq!(plain("none"), "none");
    }

    #[test]
    fn a_progress_bar_is_its_last_state_however_it_is_cut() {
        let whole = "start\n 10%\r 50%\r100%\r\ndone\r\nnext\r";
        for cut in 0..=whole.len() {
            let mut text = String::new();
            for piece in [&whole[..cut], &whole[cut..]] {
                let from = text.len();
                text.push_str(piece);
                fold_lines(&mut text, from);
            }
            assert_eq!(text, "start\n100%\ndone\nnext\r", "cut at {cut}");
        }
    }
}
