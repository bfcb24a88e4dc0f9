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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use outlive_core::id::{Incarnation, ProcessKey, RuntimeId, SessionId};
    use outlive_core::runtime::{StopStep, StopWhy};
    use serde_json::{Value, json};
    use tokio_util::task::TaskTracker;
    use uuid::Uuid;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A machine without kernels, whose `uv` says through the pipe `alive` that it has begun, and then takes for ever.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new() -> Self {
            let place = tempfile::tempdir().unwrap();
            let uv = place.path().join("uv");
            let alive = place.path().join("alive");
            rustix::fs::mkfifoat(rustix::fs::CWD, &alive, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)
                .unwrap();
            // What it starts has the pipe as well: it ends with the last of them.
            let script = format!("#!/bin/sh\nexec 9>{}\necho begun >&9\n/bin/sleep 600\n", alive.display());
            fs::write(&uv, script).unwrap();
            fs::set_permissions(&uv, fs::Permissions::from_mode(0o755)).unwrap();
            Self(place)
        }

        fn order(&self, kernel: Option<&str>, metadata: Value, trust: Trust) -> LaunchOrder {
            let place = self.0.path().display().to_string();
            let env = BTreeMap::from([
                ("PATH".to_owned(), place.clone()),
                ("HOME".to_owned(), place.clone()),
                ("JUPYTER_PATH".to_owned(), format!("{place}/jupyter")),
            ]);
            let spec = LaunchSpec {
                program: Program::OfNotebook { kernel: kernel.map(str::to_owned), metadata },
                cwd: place,
                env,
                memory_bytes_max: None,
                ready_timeout_ms: 1_000,
            };
            let process =
                ProcessKey { runtime: RuntimeId::from_uuid(Uuid::from_u128(1)), incarnation: Incarnation(1) };
            let session = SessionId::from_uuid(Uuid::from_u128(2));
            LaunchOrder { session, process, spec, blobs: String::new(), trust }
        }

        async fn resolve(&self, order: &LaunchOrder) -> Resolved {
            let (_orders, mut heard) = mpsc::channel(1);
            let cache = self.0.path().join("cache");
            tokio::time::timeout(PATIENCE, resolve(order, &cache, &mut heard)).await.expect("it ends")
        }
    }

    fn needs(packages: &[&str]) -> Value {
        json!({ "kernelspec": { "name": "python3" }, "outlive": { "requirements": packages } })
    }

    fn failure(resolved: Resolved) -> LaunchEvidence {
        match resolved {
            Resolved::Failed(evidence) => *evidence,
            Resolved::Ready(spec) => panic!("{spec:?}"),
            Resolved::Stopped(_) | Resolved::Abandoned => panic!("nobody stopped it"),
        }
    }

    // C8
    #[tokio::test]
    async fn nothing_is_installed_for_a_notebook_that_nobody_vouches_for() {
        let machine = Machine::new();
        for packages in [&["numpy>=2", "pandas"][..], &[]] {
            let order = machine.order(None, needs(packages), Trust::Untrusted);
            let evidence = failure(machine.resolve(&order).await);
            assert_eq!(evidence.step, LaunchStep::Environment);
            assert!(evidence.message.contains("not trusted") && evidence.message.contains("trust it"));
            let named = packages.first().copied().unwrap_or("ipykernel");
            assert!(evidence.message.contains(named), "{}", evidence.message);
        }
        assert!(!machine.0.path().join("cache").exists(), "nothing was begun");
    }

    // A7
    #[tokio::test]
    async fn a_kernel_that_is_not_there_is_named_with_those_that_are() {
        let machine = Machine::new();
        let spec = machine.0.path().join("jupyter/kernels/ark");
        fs::create_dir_all(&spec).unwrap();
        let json = json!({ "argv": ["/bin/sh", "{connection_file}"], "display_name": "R", "language": "r" });
        fs::write(spec.join("kernel.json"), json.to_string()).unwrap();
        let order = machine.order(Some("arc"), Value::Null, Trust::Untrusted);
        let evidence = failure(machine.resolve(&order).await);
        assert_eq!(evidence.step, LaunchStep::Kernelspec);
        assert!(
            evidence.message.contains("`arc`") && evidence.message.contains("ark"),
            "{}",
            evidence.message
        );
        // One that is installed is started, also for a notebook that nobody vouches for: somebody asked for a run.
        let order = machine.order(Some("ark"), Value::Null, Trust::Untrusted);
        let Resolved::Ready(spec) = machine.resolve(&order).await else { panic!("it is there") };
        let Program::Kernel { display_name, .. } = &spec.program else { panic!("{:?}", spec.program) };
        assert_eq!((display_name.as_str(), spec.env["PWD"].as_str()), ("R", spec.cwd.as_str()));
    }

    // A7
    #[tokio::test]
    async fn a_stop_while_packages_are_fetched_ends_the_tool_with_all_that_it_started() {
        let machine = Machine::new();
        let order = machine.order(None, needs(&["numpy"]), Trust::Trusted);
        let (orders, mut heard) = mpsc::channel(4);
        let cache = machine.0.path().join("cache");
        let resolving = TaskTracker::new().spawn(async move { resolve(&order, &cache, &mut heard).await });
        let alive = machine.0.path().join("alive");
        let mut pipe = tokio::task::spawn_blocking(move || {
            let mut pipe = fs::File::open(alive).unwrap();
            let mut begun = [0; 6];
            pipe.read_exact(&mut begun).unwrap();
            pipe
        })
        .await
        .unwrap();
        orders.send(ToShim::Interrupt).await.unwrap();
        orders.send(ToShim::Stop { why: StopWhy::User, from: StopStep::Ask }).await.unwrap();
        let resolved = tokio::time::timeout(PATIENCE, resolving).await.expect("it does not wait").unwrap();
        let Resolved::Stopped(stop) = resolved else { panic!("it was stopped") };
        assert_eq!(stop.why, StopWhy::User);
        let ends = tokio::task::spawn_blocking(move || pipe.read_to_end(&mut Vec::new()).unwrap());
        tokio::time::timeout(PATIENCE, ends).await.expect("uv and its sleep are killed").unwrap();
    }
}
