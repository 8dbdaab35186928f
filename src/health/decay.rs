//! A sum that forgets: what was added loses half of its weight every half-life.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Decaying {
    half_life: Duration,
    sum: f64,
    at: Instant,
}

impl Decaying {
    pub(crate) fn new(half_life: Duration, now: Instant) -> Self {
        Decaying { half_life, sum: 0.0, at: now }
    }

    pub(crate) fn add(&mut self, amount: f64, now: Instant) {
        self.sum = self.value(now) + amount;
        self.at = self.at.max(now);
    }

    pub(crate) fn scale(&mut self, factor: f64) {
        self.sum *= factor;
    }

    pub(crate) fn value(&self, now: Instant) -> f64 {
        self.sum * left(now.saturating_duration_since(self.at), self.half_life)
    }

    /// The sum that one unit a second would have reached since `start`. At least `least` seconds, so that the
    /// first moments do not count for all.
    pub(crate) fn whole(&self, start: Instant, least: f64, now: Instant) -> f64 {
        let gone = 1.0 - left(now.saturating_duration_since(start), self.half_life);
        (self.half_life.as_secs_f64() / std::f64::consts::LN_2 * gone).max(least)
    }
}

/// The part of its weight that something has kept after `age`.
pub(crate) fn left(age: Duration, half_life: Duration) -> f64 {
    0.5f64.powf(age.as_secs_f64() / half_life.as_secs_f64())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.
mod tests {
    use super::*;

    #[test]
    fn half_is_gone_after_the_half_life_and_a_steady_unit_is_the_whole() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut sum = Decaying::new(10 * second, start);
        sum.add(4.0, start);
        assert!((sum.value(start + 10 * second) - 2.0).abs() < 1e-9);
        sum.scale(0.0);
        for tick in 0..300 {
            sum.add(0.1, start + second * tick / 10);
        }
        let now = start + 30 * second;
        let share = sum.value(now) / sum.whole(start, 1.0, now);
        assert!((0.99..1.01).contains(&share), "{share}");
    }
}
