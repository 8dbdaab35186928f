//! Messages that expire at the receiver: the clocks that their times are read by, and the ranges of a stream
//! in which they were dropped.
//!
//! A message with an expiry carries the time at which it is worth nothing, by its sender's clock. A PONG
//! carries the time of that clock, too. The receiver so knows a lower bound of the sender's clock, and drops
//! what has expired by it when the application would take the message. It says so to the sender until that
//! has said that it knows:
//!
//! ```text
//!             a message is stale        ACK with the range              ACK with `settled`
//!   receiver  ------------------> unsettled --------------> ... ------------------------> forgotten
//!   sender                                    the messages in it end as expired, not as taken
//! ```
//!
//! Invariants:
//! - [`PeerClock::now`] is never ahead of the peer's clock by more than the drift of the two clocks since the
//!   last PONG, of which [`DRIFT`] is taken off. A message is never dropped too early, and dropped too late
//!   by the time that a PONG was under way at most.
//! - Each frame that says that something up to `n` was taken names all unsettled ranges below `n`, so that
//!   the sender never ends a message as taken that was dropped.
//! - Ranges ascend, do not overlap, and no message with an expiry in one of them was given to the
//!   application. There are at most [`MAX_UNSETTLED`] for a lane: a message that would begin another one is
//!   given to the application although it is stale.
//! - The sender looks at each message of its stream at most once, whatever ranges the peer names.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::lane::LaneId;
use crate::wire::control::{MAX_LANES, MAX_STALE, StaleRange};

/// The bit of HELLO's features: the sender drops messages that have expired when they arrive, and tells so.
pub(super) const EXPIRES_ON_ARRIVAL: u64 = 1;

/// The most ranges that a lane's receiver tells of.
const MAX_UNSETTLED: usize = 3;
const _: () = assert!(MAX_UNSETTLED * MAX_LANES <= MAX_STALE);

/// One part in so many is taken off what has passed since the last PONG: 500 ppm is as far as NTP slews a
/// clock (adjtimex(2)).
const DRIFT: u32 = 2000;

/// This side's clock: milliseconds since it was first looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OwnClock {
    origin: Option<Instant>,
}

impl OwnClock {
    pub(super) fn now(&mut self, now: Instant) -> u64 {
        self.since_origin(now, now).as_millis() as u64
    }

    /// The first millisecond that is not before `at`.
    pub(super) fn at(&mut self, at: Instant, now: Instant) -> u64 {
        self.since_origin(at, now).as_nanos().div_ceil(1_000_000) as u64
    }

    fn since_origin(&mut self, at: Instant, now: Instant) -> Duration {
        at.saturating_duration_since(*self.origin.get_or_insert(now))
    }
}

/// A lower bound of the peer's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerClock {
    /// At this instant it showed at least `millis`.
    at: Instant,
    millis: u64,
}

impl PeerClock {
    /// A lower bound of the time that it shows.
    pub(super) fn now(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.at);
        self.millis.saturating_add((passed - passed / DRIFT).as_millis() as u64)
    }

    /// A PONG has come that says `millis`, after this round trip. An earlier bound counts as far as it
    /// can be true: when a computer sleeps its clock may stand still.
    pub(super) fn observe(before: Option<Self>, millis: u64, round_trip: Duration, now: Instant) -> Self {
        let latest = millis.saturating_add(round_trip.as_millis() as u64);
        let known = before.map_or(millis, |before| before.now(now));
        PeerClock { at: now, millis: known.clamp(millis, latest) }
    }
}

/// The parts of a lane's stream in which messages have expired before the application took them, and of
/// which the sender may not know yet.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    ranges: VecDeque<(u64, u64)>,
    /// The end of the last message with an expiry that the application got.
    fresh: u64,
}

impl Unsettled {
    /// A message of the stream from `from` to `to` is stale. Returns false if it is to be given to the
    /// application all the same.
    pub(super) fn add(&mut self, from: u64, to: u64) -> bool {
        let full = self.ranges.len() == MAX_UNSETTLED;
        match self.ranges.back_mut() {
            Some((_, end)) if *end >= self.fresh => *end = to,
            _ if full => return false,
            _ => self.ranges.push_back((from, to)),
        }
        true
    }

    /// The application has got a message with an expiry that ends at `to`.
    pub(super) fn handle_fresh(&mut self, to: u64) {
        self.fresh = to;
    }

    /// The sender knows of what ends up to here.
    pub(super) fn settle(&mut self, to: u64) {
        while self.ranges.front().is_some_and(|(_, end)| *end <= to) {
            self.ranges.pop_front();
        }
    }

    pub(super) fn ranges(&self, lane: LaneId) -> impl Iterator<Item = StaleRange> {
        self.ranges.iter().map(move |(from, to)| StaleRange { lane, from: *from, to: *to })
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn check(&self, received: u64) {
        let ends: Vec<u64> = self.ranges.iter().flat_map(|(from, to)| [*from, *to]).collect();
        assert!(ends.is_sorted() && ends.last().is_none_or(|last| *last <= received));
        assert!(self.ranges.len() <= MAX_UNSETTLED);
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_peers_clock_is_never_ahead_and_learns_from_quick_answers() {
        let start = Instant::now();
        // The peer's clock shows 1,000 more than what has passed here. The answer was under way for 40 ms.
        let clock = PeerClock::observe(None, 1_000 + 60, 100 * MS, start + 100 * MS);
        assert_eq!(clock.now(start + 100 * MS), 1_060, "the answer may have come at once");
        // A quicker answer tells more.
        let clock = PeerClock::observe(Some(clock), 1_200 - 1, 2 * MS, start + 200 * MS);
        assert_eq!(clock.now(start + 200 * MS), 1_199);
        // A slow one does not take it away.
        let later = start + 5_000 * MS;
        let clock = PeerClock::observe(Some(clock), 3_000, 4_000 * MS, later);
        assert_eq!(clock.now(later), 1_199 + 4_797, "4,800 ms have passed, less the drift");
        // The peer slept for a minute: its clock shows less than is possible.
        let awake = later + 60_000 * MS;
        let clock = PeerClock::observe(Some(clock), 6_100, 3 * MS, awake);
        assert_eq!(clock.now(awake), 6_103);
    }

    #[test]
    fn a_deadline_is_rounded_up_and_the_time_down() {
        let start = Instant::now();
        let mut clock = OwnClock::default();
        let (early, late) = (Duration::from_micros(1_999), Duration::from_micros(2_001));
        assert_eq!((clock.at(start + late, start), clock.now(start + early)), (3, 1));
    }

    #[test]
    fn stale_messages_behind_each_other_are_one_range_and_there_are_few() {
        let mut unsettled = Unsettled::default();
        let ranges = |unsettled: &Unsettled| {
            let ranges = unsettled.ranges(LaneId(0));
            ranges.map(|range| (range.from, range.to)).collect::<Vec<_>>()
        };
        assert!(unsettled.add(10, 20) && unsettled.add(50, 60));
        assert_eq!(ranges(&unsettled), [(10, 60)], "what is between them cannot expire");
        unsettled.handle_fresh(70);
        assert!(unsettled.add(70, 80));
        unsettled.handle_fresh(90);
        assert!(unsettled.add(90, 100) && unsettled.add(100, 110));
        unsettled.handle_fresh(120);
        assert!(!unsettled.add(120, 130), "told of later, or not at all");
        assert_eq!(ranges(&unsettled), [(10, 60), (70, 80), (90, 110)]);
        unsettled.settle(85);
        assert_eq!(ranges(&unsettled), [(90, 110)]);
        unsettled.handle_fresh(130);
        assert!(unsettled.add(130, 140));
        unsettled.settle(100);
        assert_eq!(ranges(&unsettled), [(90, 110), (130, 140)], "it grew since the sender knew of it");
    }
}
