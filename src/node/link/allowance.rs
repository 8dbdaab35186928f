//! For how much of its time a thread of the application writes itself.
//!
//! Waking a writer that sleeps costs more than a small write: the call of `send` that follows a pause makes
//! it itself. When calls come in a row, one write for each costs more than waking the writer once, which then
//! takes many messages with one call. So a thread has an allowance: it grows by a [`SHARE`] of the time that
//! passes, up to [`MOST`], and is spent by the time that its writes take. A broadcast to a thousand peers
//! after a pause is written whole; a stream of them is left to the writers but for that share.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::clock;
use crate::conn::{ConnHandle, Port, writer};

/// One in so many.
const SHARE: u32 = 5;
const MOST: Duration = Duration::from_millis(20);
/// With less left the writer is woken. More than most writes take, so that none spends what is not there.
const LEAST: Duration = Duration::from_micros(100);

thread_local! {
    /// What is left of this thread's allowance, and when that was.
    static LEFT: Cell<Option<(Duration, Instant)>> = const { Cell::new(None) };
}

/// Writes what the link has for this connection, or wakes its writer.
pub(super) fn write_now(conn: &ConnHandle, port: &impl Port) {
    let start = clock::now();
    let left = left(LEFT.get(), start);
    if left < LEAST {
        return conn.wake();
    }
    writer::write_now(conn, port, start);
    let end = clock::now();
    LEFT.set(Some((left.saturating_sub(end.saturating_duration_since(start)), end)));
}

fn left(before: Option<(Duration, Instant)>, now: Instant) -> Duration {
    before.map_or(MOST, |(left, at)| MOST.min(left + now.saturating_duration_since(at) / SHARE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_spent_by_writes_and_grows_with_a_share_of_the_time() {
        let now = clock::now();
        assert_eq!(left(None, now), MOST);
        let ms = Duration::from_millis;
        assert_eq!(left(Some((Duration::ZERO, now)), now), Duration::ZERO);
        assert_eq!(left(Some((ms(2), now)), now + ms(10)), ms(4));
        assert_eq!(left(Some((ms(2), now)), now + ms(1000)), MOST);
    }
}
