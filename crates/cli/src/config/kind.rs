//! What values look like, and whether one does.

use std::path::Path;

use super::{Origin, Setting};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::values;

/// What a value looks like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Path,
    Flag,
    Text,
    /// Text that is not shown.
    Secret,
    /// Several texts: a list in the file, with commas between them elsewhere.
    List,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A whole number of this unit, from the first to the last.
    Number(&'static str, u64, u64),
    /// A size in bytes, for instance `4G`.
    Size,
    /// A time span, for instance `30s`.
    Span,
    /// Directories by name: a table in the file, `NAME=DIR,NAME=DIR` elsewhere.
    Directories,
}

/// What stands between the parts of a list or table after it was read from a file.
pub(super) const BETWEEN: char = '\n';

/// A value in the form in which it is kept.
pub(super) fn checked(
    name: &str,
    kind: Kind,
    said: Setting<String>,
    base: Option<&Path>,
    home: Option<&Path>,
) -> Result<Setting<String>, Failure> {
    let Setting { value, origin } = said;
    let wrong = |what: String| Failure::new(Exit::Usage, what);
    let path = |text: &str| {
        let expanded = match (text.strip_prefix("~/"), home) {
            (Some(rest), Some(home)) => home.join(rest),
            (_, _) => base.unwrap_or(Path::new("/")).join(text),
        };
        expanded.to_string_lossy().into_owned()
    };
    let value = match kind {
        Kind::Text | Kind::Secret => value,
        // Nothing takes back what a lower layer says.
        _ if value.is_empty() && kind != Kind::Flag && kind != Kind::Path => value,
        Kind::Path => path(&value),
        Kind::List => parts(kind, &value, &origin).collect::<Vec<_>>().join(","),
        Kind::Choice(words) if words.contains(&value.as_str()) => value,
        Kind::Choice(words) => {
            let words = words.join(", ");
            return Err(wrong(format!("`{name}` is one of {words}, and {origin} says {value:?}")));
        }
        Kind::Number(unit, least, most) => match value.parse::<u64>() {
            Ok(number) if (least..=most).contains(&number) => number.to_string(),
            Ok(_) | Err(_) => {
                return Err(wrong(format!(
                    "`{name}` is a whole number of {unit} from {least} to {most}, and {origin} says {value:?}"
                )));
            }
        },
        Kind::Size => match values::size(&value) {
            Ok(bytes) => bytes.to_string(),
            Err(error) => return Err(wrong(format!("`{name}`: {error}, and {origin} says {value:?}"))),
        },
        Kind::Span => match values::duration(&value) {
            Ok(_) => value,
            Err(error) => return Err(wrong(format!("`{name}`: {error}, and {origin} says {value:?}"))),
        },
        Kind::Directories => {
            let mut directories = Vec::new();
            for part in parts(kind, &value, &origin) {
                let (volume, directory) = values::pair(part)
                    .map_err(|error| wrong(format!("`{name}`: {error}, and {origin} says {part:?}")))?;
                directories.push(format!("{volume}={}", path(&directory)));
            }
            directories.join(&BETWEEN.to_string())
        }
        Kind::Flag => match value.as_str() {
            "true" | "1" | "yes" | "on" => "true".to_owned(),
            "false" | "0" | "no" | "off" => "false".to_owned(),
            other => return Err(wrong(format!("`{name}` is true or false, and {origin} says {other:?}"))),
        },
    };
    Ok(Setting { value, origin })
}

/// The parts of a list. A directory that stands in a file may have a comma in its name.
fn parts<'a>(kind: Kind, value: &'a str, origin: &Origin) -> impl Iterator<Item = &'a str> {
    let is_exact = kind == Kind::Directories && matches!(origin, Origin::File { .. });
    let between: &[char] = if is_exact { &[BETWEEN] } else { &[BETWEEN, ','] };
    value.split(between).map(str::trim).filter(|part| !part.is_empty())
}
