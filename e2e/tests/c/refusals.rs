//! What cannot be opened or saved is refused by name, and touched by nobody.

use std::fs;
use std::path::{Path, PathBuf};

use outlive_e2e::{Session, World, notebook};
use serde_json::{Value, json};

/// The largest notebook file, in bytes: `NOTEBOOK_FILE_BYTES_MAX` in `core::limits`.
const FILE_BYTES_MAX: u64 = 1 << 30;

fn open_refused(world: &World, body: &Value, code: &str) -> Value {
    let problem = world.api().refused("/v1/sessions/open", body);
    assert_eq!(problem["code"], code, "{body}: {problem}");
    let says = |field: &str| problem[field].as_str().unwrap_or_default();
    assert!(!says("hint").is_empty() || says("detail").contains("; "), "it says what to do: {problem}");
    problem
}

/// Opens a file that cannot be opened: its bytes stay what they are.
fn refused_untouched(world: &World, path: &Path, code: &str) {
    let before = fs::read(path).unwrap();
    let problem = open_refused(world, &json!({"path": path}), code);
    assert!(
        problem["detail"].as_str().unwrap().contains(&*path.to_string_lossy()),
        "it names the file: {problem}"
    );
    assert!(fs::read(path).unwrap() == before, "{}: it was touched", path.display());
}

// C8
#[test]
fn open_wants_a_path_or_an_id() {
    let world = World::new();
    let _daemon = world.daemon();
    let path = world.notebook("a.ipynb", &["x = 1"]);
    let session = Session::open(&world.api(), &path);
    open_refused(&world, &json!({}), "path-xor-id");
    open_refused(&world, &json!({"path": path, "id": session.id}), "path-xor-id");
    let problem = open_refused(&world, &json!({"path": session.id}), "use-the-id");
    assert!(problem.to_string().contains(&session.id), "{problem}");
    open_refused(&world, &json!({"path": "a.ipynb"}), "relative-path");
    open_refused(&world, &json!({"path": "./a.ipynb"}), "relative-path");
    open_refused(&world, &json!({"path": world.work().join("missing.ipynb")}), "no-such-file");
    let problem = open_refused(&world, &json!({"path": world.work()}), "bad-path");
    assert!(problem["detail"].as_str().unwrap().contains("directory"), "{problem}");
    fs::create_dir(world.work().join("folder.ipynb")).unwrap();
    for folder in ["folder", "folder.ipynb"] {
        let problem = world.api().refused("/v1/sessions/open", &json!({"path": world.work().join(folder)}));
        assert_eq!(problem["code"], "bad-path", "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("directory"), "{problem}");
    }
    let unknown = "0197f2aa-0000-7000-8000-00000000dead";
    open_refused(&world, &json!({"id": unknown}), "no-such-session");
    // Without its ending it is the same file, and the same session.
    assert_eq!(Session::open(&world.api(), &world.work().join("a")).id, session.id);
}

// C8
#[test]
fn a_file_that_is_no_notebook_is_not_opened_and_not_touched() {
    let world = World::new();
    let _daemon = world.daemon();
    let write = |name: &str, text: &str| -> PathBuf {
        let path = world.work().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    refused_untouched(&world, &write("corrupt.ipynb", "{\"cells\": ["), "not-a-notebook");
    refused_untouched(&world, &write("empty.ipynb", ""), "not-a-notebook");
    refused_untouched(&world, &write("list.ipynb", "[]"), "not-a-notebook");
    let old = json!({"nbformat": 3, "nbformat_minor": 0, "metadata": {"name": ""}, "worksheets": []});
    refused_untouched(&world, &write("old.ipynb", &old.to_string()), "too-old-notebook");
    assert_eq!(world.api().get("/v1/sessions"), json!([]), "nothing is left of them");
    // What could not be opened is free: it is opened as soon as it can be.
    fs::write(world.work().join("corrupt.ipynb"), notebook::with_cells(&["x = 1"]).to_string()).unwrap();
    assert_eq!(Session::open(&world.api(), &world.work().join("corrupt.ipynb")).sources(), ["x = 1"]);
}

// C8: 100 MB are opened, edited, run and saved; what is over the limit is refused with it. The daemon lives.
#[test]
fn a_very_large_notebook() {
    let world = World::new();
    let daemon = world.daemon();
    let mut large = notebook::with_cells(&["small = 1", "large = 2"]);
    let text = "x".repeat(100 << 20);
    large["cells"][1]["outputs"] = json!([{"output_type": "stream", "name": "stdout", "text": text}]);
    let path = world.work().join("large.ipynb");
    fs::write(&path, large.to_string()).unwrap();
    drop(large);
    let session = Session::open(&world.api(), &path);
    session.set_source("cell-0", "small = 'edited'; print(small)");
    let ran = session.run_cell("cell-0");
    assert_eq!((ran.ended(), ran.stdout().as_str()), ("succeeded", "edited\n"));
    session.save(&json!({}));
    let file = notebook::read(&path);
    assert_eq!(notebook::text(&file["cells"][0]["source"]), "small = 'edited'; print(small)");
    assert_eq!(notebook::stream(&file, 0, "stdout"), "edited\n");
    assert!(notebook::stream(&file, 1, "stdout") == text, "its large output is the same");
    drop((file, text));
    // It takes no room on the disk.
    let path = world.work().join("larger.ipynb");
    fs::File::create(&path).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
    let problem = open_refused(&world, &json!({"path": path}), "unreadable-notebook");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(&FILE_BYTES_MAX.to_string()), "it says the limit: {problem}");
    assert_eq!(fs::metadata(&path).unwrap().len(), FILE_BYTES_MAX + 1, "it was touched");
    let small = world.notebook("small.ipynb", &["x = 1"]);
    assert_eq!(Session::open(&world.api(), &small).sources(), ["x = 1"]);
    assert_eq!(world.daemon_pid(), daemon.pid());
}

// C8: no operation writes `ID.ipynb`, and an untitled session is not saved without a path.
#[test]
fn an_untitled_session_is_not_saved_without_a_path() {
    let world = World::new();
    let _daemon = world.daemon();
    let session = world.untitled();
    let cell = session.add_cell("print('somewhere')");
    session.run_cell(&cell);
    let refused = |body: Value, code: &str| {
        let problem = session.save_refused(&body);
        assert_eq!(problem["code"], code, "{body}: {problem}");
    };
    refused(json!({}), "no-path");
    refused(json!({"how": "save_as"}), "no-path");
    refused(json!({"how": "copy"}), "no-path");
    refused(json!({"path": "relative.ipynb"}), "relative-path");
    refused(json!({"path": world.work().join("missing/a.ipynb")}), "no-such-directory");
    fs::create_dir(world.work().join("folder.ipynb")).unwrap();
    let problem = session.save_refused(&json!({"path": world.work().join("folder")}));
    assert!(
        ["bad-path", "not-a-notebook", "file-exists"].contains(&problem["code"].as_str().unwrap()),
        "{problem}"
    );
    let problem = world.api().refused(&session.path("/close"), &json!({}));
    assert_eq!(problem["code"], "unsaved", "{problem}");
    assert_eq!(session.view()["untitled"], true);
    session.close(true);
    let left: Vec<_> = walk(world.root()).into_iter().filter(|path| path.is_file()).collect();
    let named = |path: &&PathBuf| path.file_name().unwrap().to_string_lossy().ends_with(".ipynb");
    assert_eq!(left.iter().filter(named).collect::<Vec<_>>(), Vec::<&PathBuf>::new());
}

// C8: a file that is there is not written over by a first save, unless that was asked for.
#[test]
fn a_save_does_not_replace_a_file_that_is_there() {
    let world = World::new();
    let _daemon = world.daemon();
    let there = world.notebook("there.ipynb", &["somebody's = 'work'"]);
    let before = fs::read(&there).unwrap();
    let session = world.untitled();
    session.add_cell("ours = 1");
    for how in ["save", "copy"] {
        let problem = session.save_refused(&json!({"path": there, "how": how}));
        assert_eq!(problem["code"], "file-exists", "{problem}");
        assert_eq!(fs::read(&there).unwrap(), before);
    }
    assert_eq!(session.view()["untitled"], true);
    session.save(&json!({"path": there, "overwrite": true}));
    assert!(fs::read_to_string(&there).unwrap().contains("ours = 1"));
}

// C8: a titled session moves only when it is told to.
#[test]
fn a_titled_session_is_not_moved_by_a_save() {
    let world = World::new();
    let _daemon = world.daemon();
    let path = world.notebook("a.ipynb", &["x = 1"]);
    let session = Session::open(&world.api(), &path);
    let other = world.work().join("b.ipynb");
    let problem = session.save_refused(&json!({"path": other}));
    assert_eq!(problem["code"], "has-a-path", "{problem}");
    assert!(!other.exists());
    assert_eq!(session.save(&json!({"path": path}))["path"], json!(path), "its own path is no other");
}

// C8: opening what came from elsewhere starts nothing, whatever it says; a person who asks for a run starts it.
#[test]
fn opening_an_untrusted_notebook_starts_nothing() {
    let world = World::new();
    let _daemon = world.daemon();
    let path = world.notebook("foreign.ipynb", &["print('ran')"]);
    let opened = world.api().post("/v1/sessions/open", &json!({"path": path, "start": "at_once"}));
    let session = Session::of(&world.api(), &opened);
    assert_eq!(session.view()["trust"], "untrusted");
    session.set_source("cell-0", "print('edited')");
    session.save(&json!({}));
    assert_eq!(session.view()["runtime"]["incarnation"], 0, "nothing was started");
    let trusted = session.post("/trust", &json!({"trust": "trusted"}));
    assert_eq!(trusted["trust"], "trusted");
    session.wait_runtime("idle");
    assert_eq!(session.run_cell("cell-0").stdout(), "edited\n");
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(walk(&path));
        }
        found.push(path);
    }
    found
}
