//! How many replacements of connections that still serve a node makes in a minute.
//!
//! The last minute is remembered, one instant for each. A bucket that refills would let almost twice as
//! many through in the first minute after a quiet time; this is the number that the setting names.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct ReplacementLimit {
    max: usize,
    /// In order, at most `max`, and whether they were for a named peer.
    made: VecDeque<(Instant, bool)>,
}

impl ReplacementLimit {
    pub(super) fn new(max: u32) -> Self {
        ReplacementLimit { max: max as usize, made: VecDeque::new() }
    }

    /// When the next one may be made; `None`: now. Half of them are for named peers alone; a limit of one has
    /// no halves.
    pub(super) fn free_at(&self, named: bool, now: Instant) -> Option<Instant> {
        let all = nth_last(self.made.iter().map(|(at, _)| *at), self.max);
        let of_strangers = self.made.iter().filter(|(_, named)| !named).map(|(at, _)| *at);
        let stranger = nth_last(of_strangers, (self.max / 2).max(1)).filter(|_| !named);
        all.max(stranger).map(|at| at + MINUTE).filter(|at| *at > now)
    }

    /// One is made.
    pub(super) fn note(&mut self, named: bool, now: Instant) {
        self.made.push_back((now, named));
        while self.made.len() > self.max {
            self.made.pop_front();
        }
    }

    pub(super) fn in_last_minute(&self, now: Instant) -> usize {
        self.made.iter().filter(|(at, _)| *at + MINUTE > now).count()
    }
}

/// The one that has to be a minute old before there is room.
fn nth_last(mut made: impl DoubleEndedIterator<Item = Instant>, n: usize) -> Option<Instant> {
    made.nth_back(n.checked_sub(1)?)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.
mod tests {
    use super::*;

    #[test]
    fn never_more_than_the_bound_in_any_minute() {
        let start = Instant::now();
        let mut limit = ReplacementLimit::new(3);
        let mut made = Vec::new();
        for step in 0..2000u32 {
            let now = start + step * Duration::from_millis(100);
            if limit.free_at(true, now).is_none() {
                limit.note(true, now);
                made.push(now);
            }
        }
        assert_eq!(made.len(), 12, "three at once, and three more after each minute");
        assert!(made.windows(4).all(|four| four[3] - four[0] >= MINUTE));
        assert_eq!(limit.in_last_minute(made[11]), 3);
    }

    #[test]
    fn strangers_leave_half_to_named_peers() {
        let start = Instant::now();
        let mut limit = ReplacementLimit::new(5);
        for _ in 0..2 {
            assert_eq!(limit.free_at(false, start), None);
            limit.note(false, start);
        }
        assert_eq!(limit.free_at(false, start), Some(start + MINUTE));
        assert_eq!(limit.free_at(true, start), None);
    }
}
