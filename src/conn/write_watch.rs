//! Whether a write may go on. Pure.
//!
//! A write ends its connection when the peer's kernel has acknowledged nothing for `write_timeout`, and in any case
//! after `longest`: a peer that takes one byte at a time makes progress too. What the kernel has acknowledged is asked
//! for twice per `write_timeout`, never for a write that ends sooner.
//!
//! ```text
//!   0            1/2          1 x write_timeout
//!   |------------|------------|----- - -
//!   begins    first look   nothing acknowledged since: the end; else on from here
//! ```

use std::time::{Duration, Instant};

/// How long a write may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteLimits {
    /// Without progress.
    pub(crate) write_timeout: Duration,
    /// With it.
    pub(crate) longest: Duration,
}

#[derive(Debug)]
pub(super) struct WriteWatch {
    since: Instant,
    looked: Instant,
    /// When progress was seen last.
    moved: Instant,
    acked: Option<u64>,
}

impl WriteWatch {
    pub(super) fn new(now: Instant) -> Self {
        WriteWatch { since: now, looked: now, moved: now, acked: None }
    }

    /// Returns when to check again; an error if the write has taken too long. `acked`: the bytes that the peer's kernel has
    /// acknowledged, if that is known.
    pub(super) fn check(
        &mut self,
        limits: WriteLimits,
        now: Instant,
        acked: impl FnOnce() -> Option<u64>,
    ) -> Result<Instant, ()> {
        let half = limits.write_timeout / 2;
        if now >= self.looked + half {
            self.looked = now;
            let acked = acked();
            if self.acked.is_some() && acked > self.acked {
                self.moved = now;
            }
            self.acked = acked;
        }
        let longest = limits.longest.max(limits.write_timeout);
        let deadline = (self.moved + limits.write_timeout).min(self.since + longest);
        if now >= deadline { Err(()) } else { Ok(deadline.min(self.looked + half)) }
    }

    /// This process stood still for `gap`.
    pub(super) fn handle_pause(&mut self, gap: Duration) {
        for at in [&mut self.since, &mut self.looked, &mut self.moved] {
            *at += gap;
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const LIMITS: WriteLimits =
        WriteLimits { write_timeout: Duration::from_secs(4), longest: Duration::from_secs(20) };

    /// Looks whenever it asks to; returns how long the write was let go on.
    fn lasts(acked: impl Fn(Duration) -> Option<u64>) -> Duration {
        let start = Instant::now();
        let (mut watch, mut now) = (WriteWatch::new(start), start);
        while let Ok(next) = watch.check(LIMITS, now, || acked(now - start)) {
            assert!(next > now);
            now = next;
        }
        now - start
    }

    #[test]
    fn a_write_without_progress_ends_after_the_timeout() {
        assert_eq!(lasts(|_| Some(7)), 4 * S);
        assert_eq!(lasts(|_| None), 4 * S);
        // What was acknowledged in the first half is soon over.
        assert_eq!(lasts(|at| Some(u64::from(at > S))), 4 * S);
    }

    #[test]
    fn a_slow_write_goes_on_for_a_while() {
        assert_eq!(lasts(|at| Some(at.as_secs())), 20 * S);
        assert_eq!(lasts(|at| Some(at.as_secs().min(7))), 12 * S);
    }
}
