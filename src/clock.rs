//! The one place where the clock is read. Everything pure gets the time as an argument.

use std::time::Instant;

/// The monotonic clock: a step of the wall clock changes nothing.
#[allow(clippy::disallowed_methods)] // Its one home.
pub(crate) fn now() -> Instant {
    Instant::now()
}
