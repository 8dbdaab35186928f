//! How many replacements of connections that still serve a node makes in a minute.
//!
//! The last minute is remembered, one instant for each. A bucket that refills would let almost twice as
//! many through in the first minute after a quiet time; this is the number that the setting names.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct StormLimit {
    max: usize,
    /// In order, at most `max`.
    made: VecDeque<Instant>,
}

impl StormLimit {
    pub(super) fn new(max: u32) -> Self {
        StormLimit { max: max as usize, made: VecDeque::new() }
    }

    /// When the next one may be made; `None`: now.
    pub(super) fn free_at(&self, now: Instant) -> Option<Instant> {
        // The one that has to be a minute old before there is room.
        let index = self.made.len().checked_sub(self.max)?;
        self.made.get(index).map(|at| *at + MINUTE).filter(|at| *at > now)
    }

    /// One is made.
    pub(super) fn note(&mut self, now: Instant) {
        self.made.push_back(now);
        while self.made.len() > self.max {
            self.made.pop_front();
        }
    }

    pub(super) fn in_last_minute(&self, now: Instant) -> usize {
        self.made.iter().filter(|at| **at + MINUTE > now).count()
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.
mod tests {
    use super::*;

    #[test]
    fn never_more_than_the_bound_in_any_minute() {
        let start = Instant::now();
        let mut limit = StormLimit::new(3);
        let mut made = Vec::new();
        for step in 0..2000u32 {
            let now = start + step * Duration::from_millis(100);
            if limit.free_at(now).is_none() {
                limit.note(now);
                made.push(now);
            }
        }
        assert_eq!(made.len(), 12, "three at once, and three more after each minute");
        assert!(made.windows(4).all(|four| four[3] - four[0] >= MINUTE));
        assert_eq!(limit.in_last_minute(made[11]), 3);
    }
}
