//! What parsers say of a request, in words of the API.

use std::fmt::Display;

/// What is wrong with a field: `error`, unless that speaks of how ids are parsed.
#[must_use]
pub fn plainly(field: &str, error: &impl Display) -> String {
    let error = error.to_string();
    if !error.contains("UUID") {
        return error;
    }
    let form = "this is no id; an id is a UUID, for instance 0f8fad5b-d9cb-469f-a165-70867728950e, as it was answered";
    // Where people put paths and titles.
    match field {
        "id" | "session" => format!("{form}; a notebook's file is given as `path`"),
        _ => form.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use outlive_core::id::{RunId, SessionId};
    use serde_json::{Error, Value, from_value};

    use super::*;

    #[test]
    fn whoever_gives_something_else_for_an_id_is_told_what_one_looks_like() {
        let session = |given: Value| from_value::<SessionId>(given).unwrap_err();
        for error in [session("analysis.ipynb".into()), session("".into()), session(7.into())] {
            let said = plainly("id", &error);
            assert!(said.contains("0f8fad5b-") && said.ends_with("is given as `path`"), "{said}");
        }
        let run: Error = from_value::<RunId>("x".into()).unwrap_err();
        assert!(plainly("run", &run).ends_with("as it was answered"), "a run has no path");
        let other: Error = from_value::<bool>(1.into()).unwrap_err();
        assert_eq!(plainly("trust", &other), other.to_string());
    }
}
