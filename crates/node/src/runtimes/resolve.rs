//! The kernel of a notebook, found or made when it is launched.
//!
//! In a thread of its own: where packages have to be fetched this takes minutes, which neither the daemon's end nor a
//! wish to stop waits for. An environment that was given up is made anew next time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outlive_core::diagnosis::evidence::{LaunchEvidence, LaunchStep, StopEvidence};
use outlive_core::runtime::{LaunchSpec, Program};
use outlive_core::session::spec::Trust;
use outlive_jupyter::environment::managed::MakeError;
use outlive_jupyter::environment::{Cancel, Making, ResolveError, ResolvedKernel, Wanted, resolve_with};
use outlive_jupyter::surroundings::Surroundings;
use outlive_protocol::shim::ToShim;
use tokio::sync::{mpsc, oneshot};

use super::directory::launch_evidence;
use crate::seams::LaunchOrder;
use crate::session::with_sources;

/// What came of it.
pub(super) enum Resolved {
    /// What is to be launched.
    Ready(Box<LaunchSpec>),
    /// Nothing, for this reason.
    Failed(Box<LaunchEvidence>),
    /// Nothing: it was stopped meanwhile.
    Stopped(StopEvidence),
    /// Nobody wants to know any more: the daemon ends.
    Abandoned,
}

/// Fills in the program of a launch that leaves it to the notebook. Any other is ready as it is.
pub(super) async fn resolve(
    order: &LaunchOrder,
    cache: &Path,
    orders: &mut mpsc::Receiver<ToShim>,
) -> Resolved {
    let Program::OfNotebook { kernel, metadata } = &order.spec.program else {
        return Resolved::Ready(Box::new(order.spec.clone()));
    };
    let wanted = Wanted::from_metadata(metadata, kernel.as_deref());
    let user = match user_variables(&order.spec) {
        Ok(user) => user,
        Err(error) => return Resolved::Failed(failed(LaunchStep::Kernelspec, error.to_string())),
    };
    let mut variables = user.clone();
    variables.insert("OUTLIVE_CACHE_DIR".to_owned(), cache.to_string_lossy().into_owned());
    let surroundings = Surroundings::new(variables, PathBuf::from(&order.spec.cwd));
    let cancel = Arc::new(Cancel::default());
    let cancelling = Cancelling(Arc::clone(&cancel));
    let (told, resolved) = oneshot::channel();
    let (session, trust) = (order.session, order.trust);
    let search = move || {
        let making = match trust {
            Trust::Trusted => Making::Until(&cancel),
            Trust::Untrusted => Making::Forbidden,
        };
        let found = resolve_with(&wanted, &surroundings, making, &mut |step| {
            tracing::info!(%session, "{step}");
        });
        // Nobody waits any more when it was stopped.
        let _gone = told.send(found);
    };
    if let Err(error) = std::thread::Builder::new().name("outlive-resolve".to_owned()).spawn(search) {
        return Resolved::Failed(failed(
            LaunchStep::Environment,
            format!("no thread can be started: {error}"),
        ));
    }
    let found = tokio::select! {
        biased;
        found = resolved => found,
        stopped = stopped(orders) => {
            drop(cancelling);
            return stopped.map_or(Resolved::Abandoned, Resolved::Stopped);
        }
    };
    match found {
        Ok(Ok(kernel)) => Resolved::Ready(Box::new(filled_in(&order.spec, user, kernel))),
        Ok(Err(error)) => Resolved::Failed(evidence(&error)),
        Err(_panicked) => {
            let text = "looking for the kernel failed: a defect of Outlive; the daemon's log has the details";
            Resolved::Failed(failed(LaunchStep::Environment, text.to_owned()))
        }
    }
}

/// Ends the search when nobody waits for it any more, for whatever reason.
struct Cancelling(Arc<Cancel>);

impl Drop for Cancelling {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// The wish to stop; `None` when nobody can wish any more. Nothing else can be wished of what is not there yet.
async fn stopped(orders: &mut mpsc::Receiver<ToShim>) -> Option<StopEvidence> {
    loop {
        if let ToShim::Stop { why, from } = orders.recv().await? {
            return Some(StopEvidence { why, step: from });
        }
    }
}

/// Those of the launch; the daemon's own when it has none.
fn user_variables(spec: &LaunchSpec) -> std::io::Result<BTreeMap<String, String>> {
    if !spec.env.is_empty() {
        return Ok(spec.env.clone());
    }
    Ok(Surroundings::of_this_process()?.variables().clone())
}

fn filled_in(spec: &LaunchSpec, user: BTreeMap<String, String>, kernel: ResolvedKernel) -> LaunchSpec {
    let (program, added) = kernel.into_program();
    let mut env = user;
    env.extend(added);
    // What a shell would say there; the one of whoever opened it would be wrong.
    env.insert("PWD".to_owned(), spec.cwd.clone());
    LaunchSpec { program, env, ..spec.clone() }
}

fn failed(step: LaunchStep, message: String) -> Box<LaunchEvidence> {
    Box::new(LaunchEvidence { step, ..launch_evidence(message) })
}

fn evidence(error: &ResolveError) -> Box<LaunchEvidence> {
    let step = match error {
        ResolveError::Find(_) | ResolveError::ProgramMissing { .. } => LaunchStep::Kernelspec,
        ResolveError::Make(_) | ResolveError::NotTrusted { .. } => LaunchStep::Environment,
    };
    let errno = match error {
        ResolveError::Make(MakeError::DiskFull { .. }) => Some(rustix::io::Errno::NOSPC.raw_os_error()),
        ResolveError::Find(_)
        | ResolveError::ProgramMissing { .. }
        | ResolveError::Make(_)
        | ResolveError::NotTrusted { .. } => None,
    };
    let mut evidence = failed(step, with_sources(error));
    evidence.errno = errno;
    evidence
}
