//! Parameters are injected by papermill's convention.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use outlive_document::{CellKey, NoBlobs, Notebook, ParameterError};
use serde_json::{Value, json};

fn notebook(cells: &[(&str, &str, &[&str])], metadata: Value) -> Notebook {
    let cells: Vec<Value> = cells
        .iter()
        .map(|(id, source, tags)| json!({"cell_type": "code", "id": id, "metadata": {"tags": tags}, "execution_count": 1, "outputs": [], "source": source}))
        .collect();
    let whole = json!({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5});
    Notebook::parse(whole.to_string().as_bytes()).unwrap()
}

fn values(pairs: &[(&str, Value)]) -> Vec<(String, Value)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

const DECLARES: (&str, &str, &[&str]) = ("p", "alpha = 0.1\nname = 'x'\n", &["parameters"]);

#[test]
fn a_cell_after_the_parameters_cell_sets_them() {
    let mut notebook = notebook(&[("t", "1", &[]), DECLARES, ("w", "2", &[])], json!({}));
    let given = values(&[("name", json!("Zoë \"Z\"")), ("alpha", json!(5))]);
    let key = notebook.inject_parameters(&given).unwrap().unwrap();
    let order: Vec<&str> = notebook.cells().map(|cell| cell.key().as_str()).collect();
    assert_eq!(order, ["t", "p", "injected-parameters", "w"]);
    let cell = notebook.cell(&key).unwrap();
    assert_eq!(cell.source(), "# Parameters\nname = \"Zoë \\\"Z\\\"\"\nalpha = 5\n");
    assert!(cell.has_tag("injected-parameters"));

    // Again: the same cell, not a second one, also after a round through a file.
    let mut notebook = Notebook::parse(&notebook.to_bytes(&NoBlobs)).unwrap();
    let same = notebook.to_bytes(&NoBlobs);
    assert_eq!(notebook.inject_parameters(&given).unwrap().unwrap(), key);
    assert_eq!(notebook.to_bytes(&NoBlobs), same, "the same values change nothing");
    notebook.inject_parameters(&values(&[("alpha", json!([1.5, null]))])).unwrap();
    assert_eq!(notebook.cells().len(), 4);
    assert_eq!(notebook.cell(&key).unwrap().source(), "# Parameters\nalpha = [1.5, None]\n");
}

#[test]
fn what_is_not_declared_is_refused() {
    let mut declaring = notebook(&[DECLARES], json!({}));
    let before = declaring.to_bytes(&NoBlobs);
    let error = declaring.inject_parameters(&values(&[("alpah", json!(1))])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the notebook has no parameter \"alpah\"; its `parameters` cell declares: alpha, name"
    );
    assert_eq!(declaring.to_bytes(&NoBlobs), before);
    assert_eq!(declaring.inject_parameters(&[]), Ok(None));

    let none = notebook(&[("a", "1", &[])], json!({})).inject_parameters(&values(&[("x", json!(1))]));
    assert_eq!(none, Err(ParameterError::NoParametersCell));
    let julia = json!({"language_info": {"name": "julia"}});
    let julia = notebook(&[DECLARES], julia).inject_parameters(&values(&[("alpha", json!(1))]));
    assert_eq!(julia, Err(ParameterError::UnsupportedLanguage { language: "julia".into() }));
}

#[test]
fn old_outputs_do_not_stay_under_new_values() {
    let mut before =
        notebook(&[DECLARES, ("injected-parameters", "old", &["injected-parameters"])], json!({}));
    before.inject_parameters(&values(&[("alpha", json!(2))])).unwrap();
    let whole: Value = serde_json::from_slice(&before.to_bytes(&NoBlobs)).unwrap();
    assert_eq!(whole["cells"][1]["execution_count"], Value::Null);
    assert_eq!(
        before.cell(&CellKey::new("injected-parameters")).unwrap().source(),
        "# Parameters\nalpha = 2\n"
    );
}
