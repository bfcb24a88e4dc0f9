//! What the daemon says of its command line, in an agent's words: the tools.

/// A text with the tools in place of the commands that do the same. What no tool does stays as it is.
pub fn in_tools(text: &str) -> String {
    let spans: Vec<&str> = text.split('`').collect();
    // Between two ticks stands a command, a flag or a field.
    let tick = |(index, span): (usize, &&str)| {
        let command = span.strip_prefix("outlive ").filter(|_| index % 2 == 1);
        command.and_then(tool).unwrap_or(span).to_owned()
    };
    if spans.len().is_multiple_of(2) {
        return text.to_owned();
    }
    spans.iter().enumerate().map(tick).collect::<Vec<_>>().join("`")
}

fn tool(command: &str) -> Option<&'static str> {
    let mut words = command.split(' ');
    Some(match words.next()? {
        "new" => "new",
        "open" => "open",
        "trust" => "open` with `trust",
        "exec" => "run",
        "logs" => "outputs",
        "interrupt" => "interrupt",
        "restart" => "restart",
        "save" | "save-as" => "save",
        "close" | "stop" => "close",
        "ps" | "sessions" if words.next() == Some("-a") => "sessions` with `all",
        "ps" | "sessions" => "sessions",
        "explain" => "explain",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_become_tools_and_all_else_stays() {
        assert_eq!(in_tools("start it again with `outlive restart`"), "start it again with `restart`");
        assert_eq!(in_tools("`outlive ps -a` lists them"), "`sessions` with `all` lists them");
        assert_eq!(
            in_tools("`outlive trust 0192`, then `outlive restart 0192`"),
            "`open` with `trust`, then `restart`"
        );
        for other in ["`outlive doctor` says why", "say `overwrite`", "an `odd tick", "outlive restart"] {
            assert_eq!(in_tools(other), other);
        }
    }
}
