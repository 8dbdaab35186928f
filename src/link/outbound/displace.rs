//! A full queue that drops its oldest messages ([`WhenFull::DropOldest`]).
//!
//! ```text
//!             a byte of it was sent: it stays           |        may be displaced
//! queue  [ in this session | in an earlier session only ] [ oldest, ...     , newest ] <- new message
//!                 at most half of the capacity
//! ```
//!
//! State: `begun_limit`, which is half of the capacity on such a lane and [`NO_LIMIT`] on any other, and for
//! each message whether a byte of it was sent in an earlier session ([`BEGUN_BEFORE`](super::BEGUN_BEFORE)).
//!
//! Invariants:
//! - A message is displaced only if no byte of it was ever sent, in this session or in an earlier one. So no
//!   life of the peer has seen it, and offsets and order of the messages that remain do not change.
//! - Messages of which a byte was sent are the first ones of the queue: messages begin in the order of the
//!   queue, and a restart keeps that order.
//! - On such a lane these messages cost no more than `begun_limit`, as long as no message alone costs more
//!   than that ([`Config::validate`](crate::Config::validate) sees to it): no message begins that would pass
//!   the limit. So a new message always finds room on its lane, whatever the peer takes.
//! - The oldest go first, no more than needed, and none if that would not make room.
//!
//! [`WhenFull::DropOldest`]: crate::WhenFull::DropOldest

use crate::outcome::{DropReason, Outcome};
use crate::wire::stream::MAX_HEADER;

use super::{BOOKKEEPING, Ended, NOT_STARTED, Outbound, Run, Token, cost_of};

/// The value of `begun_limit` on a lane that drops nothing.
pub(super) const NO_LIMIT: usize = usize::MAX;

/// The oldest messages of a queue that may be displaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Oldest {
    pub(crate) messages: usize,
    /// Their cost in the queue.
    pub(crate) bytes: usize,
}

impl<T> Run<T> {
    /// Whether a byte of it was sent, in any session.
    pub(super) fn is_begun(&self) -> bool {
        self.start != NOT_STARTED
    }
}

impl<T: Token> Outbound<T> {
    /// Whether the next message may begin without passing the limit of what cannot be displaced.
    pub(super) fn is_below_begun_limit(&self) -> bool {
        if self.begun_limit == NO_LIMIT || self.started == 0 {
            return true;
        }
        let (Some(first), Some(next)) = (self.queue.front(), self.queue.get(self.started)) else {
            return true;
        };
        // Counts each header twice, and so too much rather than too little.
        let begun = (self.end - first.start) as usize + self.started * (BOOKKEEPING + MAX_HEADER);
        begun + next.cost() <= self.begun_limit
    }

    /// How many bytes too many a message of `len` bytes would be.
    pub(crate) fn excess(&self, len: usize) -> usize {
        (self.queued_bytes + cost_of(len)).saturating_sub(self.capacity)
    }

    /// Returns the oldest messages that free `bytes` bytes when they are displaced; `None` if the lane
    /// displaces nothing, or if all that it may displace is not enough.
    pub(crate) fn oldest(&self, bytes: usize) -> Option<Oldest> {
        // Not all of these bytes may be displaced; it is known without a look at the messages.
        let waiting = self.waiting_bytes as usize + (self.queue.len() - self.started) * cost_of(0);
        if self.begun_limit == NO_LIMIT || waiting < bytes {
            return None;
        }
        let first = self.queue.partition_point(Run::is_begun);
        let mut oldest = Oldest { messages: 0, bytes: 0 };
        for message in self.queue.range(first..) {
            if oldest.bytes >= bytes {
                break;
            }
            oldest.messages += 1;
            oldest.bytes += message.cost();
        }
        (oldest.bytes >= bytes).then_some(oldest)
    }

    /// Displaces so many of the oldest messages.
    pub(crate) fn displace(&mut self, oldest: Oldest, ended: &mut Vec<Ended<T>>) {
        let first = self.queue.partition_point(Run::is_begun);
        for _ in 0..oldest.messages {
            let Some(message) = self.queue.remove(first) else { break };
            self.end(message, Outcome::Dropped(DropReason::Displaced), ended);
        }
        self.compact();
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn check_begun(&self) {
        let first = self.queue.partition_point(Run::is_begun);
        assert!(self.queue.range(first..).all(|message| !message.is_begun()), "begun messages are the first");
        let bytes: usize = self.queue.range(..first).map(Run::cost).sum();
        assert!(bytes <= self.begun_limit || first == 1, "{bytes} bytes were begun");
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.
mod tests {
    use std::time::Instant;

    use bytes::Bytes;

    use super::*;
    use crate::lane::{LaneConfig, NORMAL, WhenFull};
    use crate::link::harness::Numbered;
    use crate::wire::batch::Batch;
    use crate::wire::control::{HelloLane, LaneAck};
    use crate::wire::stream::MessageKind;

    const LEN: usize = 400;
    const QUEUE: usize = 4096;

    fn numbers(ended: &[Ended<Numbered>]) -> Vec<usize> {
        let displaced = Outcome::Dropped(DropReason::Displaced);
        assert!(ended.iter().all(|ended| ended.outcome == displaced), "{ended:?}");
        ended.iter().flat_map(|ended| ended.tokens.iter()).map(|token| token.number).collect()
    }

    fn poll(out: &mut Outbound<Numbered>, max: usize) -> usize {
        let mut batch = Batch::default();
        let (bytes, _) = out.poll_chunk(
            NORMAL,
            Instant::now(),
            max,
            &mut batch,
            |tokens| tokens.first.awaited,
            &mut Vec::new(),
        );
        out.check();
        bytes
    }

    #[test]
    fn a_message_of_which_a_byte_was_sent_is_never_displaced_not_even_after_a_restart_of_the_peer() {
        let config = LaneConfig {
            max_message: LEN,
            queue: QUEUE,
            when_full: WhenFull::DropOldest,
            ..LaneConfig::default()
        };
        let mut out = Outbound::new(&config);
        let hello = HelloLane {
            lane: NORMAL,
            max_message: LEN as u32,
            max_untaken: 100,
            state: LaneAck { limit: 1 << 20, ..LaneAck::default() },
        };
        let mut ended = Vec::new();
        out.handle_hello(Some(&hello), true, &mut ended).unwrap();
        for number in 0..7 {
            let token = Numbered { number, awaited: true };
            out.push(MessageKind::Message, &Bytes::from(vec![number as u8; LEN]), None, token);
        }
        assert_eq!((poll(&mut out, 1), out.excess(LEN)), (1, 8 * cost_of(LEN) - QUEUE));
        let oldest = out.oldest(cost_of(LEN) + 1).unwrap();
        assert_eq!(oldest, Oldest { messages: 2, bytes: 2 * cost_of(LEN) });
        out.displace(oldest, &mut ended);
        out.check();
        assert_eq!(numbers(&ended), [1, 2], "the first one is on its way");
        // All that may be under way at a time: of 0, 3, 4, 5 and 6 those that cost half of the queue.
        while poll(&mut out, 10_000) > 0 {}
        assert!(!out.is_ready());
        assert_eq!(out.started, QUEUE / 2 / cost_of(LEN));
        assert_eq!(out.restart(&mut ended, |_, _| None), 3);
        out.check();
        assert_eq!(out.oldest(2 * cost_of(LEN) + 1), None, "no more than two were never begun");
        out.displace(out.oldest(2 * cost_of(LEN)).unwrap(), &mut ended);
        out.check();
        assert_eq!(numbers(&ended), [1, 2, 5, 6]);
        assert_eq!((out.ends.displaced, out.ends.dropped, out.queued()), (4, 0, (3, 3 * cost_of(LEN))));
    }

    #[test]
    fn a_lane_that_drops_nothing_displaces_nothing() {
        let mut out = Outbound::new(&LaneConfig { queue: QUEUE, ..LaneConfig::default() });
        out.push(
            MessageKind::Message,
            &Bytes::from_static(b"x"),
            None,
            Numbered { number: 0, awaited: false },
        );
        assert_eq!((out.oldest(1), out.oldest(0)), (None, None));
    }
}
