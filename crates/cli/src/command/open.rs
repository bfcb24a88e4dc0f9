//! `outlive open`: a notebook becomes a session, or its session is joined. No kernel starts before something is run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use outlive_core::id::SessionId;
use outlive_core::session::spec::{StartWhen, Trust};
use outlive_protocol::http::{OpenSession, Opened};

use super::attach::quietly;
use super::rerun::Rerun;
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::{Failure, doing};
use crate::{launch, select, terminal};

/// Arguments.
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The notebook's file, or a session's id or its beginning
    #[arg(value_name = "PATH|ID")]
    what: PathBuf,
    /// The kernel to run it with [default: what the notebook asks for]
    #[arg(short, long, value_name = "NAME")]
    kernel: Option<String>,
    /// You vouch for the notebook: what it names may be installed, its kernel may start by itself
    #[arg(long)]
    trust: bool,
    /// Start the kernel now instead of with the first run (the notebook must be trusted)
    #[arg(long)]
    start: bool,
    /// What is run again by itself when its node is lost or drained
    #[arg(long, value_enum, default_value_t = Rerun::None)]
    rerun: Rerun,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Does it.
    pub async fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        let client = quietly(daemon).await?;
        let before = client.sessions(false).await?;
        let mut request = OpenSession {
            kernel: self.kernel.clone(),
            start: self.start.then_some(StartWhen::AtOnce),
            trust: self.trust.then_some(Trust::Trusted),
            env: Some(variables()?),
            on_node_loss: self.rerun.policy(),
            ..OpenSession::default()
        };
        let path = launch::utf8(&launch::absolute(&self.what)?)?;
        match self.what.to_str().and_then(|text| text.parse::<SessionId>().ok()) {
            Some(id) => request.id = Some(id),
            None if is_file(&path) => request.path = Some(path),
            // No file: what people type of an id, unless it fits none.
            None => match select::only(&client, &self.what.to_string_lossy()).await {
                Ok(session) => request.id = Some(session.id),
                Err(_) => request.path = Some(path),
            },
        }
        let opened = client.open(&request).await.map_err(|error| doing("open", error))?;
        let has_joined = before.iter().any(|session| session.id == opened.session_id);
        if let (Some(kernel), true) = (&self.kernel, has_joined) {
            terminal::talk(kept_kernel(&opened, kernel));
        }
        if self.start && opened.session.trust == Trust::Untrusted {
            let id = select::short(opened.session_id);
            terminal::talk(format!(
                "its kernel starts with the first run: nobody has vouched for the notebook (`outlive trust {id}`)"
            ));
        }
        tell(&opened, self.json)
    }
}

/// That a session which was open already keeps the kernel that it has, and how it gets another.
fn kept_kernel(opened: &Opened, wanted: &str) -> String {
    let (id, has) = (select::short(opened.session_id), terminal::one_line(&opened.session.runtime.name));
    let wanted = terminal::one_line(wanted);
    let again = match &opened.path {
        Some(path) => {
            format!("`outlive close {id}`, then `outlive open -k {wanted} {}`", terminal::one_line(path))
        }
        None => {
            format!("`outlive save {id} PATH`, `outlive close {id}`, then `outlive open -k {wanted} PATH`")
        }
    };
    format!("it was open already and keeps its kernel, {has}: `--kernel` has no effect. {again} changes it")
}

/// Whether there is something at a path as the daemon would read it.
fn is_file(path: &str) -> bool {
    Path::new(path).exists() || Path::new(&format!("{path}.ipynb")).exists()
}

/// The variables of this shell, for the kernel.
pub fn variables() -> Result<BTreeMap<String, String>, Failure> {
    Ok(launch::surroundings()?.variables().clone())
}

/// Says which session it is now: the id on standard output, the rest for people.
pub fn tell(opened: &Opened, json: bool) -> Result<Exit, Failure> {
    if json {
        terminal::line(serde_json::to_string_pretty(opened).expect("an answer has string keys"))?;
        return Ok(Exit::Ok);
    }
    terminal::line(opened.session_id)?;
    let id = select::short(opened.session_id);
    match &opened.path {
        Some(path) => terminal::talk(format!(
            "{} is open; `outlive watch {id}` shows it",
            terminal::one_line(&Path::new(path).display().to_string())
        )),
        None => terminal::talk(format!(
            "untitled; `outlive save {id} PATH` gives it a file, `outlive watch {id}` shows it"
        )),
    }
    Ok(Exit::Ok)
}
