//! For how much of its time a thread of the application writes itself.
//!
//! Waking a writer that sleeps costs more than a small write: the call of `send` that follows a pause makes
//! it itself. When calls come in a row, one write for each costs more than waking the writer once, which then
//! takes many messages with one call. So a thread has an allowance: it is spent by the time that its writes
//! take, and grows by a [`SHARE`] of each pause between two calls, up to [`MOST`]: a broadcast to 300 peers
//! after a pause is written whole. A stream is left to the writers, or to the [thread](crate::node::fan_out)
//! that writes to many peers.
//!
//! A pause may be one of the scheduler's: on a busy machine a thread that sends all the time has an allowance
//! again each time that others had the processor. So [`MOST`] bounds what a thread spends at the start of
//! a stream.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::clock;
use crate::conn::{ConnHandle, Port, writer};

/// One in so many.
const SHARE: u32 = 5;
const MOST: Duration = Duration::from_millis(5);
/// With less left the writer is woken. More than most writes take, so that none spends what is not there.
const LEAST: Duration = Duration::from_micros(100);
/// The most that one write counts: the rest is what other threads did meanwhile, because the processor was
/// taken away.
const WRITE: Duration = Duration::from_micros(50);
/// Calls that follow each other faster come in a row.
const PAUSE: Duration = Duration::from_micros(20);

thread_local! {
    static OF_THIS_THREAD: Cell<Option<Allowance>> = const { Cell::new(None) };
    /// It has called since it wrote last, or woke a writer.
    static HAS_CALLED: Cell<bool> = const { Cell::new(false) };
}

#[derive(Clone, Copy, Debug)]
struct Allowance {
    left: Duration,
    /// The end of the last call.
    called: Instant,
}

impl Allowance {
    /// A call has something to write. `in_a_row`: the thread has made others since the last one that had.
    fn at_call(before: Option<Allowance>, in_a_row: bool, now: Instant) -> Allowance {
        let Some(Allowance { left, called }) = before else { return Allowance { left: MOST, called: now } };
        let pause = now.saturating_duration_since(called);
        let grown = if in_a_row || pause < PAUSE { left } else { MOST.min(left + pause / SHARE) };
        Allowance { left: grown, called: now }
    }

    /// The write of the call ends.
    fn at_end(self, end: Instant) -> Allowance {
        let took = end.saturating_duration_since(self.called).min(WRITE);
        Allowance { left: self.left.saturating_sub(took), called: end }
    }
}

/// This thread has called the library, and there was nothing to write for it: a writer is awake.
pub(super) fn note_call() {
    HAS_CALLED.set(true);
}

/// Writes what the link has for this connection, or wakes its writer.
pub(crate) fn write_now(conn: &ConnHandle, port: &impl Port) {
    if !try_write_now(conn, port) {
        conn.wake();
    }
}

/// Writes what the link has for this connection. False, and nothing is done, if this thread has written
/// for too much of its time.
pub(crate) fn try_write_now(conn: &ConnHandle, port: &impl Port) -> bool {
    let start = clock::now();
    let allowance = Allowance::at_call(OF_THIS_THREAD.get(), HAS_CALLED.take(), start);
    OF_THIS_THREAD.set(Some(allowance));
    if allowance.left < LEAST {
        return false;
    }
    writer::write_now(conn, port, start);
    OF_THIS_THREAD.set(Some(allowance.at_end(clock::now())));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_spent_by_writes_and_grows_with_a_share_of_pauses() {
        let now = clock::now();
        let (us, ms) = (Duration::from_micros, Duration::from_millis);
        let mut allowance = Allowance::at_call(None, false, now);
        assert_eq!(allowance.left, MOST);
        allowance = allowance.at_end(now + us(40));
        assert_eq!(allowance.left, MOST - us(40));
        allowance = Allowance { left: ms(1), called: now + ms(15) };
        // Calls in a row: it does not grow.
        for call in 0..1000 {
            allowance = Allowance::at_call(Some(allowance), false, now + ms(15) + us(10) * call);
        }
        assert_eq!(allowance.left, ms(1));
        let called = allowance.called;
        assert_eq!(Allowance::at_call(Some(allowance), false, called + ms(10)).left, ms(3));
        assert_eq!(Allowance::at_call(Some(allowance), true, called + ms(10)).left, ms(1));
        assert_eq!(Allowance::at_call(Some(allowance), false, called + ms(1000)).left, MOST);
        assert_eq!(allowance.at_end(called + ms(6)).left, ms(1) - WRITE, "the processor was taken away");
        let spent = Allowance { left: us(30), called };
        assert_eq!(spent.at_end(called + us(40)).left, Duration::ZERO);
    }
}
