//! The one place where the clock is read. Everything pure gets the time as an argument.

use std::time::{Duration, Instant};

/// The monotonic clock: a step of the wall clock changes nothing.
#[allow(clippy::disallowed_methods)] // Its one home.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The instant after this time. A time beyond a lifetime is never reached, and would overflow.
pub(crate) fn after(time: Duration) -> Instant {
    const LIFETIME: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    now() + time.min(LIFETIME)
}
