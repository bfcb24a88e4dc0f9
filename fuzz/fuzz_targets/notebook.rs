//! Bytes of a file: refused, or given back as they are, also after an edit that is taken back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outlive_document::{CellKind, NoBlobs, Notebook};

fuzz_target!(|data: &[u8]| {
    let Ok(mut notebook) = Notebook::parse(data) else { return };
    assert_eq!(notebook.to_bytes(&NoBlobs), data);

    let cells = notebook.cells().len();
    notebook.insert_cell(cells, CellKind::Code, "x = 1\n", None);
    let edited = Notebook::parse(&notebook.to_bytes(&NoBlobs)).expect("an edited notebook is a notebook");
    assert_eq!(edited.cells().len(), cells + 1);
    for (before, after) in notebook.cells().zip(edited.cells()) {
        assert_eq!((before.kind(), before.source()), (after.kind(), after.source()));
    }
    let _ = notebook.declared_parameters();
});
