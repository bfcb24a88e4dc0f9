//! Values as they are typed on a command line.

use std::time::Duration;

use serde_json::Value;

/// `NAME=VALUE`, split at the first `=`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err("expected NAME=VALUE".to_owned()),
    }
}

/// A parameter of a notebook: its value is JSON where it can be, else text.
pub fn parameter(text: &str) -> Result<(String, Value), String> {
    let (name, value) = pair(text)?;
    Ok((name, outlive_document::parameters::typed(&value)))
}

/// A size in bytes: `512M`, `2G`, `1.5GiB`, `4096`. Units are powers of 1024.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || "expected a size, for instance 512M or 2G".to_owned();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let unit = unit.trim().to_ascii_uppercase();
    let shift = match unit.strip_suffix("IB").or_else(|| unit.strip_suffix('B')).unwrap_or(&unit) {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(wrong()),
    };
    let bytes = number * (1_u64 << shift) as f64;
    if (1.0..=u64::MAX as f64).contains(&bytes) { Ok(bytes as u64) } else { Err(wrong()) }
}

/// Seconds, with a fraction.
pub fn seconds(text: &str) -> Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "expected seconds, for instance 600 or 0.5".to_owned())
}

/// How long ago: `30s`, `10m`, `2h`, `1d`.
pub fn ago(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a time span, for instance 30s, 10m, 2h or 1d".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// A time span with its unit: `250ms`, `30s`, `1.5m`, `2h`, `1d`; 0 needs none.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a time span with its unit, for instance 250ms, 30s, 5m, 2h or 0".to_owned();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let seconds = match unit.trim() {
        "ms" => 0.001,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        "" if number == 0.0 => 1.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())
}

/// A duration in whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Longest name of a group or of a member, in bytes.
const NAME_BYTES_MAX: usize = 63;

/// The name of a group or of a member: it stands in paths of the API.
pub fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_name = text.chars().next().is_some_and(fits)
        && text.chars().all(|c| fits(c) || c == '-' || c == '_')
        && text.len() <= NAME_BYTES_MAX;
    if is_name {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "a name is 1 to {NAME_BYTES_MAX} of a-z, 0-9, - and _, and begins with a letter or digit"
        ))
    }
}

/// Runners: a whole group, or one of its members.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Runners {
    /// The group's name.
    pub group: String,
    /// The member's name; all when it is not given.
    pub member: Option<String>,
}

/// `NAME` or `NAME/MEMBER`.
pub fn runners(text: &str) -> Result<Runners, String> {
    match text.split_once('/') {
        None => Ok(Runners { group: name(text)?, member: None }),
        Some((group, member)) => Ok(Runners { group: name(group)?, member: Some(name(member)?) }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sizes_have_units_of_1024() {
        assert_eq!(size("4096"), Ok(4_096));
        assert_eq!(size("512M"), Ok(512 << 20));
        assert_eq!(size("1.5GiB"), Ok(3 << 29));
        assert_eq!(size("2 gb"), Ok(2 << 30));
        for wrong in ["", "G", "0", "-1", "2X", "1e9"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn spans_and_seconds() {
        assert_eq!(ago("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(ago("1d"), Ok(Duration::from_secs(86_400)));
        assert!(ago("").is_err() && ago("m").is_err() && ago("5µ").is_err() && ago("10").is_err());
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(seconds("0").is_err() && seconds("inf").is_err() && seconds("x").is_err());
    }

    #[test]
    fn durations_have_units() {
        for (text, millis) in
            [("250ms", 250), ("30s", 30_000), ("1.5m", 90_000), ("2 h", 7_200_000), ("0", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for wrong in ["", "5", "s", "-1s", "1 week", "1e400d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(millis(Duration::MAX), u64::MAX);
    }

    #[test]
    fn names_of_groups_and_members() {
        let both = runners("llm/llm-0").expect("a member");
        assert_eq!((both.group.as_str(), both.member.as_deref()), ("llm", Some("llm-0")));
        assert_eq!(runners("a_1").expect("a group").member, None);
        for wrong in ["", "-a", "A", "a b", "a/", "/a", "a/b/c", "ä", &"a".repeat(64)] {
            assert!(runners(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pairs_are_split_once_and_parameters_are_typed() {
        assert_eq!(pair("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert!(pair("A").is_err() && pair("=b").is_err());
        assert_eq!(parameter("n=3"), Ok(("n".to_owned(), json!(3))));
        assert_eq!(parameter("s=three words"), Ok(("s".to_owned(), json!("three words"))));
    }
}
