//! `outlive new`: a notebook without a file. It lives in the store until it is saved.

use outlive_core::id::SessionId;
use outlive_core::session::spec::StartWhen;
use outlive_protocol::http::{NewSession, SessionView};

use super::attach::quietly;
use super::open::{tell, variables};
use super::rerun::Rerun;
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::{Failure, doing};
use crate::{hint, launch};

/// Arguments.
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The kernel to run it with [default: python3]
    #[arg(short, long, value_name = "NAME")]
    kernel: Option<String>,
    /// Your id for it (a UUID); the same again is the same session
    #[arg(long, value_name = "UUID")]
    id: Option<SessionId>,
    /// Start the kernel now instead of with the first run
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
        let request = NewSession {
            id: self.id,
            kernel: self.kernel,
            start: self.start.then_some(StartWhen::AtOnce),
            cwd: Some(launch::utf8(&launch::absolute(std::path::Path::new("."))?)?),
            env: Some(variables()?),
            memory_bytes_max: None,
            on_node_loss: self.rerun.policy(),
        };
        let opened = client.new_session(&request).await.map_err(|error| doing("make a notebook", error))?;
        if opened.session.closed_at.is_some() {
            return Err(ended(&opened.session));
        }
        tell(&opened, self.json)
    }
}

/// The id that was given is that of a session which is over: it never begins again.
fn ended(session: &SessionView) -> Failure {
    let what = format!("cannot make a notebook: the session {} has ended", session.id);
    Failure::new(Exit::Failed, what).hint(format!("give another `--id`; {}", hint::ended(session)))
}
