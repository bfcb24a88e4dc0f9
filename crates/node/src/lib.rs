//! The daemon's tasks: one for each session, one for each supervised process, and the watchers.
//!
//! | module | what it does |
//! |---|---|
//! | [`api`] | what a surface may ask of a node |
//! | [`node`] | the node: start, recovery, the answers, the end |
//! | [`session`] | the task that owns a session |
//! | `group` | the task that owns a group of runners |
//! | [`watch`] | readers of a session's or a run's log, live |
//! | [`runtimes`] | processes behind their shims |
//! | [`files`] | notebooks and claims on their paths |
//! | [`trust`] | which notebooks somebody has vouched for |
//! | [`moving`] | sessions that go from one store to another |
//! | [`seams`] | the traits through which alone the rest reaches the world |

pub mod api;
pub mod aside;
pub mod blobs;
pub mod budget;
pub mod bus;
mod causes;
pub mod clock;
pub mod cluster;
pub mod context;
pub mod doctor;
mod evict;
pub mod files;
mod group;
mod hosted;
pub mod ids;
pub mod lock;
pub mod metrics;
pub mod moving;
pub mod node;
mod problem;
pub mod runtimes;
pub mod seams;
pub mod session;
pub mod trust;
pub mod watch;

pub use node::{Node, NodeConfig, StartError};
