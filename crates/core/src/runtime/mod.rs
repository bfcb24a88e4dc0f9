//! What is supervised: how it is launched, what state it is in, how it is stopped, when it is started again.

pub mod exit;
pub mod restart;
pub mod runner;
pub mod spec;
pub mod stop;
pub mod suspicion;

pub use exit::{ExitReport, ExitStatus};
pub use restart::{Ended, EndedHow, RestartDecision, RestartHistory, RestartPolicy, RestartType};
pub use spec::{InterruptMode, LaunchSpec, Program};
pub use stop::{StopStep, StopWhy};
pub use suspicion::{Heartbeat, Suspicion, Verdict};
