//! How much of a lane may be under way to this side while urgent messages come by the same connection.
//!
//! What a peer sends faster than the reader takes it stands in the kernel's receive buffer, which Linux lets
//! grow to tens of megabytes (`tcp_rmem`, tcp(7); 15 MiB measured on loopback), and an urgent message stands
//! behind it. While urgent messages come, the other lanes get no more credit beyond what was received than
//! fills the path:
//!
//! ```text
//! least + 1.5 x rate x round trip, at most the window
//! ```
//!
//! More than the bandwidth-delay product, so that a sender that is held up by credit alone gets faster with
//! every round trip; its queue on the way is as long as what is more. The round trip is the longer of two
//! that do not wait for the reader, or it would keep the buffer full: that of the kernel, which ends at a
//! proxy if there is one, and the least of a PING. Until a PING was answered the window is all that counts.
//!
//! Invariant: the rate is never more than the fastest that was measured.

use std::time::{Duration, Instant};

/// Urgent messages are expected for so long after one has come.
pub(super) const URGENT_FOR: Duration = Duration::from_secs(10);

/// So much may always be under way. With less, the wait for credit costs throughput where threads wait for
/// a processor (measured on 2 of them, loopback). In tests of the link so little that it matters.
pub(super) const LEAST: u64 = if cfg!(test) { 512 } else { 2 << 20 };

/// The share of the bandwidth-delay product that may be under way beside that.
const GAIN: f64 = 1.5;

/// The rate is measured over this time, or a round trip if that is longer.
const SAMPLE: Duration = Duration::from_millis(10);

/// The rate at which the bytes of a lane come while they come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    since: Option<Instant>,
    bytes: u64,
    per_second: f64,
}

impl Rate {
    pub(super) fn handle_received(&mut self, bytes: usize, round_trip: Duration, now: Instant) {
        self.bytes += bytes as u64;
        let passed = now.saturating_duration_since(*self.since.get_or_insert(now));
        let whole = SAMPLE.max(round_trip);
        if passed < whole {
            return;
        }
        // A longer time had pauses in it, which say nothing of what the path can carry.
        if passed < whole * 2 {
            let sample = self.bytes as f64 / passed.as_secs_f64();
            self.per_second = sample.max(self.per_second * 0.9);
        }
        (self.since, self.bytes) = (Some(now), 0);
    }

    /// How many bytes may be under way beyond those received.
    pub(super) fn under_way(&self, round_trip: Duration) -> u64 {
        LEAST.saturating_add((GAIN * self.per_second * round_trip.as_secs_f64()) as u64)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::clock;
    use crate::config::Config;
    use crate::id::{ConnId, Incarnation};
    use crate::lane::{LaneId, NORMAL, URGENT};
    use crate::link::{Link, NewConn, Output, harness};
    use crate::wire::control::Hello;
    use crate::wire::frame::Frame;

    /// Takes messages of 200 bytes as they come.
    struct Receiver {
        link: Link<bool, ()>,
        received: [u64; 2],
        now: Instant,
    }

    impl Receiver {
        const CONN: ConnId = ConnId(1);

        fn new() -> Self {
            let mut link = harness::link(&Config::default());
            let (now, incarnation) = (clock::now(), Incarnation(1));
            let ours = link.hello(incarnation, 0, false);
            let theirs = Hello { session_id: 1, peer_session_id: Some(ours.session_id), ..ours.clone() };
            let new =
                NewConn { id: Self::CONN, handle: Self::CONN, dialled: true, incarnation, ours, theirs };
            link.attach(&new, now, &mut Output::default()).unwrap();
            Receiver { link, received: [0; 2], now }
        }

        /// Returns how many bytes of the lane may be under way after its next message.
        fn receive(&mut self, lane: LaneId) -> u64 {
            let received = if lane == URGENT { &mut self.received[0] } else { &mut self.received[1] };
            let mut data = 200u32.to_le_bytes().to_vec();
            data.resize(204, 7);
            let frame = Frame::Chunk { lane, flags: 0, offset: *received, data: Bytes::from(data) };
            *received += 204;
            let mut output = Output::default();
            self.link.handle_frame(Self::CONN, frame, self.now, &mut output).unwrap();
            let index = self.link.lanes.iter().position(|of| of.id == lane).unwrap();
            let arrived = self.link.take(index, self.now, &mut output).unwrap();
            self.link.done(index, arrived.ticket, self.now, &mut output);
            let state = self.link.lanes[index].inb.announce();
            state.limit - state.received
        }

        /// The same after as many messages as fill the window.
        fn receive_a_window(&mut self) -> u64 {
            (0..window() / 204).for_each(|_| _ = self.receive(NORMAL));
            self.link.check();
            self.receive(NORMAL)
        }
    }

    fn window() -> u64 {
        Config::default().lanes.iter().find(|lane| lane.id == NORMAL).unwrap().window as u64
    }

    #[test]
    fn beside_urgent_messages_a_lane_gets_credit_for_what_the_path_holds() {
        let mut to = Receiver::new();
        assert_eq!(to.receive_a_window(), window(), "there is no urgent message");
        to.receive(URGENT);
        assert_eq!(to.receive_a_window(), window(), "no round trip is known");
        let conn = to.link.conns.by_id(Receiver::CONN).unwrap();
        conn.score.handle_rtt(Duration::from_millis(1), to.now);
        assert_eq!(to.receive_a_window(), LEAST);
        assert_eq!(to.receive(NORMAL), LEAST);
        to.now += URGENT_FOR;
        assert_eq!(to.receive(NORMAL), window(), "the last urgent message came long ago");
    }

    #[test]
    fn a_sender_held_up_by_credit_alone_gets_faster_until_the_path_is_full() {
        let (mut rate, mut now) = (Rate::default(), clock::now());
        let round_trip = Duration::from_millis(100);
        // The path carries 100 MB/s, 10 MB in a round trip.
        rate.handle_received(0, round_trip, now);
        let mut trips = 0;
        while rate.under_way(round_trip) < 15_000_000 {
            now += round_trip;
            let bytes = rate.under_way(round_trip).min(10_000_000);
            rate.handle_received(bytes as usize, round_trip, now);
            trips += 1;
        }
        // 10 MB are 1.5^24 times `LEAST` of the tests.
        assert!(trips <= 26, "{trips}");
        // The rate of late counts, and pauses do not.
        now += Duration::from_secs(60);
        rate.handle_received(100, round_trip, now);
        assert_eq!(rate.under_way(round_trip), 15_000_000 + LEAST);
        for _ in 0..100 {
            now += round_trip;
            rate.handle_received(10_000, round_trip, now);
        }
        assert!(rate.under_way(round_trip) <= 15_000 + LEAST + 1000);
        assert_eq!(rate.under_way(Duration::ZERO), LEAST);
    }
}
