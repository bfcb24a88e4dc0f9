//! The machine was restarted while the process ran: its boot id is another one.

use super::{Finding, Rank};
use crate::diagnosis::case::Case;
use crate::diagnosis::cause::{CauseCode, Confidence};
use crate::diagnosis::lines;

pub(super) fn examine(case: &Case<'_>) -> Option<Finding> {
    let restart = case.evidence.machine_restart.as_ref()?;
    let summary = "the machine was restarted while it ran".to_owned();
    Some(
        Finding::new(Rank::Decision, CauseCode::MachineRestarted, Confidence::Certain, summary)
            .evidence([
                lines::fact("boot id", format!("at its start {}", restart.boot_before)),
                lines::fact("boot id", format!("now {}", restart.boot_now)),
            ])
            .remedy(
                "Run it again: output up to the restart is kept, the memory of the process is gone. `last -x reboot` \
                 and `journalctl -b -1 -e` tell why the machine went down.",
            ),
    )
}
