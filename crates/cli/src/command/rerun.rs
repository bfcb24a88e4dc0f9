//! What is run again by itself on another node, as people say it.

use outlive_core::session::spec::{AfterLoss, OnNodeLoss, Rerun as Policy};

/// What is run again when the node of a kernel is lost or drained.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Rerun {
    /// Nothing: what was interrupted ends, and what waited behind it
    #[default]
    None,
    /// What was interrupted, from its beginning, and what waited behind it
    Interrupted,
    /// All that the kernel had run, then what was interrupted
    All,
}

impl Rerun {
    /// The policy.
    pub const fn policy(self) -> OnNodeLoss {
        let rerun = match self {
            Self::None => Policy::None,
            Self::Interrupted => Policy::Interrupted,
            Self::All => Policy::All,
        };
        OnNodeLoss { rerun, kernel: AfterLoss::Restart }
    }
}
