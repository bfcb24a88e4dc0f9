//! Kernels are found where and in the order in which Jupyter finds them.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use outlive_core::runtime::InterruptMode;
use outlive_jupyter::kernelspec::{self, FindError, NotebookKernel, SpecError};
use outlive_jupyter::surroundings::Surroundings;
use serde_json::json;

/// A machine of its own: no PATH, HOME in a temporary folder.
struct Machine {
    root: tempfile::TempDir,
    variables: BTreeMap<String, String>,
}

impl Machine {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut machine = Self { root, variables: BTreeMap::new() };
        machine.set("HOME", "home");
        machine
    }

    fn set(&mut self, name: &str, folders: &str) {
        let paths = folders.split(':').map(|folder| self.path(folder).to_str().unwrap().to_owned());
        let value = paths.collect::<Vec<_>>().join(":");
        self.variables.insert(name.to_owned(), value);
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.root.path().join(relative)
    }

    fn kernel(&self, data: &str, name: &str, spec: &str) {
        let folder = self.path(data).join("kernels").join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("kernel.json"), spec).unwrap();
    }

    fn surroundings(&self) -> Surroundings {
        Surroundings::new(self.variables.clone(), self.root.path().to_owned())
    }
}

fn spec(display_name: &str, language: &str) -> String {
    json!({ "argv": ["run", "{connection_file}"], "display_name": display_name, "language": language })
        .to_string()
}

#[test]
fn the_order_is_jupyters() {
    let mut machine = Machine::new();
    machine.set("JUPYTER_PATH", "extra-1:extra-2");
    machine.set("VIRTUAL_ENV", "venv");
    let user = "home/.local/share/jupyter";
    let environment = "venv/share/jupyter";
    for (data, kernels) in [("extra-1", 1), ("extra-2", 2), (environment, 3), (user, 4)] {
        for number in kernels..=4 {
            machine.kernel(data, &format!("k{number}"), &spec(data, "x"));
        }
    }
    let found =
        |machine: &Machine, name| kernelspec::find(name, &machine.surroundings()).unwrap().spec.display_name;
    // In an active environment that comes before the user's own.
    let order = ["k1", "k2", "k3", "k4"].map(|name| found(&machine, name));
    assert_eq!(order, ["extra-1", "extra-1", "extra-1", "extra-1"]);
    machine.variables.remove("JUPYTER_PATH");
    assert_eq!(found(&machine, "k4"), environment);
    machine.variables.insert("JUPYTER_PREFER_ENV_PATH".into(), "0".into());
    assert_eq!(found(&machine, "k4"), user);
    assert_eq!(found(&machine, "k3"), environment, "what the user does not have is found further on");
    machine.set("XDG_DATA_HOME", "xdg");
    machine.kernel("xdg/jupyter", "k4", &spec("xdg", "x"));
    assert_eq!(found(&machine, "k4"), "xdg");
    machine.set("JUPYTER_DATA_DIR", "data");
    machine.kernel("data", "k4", &spec("data", "x"));
    assert_eq!(found(&machine, "k4"), "data");
}

#[test]
fn an_unknown_name_lists_those_that_exist() {
    let machine = Machine::new();
    machine.kernel("home/.local/share/jupyter", "IR", &spec("R", "R"));
    machine.kernel("home/.local/share/jupyter", "julia-1.11", &spec("Julia", "julia"));
    let error = kernelspec::find("pyhton3", &machine.surroundings()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("`pyhton3`") && text.contains("ir") && text.contains("julia-1.11"), "{text}");
    assert_eq!(kernelspec::find("iR", &machine.surroundings()).unwrap().name, "ir", "case does not matter");
}

#[test]
fn a_broken_file_is_named_and_hides_nothing() {
    let machine = Machine::new();
    let user = "home/.local/share/jupyter";
    machine.kernel(user, "broken", "{\"argv\": [");
    machine.kernel(user, "empty", "{\"argv\": []}");
    machine.kernel(user, "good", &spec("Good", "x"));
    machine.kernel(user, "not a name", &spec("Bad name", "x"));
    fs::create_dir_all(machine.path(user).join("kernels/no-file")).unwrap();
    let installed = kernelspec::list(&machine.surroundings());
    let mine = |path: &Path| path.starts_with(machine.root.path());
    let names: Vec<_> = installed.kernels.values().filter(|kernel| mine(&kernel.resource_dir)).collect();
    assert_eq!(names.len(), 1);
    assert_eq!(installed.broken.len(), 2);
    let error = kernelspec::find("broken", &machine.surroundings()).unwrap_err();
    assert!(matches!(error, FindError::Broken(SpecError::Parse { .. })));
    assert!(error.to_string().contains("kernels/broken/kernel.json"), "{error}");
    let error = kernelspec::find("empty", &machine.surroundings()).unwrap_err();
    assert!(matches!(error, FindError::Broken(SpecError::EmptyArgv { .. })));
}

#[test]
fn everything_in_a_spec_is_kept() {
    let machine = Machine::new();
    let content = json!({
        "argv": ["run"], "display_name": "X", "language": "x", "env": { "A": "b" },
        "interrupt_mode": "message", "metadata": { "debugger": true }, "kernel_protocol_version": "5.5",
    });
    machine.kernel("home/.local/share/jupyter", "x", &content.to_string());
    let kernel = kernelspec::find("x", &machine.surroundings()).unwrap();
    assert_eq!(kernel.spec.interrupt_mode, InterruptMode::Message);
    assert_eq!(serde_json::to_value(&kernel.spec).unwrap(), content);
}

#[test]
fn a_notebook_gets_its_kernel_or_one_of_its_language() {
    let machine = Machine::new();
    machine.kernel("home/.local/share/jupyter", "ir", &spec("R", "R"));
    machine.kernel("home/.local/share/jupyter", "julia-1.11", &spec("Julia", "julia"));
    let wanted = |metadata: serde_json::Value| {
        let kernel = NotebookKernel::from_metadata(&metadata).find(&machine.surroundings());
        kernel.map(|kernel| kernel.name).map_err(|error| error.to_string())
    };
    assert_eq!(wanted(json!({ "kernelspec": { "name": "ir" } })).unwrap(), "ir");
    let other_version = json!({ "kernelspec": { "name": "julia-1.9", "language": "julia" } });
    assert_eq!(wanted(other_version).unwrap(), "julia-1.11");
    assert_eq!(wanted(json!({ "language_info": { "name": "r" } })).unwrap(), "ir");
    let unknown = wanted(json!({ "kernelspec": { "name": "coq", "language": "coq" } })).unwrap_err();
    assert!(unknown.contains("`coq`") && unknown.contains("ir, julia-1.11"), "{unknown}");
    assert!(wanted(json!({})).is_err());
    assert!(wanted(json!({ "kernelspec": "nonsense" })).is_err());
}
