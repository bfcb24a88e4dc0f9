//! Several nodes on one NATS, each in a world of its own, with wires between them that can be cut.
//!
//! | file | holds |
//! |---|---|
//! | [`administrator`] | who changes NATS' streams by hand |
//! | [`link`] | a wire between a node and NATS |
//! | [`watcher`] | somebody who watches a run as a good client does |
//! | [`oracle`] | what all watchers must have seen |
//! | [`scene`] | one fault in the middle of a task |

pub mod administrator;
pub mod link;
pub mod oracle;
pub mod scene;
pub mod watcher;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use outlive_store_nats::testing::{NatsCluster, NatsServer, Options};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::clock::{PATIENCE, eventually, within};
use crate::command::{Finished, Running};
use crate::daemon::Daemon;
use crate::http::Api;
use crate::process::{Process, Signal};
use crate::runners::Group;
use crate::session::Session;
use crate::world::World;

pub use link::{Cut, Link};
pub use oracle::{agree, counted};
pub use watcher::{Account, Habit, Watcher};

/// The servers that the nodes share.
#[derive(Debug)]
pub enum Servers {
    /// One.
    One(NatsServer),
    /// Three that replicate.
    Three(NatsCluster),
}

impl Servers {
    fn ports(&self) -> Vec<u16> {
        match self {
            Self::One(server) => vec![server.port()],
            Self::Three(cluster) => cluster.servers.iter().map(NatsServer::port).collect(),
        }
    }
}

/// Nodes that share a NATS and a directory.
#[derive(Debug)]
pub struct Cluster {
    /// Ended before what it needs.
    pub members: Vec<Member>,
    /// What they share.
    pub servers: Servers,
    volume: TempDir,
    /// What every node is told besides, below `[cluster]`.
    told: String,
}

/// One node: a world with a daemon in it that may be killed, stopped, cut off and started again.
#[derive(Debug)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its home, its state and its processes.
    pub world: World,
    /// The daemon, while it runs.
    pub daemon: Option<Daemon>,
    links: Vec<Link>,
    more: Vec<String>,
}

impl Cluster {
    /// So many nodes on one server, which are ready and know each other.
    ///
    /// # Panics
    /// When they do not.
    #[must_use]
    #[track_caller]
    pub fn of(count: usize) -> Self {
        Self::over(Servers::One(NatsServer::start(&Options::default())), count)
    }

    /// So many nodes on three servers that replicate.
    ///
    /// # Panics
    /// When they do not.
    #[must_use]
    #[track_caller]
    pub fn replicated(count: usize) -> Self {
        Self::over(Servers::Three(NatsCluster::start(&Options::default())), count)
    }

    /// So many nodes over these servers.
    ///
    /// # Panics
    /// When they are not ready in time.
    #[must_use]
    #[track_caller]
    pub fn over(servers: Servers, count: usize) -> Self {
        Self::told(servers, count, "")
    }

    /// So many nodes on one server, which leave a live kernel to its node for as long as a test may take.
    ///
    /// # Panics
    /// When they are not ready in time.
    #[must_use]
    #[track_caller]
    pub fn patient(count: usize) -> Self {
        Self::told(Servers::One(NatsServer::start(&Options::default())), count, "kernel_grace = \"10m\"\n")
    }

    #[track_caller]
    fn told(servers: Servers, count: usize, told: &str) -> Self {
        let volume = tempfile::Builder::new().prefix("olv-").tempdir_in("/tmp").expect("/tmp can be written");
        let mut cluster = Self { members: Vec::new(), servers, volume, told: told.to_owned() };
        for n in 1..=count {
            let member = cluster.member(&format!("n{n}"));
            cluster.members.push(member);
        }
        for member in &mut cluster.members {
            member.begin();
        }
        cluster.wait_whole(count);
        cluster
    }

    /// A node that has not been started.
    #[must_use]
    pub fn member(&self, name: &str) -> Member {
        let links: Vec<Link> = self.servers.ports().into_iter().map(Link::to).collect();
        let world = World::new();
        let replicas = match self.servers {
            Servers::One(_) => 1,
            Servers::Three(_) => 3,
        };
        let config = format!(
            "[cluster]\nservers = [{}]\nname = \"{name}\"\nreplicas = {replicas}\n{}\n[cluster.volumes]\nshared = \"{}\"\n",
            links.iter().map(|link| format!("\"{}\"", link.url())).collect::<Vec<_>>().join(", "),
            self.told,
            self.volume().display(),
        );
        let folder = world.root().join("home/.config/outlive");
        fs::create_dir_all(&folder).expect("a world's files can be written");
        fs::write(folder.join("config.toml"), config).expect("a world's files can be written");
        Member { name: name.to_owned(), world, daemon: None, links, more: Vec::new() }
    }

    /// The directory that all nodes share.
    #[must_use]
    pub fn volume(&self) -> PathBuf {
        self.volume.path().canonicalize().expect("it exists")
    }

    /// Waits until every node that runs sees so many that are alive.
    ///
    /// # Panics
    /// When they do not within a minute.
    #[track_caller]
    pub fn wait_whole(&self, count: usize) {
        for member in self.members.iter().filter(|member| member.daemon.is_some()) {
            eventually(&format!("{} sees {count} nodes", member.name), within(PATIENCE), || {
                (member.alive() == count).then_some(())
            });
        }
    }

    /// Where a client may ask: every node, beginning with this one.
    #[must_use]
    pub fn places(&self, first: usize) -> Vec<Api> {
        let count = self.members.len();
        (0..count).map(|n| self.members[(first + n) % count].world.api()).collect()
    }

    /// The place of the node that owns a session, as any living node says.
    ///
    /// # Panics
    /// When nobody says so within a minute.
    #[must_use]
    #[track_caller]
    pub fn owner(&self, session: &str) -> usize {
        eventually(&format!("somebody owns {session}"), within(PATIENCE), || self.try_owner(session))
    }

    fn try_owner(&self, session: &str) -> Option<usize> {
        self.members.iter().filter(|member| member.daemon.is_some()).find_map(|member| {
            let path = format!("/v1/sessions/{session}");
            let connection = member.world.api().connect().ok()?;
            connection.set_read_timeout(Duration::from_secs(1)).ok()?;
            let mut connection = connection;
            let response = connection.request("GET", &path, None).ok()?;
            let owner = response.json()["node"].as_str()?.to_owned();
            self.members.iter().position(|member| member.name == owner)
        })
    }

    /// Waits until another node than this one owns a session, and gives its place.
    #[must_use]
    #[track_caller]
    pub fn moved_from(&self, session: &str, from: usize) -> usize {
        eventually(&format!("{session} has moved"), within(PATIENCE), || {
            self.try_owner(session).filter(|owner| *owner != from)
        })
    }

    /// A group of so many runners, brought up on a node and owned by it.
    #[must_use]
    #[track_caller]
    pub fn runners(&self, place: usize, name: &str, count: usize) -> Group {
        let world = &self.members[place].world;
        let group = Group::up(&world.api(), name, &self.group_config(place, count));
        group.wait_ready();
        group
    }

    /// What such a group is made with. A runner works wherever it is started.
    #[must_use]
    pub fn group_config(&self, place: usize, count: usize) -> Value {
        let mut config = self.members[place].world.group_config(count);
        for member in config["members"].as_array_mut().into_iter().flatten() {
            member["launch"]["cwd"] = json!(self.volume());
            // Nothing of the node where it was brought up goes with it.
            member["launch"]["env"] = json!({"LANG": "C.UTF-8", "PATH": "/usr/local/bin:/usr/bin:/bin"});
        }
        config
    }

    /// The same group, asked for at another node.
    #[must_use]
    #[track_caller]
    pub fn group_at(&self, place: usize, name: &str) -> Group {
        Group::existing(&self.members[place].world.api(), name)
    }

    /// A session, asked for at a node.
    #[must_use]
    pub fn session_at(&self, place: usize, id: &str) -> Session {
        Session::existing(&self.members[place].world.api(), id)
    }

    /// Watchers of a task: from each node one that stays, and one that wanders.
    #[must_use]
    pub fn watch_everywhere(&self, path: &str, seed: u64) -> Vec<Watcher> {
        let stay = (0..self.members.len()).map(|n| {
            let name = format!("who stays at {}", self.members[n].name);
            Watcher::begin(name, self.places(n), path, Habit::Stays)
        });
        let habit = Habit::Wanders(crate::random::Random::new(seed));
        stay.chain([Watcher::begin("who wanders", self.places(0), path, habit)]).collect()
    }
}

impl Member {
    /// Says more to `outlive serve` from now on.
    pub fn serve_with(&mut self, arguments: &[&str]) {
        self.more = arguments.iter().map(|&argument| argument.to_owned()).collect();
    }

    /// The command that starts its daemon.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = self.world.outlive(&["serve", "--tcp", "127.0.0.1:0"]);
        command.args(&self.more);
        command
    }

    /// Starts its daemon and waits until it is ready.
    ///
    /// # Panics
    /// When it runs already, or is not ready within a minute.
    #[track_caller]
    pub fn begin(&mut self) {
        assert!(self.daemon.is_none(), "{} runs", self.name);
        self.daemon = Some(Daemon::wait_ready(Running::start(&mut self.command()), &self.world.api()));
    }

    /// Its daemon.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    #[track_caller]
    pub fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name))
    }

    /// The machine is lost: everything on it dies at once, the daemon first.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn lose(&mut self) {
        let daemon = self.daemon.take().unwrap_or_else(|| panic!("{} does not run", self.name));
        daemon.signal(Signal::KILL);
        for process in self.everything() {
            crate::process::signal(process.pid, Signal::KILL);
        }
        drop(daemon.kill());
    }

    /// All processes of this node, and theirs.
    fn everything(&self) -> Vec<Process> {
        let all = crate::process::all();
        let mut found = self.world.processes();
        let mut looked = 0;
        while let Some(parent) = found.get(looked).map(|process| process.pid) {
            looked += 1;
            let children = all.iter().filter(|process| process.parent == parent);
            let new: Vec<_> =
                children.filter(|child| !found.iter().any(|known| known.pid == child.pid)).cloned().collect();
            found.extend(new);
        }
        found
    }

    /// Only its daemon dies; shims and what they supervise go on.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn kill(&mut self) -> Finished {
        self.daemon.take().unwrap_or_else(|| panic!("{} does not run", self.name)).kill()
    }

    /// Asks its daemon to end, which drains it.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn terminate(&mut self) -> Finished {
        self.daemon.take().unwrap_or_else(|| panic!("{} does not run", self.name)).terminate()
    }

    /// The whole machine stands still: daemon, shims, kernels and runners.
    #[track_caller]
    pub fn freeze(&self) {
        self.daemon().signal(Signal::STOP);
    }

    /// It goes on.
    #[track_caller]
    pub fn thaw(&self) {
        self.daemon().signal(Signal::CONT);
    }

    /// Cuts it off from NATS, and from nothing else.
    pub fn cut(&self, how: Cut) {
        self.links.iter().for_each(|link| link.cut(how));
    }

    /// Mends that.
    pub fn mend(&self) {
        self.links.iter().for_each(Link::mend);
    }

    /// How many nodes it sees that are alive.
    #[must_use]
    pub fn alive(&self) -> usize {
        let nodes = self.nodes();
        nodes.iter().filter(|node| node["state"] == "alive").count()
    }

    /// The nodes as it sees them; none while it does not answer.
    #[must_use]
    pub fn nodes(&self) -> Vec<Value> {
        let answer = self.world.api().try_request("GET", "/v1/nodes", None);
        let view = answer.ok().filter(|answer| answer.status == 200).map(|answer| answer.json());
        view.and_then(|view| view["nodes"].as_array().cloned()).unwrap_or_default()
    }

    /// A file of its world.
    #[must_use]
    pub fn file(&self, path: impl AsRef<Path>) -> PathBuf {
        self.world.root().join(path)
    }
}
