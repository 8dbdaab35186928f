//! When a writer waits for more messages before it writes.
//!
//! A system call costs as much as a hundred small messages, and each one wakes a thread at the other end.
//! When the application sends faster than the writer writes, many messages gather during each write, and they
//! would go with fewer calls if the writer did not ask for more at once.
//!
//! ```text
//!            a write of `many` messages or more             ENOUGH bytes wait, `wait` has passed, or
//! at once ----------------------------------> gathering --- something urgent or of control is sent
//!    ^                                            |                          |
//!    +--------------------------------------------+--------------------------+
//!              a write of fewer messages
//! ```
//!
//! A thread that writes to many connections in turn ([`Writes::InTurn`]) does so for a stream of broadcasts.
//! Each connection gets few messages while it writes to the others, so there two messages are many, and the
//! wait is longer.
//!
//! Invariants: what is urgent never waits here, nor does anything while one message goes with each write, as
//! with one question at a time; nothing waits here for longer than `wait`, and the turn of its connection.

use std::time::{Duration, Instant};

/// The thread that writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writes {
    /// To this connection, or in a call for it.
    ForOne,
    /// To many connections, one after the other.
    InTurn,
}

impl Writes {
    /// So many messages in one write say that they come faster than they are written.
    fn many(self) -> usize {
        match self {
            Writes::ForOne => 8,
            Writes::InTurn => 2,
        }
    }

    /// The longest wait since the last write began. The kernel adds 50 us to a wait (timer slack, prctl(2)).
    fn wait(self) -> Duration {
        match self {
            Writes::ForOne => Duration::from_micros(50),
            Writes::InTurn => Duration::from_millis(2),
        }
    }
}

/// So many bytes are worth a write.
pub(crate) const ENOUGH: u64 = 64 * 1024;

#[derive(Debug, Default)]
pub(super) struct Gather {
    until: Option<Instant>,
}

impl Gather {
    /// A write begins that takes so many messages.
    pub(super) fn handle_sent(&mut self, messages: usize, writes: Writes, now: Instant) {
        self.until = (messages >= writes.many()).then(|| now + writes.wait());
    }

    /// Until when messages that are not urgent wait, fewer than [`ENOUGH`] bytes of them.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| now < *until)
    }
}
