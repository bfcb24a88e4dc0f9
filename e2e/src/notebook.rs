//! Notebooks for tests, and what is found in them afterwards.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// A notebook (nbformat 4.5) with one code cell for each source.
#[must_use]
pub fn with_cells(sources: &[&str]) -> Value {
    let cell = |(index, source): (usize, &&str)| {
        json!({
            "cell_type": "code", "id": format!("cell-{index}"), "metadata": {}, "source": source,
            "outputs": [], "execution_count": null,
        })
    };
    json!({
        "cells": sources.iter().enumerate().map(cell).collect::<Vec<_>>(),
        "metadata": {
            "kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    })
}

/// Reads a notebook.
///
/// # Panics
/// When there is none.
#[must_use]
#[track_caller]
pub fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The text of one cell's outputs of one stream, in order.
#[must_use]
pub fn stream(notebook: &Value, cell: usize, name: &str) -> String {
    let outputs = notebook["cells"][cell]["outputs"].as_array().map(Vec::as_slice).unwrap_or_default();
    outputs.iter().filter(|output| output["name"] == name).map(|output| text(&output["text"])).collect()
}

/// The exception names of one cell's error outputs.
#[must_use]
pub fn errors(notebook: &Value, cell: usize) -> Vec<String> {
    let outputs = notebook["cells"][cell]["outputs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let errors = outputs.iter().filter(|output| output["output_type"] == "error");
    errors.map(|output| text(&output["ename"])).collect()
}

/// Multi-line text is a string or a list of strings.
#[must_use]
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
        _ => String::new(),
    }
}
