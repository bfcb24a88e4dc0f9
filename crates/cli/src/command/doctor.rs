//! `outlive doctor`: what Outlive needs, seen from here and from the daemon.

use std::process::{Command, Stdio};

use outlive_jupyter::kernelspec;
use outlive_jupyter::surroundings::Surroundings;
use outlive_protocol::http::{DoctorCheck, DoctorLevel, DoctorView};
use rustix::process::{Resource, getrlimit};

use crate::config::{Config, paths};
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::terminal::{self, Ink, Paint};

/// Fewest files that a daemon with a few dozen kernels needs.
const FILES_MIN: u64 = 1_024;

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Print the checks as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Does it. Starts no daemon: what is wrong may be the daemon.
    pub async fn run(self, daemon: &Daemon, config: &Config) -> Result<Exit, Failure> {
        let mut checks = vec![
            directory("state directory", "state_dir", config.state_dir.value.as_path()),
            directory("runtime directory", "runtime_dir", config.runtime_dir.value.as_path()),
            socket(config),
            program(
                "python",
                &["python3", "python"],
                "install Python 3, or name a kernel of another language",
            ),
            program("uv", &["uv"], "without it environments are made by pip, which takes longer"),
            kernels(),
            files(),
            cgroup(),
        ];
        checks.extend(from_daemon(daemon).await);
        let worst = checks.iter().map(|check| check.level).max().unwrap_or(DoctorLevel::Ok);
        if self.json {
            let text = serde_json::to_string_pretty(&DoctorView { checks }).expect("string keys");
            terminal::line(text)?;
        } else {
            let paint = Paint::out();
            checks.iter().try_for_each(|check| terminal::line(line(check, paint)))?;
        }
        Ok(if worst == DoctorLevel::Error { Exit::Failed } else { Exit::Ok })
    }
}

fn line(check: &DoctorCheck, paint: Paint) -> String {
    let (ink, mark) = match check.level {
        DoctorLevel::Ok => (Ink::Green, "ok     "),
        DoctorLevel::Warning => (Ink::Yellow, "warning"),
        DoctorLevel::Error => (Ink::Red, "error  "),
    };
    let mut line =
        format!("{} {}: {}", paint.text(ink, mark), paint.text(Ink::Bold, &check.name), check.found);
    if let Some(hint) = &check.hint {
        line.push_str(&format!("\n        {}", paint.text(Ink::Dim, hint)));
    }
    line
}

fn check(name: &str, level: DoctorLevel, found: impl Into<String>, hint: Option<String>) -> DoctorCheck {
    DoctorCheck { name: name.to_owned(), level, found: found.into(), hint }
}

fn directory(name: &str, setting: &str, path: &std::path::Path) -> DoctorCheck {
    match paths::private(path, setting) {
        Ok(()) => check(name, DoctorLevel::Ok, path.display().to_string(), None),
        Err(failure) => check(name, DoctorLevel::Error, failure.what, failure.hint),
    }
}

fn socket(config: &Config) -> DoctorCheck {
    match paths::socket_fits(&config.socket.value) {
        Ok(()) => check("socket", DoctorLevel::Ok, config.socket.value.display().to_string(), None),
        Err(failure) => check("socket", DoctorLevel::Error, failure.what, failure.hint),
    }
}

/// The first of some programs that says its version.
fn program(name: &str, candidates: &[&str], hint: &str) -> DoctorCheck {
    let said = candidates.iter().find_map(|candidate| {
        let output = Command::new(candidate).arg("--version").stdin(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    });
    match said {
        Some(version) => check(name, DoctorLevel::Ok, terminal::one_line(&version), None),
        None => check(name, DoctorLevel::Warning, "not found in the PATH", Some(hint.to_owned())),
    }
}

fn kernels() -> DoctorCheck {
    let surroundings = match Surroundings::of_this_process() {
        Ok(surroundings) => surroundings,
        Err(error) => {
            return check(
                "kernels",
                DoctorLevel::Error,
                format!("the current directory is gone: {error}"),
                None,
            );
        }
    };
    let found = kernelspec::list(&surroundings);
    let names: Vec<_> = found.kernels.keys().map(|name| terminal::one_line(name)).collect();
    if let Some(error) = found.broken.first() {
        let hint = "mend or remove it: it cannot be launched".to_owned();
        return check("kernels", DoctorLevel::Warning, error.to_string(), Some(hint));
    }
    if names.is_empty() {
        return check(
            "kernels",
            DoctorLevel::Ok,
            "none installed; one for Python is made when it is needed",
            None,
        );
    }
    check("kernels", DoctorLevel::Ok, names.join(", "), None)
}

fn files() -> DoctorCheck {
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < FILES_MIN => {
            let hint = "raise it with `ulimit -n`, or LimitNOFILE of the service".to_owned();
            check("open files", DoctorLevel::Warning, format!("at most {limit} in a process"), Some(hint))
        }
        Some(limit) => check("open files", DoctorLevel::Ok, format!("at most {limit} in a process"), None),
        None => check("open files", DoctorLevel::Ok, "no limit", None),
    }
}

/// Whether processes can be put into a cgroup, seen from here; the daemon may stand elsewhere.
fn cgroup() -> DoctorCheck {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let folder = own.lines().find_map(|line| line.strip_prefix("0::")).map(|path| {
        let mount = std::path::Path::new("/sys/fs/cgroup");
        let unified =
            if mount.join("cgroup.procs").exists() { mount.to_owned() } else { mount.join("unified") };
        unified.join(path.trim_start_matches('/'))
    });
    match folder {
        Some(folder) if rustix::fs::access(&folder, rustix::fs::Access::WRITE_OK).is_ok() => {
            check("cgroup", DoctorLevel::Ok, format!("writable: {}", folder.display()), None)
        }
        Some(_) | None => check(
            "cgroup",
            DoctorLevel::Warning,
            "not writable: processes are held by their group, memory limits by RLIMIT_AS",
            Some("run the daemon as a service with Delegate=yes".to_owned()),
        ),
    }
}

async fn from_daemon(daemon: &Daemon) -> Vec<DoctorCheck> {
    let (client, node) = match daemon.running().await {
        Ok(Some(running)) => running,
        Ok(None) => {
            return vec![check(
                "daemon",
                DoctorLevel::Ok,
                "none runs; one is started when it is needed",
                None,
            )];
        }
        Err(failure) => return vec![check("daemon", DoctorLevel::Error, failure.what, failure.hint)],
    };
    let found =
        format!("outlive {}, pid {}, log {}", node.version, node.pid, terminal::bytes(daemon.log_bytes()));
    let mut checks = vec![check("daemon", DoctorLevel::Ok, found, None)];
    match client.doctor().await {
        Ok(view) => checks.extend(view.checks.into_iter().map(|mut check| {
            check.name = format!("daemon's {}", check.name);
            check
        })),
        Err(error) => checks.push(check("daemon's checks", DoctorLevel::Error, error.to_string(), None)),
    }
    checks
}
