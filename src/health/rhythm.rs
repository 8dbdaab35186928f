//! Regular traffic from the peer, and whether it has stopped.
//!
//! The side that sends into a path that has died learns of it by its own data. The other side would wait for
//! its next ping, and it may be the only one that can dial. So it takes the end of regular traffic for a
//! reason to ask.
//!
//! ```text
//!            8 gaps between bursts are known         nothing for twice the longest of them
//!   learning ---------------------------------> regular ----------------------------------> asked
//!       ^                                          ^                                           |
//!       +--- this process stood still              +--------------- data comes ----------------+
//! ```
//!
//! A *burst* is the data of 250 ms, so a gap is at least that long and the question comes after 500 ms at the
//! earliest. A pause that was asked about is itself a gap when data comes again: the same pause is not asked
//! about twice until eight more gaps have passed. A question costs one PING and its PONG.

use std::time::{Duration, Instant};

/// Data that comes within this time is one burst.
const BURST: Duration = Duration::from_millis(250);
/// So many gaps in a row are regular.
const GAPS: usize = 8;

#[derive(Debug, Default)]
pub(crate) struct Rhythm {
    /// When the last burst began.
    burst: Option<Instant>,
    /// When data came last.
    last: Option<Instant>,
    /// The last gaps from the beginning of one burst to that of the next.
    gaps: [Duration; GAPS],
    /// How many gaps were seen; the next one is written at this index, modulo [`GAPS`].
    seen: usize,
    asked: bool,
}

impl Rhythm {
    pub(crate) fn handle_data(&mut self, at: Instant) {
        self.last = self.last.max(Some(at));
        self.asked = false;
        let gap = self.burst.map(|burst| at.saturating_duration_since(burst));
        if gap.is_some_and(|gap| gap < BURST) {
            return;
        }
        self.burst = Some(at);
        if let (Some(gap), Some(slot)) = (gap, self.gaps.get_mut(self.seen % GAPS)) {
            *slot = gap;
            self.seen += 1;
        }
    }

    /// This process stood still: the traffic may not have.
    pub(crate) fn handle_pause(&mut self) {
        *self = Rhythm::default();
    }

    /// The peer was asked.
    pub(crate) fn handle_asked(&mut self) {
        self.asked = true;
    }

    /// When the traffic counts as stopped. `None` if it is not regular, or if the peer was asked already.
    pub(crate) fn stopped_at(&self) -> Option<Instant> {
        let longest = self.gaps.iter().max().filter(|_| self.seen >= GAPS && !self.asked)?;
        self.last?.checked_add(*longest * 2)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Data at these times, in milliseconds. Returns how long after the last of them the traffic counts as
    /// stopped.
    fn stops_after(times: impl IntoIterator<Item = u32>) -> Option<Duration> {
        let start = Instant::now();
        let (mut rhythm, mut last) = (Rhythm::default(), start);
        for time in times {
            last = start + MS * time;
            rhythm.handle_data(last);
        }
        rhythm.stopped_at().map(|at| at - last)
    }

    #[test]
    fn regular_traffic_has_stopped_after_two_gaps() {
        assert_eq!(stops_after((0..20).map(|n| n * 1_000)), Some(MS * 2_000));
        assert_eq!(stops_after((0..20).map(|n| n * 1_000 + n % 2 * 300)), Some(MS * 2_600));
    }

    #[test]
    fn a_stream_is_bursts_of_a_quarter_of_a_second() {
        assert_eq!(stops_after((0..1_000).map(|n| n * 10)), Some(MS * 500));
        // Every two seconds forty messages within 200 ms.
        assert_eq!(stops_after((0..400).map(|n| n / 40 * 2_000 + n % 40 * 5)), Some(MS * 4_000));
    }

    #[test]
    fn few_messages_are_not_regular() {
        assert_eq!(stops_after([]), None);
        assert_eq!(stops_after((0..8).map(|n| n * 1_000)), None);
        assert_eq!(stops_after((0..9).map(|n| n * 1_000)), Some(MS * 2_000));
    }

    #[test]
    fn a_pause_among_the_last_gaps_is_not_asked_about() {
        let start = Instant::now();
        let mut rhythm = Rhythm::default();
        let (mut at, mut asked) = (start, 0);
        // A second of traffic, four seconds of nothing.
        for _ in 0..100 {
            for _ in 0..5 {
                at += MS * 250;
                rhythm.handle_data(at);
            }
            at += MS * 4_000;
            if rhythm.stopped_at().is_some_and(|stopped| stopped <= at) {
                rhythm.handle_asked();
                assert_eq!(rhythm.stopped_at(), None);
                asked += 1;
            }
        }
        assert_eq!(asked, 0, "each pause is among the last eight gaps");
        for _ in 0..20 {
            at += MS * 250;
            rhythm.handle_data(at);
        }
        assert_eq!(rhythm.stopped_at(), Some(at + MS * 500));
        rhythm.handle_pause();
        assert_eq!(rhythm.stopped_at(), None);
    }
}
