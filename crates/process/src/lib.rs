//! Operating-system processes: spawn, contain, watch, stop, gather evidence.
//!
//! The only crate with `unsafe`. It decides nothing: what is started and when it is stopped is said by the shim or the
//! daemon. Linux; what another system would need stands in [`cgroup`], [`watch`] and [`spawn`] alone.
//!
//! ```text
//! Launch ──spawn──► Spawned{ process, container, stdout, stderr }
//!                     │ process.exited().await   pidfd, 0.2 ms
//!                     │ process.reap()           exit status and usage
//!                     │ stdout.drain(..)         all that it wrote, though a grandchild holds the pipe
//!                     │ evidence                 memory, kernel log, disk
//!                     │ freeze                   until somebody thaws it
//!                     │ channel                  descriptors 3 and 4, where it was asked for
//!                     └ container.kill_all()     what it left behind; then container.remove()
//! ```

#![expect(
    unsafe_code,
    reason = "system calls that no safe wrapper has: wait4, fork hooks, inherited descriptors"
)]

pub mod alarm;
pub mod cgroup;
pub mod channel;
pub mod descriptors;
pub mod detached;
pub mod evidence;
pub mod freeze;
pub mod identity;
pub mod memory;
pub mod pipe;
pub mod reap;
pub mod signals;
pub mod spawn;
pub mod stop;
pub mod watch;

pub use alarm::Alarm;
pub use cgroup::Container;
pub use channel::{Channel, PipeWriter};
pub use identity::{ProcStat, is_same_process, machine_boot_id, start_time};
pub use pipe::Pipe;
pub use spawn::{Launch, SpawnError, Spawned, spawn};
pub use stop::sweep;
pub use watch::{Process, Reaped};

/// The environment variable that marks every process of one [`outlive_core::id::ProcessKey`], so that what escaped
/// its group and container is still found.
pub const MARKER: &str = "OUTLIVE_PROCESS";
