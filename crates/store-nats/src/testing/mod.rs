//! NATS servers for tests, also those of other crates: real processes on loopback with a store of their own, killed,
//! stopped and started again at will.
//!
//! Everything here blocks and needs no async runtime. A server ends when it is dropped; should the test process be
//! killed, a small shell that waits for that ends it.

mod config;
mod monitor;
mod ports;
mod process;
mod tls;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use config::{Access, JetStream, Options};
use config::{Config, Routes};
use process::Process;
use tempfile::TempDir;
pub use tls::{Authority, Certificate};

/// How long a server, or a cluster with its elections, may take to start on a busy machine.
const START: Duration = Duration::from_secs(60);

/// One running `nats-server`.
#[derive(Debug)]
pub struct NatsServer {
    config: Box<Config>,
    process: Option<Process>,
    /// Last, so that it is removed when nobody writes there any more.
    home: TempDir,
}

impl NatsServer {
    /// Starts a server of its own and waits until it takes work.
    ///
    /// # Panics
    /// When there is no `nats-server` or it does not start.
    #[must_use]
    #[track_caller]
    pub fn start(options: &Options) -> Self {
        let mut server = Self::prepare(options, "alone", ports::free(), None);
        server.restart();
        server
    }

    fn prepare(options: &Options, name: &str, ports: ports::Ports, routes: Option<Routes>) -> Self {
        let home = TempDir::with_prefix("outlive-nats-").expect("room for a folder");
        let config = Config { name: name.to_owned(), ports, options: options.clone(), routes };
        let server = Self { config: Box::new(config), process: None, home };
        server.write();
        server
    }

    /// Writes what the server is told.
    fn write(&self) {
        let write = |name: &str, text: &str| {
            fs::write(self.home.path().join(name), text).expect("room for a file");
        };
        write("nats.conf", &self.config.render(self.home.path()));
        if let Some(tls) = &self.config.options.tls {
            write(config::CERTIFICATE, &tls.certificate);
            write(config::KEY, &tls.key);
        }
    }

    /// `nats://127.0.0.1:PORT`, the same after a restart.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port())
    }

    /// The port for clients.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.config.ports.client
    }

    /// The server's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Its process, if it was not killed.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Where its files are.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// How many subscriptions its clients have.
    ///
    /// # Panics
    /// When it does not say.
    #[must_use]
    pub fn subscriptions(&self) -> u64 {
        monitor::subscriptions(self.config.ports.monitoring).expect("a running server says it")
    }

    /// Kills it with SIGKILL, if it runs, and waits for its end. What it stored stays.
    pub fn kill(&mut self) {
        drop(self.process.take());
    }

    /// Stops it with SIGSTOP, and returns when it stands still: its connections stay open and nobody answers.
    ///
    /// # Panics
    /// When it does not run.
    pub fn stop(&self) {
        self.running().stop();
    }

    /// Lets it go on after [`Self::stop`].
    ///
    /// # Panics
    /// When it does not run.
    pub fn cont(&self) {
        self.running().cont();
    }

    /// Kills it, if it runs, starts it on the same ports with what it stored, and waits until it takes work.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn restart(&mut self) {
        self.launch();
        self.wait_ready();
    }

    /// As [`Self::restart`] with other options, but for access.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn restart_with(&mut self, options: &Options) {
        self.kill();
        self.config.options = options.clone();
        self.write();
        self.restart();
    }

    fn launch(&mut self) {
        self.kill();
        self.process = Some(Process::start(self.home.path()));
    }

    #[track_caller]
    fn wait_ready(&self) {
        let began = monitor::now();
        while !monitor::is_healthy(self.config.ports.monitoring) {
            self.expect_start(began.elapsed() < START);
            monitor::pause();
        }
    }

    #[track_caller]
    fn expect_start(&self, so_far: bool) {
        let log = || fs::read_to_string(self.home.path().join("nats.log")).unwrap_or_default();
        assert!(so_far, "nats-server does not start; it said:\n{}", log());
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("it was not killed")
    }
}

/// Three servers that replicate what they store.
#[derive(Debug)]
pub struct NatsCluster {
    /// Each by itself, to be killed, stopped and started again.
    pub servers: Vec<NatsServer>,
}

impl NatsCluster {
    /// Starts three servers and waits until they know each other and take work.
    ///
    /// # Panics
    /// When they do not.
    #[must_use]
    #[track_caller]
    pub fn start(options: &Options) -> Self {
        let ports: Vec<_> = (0..3).map(|_| ports::free()).collect();
        let routes = Routes(ports.iter().map(|ports| ports.route).collect());
        let servers = ports.into_iter().enumerate();
        let mut servers: Vec<_> = servers
            .map(|(n, ports)| {
                let name = format!("n{}", n + 1);
                NatsServer::prepare(options, &name, ports, Some(routes.clone()))
            })
            .collect();
        servers.iter_mut().for_each(NatsServer::launch);
        let cluster = Self { servers };
        cluster.wait_whole();
        cluster
    }

    /// The addresses of all, comma-separated, as `--cluster` takes them.
    #[must_use]
    pub fn url(&self) -> String {
        let mut urls = String::new();
        for server in &self.servers {
            let comma = if urls.is_empty() { "" } else { "," };
            let _ = write!(urls, "{comma}{}", server.url());
        }
        urls
    }

    /// Waits until all three run and one of them leads.
    ///
    /// # Panics
    /// When that takes longer than a minute.
    #[track_caller]
    pub fn wait_whole(&self) {
        let began = monitor::now();
        while !self.is_whole() {
            self.servers.iter().for_each(|server| server.expect_start(began.elapsed() < START));
            monitor::pause();
        }
    }

    fn is_whole(&self) -> bool {
        let ports = || self.servers.iter().map(|server| server.config.ports.monitoring);
        ports().all(monitor::is_healthy)
            && (!self.servers[0].config.options.jetstream.is_on()
                || ports().any(monitor::leads_whole_cluster))
    }

    /// Which of [`Self::servers`] leads a stream; waits until one does.
    ///
    /// # Panics
    /// When none does within a minute.
    #[must_use]
    #[track_caller]
    pub fn leader_of(&self, stream: &str) -> usize {
        let began = monitor::now();
        loop {
            for server in self.servers.iter().filter(|server| server.process.is_some()) {
                let leader = monitor::stream_leader(server.config.ports.monitoring, stream);
                let running = |s: &NatsServer| s.process.is_some() && Some(s.name()) == leader.as_deref();
                if let Some(index) = self.servers.iter().position(running) {
                    return index;
                }
            }
            assert!(began.elapsed() < START, "nobody leads the stream {stream}");
            monitor::pause();
        }
    }
}

/// The program that tests start.
///
/// # Panics
/// When it is not there; says what to do.
pub fn program() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/nats/bin/nats-server");
    let program = std::env::var_os("OUTLIVE_NATS_SERVER").map_or(default, PathBuf::from);
    assert!(
        program.is_file(),
        "there is no nats-server at {}; run `cargo xtask nats`, or set OUTLIVE_NATS_SERVER",
        program.display()
    );
    program
}
