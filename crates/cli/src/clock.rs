//! The wall clock, read in one place.

use outlive_core::time::WallTime;

/// The present, for ages that people read.
#[expect(clippy::disallowed_methods, reason = "the client's only look at the clock")]
pub fn now() -> WallTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    WallTime(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
