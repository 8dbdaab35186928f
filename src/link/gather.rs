//! When a writer waits for more messages before it writes.
//!
//! A system call costs as much as a hundred small messages, and each one wakes a thread at the other end.
//! When the application sends faster than the writer writes, many messages gather during each write, and they
//! would go with fewer calls if the writer did not ask for more at once.
//!
//! ```text
//!            a write of MANY messages or more               ENOUGH bytes wait, WAIT has passed, or
//! at once ----------------------------------> gathering --- something urgent or of control is sent
//!    ^                                            |                          |
//!    +--------------------------------------------+--------------------------+
//!              a write of fewer messages
//! ```
//!
//! Invariants: what is urgent never waits here, nor does anything while fewer than [`MANY`] messages gather,
//! as with one question at a time; nothing waits here for longer than [`WAIT`].

use std::time::{Duration, Instant};

/// So many messages in one write say that they come faster than they are written.
const MANY: usize = 8;
/// The longest wait since the last write began. The kernel adds 50 us to a wait (timer slack, prctl(2)).
const WAIT: Duration = Duration::from_micros(50);
/// So many bytes are worth a write.
pub(super) const ENOUGH: u64 = 64 * 1024;

#[derive(Debug, Default)]
pub(super) struct Gather {
    until: Option<Instant>,
}

impl Gather {
    /// A write begins that takes so many messages.
    pub(super) fn handle_sent(&mut self, messages: usize, now: Instant) {
        self.until = (messages >= MANY).then(|| now + WAIT);
    }

    /// Until when messages that are not urgent wait, fewer than [`ENOUGH`] bytes of them.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| now < *until)
    }
}
