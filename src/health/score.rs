//! How well a peer has done lately: a number from 0 (never answers) to 1 (always does).
//!
//! score = good / (good + bad). Both sums lose half of their weight every minute, so the last few
//! minutes count; a new peer starts with one good mark.
//!
//! | what happened | mark |
//! |---|---|
//! | a connection ends over which something of ours was answered | 1 good |
//! | a minute without trouble | 1 good |
//! | a connection turned suspect | 1 bad |
//! | a connection was lost without goodbye | 2 bad |
//! | a dial failed | 1 bad |
//!
//! Examples: always well 1.0; one loss after an hour of health 0.5, back at 0.9 after three minutes;
//! a peer that was dialled five times without an answer 0.17.

use std::time::{Duration, Instant};

const HALF_LIFE: Duration = Duration::from_secs(60);
/// What a peer that does nothing wrong converges to.
const GOOD_PER_HALF_LIFE: f64 = 1.0;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Score {
    good: f64,
    bad: f64,
    at: Option<Instant>,
}

impl Default for Score {
    fn default() -> Self {
        Score { good: 1.0, bad: 0.0, at: None }
    }
}

impl Score {
    pub(crate) fn good(&mut self, mark: f64, now: Instant) {
        self.decay(now);
        self.good += mark;
    }

    pub(crate) fn bad(&mut self, mark: f64, now: Instant) {
        self.decay(now);
        self.bad += mark;
    }

    pub(crate) fn value(mut self, now: Instant) -> f64 {
        self.decay(now);
        self.good / (self.good + self.bad)
    }

    fn decay(&mut self, now: Instant) {
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.at = Some(now);
        let halves = passed.as_secs_f64() / HALF_LIFE.as_secs_f64();
        let left = 0.5f64.powf(halves);
        // The continuous sum of GOOD_PER_HALF_LIFE marks that decay likewise, never below 1.
        self.good = (self.good * left).max(1.0) + GOOD_PER_HALF_LIFE * (1.0 - left);
        self.bad *= left;
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_examples_of_the_documentation() {
        let mut now = Instant::now();
        let mut score = Score::default();
        for _ in 0..60 {
            score.good(0.0, now);
            now += MINUTE;
        }
        assert!((score.value(now) - 1.0).abs() < 1e-9);
        score.bad(2.0, now);
        assert!((0.4..0.6).contains(&score.value(now)), "{}", score.value(now));
        assert!(score.value(now + 3 * MINUTE) > 0.85, "{}", score.value(now + 3 * MINUTE));

        let mut absent = Score::default();
        (0..5).for_each(|_| absent.bad(1.0, now));
        assert!(absent.value(now) < 0.2);
    }
}
