//! Whether a write may go on. Pure.
//!
//! A write ends its connection when the peer's kernel has acknowledged nothing for `write_timeout`, and in
//! any case after `longest`: a peer that takes one byte at a time makes progress too. The count of
//! acknowledged bytes is sampled four times per `write_timeout`, never for a write that ends sooner.
//!
//! ```text
//!   0            1/4                        1 x write_timeout
//!   |------------|------------|-----------|-----------|----- - -
//!   begins    first sample   nothing acknowledged since: the end; else on from here
//! ```
//!
//! The kernel waits longer for each retransmission than for the one before, and on a slow link long from the
//! start. As long as it has retransmitted fewer than [`TRIES`] times in a row, its silence proves nothing:
//! the write goes on. A path with a round trip of 300 ms has had so many within 4 s, one of 2 ms within 2 s.

use std::time::{Duration, Instant};

/// Retransmission timeouts in a row after which a path that acknowledges nothing counts as dead.
const TRIES: u8 = 3;

/// A sample of the kernel's state of a write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// The bytes that the peer's kernel has acknowledged, if that is known.
    pub(super) acked: Option<u64>,
    /// Retransmission timeouts in a row without an acknowledgement of anything new.
    pub(super) retransmits: u8,
}

impl Sample {
    /// The kernel is not done with trying.
    fn is_retrying(self) -> bool {
        (1..TRIES).contains(&self.retransmits)
    }
}

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
    sampled: Instant,
    /// When progress was seen last.
    moved: Instant,
    acked: Option<u64>,
}

impl WriteWatch {
    pub(super) fn new(now: Instant) -> Self {
        WriteWatch { since: now, sampled: now, moved: now, acked: None }
    }

    /// Returns when to check again; an error if the write has taken too long.
    pub(super) fn check(
        &mut self,
        limits: WriteLimits,
        now: Instant,
        sample: impl FnOnce() -> Option<Sample>,
    ) -> Result<Instant, ()> {
        let (patience, quarter) = (limits.write_timeout, limits.write_timeout / 4);
        let mut is_retrying = false;
        if now >= self.sampled + quarter || now >= self.moved + patience {
            self.sampled = now;
            let sample = sample();
            let acked = sample.and_then(|sample| sample.acked);
            if self.acked.is_some() && acked > self.acked {
                self.moved = now;
            }
            self.acked = acked;
            is_retrying = sample.is_some_and(Sample::is_retrying);
        }
        let end = self.since + limits.longest.max(patience);
        if now >= end || now >= self.moved + patience && !is_retrying {
            return Err(());
        }
        let next = self.sampled + quarter;
        Ok(if now < self.moved + patience { next.min(self.moved + patience) } else { next }.min(end))
    }

    /// This process stood still for `gap`.
    pub(super) fn handle_pause(&mut self, gap: Duration) {
        for at in [&mut self.since, &mut self.sampled, &mut self.moved] {
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

    /// Checks whenever it asks to; returns how long the write was let go on.
    fn lasts(sample: impl Fn(Duration) -> Sample) -> Duration {
        let start = Instant::now();
        let (mut watch, mut now) = (WriteWatch::new(start), start);
        while let Ok(next) = watch.check(LIMITS, now, || Some(sample(now - start))) {
            assert!(next > now);
            now = next;
        }
        now - start
    }

    fn acked(acked: impl Into<Option<u64>>) -> Sample {
        Sample { acked: acked.into(), retransmits: 0 }
    }

    #[test]
    fn a_write_without_progress_ends_after_the_timeout() {
        assert_eq!(lasts(|_| acked(7)), 4 * S);
        assert_eq!(lasts(|_| acked(None)), 4 * S);
        // Acknowledgements before the first sample are not seen.
        assert_eq!(lasts(|at| acked(u64::from(at >= S))), 4 * S);
        assert_eq!(lasts(|at| acked(u64::from(at >= 2 * S))), 6 * S);
    }

    #[test]
    fn a_slow_write_goes_on_for_a_while() {
        assert_eq!(lasts(|at| acked(at.as_secs())), 20 * S);
        assert_eq!(lasts(|at| acked(at.as_secs().min(7))), 11 * S);
    }

    #[test]
    fn a_kernel_that_has_retransmitted_too_little_has_time_for_more() {
        // The first retransmission after a second, and twice the time for each further one.
        let retransmits = |at: Duration| (at.as_secs() + 1).ilog2() as u8;
        assert_eq!(lasts(|at| Sample { acked: Some(7), retransmits: retransmits(at) }), 7 * S);
        assert_eq!(lasts(|at| Sample { acked: Some(7), retransmits: retransmits(at / 2) }), 14 * S);
        assert_eq!(lasts(|at| Sample { acked: Some(7), retransmits: retransmits(at * 10) }), 4 * S);
        assert_eq!(lasts(|_| Sample { acked: Some(7), retransmits: 1 }), 20 * S);
    }
}
