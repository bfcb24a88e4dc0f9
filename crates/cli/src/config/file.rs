//! The configuration file: a flat TOML table, with one table in it for the cluster. Whatever is wrong in it is said with
//! its line.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::keys;
use super::kind::{BETWEEN, Kind};

/// The table of what makes the daemon one of several.
const CLUSTER: &str = "cluster";

/// A value as it stands in the file, and its line.
pub type Values = BTreeMap<&'static str, (String, usize)>;

/// Something in the file that cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub struct FileError {
    /// What is wrong, with file, line and column, and the line itself.
    pub what: String,
    /// What to do.
    pub hint: Option<String>,
}

/// Reads the text of a file.
pub fn parse(path: &Path, text: &str) -> Result<Values, FileError> {
    let table = DeTable::parse(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        FileError { what: pointed(path, text, span, error.message()), hint: None }
    })?;
    let mut values = Values::new();
    read(path, text, "", table.get_ref(), &mut values)?;
    Ok(values)
}

/// Reads a table's keys, each with the table's name before its own.
fn read(
    path: &Path,
    text: &str,
    table: &str,
    keys_of: &DeTable<'_>,
    values: &mut Values,
) -> Result<(), FileError> {
    for (name, value) in keys_of {
        let span = name.span();
        if let (DeValue::Table(inner), CLUSTER, "") = (value.get_ref(), name.get_ref().as_ref(), table) {
            read(path, text, "cluster.", inner, values)?;
            continue;
        }
        let full = format!("{table}{}", name.get_ref());
        let Some(key) = keys().find(|key| key.name == full) else {
            let message = format!("unknown key `{full}`");
            let known: Vec<_> = keys().map(|key| key.name).collect();
            return Err(FileError {
                what: pointed(path, text, span, &message),
                hint: Some(suggestion(&full, &known)),
            });
        };
        let Some(said) = said(key.kind, value.get_ref()) else {
            let wanted = match key.kind {
                Kind::List => "one text or a list of them",
                Kind::Directories => "a table of directories",
                _ => "one value",
            };
            let message = format!("`{}` is {wanted}, not a {}", key.name, value.get_ref().type_str());
            return Err(FileError { what: pointed(path, text, value.span(), &message), hint: None });
        };
        values.insert(key.name, (said, position(text, span.start).0));
    }
    Ok(())
}

/// A value as text.
fn said(kind: Kind, value: &DeValue<'_>) -> Option<String> {
    let texts = |parts: Option<Vec<String>>| parts.map(|parts| parts.join(&BETWEEN.to_string()));
    match (kind, value) {
        (Kind::Directories, DeValue::Table(table)) => texts(
            table
                .iter()
                .map(|(name, at)| Some(format!("{}={}", name.get_ref(), at.get_ref().as_str()?)))
                .collect(),
        ),
        (Kind::Directories, _) => None,
        (Kind::List, DeValue::Array(parts)) => {
            texts(parts.iter().map(|part| part.get_ref().as_str().map(str::to_owned)).collect())
        }
        (_, value) => value
            .as_str()
            .map(str::to_owned)
            .or_else(|| value.as_bool().map(|flag| flag.to_string()))
            .or_else(|| value.as_integer().map(|number| number.as_str().to_owned())),
    }
}

/// The nearest of some words, or all of them.
pub(super) fn suggestion(name: &str, words: &[&str]) -> String {
    let near = words
        .iter()
        .map(|word| (strsim::damerau_levenshtein(name, word), word))
        .min()
        .filter(|(distance, word)| *distance <= 3 && *distance < word.len());
    match near {
        Some((_, word)) => format!("did you mean `{word}`?"),
        None => format!("the keys are: {}", words.join(", ")),
    }
}

/// Line and column of a byte, both from 1.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |place| place + 1);
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
}

/// A message with the place in the file that it is about.
pub(super) fn pointed(path: &Path, text: &str, span: std::ops::Range<usize>, message: &str) -> String {
    let (line, column) = position(text, span.start);
    let source = text.lines().nth(line - 1).unwrap_or("");
    let width = text.get(span).map_or(1, |part| part.lines().next().unwrap_or("").chars().count().max(1));
    let gutter = line.to_string();
    let blank = " ".repeat(gutter.len());
    format!(
        "{}:{line}:{column}: {message}\n{blank} |\n{gutter} | {source}\n{blank} | {}{}",
        path.display(),
        " ".repeat(column - 1),
        "^".repeat(width),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> FileError {
        parse(Path::new("config.toml"), text).expect_err("this file is wrong")
    }

    #[test]
    fn values_come_with_their_line() {
        let values =
            parse(Path::new("f"), "# mine\nstart_daemon = false\nstate_dir = \"/x\"\n").expect("valid");
        assert_eq!(values["start_daemon"], ("false".to_owned(), 2));
        assert_eq!(values["state_dir"], ("/x".to_owned(), 3));
    }

    #[test]
    fn an_unknown_key_is_shown_where_it_stands_with_the_nearest_one() {
        let error = wrong("tcp = \"p\"\nstate_dri = \"/x\"\n");
        assert_eq!(
            error.what,
            "config.toml:2:1: unknown key `state_dri`\n  |\n2 | state_dri = \"/x\"\n  | ^^^^^^^^^"
        );
        assert_eq!(error.hint.as_deref(), Some("did you mean `state_dir`?"));
        assert!(wrong("zebra = 1").hint.expect("a hint").contains("state_dir, "));
    }

    #[test]
    fn a_table_and_broken_toml_are_refused_with_their_place() {
        assert!(wrong("[tcp]\n").what.starts_with("config.toml:1:"), "{:?}", wrong("[tcp]\n"));
        assert!(wrong("tcp = \n").what.starts_with("config.toml:1:"), "{:?}", wrong("tcp = \n"));
    }
}
