//! Graphics processors: their memory ran out, or they failed.

use super::Finding;
use crate::diagnosis::case::{Case, Hit, Pattern, Weight};
use crate::diagnosis::cause::CauseCode;
use crate::diagnosis::lines;

/// CUDA, ROCm, Metal, and XLA's words for both.
const OUT_OF_MEMORY: &[Pattern] = &[
    &["cuda out of memory"],
    &["cuda error: out of memory"],
    &["cuda_error_out_of_memory"],
    &["hip out of memory"],
    &["mps backend out of memory"],
    &["cublas_status_alloc_failed"],
    &["resource_exhausted", "allocat"],
    &["kiogpucommandbuffercallbackerroroutofmemory"],
    &["[metal]", "insufficient memory"],
];

const FAULT: &[Pattern] = &[
    &["device-side assert triggered"],
    &["an illegal memory access was encountered"],
    &["cuda error: unspecified launch failure"],
    &["cuda error: the launch timed out"],
    &["cuda_error_illegal_address"],
    &["uncorrectable ecc error"],
    &["gpu has fallen off the bus"],
    &["gpu timeout error"],
    &["kiogpucommandbuffercallbackerror"],
    &["hip error: "],
];

pub(super) fn out_of_memory(case: &Case<'_>) -> Option<Finding> {
    let hit = case.find(OUT_OF_MEMORY)?;
    Some(finding(CauseCode::GpuOutOfMemory, "the graphics processor's memory ran out", hit).remedy(
        "Use a smaller batch, context or model, or lower precision; `nvidia-smi` (or Activity Monitor) shows what \
         else holds memory there, and restarting a kernel frees what it held.",
    ))
}

pub(super) fn fault(case: &Case<'_>) -> Option<Finding> {
    // Metal's code for want of memory is one of its errors too: it is told above.
    if case.find(OUT_OF_MEMORY).is_some_and(|hit| hit.weight == Weight::Strong) {
        return None;
    }
    let hit = case.find(FAULT)?;
    Some(finding(CauseCode::GpuFault, "the graphics processor failed", hit).remedy(
        "Run once with CUDA_LAUNCH_BLOCKING=1 to see which operation it was: an index out of range is the usual one. \
         A timeout on Metal means one command took too long: split the work. If it comes at random, check the \
         hardware (`dmesg | grep -i xid`).",
    ))
}

fn finding(code: CauseCode, what: &str, hit: Hit<'_>) -> Finding {
    let patterns = [OUT_OF_MEMORY, FAULT].concat();
    let said = hit.lines.iter().rfind(|line| crate::diagnosis::case::matches(line, &patterns));
    let said = said.map(|line| format!(": {}", line.trim())).unwrap_or_default();
    Finding::of_text(hit.weight, code, format!("{what}{said}"))
        .evidence(lines::evidence(hit.source, hit.lines))
}
