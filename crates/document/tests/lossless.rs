//! A notebook that is read and written is the same file, but for what was changed.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use outlive_document::{CellKey, CellKind, NoBlobs, Notebook, NotebookError};
use proptest::prelude::*;
use serde_json::json;

fn parse(text: &str) -> Notebook {
    Notebook::parse(text.as_bytes()).expect("a notebook")
}

fn export(notebook: &Notebook) -> String {
    String::from_utf8(notebook.to_bytes(&NoBlobs)).unwrap()
}

fn key(text: &str) -> CellKey {
    CellKey::new(text)
}

/// As nbformat writes it, with things that a typed model would lose: unknown keys and cell types, floats, a number
/// beyond 64 bits, half a surrogate, `NaN`.
const FULL: &str = r#"{
 "cells": [
  {
   "attachments": {},
   "cell_type": "markdown",
   "id": "intro",
   "metadata": {},
   "source": [
    "Title\n",
    "text \ud83d"
   ]
  },
  {
   "cell_type": "code",
   "execution_count": 3,
   "id": "work",
   "metadata": {
    "scrolled": "auto",
    "zoom": 1.0
   },
   "outputs": [
    {
     "data": {
      "application/x+json": {
       "big": 123456789012345678901234567890,
       "nan": NaN
      }
     },
     "metadata": {},
     "output_type": "hologram"
    }
   ],
   "source": "print(1)",
   "x-unknown": [
    1e2
   ]
  },
  {
   "cell_type": "diagram",
   "id": "later",
   "metadata": {},
   "source": []
  }
 ],
 "metadata": {},
 "nbformat": 4,
 "nbformat_minor": 6,
 "x-top": null
}
"#;

#[test]
fn an_untouched_file_keeps_its_bytes() {
    assert_eq!(export(&parse(FULL)), FULL);
    let crlf = FULL.replace('\n', "\r\n");
    assert_eq!(export(&parse(&crlf)), crlf);
    let marked = format!("\u{feff}{FULL} \n");
    assert_eq!(export(&parse(&marked)), marked);
}

#[test]
fn unknown_things_are_shown_as_such() {
    let notebook = parse(FULL);
    let cells: Vec<_> = notebook.cells().collect();
    assert_eq!(
        cells.iter().map(|cell| cell.kind()).collect::<Vec<_>>(),
        [CellKind::Markdown, CellKind::Code, CellKind::Unknown]
    );
    assert_eq!(cells[0].source(), "Title\ntext \u{fffd}");
    assert_eq!(cells[1].metadata("zoom"), Some(json!(1.0)));
    assert_eq!(notebook.outputs(&key("work"), &NoBlobs)[0]["output_type"], "hologram");
}

#[test]
fn an_edit_changes_only_its_own_lines() {
    let mut notebook = parse(FULL);
    notebook.set_source(&key("work"), "a = 1\nb = 'é'").unwrap();
    assert_eq!(
        export(&notebook),
        FULL.replace("\"source\": \"print(1)\"", "\"source\": [\n    \"a = 1\\n\",\n    \"b = 'é'\"\n   ]")
    );

    let mut notebook = parse(FULL);
    notebook.set_cell_metadata(&key("work"), "tags", Some(&json!(["x"]))).unwrap();
    notebook.set_metadata("outlive", Some(&json!({"requirements": []})));
    let expected = FULL
        .replace(
            "\"scrolled\": \"auto\",\n",
            "\"scrolled\": \"auto\",\n    \"tags\": [\n     \"x\"\n    ],\n",
        )
        .replace(
            " \"metadata\": {},\n \"nbformat\"",
            " \"metadata\": {\n  \"outlive\": {\n   \"requirements\": []\n  }\n },\n \"nbformat\"",
        );
    assert_eq!(export(&notebook), expected);

    notebook.set_cell_metadata(&key("work"), "tags", None).unwrap();
    notebook.set_metadata("outlive", None);
    assert_eq!(export(&notebook), FULL);
}

#[test]
fn what_goes_in_comes_out() {
    let mut notebook = parse(FULL);
    for index in [0, 1, 3, 99] {
        let added = notebook.insert_cell(index, CellKind::Code, "new", None);
        let text = export(&notebook);
        assert!(
            text.contains("  {\n   \"cell_type\": \"code\",\n   \"execution_count\": null,\n   \"id\": \""),
            "{text}"
        );
        assert_eq!(parse(&text).cells().len(), 4);
        assert!(parse(&text).cell(&added).is_some(), "the key is the id");
        notebook.delete_cell(&added).unwrap();
        assert_eq!(export(&notebook), FULL, "inserted at {index} and deleted again");
    }
    for gone in ["work", "intro", "later"] {
        notebook.delete_cell(&key(gone)).unwrap();
    }
    assert!(export(&notebook).contains("\"cells\": [],"));
    assert!(notebook.delete_cell(&key("work")).is_err());
    notebook.insert_cell(0, CellKind::Markdown, "again", Some("again"));
    assert!(export(&notebook).starts_with("{\n \"cells\": [\n  {\n   \"cell_type\": \"markdown\","));
}

#[test]
fn other_layouts_are_kept_for_what_is_new() {
    let wide = r#"{
    "nbformat": 4,
    "nbformat_minor": 4,
    "metadata": {},
    "cells": [
        {
            "cell_type": "code",
            "source": ["1"],
            "metadata": {},
            "execution_count": null,
            "outputs": []
        }
    ]
}"#;
    let mut notebook = parse(wide);
    notebook.set_source(&key("cell-0"), "x\ny").unwrap();
    let expected =
        wide.replace("[\"1\"]", "[\n                \"x\\n\",\n                \"y\"\n            ]");
    assert_eq!(export(&notebook), expected);

    let compact = r#"{"cells":[{"cell_type":"code","source":"","metadata":{},"outputs":[],"execution_count":null}],"metadata":{},"nbformat":4,"nbformat_minor":4}"#;
    let mut notebook = parse(compact);
    let added = notebook.insert_cell(0, CellKind::Raw, "a\nb", None);
    assert_eq!(added.as_str(), "cell-1", "the first cell keeps its key");
    let inserted = r#"[{"cell_type":"raw","metadata":{},"source":["a\n","b"]},{"cell_type":"code""#;
    assert_eq!(export(&notebook), compact.replace("[{\"cell_type\":\"code\"", inserted));
}

#[test]
fn the_empty_notebook_is_whole() {
    let notebook = Notebook::empty("python\"3");
    assert_eq!(notebook.kernel_name().as_deref(), Some("python\"3"));
    assert_eq!(notebook.cells().len(), 0);
}

// C8, C5: what is not a whole notebook is refused with its place and a way out.
#[test]
fn refusals_say_where_and_what_to_do() {
    let refusal = |text: &str| Notebook::parse(text.as_bytes()).unwrap_err();
    assert_eq!(refusal(" \n"), NotebookError::Empty);
    assert_eq!(
        refusal("{\n \"cells\": [\n  ä").to_string().split(';').next(),
        Some("the notebook is not valid JSON: line 3, column 3: a value should stand here")
    );
    assert!(matches!(refusal(&FULL[..FULL.len() / 2]), NotebookError::NotJson { .. }), "a truncated file");
    assert!(matches!(refusal("[]"), NotebookError::NotANotebook { .. }));
    assert!(matches!(refusal("{\"metadata\": {}}"), NotebookError::NotANotebook { .. }));
    assert!(matches!(
        refusal(&FULL.replace("\"metadata\": {},\n \"nb", "\"metadata\": 5,\n \"nb")),
        NotebookError::NotANotebook { .. }
    ));
    let old = refusal("{\"nbformat\": 3, \"nbformat_minor\": 0, \"metadata\": {}, \"worksheets\": []}");
    assert_eq!(old, NotebookError::TooOld { major: 3 });
    assert!(old.to_string().contains("jupyter nbconvert"));
    assert_eq!(
        refusal(&FULL.replace("\"nbformat\": 4", "\"nbformat\": 5")),
        NotebookError::TooNew { major: 5 }
    );
    let typeless = refusal(&FULL.replace("\"cell_type\": \"code\",", ""));
    assert!(matches!(typeless, NotebookError::BadCell { number: 2, .. }), "{typeless}");
    let bad_source = refusal(&FULL.replace("\"print(1)\"", "[1]"));
    assert!(matches!(bad_source, NotebookError::BadCell { number: 2, .. }), "{bad_source}");
    let not_text = Notebook::parse(b"{\n\"a\": \"\xff\"}").unwrap_err();
    assert_eq!(not_text, NotebookError::NotText { line: 2, byte: 0xff });
}

// B6: a zip of 10k-deep JSON.
#[test]
fn depth_is_refused_before_it_costs_a_stack() {
    let deep =
        FULL.replace("\"x-top\": null", &format!("\"x-top\": {}{}", "[".repeat(10_000), "]".repeat(10_000)));
    assert!(matches!(Notebook::parse(deep.as_bytes()), Err(NotebookError::TooDeep { .. })));
}

// B3, C8: a notebook of 100 MB is read and written.
#[test]
fn a_large_notebook_is_only_large() {
    let output = format!("\"{}\"", "QUJD".repeat(25 << 20));
    let large = FULL.replace("\"hologram\"", &output);
    let mut notebook = parse(&large);
    notebook.set_source(&key("intro"), "small").unwrap();
    assert_eq!(
        export(&notebook).len(),
        large.replace("[\n    \"Title\\n\",\n    \"text \\ud83d\"\n   ]", "[\n    \"small\"\n   ]").len()
    );
}

/// Any JSON with any layout: `space` is what stands between tokens.
fn any_json() -> impl Strategy<Value = String> {
    let space = "[ \t\r\n]{0,3}";
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("-0.0e+7".to_owned()),
        Just("1.10".to_owned()),
        Just("NaN".to_owned()),
        "[1-9][0-9]{0,40}",
        any_string(),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let value =
            (space, inner, space).prop_map(|(before, value, after)| format!("{before}{value}{after}"));
        let member = (space, any_string(), space, value.clone())
            .prop_map(|(a, key, b, value)| format!("{a}{key}{b}:{value}"));
        let filled =
            |items: Vec<String>, space: String| if items.is_empty() { space } else { items.join(",") };
        prop_oneof![
            (prop::collection::vec(value, 0..4), space)
                .prop_map(move |(items, s)| format!("[{}]", filled(items, s))),
            (prop::collection::vec(member, 0..4), space)
                .prop_map(move |(items, s)| format!("{{{}}}", filled(items, s))),
        ]
    })
}

fn any_string() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop_oneof![
            "[^\"\\\\\\x00-\\x1f]",
            Just("\\n".to_owned()),
            Just("\\\"".to_owned()),
            "\\\\u[0-9a-f]{4}"
        ],
        0..6,
    )
    .prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

/// Notebooks in any layout, with members in any order.
fn any_notebook() -> impl Strategy<Value = String> {
    let object = |mut members: Vec<String>, spaces: Vec<String>| {
        let mut text = String::from("{");
        let count = members.len();
        for (index, member) in members.drain(..).enumerate() {
            text.push_str(&spaces[index % spaces.len()]);
            text.push_str(&member);
            text.push_str(&spaces[(index + 1) % spaces.len()]);
            text.push_str(if index + 1 < count { "," } else { "}" });
        }
        text
    };
    let spaces = || prop::collection::vec("[ \n]{0,3}", 1..4);
    let source = prop_oneof![
        any_string(),
        prop::collection::vec(any_string(), 0..3).prop_map(|lines| format!("[{}]", lines.join(", ")))
    ];
    let cell = (source, any_json(), any_json(), spaces(), prop::bool::ANY).prop_flat_map(
        move |(source, unknown, outputs, spaces, code)| {
            let kind = if code { "code" } else { "markdown" };
            let members = vec![
                format!("\"cell_type\": \"{kind}\""),
                format!("\"source\":{source}"),
                "\"metadata\" : {}".to_owned(),
                format!("\"outputs\": [{outputs}]"),
                format!("\"x\":{unknown}"),
            ];
            Just(members).prop_shuffle().prop_map(move |members| object(members, spaces.clone()))
        },
    );
    (prop::collection::vec(cell, 0..4), any_json(), spaces()).prop_flat_map(
        move |(cells, unknown, spaces)| {
            let members = vec![
                format!("\"cells\": [{}]", cells.join(&format!(",{}", spaces[0]))),
                "\"metadata\":{}".to_owned(),
                "\"nbformat\": 4".to_owned(),
                "\"nbformat_minor\":  2".to_owned(),
                format!("\"y\": {unknown}"),
            ];
            Just(members).prop_shuffle().prop_map(move |members| object(members, spaces.clone()))
        },
    )
}

proptest! {
    #[test]
    fn parse_then_export_is_identity(text in any_notebook()) {
        prop_assert_eq!(export(&parse(&text)), text);
    }

    /// An edit of one cell leaves everything before and after that cell as it was, and reads back.
    #[test]
    fn an_edit_leaves_the_other_cells_bytes(text in any_notebook(), at in 0_usize..4, source in any::<String>()) {
        let mut notebook = parse(&text);
        prop_assume!(notebook.cells().len() > 0);
        let edited = notebook.cells().nth(at % notebook.cells().len()).unwrap().key().clone();
        let before: Vec<String> = notebook.cells().map(|cell| cell.source()).collect();
        notebook.set_source(&edited, &source).unwrap();
        let changed = export(&notebook);
        let again = parse(&changed);
        for (cell, old) in again.cells().zip(&before) {
            prop_assert_eq!(cell.source(), if *cell.key() == edited { &source } else { old }.as_str());
        }
        let same_head = text.bytes().zip(changed.bytes()).take_while(|(a, b)| a == b).count();
        let same_tail = text.bytes().rev().zip(changed.bytes().rev()).take_while(|(a, b)| a == b).count();
        let touched = &text[text.floor_char_boundary(same_head)..text.ceil_char_boundary(text.len() - same_tail.min(text.len() - same_head))];
        prop_assert!(!touched.contains("cell_type"), "the change spans cells: {}", touched);
    }

    #[test]
    fn inserted_and_deleted_is_identity(text in any_notebook(), at in 0_usize..5) {
        let mut notebook = parse(&text);
        let cells = notebook.cells().len();
        let added = notebook.insert_cell(at, CellKind::Code, "x = 1\n", None);
        let grown = parse(&export(&notebook));
        prop_assert_eq!(grown.cells().len(), cells + 1);
        prop_assert_eq!(grown.cells().nth(at.min(cells)).unwrap().source(), "x = 1\n");
        notebook.delete_cell(&added).unwrap();
        // Only the white space before the first cell is written anew.
        if cells > 0 && at > 0 {
            prop_assert_eq!(export(&notebook), text);
        }
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Notebook::parse(&bytes);
    }

    /// A valid notebook with one byte changed: refused, or kept as it is.
    #[test]
    fn a_flipped_byte_is_refused_or_kept(text in any_notebook(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(notebook) = Notebook::parse(&bytes) {
            prop_assert_eq!(notebook.to_bytes(&NoBlobs), bytes);
        }
    }
}
