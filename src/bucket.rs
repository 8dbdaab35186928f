//! A token bucket: what may happen at once, and how often in the long run. Pure: time is an argument.
//!
//! Within any span of `t` seconds no more is spent than `burst + rate * t` and what was earned.

use std::time::Instant;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    per_second: f64,
    burst: f64,
    most: f64,
    level: f64,
    at: Option<Instant>,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(per_second: f64, burst: f64) -> Self {
        Bucket { per_second, burst, most: burst, level: burst, at: None }
    }

    /// Earned tokens are kept up to `most`, in addition to those that come with time.
    pub(crate) fn saving(self, most: f64) -> Self {
        Bucket { most, ..self }
    }

    /// Takes `cost` out. False, and nothing is taken, when there is not so much.
    pub(crate) fn acquire(&mut self, cost: f64, now: Instant) -> bool {
        self.refill(now);
        let enough = self.level >= cost;
        if enough {
            self.level -= cost;
        }
        enough
    }

    /// Refunds tokens, up to the capacity.
    pub(crate) fn refund(&mut self, worth: f64) {
        self.level = (self.level + worth).min(self.most);
    }

    /// Nothing is known any longer of whoever it belongs to: it is as good as a new one.
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        let mut later = *self;
        later.refill(now);
        later.level >= later.burst
    }

    /// When it was last spent from.
    pub(crate) fn last_used(&self) -> Option<Instant> {
        self.at
    }

    fn refill(&mut self, now: Instant) {
        let passed = self.at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.level = self.level.max((self.level + passed * self.per_second).min(self.burst));
        self.at = self.at.max(Some(now));
    }

    /// The same with less room: a simulation that stays within it has proved more.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn tighten(&mut self, per_second: f64, burst: f64) {
        *self = Bucket::new(per_second, burst).saving(self.most);
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let now = Instant::now();
        let mut bucket = Bucket::new(2.0, 3.0);
        assert_eq!((0..5).filter(|_| bucket.acquire(1.0, now)).count(), 3);
        let later = now + Duration::from_millis(1600);
        assert_eq!((0..5).filter(|_| bucket.acquire(1.0, later)).count(), 3);
        assert!(!bucket.is_full(later));
        assert!(bucket.is_full(later + Duration::from_secs(2)));
        bucket.refund(100.0);
        assert_eq!((0..5).filter(|_| bucket.acquire(1.0, later)).count(), 3, "never more than the brim");
    }

    proptest! {
        /// Whatever the rhythm, no span has more than its due.
        #[test]
        fn no_span_exceeds_the_bound(gaps in prop::collection::vec(0u64..2_000, 1..200), rate in 1u32..50) {
            let mut now = Instant::now();
            let (rate, burst) = (f64::from(rate), 10.0);
            let mut bucket = Bucket::new(rate, burst);
            let mut spent = Vec::new();
            for gap in gaps {
                now += Duration::from_millis(gap);
                while bucket.acquire(1.0, now) {
                    spent.push(now);
                }
            }
            for (index, from) in spent.iter().enumerate() {
                for (count, to) in spent[index..].iter().enumerate() {
                    let bound = burst + rate * (*to - *from).as_secs_f64() + 1e-6;
                    prop_assert!((count + 1) as f64 <= bound);
                }
            }
        }
    }
}
