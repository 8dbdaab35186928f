//! When to dial again: at once, then after a random part of a bound that doubles (full jitter, as in
//! "Exponential Backoff And Jitter", AWS Architecture Blog, 2015), so that nodes that lost a peer
//! together do not come back together. The bound is never more than the time since the first attempt
//! (or `first`, if that is longer): short waits in a row must not make the next one long. So a peer that was
//! away for t is dialled again by 2 t.

use std::time::{Duration, Instant};

#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    /// Attempts since the last success.
    attempts: u32,
    /// When the first of them was.
    since: Option<Instant>,
}

impl Backoff {
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        Backoff { first, max, attempts: 0, since: None }
    }

    /// How long to wait before the next attempt. The first comes at once.
    pub(crate) fn next(&mut self, now: Instant, rng: &mut fastrand::Rng) -> Duration {
        let tried_for = now.saturating_duration_since(*self.since.get_or_insert(now));
        let bound = self.bound().min(self.first.max(tried_for));
        self.attempts = self.attempts.saturating_add(1);
        bound.mul_f64(rng.f64())
    }

    pub(crate) fn succeed(&mut self) {
        (self.attempts, self.since) = (0, None);
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
#[allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.
mod tests {
    use super::*;

    #[test]
    fn at_once_then_doubling_to_the_maximum_and_jitter_below() {
        let mut now = Instant::now();
        let mut rng = fastrand::Rng::with_seed(1);
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));
        assert_eq!(backoff.next(now, &mut rng), Duration::ZERO);
        let bounds: Vec<_> = (0..10)
            .map(|_| {
                let bound = backoff.bound();
                now += bound;
                backoff.next(now, &mut rng);
                bound.as_millis()
            })
            .collect();
        assert_eq!(bounds, [500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000, 60000]);
        let waits: Vec<_> = (0..1000).map(|_| backoff.next(now, &mut rng)).collect();
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(60)));
        assert!(waits.iter().any(|wait| *wait < Duration::from_secs(10)));
        assert!(waits.iter().any(|wait| *wait > Duration::from_secs(50)));
        backoff.succeed();
        assert_eq!(backoff.next(now, &mut rng), Duration::ZERO);
    }

    #[test]
    fn a_peer_that_was_away_is_dialled_again_within_twice_that() {
        let first = Duration::from_millis(500);
        for seed in 0..1000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut backoff = Backoff::new(first, Duration::from_secs(60));
            let start = Instant::now();
            let mut now = start;
            for _ in 0..20 {
                let wait = backoff.next(now, &mut rng);
                assert!(wait <= (now - start).max(first), "seed {seed}: {wait:?} after {:?}", now - start);
                now += wait;
            }
            assert!(now - start > Duration::from_secs(5), "seed {seed}: a hammer");
        }
    }
}
