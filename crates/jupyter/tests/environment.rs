//! Which kernel a notebook gets, and what happens when a Python environment has to be made. The tools are stand-ins
//! that behave as told; that the real ones work, tests/ipykernel.rs shows with each of its kernels.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use outlive_core::runtime::InterruptMode;
use outlive_jupyter::environment::managed::MakeError;
use outlive_jupyter::environment::{Origin, Progress, ResolveError, ResolvedKernel, Wanted, resolve};
use outlive_jupyter::surroundings::Surroundings;
use serde_json::json;

struct Machine {
    root: tempfile::TempDir,
    variables: BTreeMap<String, String>,
    directory: PathBuf,
}

impl Machine {
    /// No Python at all; PATH has the shell's tools for the stand-ins, in a folder of their own.
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("project/notebooks");
        fs::create_dir_all(&directory).unwrap();
        fs::create_dir_all(root.path().join("bin")).unwrap();
        let here = Surroundings::of_this_process().unwrap();
        for tool in ["sh", "mkdir", "cat", "chmod"] {
            std::os::unix::fs::symlink(here.program(tool).unwrap(), root.path().join("bin").join(tool))
                .unwrap();
        }
        let mut variables = BTreeMap::new();
        variables.insert("HOME".into(), root.path().join("home").to_str().unwrap().to_owned());
        variables.insert("PATH".into(), root.path().join("bin").to_str().unwrap().to_owned());
        Self { root, variables, directory }
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.root.path().join(relative)
    }

    fn set(&mut self, name: &str, relative: &str) {
        let value = self.path(relative).to_str().unwrap().to_owned();
        self.variables.insert(name.to_owned(), value);
    }

    fn program(&self, relative: &str, script: &str) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// An environment whose Python says whether it has ipykernel.
    fn environment(&self, prefix: &str, has_ipykernel: bool) {
        self.program(&format!("{prefix}/bin/python"), &format!("exit {}", u8::from(!has_ipykernel)));
        fs::write(self.path(prefix).join("pyvenv.cfg"), "").unwrap();
    }

    /// A Python on PATH with a working `venv`; `pip` is what the made environment's Python does for `-m pip`.
    fn python(&self, pip: &str) {
        let made = format!("#!/bin/sh\nif [ \"$2\" = pip ]; then\n{pip}\nfi\nexit 0\n");
        fs::write(self.path("made-python"), made).unwrap();
        let script = format!(
            "case \"$1 $2\" in\n'-I -c') echo cpython-312 /usr;;\n'-m venv')\n\
             echo made >> {count}\nmkdir -p \"$3/bin\" && cat {source} > \"$3/bin/python\" && chmod 755 \"$3/bin/python\";;\nesac",
            count = self.path("count").display(),
            source = self.path("made-python").display(),
        );
        self.program("bin/python3", &script);
    }

    fn times_made(&self) -> usize {
        fs::read_to_string(self.path("count")).unwrap_or_default().lines().count()
    }

    fn kernel(&self, data: &str, name: &str, spec: &serde_json::Value) {
        let folder = self.path(data).join("kernels").join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("kernel.json"), spec.to_string()).unwrap();
    }

    fn surroundings(&self) -> Surroundings {
        Surroundings::new(self.variables.clone(), self.directory.clone())
    }

    fn resolve(&self, wanted: &Wanted) -> Result<ResolvedKernel, ResolveError> {
        resolve(wanted, &self.surroundings(), &mut |_| {})
    }

    fn python3(&self) -> ResolvedKernel {
        self.resolve(&Wanted::default()).unwrap()
    }
}

fn named(kernel: &str) -> Wanted {
    Wanted { kernel: Some(kernel.to_owned()), ..Wanted::default() }
}

#[test]
fn the_nearest_python_with_ipykernel_is_taken() {
    let mut machine = Machine::new();
    machine.python("true");
    let made = machine.python3();
    assert!(
        matches!(&made.origin, Origin::Managed(prefix) if prefix.starts_with(machine.path("home/.cache/outlive")))
    );

    machine.environment("project/.venv", true);
    let project = machine.python3();
    assert_eq!(project.origin, Origin::Project(machine.path("project/.venv")));
    assert_eq!(project.argv[0], machine.path("project/.venv/bin/python").to_str().unwrap());
    assert_eq!(
        project.argv[1..],
        ["-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    );
    assert_eq!(project.env["VIRTUAL_ENV"], machine.path("project/.venv").to_str().unwrap());
    let path: Vec<_> = std::env::split_paths(&project.env["PATH"]).collect();
    assert_eq!(path, [machine.path("project/.venv/bin"), machine.path("bin")]);

    let spec =
        json!({ "argv": ["python3", "-f", "{connection_file}"], "display_name": "P", "language": "python" });
    machine.kernel("home/.local/share/jupyter", "python3", &spec);
    assert!(matches!(machine.python3().origin, Origin::Kernelspec(_)));

    machine.environment("active", true);
    machine.set("VIRTUAL_ENV", "active");
    assert_eq!(machine.python3().origin, Origin::Active(machine.path("active")));

    machine.environment("active", false);
    assert!(
        matches!(machine.python3().origin, Origin::Kernelspec(_)),
        "an environment without ipykernel is passed over"
    );
}

#[test]
fn a_name_is_taken_at_its_word() {
    let machine = Machine::new();
    machine.python("true");
    let data = "home/.local/share/jupyter";
    let spec = json!({
        "argv": ["{prefix}/bin/ark", "{connection_file}"], "display_name": "R", "language": "R",
        "interrupt_mode": "message", "env": { "R_HOME": "${HOME}/r", "KEPT": "${UNKNOWN} $HOME ${" },
    });
    machine.kernel(data, "ark", &spec);
    machine.program("home/.local/bin/ark", "");
    let kernel = machine.resolve(&named("ark")).unwrap();
    assert_eq!(kernel.argv[0], machine.path("home/.local/bin/ark").to_str().unwrap());
    assert_eq!(kernel.interrupt_mode, InterruptMode::Message);
    assert_eq!(kernel.env["R_HOME"], machine.path("home/r").to_str().unwrap());
    assert_eq!(kernel.env["KEPT"], "${UNKNOWN} $HOME ${");
    assert_eq!(kernel.resource_dir, Some(machine.path(data).join("kernels/ark")));

    let notebook = Wanted::from_metadata(&json!({ "language_info": { "name": "R" } }), None);
    assert_eq!(machine.resolve(&notebook).unwrap().name, "ark");

    let error = machine.resolve(&named("arc")).unwrap_err();
    assert!(matches!(error, ResolveError::Find(_)));
    assert!(error.to_string().contains("ark"), "{error}");
    assert!(matches!(machine.resolve(&named("python3")).unwrap().origin, Origin::Managed(_)));
    assert_eq!(machine.times_made(), 1, "an unknown name makes no environment");
}

// A7
#[test]
fn a_kernelspec_of_a_removed_environment_is_passed_over_or_named() {
    let machine = Machine::new();
    machine.python("true");
    let spec = json!({ "argv": ["/gone/bin/python", "-f"], "display_name": "P", "language": "python" });
    machine.kernel("home/.local/share/jupyter", "python3", &spec);
    machine.kernel("home/.local/share/jupyter", "old", &spec);
    assert!(matches!(machine.python3().origin, Origin::Managed(_)));
    let error = machine.resolve(&named("old")).unwrap_err();
    assert!(matches!(error, ResolveError::ProgramMissing { .. }));
    assert!(error.to_string().contains("/gone/bin/python"), "{error}");
}

#[test]
fn a_wheels_bare_python_is_its_own() {
    let mut machine = Machine::new();
    machine.environment("conda", false);
    fs::remove_file(machine.path("conda/pyvenv.cfg")).unwrap();
    let spec = json!({ "argv": ["python", "-f"], "display_name": "P", "language": "python" });
    machine.kernel("conda/share/jupyter", "python3", &spec);
    machine.set("CONDA_PREFIX", "conda");
    assert_eq!(machine.python3().argv[0], machine.path("conda/bin/python").to_str().unwrap());
}

#[test]
fn an_environment_is_made_once_for_each_set_of_packages() {
    let machine = Machine::new();
    machine.python("echo \"$@\" >> \"$0.installed\"");
    let needs = |list: &[&str]| {
        let metadata = json!({ "outlive": { "requirements": list }, "kernelspec": { "name": "python3" } });
        Wanted::from_metadata(&metadata, None)
    };
    let first = machine.resolve(&needs(&["pandas>=2", "numpy"])).unwrap();
    let again = machine.resolve(&needs(&["numpy", " pandas>=2"])).unwrap();
    assert_eq!(first, again);
    assert_eq!(machine.times_made(), 1);
    let installed = fs::read_to_string(format!("{}.installed", first.argv[0])).unwrap();
    assert!(installed.trim_end().ends_with("-- ipykernel<8 numpy pandas>=2"), "{installed}");
    assert_ne!(machine.resolve(&needs(&[])).unwrap().origin, first.origin);
    assert_eq!(machine.times_made(), 2);
}

#[test]
fn a_notebook_with_requirements_gets_its_own_environment_unless_a_kernel_is_asked_for() {
    let mut machine = Machine::new();
    machine.python("true");
    machine.environment("active", true);
    machine.set("VIRTUAL_ENV", "active");
    let metadata = json!({ "outlive": { "requirements": ["numpy"] } });
    let wanted = Wanted::from_metadata(&metadata, None);
    assert!(matches!(machine.resolve(&wanted).unwrap().origin, Origin::Managed(_)));
    let spec = json!({ "argv": ["python3"], "display_name": "P", "language": "python" });
    machine.kernel("home/.local/share/jupyter", "python3", &spec);
    let wanted = Wanted::from_metadata(&metadata, Some("python3"));
    assert!(matches!(machine.resolve(&wanted).unwrap().origin, Origin::Kernelspec(_)));
}

#[test]
fn the_cache_is_where_the_user_wants_it() {
    let mut machine = Machine::new();
    machine.python("true");
    for (variable, folder) in
        [("XDG_CACHE_HOME", "xdg/outlive/environments"), ("OUTLIVE_CACHE_DIR", "mine/environments")]
    {
        machine.set(variable, folder.split('/').next().unwrap());
        let Origin::Managed(prefix) = machine.python3().origin else { panic!("made") };
        assert_eq!(prefix.parent().unwrap(), machine.path(folder));
    }
}

#[test]
fn an_interrupted_environment_is_made_anew() {
    let machine = Machine::new();
    machine.python("exit 1");
    machine.resolve(&Wanted::default()).unwrap_err();
    machine.python("true");
    let Origin::Managed(prefix) = machine.python3().origin else { panic!("made") };
    // As a kill in mid-install leaves it.
    fs::remove_file(prefix.join("outlive-complete")).unwrap();
    fs::write(prefix.join("half"), "").unwrap();
    machine.python3();
    assert!(!prefix.join("half").exists());
    // As a removed base Python leaves it.
    fs::remove_file(prefix.join("bin/python")).unwrap();
    machine.python3();
    assert_eq!(machine.times_made(), 4);
}

#[test]
fn two_makers_of_one_environment_make_it_once() {
    let machine = Machine::new();
    machine.python("true");
    let prefixes: Vec<_> = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..4).map(|_| scope.spawn(|| machine.python3().origin)).collect();
        makers.into_iter().map(|maker| maker.join().unwrap()).collect()
    });
    assert!(prefixes.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(machine.times_made(), 1);
}

// A7
#[test]
fn what_fails_is_told_with_the_tools_own_words_and_a_remedy() {
    let error = Machine::new().resolve(&Wanted::default()).unwrap_err();
    assert!(matches!(error, ResolveError::Make(MakeError::NoPython)));
    assert!(error.to_string().contains("install Python"), "{error}");

    let failing = |pip: &str| {
        let machine = Machine::new();
        machine.python(pip);
        let mut lines = Vec::new();
        let error =
            resolve(&Wanted::default(), &machine.surroundings(), &mut |progress| lines.push(progress));
        (error.unwrap_err(), lines)
    };
    let offline = "echo 'Looking for links'\necho 'NewConnectionError(...): Temporary failure in name resolution' >&2\nexit 1";
    let (error, lines) = failing(offline);
    let text = error.to_string();
    assert!(
        text.contains("check the network")
            && text.contains("| Looking for links")
            && text.contains("exit status: 1"),
        "{text}"
    );
    assert!(matches!(&lines[0], Progress::Creating(_)));
    assert!(matches!(&lines[1], Progress::Installing(packages) if packages == &["ipykernel<8"]));
    assert_eq!(lines[2], Progress::Output("Looking for links".to_owned()));

    let (error, _) = failing("echo 'OSError: [Errno 28] No space left on device'\nexit 1");
    assert!(matches!(error, ResolveError::Make(MakeError::DiskFull { .. })), "{error}");

    let (error, _) = failing("echo 'ERROR: No matching distribution found for nunpy'\nexit 1");
    assert!(error.to_string().contains("outlive.requirements"), "{error}");
}

#[test]
fn uv_is_preferred_where_it_is() {
    let machine = Machine::new();
    machine.python("echo 'pip was used'\nexit 1");
    let script = format!(
        "echo \"$@\" >> {log}\nif [ \"$1\" = venv ]; then mkdir -p \"$2/bin\" && cat {source} > \"$2/bin/python\" && chmod 755 \"$2/bin/python\"; fi",
        log = machine.path("uv-log").display(),
        source = machine.path("made-python").display(),
    );
    machine.program("bin/uv", &script);
    let Origin::Managed(prefix) = machine.python3().origin else { panic!("made") };
    let log = fs::read_to_string(machine.path("uv-log")).unwrap();
    let python3 = machine.path("bin/python3");
    let expected = format!(
        "venv {prefix} --python {python3}\npip install --python {prefix}/bin/python -- ipykernel<8\n",
        prefix = prefix.display(),
        python3 = python3.display(),
    );
    assert_eq!(log, expected);
    assert!(Path::new(&prefix).join("outlive-complete").exists());
}
