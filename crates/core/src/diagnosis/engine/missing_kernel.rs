//! No such kernel, or its kernelspec is unusable.

use super::{Finding, Rank};
use crate::diagnosis::case::Case;
use crate::diagnosis::cause::{CauseCode, Confidence};
use crate::diagnosis::evidence::LaunchStep;
use crate::diagnosis::lines;

pub(super) fn examine(case: &Case<'_>) -> Option<Finding> {
    let launch = case.evidence.launch.as_ref().filter(|launch| launch.step == LaunchStep::Kernelspec)?;
    let finding =
        Finding::new(Rank::Root, CauseCode::MissingKernel, Confidence::Certain, launch.message.clone());
    Some(finding.evidence(launch.path.as_ref().map(|path| lines::fact("kernelspec", path.clone()))).remedy(
        "`jupyter kernelspec list` shows those that are installed; `outlive doctor` shows where Outlive looks. For \
         Python: `python -m pip install ipykernel`, then `python -m ipykernel install --user`.",
    ))
}
