//! Budgets for frames that cost more than they carry.
//!
//! Bytes pay for themselves: credit and the peer's own line bound them. A frame that brings next to nothing
//! costs this side as much as one that brings 1 MiB, so each kind has a token bucket. **An honest sender
//! never empties one, at any speed**, because what an honest one cannot avoid is free or earned:
//!
//! | what is counted | costs | is paid for by | at once | per second |
//! |---|---|---|---|---|
//! | a chunk | 64 bytes | its new bytes; a 16th of those that came before; 64 for each message that it ends; 64 for each acknowledgement of ours that raised the limit | 262,144 (4,096 empty chunks) | 16,384 |
//! | a lane in an acknowledgement | 1 | 1 for each chunk sent, 1 for each message that it ends, 4 when a connection joins | 131,072 | 10,000 |
//! | a ping | 1 | 1 when a connection joins | 4,000 | 4,000 |
//! | a cancellation | 1 | 1 for each request of the peer | 8,192 | 1,000 |
//! | a request beyond `max_requests`, for which another had to go | 1 | | 16,384 | 10,000 |
//! | a reply that nobody waits for | 1 | 1 for each request of ours | 65,536 | 1,000 |
//! | a frame of a kind that this version does not know | 1 | | 10,000 | 1,000 |
//!
//! When a bucket is empty the frame is [`Violation::Flood`], which ends the connection. The buckets belong
//! to the link: a new connection does not fill them. Nobody would tune these numbers, so they are no
//! settings.
//!
//! Why an honest sender stays within them:
//! - It cuts a chunk short only at the end of a message, at the end of the credit, or where the batch of at
//!   least 16 KiB ends (which earned 256 chunks). One vote in each chunk, 100,000 a second, costs nothing.
//!   After a lane has moved it sends again what was under way, in chunks as full as before.
//! - It acknowledges when a chunk arrived, and when its application has taken a message: once for each at
//!   most. Only credit that comes back from an earlier life's messages is not paid for; the bucket takes
//!   twice as many of them as a lane's default `max_untaken`.
//! - On each of three connections, and a successor, it has one ping under way at a time, at most one each
//!   millisecond ([`Config`] allows no shorter interval).
//! - It cancels a request once. It may have more requests open than this side allows, for the number is not
//!   agreed: 10,000 a second may be too many before it is ended for it.
//!
//! # The work that one read can cause
//! One read takes at most 64 KiB from the socket, or a piece of one chunk of at most 1 MiB whose memory was
//! reserved when its length had been checked. The smallest frame has 4 bytes: 16,384 frames at most, handed
//! to the link 256 at a time; the link is locked for no more than those. A frame is copied once into memory
//! of its own length; the lists in it have 64 entries at most, of 32 bytes each. A chunk of 1 MiB holds
//! 262,144 empty messages at most, of which `max_untaken` are accepted. So under one lock at most
//! 1 MiB + 64 KiB of a lane's stream are parsed, and the memory is bounded by `max_untaken` and the window.
//!
//! [`Config`]: crate::Config

use std::time::Instant;

use crate::bucket::Bucket;

use super::Violation;

/// The bytes that a chunk should carry.
const CHUNK_WORTH: usize = 64;
/// A chunk of which every byte came before should carry so many times as many.
const OLD_BYTES: f64 = 16.0;

/// The budgets of a link, and how often each was drawn on.
#[derive(Clone, Debug)]
pub(crate) struct FrameMeter {
    chunks: Bucket,
    acks: Bucket,
    pings: Bucket,
    cancels: Bucket,
    overcommitted: Bucket,
    replies: Bucket,
    hints: Bucket,
    pub(crate) counts: FloodGuard,
}

/// Frames that cost more than they brought, since the link began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FloodGuard {
    pub(crate) poor_chunks: u64,
    pub(crate) poor_acks: u64,
    pub(crate) pings: u64,
    pub(crate) cancels: u64,
    pub(crate) overcommitted: u64,
    pub(crate) late_replies: u64,
    pub(crate) hints: u64,
}

/// The contents of a chunk, as far as they count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameCosts {
    pub(crate) new_bytes: usize,
    pub(crate) old_bytes: usize,
    pub(crate) messages: u64,
}

impl Default for FrameMeter {
    fn default() -> Self {
        FrameMeter {
            chunks: Bucket::new(16_384.0, 262_144.0),
            acks: Bucket::new(10_000.0, 131_072.0).saving(1_048_576.0),
            pings: Bucket::new(4_000.0, 4_000.0),
            cancels: Bucket::new(1_000.0, 8_192.0),
            overcommitted: Bucket::new(10_000.0, 16_384.0),
            replies: Bucket::new(1_000.0, 65_536.0),
            hints: Bucket::new(1_000.0, 10_000.0),
            counts: FloodGuard::default(),
        }
    }
}

impl FrameMeter {
    /// `max_chunk`: the largest chunk that this node sends, hence what it expects of others. Only
    /// simulations have it below 1 KiB.
    pub(crate) fn handle_chunk(
        &mut self,
        brought: FrameCosts,
        max_chunk: usize,
        now: Instant,
    ) -> Result<(), Violation> {
        let worth = CHUNK_WORTH.min(max_chunk / 16) as f64;
        let paid =
            brought.new_bytes as f64 + brought.old_bytes as f64 / OLD_BYTES + brought.messages as f64 * worth;
        if paid >= worth {
            self.chunks.refund(paid - worth);
            return Ok(());
        }
        self.counts.poor_chunks += 1;
        acquire(&mut self.chunks, worth - paid, "chunks that carry next to nothing", now)
    }

    /// Our acknowledgement raised the limit of a lane: the peer may send up to it and no further.
    pub(crate) fn handle_granted(&mut self) {
        self.chunks.refund(CHUNK_WORTH as f64);
    }

    /// One lane of an acknowledgement, which ended so many of our messages.
    pub(crate) fn handle_ack(&mut self, ended: usize, now: Instant) -> Result<(), Violation> {
        if ended > 0 {
            return Ok(());
        }
        self.counts.poor_acks += 1;
        acquire(&mut self.acks, 1.0, "acknowledgements of next to nothing", now)
    }

    /// We sent a chunk: its arrival is worth an acknowledgement.
    pub(crate) fn handle_chunk_sent(&mut self) {
        self.acks.refund(1.0);
    }

    /// We told of stale messages of a lane: the peer says that it knows.
    pub(crate) fn handle_stale_told(&mut self) {
        self.acks.refund(1.0);
    }

    /// A connection joined: the state of each lane is told again, and once more when a lane moves to it
    /// or from it. Its first ping goes at once.
    pub(crate) fn handle_joined(&mut self, lanes: usize) {
        self.pings.refund(1.0);
        self.acks.refund(4.0 * lanes as f64);
    }

    pub(crate) fn handle_ping(&mut self, now: Instant) -> Result<(), Violation> {
        self.counts.pings += 1;
        acquire(&mut self.pings, 1.0, "pings", now)
    }

    /// The peer opened a request; `overcommitted` if another one had to go for it.
    pub(crate) fn handle_request(&mut self, overcommitted: bool, now: Instant) -> Result<(), Violation> {
        self.cancels.refund(1.0);
        if !overcommitted {
            return Ok(());
        }
        self.counts.overcommitted += 1;
        acquire(&mut self.overcommitted, 1.0, "requests beyond those that may be open", now)
    }

    pub(crate) fn handle_cancel(&mut self, now: Instant) -> Result<(), Violation> {
        self.counts.cancels += 1;
        acquire(&mut self.cancels, 1.0, "cancellations", now)
    }

    /// We asked something: one reply to it may come late.
    pub(crate) fn handle_asked(&mut self) {
        self.replies.refund(1.0);
    }

    pub(crate) fn handle_late_reply(&mut self, now: Instant) -> Result<(), Violation> {
        self.counts.late_replies += 1;
        acquire(&mut self.replies, 1.0, "replies that nobody asked for", now)
    }

    pub(crate) fn handle_hint(&mut self, now: Instant) -> Result<(), Violation> {
        self.counts.hints += 1;
        acquire(&mut self.hints, 1.0, "frames of unknown kinds", now)
    }

    /// Hardly any room, and hardly any that comes with time: only what is free or earned gets through.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn tighten(&mut self) {
        self.chunks = Bucket::new(0.0, 64.0 * CHUNK_WORTH as f64);
        for bucket in
            [&mut self.acks, &mut self.cancels, &mut self.overcommitted, &mut self.replies, &mut self.hints]
        {
            bucket.tighten(20.0, 128.0);
        }
        // A simulated node that has learned to ping often does so 33 times a second, on each connection.
        self.pings.tighten(200.0, 128.0);
    }
}

fn acquire(bucket: &mut Bucket, cost: f64, what: &'static str, now: Instant) -> Result<(), Violation> {
    if bucket.acquire(cost, now) { Ok(()) } else { Err(Violation::Flood { what }) }
}

#[cfg(test)]
mod tests;
