//! A world of its own for each test: a home, a daemon, a Python with ipykernel, and eyes for what is left behind.
//!
//! The harness knows Outlive only as its users do: by its binary, its HTTP API, its exit codes and its processes.
//! A step that a test takes for granted panics when it fails, and says what it waited for.
//!
//! ```text
//! World ── run, spawn ──► Finished, Running     the command line            (command)
//!   ├──── daemon ──────► Daemon                 `outlive serve`             (daemon)
//!   ├──── api ─────────► Api, Events            HTTP over the Unix socket   (http, events)
//!   ├──── kernel ──────► Session, Transcript    one session and its output  (session, transcript)
//!   ├──── untitled, open ► Session, Peer        a notebook, edited live     (session, peer, websocket)
//!   ├──── runners ─────► Group, Task            runners and their tasks     (runners)
//!   ├──── processes ───► Process                /proc                       (process)
//! Cluster ─ Member, Watcher, Link               several worlds on one NATS    (cluster)
//! ```

pub mod clock;
pub mod cluster;
pub mod command;
pub mod daemon;
pub mod events;
pub mod http;
pub mod notebook;
pub mod peer;
pub mod process;
pub mod random;
pub mod report;
pub mod runners;
pub mod session;
pub mod soak;
pub mod stress;
pub mod transcript;
pub mod websocket;
pub mod world;

pub use clock::{Deadline, within};
pub use cluster::{Cluster, Member, Watcher};
pub use command::{Finished, Running};
pub use daemon::Daemon;
pub use events::{Event, Events};
pub use http::{Api, Response};
pub use peer::Peer;
pub use process::{Process, Signal};
pub use runners::{Group, Task};
pub use session::Session;
pub use transcript::Transcript;
pub use world::World;
