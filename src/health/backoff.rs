//! When to dial again: at once, then after a random part of a bound that doubles (full jitter, as in
//! "Exponential Backoff And Jitter", AWS Architecture Blog, 2015), so that nodes that lost a peer
//! together do not come back together.

use std::time::Duration;

#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    /// Attempts since the last success.
    attempts: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        Backoff { first, max, attempts: 0 }
    }

    /// How long to wait before the next attempt. The first comes at once.
    pub(crate) fn next(&mut self, rng: &mut fastrand::Rng) -> Duration {
        let bound = self.bound();
        self.attempts = self.attempts.saturating_add(1);
        bound.mul_f64(rng.f64())
    }

    pub(crate) fn succeed(&mut self) {
        self.attempts = 0;
    }

    /// Skips the attempt at once: the peer said that it is going away.
    pub(crate) fn not_at_once(&mut self) {
        self.attempts = self.attempts.max(1);
    }

    fn bound(&self) -> Duration {
        match self.attempts {
            0 => Duration::ZERO,
            n => self.first.saturating_mul(1 << (n - 1).min(30)).min(self.max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_once_then_doubling_to_the_maximum_and_jitter_below() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));
        assert_eq!(backoff.next(&mut rng), Duration::ZERO);
        let bounds: Vec<_> = (0..10)
            .map(|_| {
                let bound = backoff.bound();
                backoff.next(&mut rng);
                bound.as_millis()
            })
            .collect();
        assert_eq!(bounds, [500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000, 60000]);
        let waits: Vec<_> = (0..1000).map(|_| backoff.next(&mut rng)).collect();
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(60)));
        assert!(waits.iter().any(|wait| *wait < Duration::from_secs(10)));
        assert!(waits.iter().any(|wait| *wait > Duration::from_secs(50)));
        backoff.succeed();
        assert_eq!(backoff.next(&mut rng), Duration::ZERO);
    }
}
