//! `outlive new`: a notebook without a file. It lives in the store until it is saved.

use outlive_core::id::SessionId;
use outlive_core::session::spec::StartWhen;
use outlive_protocol::http::NewSession;

use super::attach::quietly;
use super::open::{tell, variables};
use super::rerun::Rerun;
use crate::client::CallError;
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::{Failure, doing};
use crate::launch;

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
        let opened = client.new_session(&request).await.map_err(refused)?;
        tell(&opened, self.json)
    }
}

/// An id of a session that is over never begins again.
fn refused(error: CallError) -> Failure {
    let is_over = matches!(&error, CallError::Refused(problem) if problem.code == "session-ended");
    let failure = doing("make a notebook", error);
    if is_over {
        failure.hint("give another `--id`, or none; `outlive logs` and `outlive explain` show what it did")
    } else {
        failure
    }
}
