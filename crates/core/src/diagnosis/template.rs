//! Titles and remedies with places for what a pattern captured: `{port}`, or `{errno:errno}` for an error number with
//! its name and meaning.

use std::collections::BTreeMap;

use super::errno;

/// The names that a template speaks of.
pub(super) fn captures(template: &str) -> impl Iterator<Item = &str> {
    pieces(template).filter_map(|piece| match piece {
        Piece::Text(_) => None,
        Piece::Capture { name, .. } => Some(name),
    })
}

/// The first template whose captures are all known, with their values.
pub(super) fn first_filled(templates: &[String], values: &BTreeMap<String, String>) -> Option<String> {
    templates.iter().find_map(|template| filled(template, values))
}

fn filled(template: &str, values: &BTreeMap<String, String>) -> Option<String> {
    pieces(template)
        .map(|piece| match piece {
            Piece::Text(text) => Some(text.to_owned()),
            Piece::Capture { name, as_errno } => {
                let value = values.get(name)?;
                Some(if as_errno { errno::named(value) } else { value.clone() })
            }
        })
        .collect()
}

enum Piece<'a> {
    Text(&'a str),
    Capture { name: &'a str, as_errno: bool },
}

/// A brace that does not hold a name is text: remedies quote shells.
fn pieces(template: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = template;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some((inside, after)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            let (name, as_errno) = inside.strip_suffix(":errno").map_or((inside, false), |name| (name, true));
            if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                rest = after;
                return Some(Piece::Capture { name, as_errno });
            }
        }
        let skip = usize::from(rest.starts_with('{'));
        let end = rest[skip..].find('{').map_or(rest.len(), |at| at + skip);
        let (text, after) = rest.split_at(end);
        rest = after;
        Some(Piece::Text(text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_template_that_can_be_filled_is_used() {
        let values =
            BTreeMap::from([("port".to_owned(), "80".to_owned()), ("n".to_owned(), "54".to_owned())]);
        let templates = ["{host} and {port}".to_owned(), "`${x}` {} {port}: {n:errno}{".to_owned()];
        assert_eq!(first_filled(&templates, &values), None, "x is not known");
        let templates = ["{host} and {port}".to_owned(), "{} {a b} {port}: {n:errno}{".to_owned()];
        let filled = first_filled(&templates, &values).unwrap();
        assert_eq!(filled, "{} {a b} 80: 54 (ECONNRESET, the other side has reset the connection){");
        assert_eq!(captures(&templates[1]).collect::<Vec<_>>(), ["port", "n"]);
    }
}
