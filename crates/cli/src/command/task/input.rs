//! What a task is given: JSON, a file with JSON, or values by name.

use std::io::Read;
use std::path::Path;

use outlive_core::limits::TASK_INPUT_BYTES_MAX;
use serde_json::{Map, Value};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::terminal;

/// The input of some words: none, one of JSON, or `name=value`, where a value is JSON where it can be, else text.
pub fn of_words(words: &[String]) -> Result<Value, Failure> {
    let wrong = |what: String| {
        Failure::new(Exit::Usage, what)
            .hint("the input is JSON like '{\"n\": 3}', or values like n=3 name=text, or a file with --input")
    };
    let input = match words {
        [] => Value::Null,
        [word] if !is_named(word) => serde_json::from_str(word)
            .map_err(|error| wrong(format!("the input {word:?} is no JSON: {error}")))?,
        words => {
            let mut input = Map::new();
            for word in words {
                let pair = word.split_once('=').filter(|_| is_named(word));
                let (name, value) = pair.ok_or_else(|| wrong(format!("{word:?} is no name=value")))?;
                let value = outlive_document::parameters::typed(value);
                if input.insert(name.to_owned(), value).is_some() {
                    return Err(wrong(format!("{name:?} is given twice")));
                }
            }
            Value::Object(input)
        }
    };
    fitting(input, "the input")
}

/// The input in a file; `-` is standard input.
pub fn of_file(path: &Path) -> Result<Value, Failure> {
    let name = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
    let wrong = |what: String| Failure::new(Exit::Usage, format!("the input in {name} {what}"));
    // What is longer is refused anyway; whitespace may make it so.
    let most = 4 * TASK_INPUT_BYTES_MAX as u64;
    let mut text = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().take(most + 1).read_to_end(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut text))
    };
    read.map_err(|error| wrong(format!("cannot be read: {error}")))?;
    if text.len() as u64 > most {
        return Err(too_large(&format!("the input in {name}")));
    }
    let input = serde_json::from_slice(&text).map_err(|error| wrong(format!("is no JSON: {error}")))?;
    fitting(input, &format!("the input in {name}"))
}

/// Whether a word is `name=value`; JSON never begins like that.
fn is_named(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        name.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))
    })
}

fn fitting(input: Value, what: &str) -> Result<Value, Failure> {
    let size = serde_json::to_vec(&input).expect("it has string keys and finite numbers").len();
    if size > TASK_INPUT_BYTES_MAX { Err(too_large(what)) } else { Ok(input) }
}

fn too_large(what: &str) -> Failure {
    let most = terminal::bytes(TASK_INPUT_BYTES_MAX as u64);
    Failure::new(Exit::Usage, format!("{what} is larger than {most}"))
        .hint("write it to a file that the runner can read, and give the task the file's path")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn input(words: &[&str]) -> Result<Value, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        of_words(&words).map_err(|failure| failure.what)
    }

    #[test]
    fn words_are_json_or_values_by_name() {
        assert_eq!(input(&[]), Ok(Value::Null));
        assert_eq!(input(&["{\"a=b\": 1}"]), Ok(json!({"a=b": 1})));
        assert_eq!(input(&["[1, \"x=y\"]"]), Ok(json!([1, "x=y"])));
        assert_eq!(input(&["7"]), Ok(json!(7)));
        let named = input(&["n=3", "prompt=a = b", "flags=[true]", "empty="]);
        assert_eq!(named, Ok(json!({"n": 3, "prompt": "a = b", "flags": [true], "empty": ""})));
    }

    #[test]
    fn what_is_neither_is_said() {
        assert!(input(&["hello"]).expect_err("no JSON").contains("\"hello\" is no JSON"));
        assert!(input(&["{\"a\": 1"]).expect_err("half").contains("is no JSON"));
        assert!(input(&["n=1", "rest"]).expect_err("mixed").contains("\"rest\" is no name=value"));
        assert!(input(&["n=1", "n=2"]).expect_err("twice").contains("twice"));
    }

    #[test]
    fn a_file_is_read_and_one_that_is_too_large_is_refused_with_a_way_out() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("input.json");
        std::fs::write(&path, "{\"n\": [1, 2]}\n").expect("written");
        assert_eq!(of_file(&path).expect("JSON"), json!({"n": [1, 2]}));
        for size in [TASK_INPUT_BYTES_MAX, 8 * TASK_INPUT_BYTES_MAX] {
            std::fs::write(&path, format!("\"{}\"", "x".repeat(size))).expect("written");
            let failure = of_file(&path).expect_err("too large");
            assert!(failure.what.contains("larger than 512.0 KiB"), "{}", failure.what);
            assert!(failure.hint.expect("a hint").contains("path"));
        }
        std::fs::write(&path, "nonsense").expect("written");
        assert!(of_file(&path).expect_err("no JSON").what.contains("input.json is no JSON"));
        assert!(of_file(Path::new("/nowhere.json")).expect_err("missing").what.contains("cannot be read"));
    }
}
